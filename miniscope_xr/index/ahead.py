"""Reading ahead: many small places along a recording by few large reads.

When a user meets this: a card whose battery died. Its counts were never written, so every header is looked at, and the
leftovers behind every short buffer: eight small reads a frame. A card, and a server still more, is far quicker with one
large read over all of them; of what is read, only those places are kept. What is in memory already is left to be
read as it is asked for.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from miniscope_xr.errors import CardReadError
from miniscope_xr.source.base import ByteSource, Through

_NEAR = 400 << 10  # bytes between two places that are read along
_PIECE = 4 << 20  # bytes of one read


class Ahead(Through):
    """A card that keeps the places it was told of (:meth:`fetch`), and reads all others as they are asked for."""

    def __init__(self, source: ByteSource) -> None:
        super().__init__(source)
        self._kept: dict[int, bytes] = {}

    def fetch(self, places: ArrayLike) -> None:
        """Read places that will be asked for; those behind the end, in memory, and bad ones are left to that.

        Parameters
        ----------
        places : int array, shape (n, 2)
            Offset and length of each; of two at one offset the longer one counts.
        """
        at, n = np.asarray(places, np.int64).reshape(-1, 2).T
        order = np.lexsort((n, at))
        at, n = at[order], n[order]
        wanted = (at + n <= self.size) & np.append(at[1:] != at[:-1], True)
        if self._kept:
            known = [len(self._kept.get(a, b"")) for a in at.tolist()]
            wanted &= np.array(known, np.int64) < n
        at, n = at[wanted], n[wanted]
        ends = np.maximum.accumulate(at + n)
        far = [*(np.flatnonzero(at[1:] - ends[:-1] > _NEAR) + 1).tolist(), len(at)]
        first = 0
        while first < len(at):
            stop = min(int(np.searchsorted(ends, at[first] + _PIECE, side="right")), far[bisect_right(far, first)])
            if stop - first > 1 and not self.source.at_hand(int(ends[stop - 1]) - 1):
                self._keep(at[first:stop], n[first:stop], int(ends[stop - 1]))
            first = max(stop, first + 1)

    def _keep(self, at: NDArray[np.int64], n: NDArray[np.int64], end: int) -> None:
        start = int(at[0])
        try:
            data = self.source.read(start, end - start)
        except CardReadError:
            return
        pieces = [data[a:b] for a, b in zip((at - start).tolist(), (at + n - start).tolist(), strict=True)]
        self._kept.update(zip(at.tolist(), pieces, strict=True))

    def read(self, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes; fewer only at the end."""
        kept = self._kept.get(offset, b"")
        return kept[:length] if len(kept) >= length > 0 else self.source.read(offset, length)

    def gather(self, offsets: Sequence[int], length: int) -> bytes | None:
        """Return ``length`` bytes from each of many offsets, joined, where that can be done at once."""
        if not self._kept:
            return self.source.gather(offsets, length)
        kept = list(map(self._kept.get, offsets))
        joined = b"" if None in kept else b"".join([piece[:length] for piece in kept if piece])
        return joined if len(joined) == length * len(offsets) else self.source.gather(offsets, length)
