"""The Zarr store of an archive: which groups and blocks it has, and which are still to be written.

Every recording is a group ``<card>-<fingerprint>/recording_<n>``, written in blocks of some chunks of frames. While
it is being written, an array ``archived`` in that group marks the blocks that are there, so any store that Zarr can
write to can be resumed; with the last block it goes, and what is left is the recording alone. How a recording was
archived is an attribute of the card's group, so a card that is there already is recognised whichever name or reader
it comes with.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from miniscope_xr.card import OpenCard
from miniscope_xr.errors import CardChangedError, MiniscopeError, MissingDependencyError, OutputError, OutputExistsError
from miniscope_xr.layout import Layout, builtin_layouts, load_layout
from miniscope_xr.source.replace import remove_tree
from miniscope_xr.tools.export.patient import writable
from miniscope_xr.tools.stream.libraries import need
from miniscope_xr.tools.stream.outputs import kind_of, parents_made

_MADE = "archive"  # attribute of the card's group, written when a recording's is made: without it, it is made anew
_DONE = "archived"  # array of one flag a block, as long as blocks are missing
_PARTIAL = ".partial"  # ending of a file that Zarr is writing
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
def opened(card: str, recording: int, options: tuple[tuple[str, Any], ...]) -> xr.Dataset:
    """Open a card once in each worker."""
    return xr.open_dataset(card, engine="miniscope", cache=False, recording=recording, **dict(options))


def write_block(block: Block) -> int:
    """Copy one block, mark it, and return its number of frames. Writing it twice does no harm."""
    found = opened(block.card, block.recording, block.options)
    fingerprint = str(found["video"].encoding.get("card", ""))
    if not block.group.partition("/")[0].endswith(f"-{fingerprint[:12]}"):  # a path means something else on a worker
        raise CardChangedError(
            errno.ESTALE, "holds another card than the one that was planned; workers read images by the path given",
            block.card,
        )  # fmt: skip
    ds = found.drop_attrs()
    video = ds[["video"]].drop_vars(list(ds.coords))
    for start in range(block.start, block.stop, block.chunk):
        _copy(video, block, start, min(start + block.chunk, block.stop))
    _copy(ds.drop_vars(["video", "frame"]), block, block.start, block.stop)
    need("zarr", "archive").open_array(writable(block.store), path=f"{block.group}/{_DONE}", mode="r+")[
        block.number
    ] = 1
    return block.stop - block.start


def _copy(ds: xr.Dataset, block: Block, start: int, stop: int) -> None:
    rows = slice(start, stop)
    ds.isel(frame=rows).to_zarr(
        writable(block.store), group=block.group, region={"frame": rows}, consolidated=False,
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
        writable(store), group=group, mode="w", compute=False, consolidated=False, zarr_format=zarr_format,
        encoding={**encoding, _DONE: {"chunks": (1,)}},
    )  # fmt: skip


def _way(layout: Layout, options: dict[str, Any]) -> str:
    """Say how a recording is archived: what would give other frames has other words."""
    plain = replace(layout, source="")
    ours = builtin_layouts().get(layout.id)
    own = "" if ours and replace(ours, source="") == plain else f" ({sha256(repr(plain).encode()).hexdigest()[:8]})"
    said = {"layout": f"{layout.id}{own}", **{k: v for k, v in options.items() if k != "layout"}}
    return "".join(f", {k}={v}" for k, v in sorted(said.items()))


def plan_groups(
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
            attrs = zarr.open_group(writable(store), path=above, mode="r+").attrs
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


def tidy(zarr: Any, store: str, groups: Iterable[str]) -> None:
    """Take the flags out of every recording that is complete, and what processes that were ended left in it.

    Zarr writes a file beside the one it is to replace, which stays there when the process is killed in between. Only
    a complete recording is looked through: in another one it may be the file that somebody is writing.
    """
    for group in groups:
        flags = _flags(zarr, store, group)
        if flags is not None and flags.all():
            for left in [] if "://" in store else Path(store, group).rglob(f"*{_PARTIAL}"):
                left.unlink(missing_ok=True)
            del zarr.open_group(writable(store), path=group, mode="r+")[_DONE]


def refuse_other(target: str) -> None:
    """Raise OutputExistsError for what is there and is no Zarr store: other files are not to be mixed with one."""
    path = Path(target)
    kind = kind_of(path) if target else "nothing"
    if not kind:
        return
    if not target or not path.is_dir():
        raise OutputExistsError(errno.EEXIST, f"is {kind}; an archive is a folder of its own", target)
    with writing(target):
        names = {entry.name for entry in path.iterdir()}
    if names and not names & _METADATA:
        raise OutputExistsError(
            errno.EEXIST, "is a folder of other things and no Zarr store; name a new folder, or an empty one", target
        )


@contextmanager
def store_made(zarr: Any, target: str, zarr_format: int) -> Iterator[None]:
    """Make the store where it is not there; where nothing came into it, as of no card, it is gone again."""
    folder = None if "://" in target or Path(target).exists() else Path(target)
    with parents_made(folder) if folder else nullcontext():
        try:
            zarr.open_group(writable(target), mode="a", zarr_format=zarr_format)
        except ImportError as error:  # fsspec imports what a protocol needs when it is first used
            raise MissingDependencyError(f"{target} needs more to be written: {error}") from error
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise OutputError(errno.EIO, f"is no Zarr store that can be written: {why}", target) from error
        try:
            yield
        finally:
            if folder and {entry.name for entry in folder.iterdir()} <= _METADATA:
                remove_tree(folder)


@contextmanager
def writing(store: str) -> Iterator[None]:
    """Turn what the system says while the store is written (a full disk, no permission) into an OutputError."""
    try:
        yield
    except MiniscopeError:
        raise
    except OSError as error:
        raise OutputError(
            error.errno or errno.EIO, f"cannot be written: {error.strerror or error}; run it again to go on", store
        ) from error
