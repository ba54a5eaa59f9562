"""Old data on a card: how far it reaches, and a list of it by which a reader finds where a new recording ends.

``old_buffers.json`` is ``{"format": 1, "card_id", "session", "layout", "end", "sectors": [...], "hashes": [...]}``:
for every sector that looked like a buffer header (v3: a frame's last sector) before the card was prepared, its number
and the first 8 bytes of its BLAKE2b hash as hex. A sector that still has its hash belongs to an older recording.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miniscope_xr.layout import Layout, words
from miniscope_xr.tools.flash.errors import JournalError
from miniscope_xr.tools.flash.journal import default_dir, journals, save
from miniscope_xr.tools.flash.operation import STEP, Progress
from miniscope_xr.tools.flash.sector import read_stamp
from miniscope_xr.tools.flash.target.linux import SECTOR, Target

NAME = "old_buffers.json"
_LOOK_EVERY = 1 << 20
"""Old data shorter than this (11 frames of a v4 recording) may be overlooked; ``wipe --whole`` overlooks nothing."""
_LONG = 256
"""Sectors of a buffer or frame up to which its header is looked for wherever it may start."""


@dataclass(frozen=True)
class OldBuffers:
    """Sectors that held buffer headers before the card was prepared, and the hashes of their content."""

    sectors: NDArray[np.int64]
    hashes: NDArray[np.uint64]
    end: int
    layout: str = ""
    session: str = ""
    card_id: str = ""

    def is_old(self, sector: int, content: bytes) -> bool:
        """Tell whether this sector still is what it was before the card was prepared."""
        i = int(np.searchsorted(self.sectors, sector))
        return i < len(self.sectors) and int(self.sectors[i]) == sector and int(self.hashes[i]) == sector_hash(content)


def sector_hash(content: bytes) -> int:
    """Return the hash of one sector's content."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")


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
        good &= (h["dropped_buffer_count"] <= h["buffer_count"]) & (h["buffer_count"] < 2**31)
    else:
        f = np.ascontiguousarray(sectors[:, -16:]).view(words.dtype_of(words.footer_struct(layout)))[:, 0]
        good = (f["frame_num"] < 2**24) & (f["timestamp"] < 2**28)
        if "dma_complete" in layout.footer and "line_count" in layout.footer:
            good &= (f["dma_complete"] == 1) & (f["line_count"] > 0) & (f["line_count"] < 4096)
        good &= sectors[:, -16:].any(axis=1)
    return np.flatnonzero(good)


def find_extent(target: Target, layout: Layout, progress: Progress | None = None) -> int:
    """Find where old data of one layout ends: the data's start if nothing on the card looks like a recording."""
    return find_extents(target, [layout], progress)[layout.id]


def find_extents(target: Target, layouts: Sequence[Layout], progress: Progress | None = None) -> dict[str, int]:
    """Find where old data ends, by layout: its data's start where nothing looks like a recording of that layout.

    Looks into every MiB of the card, at a stretch long enough to hold a buffer header of any layout (a tenth of a MiB
    for those of the family); frames too long for that are looked for where the first one at the data's start puts them.
    """
    start = min(layout.sectors.data for layout in layouts) * SECTOR
    window = _window(layouts)
    next_data = getattr(target, "next_data", lambda at: at)
    last: dict[str, int] = {}
    for at in range(start, target.size, _LOOK_EVERY):
        if next_data(at) < min(at + _LOOK_EVERY, target.size):
            data = _read(target, at, window)
            blank = data.count(0) == len(data)
            for layout in layouts:
                if (not blank and len(headers_in(data, layout))) or _long_frame(target, layout, at):
                    last[layout.id] = at
        if progress:
            progress("looking for old data", at - start, target.size - start)
    return {layout.id: _end_behind(target, layout, last.get(layout.id, -1)) for layout in layouts}


def _window(layouts: Sequence[Layout]) -> int:
    """Return the bytes in which one header of each layout lies, wherever its buffers (or short frames) start."""
    lengths = [b.buffer_sectors for layout in layouts for b in layout.builds]
    lengths += [b.frame_sectors for layout in layouts for b in layout.builds if b.frame_sectors <= _LONG]
    lengths += [_LONG for layout in layouts if not layout.builds]
    return (max(lengths, default=_LONG) + 1) * SECTOR


