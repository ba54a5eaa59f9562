"""The frame clock: while a recording goes on, the time of every buffer follows from its number.

    frame       40    41    42    43    44
    buffer 0  2025  2075  2125  2175  2225      a period of 50 ms
    buffer 1  2032  2082  2151  2182  2232      2151 is of a recording that began 19 ms later

Times stray by a ms or so (whole ms, interrupts that come late). A *step* of the clock is there to stay: an older
recording begins, or interrupts were lost. An *excursion* comes back: in the place of a few buffers whose writes failed
stand those of an older recording.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from miniscope_xr.index.headers import HeaderReader
from miniscope_xr.index.runs import Header, Run
from miniscope_xr.layout.arrays import Floats

_JITTER = 3.0  # ticks by which a time may be off: whole ms, and interrupts that come late
_TRIED = 3  # frames looked at for times that can be those of one
_WIDTH = 4.0  # ticks within which times of one kind lie

Ends = tuple[tuple[int, int], tuple[int, int]]


class FrameClock:
    """Says whether a header keeps the clock of the runs before it.

    Parameters
    ----------
    headers : HeaderReader
    """

    def __init__(self, headers: HeaderReader) -> None:
        self.headers = headers

    def fits(self, runs: Sequence[Run], header: Header, jitter: float = _JITTER) -> bool:
        """Whether a header behind a hole keeps the clock of ``runs``, as far as they tell it."""
        return self.strain(runs, header) <= jitter

    def strain(self, runs: Sequence[Run], header: Header) -> float:
        """Ticks by which each of the times that show a clock has to be off, for a header behind a hole to keep it.

        The fewer frames have shown it, and the farther behind the header is, the less it says. Whole periods do not
        count: a lost interrupt puts two camera frames under one number.
        """
        last = runs[-1]
        end = self.headers.at(last.sector_of(last.count - 1)) or last.first
        if header.time < end.time:
            return float("inf")
        known = next((times for run in reversed(runs) if (times := self._known(run, header))), ())
        return min((self._strain(ends, header) for ends in known), default=0.0)

    @staticmethod
    def _strain(ends: Ends, header: Header) -> float:
        """The same of the clock that two earlier buffers show."""
        (first, early), (frame, late) = ends
        period = (late - early) / (frame - first)
        if period <= 0:
            return 0.0
        farther = 1 + (header.frame - frame) / (frame - first)
        off = (header.time - late - period * (header.frame - frame)) / period
        return abs(off - round(off)) * period / farther if farther > 0 else float("inf")

    def _known(self, run: Run, like: Header) -> list[Ends]:
        """(frame, time) of the first and the last buffer of a run with the same index as a header.

        Where the last one is itself off the clock, also of the one before: an interrupt was lost in the last frame.
        """
        size = len(run.cut)
        if run.odd or like.index >= size or like.length != run.cut.lengths[like.index]:
            return []
        start = (like.index - run.first.index) % size
        last = start + (run.count - 1 - start) // size * size
        if last <= start:  # in front of a run of less than a frame, and perhaps of the card, nothing is read
            return []
        first, end = self._time(run, start), self._time(run, last)
        if first is None or end is None:
            return []
        before = self._time(run, last - size) if last > start + size else None
        if before is None:
            return [(first, end)]
        step = (before[1] - first[1]) / (before[0] - first[0])
        odd = abs(end[1] - before[1] - step) > _JITTER
        return [(first, end), (first, before)] if odd else [(first, end)]

    def _time(self, run: Run, i: int) -> tuple[int, int] | None:
        header = self.headers.at(run.sector_of(i))
        return (header.frame, header.time) if header is not None and run.matches(i, header) else None


class Model(NamedTuple):
    """The clock of a run: ticks a frame, ticks from a frame's first buffer to each, and by how much times stray.

    ``unsure`` is by how many ticks a frame the period may be off: it is learnt from whole ms.
    """

    period: float
    offsets: Floats
    stray: float
    unsure: float = 0.0

    def tolerance(self, ticks: float) -> float:
        """Ticks by which buffers of one clock may be off each other, with so many ticks a ms."""
        return ticks + 0.6 + self.stray


def learn(times: Floats, lengths: Sequence[int]) -> Model | None:
    """Learn the clock from whole frames in a row: ticks (frames, buffers), NaN where a buffer is not there.

    ``lengths`` are the bytes of a frame's buffers: where as many times say one thing as another, the one that is in
    proportion to the bytes is believed.

    >>> learn(np.add.outer(50.0 * np.arange(20), [25.0, 32.0]), [20436, 20436]).period
    50.0
    """
    count = len(times)
    if count < 3:
        return None
    period = _usual(np.diff(times, axis=0).reshape(-1))
    due = _in_proportion(times, lengths)
    offsets = np.array([0.0 if b == 0 else _usual(times[:, b] - times[:, 0], due[b]) for b in range(len(due))])
    if not period > 0 or not np.isfinite(offsets).all():
        return None
    left = times - offsets - period * np.arange(count)[:, None]
    steps = np.abs(np.diff(left, axis=0))  # all buffers of a frame stray together
    steps = steps[np.isfinite(steps)]
    near = steps[steps <= _WIDTH]
    stray = float(np.sort(steps)[(steps.size - 1) // 2]) if steps.size else 0.0  # one of them: not halfway to a step
    if stray > _WIDTH and len(near) > 0.4 * len(steps):  # of few frames, half may be steps of the clock
        stray = float(np.median(near))
    pairs = int(np.isfinite(np.diff(times, axis=0)).any(axis=1).sum())
    return Model(period, offsets, 2 * stray, 1 / max(pairs, 1))


def _in_proportion(times: Floats, lengths: Sequence[int]) -> Floats:
    """Ticks from a frame's first buffer to each, were they in proportion to its bytes; NaN where nothing tells."""
    behind = np.array(lengths[1:], float)
    rates = (np.diff(times, axis=1) / behind).reshape(-1)
    rates = rates[np.isfinite(rates)]
    rate = float(np.median(rates)) if rates.size else float("nan")
    return np.concatenate(([0.0], rate * np.cumsum(behind)))


