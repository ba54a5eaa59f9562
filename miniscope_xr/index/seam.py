"""Where a recording really ends when the card does not say: evidence for an older recording underneath.

A recording cut by a power loss continues, on a card that was not wiped, in the buffers of the recording
before it: same grid, same counters. Three things still tell them apart:

- the frame clock: timestamps minus frame number times period step by the difference of two start phases;
- lens focus and battery in the headers;
- the ring buffer's leftovers: the bytes between a short buffer's data and the end of its last sector are
  what the ring slot held before, so they repeat the buffer written one ring earlier. Across a seam they do not.

The first two are bisected with few reads; the third proves or refutes a seam to the buffer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from miniscope_xr.index.edges import Edges
from miniscope_xr.index.evidence import CLOCK_STEP
from miniscope_xr.index.falls import Falls
from miniscope_xr.index.headers import bisected
from miniscope_xr.index.over_old import OverOld
from miniscope_xr.index.place import Places, Verdict
from miniscope_xr.index.runs import Header, Run
from miniscope_xr.layout.arrays import Floats, Ints

_SAMPLES = 64  # frames sampled along a run
_CLOSE = 1 << 16  # buffers up to which each is held against the clock of the others
_WINDOW = 16  # frames on each side of a suspected step
_PART = 1 << 14  # frames held against one another at once
_SHOWN = 4  # frames that show which of the steps between them is the odd one
_NEAR = 64  # frames on each side of a suspected step all of whose buffers are looked at
_AROUND = 32  # frames more that tell the clock of those


class SeamSearch(Places, Edges, Falls, OverOld):
    """Finds the first buffer of an older recording with few looks at the evidence."""

    def first_seam(self, runs: list[Run], exhaustive: bool = False) -> Verdict:
        """The first place in the runs of one recording where an older recording begins.

        A doubt about some frames does not end the search: a proof further on is worth more.
        """
        doubt: list[str] = []
        self._kept.clear()
        self.close = all(self.headers.whole(run, run.count) for run in runs) and sum(r.count for r in runs) <= _CLOSE
        for number, run in enumerate(runs):
            if number and not self._plausible(runs, number):
                end = self._end_before(runs, number)
                return Verdict(end, self.perhaps_edges(runs, end))
            if run.odd or run.count <= 2:
                continue
            verdict = self._seam_in(run, exhaustive, number < len(runs) - 1)
            if verdict.end is not None:
                return Verdict((number, verdict.end[1]), verdict.doubt)
            doubt += [said for said in verdict.doubt if said not in doubt]
            if number < len(runs) - 1 and (tail := self._tail_before(runs, number)) is not None:
                return Verdict((number, tail))
        end = self._end_before(runs, len(runs))
        return self.outlived(runs, doubt) if end == (len(runs), 0) else Verdict(end, self.perhaps_edges(runs, end))

    def _end_before(self, runs: list[Run], number: int) -> tuple[int, int]:
        """Where the recording ends, if not behind run ``number - 1``: the last few buffers there may be older, too."""
        last = next((n for n in range(number - 1, 0, -1) if not runs[n].odd), 0)
        tail = None
        if not runs[last].odd:
            count = runs[last].count
            self.headers.fetch(runs[last], range(max(count - (_AROUND + _WINDOW) * len(runs[last].cut), 0), count))
            with self.closely():
                tail = self._old_tail(runs[last]) if last == number - 1 else self._first_written_before(runs[last])
        return (number, 0) if tail is None else (last, tail)

    def _tail_before(self, runs: list[Run], number: int) -> int | None:
        """Where in the last few buffers of a run an older recording begins that the next run is of, too."""
        return self._tail_of_next(runs, number) if self.close else None

    def _plausible(self, runs: list[Run], number: int) -> bool:
        """Whether a run can follow the one before it; of a long recording, what speaks against it is looked at."""
        if self._plausible_boundary(runs, number):
            return True
        if self.close:
            return False
        with self.closely():
            return self._plausible_boundary(runs, number)

    def _seam_in(self, run: Run, exhaustive: bool, more_follows: bool) -> Verdict:
        size = len(run.cut)
        frames = (run.count - 1) // size + 1  # buffers 0, size, 2 size ... have the same index in their frames
        every, unsure = exhaustive or self.headers.whole(run, run.count), list[str]()
        if every:
            if self.headers.whole(run, run.count):
                self.headers.fetch(run, range(run.count))
            if self.close:
                self._look_at_all(run)
            verdict = self.with_order(run, self._seam_among(run, range(frames), more_follows))
            if verdict is not None:
                return verdict
        else:
            start = 0
            while (suspect := self._suspect_frame(run, range(start, frames), more_follows)) is not None:
                near = range(max(suspect - _NEAR, 0), min(suspect + _NEAR, frames))
                around = range(max(near.start - _AROUND, 0), min(near.stop + _AROUND, frames))
                self.headers.fetch(run, range(around.start * size, min(around.stop * size, run.count)))
                with self.closely():
                    verdict = self._seam_among(run, near, more_follows or near.stop < frames)
                if verdict is not None and verdict.end is not None:
                    return verdict
                unsure += verdict.doubt if verdict is not None else []
                start = near.stop
        if unsure:
            return Verdict(None, unsure)
        if run.first.frame == run.last_frame:
            return Verdict()
        first, last = self.runs[0].first.frame, max(r.last_frame for r in self.runs)
        if not every:
            return Verdict(doubt=[
                f"there are no counts; frames {first} to {last} were compared at "
                f"{_SAMPLES} places and fit one recording, but an older one underneath with the same frame clock "
                "is not excluded; index='scan' compares every frame"
            ])  # fmt: skip
        return Verdict(doubt=[
            "there are no counts, and this firmware leaves too little in its buffers to exclude an older "
            f"recording with the same frame clock between frames {first} and {last}"
        ])  # fmt: skip

    def _seam_among(self, run: Run, frames: range, more_follows: bool) -> Verdict | None:
        """The seam in some frames (counted in the run), all of whose buffers are looked at; None: nothing tells."""
        size = len(run.cut)
        near = range(frames.start * size, min(frames.stop * size, run.count))
        start, unsure = near.start, list[str]()
        # the last one may be torn; in front of a drop it tells as others do where headers say whether the card was slow
        slow = self.headers.framing.build.pool or run.first.write_time < 0
        stop = near.stop if more_follows and not slow else near.stop - 1
        while (broken := self.broken_links(run, start, stop)) is not None:
            verdict = self._locate(run, broken)
            if verdict is not None and verdict.end is not None:
                return verdict
            late = self._late(run, broken)
            unsure += verdict.doubt if verdict else [] if late else [self._perhaps(run, broken)]
            start = broken + 1
        if self.ring >= size and self._linked(run, near):
            found = (self._seam_in_gap(run, gap) for gap in self._gaps(run, near))
            seam = next((i for i in found if i is not None), None)
            if seam is None:
                return Verdict(None, unsure[:1])
            return Verdict((0, seam), self.perhaps_edges([run], (0, seam)))
        suspect = self._first_step([self._header(run, k * size) for k in frames], more_follows)
        return None if suspect is None else self._locate_by_clock(run, frames.start + suspect)

    def _linked(self, run: Run, near: range) -> bool:
        """Whether leftovers tell anything on this card (not when all are one value, or none exist)."""
        probes = range(max(near.stop - 4 * len(run.cut), near.start), near.stop)
        return any(self.link(run, i) for i in probes)

    # -- locating -------------------------------------------------------------------------------------

    def _suspect_frame(self, run: Run, frames: range, more_follows: bool) -> int | None:
        """Last of some frames (counted in the run) before the first step of their clock, focus or battery, or None.

        Few of them are looked at.
        """
        size = len(run.cut)

        def at(k: int) -> Header | None:
            return self._header(run, k * size)

        step = max(len(frames) - 1, 0) / _SAMPLES
        marks = sorted({frames.start + round(k * step) for k in range(_SAMPLES + 1)} & set(frames))
        known = [(k, header) for k in marks if (header := at(k)) is not None]
        for n, ((low, a), (high, _)) in enumerate(pairwise(known)):
            if self._other_state(known, n):
                return bisected(low, high, lambda k, a=a: self._differs(a, at(k))) - 1  # type: ignore[misc]
        for (k0, a), (k1, b), (k2, c) in zip(known, known[1:], known[2:], strict=False):
            bend = (c.time - b.time) / (k2 - k1) - (b.time - a.time) / (k1 - k0)
            if abs(bend) * min(k2 - k1, k1 - k0) > CLOCK_STEP * self.ticks:
                start = self._narrow(at, k0, k2)
                near = self._first_step([at(k) for k in range(start, min(start + _NEAR, frames.stop))])
                if near is not None:
                    return start + near
        return None

    def _first_step(self, headers: list[Header | None], more_follows: bool = False) -> int | None:
        """Last of consecutive frames before the first jump of their clock, focus or battery.

        ``more_follows``: the recording goes on behind these frames, so one odd frame at their end is no seam.
        """
        known = [(k, h) for k, h in enumerate(headers) if h is not None]
        for n, (k, _) in enumerate(known[:-1]):
            if self._other_state(known, n):
                return k
        if len(known) < 3:
            return None
        known = known[self._first_flipped(*(h for _, h in known[:3])) :]
        frames = np.array([k for k, _ in known], float)
        times = np.array([h.time for _, h in known], float)
        steps = np.diff(times) / np.diff(frames)
        odd = np.abs(steps - np.mean(steps)) * np.diff(frames)
        jumps, noise = np.abs(_jumps(frames, times)), self._noise(np.arange(1, len(frames)), len(frames))
        beyond = np.flatnonzero(jumps > noise)
        if not len(beyond) or beyond[0] + 1 > len(frames) - (2 if more_follows else 1):
            return None
        # the windows see a step early: the step itself is where the two sides differ most
        first = int(beyond[0])
        near = slice(first, min(first + _WINDOW, len(frames) - (2 if more_follows else 1)))
        best = first + 1 + int(np.argmax(jumps[near] / noise[near]))
        sharp = first + int(np.argmax(odd[first : first + _WINDOW]))
        return int(frames[sharp if odd[sharp] > 2 * CLOCK_STEP * self.ticks else best - 1])

    def _noise(self, n: Ints, count: int) -> Floats:
        """Ticks by which the clock may seem to jump before frames ``n`` of ``count`` by jitter and whole-ms times."""
        fewer = np.minimum(np.minimum(n, count - n), _WINDOW)
        return (1.8 + 4.0 / fewer) * self.ticks

    def _other_state(self, known: Sequence[tuple[int, Header]], n: int) -> bool:
        """Whether what follows a header differs in focus or battery: both next ones do, as a bit may have flipped."""
        a, behind = known[n][1], [b for _, b in known[n + 1 : n + 3]]
        if any(self._same_state(a, b) for b in behind):
            return False
        return not self._odd_alone(known[n - 1][1], a, behind[0]) if n else not self._first_flipped(a, *behind)

    def _differs(self, a: Header, b: Header | None) -> bool:
        return b is not None and not self._same_state(a, b)

    @staticmethod
    def _narrow(at: Callable[[int], Header | None], low: int, high: int) -> int:
        """Start of a stretch of ``_NEAR`` frames that holds the bend between two frames: follow the steeper half."""

        def bend(a: int, b: int) -> float:
            m = (a + b) // 2
            first, middle, last = at(a), at(m), at(b)
            if first is None or middle is None or last is None or not a < m < b:
                return 0.0
            return abs((last.time - middle.time) / (b - m) - (middle.time - first.time) / (m - a)) * (b - a)

        while high - low > _NEAR // 2:
            middle, lap = (low + high) // 2, (high - low) // 8
            low, high = max((low, middle + lap), (middle - lap, high), key=lambda half: bend(*half))
        return max((low + high - _NEAR) // 2, 0)

    def _locate_by_clock(self, run: Run, frame: int) -> Verdict:
        """The seam between buffer 0 of a frame and of the next one (frames counted in the run)."""
        size = len(run.cut)
        start, stop = frame * size + 1, min((frame + 1) * size, run.count - 1)
        broken = self.broken_links(run, start, min(stop + 2 * self.ring + size, run.count - 1))
        found = None if broken is None else self._locate(run, broken)
        if found is not None and found.end is not None:
            return found
        state = self._state_step(run, range(start, stop + 1))
        if state is not None:
            return Verdict((0, self._where(run, *state, range(start, stop + 1))))
        around = range(max(start - size, 1), min(stop + 1 + size, run.count))
        counted = self._counted(run, around)
        if counted is not None:
            return Verdict((0, counted))
        shown = run.count >= _SHOWN * size  # of fewer frames, one step is as usual as the other
        place = self._step_in(run, around, sharp=True) if shown else None
        if place is not None:
            return Verdict((0, place), self.perhaps_edges([run], (0, place)))
        jump = self._step(run, stop) or 0.0
        if abs(jump) <= 2 * CLOCK_STEP * self.ticks:  # so small a step among jitter is not placed to the frame
            certain = max(frame - 2, 0)
            step = f"the frame clock steps by {abs(jump) / self.ticks:.1f} ms"
            what = step if abs(jump) > self.ticks else "the frame clock, the focus or the battery changes"
            a, b = run.frame_of(certain * size + 1), run.frame_of(min((frame + 3) * size, run.count - 1))
            last = max(r.last_frame for r in (run, *self.runs))
            return Verdict((0, certain * size + 1), [
                f"{what} between frames {a} and {b}, by so little that an older recording need not begin there: frames "
                f"{a} to {last} are in doubt, and only what is certain is returned; until={last} returns them"
            ])  # fmt: skip
        for i in range(start, stop + 1):
            deviation = self._deviation(run, i, start)
            sharp = deviation is not None and abs(deviation) > max(abs(jump) / 2, 1.5 * self.ticks)
            if sharp:
                return Verdict((0, i), self.perhaps_edges([run], (0, i)))
        number = run.frame_of(start)
        return Verdict((0, start), [
            f"an older recording begins in or right behind frame {number}: this frame is doubtful, and only its first "
            f"buffer is returned; until={number} returns it whole"
        ])  # fmt: skip


def _jumps(frames: Floats, times: Floats) -> Floats:
    """Steps of the clock before frames 1, 2, ...: two straight lines of one slope, fitted on both sides of each.

    Parameters
    ----------
    frames, times : float64, shape (n,)

    Returns
    -------
    float64, shape (n - 1,)
    """
    pad = np.full(_WINDOW, np.nan)
    k, t = (sliding_window_view(np.concatenate([pad, values, pad]), _WINDOW) for values in (frames, times))
    found = []
    for start in range(1, len(frames), _PART):  # window number n ends in front of frame n
        part = slice(start, min(start + _PART, len(frames)) + _WINDOW)
        mean_k, mean_t = np.nanmean(k[part], axis=1), np.nanmean(t[part], axis=1)
        off_k, off_t = k[part] - mean_k[:, None], t[part] - mean_t[:, None]
        both, own = np.nansum(off_k * off_t, axis=1), np.nansum(off_k * off_k, axis=1)
        spread = own[:-_WINDOW] + own[_WINDOW:]
        slope = (both[:-_WINDOW] + both[_WINDOW:]) / np.where(spread > 0, spread, np.inf)
        steps = mean_t[_WINDOW:] - mean_t[:-_WINDOW] - slope * (mean_k[_WINDOW:] - mean_k[:-_WINDOW])
        found.append(np.where(spread > 0, steps, 0.0))
    return np.concatenate(found)
