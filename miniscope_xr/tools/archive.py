"""Many cards into one Zarr store: in parallel, with bounded memory, and resumed where it was interrupted.

Every recording becomes a group ``<card>-<fingerprint>/recording_<n>``, written in blocks of some chunks of frames.
A finished block is marked in the store itself (``archived``), so any store that Zarr can write to can be resumed,
and a card that is archived already is recognised whichever name or reader it comes with.
"""

from __future__ import annotations

import argparse
import errno
import multiprocessing
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from miniscope_xr.card import CardStore
from miniscope_xr.errors import MiniscopeError, OptionError, OutputError, OutputExistsError
from miniscope_xr.libraries import need
from miniscope_xr.tools.stream.outputs import kind_of, progress_bar

_MADE = "archive"  # attribute written last when a group is made: without it, the group is made anew
_DONE = "archived"  # array of one flag a block
_CHUNKS = 16  # chunks of video in a block, and in a chunk of the coordinates: 17 tiny objects a chunk would be too many


class Block(NamedTuple):
    """Some chunks of frames of one recording, and where they go."""

    card: str
    recording: int
    options: tuple[tuple[str, Any], ...]
    store: str
    group: str
    number: int
    start: int
    stop: int
    chunk: int


@lru_cache(maxsize=4)
def _opened(card: str, recording: int, options: tuple[tuple[str, Any], ...]) -> xr.Dataset:
    """Open a card once in each worker."""
    return xr.open_dataset(card, engine="miniscope", cache=False, recording=recording, **dict(options))


def write_block(block: Block) -> int:
    """Copy one block, mark it, and return its number of frames. Writing it twice does no harm."""
    ds = _opened(block.card, block.recording, block.options).drop_attrs()
    video = ds[["video"]].drop_vars(list(ds.coords))
    for start in range(block.start, block.stop, block.chunk):
        _copy(video, block, start, min(start + block.chunk, block.stop))
    _copy(ds.drop_vars(["video", "frame"]), block, block.start, block.stop)
    need("zarr", "archive").open_array(block.store, path=f"{block.group}/{_DONE}", mode="r+")[block.number] = 1
    return block.stop - block.start


def _copy(ds: xr.Dataset, block: Block, start: int, stop: int) -> None:
    rows = slice(start, stop)
    ds.isel(frame=rows).to_zarr(
        block.store, group=block.group, region={"frame": rows}, consolidated=False,
        write_empty_chunks=True,  # else every chunk is compared with the fill value, in memory of its own
    )  # fmt: skip


def _name(card: str, fingerprint: str) -> str:
    stem = re.sub(r"[^\w.-]+", "_", PurePath(card.rstrip("/\\")).stem) or "card"
    return f"{stem}-{fingerprint[:12]}"


def _group_of(zarr: Any, store: str, stem: str, fingerprint: str) -> str:
    """Name of the card's group: the one it has in this store, else one of its own name and fingerprint."""
    try:
        names = list(zarr.open_group(store, mode="r").group_keys())
    except (FileNotFoundError, KeyError):
        names = []
    return next((n for n in names if n.endswith(f"-{fingerprint[:12]}")), _name(stem, fingerprint))


