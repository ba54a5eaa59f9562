"""An image from which bytes were left out, or into which some were put, by other than whole sectors.

When a user meets this: a copy made with a program that leaves out what it could not read, or a transfer that lost or
added some bytes. Everything behind that place stands off the sectors of the card:

    image     |sector 0 |sector 1 |sec|sector 3 |sector 4 |       the rest of sector 2 is missing
    spliced   |sector 0 |sector 1 |sec      |sector 3 |sector 4 |  zeros up to the next sector
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from miniscope_xr.source.base import ByteSource, Spans, Through, pour
from miniscope_xr.source.open import open_device

Splices = tuple[tuple[int, int], ...]
"""(byte of the image, zeros that are put in before it), in their order."""


class Spliced(Through):
    """A source with zeros put in at some places.

    Parameters
    ----------
    source : ByteSource
    splices : tuple of (int, int)
        (byte of the source, zeros that are put in before it), in their order.
    """

    def __init__(self, source: ByteSource, splices: Splices) -> None:
        super().__init__(source)
        self._pieces: list[tuple[int, int, int | None]] = []  # (start, end, byte of the source; None: zeros)
        at = real = 0
        for byte, zeros in (*splices, (source.size, 0)):
            self._pieces += [(at, at + byte - real, real), (at + byte - real, at + byte - real + zeros, None)]
            at, real = at + byte - real + zeros, byte
        self.size = at

    def _parts(self, offset: int, length: int) -> Iterator[tuple[int | None, int, int]]:
        """(byte of the source or None, bytes, where they are here) of a stretch."""
        for start, end, real in self._pieces:
            first, stop = max(offset, start), min(offset + length, end)
            if first < stop:
                yield None if real is None else real + first - start, stop - first, first

    @property
    def unread(self) -> Spans:
        """Places of a copy that could not be read from the card."""
        found = []
        for at, length in self.source.unread:
            for start, end, real in self._pieces:
                if real is not None and (first := max(at, real)) < (stop := min(at + length, real + end - start)):
                    found.append((start + first - real, stop - first))
        return found

    def read(self, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes; fewer only at the end."""
        parts = self._parts(offset, length)
        return b"".join(bytes(n) if real is None else self.source.read(real, n) for real, n, _ in parts)

    def readv(self, offset: int, buffers: Sequence[Any]) -> int:
        """Fill writable buffers one after another."""
        length = sum(map(len, buffers))
        parts = list(self._parts(offset, length))
        if len(parts) == 1 and parts[0][0] is not None and parts[0][1] == length:
            return self.source.readv(parts[0][0], buffers)
        return pour(self.read(offset, length), buffers)

    def gather(self, offsets: Sequence[int], length: int) -> bytes | None:
        """Return ``length`` bytes from each of many offsets, joined, where that can be done at once."""
        places = []
        for offset in offsets:
            parts = list(self._parts(offset, length))
            if len(parts) != 1 or parts[0][0] is None or parts[0][1] != length:
                return None
            places.append(parts[0][0])
        return self.source.gather(places, length)

    def at_hand(self, offset: int) -> bool:
        """Leave it unknown."""
        return False

    def salvage(self, offset: int, length: int) -> tuple[bytes, Spans]:
        """Read around bad sectors."""
        pieces, bad = [], []
        for real, n, at in self._parts(offset, length):
            data, unreadable = (bytes(n), []) if real is None else self.source.salvage(real, n)
            pieces.append(data)
            bad += [(at + first - (real or 0), size) for first, size in unreadable]
        return b"".join(pieces), bad


def open_spliced(path: str | os.PathLike[str], splices: Splices) -> ByteSource:
    """Open a card, an image or the URL of one, with zeros put in at some places."""
    source = open_device(path)
    try:
        return Spliced(source, splices)
    except BaseException:
        source.close()
        raise
