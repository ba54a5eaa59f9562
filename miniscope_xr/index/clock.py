"""The frame clock: while a recording goes on, the time of every frame follows from its number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from miniscope_xr.index.headers import HeaderReader
from miniscope_xr.index.runs import Header, Run

_JITTER = 3.0  # ticks by which a time may be off: whole ms, and interrupts that come late
_WIDTH = 4.0  # ticks within which times of one kind lie

Floats = np.ndarray[Any, np.dtype[np.float64]]


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


class Model(NamedTuple):
    """The clock of a run: ticks a frame, ticks from a frame's first buffer to each, and by how much times stray."""

    period: float
    offsets: Floats
    stray: float


def learn(times: Floats) -> Model | None:
    """Learn the clock from whole frames in a row: ticks (frames, buffers), NaN where a buffer is not there.

    >>> learn(np.add.outer(50.0 * np.arange(20), [25.0, 32.0])).period
    50.0
    """
    count = len(times)
    if count < 3:
        return None
    period = _usual(np.diff(times, axis=0).reshape(-1))
    offsets = np.array([0.0 if b == 0 else _usual(column - times[:, 0]) for b, column in enumerate(times.T)])
    if not period > 0 or not np.isfinite(offsets).all():
        return None
    left = times - offsets - period * np.arange(count)[:, None]
    steps = np.abs(np.diff(left, axis=0))  # all buffers of a frame stray together
    steps = steps[np.isfinite(steps)]
    return Model(period, offsets, float(np.percentile(steps, 80)) if steps.size else 0.0)


def _usual(values: Floats, width: float = _WIDTH) -> float:
    """Mean of the values where most of them are; of the larger ones if as many are elsewhere (interrupts cost time)."""
    known = np.sort(values[np.isfinite(values)])
    if not known.size:
        return float("nan")
    stop = np.searchsorted(known, known + width, side="right")
    many = stop - np.arange(len(known))
    start = len(known) - 1 - int(np.argmax(many[::-1]))
    return float(known[start : stop[start]].mean())
