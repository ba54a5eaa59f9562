"""Where time falls among a run's buffers, whose counters are all as arithmetic has them: some are another recording's.

Buffers of an older one stand among them, in the place of some whose writes failed, or at their end:

    buffer      45   46   47   48   49   50
    time, ms   200  207  214  189  196  203      another recording's begins at 48, though nothing else says so
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from miniscope_xr.index.evidence import Evidence
from miniscope_xr.index.order import Ordered, Times, ordered
from miniscope_xr.index.place import Verdict
from miniscope_xr.index.runs import Run

_FEW = 2  # buffers at the end that may be old ones in the place of failed writes
_FRAMES = 4  # of fewer, the order of times alone does not say which are old
_CLOCK = 8  # frames that show a clock
_STRAY = 5.0  # ms by which times stray from it


class Falls(Evidence):
    """Looks for times that fall, where nothing else tells of an older recording."""

    def with_order(self, run: Run, found: Verdict | None) -> Verdict | None:
        """What was ``found`` among a run's buffers, and if it is no end and time falls, what that shows."""
        order = self._order(run) if self.close and (found is None or found.end is None) else None
        if order is None:
            return found
        apart = [*np.flatnonzero(order.odd | order.unsure).tolist(), *range(order.end, run.count)]
        if not apart:
            return found
        doubts = found.doubt if found is not None else []
        if order.end < run.count - _FEW:
            return Verdict((0, order.end), doubts)
        a, last = run.frame_of(apart[0]), max(r.last_frame for r in (run, *self.runs))
        frames = f"frames {a} to {last} are" if a < last else f"frame {a} is"
        said = (
            f"time goes back in frame {a}: buffers of an older recording stand there in the place of some whose writes "
            f"failed, or one begins there; {frames} in doubt"
        )
        return Verdict(None, [said, *doubts])

    def _order(self, run: Run) -> Ordered | None:
        """What the times of a run's buffers say of their order, those aside that are known to be old; None: nothing."""
        if (run.sector, run.count) in self._even and not self.headers.framing.build.write_waits:
            return None
        times = self._times(run)
        if times.rise():
            return None
        old = np.array([self._stale(run, i) for i in range(run.count)], bool)
        if not old[:1].any() or run.count >= _FRAMES * len(run.cut):
            times = replace(times, came=np.where(old, np.nan, times.came))
        return ordered(times, self.headers.framing.build.failed_writes)

    def _times(self, run: Run) -> Times:
        """The times of a run's buffers, and how late each is where the clock tells."""
        build = self.headers.framing.build
        waits = build.write_waits > 0
        shown = run.count >= (_CLOCK + 1) * len(run.cut) and not build.remote_edge[1]  # an edge costs the clock time
        told = self._clock_of(run).left(lambda k: self._stamps(run, k), 0, run.count) if shown else None
        if told is None:
            return Times(*self._stamps(run, np.arange(run.count)), np.full(run.count, np.nan), 0.0, waits)
        stamps, left, model = told
        return Times(*stamps, left, _STRAY * self.ticks + model.stray, waits)
