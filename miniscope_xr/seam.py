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

from collections.abc import Callable
from dataclasses import dataclass, field

from miniscope_xr.runs import Header, HeaderReader, Run

_SAMPLES = 64  # frames sampled along a run
_LINK_FRAMES = 4096  # frames whose leftovers are compared at opening
_STEP = 2.5  # timestamps are whole ms and interrupts jitter by about one: larger steps are no jitter
_BATTERY_STEP = 3  # ADC counts; noise is about one


@dataclass
class Verdict:
    """``end``: (run, buffer in it) of the first old buffer, or None; ``doubt``: sentences about what is unsure."""

    end: tuple[int, int] | None = None
    doubt: list[str] = field(default_factory=list)


class Evidence:
    """Compares buffers of one recording.

    Parameters
    ----------
    headers : HeaderReader
    ring : int
        Buffers in the firmware's ring; 0 if unknown (leftovers are not compared then).
    drop_step : int
        Multiple at which counters resume after a drop; 0 if unknown.
    scanning : bool
        The lens focus changes during the recording (EWL scan), so it tells nothing.
    ticks : float
        Units of the timestamp per ms (10 on the DAQ builds that count 0.1 ms).
    """

    def __init__(
        self, headers: HeaderReader, ring: int, drop_step: int = 0, scanning: bool = False, ticks: float = 1.0
    ) -> None:
        self.headers = headers
        self.ring = ring
        self.drop_step = drop_step
        self.scanning = scanning
        self.ticks = ticks
        self._size = headers.sector_size
        self._head = 4 * headers.words

    # -- the ring buffer's leftovers ---------------------------------------------------------------

    def link(self, run: Run, i: int) -> bool | None:
        """Whether the leftovers behind buffer ``i`` repeat the buffer one ring earlier; None: nothing to compare."""
        if run.single or not self.ring:
            return None
        data_end = self._head + run.length_of(i)
        end = run.pattern.sectors[run.index_of(i)] * self._size
        source = i - self.ring
        while source >= 0 and self._head + run.length_of(source) < end:
            source -= self.ring
        if data_end == end or source < 0:
            return None
        mine = self._bytes(run.sector_of(i), data_end, end)
        theirs = self._bytes(run.sector_of(source), data_end, end)
        if len(mine) != end - data_end or len(theirs) != len(mine):
            return None
        if mine == theirs:
            return None if len(set(mine)) == 1 else True
        # a buffer that never reached the card proves nothing
        if self._header(run, i) is None or self._header(run, source) is None:
            return None
        return False

    def _bytes(self, sector: int, start: int, stop: int) -> bytes:
        return self.headers.source.read(sector * self._size + start, stop - start)

    def broken_links(self, run: Run, start: int, stop: int) -> int | None:
        """First buffer in [start, stop) whose leftovers do not fit, or None."""
        short = [b for b, n in enumerate(run.pattern.lengths) if (n + self._head) % self._size]
        size = len(run.pattern)
        for frame_start in range(start - (start + run.first.index) % size, stop, size):
            for b in short:
                i = frame_start + b
                if start <= i < stop and self.link(run, i) is False:
                    return i
        return None

    # -- the frame clock, focus and battery ---------------------------------------------------------

    def _header(self, run: Run, i: int) -> Header | None:
        header = self.headers.at(run.sector_of(i))
        return header if run.matches(i, header) else None

    def _same_state(self, a: Header, b: Header) -> bool:
        focus = self.scanning or a.ewl == b.ewl
        battery = not (a.battery > 0 and b.battery - a.battery >= _BATTERY_STEP)
        return focus and battery and b.time >= a.time and not (a.battery > 0 and b.battery == 0)

    def continues(self, run: Run, i: int) -> bool | None:
        """Whether buffers ``i - 1`` and ``i`` of a run belong to one recording; None: nothing tells."""
        size = len(run.pattern)
        verdicts = [self.link(run, k) for k in range(i, min(i + max(self.ring, 1), run.count))]
        if False in verdicts:
            return False
        step = self._clock_step(run, i)
        if step is not None and abs(step) > _STEP * self.ticks:
            return False
        before = self._header(run, i - 1)
        after = self._header(run, i)
        if before is not None and after is not None and not self._same_state(before, after):
            return False
        return True if True in verdicts or (step is not None and i >= 2 * size) else None

    def _clock_step(self, run: Run, i: int) -> float | None:
        """Ticks by which the frame clock jumps between buffers ``i - 1`` and ``i``, judged by frames around them."""
        size = len(run.pattern)
        times: list[int] = []
        for k in (i - 1 - size, i - 1, i - size, i, i + size, i - 1 - 2 * size):
            header = self._header(run, k) if 0 <= k < run.count else None
            times.append(-1 if header is None else header.time)
        before_old, before, same_old, same, same_next, before_oldest = times
        periods = [b - a for a, b in ((before_old, before), (before_oldest, before_old)) if a >= 0 and b >= 0]
        if not periods or same_old < 0 or same < 0:
            return None
        return (same - same_old) - sum(periods) / len(periods)

    def first_seam(self, runs: list[Run], exhaustive: bool = False) -> Verdict:
        """The first place in the runs of one recording where an older recording begins."""
        for number, run in enumerate(runs):
            if number and not self._plausible_boundary(runs, number):
                return Verdict((number, 0))
            if run.single or run.count <= 2:
                continue
            verdict = self._seam_in(run, exhaustive)
            if verdict.end is not None or verdict.doubt:
                if verdict.end is not None:
                    verdict.end = (number, verdict.end[1])
                return verdict
        return Verdict()

    def _plausible_boundary(self, runs: list[Run], number: int) -> bool:
        """Whether run ``number`` can follow the one before it in one recording (a drop, lap or lost interrupt)."""
        before, after = runs[number - 1], runs[number]
        a = self.headers.at(before.sector_of(before.count - 1)) or before.first
        b = after.first
        excess = b.count - b.written - b.dropped
        if not self.scanning and a.ewl != b.ewl:
            return False
        if a.battery > 0 and (b.battery == 0 or b.battery - a.battery >= _BATTERY_STEP):
            return False
        if b.dropped > a.dropped and self.drop_step and excess == 0 and (b.written + b.dropped) % self.drop_step:
            return False
        return self._same_clock(runs, number)

    def _same_clock(self, runs: list[Run], number: int) -> bool:
        """Whether the first regular stretch from run ``number`` on keeps the frame clock of the last one before it.

        Whole periods do not count: a lost interrupt puts two camera frames under one number. Counters and times
        of single buffers may step back by a ring (a lap), so only regular stretches are compared.
        """
        here = next((r for r in reversed(runs[:number]) if self._regular(r)), None)
        there = next((r for r in runs[number:] if self._regular(r)), None)
        if here is None or there is None or here.pattern != there.pattern:
            return True
        first, last = self._frame_times(here)
        following, _ = self._frame_times(there)
        if first is None or last is None or following is None:
            return True
        if following[1] < last[1]:
            return False
        frames = last[0] - first[0]
        period = (last[1] - first[1]) / frames if frames else 0
        if period <= 0:
            return True
        off = (following[1] - last[1]) / period
        tolerance = (_STEP + 0.5) * self.ticks / period + abs(off) * 2 * self.ticks / (period * frames)
        return tolerance >= 0.5 or abs(off - round(off)) <= tolerance

    @staticmethod
    def _regular(run: Run) -> bool:
        return not run.single and run.count >= 2 * len(run.pattern) > 2

    def _frame_times(self, run: Run) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
        """(frame in the run, time) of the first and the last buffer 0 of a run (the last of at most 64)."""
        size = len(run.pattern)
        start = (-run.first.index) % size
        frames = min((run.count - 1 - start) // size, 64)
        last = (run.count - 1 - start) // size
        found = []
        for k in (last - frames if frames < last else 0, last):
            header = self._header(run, start + k * size)
            found.append(None if header is None else (k, header.time))
        return found[0], found[1]

    def _seam_in(self, run: Run, exhaustive: bool) -> Verdict:
        size = len(run.pattern)
        frames = (run.count - 1) // size + 1  # buffers 0, size, 2 size ... have the same index in their frames
        if exhaustive or frames <= _LINK_FRAMES:
            broken = self.broken_links(run, 0, run.count)
            if broken is not None and broken < run.count - 1:
                return self._locate(run, broken)
            if broken is not None:
                return Verdict()  # the very last buffer: cut by the power loss, not an older recording
            if self._linked(run):
                return Verdict()
        suspect = self._suspect_frame(run, frames)
        if suspect is not None:
            return self._locate_by_clock(run, suspect)
        if frames > _LINK_FRAMES and not exhaustive:
            return Verdict(doubt=[
                f"the counts were never written; frames {run.first.frame} to {run.last_frame} were compared at "
                f"{_SAMPLES} places and fit one recording, but an older one underneath with the same frame clock "
                "is not excluded; index='scan' compares every frame"
            ])  # fmt: skip
        return Verdict()

    def _linked(self, run: Run) -> bool:
        """Whether leftovers tell anything on this card (not when all are one value, or none exist)."""
        probes = range(max(run.count - 4 * len(run.pattern), 0), run.count)
        return any(self.link(run, i) for i in probes)

    # -- locating -------------------------------------------------------------------------------------

    def _suspect_frame(self, run: Run, frames: int) -> int | None:
        """Last frame (counted in the run) before the first step of the clock, focus or battery, or None."""
        size = len(run.pattern)

        def at(k: int) -> Header | None:
            return self._header(run, k * size)

        step = max((frames - 1) / _SAMPLES, 1.0)
        marks = sorted({round(k * step) for k in range(_SAMPLES + 1) if round(k * step) < frames} | {frames - 1})
        for low, high in zip(marks, marks[1:], strict=False):
            a, b = at(low), at(high)
            if a is not None and b is not None and not self._same_state(a, b):
                return self._bisect(low, high, lambda k, a=a: self._differs(a, at(k)))  # type: ignore[misc]
        times = [(k, h.time) for k in marks if (h := at(k)) is not None]
        for n in range(1, len(times) - 1):
            (k0, t0), (k1, t1), (k2, t2) = times[n - 1 : n + 2]
            bend = (t2 - t1) / (k2 - k1) - (t1 - t0) / (k1 - k0)
            if abs(bend) * min(k2 - k1, k1 - k0) > _STEP * self.ticks:
                frame = self._largest_step(at, k0, k2)
                if frame is not None:
                    return frame
        return None

    def _differs(self, a: Header, b: Header | None) -> bool:
        return b is not None and not self._same_state(a, b)

    @staticmethod
    def _bisect(low: int, high: int, changed: Callable[[int], bool]) -> int:
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if changed(middle) else (middle, high)
        return low

    def _largest_step(self, at: Callable[[int], Header | None], low: int, high: int) -> int | None:
        """Follow the half that bends more, down to two frames; None if no real step is left there."""

        def time(k: int) -> int:
            header = at(k)
            return -1 if header is None else header.time

        def bend(a: int, b: int) -> float:
            m = (a + b) // 2
            if m in (a, b) or min(time(a), time(m), time(b)) < 0:
                return 0.0
            return abs((time(b) - time(m)) / (b - m) - (time(m) - time(a)) / (m - a)) * (b - a) / 2

        while high - low > 4:
            middle = (low + high) // 2
            quarter = max((high - low) // 8, 1)
            halves = [(low, middle + quarter), (middle - quarter, high)]
            low, high = max(halves, key=lambda h: bend(*h)) if high - low > 8 else (low, high)
            if high - low <= 8:
                break
        steps = [(time(k + 1) - time(k), k) for k in range(max(low - 2, 0), high + 2) if min(time(k), time(k + 1)) >= 0]
        if len(steps) < 3:
            return None
        middle_step = sorted(s for s, _ in steps)[len(steps) // 2]
        largest = max(steps, key=lambda s: abs(s[0] - middle_step))
        return largest[1] if abs(largest[0] - middle_step) > _STEP * self.ticks else None

    def _locate(self, run: Run, broken: int) -> Verdict:
        """The seam from a buffer whose leftovers are broken: it lies at most a ring before it."""
        size = len(run.pattern)
        first = max(broken - self.ring + 1, 1)
        for i in range(broken - 1, first - 1, -1):
            if self.link(run, i) is True:  # buffer i and the one a ring before it are of one recording
                first = i + 1
                break
        candidates = [i for i in range(first, broken + 1) if self._cut_fits_links(run, i)]
        if len(candidates) <= 1:
            return Verdict((0, candidates[0] if candidates else first))
        steps = {i: self._clock_step(run, i) for i in candidates}
        state = [i for i in candidates if self._state_changes(run, i)]
        sharp = [i for i, s in steps.items() if s is not None and abs(s) > 1.5 * self.ticks]
        if state:
            return Verdict((0, state[0]))
        if sharp:
            return Verdict((0, sharp[0]))
        a, b = run.frame_of(first), run.frame_of(broken)
        frames = f"frame {a} is" if a == b else f"frames {a} to {b} are"
        return Verdict((0, candidates[-1]), [
            f"an older recording begins near frame {b}, but which of the buffers around it is the first old one "
            f"cannot be told: {frames} doubtful; until={a - 1} leaves them out"
        ])  # fmt: skip

    def _cut_fits_links(self, run: Run, cut: int) -> bool:
        """Whether a seam right before buffer ``cut`` breaks exactly the links that are broken."""
        for i in range(cut, min(cut + self.ring, run.count)):
            if self.link(run, i) is True:
                return False
        return True

    def _state_changes(self, run: Run, i: int) -> bool:
        a, b = self._header(run, i - 1), self._header(run, i)
        return a is not None and b is not None and not self._same_state(a, b)

    def _locate_by_clock(self, run: Run, frame: int) -> Verdict:
        """The seam between buffer 0 of a frame and of the next one (frames counted in the run)."""
        size = len(run.pattern)
        start, stop = frame * size + 1, min((frame + 1) * size, run.count - 1)
        broken = self.broken_links(run, max(start - size, 0), min(stop + 2 * self.ring + size, run.count))
        if broken is not None:
            return self._locate(run, broken)
        for i in range(start, stop + 1):
            step = self._clock_step(run, i)
            if self._state_changes(run, i) or (step is not None and abs(step) > _STEP * self.ticks):
                return Verdict((0, i))
        number = run.frame_of(start)
        return Verdict((0, stop), [
            f"an older recording begins in or right behind frame {number}: this frame is doubtful; "
            f"until={number - 1} leaves it out"
        ])  # fmt: skip
