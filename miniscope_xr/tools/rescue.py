"""Rescue what is left of recordings: read a whole card once, keep every buffer, make an image that opens.

When a user meets this: Windows asked to format the card, and someone said yes; a copy lacks its first megabytes; the
settings sectors cannot be read. Each buffer says itself which one it is, so all of them are found by their headers
(:mod:`miniscope_xr.index.find`) and copied to where they were; everything else is left out. The image is sparse, and
the reader judges it like a card: it opens with the newest recording. What the reader does not count to that is of older
recordings; with ``everything`` each of these gets an image of its own, made of the buffers that are left over.

While the card is read, the image is ``OUT.img.part``, with ``OUT.img.map`` beside it; an interrupted rescue goes on
where it stopped.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from miniscope_xr.card import OpenCard
from miniscope_xr.errors import CardReadError, MiniscopeError, NotACardError
from miniscope_xr.index.find import NOTHING, WORDS, Extents, Finder
from miniscope_xr.layout import SECTOR, Layout, builtin_layouts, load_layout
from miniscope_xr.source.base import ByteSource
from miniscope_xr.source.copy_map import CopyMap, card_marks
from miniscope_xr.source.open import open_device
from miniscope_xr.source.replace import replace
from miniscope_xr.source.salvage import is_gone
from miniscope_xr.tools.check.check import check
from miniscope_xr.tools.check.result import CheckResult
from miniscope_xr.tools.copy import UNFINISHED, continued, open_part, refuse_outputs
from miniscope_xr.tools.flash.operation import Progress
from miniscope_xr.tools.stream.outputs import output_errors

_STEP = 4 << 20  # bytes
_AHEAD = 4  # stretches in memory: one is read into, one searched, and the one before that is still needed
_SAVE_EVERY = 1 << 30
_LEAST = 3
"""Buffers that make a recording: one sector of noise can look like a header, three in a row do not."""
_MOST_OLDER = 50
_FRONT = range(1022, 1026)


@dataclass(frozen=True)
class RescuedImage:
    """One image made of what was found, and what a reader finds in it."""

    path: Path
    result: CheckResult

    @property
    def frames(self) -> int:
        """Frames in it."""
        return sum(r.frames for r in self.result.recordings)

    def describe(self) -> list[str]:
        """Say what came back."""
        lines = [f"{self.path}: layout {self.result.layout}"]
        for r in self.result.recordings:
            whole = "" if r.complete_frames is None else f", {r.complete_frames} of them whole"
            lines.append(f"  recording {r.number} ({r.status}): {r.frames} frames{whole}, {r.buffers} buffers")
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return it for ``--json``."""
        recordings = [
            {"number": r.number, "status": r.status, "frames": r.frames, "complete_frames": r.complete_frames,
             "buffers": r.buffers} for r in self.result.recordings
        ]  # fmt: skip
        return {"path": str(self.path), "layout": self.result.layout, "recordings": recordings}


@dataclass(frozen=True)
class Rescued:
    """What came back: the images, newest recording first, and what is in none of them."""

    images: tuple[RescuedImage, ...]
    found: int
    left: int
    bad: tuple[tuple[int, int], ...] = field(default=())

    @property
    def bad_sectors(self) -> int:
        """Sectors that could not be read."""
        return sum(length for _, length in self.bad) // SECTOR


