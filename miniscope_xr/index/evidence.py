"""What neighbouring buffers tell about belonging to one recording: ring leftovers, frame clock, focus and battery."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miniscope_xr.index.clock import Model, due
from miniscope_xr.index.excursions import UNKNOWN
from miniscope_xr.index.headers import HeaderReader, read_rows
from miniscope_xr.index.run_clock import RunClock
from miniscope_xr.index.runs import Header, Run
from miniscope_xr.layout import SECTOR
from miniscope_xr.layout.arrays import Floats, Ints

CLOCK_FRAMES = 8  # frames on each side whose clocks are compared
CLOCK_STEP = 2.5  # timestamps are whole ms and interrupts jitter by about one: larger steps are no jitter
_LEAST = 4  # frames that show one for a run of fewer
_SHOWS = 8  # frames that show a clock by themselves
_WORD = 4  # bytes


class Evidence:
    """Compares buffers of one recording.

    Parameters
    ----------
    headers : HeaderReader
    scanning : bool
        The lens focus changes during the recording (EWL scan), so it tells nothing.
    ticks : float
        Units of the timestamp per ms (10 on the DAQ builds that count 0.1 ms).
    later : bool
        Not the first recording since power-on: its frame 0 is garbage, which tells nothing.
    runs : sequence of Run
        All runs of the recording: leftovers of one are compared with buffers of those before it.
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
        self.runs = runs
        self.stops = stops
        self.later = later
        self.headers = headers
        self.ring = headers.framing.repeats
        self.drop_step = headers.framing.drop_step
        self.scanning = scanning
        self.ticks = ticks
        self._head = headers.framing.head
        self.close = False  # every header is looked at: old buffers in failed writes' places are told
        self._clocks: dict[int, RunClock] = {}
        self._links: dict[tuple[int, int], bool | None] = {}
        self._own: dict[tuple[int, int], bool] = {}
        self._focused: dict[int, int | None] = {}
        self._even: set[tuple[int, int]] = set()  # sector and count of runs in which nothing stands out
        self._waits: dict[int, bool] = {}  # by sector of a run
        self._kept: dict[int, bool] = {}  # by number of a run: whether it can follow the one before it

    # -- the ring buffer's leftovers ---------------------------------------------------------------

    def link(self, run: Run, i: int) -> bool | None:
        """Whether the leftovers behind buffer ``i`` repeat the buffer one ring earlier; None: nothing to compare."""
        if (run.sector, i) not in self._links:
            self._links[run.sector, i] = self._told_link(run, i)
        return self._links[run.sector, i]

    def _told_link(self, run: Run, i: int) -> bool | None:
        told = self._repeats(run, i)
        source = self._source(run, i) if told is False else None
        if source is None:
            return told
        # a buffer that never reached the card, or not all of it, proves nothing
        ends = [(r, k) for r, j in ((run, i), source) for k in (j, j + 1) if k < r.count]
        return None if any(self._header(r, k) is None and not self.headers.flipped(r, k) for r, k in ends) else False

    def _repeats(self, run: Run, i: int) -> bool | None:
        """The same by the bytes alone, whatever is there."""
        if run.odd or not self.ring:
            return None
        data_end = self._head + run.length_of(i)
        end = run.sector_count(i) * SECTOR
        source = self._source(run, i)
        if data_end == end or source is None or (self.later and source[0].frame_of(source[1]) == 0):
            return None
        old, size = source[0], source[0].cut.sectors_for(source[0].length_of(source[1]))
        if old.sector_count(source[1]) != size:
            return None  # it takes other sectors than its data needs: lapped, or something is missing in it
        mine = self._bytes(run.sector_of(i), data_end, end)
        theirs = self._bytes(source[0].sector_of(source[1]), data_end, end)
        if len(mine) != end - data_end or len(theirs) != len(mine):
            return None
        return _same_bytes(mine, theirs, data_end)

    def _source(self, run: Run, i: int) -> tuple[Run, int] | None:
        """The last buffer in the ring slot of buffer ``i`` before it that reached as far as its sectors do."""
        end = run.sector_count(i) * SECTOR
        source = self._earlier(run, i) if self.ring else None
        while source is not None and self._head + source[0].length_of(source[1]) < end:
            source = self._earlier(*source)
        return source

    def _earlier(self, run: Run, i: int) -> tuple[Run, int] | None:
        """The buffer that was in the ring slot of buffer ``i`` before, where it is on the card."""
        if i >= self.ring:
            return run, i - self.ring
        count = run.first.count + i - self.ring
        for other in reversed(self.runs[: next((n for n, r in enumerate(self.runs) if r is run), 0)]):
            if other.first.count <= count < other.first.count + other.count:
                return other, count - other.first.count
        return None

    def _bytes(self, sector: int, start: int, stop: int) -> bytes:
        return self.headers.source.read(sector * SECTOR + start, stop - start)

    def broken_links(self, run: Run, start: int, stop: int) -> int | None:
        """First buffer in [start, stop) whose leftovers do not fit, or None."""
        return next((i for i in self._short(run, start, stop) if self.link(run, i) is False), None)

    def _short(self, run: Run, start: int, stop: int) -> Iterator[int]:
        """Buffers in [start, stop) that leave room for leftovers."""
        short = [b for b, n in enumerate(run.cut.lengths) if (n + self._head) % SECTOR]
        size = len(run.cut)
        for frame_start in range(start - (start + run.first.index) % size, stop, size):
            yield from (i for b in short if start <= (i := frame_start + b) < stop)

    # -- the frame clock, focus and battery ---------------------------------------------------------

    def _header(self, run: Run, i: int) -> Header | None:
        header = self.headers.at(run.sector_of(i))
        return header if run.matches(i, header) and not self._stale(run, i) else None

    def _stale(self, run: Run, i: int) -> bool:
        """Whether buffer ``i`` is one of a few among others whose clock they do not keep: writes failed there.

        Not where leftovers link one of them to what was before: interrupts were lost, and the clock with them. Nor
        where they part what is behind them from what was before: two older recordings lie there, one after the other.
        """
        if (run.sector, run.count) in self._even:
            return False
        if self._out_of_focus(run, i):
            return True
        if not self._strays(run, i) or self._in_focus_again(run, i):
            return False
        if (run.sector, i) not in self._own:
            start, stop = i, i + 1
            while self._not_ours(run, start - 1):
                start -= 1
            while self._not_ours(run, stop):
                stop += 1
            linked = True in self._told(run, range(start, stop), start)
            behind = self._told(run, range(stop, min(stop + self.ring, run.count)), start)
            own = linked or (False in behind and True not in behind)
            self._own.update({(run.sector, k): own for k in range(start, stop)})
        return not self._own[run.sector, i]

    def _look_at_all(self, run: Run) -> None:
        """Read a run's headers at once; where no time and no focus stands out, no buffer need be looked at for it."""
        i = np.arange(run.count)
        rows = self._rows(run, i)
        focus = self.scanning or "ewl" not in (rows.dtype.names or ()) or bool((rows["ewl"] == rows["ewl"][0]).all())
        if focus and self._clock_of(run).even(self.headers.framing.times(rows, run, i)):
            self._even.add((run.sector, run.count))

    def _not_ours(self, run: Run, i: int) -> bool:
        """Whether nothing of this recording stands in the place of a buffer."""
        gone = 0 <= i < run.count and not run.matches(i, self.headers.at(run.sector_of(i)))
        return gone or self._strays(run, i) or self._out_of_focus(run, i)

    def _told(self, run: Run, buffers: range, before: int) -> set[bool | None]:
        """What the leftovers of some buffers say of those in front of buffer ``before``."""
        found = ((i, self._source(run, i)) for i in buffers)
        return {self._repeats(run, i) for i, source in found if source and (source[0] is not run or source[1] < before)}

    def _strays(self, run: Run, i: int) -> bool:
        """Whether the clock of a buffer is not that of those before and behind it, which are of one clock."""
        if not self.close or run.odd or not 0 <= i < run.count:
            return False
        return self._clock_of(run).odd(lambda k: self._times(run, k), i)

    def _out_of_focus(self, run: Run, i: int) -> bool:
        """Whether a buffer is one of a few that have not the focus of those in front, which comes back behind them."""
        if not self.close or self.scanning or run.odd or not 0 <= i < run.count:
            return False
        here, own = self._focus(run, i), self._first_focus(run)
        if here is None or here == own:
            return False
        behind = range(i + 1, min(i + 1 + self.headers.framing.build.failed_writes, run.count))
        back = sum(self._focus(run, k) == own for k in behind)
        return bool(back) and (own == self._focus(run, min(1, run.count - 1)) or back > 1)

    def _in_focus_again(self, run: Run, i: int) -> bool:
        """Whether a buffer has the first one's focus, behind a few that have not: those are old, this one is not."""
        near = range(max(i - self.headers.framing.build.failed_writes, 0), i)
        own = not self.scanning and self._focus(run, i) == self._first_focus(run)
        return own and any(self._out_of_focus(run, k) for k in near)

    def _focus(self, run: Run, i: int) -> int | None:
        """The focus of a buffer; None where it is not on the card."""
        header = self.headers.at(run.sector_of(i))
        return header.ewl if header is not None and run.matches(i, header) else None

    def _first_focus(self, run: Run) -> int | None:
        """The focus of a run's first buffer, with which each of the others is compared."""
        if run.sector not in self._focused:
            self._focused[run.sector] = self._focus(run, 0)
        return self._focused[run.sector]

    def _clock_of(self, run: Run) -> RunClock:
        if run.sector not in self._clocks:
            self._clocks[run.sector] = RunClock(run, None, self.ticks, UNKNOWN, self.headers.framing.build)
        return self._clocks[run.sector]

    def _known_clock(self, run: Run) -> Model | None:
        """The clock that the longest run shows, for one of too few frames to show its own."""
        longest = max(self.runs, key=lambda r: 0 if r.odd else r.count, default=run)
        size = len(run.cut)
        if longest.cut != run.cut or run.count > _SHOWS * size or longest.count <= _LEAST * size:
            return None
        first = (-longest.first.index) % size
        stop = min(first + 4 * _SHOWS * size, longest.count)
        told = self._clock_of(longest).left(lambda k: self._times(longest, k), first, stop)
        return told[2] if told else None

    def _left(self, run: Run, start: int, stop: int) -> tuple[Floats, Model] | None:
        """Ticks by which this recording's buffers, from the first of a frame on, are off one clock; and that clock."""
        told = self._clock_of(run).left(lambda k: self._times(run, k), start, stop, self._known_clock(run))
        if told is None:
            return None
        _, left, model = told
        left[[self._stale(run, i) for i in range(start, stop)]] = np.nan
        return left, model

    def _times(self, run: Run, i: Ints) -> Floats:
        return self.headers.framing.times(self._rows(run, i), run, i)

    def _rows(self, run: Run, i: Ints) -> NDArray[Any]:
        framing = self.headers.framing
        return read_rows(self.headers.source, framing.dtype, framing.places(run, i))

    def _same_state(self, a: Header, b: Header) -> bool:
        focus = self.scanning or a.ewl == b.ewl
        return focus and b.time >= a.time and b.write_time >= a.write_time and not self._recharged(a, b)

    def _recharged(self, a: Header, b: Header) -> bool:
        """Whether the battery rises from buffer ``a`` to ``b``, or is measured no more: after another power-on."""
        return a.battery > 0 and (b.battery == 0 or b.battery - a.battery > self.headers.framing.battery_noise)

    def parts(self, run: Run, i: int) -> bool:
        """Whether leftovers behind buffer ``i`` repeat none of those before it, as they would if they were of one."""
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
            return False
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


def _same_bytes(mine: bytes, theirs: bytes, start: int) -> bool | None:
    """Whether two stretches of leftovers hold the same, by their first sector that tells; None where none does.

    A sector of one value alone is written by no camera: it was erased, or never written. A word that differs among
    others that do not is a flipped bit, not another recording. What comes behind a sector that is the same may have
    been damaged, or never have reached the card when the power went.

    Parameters
    ----------
    mine, theirs
        Stretches of one length.
    start
        Where in its sector the first byte is.
    """
    ends = [*range(SECTOR - start % SECTOR, len(mine), SECTOR), len(mine)]
    for a, b in pairwise([0, *ends]):
        one, other = mine[a:b], theirs[a:b]
        if len(set(one)) > 1 and len(set(other)) > 1:
            differing = [k for k in range(b - a) if one[k] != other[k]]
            flipped = len(set(one)) > 2 * _WORD and bool(differing) and differing[-1] - differing[0] < _WORD
            return not differing or flipped
    return None
