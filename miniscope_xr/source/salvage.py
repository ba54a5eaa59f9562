"""Reading around bad sectors: what fails is halved until only the unreadable sectors are left out."""

from __future__ import annotations

import errno
import mmap
from collections.abc import Callable
from typing import Any

from miniscope_xr.errors import CardReadError
from miniscope_xr.source.base import SECTOR, ByteSource, Spans, Through

_CHUNK = 64 * 1024


class Salvage:
    """What can be read of ``length`` bytes from ``offset``.

    Parameters
    ----------
    read_into
        Fills a page-aligned buffer from an offset that is a whole sector; returns the bytes read.
    offset, length : int
        Bytes; not behind the end of the card.
    first_only : bool
        Give up behind the first unreadable sector.

    Attributes
    ----------
    bad : list of (offset, length)
        Unreadable spans.
    """

    def __init__(
        self, read_into: Callable[[Any, int], int], offset: int, length: int, first_only: bool = False
    ) -> None:  # fmt: skip
        self._read_into = read_into
        self._offset = offset
        self._first_only = first_only
        self._start = offset - offset % SECTOR
        self._data = bytearray(offset + length - self._start)
        self.bad: Spans = []
        for at in range(self._start, offset + length, _CHUNK):
            self._span(at, min(_CHUNK, offset + length - at))

    @property
    def data(self) -> bytes:
        """The bytes, zeros where they are unreadable."""
        return bytes(self._data[self._offset - self._start :])

    def _span(self, offset: int, length: int) -> None:
        if self.bad and self._first_only:
            return
        try:
            with mmap.mmap(-1, -(-length // SECTOR) * SECTOR) as aligned:  # O_DIRECT wants alignment
                if self._read_into(aligned, offset) < length:
                    raise OSError(errno.EIO, "short read")
                self._data[offset - self._start : offset - self._start + length] = aligned[:length]
        except OSError:
            if length > SECTOR:
                half = -(-length // SECTOR) // 2 * SECTOR
                self._span(offset, half)
                self._span(offset + half, length - half)
            elif self.bad and sum(self.bad[-1]) == offset:
                self.bad[-1] = self.bad[-1][0], self.bad[-1][1] + length
            else:
                self.bad.append((offset, length))


def is_gone(source: ByteSource) -> bool:
    """Whether nothing of a card can be read any more (a reader pulled out), rather than some of its sectors."""
    last = max(source.size - 1, 0) // SECTOR
    return all(source.salvage(sector * SECTOR, SECTOR)[1] for sector in (0, last // 2, last))


class Tolerant(Through):
    """A source that reads unreadable sectors as zeros, unless the whole card is gone."""

    def read(self, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes; fewer only at the end."""
        try:
            return self.source.read(offset, length)
        except CardReadError:
            if is_gone(self.source):
                raise
            return self.source.salvage(offset, length)[0]
