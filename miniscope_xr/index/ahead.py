"""Reading ahead: many small places along a recording by few large reads.

When a user meets this: a card whose battery died. Its counts were never written, so every header is looked at, and the
leftovers behind every short buffer: eight small reads a frame. A card, and a server still more, is far quicker with one
large read over all of them; of what is read, only those places are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from miniscope_xr.errors import CardReadError
from miniscope_xr.source.base import ByteSource, Through

_NEAR = 400 << 10  # bytes between two places that are read along
_PIECE = 4 << 20  # bytes of one read


class Ahead(Through):
    """A card that keeps the places it was told of (:meth:`fetch`), and reads all others as they are asked for."""

    def __init__(self, source: ByteSource) -> None:
        super().__init__(source)
        self._kept: dict[int, bytes] = {}

    def fetch(self, places: Iterable[tuple[int, int]]) -> None:
        """Read places (offset, length) that will be asked for; those behind the end, and bad ones, are left to that."""
        wanted = sorted((at, n) for at, n in set(places) if at + n <= self.size and len(self._kept.get(at, b"")) < n)
        first = 0
        while first < len(wanted):
            start, end = wanted[first][0], sum(wanted[first])
            stop = first + 1
            while stop < len(wanted):
                at, n = wanted[stop]
                if at - end > _NEAR or at + n - start > _PIECE:
                    break
                end, stop = max(end, at + n), stop + 1
            if stop - first > 1:
                self._keep(start, end, wanted[first:stop])
            first = stop

    def _keep(self, start: int, end: int, places: Sequence[tuple[int, int]]) -> None:
        try:
            data = self.source.read(start, end - start)
        except CardReadError:
            return
        for at, n in places:
            self._kept[at] = data[at - start : at - start + n]

    def read(self, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes; fewer only at the end."""
        kept = self._kept.get(offset, b"")
        return kept[:length] if len(kept) >= length > 0 else self.source.read(offset, length)

    def gather(self, offsets: Sequence[int], length: int) -> bytes | None:
        """Return ``length`` bytes from each of many offsets, joined, where that can be done at once."""
        if not self._kept:
            return self.source.gather(offsets, length)
        kept = [self._kept.get(offset, b"")[:length] for offset in offsets]
        if all(len(piece) == length for piece in kept):
            return b"".join(kept)
        return self.source.gather(offsets, length)