def rescue(
    path: str,
    out: Path,
    *,
    layout: str | Layout | None = None,
    everything: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> Rescued:
    """Find every buffer on a card and write an image that opens.

    Parameters
    ----------
    path
        Device, image file or URL.
    out
        The image; images of older recordings are called ``OUT-older1.img`` and so on.
    layout
        Look for buffers of this layout only.
    everything
        Make images of older recordings too.
    force
        Replace ``out``, and begin anew.

    Raises
    ------
    NotACardError
        No buffer of a known firmware is on the card.
    OutputExistsError, RefusedError, CardReadError, OutputError
        As for :func:`miniscope_xr.tools.copy.copy_image`.
    """
    part, map_file, _ = refuse_outputs(path, out, force)
    layouts = [load_layout(layout)] if layout is not None else list(builtin_layouts().values())
    finder = Finder(layouts)
    source = open_device(path)
    try:
        copy = CopyMap(source.size, card_marks(source))
        copy = copy if force else continued(copy, part, map_file)
        try:
            with output_errors(part, UNFINISHED), open_part(part, anew=not copy.done) as file:
                found = _gather(source, file, finder, copy, map_file, progress)
                if len(found.first) < _LEAST:
                    raise NotACardError(
                        f"{path}: of {source.size // SECTOR} sectors none begins a recording of a known firmware; "
                        "check that this is the card, or give --layout with a layout of your firmware"
                    )
                claimed = _newest(source, file, part, layouts, found)
            replace(part, out)  # closed by now: Windows gives no other name to an open file
            made, left = _images(out, layouts, _without(found, claimed), claimed, everything, force)
        except NotACardError:
            for file_ in (part, map_file):
                file_.unlink(missing_ok=True)
            raise
    finally:
        source.close()
    return Rescued(tuple(made), len(found.first), left, tuple(copy.bad))


# the card is read once


def _gather(
    source: ByteSource, file: BinaryIO, finder: Finder, copy: CopyMap, map_file: Path, progress: Progress | None
) -> Extents:
    """Copy every buffer to where it is on the card; returns where they are."""
    pieces = _Pieces(file, finder)
    if copy.done:  # a frame may begin before what was read and end behind: its first sectors are read again
        copy.done = max(copy.done - _STEP, 0)
        copy.bad = [(at, n) for at, n in copy.bad if at < copy.done]
        pieces.take_up(copy.done)
    copy.save(map_file)
    saved = copy.done
    try:
        while copy.done < copy.end:
            n = min(_STEP, copy.end - copy.done)
            memory = pieces.memory()
            copy.bad += _read(source, copy.done, n, memory)
            pieces.put(memory, copy.done, n)
            copy.done += n
            if progress:
                progress("searching", copy.done, copy.end)
            if copy.done - saved >= _SAVE_EVERY:
                pieces.settle()
                file.truncate(copy.done)
                copy.save(map_file)
                saved = copy.done
        pieces.settle()
        saved = copy.done
    finally:
        pieces.close()
        if saved < copy.done:  # something failed: what is certainly in the file counts
            with contextlib.suppress(OSError):
                pieces.settle()
                saved = copy.done
        copy.done = saved
        copy.bad = [(at, n) for at, n in copy.bad if at + n <= saved]
        file.truncate(saved)  # on a full disk this makes room for the map, by which it goes on
        copy.save(map_file)
    return pieces.found()


def _read(source: ByteSource, at: int, n: int, memory: mmap.mmap) -> list[tuple[int, int]]:
    """Fill the memory from the card, zeros where sectors are bad; returns these."""
    view = memoryview(memory)[:n]
    try:
        got = source.readv(at, [view])
        if got == n:
            return []
        raise CardReadError(errno.EIO, f"the card ended at byte {at + got}; it was cut meanwhile")
    except CardReadError:
        data, bad = source.salvage(at, n)
        if len(data) < n or (bad and sum(bad[-1]) == at + n and is_gone(source)):
            raise
        view[:] = data
        return list(bad)


class _Pieces:
    """Finds buffers in what was read and writes them, in another thread, while the next stretch is read.

    Parameters
    ----------
    file
        The image.
    finder
        Finds them.
    """

    def __init__(self, file: BinaryIO, finder: Finder) -> None:
        self._file, self._finder = file, finder
        self._free = [mmap.mmap(-1, _STEP) for _ in range(_AHEAD)]
        self._worker = ThreadPoolExecutor(1)
        self._busy: list[tuple[Future[None], mmap.mmap]] = []
        self._found: list[Extents] = []
        self._before = np.zeros((0, WORDS), np.uint32)  # the last sectors of the stretch before: frames begin there
        self._carry = 0  # sectors of the next stretch that belong to the last buffer of this one

    def memory(self) -> mmap.mmap:
        """Return memory that nothing is written from any more."""
        if not self._free:
            self._busy[1][0].result()  # frames found in the second may begin in the first
            self._free.append(self._busy.pop(0)[1])
        return self._free.pop()

    def put(self, memory: mmap.mmap, at: int, length: int) -> None:
        """Have ``length`` bytes from byte ``at`` of the card searched and written, in the order of the card."""
        sectors = -(-length // SECTOR)  # an image that was cut may end within a sector
        memory[length : sectors * SECTOR] = bytes(sectors * SECTOR - length)
        words = np.frombuffer(memory, "<u4", sectors * WORDS).reshape(-1, WORDS)
        self._busy.append((self._worker.submit(self._take, words, at // SECTOR), memory))

    def _take(self, words: Any, begin: int) -> None:
        found = self._finder(words, begin)
        self._found.append(found)
        early = begin - int(found.first.min()) if len(found.first) else 0
        before = self._before[len(self._before) - max(min(early, len(self._before)), 0) :]
        keep = _covered(found, begin - len(before), begin + len(words))
        keep[len(before) : len(before) + self._carry] = True
        self._carry = max(int(found.end.max()) - begin - len(words), 0) if len(found.first) else 0
        for a, b in _stretches(keep):
            if a < len(before):
                self._to_file(begin - len(before) + a, before[a:b])
            if b > len(before):
                first = max(a - len(before), 0)
                self._to_file(begin + first, words[first : b - len(before)])
        if self._finder.reach:
            self._before = words[-self._finder.reach :]

    def _to_file(self, sector: int, words: Any) -> None:
        data = memoryview(words).cast("B") if len(words) else memoryview(b"")
        at = sector * SECTOR
        while data:
            done = os.pwrite(self._file.fileno(), data, at) if hasattr(os, "pwrite") else self._seek(data, at)
            data, at = data[done:], at + done

    def _seek(self, data: memoryview, at: int) -> int:
        self._file.seek(at)
        return self._file.write(data) or 0

    def take_up(self, done: int) -> None:
        """Find again what an interrupted run has put into the image up to byte ``done``."""
        reach = max(self._finder.reach, 1)
        for at in range(0, done, _STEP):
            n = min(_STEP, done - at)
            self._file.seek(at)
            sectors = -(-n // SECTOR)
            data = self._file.read(n).ljust(sectors * SECTOR, b"\0")
            words = np.frombuffer(data, "<u4", sectors * WORDS).reshape(-1, WORDS)
            found = self._finder(words, at // SECTOR)
            self._found.append(found)
            self._before = words[-reach:].copy()
            end = at // SECTOR + sectors
            self._carry = max(int(found.end.max()) - end, 0) if len(found.first) else 0

    def settle(self) -> None:
        """Return when everything found so far is in the file, on the disk."""
        for writing, memory in self._busy:
            writing.result()
            self._free.append(memory)
        self._busy = []
        self._before = self._before.copy()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let the thread end what it has."""
        self._worker.shutdown()

    def found(self) -> Extents:
        """Return everything that was found."""
        if not self._found:
            return NOTHING
        return Extents(*(np.concatenate(part) for part in zip(*self._found, strict=True)))


def _covered(found: Extents, begin: int, end: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which sectors from ``begin`` to ``end`` belong to a buffer."""
    steps = np.zeros(end - begin + 1, np.int64)
    np.add.at(steps, np.clip(found.first, begin, end) - begin, 1)
    np.add.at(steps, np.clip(found.end, begin, end) - begin, -1)
    return np.asarray(np.cumsum(steps)[:-1] > 0)


def _stretches(keep: np.ndarray[Any, np.dtype[np.bool_]]) -> Iterator[tuple[int, int]]:
    """Begin and end of each stretch of True."""
    edges = np.flatnonzero(np.diff(keep.astype(np.int8), prepend=0, append=0))
    return zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


# images that open


def _newest(
    source: ByteSource, file: BinaryIO, part: Path, layouts: Sequence[Layout], found: Extents
) -> list[tuple[int, int]]:
    """Finish the image; returns the sectors of the buffers that a reader counts to its recordings."""
    file.truncate(min(int(found.end.max()) * SECTOR, source.size))
    taken = set(found.told.tolist())
    kept = {sector: source.salvage(sector * SECTOR, SECTOR)[0] for sector in _FRONT if sector not in taken}
    claimed = _open_best(file, part, [kept, dict.fromkeys(kept, bytes(SECTOR)), *_fresh(layouts, kept)])
    if claimed is None:
        raise NotACardError(
            f"{part}: {len(found.first)} sectors look like the beginning of a buffer, but no known firmware wrote them "
            "in any order; give --layout with a layout of your firmware"
        )
    os.fsync(file.fileno())
    return claimed


def _images(
    out: Path, layouts: Sequence[Layout], rest: Extents, claimed: list[tuple[int, int]], everything: bool, force: bool
) -> tuple[list[RescuedImage], int]:
    """Make the images of older recordings; returns these and the first, and the buffers that are in none."""
    made = [RescuedImage(out, check(str(out), progress=False))]
    with open(out, "rb") as file:
        for number in range(1, _MOST_OLDER * everything + 1):
            older = out.with_name(f"{out.stem}-older{number}{out.suffix}")
            if len(rest.first) < _LEAST or not (claimed := _older(file, older, layouts, rest, claimed, force)):
                break
            made.append(RescuedImage(older, check(str(older), progress=False)))
            rest = _without(rest, claimed)
    return made, len(rest.first)


def _fresh(layouts: Iterable[Layout], kept: dict[int, bytes]) -> Iterator[dict[int, bytes]]:
    """Fronts as a firmware writes them at power-on, without counts: where neither the old one nor none opens."""
    for layout in layouts:
        if layout.sectors.config not in kept or not layout.config:
            continue
        for build in layout.builds:
            width, height = build.config_frame or (build.width, build.height)
            config = bytearray(SECTOR)
            values = {"width": width, "height": height, "buffer_size": build.buffer_sectors * SECTOR}
            for name, value in values.items():
                item = layout.config[name]
                config[item.offset : item.offset + item.size] = value.to_bytes(item.size, "little")
            yield {**dict.fromkeys(kept, bytes(SECTOR)), layout.sectors.config: bytes(config)}


def _open_best(file: BinaryIO, part: Path, fronts: Iterable[dict[int, bytes]]) -> list[tuple[int, int]] | None:
    """Give the image the front with which most of its buffers belong to a recording; returns their sectors."""
    best: tuple[int, dict[int, bytes], list[tuple[int, int]]] | None = None
    for number, front in enumerate(fronts):
        if number > 1 and best:
            break  # made up only where nothing else opens
        _put(file, front)
        claimed = _claimed(part)
        if claimed and (best is None or len(claimed) > best[0]):
            best = len(claimed), front, claimed
    if best is None:
        return None
    _put(file, best[1])
    return best[2]


def _put(file: BinaryIO, front: dict[int, bytes]) -> None:
    for sector, data in front.items():
        file.seek(sector * SECTOR)
        file.write(data)


def _claimed(path: Path) -> list[tuple[int, int]]:
    """(first sector, sectors) of each buffer that a reader counts to a recording of this image; none if none opens."""
    try:
        card = OpenCard(path, errors="fill")
    except MiniscopeError:
        return []
    try:
        found: list[tuple[int, int]] = []
        for recording in card.index.recordings:
            for run in recording.runs:
                i = np.arange(run.count)
                found += zip(run.sectors_of(i).tolist(), map(run.sector_count, range(run.count)), strict=True)
        return found
    finally:
        card.close()


def _without(found: Extents, claimed: Sequence[tuple[int, int]]) -> Extents:
    """Leave out what is told of in the sectors of a recording."""
    if not claimed:
        return found
    buffers = np.array(sorted(claimed), np.int64)
    k = np.searchsorted(buffers[:, 0], found.told, side="right") - 1
    left = (k < 0) | (found.told >= buffers[np.maximum(k, 0)].sum(axis=1))
    return Extents(*(part[left] for part in found))


def _older(
    file: BinaryIO,
    older: Path,
    layouts: Sequence[Layout],
    rest: Extents,
    claimed: Sequence[tuple[int, int]],
    force: bool,
) -> list[tuple[int, int]]:
    """Make the image of the newest of the recordings that are left; returns its buffers, none where nothing opens."""
    part, *_ = refuse_outputs(None, older, force)
    with open_part(part, anew=True) as made:
        begin, end = int(rest.first.min()), int(rest.end.max())
        keep = _covered(rest, 0, end)
        for first, count in claimed:
            keep[first : first + count] = False
        for a, b in _stretches(keep):
            for at in range(a * SECTOR, b * SECTOR, _STEP):
                file.seek(at)
                made.seek(at)
                made.write(file.read(min(_STEP, b * SECTOR - at)))
        made.truncate(end * SECTOR)
        blank = {sector: bytes(SECTOR) for sector in _FRONT if sector < begin}
        found = _open_best(made, part, [blank, *_fresh(layouts, blank)])
    if found:
        replace(part, older)
    else:
        part.unlink()
    return found or []