def _long_frame(target: Target, layout: Layout, at: int) -> bool:
    """Tell whether a long frame of this layout ends where, behind ``at``, the grid of its frames has its next end."""
    for build in layout.builds:
        if build.frame_sectors > _LONG:
            begun = max(0, at // SECTOR - layout.sectors.data) // build.frame_sectors
            end = (layout.sectors.data + (begun + 1) * build.frame_sectors) * SECTOR
            if end <= target.size and len(headers_in(target.read(end - SECTOR, SECTOR), layout)):
                return True
    return False


def _end_behind(target: Target, layout: Layout, last: int) -> int:
    """Return the end of the data whose last sign was found in the MiB at ``last`` (-1: nowhere)."""
    if last < 0:
        return layout.sectors.data * SECTOR
    span = _span(layout)
    tail = headers_in(_read(target, last, _LOOK_EVERY + span), layout)
    return min(target.size, last + (int(tail[-1]) + 1) * SECTOR + span) if len(tail) else min(target.size, last + span)


def _read(target: Target, at: int, length: int) -> bytes:
    return target.read(at, min(length, target.size - at))


def list_buffers(
    target: Target, layout: Layout, end: int, progress: Progress | None = None, *, also: Sequence[Layout] = ()
) -> OldBuffers:
    """List everything up to ``end`` that looks like a buffer header of ``layout`` (or of ``also``)."""
    size = SECTOR
    start = layout.sectors.data * size
    sectors: list[int] = []
    hashes: list[int] = []
    for at in range(start, end, STEP):
        data = _read(target, at, min(STEP, end - at))
        for i in sorted({i for each in (layout, *also) for i in headers_in(data, each).tolist()}):
            sectors.append(at // size + i)
            hashes.append(sector_hash(data[i * size : (i + 1) * size]))
        if progress:
            progress("listing old data", at - start, end - start)
    return OldBuffers(np.array(sectors, np.int64), np.array(hashes, np.uint64), end)


def save_list(folder: Path, old: OldBuffers, *, layout: str, session: str, card_id: str) -> None:
    """Write the list beside the journal."""
    content = {
        "format": 1, "card_id": card_id, "session": session, "layout": layout, "end": old.end,
        "sectors": old.sectors.tolist(), "hashes": [f"{h:016x}" for h in old.hashes.tolist()],
    }  # fmt: skip
    save(folder / NAME, json.dumps(content).encode())


def load_list(folder: Path) -> OldBuffers:
    """Read the list of one backup folder."""
    file = folder / NAME
    try:
        content: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return OldBuffers(
            np.array(content["sectors"], np.int64), np.array([int(h, 16) for h in content["hashes"]], np.uint64),
            int(content["end"]), str(content["layout"]), str(content["session"]), str(content["card_id"]),
        )  # fmt: skip
    except OSError as error:
        raise JournalError(error.errno, f"the list of old data cannot be read: {error.strerror}", str(file)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise JournalError(22, f"this is not a list of old data ({error})", str(file)) from error


def first_old(old: OldBuffers, sectors: Sequence[int], read: Callable[[int], bytes]) -> int:
    """Find the first of a recording's buffers that belongs to an older recording; their number if none does.

    ``sectors`` are the buffers' first sectors in card order, ``read`` returns a sector's bytes. A recording overwrites
    from the start on, so what is old is at the end, and bisecting finds where it begins.
    """
    low, high = 0, len(sectors)
    while low < high:
        middle = (low + high) // 2
        if old.is_old(sectors[middle], read(sectors[middle])):
            high = middle
        else:
            low = middle + 1
    return low


def old_buffers_of(header: bytes, backup_dir: Path | str | None = None) -> OldBuffers | None:
    """Return the list that was saved when this header sector was written; None if this computer has none."""
    stamp = read_stamp(header)
    return load_old_buffers(backup_dir, stamp.session) if stamp and stamp.intact else None


def load_old_buffers(backup_dir: Path | str | None, card: str) -> OldBuffers | None:
    """Return the newest list saved for a card, or None.

    Parameters
    ----------
    backup_dir
        Where the backups are; None for the default folder.
    card
        The session id in the card's header sector (:func:`miniscope_xr.tools.flash.sector.read_stamp`), which a copy
        of the card has too, or its card id.
    """
    for journal in journals(Path(backup_dir) if backup_dir else default_dir()):
        if card in (journal.session, journal.card.get("card_id")) and (journal.folder / NAME).exists():
            return load_list(journal.folder)
    return None
