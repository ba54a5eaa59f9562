"""Many cards into one Zarr store: in parallel, with bounded memory, and resumed where it was interrupted."""

from __future__ import annotations

import errno
import os
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Executor, Future, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from miniscope_xr.errors import MiniscopeError, OptionError, OutputError
from miniscope_xr.source.open import address
from miniscope_xr.tools.export.archive_store import (
    Block,
    opened,
    plan_groups,
    refuse_other,
    store_made,
    tidy,
    write_block,
    writing,
)
from miniscope_xr.tools.export.cluster import by_a_worker, refuse_blind, scheduler, why_it_failed
from miniscope_xr.tools.export.helpers import written_here
from miniscope_xr.tools.stream.arguments import flag, option, positional, runs
from miniscope_xr.tools.stream.libraries import need
from miniscope_xr.tools.stream.outputs import progress_bar


def _plans(
    cards: Sequence[str | os.PathLike[str]], target: str, zarr_format: int, failed: list[MiniscopeError],
    options: Mapping[str, Any],
) -> tuple[list[Block], list[str]]:  # fmt: skip
    """What is to be written of all cards, and the groups it goes to; errors of single cards go to ``failed``."""
    blocks: list[Block] = []
    groups: list[str] = []
    for card in cards:
        try:
            with writing(target):
                more = plan_groups([card], target, zarr_format, groups, **options)
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
        refuse_other(target)


def archive(
    cards: Sequence[str | os.PathLike[str]],
    store: str | os.PathLike[str],
    workers: int | None = None,
    progress: bool = True,
    zarr_format: int = 2,
    cluster: str | None = None,
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
        Processes that write side by side, this one among them; default: one a core.
    progress
        Show a progress bar (on a terminal).
    zarr_format : {2, 3}
        2 is what minian reads.
    cluster
        Address of a dask.distributed scheduler whose workers write the blocks, instead of processes here. They read the
        images, and write the store, by the same paths as this computer.
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
    if cluster is not None:
        if workers is not None:
            raise OptionError("workers are of this computer, cluster has its own; give one of them")
        target = target if "://" in target else os.path.abspath(target)  # noqa: PTH100 (a URL is no path)
    need("dask.array", "archive", "an archive")
    zarr = need("zarr", "archive", "an archive")
    paths = [address(card) for card in cards]
    if cluster is None:
        with store_made(zarr, target, zarr_format):
            return _archive(zarr, cards, target, workers, progress, zarr_format, options)
    with scheduler(cluster) as client, store_made(zarr, target, zarr_format):
        refuse_blind(client, paths, target)
        # a block whose worker ends is given to another one; workers that come meanwhile get their share
        return _archive(zarr, paths, target, client.get_executor(pure=False), progress, zarr_format, options)


def _archive(
    zarr: Any, cards: Sequence[str | os.PathLike[str]], target: str, where: int | Executor | None, progress: bool,
    zarr_format: int, options: Mapping[str, Any],
) -> int:  # fmt: skip
    failed: list[MiniscopeError] = []
    blocks, groups = _plans(cards, target, zarr_format, failed, options)
    written = 0
    frames = sum(block.stop - block.start for block in blocks)
    with progress_bar(frames, "archive", show=progress) as bar, closing(_results(blocks, where)) as results:
        for result in results:
            if isinstance(result, MiniscopeError):
                failed.append(result)
            else:
                written += result
                bar.update(result)
    try:
        with writing(target):
            tidy(zarr, target, groups)
            if zarr_format == 2:
                zarr.consolidate_metadata(target)
    except MiniscopeError as error:
        failed.append(error)
    if failed:
        raise failed[0]
    return written


def _results(blocks: list[Block], where: int | Executor | None) -> Generator[int | MiniscopeError]:
    """Write all blocks; yield the frames of each, or why it failed."""
    there = isinstance(where, Executor)
    with closing(_shared_out(blocks, where)) as todo:
        for item in todo:
            result: int | MiniscopeError
            try:
                with writing(blocks[0].store):
                    result = item.result() if isinstance(item, Future) else write_block(item)
            except MiniscopeError as error:
                result = by_a_worker(error) if there else error
            except BrokenProcessPool:
                why = "a worker was ended by the system, perhaps for want of memory; run it again with fewer workers"
                result = OutputError(errno.ENOMEM, why, blocks[0].store)
            except Exception as error:
                if not there:
                    raise
                result = why_it_failed(error, blocks[0].store)
            yield result
    opened.cache_clear()


def _shared_out(blocks: list[Block], where: int | Executor | None) -> Generator[Block | Future[int]]:
    """Blocks to be written here, and those that are written elsewhere, as it is done."""
    if isinstance(where, Executor):
        yield from as_completed([where.submit(write_block, block) for block in blocks])
    else:
        yield from written_here(blocks, where)


@dataclass(frozen=True, kw_only=True)
class Archiving:
    """``archive``."""

    cards: list[str] = positional("device of a card, image file or URL", "CARD", nargs="+")
    store: str = positional("folder or URL of the Zarr store, for example lab.zarr", "STORE")
    workers: int | None = option("processes (default: one a core)", "N")
    cluster: str | None = option(
        "have the workers of a dask.distributed scheduler write (tcp://HOST:8786); they read the images by the same "
        "paths as this computer", "ADDRESS",
    )  # fmt: skip
    layout: str | None = option("id or file of the cards' layout, where it is not detected")
    gaps: str | None = option("fill: blank frames for lost ones", choices=("skip", "fill"))
    errors: str | None = option("fill: black for bad sectors", choices=("raise", "fill"))
    zarr_format: int = option("2 (default) is what minian reads", default=2, choices=(2, 3))
    quiet: bool = flag("no progress bar, no words")


def _command(args: Archiving) -> int:
    options = {k: v for k, v in (("layout", args.layout), ("gaps", args.gaps), ("errors", args.errors)) if v}
    written = archive(args.cards, args.store, args.workers, not args.quiet, args.zarr_format, args.cluster, **options)
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
    runs(parser, Archiving, _command)
