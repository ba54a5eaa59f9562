"""Every buffer of a card into an image, at its place: the card is read once, searched and written meanwhile."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from miniscope_xr.errors import CardReadError
from miniscope_xr.index.find import NOTHING, WORDS, Finder, FoundBuffers
from miniscope_xr.layout import SECTOR
from miniscope_xr.layout.arrays import Bools
from miniscope_xr.source.base import ByteSource
from miniscope_xr.source.copy_map import CopyMap
from miniscope_xr.source.salvage import is_gone
from miniscope_xr.tools.copy.part import STEP
from miniscope_xr.tools.flash.operation import Progress

_BEHIND = 1  # sectors behind a buffer that are kept: by them the reader tells whether it was cut (a hole begins in it)
_AHEAD = 4  # stretches in memory: one is read into, one searched, and the one before that is still needed
_SAVE_EVERY = 1 << 30


def gather(
    source: ByteSource, file: BinaryIO, finder: Finder, copy: CopyMap, map_file: Path, progress: Progress | None
) -> FoundBuffers:
    """Copy every buffer to where it is on the card; returns where they are."""
    pieces = _Pieces(file, finder)
    if copy.done:  # a frame may begin before what was read and end behind: its first sectors are read again
        copy.done = max(copy.done - STEP, 0)
        copy.bad = [(at, n) for at, n in copy.bad if at < copy.done]
        pieces.take_up(copy.done)
    copy.save(map_file)
    saved = copy.done
    try:
        while copy.done < copy.end:
            n = min(STEP, copy.end - copy.done)
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
        self._free = [mmap.mmap(-1, STEP) for _ in range(_AHEAD)]
        self._worker = ThreadPoolExecutor(1)
        self._busy: list[tuple[Future[None], mmap.mmap]] = []
        self._found: list[FoundBuffers] = []
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
        keep = covered(found, begin - len(before), begin + len(words), _BEHIND)
        keep[len(before) : len(before) + self._carry] = True
        self._carry = _reach(found, begin + len(words))
        for a, b in stretches(keep):
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
        for at in range(0, done, STEP):
            n = min(STEP, done - at)
            self._file.seek(at)
            sectors = -(-n // SECTOR)
            data = self._file.read(n).ljust(sectors * SECTOR, b"\0")
            words = np.frombuffer(data, "<u4", sectors * WORDS).reshape(-1, WORDS)
            found = self._finder(words, at // SECTOR)
            self._found.append(found)
            self._before = words[-reach:].copy()
            self._carry = _reach(found, at // SECTOR + sectors)

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

    def found(self) -> FoundBuffers:
        """Return everything that was found."""
        if not self._found:
            return NOTHING
        return FoundBuffers(*(np.concatenate(part) for part in zip(*self._found, strict=True)))


def _reach(found: FoundBuffers, end: int) -> int:
    """Sectors from ``end`` on that are kept for what was found before."""
    return max(int(found.end.max()) + _BEHIND - end, 0) if len(found.first) else 0


def covered(found: FoundBuffers, begin: int, end: int, behind: int = 0) -> Bools:
    """Which sectors from ``begin`` to ``end`` belong to a buffer, or are one of so many ``behind`` it."""
    steps = np.zeros(end - begin + 1, np.int64)
    np.add.at(steps, np.clip(found.first, begin, end) - begin, 1)
    np.add.at(steps, np.clip(found.end + behind, begin, end) - begin, -1)
    return np.asarray(np.cumsum(steps)[:-1] > 0)


def stretches(keep: Bools) -> Iterator[tuple[int, int]]:
    """Begin and end of each stretch of True."""
    edges = np.flatnonzero(np.diff(keep.astype(np.int8), prepend=0, append=0))
    return zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
