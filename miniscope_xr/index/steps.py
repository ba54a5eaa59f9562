"""Where the clock of a whole recording steps, over all of its runs: the evidence that is left where links have a gap.

When a user meets this: an interrupted recording over an older one, and a drop, a damaged header or a formatted stretch
right where it ends. The bytes that would link or part the buffers there are gone. The clock is not: what the buffers
before it and behind it keep is compared, whole periods aside (drops and lost interrupts put other numbers on frames).

A step that links reach across is no seam: interrupts of a foreign remote cost ticks.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from miniscope_xr.index.clock import EDGE, Bools, Floats, Model, learn
from miniscope_xr.index.evidence import Evidence
from miniscope_xr.index.runs import Header, Run

_SIDE = 20  # buffers on each side of a step whose clock is compared
_NEAR = 4  # buffers next to it, of which most are off too
_LEARN = 64  # frames


class Step(NamedTuple):
    """A step of the clock right before buffer ``i`` of run ``run``; ``back`` ticks less than the clock before it.

    ``sure``: every buffer before it that is on the card keeps the clock before.
    """

    run: int
    i: int
    back: float
    sure: bool


class ClockSteps(Evidence):
    """Looks at the clock over all runs of a recording."""

    def first_step(self, runs: list[Run]) -> Step | None:
        """The first step of the clock that no link reaches across; None where there is none."""
        model = self._model(runs)
        if model is None:
            return None
        left = np.concatenate([self._left(run, model) for run in runs])
        there = np.flatnonzero(np.isfinite(left))
        tolerance = self.ticks + 0.6 + model.stray
        for n in np.flatnonzero(_steps(left[there], model.period, tolerance)).tolist():
            before, behind = int(there[n - 1]), int(there[n])
            near = left[there[max(n - _SIDE, 0) : n]]
            back = -float(_wrapped(left[behind] - np.median(near), model.period))
            if self._spanned(runs, before, behind, 1 if self._edges(back % model.period, 3) else 2):
                continue
            starts = [0, *accumulate(run.count for run in runs)]
            number = int(np.searchsorted(starts, before + 1, side="right")) - 1
            present = [self.headers.at(r.sector_of(i)) for r, i in self._at(runs, range(before + 1, behind))]
            return Step(number, before + 1 - starts[number], back, not any(h is not None for h in present))
        return None

    def edge(self, step: Step) -> bool:
        """Whether the interrupts of a foreign remote cost as much."""
        return self._edges(step.back, 2)

    def _edges(self, back: float, most: int) -> bool:
        return any(edges * EDGE[0] <= back / self.ticks <= edges * EDGE[1] for edges in range(1, most + 1))

    def _model(self, runs: list[Run]) -> Model | None:
        """The clock of the longest stretch: an older recording's is as fast."""
        run = max((r for r in runs if not r.odd), key=lambda r: r.count, default=None)
        if run is None:
            return None
        size = len(run.cut)
        first = (-run.first.index) % size
        frames = min((run.count - first) // size, _LEARN)
        return learn(self._times(run, first + np.arange(frames * size)).reshape(-1, size)) if frames >= 3 else None

    def _left(self, run: Run, model: Model) -> Floats:
        """Ticks by which each buffer of a run is off the clock; NaN where it says nothing about it."""
        if run.odd:
            return np.array([self._left_of(run.first, model)])
        if len(run.cut) != len(model.offsets):
            return np.full(run.count, np.nan)
        i = np.arange(run.count)
        frame, index = np.divmod(i + run.first.index, len(run.cut))
        left = self._times(run, i) - model.offsets[index] - model.period * (frame + run.first.frame)
        left[[self._stale(run, int(k)) for k in i]] = np.nan
        return left

    def _left_of(self, header: Header, model: Model) -> float:
        """The same for a single buffer; a lapped one, or one of another length, says nothing."""
        main = next((r for r in self.runs if not r.odd), None)
        index = header.index
        usual = main is not None and index < len(main.cut) and header.length == main.cut.lengths[index]
        if not usual or header.count != header.written + header.dropped or index >= len(model.offsets):
            return float("nan")
        return float(header.time - model.offsets[index] - model.period * header.frame)

    def _at(self, runs: list[Run], places: range) -> list[tuple[Run, int]]:
        every = [(run, i) for run in runs for i in range(run.count)]
        return every[places.start : places.stop]

    def _spanned(self, runs: list[Run], before: int, behind: int, least: int) -> bool:
        """Whether at least so many links reach across every place between two buffers where a seam could be.

        One is not enough where no lost ticks explain the step: the tail of a torn buffer is the older recording's.
        """
        order = {(id(run), i): k for k, (run, i) in enumerate(self._at(runs, range(sum(r.count for r in runs))))}
        spans = []
        for run, i in self._at(runs, range(before + 1, behind + 2 * max(self.ring, 1))):
            source = self._earlier(run, i)
            if source is not None and (id(source[0]), source[1]) in order and self.link(run, i):
                spans.append((order[id(source[0]), source[1]], order[id(run), i]))
        return all(sum(a < seam <= b for a, b in spans) >= least for seam in range(before + 1, behind + 1))


def _wrapped(values: Any, period: float) -> Any:
    """Values without whole periods."""
    return values - period * np.rint(values / period)


def _steps(left: Floats, period: float, tolerance: float) -> Bools:
    """Before which buffers the clock steps: they keep the clock of what is behind them, and not of what is before."""
    found = np.zeros(len(left), bool)
    for n in range(2, len(left) - 1):
        before = _wrapped(left[max(n - _SIDE, 0) : n] - left[n], period)
        near = before[-_NEAR:]
        behind = _wrapped(left[n + 1 : n + _SIDE] - left[n], period)
        off = abs(np.median(before)) > tolerance and abs(np.median(near)) > tolerance
        found[n] = off and abs(np.median(behind)) <= tolerance
    return found
