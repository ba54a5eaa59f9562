"""Old data on a card: how far it reaches, and a list of it by which a reader finds where a new recording ends.

The list lies beside the journal (``old_buffers.npz``, for ``resume``) and where readers look
(:mod:`miniscope_xr.index.old_buffers`, which describes it).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from miniscope_xr.index.old_buffers import HOME_LISTS, OldBuffers, lists_dir, sector_hash, sudo_caller
from miniscope_xr.layout import SECTOR, Layout, words
from miniscope_xr.source.base import Readable
from miniscope_xr.tools.flash.errors import JournalError
from miniscope_xr.tools.flash.journal import default_dir, save
from miniscope_xr.tools.flash.operation import Change, Progress
from miniscope_xr.tools.flash.target.base import Target

NAME = "old_buffers.npz"
_LOOK_EVERY = 1 << 20
"""Old data shorter than this (11 frames of a v4 recording) may be overlooked; ``wipe --whole`` overlooks nothing."""
_KEEP, _KEEP_TIME = 100, 366 * 86400 * 10**9
"""Lists that stay in any case, and how long (ns) every one stays: a copy of the card may be read long after."""
_APART = 1000  # ns between lists that were written at one moment
_SESSION = re.compile("[0-9a-f]{8,32}")
_LONG = 256
"""Sectors of a buffer or frame up to which its header is looked for wherever it may start."""


def _span(layout: Layout) -> int:
    """Return the bytes that hold at least one whole buffer or frame, wherever they start."""
    largest = max([b.frame_sectors or b.buffer_sectors for b in layout.builds], default=0) or 2048
    return (2 * largest + 1) * SECTOR


def headers_in(data: bytes, layout: Layout) -> NDArray[np.int64]:
    """Find the sectors of ``data`` that look like a buffer header, or (v3) like a frame's last sector."""
    sectors = np.frombuffer(data, np.uint8, len(data) // SECTOR * SECTOR).reshape(-1, SECTOR)
    if layout.buffer:
        dtype = words.buffer_header_dtype(layout, layout.min_words)
        h = np.ascontiguousarray(sectors[:, : dtype.itemsize]).view(dtype)[:, 0]
        largest = max([b.buffer_sectors for b in layout.builds], default=256) * SECTOR
        lengths = layout.header_words or range(layout.min_words, 65)
        good = np.isin(h["length"], list(lengths)) & (h["data_length"] <= largest) & (h["data_length"] > 0)
        good &= (h["frame_buffer_count"] < 1024) & (h["write_buffer_count"] <= h["buffer_count"])
        good &= h["buffer_count"] < 2**31
        if "dropped_buffer_count" in layout.buffer:
            good &= h["dropped_buffer_count"] <= h["buffer_count"]
    else:
        f = np.ascontiguousarray(sectors[:, -16:]).view(words.dtype_of(words.footer_struct(layout)))[:, 0]
        good = (f["frame_num"] < 2**24) & (f["timestamp"] < 2**28)
        if "dma_complete" in layout.footer and "line_count" in layout.footer:
            good &= (f["dma_complete"] == 1) & (f["line_count"] > 0) & (f["line_count"] < 4096)
        good &= sectors[:, -16:].any(axis=1)
    return np.flatnonzero(good)


def find_extents(
    card: Readable,
    layouts: Sequence[Layout],
    progress: Progress | None = None,
    next_data: Callable[[int], int] = lambda at: at,
) -> dict[str, int]:
    """Find where old data ends, by layout: its data's start where nothing looks like a recording of that layout.

    ``next_data`` tells the first byte from another one on that may not be zero (:meth:`Target.next_data`).

    Looks into every MiB of the card, at a stretch long enough to hold a buffer header of any layout (a tenth of a MiB
    for those of the family); frames too long for that are looked for where the first one at the data's start puts them.
    """
    start = min(layout.sectors.data for layout in layouts) * SECTOR
    window = _window(layouts)
    last: dict[str, int] = {}
    for at in range(start, card.size, _LOOK_EVERY):
        if next_data(at) < min(at + _LOOK_EVERY, card.size):
            data = _read(card, at, window)
            blank = data.count(0) == len(data)
            for layout in layouts:
                if (not blank and len(headers_in(data, layout))) or _long_frame(card, layout, at):
                    last[layout.id] = at
        if progress:
            progress("looking for old data", at - start, card.size - start)
    return {layout.id: _end_behind(card, layout, last.get(layout.id, -1)) for layout in layouts}


def _window(layouts: Sequence[Layout]) -> int:
    """Return the bytes in which one header of each layout lies, wherever its buffers (or short frames) start."""
    lengths = [b.buffer_sectors for layout in layouts for b in layout.builds]
    lengths += [b.frame_sectors for layout in layouts for b in layout.builds if b.frame_sectors <= _LONG]
    lengths += [_LONG for layout in layouts if not layout.builds]
    return (max(lengths, default=_LONG) + 1) * SECTOR


def _long_frame(card: Readable, layout: Layout, at: int) -> bool:
    """Tell whether a long frame ends at the first place behind ``at`` where one can: frames stand in a grid."""
    for build in layout.builds:
        if build.frame_sectors > _LONG:
            begun = max(0, at // SECTOR - layout.sectors.data) // build.frame_sectors
            end = (layout.sectors.data + (begun + 1) * build.frame_sectors) * SECTOR
            if end <= card.size and len(headers_in(card.read(end - SECTOR, SECTOR), layout)):
                return True
    return False


def _end_behind(card: Readable, layout: Layout, last: int) -> int:
    """Return the end of the data whose last sign was found in the MiB at ``last`` (-1: nowhere)."""
    if last < 0:
        return layout.sectors.data * SECTOR
    span = _span(layout)
    tail = headers_in(_read(card, last, _LOOK_EVERY + span), layout)
    return min(card.size, last + (int(tail[-1]) + 1) * SECTOR + span) if len(tail) else min(card.size, last + span)


def _read(card: Readable, at: int, length: int) -> bytes:
    return card.read(at, min(length, card.size - at))


def list_buffers(
    target: Target,
    layout: Layout,
    end: int,
    progress: Progress | None = None,
    *,
    also: Sequence[Layout] = (),
    known: dict[tuple[int, int], bytes] | None = None,
) -> OldBuffers:
    """List everything up to ``end`` that looks like a buffer header of ``layout`` (or of ``also``).

    ``known`` takes the hash of each stretch that was read, in the steps in which it may be wiped then.
    """
    size = SECTOR
    start = layout.sectors.data * size
    sectors: list[int] = []
    hashes: list[int] = []
    for at, wanted in Change("data", start, end - start).pieces():
        data = _read(target, at, len(wanted))
        if known is not None:
            known[at, len(data)] = hashlib.sha256(data).digest()
        for i in sorted({i for each in (layout, *also) for i in headers_in(data, each).tolist()}):
            sectors.append(at // size + i)
            hashes.append(sector_hash(data[i * size : (i + 1) * size]))
        if progress:
            progress("listing old data", at - start, end - start)
    return OldBuffers(np.array(sectors, np.int64), np.array(hashes, np.uint64), end)


def save_list(folder: Path, old: OldBuffers, *, layout: str, session: str, card_id: str) -> None:
    """Write the list beside the journal, where ``resume`` looks."""
    save(folder / NAME, replace(old, layout=layout, session=session, card_id=card_id).to_bytes())


def hand_to_reader(folder: Path, backup_dir: Path, session: str) -> Path | None:
    """Write the list where a reader looks for it: among the lists of the person who reads the card.

    That is the one who called ``sudo``, where somebody did, who may read it with ``sudo`` too. With another backup
    folder than the usual one it lies in ``lists`` there besides, and only there if the usual place takes nothing (the
    disk is full). None if there is no list, or no session by which it could be found; else where a reader finds it.
    """
    content = (folder / NAME).read_bytes() if (folder / NAME).exists() else b""
    if not content or not session:
        return None
    other = None if backup_dir == default_dir() else _put(backup_dir / "lists", session, content)
    try:
        with as_caller() as home:
            if home is not None:
                _put(home, session, content)
        return _put(lists_dir(), session, content)
    except JournalError:
        if other is None:
            raise
        return other


def _put(place: Path, session: str, content: bytes) -> Path:
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JournalError(
            error.errno,
            f"cannot be made ({error.strerror}), and a reader needs the list in it to tell old data from new; give "
            "--backup-dir",
            str(place),
        ) from error
    file = place / f"{session}.npz"
    save(file, content)
    with contextlib.suppress(OSError):
        _forget(file)
    return file


def _forget(newest: Path) -> None:
    """Remove lists that nobody reads any more: older than a year, and not among the newest hundred.

    Lists are ordered as journals are: the time of each file is the computer's, or behind the newest there is, so that
    a clock that was set back makes no new list the oldest, and two lists of one moment have an order.
    """
    lists = [file for file in newest.parent.glob("*.npz") if _SESSION.fullmatch(file.stem) and not file.is_symlink()]
    others = {file: file.stat().st_mtime_ns for file in lists if file != newest}
    now = time.time_ns()
    number = max(now, *(at + _APART for at in others.values()), 0)
    os.utime(newest, ns=(number, number))
    for file in sorted(others, key=others.__getitem__, reverse=True)[_KEEP - 1 :]:
        if now - others[file] > _KEEP_TIME:
            file.unlink(missing_ok=True)


@contextlib.contextmanager
def as_caller() -> Iterator[Path | None]:
    """Act as the person who called ``sudo``, and yield that person's folder of lists; None where nobody did.

    What is written then belongs to that person, and no link in his or her folders is followed with root's rights.
    """
    caller = sudo_caller()
    if caller is None:
        yield None
        return
    uid, gid, home = caller
    group = os.getegid()
    os.setegid(gid)
    try:
        os.seteuid(uid)
        try:
            yield home / HOME_LISTS
        finally:
            os.seteuid(0)
    finally:
        os.setegid(group)


def load_list(folder: Path) -> OldBuffers:
    """Read the list of one backup folder."""
    file = folder / NAME
    try:
        return OldBuffers.from_bytes(file.read_bytes())
    except OSError as error:
        raise JournalError(error.errno, f"the list of old data cannot be read: {error.strerror}", str(file)) from error
    except ValueError as error:
        raise JournalError(22, f"this is not a list of old data ({error})", str(file)) from error
