"""The last buffers of a run, of less than a frame: an older recording's counters may go on for a few buffers.

It began in another phase of its frame clock, and so its buffers are off this one's, all alike:

    buffer     ... 52  53  54  55 | 56  57  58      this recording ended with 55; behind 58 the older one's counts
    clock, ms       0   0   1   0 |-14 -13 -14      differ, as something was dropped in it

Of a whole frame leftovers and the clock tell more (``unreached.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from miniscope_xr.index.clock import Model
from miniscope_xr.index.evidence import CLOCK_STEP
from miniscope_xr.index.runs import Run
from miniscope_xr.index.unreached import SIDE, Unreached, levelled

_WHOLE = 3  # whole frames in front of the last one that show a clock


@dataclass(frozen=True)
class _Tail:
    """Buffers at the end of a run that are off the clock in front of them by ``jump`` ticks, but for ``tolerance``."""

    first: int
    there: int
    jump: float
    tolerance: float
    model: Model


class Tails(Unreached):
    """Tells whether the last few buffers of a run are an older recording's."""

    def _old_tail(self, run: Run) -> int | None:
        """The first of less than a frame's buffers at the end of a run that are an older recording's by their clock.

        They are off it by nothing that befalls a recording's last frame: an interrupt that was lost, a flipped bit.
        Edges of a remote take a whole frame's pause, or buffers: where one may have, :meth:`perhaps_edges` says so.
        """
        if self._whole_in_front(run) < _WHOLE:
            return self._first_written_before(run)
        tail = self._off_tail(run)
        if tail is None or self._written_before(run, tail.first):
            return None if tail is None else tail.first
        waits = np.abs(np.diff(tail.model.offsets) - tail.jump) <= tail.tolerance
        own = waits.any() or self._flipped(run, tail) or self._linked_to(run, tail.first)
        return None if own else tail.first

    def _linked_to(self, run: Run, first: int) -> bool:
        """Whether leftovers of a tail's buffers repeat what is in front of it: edges of a remote put off its clock."""
        found = ((i, self._source(run, i)) for i in self._short(run, first, run.count))
        return any(s is not None and s[0] is run and s[1] < first and self.link(run, i) is True for i, s in found)

    def _tail_of_next(self, runs: Sequence[Run], number: int) -> int | None:
        """The first of a run's last few buffers that are off its clock by as much as the buffer behind the break is.

        An older recording begins with them, and what broke the run is that one's drop or lap: counts break late, when
        its own no longer fit. Not where leftovers behind the break reach back over them, or a remote's edges may have
        cost this recording the time; a recording whose writes failed there is back on its clock behind the break.
        """
        run, following = runs[number], runs[number + 1]
        tail = self._off_tail(run) if not run.odd and self._whole_in_front(run) >= _WHOLE else None
        size, b = len(run.cut), following.first
        if tail is None or b.index >= size:
            return None
        frames, index = b.frame - run.frame_of(tail.first), run.index_of(tail.first)
        a = self._header(run, tail.first)
        late = float(tail.model.offsets[index] - tail.model.offsets[index - 1]) if index else 0.0
        cost = b.frame == run.frame_of(tail.first) and b.length == run.cut.lengths[-1] and b.index == size - 2
        if cost and abs(tail.jump - late) <= tail.tolerance:
            return None  # an interrupt was lost in it
        loses = tail.jump < 0 and self.headers.framing.build.remote_edge[1] > 0  # to edges, as this one's clock may
        if a is None or loses:
            return None
        took = tail.model.period * frames + float(tail.model.offsets[b.index] - tail.model.offsets[index])
        off = b.time - a.time - took
        off -= tail.model.period * round(off / tail.model.period)
        reach = tail.tolerance + tail.model.unsure * abs(frames)
        if abs(off) > reach or abs(off + tail.jump) <= reach or self._reaches_over(runs, number, tail.first):
            return None
        return tail.first

    def _reaches_over(self, runs: Sequence[Run], number: int, first: int) -> bool:
        """Whether leftovers behind a break repeat a buffer in front of number ``first`` of the run before it."""
        for run in runs[number + 1 :]:
            for i in self._short(run, 0, min(run.count, self.ring)):
                source = self._source(run, i)
                if source is not None and source[0] is runs[number] and source[1] < first and self.link(run, i):
                    return True
        return False

    def _whole_in_front(self, run: Run) -> int:
        """Frames of a run among its last buffers that are looked at for the clock."""
        return (run.count - self._tail_start(run)) // len(run.cut)

    def _tail_start(self, run: Run) -> int:
        size = len(run.cut)
        return max(run.count // size * size - SIDE, 0) // size * size + (-run.first.index) % size

    def _off_tail(self, run: Run) -> _Tail | None:
        """Less than a frame's buffers at the end of a run that are off the clock in front of them, all alike."""
        size, start = len(run.cut), self._tail_start(run)
        told = self._left(run, start, run.count)
        if told is None:
            return None
        left, model = told
        left, unsure = levelled(left, size, len(left) - size, len(left))
        usual = left[: len(left) - size]
        if not np.isfinite(usual).any():
            return None
        tolerance = model.tolerance(self.ticks) + 2 * unsure * self.ticks
        off = left - np.median(usual[np.isfinite(usual)])
        away = np.abs(off) > tolerance
        first = len(left)
        while first > len(left) - size and (away[first - 1] or np.isnan(off[first - 1])):
            first -= 1
        tail = off[first:][np.isfinite(off[first:])]
        if not len(tail) or len(tail) >= size or np.ptp(tail) > tolerance:
            return None
        return _Tail(start + first, len(tail), float(np.median(tail)), tolerance, model)

    def _first_written_before(self, run: Run) -> int | None:
        """The first of a run's last few buffers that was written before the one in front of it, which is on time."""
        for i in range(max(run.count - len(run.cut), 1), run.count):
            if self._written_before(run, i) and self._on_time(run, i - 1) and not self._on_time(run, i):
                return i
        return None

    def _on_time(self, run: Run, i: int) -> bool:
        """Whether a buffer comes when those of the same index in the frames before it say."""
        off = self._deviation(run, i, i)
        return off is not None and abs(off) <= CLOCK_STEP * self.ticks

    def _written_before(self, run: Run, i: int) -> bool:
        """Whether buffer ``i`` was written before the one in front of it on the card: it is another recording's."""
        a, b = self.headers.at(run.sector_of(i - 1)), self.headers.at(run.sector_of(i))
        return a is not None and b is not None and 0 <= b.write_time < a.write_time

    def _flipped(self, run: Run, tail: _Tail) -> bool:
        """Whether one buffer that is off the clock by a jump would be on it with one bit of its time flipped back."""
        header = self._header(run, tail.first)
        if tail.there > 1 or header is None:
            return False
        due = header.time - tail.jump
        return any(abs((header.time ^ 1 << bit) - due) <= self.ticks for bit in range(32))