def _usual(values: Floats, due: float = float("nan")) -> float:
    """Mean of the values where most of them are.

    Where as many are in two places: the one nearest to ``due``, else the largest, as interrupts cost time.
    """
    known = np.sort(values[np.isfinite(values)])
    if not known.size:
        return float("nan")
    stop = np.searchsorted(known, known + _WIDTH, side="right")
    many = stop - np.arange(len(known))
    means = [float(known[k : stop[k]].mean()) for k in np.flatnonzero(many == many.max())]
    return means[-1] if np.isnan(due) else min(means, key=lambda mean: abs(mean - due))


def due(known: Sequence[tuple[int, int]], ticks: float) -> tuple[float, float] | None:
    """When a buffer is due by those of the same index before it, and the period, in ticks.

    ``known`` are (frames before it, time), the nearest first. Where an edge of a remote took interrupts, the clock is
    behind from there on: the period is that of most frames, and the nearest ones say when.

    >>> due([(1, 176), (2, 126), (3, 88), (4, 38)], 1.0)
    (226.0, 50.0)
    """
    if len(known) < 2:
        return None
    frames, times = (np.array(part, float) for part in zip(*known, strict=True))
    period = ticks * _usual(-np.diff(times) / np.diff(frames) / ticks)
    levels = times + frames * period
    near = levels[np.abs(levels - np.median(levels[:3])) <= _WIDTH * ticks]
    return (float(np.median(near)), period) if period > 0 else None


def edges_in(lost: float, edge_ms: tuple[int, int], most: int = 2, spread: float = 0.0) -> int:
    """How many edges of a remote, up to ``most``, would cost the clock ``lost`` ms; 0 where no such number does.

    ``edge_ms`` is what a build loses at each (0 to 0: nothing), ``spread`` what the times compared may be off.

    >>> edges_in(24.0, (10, 14)), edges_in(17.0, (10, 14)), edges_in(0.0, (0, 0))
    (2, 0, 0)
    """
    least, high = edge_ms
    some = range(1, most + 1) if high else ()
    return next((n for n in some if n * least - spread <= lost <= n * high + spread), 0)


# -- the clock of a recording, from headers in hand --------------------------------------------------------------------


def clock_of(runs: Sequence[Run], headers: HeaderReader) -> Model | None:
    """The clock of a recording from the ends of its longest run: headers that were looked at to find the run.

    The times within a frame are in proportion to its bytes. None where nothing tells.
    """
    run = max((r for r in runs if not r.odd and len(r.cut) > 1), key=lambda r: r.count, default=None)
    if run is None:
        return None
    size = len(run.cut)
    most = run.count // size - _TRIED  # old buffers, or a hole, may be in the first frames
    frames = [*range(_TRIED), *range(max(most - _TRIED, _TRIED), most)]
    starts = ((-run.first.index) % size + k * size for k in frames)
    return next((told for start in starts if (told := _clock_from(run, start, headers))), None)


def _clock_from(run: Run, start: int, headers: HeaderReader) -> Model | None:
    """The clock of a run from the first and the last buffer of a frame, and the last buffer of all."""
    size, last = len(run.cut), run.count - 1
    if last < start + 2 * size:
        return None
    found = [headers.at(run.sector_of(i)) for i in (start, start + size - 1, last)]
    if not all(run.matches(i, h) for i, h in zip((start, start + size - 1, last), found, strict=True)):
        return None
    first, second, end = (h.time for h in found if h is not None)
    behind = list(accumulate(run.cut.lengths[1:], initial=0))  # plain numbers: every card that is opened comes by here
    if not behind[-1]:
        return None  # lengths that bits flipped in
    offsets = [(second - first) * n / behind[-1] for n in behind]
    period = (end - first - offsets[run.index_of(last)]) / (run.frame_of(last) - run.frame_of(start))
    return Model(period, np.array(offsets), 0.0) if period > offsets[-1] > 0 else None
