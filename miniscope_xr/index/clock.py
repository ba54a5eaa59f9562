"""The frame clock: while a recording goes on, the time of every frame follows from its number."""

from __future__ import annotations

from collections.abc import Sequence

from miniscope_xr.index.headers import HeaderReader
from miniscope_xr.index.runs import Header, Run

_JITTER = 3.0  # ticks by which a time may be off: whole ms, and interrupts that come late


class FrameClock:
    """Says whether a header keeps the clock of the runs before it.

    Parameters
    ----------
    headers : HeaderReader
    """

    def __init__(self, headers: HeaderReader) -> None:
        self.headers = headers

    def fits(self, runs: Sequence[Run], header: Header) -> bool:
        """Whether a header behind a hole keeps the clock of ``runs``, as far as they tell it.

        Whole periods do not count: a lost interrupt puts two camera frames under one number.
        """
        last = runs[-1]
        end = self.headers.at(last.sector_of(last.count - 1)) or last.first
        if header.time < end.time:
            return False
        known = next((times for run in reversed(runs) if (times := self._ends(run, header)) is not None), None)
        if known is None:
            return True
        (first, early), (frame, late) = known
        period = (late - early) / (frame - first)
        if period <= 0:
            return True
        off = (header.time - late - period * (header.frame - frame)) / period
        tolerance = _JITTER * (1 + (header.frame - frame) / (frame - first)) / period
        return tolerance >= 0.5 or abs(off - round(off)) <= tolerance

    def _ends(self, run: Run, like: Header) -> tuple[tuple[int, int], tuple[int, int]] | None:
        """(frame, time) of the first and the last buffer of a run with the same index as a header."""
        size = len(run.cut)
        if run.odd or like.index >= size or like.length != run.cut.lengths[like.index]:
            return None
        start = (like.index - run.first.index) % size
        last = start + (run.count - 1 - start) // size * size
        found = []
        for i in (start, last):
            header = self.headers.at(run.sector_of(i)) if last > start else None
            if header is None or not run.matches(i, header):
                return None
            found.append((header.frame, header.time))
        return found[0], found[1]
