"""The ring's leftovers: bytes behind a short buffer's data, which repeat the buffer one ring earlier.

What a ring slot held before stands between a short buffer's data and the end of its last sector. Across a seam it is
not what is found a ring earlier on the card.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from miniscope_xr.index.headers import HeaderReader
from miniscope_xr.index.runs import Run
from miniscope_xr.layout import SECTOR

_WORD = 4  # bytes


class Leftovers:
    """Compares leftovers by their bytes alone.

    Parameters
    ----------
    headers : HeaderReader
    later : bool
        Not the first recording since power-on: its frame 0 is garbage, which tells nothing.
    runs : sequence of Run
        All runs of the recording: leftovers of one are compared with buffers of those before it.
    """

    def __init__(self, headers: HeaderReader, later: bool = False, runs: Sequence[Run] = ()) -> None:
        self.headers = headers
        self.later = later
        self.runs = runs
        self.ring = headers.framing.repeats
        self._head = headers.framing.head

    def _repeats(self, run: Run, i: int) -> bool | None:
        """Whether the leftovers behind buffer ``i`` repeat the one a ring earlier, by their bytes; None: not told."""
        if run.odd or not self.ring:
            return None
        data_end = self._head + run.length_of(i)
        end = run.sector_count(i) * SECTOR
        source = self._source(run, i)
        if data_end == end or source is None or (self.later and source[0].frame_of(source[1]) == 0):
            return None
        old, size = source[0], source[0].cut.sectors_for(source[0].length_of(source[1]))
        if old.sector_count(source[1]) != size:
            return None  # it takes other sectors than its data needs: lapped, or something is missing in it
        mine = self._bytes(run.sector_of(i), data_end, end)
        theirs = self._bytes(source[0].sector_of(source[1]), data_end, end)
        if len(mine) != end - data_end or len(theirs) != len(mine):
            return None
        return same_bytes(mine, theirs, data_end)

    def _source(self, run: Run, i: int) -> tuple[Run, int] | None:
        """The last buffer in the ring slot of buffer ``i`` before it that reached as far as its sectors do."""
        end = run.sector_count(i) * SECTOR
        source = self._earlier(run, i) if self.ring else None
        while source is not None and self._head + source[0].length_of(source[1]) < end:
            source = self._earlier(*source)
        return source

    def _earlier(self, run: Run, i: int) -> tuple[Run, int] | None:
        """The buffer that was in the ring slot of buffer ``i`` before, where it is on the card."""
        if i >= self.ring:
            return run, i - self.ring
        count = run.first.count + i - self.ring
        for other in reversed(self.runs[: next((n for n, r in enumerate(self.runs) if r is run), 0)]):
            if other.first.count <= count < other.first.count + other.count:
                return other, count - other.first.count
        return None

    def _bytes(self, sector: int, start: int, stop: int) -> bytes:
        return self.headers.source.read(sector * SECTOR + start, stop - start)

    def _short(self, run: Run, start: int, stop: int) -> Iterator[int]:
        """Buffers in [start, stop) that leave room for leftovers."""
        short = [b for b, n in enumerate(run.cut.lengths) if (n + self._head) % SECTOR]
        size = len(run.cut)
        for frame_start in range(start - (start + run.first.index) % size, stop, size):
            yield from (i for b in short if start <= (i := frame_start + b) < stop)


def same_bytes(mine: bytes, theirs: bytes, start: int) -> bool | None:
    """Whether two stretches of leftovers hold the same, by their first sector that tells; None where none does.

    A sector of one value alone is written by no camera: it was erased, or never written. A word that differs among
    others that do not is a flipped bit, not another recording. What comes behind a sector that is the same may have
    been damaged, or never have reached the card when the power went.

    Parameters
    ----------
    mine, theirs
        Stretches of one length.
    start
        Where in its sector the first byte is.
    """
    ends = [*range(SECTOR - start % SECTOR, len(mine), SECTOR), len(mine)]
    for a, b in pairwise([0, *ends]):
        one, other = mine[a:b], theirs[a:b]
        if len(set(one)) > 1 and len(set(other)) > 1:
            differing = [k for k in range(b - a) if one[k] != other[k]]
            flipped = len(set(one)) > 2 * _WORD and bool(differing) and differing[-1] - differing[0] < _WORD
            return not differing or flipped
    return None
