"""Many cards into one Zarr store: in parallel, with bounded memory, and resumed where it was interrupted.

Every recording becomes a group ``<card>-<fingerprint>/recording_<n>``, written in blocks of some chunks of frames.
While it is being written, an array ``archived`` in that group marks the blocks that are there, so any store that Zarr
can write to can be resumed; with the last block it goes, and what is left is the recording alone. How a recording was
archived is an attribute of the card's group, so a card that is there already is recognised whichever name or reader it
comes with.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from miniscope_xr.card import OpenCard
from miniscope_xr.errors import MiniscopeError, MissingDependencyError, OptionError, OutputError, OutputExistsError
from miniscope_xr.layout import Layout, builtin_layouts, load_layout
from miniscope_xr.tools.arguments import typed
from miniscope_xr.tools.stream.libraries import need
from miniscope_xr.tools.stream.outputs import kind_of, parents_made, progress_bar

_MADE = "archive"  # attribute of the card's group, written when a recording's is made: without it, it is made anew
_DONE = "archived"  # array of one flag a block, as long as blocks are missing
_CHUNKS = 16  # chunks of video in a block, and in a chunk of the coordinates: 17 tiny objects a chunk would be too many


_METADATA = {".zgroup", ".zattrs", ".zmetadata", "zarr.json"}  # of a store without a group in it


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


class Planned(NamedTuple):
    """What is still to be written, and the groups of all recordings."""

    blocks: list[Block]
    groups: list[str]


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


def _way(layout: Layout, options: dict[str, Any]) -> str:
    """Say how a recording is archived: what would give other frames has other words."""
    plain = replace(layout, source="")
    ours = builtin_layouts().get(layout.id)
    own = "" if ours and replace(ours, source="") == plain else f" ({sha256(repr(plain).encode()).hexdigest()[:8]})"
    said = {"layout": f"{layout.id}{own}", **{k: v for k, v in options.items() if k != "layout"}}
    return "".join(f", {k}={v}" for k, v in sorted(said.items()))


def plan(
    cards: Iterable[str | os.PathLike[str]], store: str, zarr_format: int = 2, taken: Sequence[str] = (), **options: Any
) -> Planned:
    """Make the groups of all cards that the store lacks, and list the blocks that are still to be written.

    ``taken`` are groups that are planned already: the same card may be given twice.
    """
    zarr = need("zarr", "archive", "an archive")
    if options.get("layout") is not None:
        options["layout"] = load_layout(options["layout"])  # a mapping cannot be a key, and a file may change meanwhile
    blocks: list[Block] = []
    groups: list[str] = []
    for path in cards:
        name = os.fspath(path)
        errors, old_buffers = options.get("errors", "raise"), options.get("old_buffers", True)
        card = OpenCard(name, options.get("layout"), errors=errors, old_buffers=old_buffers)
        card.close()
        above = _group_of(zarr, store, name, card.fingerprint)
        for recording in card.index.recordings:
            group = f"{above}/recording_{recording.number}"
            if group not in (*taken, *groups):
                way = _way(card.index.layout, options)
                blocks += _blocks(zarr, name, recording.number, group, store, zarr_format, way, options)
                groups.append(group)
    return Planned(blocks, groups)


def _made(zarr: Any, store: str, group: str) -> str | None:
    """How a recording was archived; None where it was not, or where its group is gone."""
    above, _, name = group.rpartition("/")
    try:
        zarr.open_group(store, path=group, mode="r")
        said: str | None = zarr.open_group(store, path=above, mode="r").attrs.get(_MADE, {}).get(name)
        return said
    except (FileNotFoundError, KeyError):
        return None


def _flags(zarr: Any, store: str, group: str) -> Any:
    """One flag a block; None where all of them are written."""
    try:
        return zarr.open_array(store, path=f"{group}/{_DONE}", mode="r")[:]
    except (FileNotFoundError, KeyError):
        return None


def _blocks(
    zarr: Any, card: str, recording: int, group: str, store: str, zarr_format: int, way: str, options: dict[str, Any]
) -> Iterator[Block]:
    key = tuple(sorted(options.items()))
    with xr.open_dataset(card, engine="miniscope", cache=False, recording=recording, **options) as ds:
        frames = ds.sizes["frame"]
        step = ds["video"].encoding["preferred_chunks"].get("frame", frames)
        said = f"{frames} frames in blocks of {_CHUNKS} x {step}{way}"
        made = _made(zarr, store, group)
        if made is None:
            _make(ds, store, group, step, zarr_format)
            above, _, name = group.rpartition("/")
            attrs = zarr.open_group(store, path=above, mode="r+").attrs
            attrs[_MADE] = {**attrs.get(_MADE, {}), name: said}
        elif made != said:
            raise OutputExistsError(
                errno.EEXIST,
                f"holds {group} archived in another way ({made}; now {said}); take the same options or another store",
                store,
            )
    done = _flags(zarr, store, group)
    for number in np.flatnonzero(done == 0).tolist() if done is not None else []:
        start = number * step * _CHUNKS
        yield Block(card, recording, key, store, group, number, start, min(start + step * _CHUNKS, frames), step)


def _tidy(zarr: Any, store: str, groups: Iterable[str]) -> None:
    """Take the flags out of every recording that is complete."""
    for group in groups:
        flags = _flags(zarr, store, group)
        if flags is not None and flags.all():
            del zarr.open_group(store, path=group, mode="r+")[_DONE]


def _plans(
    cards: Sequence[str | os.PathLike[str]], target: str, zarr_format: int, failed: list[MiniscopeError],
    options: Mapping[str, Any],
) -> tuple[list[Block], list[str]]:  # fmt: skip
    """What is to be written of all cards, and the groups it goes to; errors of single cards go to ``failed``."""
    blocks: list[Block] = []
    groups: list[str] = []
    for card in cards:
        try:
            with _writing(target):
                more = plan([card], target, zarr_format, groups, **options)
            blocks += more.blocks
            groups += more.groups
        except MiniscopeError as error:
            failed.append(error)
    return blocks, groups


def _check_target(cards: Sequence[str | os.PathLike[str]], target: str, zarr_format: int) -> None:
    if not cards:
        raise OptionError("no cards to archive; name at least one")
    if zarr_format not in (2, 3):
        raise OptionError(f"zarr_format={zarr_format!r}: expected 2 or 3")
    if "://" not in target:
        _refuse_other(target)


def _refuse_other(target: str) -> None:
    """Raise OutputExistsError for what is there and is no Zarr store: other files are not to be mixed with one."""
    path = Path(target)
    kind = kind_of(path) if target else "nothing"
    if not kind:
        return
    if not target or not path.is_dir():
        raise OutputExistsError(errno.EEXIST, f"is {kind}; an archive is a folder of its own", target)
    with _writing(target):
        names = {entry.name for entry in path.iterdir()}
    if names and not names & _METADATA:
        raise OutputExistsError(
            errno.EEXIST, "is a folder of other things and no Zarr store; name a new folder, or an empty one", target
        )


@contextmanager
def _store_made(zarr: Any, target: str, zarr_format: int) -> Iterator[None]:
    """Make the store where it is not there; where nothing came into it, as of no card, it is gone again."""
    folder = None if "://" in target or Path(target).exists() else Path(target)
    with parents_made(folder) if folder else nullcontext():
        try:
            zarr.open_group(target, mode="a", zarr_format=zarr_format)
        except ImportError as error:  # fsspec imports what a protocol needs when it is first used
            raise MissingDependencyError(f"{target} needs more to be written: {error}") from error
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise OutputError(errno.EIO, f"is no Zarr store that can be written: {why}", target) from error
        try:
            yield
        finally:
            if folder and {entry.name for entry in folder.iterdir()} <= _METADATA:
                shutil.rmtree(folder, ignore_errors=True)


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
    target = os.fspath(store)
    _check_target(cards, target, zarr_format)
    need("dask.array", "archive", "an archive")
    zarr = need("zarr", "archive", "an archive")
    with _store_made(zarr, target, zarr_format):
        return _archive(zarr, cards, target, workers, progress, zarr_format, options)


def _archive(
    zarr: Any, cards: Sequence[str | os.PathLike[str]], target: str, workers: int | None, progress: bool,
    zarr_format: int, options: Mapping[str, Any],
) -> int:  # fmt: skip
    failed: list[MiniscopeError] = []
    blocks, groups = _plans(cards, target, zarr_format, failed, options)
    written = 0
    with progress_bar(sum(b.stop - b.start for b in blocks), "archive", show=progress) as bar:
        for result in _results(blocks, min(workers or os.cpu_count() or 1, len(blocks))):
            if isinstance(result, MiniscopeError):
                failed.append(result)
            else:
                written += result
                bar.update(result)
    try:
        with _writing(target):
            _tidy(zarr, target, groups)
            if zarr_format == 2:
                zarr.consolidate_metadata(target)
    except MiniscopeError as error:
        failed.append(error)
    if failed:
        raise failed[0]
    return written


@contextmanager
def _writing(store: str) -> Iterator[None]:
    """Turn what the system says while the store is written (a full disk, no permission) into an OutputError."""
    try:
        yield
    except MiniscopeError:
        raise
    except OSError as error:
        raise OutputError(
            error.errno or errno.EIO, f"cannot be written: {error.strerror or error}; run it again to go on", store
        ) from error


def _results(blocks: list[Block], workers: int) -> Iterator[int | MiniscopeError]:
    """Write all blocks; yield the frames of each, or why it failed."""
    # fresh processes: a fork would share locks with whatever threads the caller has
    context = multiprocessing.get_context("spawn")
    pool: Any = ProcessPoolExecutor(workers, context) if workers > 1 else nullcontext()
    with pool:
        todo: Iterable[Any] = blocks if workers <= 1 else as_completed(_submitted(pool, blocks))
        for item in todo:
            result: int | MiniscopeError
            try:
                with _writing(blocks[0].store):
                    result = item.result() if isinstance(item, Future) else write_block(item)
            except MiniscopeError as error:
                result = error
            except BrokenProcessPool:
                why = "a worker was ended by the system, perhaps for want of memory; run it again with fewer workers"
                result = OutputError(errno.ENOMEM, why, blocks[0].store)
            yield result
    _opened.cache_clear()


def _submitted(pool: Executor, blocks: list[Block]) -> list[Future[int]]:
    return [pool.submit(write_block, block) for block in blocks]


@dataclass(frozen=True)
class Archiving:
    """``archive``."""

    cards: list[str]
    store: str
    workers: int | None
    layout: str | None
    gaps: str | None
    errors: str | None
    zarr_format: int
    quiet: bool


def _command(args: Archiving) -> int:
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
    parser.set_defaults(func=typed(Archiving, _command))
