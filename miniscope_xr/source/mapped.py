"""A copy of a card that says what is missing in it: zeros where the card could not be read are not taken for data.

``miniscope-xr image`` and ddrescue leave a map beside their copy. What the map does not call read behaves here as it
did on the card: a sector that cannot be read.
"""

from __future__ import annotations

import errno
import os
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from miniscope_xr.errors import CardReadError
from miniscope_xr.source.base import SECTOR, ByteSource, Spans, Through
from miniscope_xr.source.copy_map import card_marks, marked_card, same_content, unread_spans

_MOST = 64 << 20  # bytes of a map; one of a badly damaged card has some MB


def map_beside(path: str) -> Path | None:
    """The map of a copy: ``card.img.map`` or ``card.map`` beside ``card.img`` (or ``card.img.part``)."""
    for name in (path + ".map", os.path.splitext(path)[0] + ".map"):  # noqa: PTH122 (asked whenever an image opens)
        if name != path and os.path.isfile(name) and os.path.getsize(name) <= _MOST:  # noqa: PTH113, PTH202
            return Path(name)
    return None


def unread_beside(source: ByteSource) -> Spans:
    """Bytes of an image that a map beside it does not call read; none where there is no map, or of another card."""
    try:
        beside = map_beside(source.path)
        if beside is None:
            return []
        text = beside.read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        return []
    spans = [(at, min(length, source.size - at)) for at, length in unread_spans(text) if at < source.size]
    marks = marked_card(text)
    return spans if spans and (not marks or same_content(marks, card_marks(MappedCopy(source, spans)))) else []


class MappedCopy(Through):
    """An image with the places of it that were never read.

    Parameters
    ----------
    source : ByteSource
        The image.
    unread : list of (offset, length)
        In bytes, rising, not overlapping.
    """

    def __init__(self, source: ByteSource, unread: Spans) -> None:
        super().__init__(source)
        self._unread = unread
        self._ends = [at + length for at, length in unread]

    @property
    def unread(self) -> Spans:
        """Places of the image that were never read from the card."""
        return self._unread

    def _within(self, offset: int, length: int) -> Spans:
        """Parts of a stretch that were never read, in whole sectors of the card."""
        found = []
        k = bisect_left(self._ends, offset + 1)
        while k < len(self._unread) and self._unread[k][0] < offset + length:
            start = max(self._unread[k][0], offset)
            found.append((start, min(self._ends[k], offset + length) - start))
            k += 1
        return found

    def _refuse(self, offset: int, length: int) -> None:
        lost = self._within(offset, length)
        if lost:
            first, last = lost[0][0] // SECTOR, (sum(lost[0]) - 1) // SECTOR
            said = f"sectors {first} to {last} could not be read when the card was copied"
            raise CardReadError(errno.EIO, said, self.path)

    def read(self, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes, where all of them were read from the card."""
        self._refuse(offset, length)
        return self.source.read(offset, length)

    def readv(self, offset: int, buffers: Sequence[Any]) -> int:
        """Fill writable buffers, where all of the bytes were read from the card."""
        self._refuse(offset, sum(map(len, buffers)))
        return self.source.readv(offset, buffers)

    def gather(self, offsets: Sequence[int], length: int) -> bytes | None:
        """Return ``length`` bytes from each of many offsets, joined; None where some of them were never read."""
        if any(self._within(offset, length) for offset in offsets):
            return None
        return self.source.gather(offsets, length)

    def salvage(self, offset: int, length: int) -> tuple[bytes, Spans]:
        """Read what there is; what was never read is zeros."""
        data, bad = self.source.salvage(offset, length)
        lost = self._within(offset, len(data))
        if not lost:
            return data, bad
        filled = bytearray(data)
        for at, size in lost:
            filled[at - offset : at - offset + size] = bytes(size)
        return bytes(filled), sorted({*bad, *lost})
