"""What neighbouring buffers tell about belonging to one recording: ring leftovers, frame clock, focus and battery."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import median

import numpy as np

from miniscope_xr.index.clock import Model, due, edges_in
from miniscope_xr.index.headers import HeaderReader
from miniscope_xr.index.runs import Header, Run
from miniscope_xr.index.strays import Strays
from miniscope_xr.layout.arrays import Floats

CLOCK_FRAMES = 8  # frames on each side whose clocks are compared
CLOCK_STEP = 2.5  # timestamps are whole ms and interrupts jitter by about one: larger steps are no jitter
_LEAST = 4  # frames that show one for a run of fewer
_SOON = 20  # ms from one buffer to the next within a frame
LARGE = 7  # a bit of a time that is worth more
_SHOWS = 8  # frames that show a clock by themselves


class Evidence(Strays):
    """Compares buffers of one recording.

    Parameters
    ----------
    headers, scanning, ticks, later, runs
        As for :class:`Strays`.
    stops : float
        Ticks after which the recording stopped by itself, as its settings say; 0: not known, or never.
    """

    def __init__(
        self,
        headers: HeaderReader,
        scanning: bool = False,
        ticks: float = 1.0,
        later: bool = False,
        runs: Sequence[Run] = (),
        stops: float = 0.0,
    ) -> None:
        super().__init__(headers, scanning, ticks, later, runs)
        self.stops = stops
        self.drop_step = headers.framing.drop_step
        self._links: dict[tuple[int, int], bool | None] = {}
        self._waits: dict[int, bool] = {}  # by sector of a run
        self._kept: dict[int, bool] = {}  # by number of a run: whether it can follow the one before it

    @contextmanager
    def closely(self) -> Iterator[None]:
        """Look at a few buffers of a long recording as at all those of a short one."""
        before, self.close = self.close, True
        if not before:
            self._links.clear()
            self._kept.clear()
        try:
            yield
        finally:
            self.close = before

    def link(self, run: Run, i: int) -> bool | None:
        """Whether the leftovers behind buffer ``i`` repeat the buffer one ring earlier; None: nothing to compare."""
        if (run.sector, i) not in self._links:
            self._links[run.sector, i] = self._told_link(run, i)
        return self._links[run.sector, i]

    def _told_link(self, run: Run, i: int) -> bool | None:
        told = self._repeats(run, i)
        if told is None or (source := self._source(run, i)) is None:
            return told
        if told:  # what repeats old buffers that stand where writes failed is as old; one alone may have a flipped bit
            old, k = source
            as_old = self._stale(old, k) and (self._stale(old, k - 1) or self._stale(old, k + 1))
            return not as_old or (None if self._stale(run, i) else False)
        # a buffer that never reached the card, or not all of it, proves nothing
        ends = [(r, k) for r, j in ((run, i), source) for k in (j, j + 1) if k < r.count]
        return None if any(self._header(r, k) is None and not self.headers.flipped(r, k) for r, k in ends) else False

    def broken_links(self, run: Run, start: int, stop: int) -> int | None:
        """First buffer in [start, stop) whose leftovers do not fit, or None."""
        return next((i for i in self._short(run, start, stop) if self.link(run, i) is False), None)

    def _known_clock(self, run: Run) -> Model | None:
        """The clock that the longest run shows, for one of too few frames to show its own."""
        longest = max(self.runs, key=lambda r: 0 if r.odd else r.count, default=run)
        size = len(run.cut)
        if longest.cut != run.cut or run.count > _SHOWS * size or longest.count <= _LEAST * size:
            return None
        first = (-longest.first.index) % size
        stop = min(first + 4 * _SHOWS * size, longest.count)
        told = self._clock_of(longest).left(lambda k: self._stamps(longest, k), first, stop)
        return told[2] if told else None

    def _left(self, run: Run, start: int, stop: int) -> tuple[Floats, Model] | None:
        """Ticks by which this recording's buffers, from the first of a frame on, are off one clock; and that clock."""
        told = self._clock_of(run).left(lambda k: self._stamps(run, k), start, stop, self._known_clock(run))
        if told is None:
            return None
        _, left, model = told
        left[[self._stale(run, i) for i in range(start, stop)]] = np.nan
        return left, model

    def _same_state(self, a: Header, b: Header) -> bool:
        focus = self.scanning or a.ewl == b.ewl
        return focus and self._comes_later(a, b) and not self._recharged(a, b)

    def _comes_later(self, a: Header, b: Header) -> bool:
        """Whether a buffer can come behind another by its times, or would with one large bit flipped back.

        Of two times of one header that both fall, an older recording's buffer is behind: two bits never flip alike.
        """
        late, written_late = b.time < a.time, b.write_time < a.write_time
        if late and written_late and min(a.write_time, b.write_time) >= 0:
            return False
        if written_late and a.time <= b.time:  # a write begins between the buffer's own time and the next write
            return any(a.time <= a.write_time ^ 1 << bit <= b.write_time for bit in range(LARGE, 32))
        return self._in_order(a.time, b.time)

    def _odd_alone(self, before: Header, a: Header, b: Header) -> bool:
        """Whether those on both sides of a buffer are of one state, which it left and they did not: a bit flipped."""
        late = b.time < a.time or b.write_time < a.write_time
        return self._same_state(before, b) and (late or a.ewl != before.ewl or self._recharged(a, before))

    def _first_flipped(self, a: Header, b: Header, c: Header | None = None) -> bool:
        """Whether the very first of three frames would be in time, or focus, with one bit of it flipped back."""
        if c is None or not self._same_state(b, c):
            return False
        in_time = self._comes_later(a, b) and b.time - a.time <= 2 * (c.time - b.time)
        if in_time and not self.scanning and min(a.ewl, b.ewl) >= 0 and (a.ewl ^ b.ewl).bit_count() == 1:
            return True
        near, times = 2 * (c.time - b.time), ((a.time, b.time), (a.write_time, b.write_time))
        late = [{then - (first ^ 1 << bit) for bit in range(32)} for first, then in times if then < first]
        return bool(late) and all(any(0 <= gap <= near for gap in gaps) for gaps in late)

    def _in_order(self, a: int, b: int) -> bool:
        """Whether a time can come before another, or would with one of its large bits flipped back."""
        return b >= a or any(0 <= b - (a ^ 1 << bit) <= _SOON * self.ticks for bit in range(LARGE, 32))

    def _recharged(self, a: Header, b: Header) -> bool:
        """Whether the battery rises from buffer ``a`` to ``b``, or is measured no more: after another power-on."""
        gone = b.battery == 0 and a.battery.bit_count() > 1  # else it was 0 as well, but for a bit
        return a.battery > 0 and (gone or b.battery - a.battery > self.headers.framing.battery_noise)

    def parts(self, run: Run, i: int) -> bool:
        """Whether leftovers behind buffer ``i`` repeat no buffer before it, as they do within one recording."""
        told = {self.link(run, k) for k in range(i, min(i + max(self.ring, 1), run.count))}
        return False in told and True not in told

    def continues(self, run: Run, i: int) -> bool | None:
        """Whether buffers ``i - 1`` and ``i`` of a run belong to one recording; None: nothing tells."""
        if self._state_changes(run, i):
            return False
        verdicts = [self.link(run, k) for k in range(i, min(i + max(self.ring, 1), run.count))]
        if True in verdicts and False not in verdicts:
            return True  # edges of a remote make the clock of one recording step, too
        step = self._step(run, i)
        if step is not None and abs(step) > CLOCK_STEP * self.ticks:
            return None if edges_in(-step / self.ticks, self.headers.framing.build.remote_edge, spread=1) else False
        if False in verdicts:
            return self._stressed(run, i) or None
        return True if step is not None else None

    def _deviation(self, run: Run, i: int, seam: int) -> float | None:
        """Ticks by which buffer ``i`` is off the frame clock of the buffers before ``seam``."""
        size = len(run.cut)
        back = -(-(i - seam + 1) // size)  # frames back to the nearest same buffer before the seam
        times = []
        for m in range(back, back + CLOCK_FRAMES):
            header = self._header(run, i - m * size) if i - m * size >= 0 else None
            if header is not None:
                times.append((m, header.time))
        now = self.headers.at(run.sector_of(i))
        expected = due(times, self.ticks)
        return None if now is None or not run.matches(i, now) or expected is None else now.time - expected[0]

    def _step(self, run: Run, seam: int) -> float | None:
        """Ticks by which the frame clock jumps at a seam (median over the two frames behind it)."""
        found = [self._deviation(run, i, seam) for i in range(seam, min(seam + 2 * len(run.cut), run.count))]
        known = [d for d in found if d is not None]
        return median(known) if known else None

    def steps_at(self, run: Run, i: int) -> bool:
        """Whether the first buffers from ``i`` on whose clock is known are off that of our frames before."""
        self.close = True
        if self._stale(run, i - 1):
            return False
        found = (self._deviation(run, k, i) for k in range(i, min(i + len(run.cut), run.count)))
        first = next((d for d in found if d is not None), 0.0)
        return abs(first) > CLOCK_STEP * self.ticks

    def _stressed(self, run: Run, i: int) -> bool:
        """Whether leftovers tell little around buffer ``i``: the ring was lapped, or nearly, or writes failed."""
        return self._late(run, i) or self._missing(run, i)

    def _around(self, run: Run, i: int) -> range:
        reach = 2 * max(self.ring, 1)
        return range(max(i - reach, 0), min(i + reach, run.count))

    def _missing(self, run: Run, i: int) -> bool:
        """Whether buffers around number ``i`` are not on the card."""
        return any(not run.matches(k, self.headers.at(run.sector_of(k))) for k in self._around(run, i))

    def _late(self, run: Run, i: int) -> bool:
        """Whether buffers around number ``i`` waited for the card as long as half a ring takes."""
        found = (h for k in self._around(run, i) if run.matches(k, h := self.headers.at(run.sector_of(k))) and h)
        waits = [h.write_time - h.time for h in found if h.write_time >= 0]
        waited = max(waits, default=0)
        overtaken = min(waits, default=0) < 0  # filled again before it was written
        return overtaken or (waited > 0 and self._ring_time(run, i) <= waited)

    def _ring_time(self, run: Run, i: int) -> float:
        """Ticks the camera takes for half a ring of buffers."""
        size = len(run.cut)
        start = max(min(i, run.count - 1 - size), 0)
        a, b = self._header(run, start), self._header(run, min(start + size, run.count - 1))
        return float("inf") if a is None or b is None else (b.time - a.time) / size * max(self.ring // 2, 1)

    def _state_changes(self, run: Run, i: int) -> bool:
        a, b = self._header(run, i - 1), self._header(run, i)
        return a is not None and b is not None and not self._same_state(a, b)
