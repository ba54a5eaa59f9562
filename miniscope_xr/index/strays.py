"""Old buffers among a recording's own: where writes failed, what was there before stands in their places.

Its counters may fit. Its clock or its focus does not, and that of the buffers in front comes back behind it; leftovers
that link it to what was before say that it is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miniscope_xr.index.excursions import Behind
from miniscope_xr.index.framing import Stamps
from miniscope_xr.index.headers import HeaderReader, read_rows
from miniscope_xr.index.leftovers import Leftovers
from miniscope_xr.index.run_clock import RunClock
from miniscope_xr.index.runs import Header, Run
from miniscope_xr.layout.arrays import Bools, Ints


class Strays(Leftovers):
    """Tells old buffers among a recording's own.

    Parameters
    ----------
    headers, later, runs
        As for :class:`Leftovers`.
    scanning : bool
        The lens focus changes during the recording (EWL scan), so it tells nothing.
    ticks : float
        Units of the timestamp per ms (10 on the DAQ builds that count 0.1 ms).
    """

    def __init__(
        self,
        headers: HeaderReader,
        scanning: bool = False,
        ticks: float = 1.0,
        later: bool = False,
        runs: Sequence[Run] = (),
    ) -> None:
        super().__init__(headers, later, runs)
        self.scanning = scanning
        self.ticks = ticks
        self.close = False  # every header is looked at: old buffers in failed writes' places are told
        self._clocks: dict[int, RunClock] = {}
        self._own: dict[tuple[int, int], bool] = {}
        self._focused: dict[int, int | None] = {}
        self._even: set[tuple[int, int]] = set()  # sector and count of runs in which nothing stands out

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

    def old_among(self, run: Run) -> Bools:
        """Which buffers of a run are old ones among its own, where every header is looked at."""
        self.close = True
        self._look_at_all(run)
        return np.array([self._stale(run, i) for i in range(run.count)], bool)

    def _look_at_all(self, run: Run) -> None:
        """Read a run's headers at once; where no time and no focus stands out, no buffer need be looked at for it."""
        i = np.arange(run.count)
        rows = self._rows(run, i)
        focus = self.scanning or "ewl" not in (rows.dtype.names or ()) or bool((rows["ewl"] == rows["ewl"][0]).all())
        if focus and self._clock_of(run).even(self.headers.framing.stamps(rows, run, i).came):
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
        return self._clock_of(run).odd(lambda k: self._stamps(run, k), i)

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
            self._clocks[run.sector] = RunClock(run, None, self.ticks, Behind.UNKNOWN, self.headers.framing.build)
        return self._clocks[run.sector]

    def _stamps(self, run: Run, i: Ints) -> Stamps:
        return self.headers.framing.stamps(self._rows(run, i), run, i)

    def _rows(self, run: Run, i: Ints) -> NDArray[Any]:
        framing = self.headers.framing
        return read_rows(self.headers.source, framing.dtype, framing.places(run, i))
