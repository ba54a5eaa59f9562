"""The list of old buffers that ``prepare --keep`` saved on this computer: it shows where a recording ends, exactly."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import overload

from miniscope_xr.errors import MiniscopeError
from miniscope_xr.index.runs import Run
from miniscope_xr.layout import Layout
from miniscope_xr.source.base import ByteSource

_STAMP = slice(128, 132), b"MSXR"  # what `prepare` leaves in the header sector, where no firmware reads


class Starts(Sequence[int]):
    """Sectors of the buffers of some runs, in card order, computed when asked for."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = runs
        self._before = [0, *accumulate(run.count for run in runs)]

    def __len__(self) -> int:
        return self._before[-1]

    @overload
    def __getitem__(self, k: int) -> int: ...
    @overload
    def __getitem__(self, k: slice) -> Sequence[int]: ...
    def __getitem__(self, k: int | slice) -> int | Sequence[int]:
        if isinstance(k, slice):
            return [self[j] for j in range(*k.indices(len(self)))]
        number, i = self.locate(k)
        return self._runs[number].sector_of(i)

    def locate(self, k: int) -> tuple[int, int]:
        """Run, and buffer in it, of buffer ``k``."""
        number = bisect_right(self._before, k) - 1
        return number, k - self._before[number]


def first_listed(source: ByteSource, layout: Layout, sectors: Sequence[int]) -> int | None:
    """Number of the first buffer that was on the card before it was prepared; ``len(sectors)`` if none was.

    None where the card carries no stamp of ours or this computer has no list of it.
    """
    size = layout.sectors.size
    header = source.read(layout.sectors.header * size, size)
    where, magic = _STAMP
    if header[where] != magic:
        return None
    from miniscope_xr.tools.flash import stale  # the writing side's notes; most cards never need it

    try:
        old = stale.old_buffers_of(header)
    except MiniscopeError:  # a list that cannot be read is no list
        return None
    if old is None:
        return None
    return stale.first_old(old, sectors, lambda sector: source.read(sector * size, size))
