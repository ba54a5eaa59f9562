"""Where the arithmetic of a recording breaks: whether it goes on behind the break, or an older recording begins there.

A drop, a lap, lost interrupts or a hole end a run of buffers; so does an older recording whose counters differ. What
stands on both sides tells: leftovers of the ring, focus, battery, and the frame clock, as far as each says anything.
"""

from __future__ import annotations

from itertools import pairwise
from statistics import median

import numpy as np

from miniscope_xr.index.clock import due, edges_in
from miniscope_xr.index.evidence import CLOCK_FRAMES, CLOCK_STEP, Evidence
from miniscope_xr.index.runs import Header, Run

_STEADY = 2  # ms within which buffers of one frame are late by the same
_OVER = 20  # ms after the record length in which a last buffer may still come
_SHOWN = 4  # frames that show a clock
_WINDOW = 16  # frames on each side of a break whose clock is compared


class Breaks(Evidence):
    """Judges the breaks between the runs of one recording."""

    def _plausible_boundary(self, runs: list[Run], number: int) -> bool:
        """Whether run ``number`` can follow the one before it in one recording (a drop, lap or lost interrupt)."""
        linked = self._linked_across(runs, number)
        return self._keeps_state(runs, number) if linked is None else linked

    def _keeps_state(self, runs: list[Run], number: int) -> bool:
        """Whether nothing but leftovers speaks against run ``number`` following the one before it; judged once."""
        if number not in self._kept:
            self._kept[number] = self._told_state(runs, number)
        return self._kept[number]

    def _told_state(self, runs: list[Run], number: int) -> bool:
        before, after = runs[number - 1], runs[number]
        a = self.headers.at(before.sector_of(before.count - 1)) or before.first
        b = after.first
        if not self.scanning and a.ewl != b.ewl:
            return False
        if self._recharged(a, b) or self._time_was_over(a, b) or self._still_written(a, b):
            return False
        if self._frame_was_over(runs[:number], a, b):
            return False
        if b.dropped > a.dropped and self.drop_step and not b.ahead:
            since = (b.written + b.dropped) % self.drop_step  # buffers since the drop: as many as are missing, at most
            if since > max(b.written - before.end_place, 0):
                return False
        whole = self._regular(after) and self._alike(after) == after.count
        fits = self._same_clock(runs, number) if whole else self._single_fits(runs, number)
        return fits or self._same_losses(runs, number)

    def _alike(self, run: Run) -> int:
        """How many first buffers of a run are of one recording: all, unless others follow within the first frame."""
        first = range(1, min(len(run.cut) + 1, run.count))
        return next((i for i in first if self._state_changes(run, i)), run.count)

    @staticmethod
    def _still_written(a: Header, b: Header) -> bool:
        """Whether the write of buffer ``b`` began while that of the lapped one in front of it went on.

        The lapped buffer's slot was filled again before it went to the card, so its write lasted at least until then.
        False where one flipped bit would make the difference.
        """
        lapped = a.ahead > 0 and 0 <= a.write_time < a.time
        flipped = any(a.write_time <= a.time ^ 1 << bit <= b.write_time for bit in range(32))
        return lapped and 0 <= b.write_time < a.time and not flipped

    def _frame_was_over(self, before: list[Run], a: Header, b: Header) -> bool:
        """Whether buffer ``b`` goes on with a frame of which buffer ``a`` was the last, shorter one.

        The interrupt at the frame's end made it so short, and puts what comes next into another frame.
        """
        like = next((run for run in reversed(before) if self._regular(run)), None)
        if like is None or (b.frame, b.index, b.count) != (a.frame, a.index + 1, a.count + 1):
            return False
        *whole, last = like.cut.lengths
        return a.index == len(whole) and a.length == last < min(whole)

    def _time_was_over(self, a: Header, b: Header) -> bool:
        """Whether the record length was over between two buffers: this recording ended there by itself.

        Not where the second was written before that: with a pool, the camera went on and filled its slot again.
        """
        if self.headers.framing.build.pool and 0 <= b.write_time <= min(self.stops, b.time):
            return False
        return self.stops > 0 and a.time <= self.stops < b.time - _OVER * self.ticks

    def _linked_across(self, runs: list[Run], number: int) -> bool | None:
        """Whether leftovers behind a break repeat buffers before it; None where they tell nothing.

        Not behind a later break at which an older recording begins all the same.
        """
        later = range(number + 1, min(number + self.ring, len(runs)))
        stop = next((n for n in later if not self._keeps_state(runs, n)), later.stop)
        behind = [(run, i) for run in runs[number:stop] for i in range(min(self._alike(run), self.ring))]
        start, before = runs[number].first.count, runs[number - 1]
        told, torn = set[bool | None](), set[bool | None]()
        for run, i in behind[: self.ring]:
            source = self._earlier(run, i)
            if source is not None and source[0].first.count + source[1] < start:
                last = source == (before, before.count - 1)  # may be torn: then an older one repeats what follows in it
                (torn if last else told).add(self.link(run, i))
        told |= torn - {True} if False in told else torn
        if True in told or False not in told:
            return True if True in told else None
        slow = self._stressed(before, before.count - 1) or self._stressed(runs[number], 0)
        return None if slow or self._within_odd_frame(runs, number) else False

    def _within_odd_frame(self, runs: list[Run], number: int) -> bool:
        """Whether run ``number`` goes on, at the usual pace, within a frame that is longer than others.

        Interrupts were lost in it. What leftovers behind it part begins further on.
        """
        before, b = runs[number - 1], runs[number].first
        a = self.headers.at(before.sector_of(before.count - 1))
        like = max((run for run in runs[:number] if not run.odd), key=lambda run: run.count, default=None)
        if a is None or like is None or number + 1 >= len(runs) or b.index < len(like.cut):
            return False
        follows = (b.frame, b.index, b.count, b.written, b.dropped) == (
            a.frame, a.index + 1, a.count + 1, a.written + 1, a.dropped,
        )  # fmt: skip
        headers = [self._header(like, k) for k in range(min(len(like.cut), like.count))]
        paces = [y.time - x.time for x, y in pairwise(headers) if x and y]
        return follows and bool(paces) and 0 <= b.time - a.time <= max(paces) + self.ticks

    def _single_fits(self, runs: list[Run], number: int) -> bool:
        """Whether a single buffer keeps the frame clock (whole periods aside) of the last regular stretch."""
        here = next((r for r in reversed(runs[:number]) if self._regular(r)), None)
        header = runs[number].first
        if here is None or header.index >= len(here.cut) or header.length != here.cut.lengths[header.index]:
            return True
        size = len(here.cut)
        like = here.count - 1 - (here.index_of(here.count - 1) - header.index) % size
        before = [(m, self._header(here, like - m * size)) for m in range(CLOCK_FRAMES) if like - m * size >= 0]
        times = [(m, h.time) for m, h in before if h is not None]
        expected = due(times, self.ticks) if len(times) == len(before) else None
        if expected is None:
            return True
        time, period = expected
        off = (header.time - time) / period
        tolerance = (CLOCK_STEP + 0.5 + 2 * abs(off) / (len(times) - 1)) * self.ticks
        if abs(off - round(off)) * period <= tolerance:
            return True
        behind = (time + period - header.time) / self.ticks  # edges of a remote: the buffer before lacks interrupts too
        edges = edges_in(behind, self.headers.framing.build.remote_edge)
        last = runs[number - 1]
        return last.odd and (bool(edges) or self._next_in_time(here, last.first, header))

    def _same_losses(self, runs: list[Run], number: int) -> bool:
        """Whether a header fits behind an odd one only if both are of a recording that lost this many buffers before.

        Edges of a remote, one after another, cost buffers and time. An older recording would have to have lost just as
        many, or its counters, and so its place on the card, would be others.
        """
        before, b = runs[number - 1], runs[number].first
        like = max((run for run in runs[:number] if self._regular(run)), key=lambda run: run.count, default=None)
        a = before.first
        follows = (b.count, b.written, b.dropped, b.frame) == (a.count + 1, a.written + 1, a.dropped, a.frame + 1)
        if like is None or not before.odd or before.end_sector != runs[number].sector or b.index or not follows:
            return False
        lost = b.frame * len(like.cut) - b.count
        pauses = self._pauses(like)
        return lost > 1 and bool(pauses) and 0 < b.time - a.time <= median(pauses) + self.ticks

    def _pauses(self, run: Run) -> list[int]:
        """Ticks from the last buffer of a frame to the first of the next one, in the last frames of a run."""
        size = len(run.cut)
        first = (-run.first.index) % size
        last = range(first + size, run.count, size)[-2 * CLOCK_FRAMES :]  # some of them may not be on the card
        ends = ((self._header(run, i - 1), self._header(run, i)) for i in last)
        return [end.time - start.time for start, end in ends if start and end][-CLOCK_FRAMES:]

    def _next_in_time(self, like: Run, a: Header, b: Header) -> bool:
        """Whether a header comes behind the last buffer of a frame when the next frame's first always does.

        Edges of a remote, however many, take buffers of a frame and time; the pause between two frames stays.
        """
        size = len(like.cut)
        if b.index or b.frame != a.frame + 1 or a.length != like.cut.lengths[-1] or a.index >= size - 1:
            return False
        pauses = self._pauses(like)
        return len(pauses) > 2 and abs(b.time - a.time - median(pauses)) <= self.ticks

    def _same_clock(self, runs: list[Run], number: int) -> bool:
        """Whether the first regular stretch from run ``number`` on keeps the frame clock of the last one before it.

        Whole periods do not count: a lost interrupt puts two camera frames under one number. Counters and times
        of single buffers may step back by a ring (a lap), so only regular stretches are compared.
        """
        here = next((r for r in reversed(runs[:number]) if self._regular(r)), None)
        there = next((r for r in runs[number:] if self._regular(r)), None)
        if here is None or there is None or here.cut != there.cut:
            return True
        before, after = self._clock(here, False), self._clock(there, True)
        if len(before) < 2 or len(after) < 2:
            return True
        if after[0][1] < before[-2][1]:
            return False
        steady = before[:-1] if len(before) > 2 else before  # the last frame before a break may be odd
        lost = self._lost_at_end(here)
        longest = max((r for r in runs[:number] if self._regular(r)), key=lambda r: r.count)
        whole = self._clock(longest, False)[:-1]  # the period is one card's: none tells it better
        longer = max(steady, after, whole, key=len)
        frames = longer[-1][0] - longer[0][0]
        period = (longer[-1][1] - longer[0][1]) / frames if frames else 0
        if self.close:  # all buffers of its frames tell it better than the first ones of two
            run = here if longer is steady else there if longer is after else longest
            learnt = self._clock_of(run).learnt(lambda i: self._stamps(run, i))
            period = learnt.period if learnt is not None else period
        if period <= 0:
            return True
        phases = [median(t - period * k for k, t in side) for side in (steady, after)]
        off = (phases[1] - phases[0]) / period
        reach = after[-1][0] - before[0][0]
        stray = max(float(np.ptp([t - period * k for k, t in side])) for side in (steady, after))
        gain = (stray + (1 + reach / frames) * self.ticks) / period
        tolerance = (CLOCK_STEP + 0.5 + 1.5 * reach / frames) * self.ticks / period
        off -= round(off)
        wins = lost and off - lost / period > min(gain, tolerance)  # which no clock does
        if tolerance >= 0.5 or (abs(off) <= min(gain, tolerance) and not wins):
            return True
        return self._begins_on_clock(steady, after)

    def _begins_on_clock(self, before: list[tuple[int, int]], after: list[tuple[int, int]]) -> bool:
        """Whether a stretch behind a break begins on the clock before it, and leaves that by a step further on.

        Power was lost there: an older recording begins at the step, not at the break. One that began at the break
        would be off the clock from its first frame on.
        """
        if len(before) < _SHOWN or len(after) < 3:
            return False
        period = (before[-1][1] - before[0][1]) / (before[-1][0] - before[0][0])
        phases = np.array([t - period * k for k, t in before])
        off = np.array([t - period * k for k, t in after]) - float(np.median(phases))
        off -= period * np.round(off / period)
        reach = after[-1][0] - before[-1][0]
        limit = (CLOCK_STEP + 0.5 + reach / (before[-1][0] - before[0][0])) * self.ticks + float(np.ptp(phases))
        own = int(np.argmax(np.abs(off) > limit))
        return own > 0 and bool((np.abs(off[own:]) > limit).all())

    def _lost_at_end(self, run: Run) -> float:
        """Ticks (less than 0) by which the first buffers of a run's last frame are late by edges of a remote; or 0."""
        start = run.count - 1 - run.index_of(run.count - 1)
        levels = (self._deviation(run, i, start) for i in range(max(start, 1), run.count))
        known = [level / self.ticks for level in levels if level is not None]
        edges = [edges_in(-level, self.headers.framing.build.remote_edge, spread=1) for level in known]
        for n in (1, 2):
            behind = known[: next((k for k, cost in enumerate(edges) if cost != n), len(known))]
            if len(behind) > 1 and max(behind) - min(behind) <= _STEADY:
                return self.ticks * median(behind)
        return 0.0

    @staticmethod
    def _regular(run: Run) -> bool:
        return not run.odd and run.count >= 2 * len(run.cut) > 2

    def _clock(self, run: Run, front: bool) -> list[tuple[int, int]]:
        """(frame number, time) of buffer 0 in up to 16 frames at the front or the end of a run."""
        size = len(run.cut)
        start = (-run.first.index) % size
        last = (run.count - 1 - start) // size
        frames = range(min(last + 1, _WINDOW)) if front else range(max(last + 1 - _WINDOW, 0), last + 1)
        headers = [self._header(run, start + k * size) for k in frames]
        return [(h.frame, h.time) for h in headers if h is not None]
