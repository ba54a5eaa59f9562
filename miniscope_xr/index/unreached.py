"""Places over which no leftovers reach: what the buffers on both sides say there.

Leftovers that repeat the buffer one ring earlier prove that all between are of one recording. Around a hole, a header
with a flipped bit, and at the very start and end, some buffers are left over which no such link reaches:

    buffer   ...  8  9 10 11 12 13 14  ...      9 repeats 1, and 19 repeats 11: an older recording may begin at 10 or 11
    link          -  1  -  -  -  -  ?           (14 would repeat 6, behind which a header is damaged)

There the focus, the battery and the frame clock on both sides are compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from miniscope_xr.index.evidence import LARGE, Evidence
from miniscope_xr.index.runs import Run
from miniscope_xr.layout.arrays import Floats

SIDE = 40  # buffers on each side whose clock is compared
_FEW = 3  # fewer buffers show no clock
_WHOLE = 3  # whole frames in front of the last one that show a clock
_SAME = 4.0  # ticks within which a frame drifts as others do


class Unreached(Evidence):
    """Looks for the beginning of an older recording where no leftovers tell."""

    def _gaps(self, run: Run, near: range) -> Iterator[range]:
        """Some buffers in a row in front of which an older recording may begin, for all that the leftovers say."""
        reached = near.start + 1
        for i in self._short(run, max(near.start, self.ring), near.stop):
            if self.link(run, i) and not self._of_old(run, i):
                first = i - self.ring + 1
                if first > reached:
                    yield range(reached, first)
                reached = i + 1
        if reached < near.stop:
            yield range(reached, near.stop)

    def _of_old(self, run: Run, i: int) -> bool:
        """Whether what the leftovers of a buffer repeat is an old one in the place of a failed write."""
        source = self._source(run, i)
        return source is not None and self._stale(*source)

    def _seam_in_gap(self, run: Run, gap: range) -> int | None:
        """The first of an older recording's buffers in a gap; None where it goes on over the gap."""
        around = range(max(gap.start - 2, 0), min(gap.stop + SIDE, run.count))
        known = [(i, h) for i in around if (h := self._header(run, i)) is not None]
        for k, ((i, a), (j, b)) in enumerate(pairwise(known)):
            if i + 1 >= gap.stop:
                break
            if i + 1 < gap.start or (k and self._odd_alone(known[k - 1][1], a, b)):
                continue
            later = known[k + 2][1] if k + 2 < len(known) else b  # a bit may have flipped in one header
            own = self._same_state(a, b) or self._same_state(a, later)
            if not own and (i or not self._first_flipped(a, b, later)):
                return min(j, i + 1)
        step = self._step_in(run, gap)
        if step is None:
            return self._written_too_early(run, gap)
        return self._behind_lapped(run, self._behind_odd(run, step))

    def _behind_odd(self, run: Run, seam: int) -> int:
        """The seam, behind a buffer of odd length whose counters are this recording's, as those behind it are not.

        An interrupt was lost in it, and the clock with it.
        """
        here, behind = (self.headers.at(run.sector_of(i)) for i in (seam, seam + 1))
        odd = here is not None and run.matches(seam, here) and here.length != run.length_of(seam)
        return seam + 1 if odd and behind is not None and not run.matches(seam + 1, behind) else seam

    def _written_too_early(self, run: Run, gap: range) -> int | None:
        """Where in a gap a buffer is that came later than the one in front of it was written.

        Not with a firmware that writes a buffer only once the next one is complete: there it is another recording's.
        Where writes failed, there are two such places: in front of the old buffers, and behind them.
        """
        if not self._writes_wait(run):
            return None
        near = range(gap.start, min(gap.stop + self.headers.framing.build.failed_writes, run.count))
        odd = [(i, -late) for i in near if (late := self._handed_over(run, i))]
        if len(odd) != 1 or odd[0][0] not in gap:
            return None
        i, early = odd[0]
        return i if early > 0 or self._came_before(run, i, early) else None

    def _handed_over(self, run: Run, i: int) -> int | None:
        """Ticks from when buffer ``i`` came to when the write of the one before it began; None: not known.

        Nor where one flipped bit would make the two the same: a large one, or one with which that buffer would have
        been written before it came.
        """
        a, b = self._header(run, i - 1), self._header(run, i)
        if a is None or b is None or a.write_time < 0:
            return None
        differing = a.write_time ^ b.time
        flipped = differing.bit_count() == 1 and (differing >> LARGE > 0 or a.write_time < a.time)
        return None if flipped else a.write_time - b.time

    def _writes_wait(self, run: Run) -> bool:
        """Whether most buffers of a run were written when the next one came: some firmwares wait for it."""
        if run.sector not in self._waits:
            pairs = (self._handed_over(run, i) for i in range(1, min(run.count, 2 * SIDE)))
            known = [late for late in pairs if late is not None]
            self._waits[run.sector] = 4 * known.count(0) >= 3 * len(known) > 0
        return self._waits[run.sector]

    def _came_before(self, run: Run, i: int, early: int) -> bool:
        """Whether a buffer came too early by as much as the one before it was written later than it came.

        That one was written when the next of this recording was due, so the buffer there is not this one's.
        """
        size = len(run.cut)
        start = max((i - SIDE) // size * size + (-run.first.index) % size, 0)
        told = self._left(run, start, i + 1) if i - start >= _WHOLE * size else None
        if told is None or -early < 2 * self.ticks:
            return False
        left = told[0]
        usual = left[:-1][np.isfinite(left[:-1])]
        steady = len(usual) > size and float(np.ptp(usual)) <= 1.5 * self.ticks
        return steady and abs(left[-1] - float(np.median(usual)) - early) <= self.ticks

    def _behind_lapped(self, run: Run, seam: int) -> int:
        """The seam, behind a buffer of other counts that was written later than the one behind it: it is not older."""
        here, behind = (self.headers.at(run.sector_of(i)) for i in (seam, seam + 1))
        if here is None or behind is None or here.written != run.first.written + seam or run.matches(seam, here):
            return seam
        later = run.matches(seam + 1, behind) and here.write_time > behind.write_time >= 0
        return seam + 1 if later else seam

    def _write_step(self, run: Run, candidates: Sequence[int]) -> int | None:
        """The one candidate in front of which a write did not begin as writes around it do, when the next buffer came.

        Some firmwares write a buffer once the next one is complete. That next one is another recording's here.
        """
        around = range(max(candidates[0] - SIDE // 2, 1), min(candidates[-1] + SIDE // 2, run.count))
        late = {i: late for i in around if (late := self._handed_over(run, i)) is not None}
        usual = [value for i, value in late.items() if i not in candidates]
        odd = [i for i in candidates if late.get(i, 0) != 0]
        whole = all(i in late for i in candidates)
        waits = len(usual) >= SIDE // 4 and 4 * usual.count(0) >= 3 * len(usual)
        if not whole or not waits or len(odd) != 1:
            return None
        behind = range(odd[0] + 1, min(odd[0] + self.headers.framing.build.failed_writes + 1, run.count))
        again = [value for i in behind if (value := self._handed_over(run, i))]
        back = any(abs(late[odd[0]] + value) <= self.ticks for value in again)  # to this clock: writes failed between
        return None if back else odd[0]

    def _step_in(self, run: Run, gap: range, sharp: bool = False) -> int | None:
        """Where in a gap the frame clock steps for good; ``sharp``: where that is clear for each buffer of it."""
        size = len(run.cut)
        lead = (-run.first.index) % size
        start = max(lead + (gap.start - SIDE - lead) // size * size, 0)
        stop = min(gap.stop + SIDE, run.count)
        told = self._left(run, start, stop)
        if told is None:
            return None
        left, model = told
        left, unsure = levelled(left, size, gap.start - start, gap.stop - start)
        places = [i for i in gap if np.isfinite(left[max(i - 1 - start, 0)]) or i == gap.start]
        best = min(places, key=lambda i: _cost(left, i - start))
        beyond = (
            _cost(left, i - start) for i in range(start + 1, stop) if i not in gap and np.isfinite(left[i - start])
        )
        outside = min(beyond, default=float("inf"))
        before, behind = _sides(left, best - start)
        level = float(np.median(behind)) if len(behind) else 0.0
        carried = 1 + len(gap) / size  # frames
        if np.isnan(left[gap.start - start : gap.stop - start]).any():  # over a hole: from one side to the other
            apart = _centre(left, best - start, len(left)) - _centre(left, 0, best - start)
            carried = max(carried, apart / size)
        drifted = unsure * self.ticks * carried
        tolerance = model.tolerance(self.ticks) + drifted
        settled = 2 * int((np.abs(behind - level) <= tolerance).sum()) > len(behind)  # not where interrupts were lost
        if len(before) < _FEW or len(behind) < size or not settled:
            return None
        jump = abs(level - float(np.median(before)))
        own = np.where(np.array(gap) < best, float(np.median(before)), level)
        most = min(jump / 2 - self.ticks / 4, tolerance)
        blurred = np.abs(left[gap.start - start : gap.stop - start] - own) > most
        stray = max(float(np.ptp(side)) / 2 / self.ticks for side in (before, behind))  # by so much drift is less sure
        clear = jump > tolerance + drifted * max(stray - 1, 0)
        clear &= _cost(left, best - start) - outside <= jump / 2  # else it steps where leftovers say that it goes on
        return best if clear and not (sharp and blurred.any()) else None


def levelled(left: Floats, size: int, stop: int, start: int) -> tuple[Floats, float]:
    """The same without the drift that buffers up to ``stop`` and from ``start`` on show; ms a frame it may be off.

    A time is off by up to a ms, which tells the drift the better the more frames there are.
    """
    sides = [left[:stop], left[start:]]
    drifts = np.concatenate([side[size:] - side[:-size] for side in sides])
    drifts = drifts[np.isfinite(drifts)]
    drifts = drifts[np.abs(drifts - np.median(drifts)) <= _SAME] if len(drifts) else drifts  # a step is no drift
    drift = float(np.mean(drifts)) if len(drifts) >= 2 * size else 0.0
    level: Floats = left - drift / size * np.arange(len(left))
    return level, size / max(len(drifts), size)


def _sides(left: Floats, k: int) -> tuple[Floats, Floats]:
    before, behind = left[:k], left[k:]
    return before[np.isfinite(before)], behind[np.isfinite(behind)]


def _centre(left: Floats, first: int, stop: int) -> float:
    """The middle one of those buffers that are there."""
    return first + float(np.median(there)) if len(there := np.flatnonzero(np.isfinite(left[first:stop]))) else first


def _cost(left: Floats, k: int) -> float:
    """Ticks by which all are off the clock of their side, with a step in front of number ``k``."""
    return sum(float(np.abs(side - np.median(side)).sum()) for side in _sides(left, k) if len(side))