def _make(ds: xr.Dataset, store: str, group: str, step: int, zarr_format: int) -> None:
    """Make a recording's group without its pixels."""
    block = step * _CHUNKS
    blocks = -(-ds.sizes["frame"] // block)
    template = ds.drop_encoding().assign({_DONE: ("block", np.zeros(blocks, np.uint8))})
    encoding = {
        str(name): {"chunks": (step if name == "video" else block, *v.shape[1:])}
        for name, v in ds.variables.items()
        if v.dims
    }
    template.chunk(frame=block, block=1).to_zarr(
        store, group=group, mode="w", compute=False, consolidated=False, zarr_format=zarr_format,
        encoding={**encoding, _DONE: {"chunks": (1,)}},
    )  # fmt: skip


def plan(cards: Iterable[str | os.PathLike[str]], store: str, zarr_format: int = 2, **options: Any) -> list[Block]:
    """Make the groups of all cards that the store lacks, and list the blocks that are still to be written."""
    zarr = need("zarr", "archive", "an archive")
    found: list[Block] = []
    for path in cards:
        name = os.fspath(path)
        card = CardStore(name, options.get("layout"), errors=options.get("errors", "raise"))
        card.close()
        group = _group_of(zarr, store, name, card.fingerprint)
        for recording in card.index.recordings:
            found += _blocks(
                zarr, name, recording.number, f"{group}/recording_{recording.number}", store, zarr_format, options
            )
    return found


def _blocks(
    zarr: Any, card: str, recording: int, group: str, store: str, zarr_format: int, options: dict[str, Any]
) -> Iterator[Block]:
    key = tuple(sorted(options.items()))
    with xr.open_dataset(card, engine="miniscope", cache=False, recording=recording, **options) as ds:
        frames, step = ds.sizes["frame"], ds["video"].encoding["preferred_chunks"]["frame"]
        said = f"{frames} frames in blocks of {_CHUNKS} x {step}" + "".join(
            f", {k}={v}" for k, v in key if k != "layout"
        )
        try:
            made = zarr.open_group(store, path=group, mode="r").attrs.get(_MADE)
        except (FileNotFoundError, KeyError):
            made = None
        if made is None:
            _make(ds, store, group, step, zarr_format)
            zarr.open_group(store, path=group, mode="r+").attrs[_MADE] = said
        elif made != said:
            raise OutputExistsError(
                errno.EEXIST,
                f"holds {group} archived in another way ({made}; now {said}); take the same options or another store",
                store,
            )
    done = zarr.open_array(store, path=f"{group}/{_DONE}", mode="r")[:]
    for number in np.flatnonzero(done == 0).tolist():
        start = number * step * _CHUNKS
        yield Block(card, recording, key, store, group, number, start, min(start + step * _CHUNKS, frames), step)


def archive(
    cards: Sequence[str | os.PathLike[str]],
    store: str | os.PathLike[str],
    workers: int | None = None,
    progress: bool = True,
    zarr_format: int = 2,
    **options: Any,
) -> int:
    """Copy cards into one Zarr store; call it again to go on after an interruption.

    Parameters
    ----------
    cards
        Devices, images or URLs.
    store
        Folder, or a URL that Zarr can write to (``s3://...``).
    workers
        Processes; default: one a core.
    progress
        Show a progress bar (on a terminal).
    zarr_format : {2, 3}
        2 is what minian reads.
    options
        ``layout``, ``gaps``, ``errors`` of ``xr.open_dataset(..., engine="miniscope")``.

    Returns
    -------
    int
        Frames written by this call.

    Raises
    ------
    MiniscopeError
        The first error of a card; the other cards are finished first.
    """
    if not cards:
        raise OptionError("no cards to archive; name at least one")
    if zarr_format not in (2, 3):
        raise OptionError(f"zarr_format={zarr_format!r}: expected 2 or 3")
    target = os.fspath(store)
    if "://" not in target and Path(target).exists() and not Path(target).is_dir():
        raise OutputExistsError(errno.EEXIST, f"is {kind_of(Path(target))}; an archive is a folder", target)
    need("dask.array", "archive", "an archive")
    zarr = need("zarr", "archive", "an archive")
    try:
        zarr.open_group(target, mode="a", zarr_format=zarr_format)
    except (OSError, ValueError) as error:
        raise OutputError(errno.EIO, f"is no Zarr store that can be written: {error}", target) from error
    failed: list[MiniscopeError] = []
    blocks: list[Block] = []
    for card in cards:
        try:
            blocks += plan([card], target, zarr_format, **options)
        except MiniscopeError as error:
            failed.append(error)
    written = 0
    with progress_bar(sum(b.stop - b.start for b in blocks), "archive", show=progress) as bar:
        for result in _results(blocks, min(workers or os.cpu_count() or 1, len(blocks))):
            if isinstance(result, MiniscopeError):
                failed.append(result)
            else:
                written += result
                bar.update(result)
    if zarr_format == 2:
        zarr.consolidate_metadata(target)
    if failed:
        raise failed[0]
    return written


def _results(blocks: list[Block], workers: int) -> Iterator[int | MiniscopeError]:
    """Write all blocks; yield the frames of each, or why it failed."""
    # fresh processes: a fork would share locks with whatever threads the caller has
    context = multiprocessing.get_context("spawn")
    pool: Any = ProcessPoolExecutor(workers, context) if workers > 1 else nullcontext()
    with pool:
        todo: Iterable[Any] = blocks if workers <= 1 else as_completed(_submitted(pool, blocks))
        for item in todo:
            try:
                yield item.result() if isinstance(item, Future) else write_block(item)
            except MiniscopeError as error:
                yield error
    _opened.cache_clear()


def _submitted(pool: Executor, blocks: list[Block]) -> list[Future[int]]:
    return [pool.submit(write_block, block) for block in blocks]


def _command(args: argparse.Namespace) -> int:
    options = {k: v for k, v in (("layout", args.layout), ("gaps", args.gaps), ("errors", args.errors)) if v}
    written = archive(args.cards, args.store, args.workers, not args.quiet, args.zarr_format, **options)
    if not args.quiet:
        print(f"{args.store}: {written} frames written" if written else f"{args.store}: all of it is there already")
    return 0


def register(subparsers: Any) -> None:
    """Add ``archive`` to the command line."""
    parser = subparsers.add_parser(
        "archive",
        help="copy many cards into one Zarr store",
        description="Copy cards into one Zarr store, in parallel. Run it again to go on after an interruption; "
        "cards that are in the store already are left alone.",
    )
    parser.add_argument("cards", metavar="CARD", nargs="+", help="device of a card, image file or URL")
    parser.add_argument("store", metavar="STORE", help="folder or URL of the Zarr store, for example lab.zarr")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core)")
    parser.add_argument("--layout", help="id or file of the cards' layout, where it is not detected")
    parser.add_argument("--gaps", choices=("skip", "fill"), help="fill: blank frames for lost ones")
    parser.add_argument("--errors", choices=("raise", "fill"), help="fill: black for bad sectors")
    parser.add_argument("--zarr-format", type=int, choices=(2, 3), default=2, help="2 (default) is what minian reads")
    parser.add_argument("--quiet", action="store_true", help="no progress bar, no words")
    parser.set_defaults(func=_command)
