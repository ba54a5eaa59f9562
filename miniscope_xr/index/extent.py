"""How many buffers of a run follow its arithmetic: found by galloping and bisecting, over holes and laps.

Its end is where the arithmetic breaks for good: a drop, or a buffer that stands off the grid.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from miniscope_xr.index.clock import FrameClock
from miniscope_xr.index.headers import HeaderReader, bisected, read_rows
from miniscope_xr.index.runs import Cut, Header, Run, true_index
from miniscope_xr.layout import SECTOR

FINE = 1.5  # ticks by which times are off each other where the card is not busy
_DAMAGED = 2  # headers among those of a lookahead in which bits may have flipped
_LEADS = 4  # buffers in a row that count on
_LOST = 16  # frames in a row of which no buffer is captured, for lost interrupts
_MARKS = 64  # headers looked at in an uncounted run too long to look at all


def starts(header: Header) -> bool:
    """Whether a buffer is the first of a recording."""
    return header.written == header.dropped == header.count == 0


class Extents:
    """Finds the extent of the runs of one recording.

    Parameters
    ----------
    headers : HeaderReader
    cut : Cut or None
        How a frame is expected to be cut (from the config sector); learnt from the card where it does not fit.
    end_sector : int
        First sector behind the card.
    exhaustive : bool
        Read every header instead of bisecting; finds the same runs.
    dropped : int, optional
        The low byte of the drops that a DAQ counted, where they are this recording's.
    """

    def __init__(
        self,
        headers: HeaderReader,
        cut: Cut | None,
        end_sector: int,
        exhaustive: bool = False,
        dropped: int | None = None,
    ) -> None:
        self.headers = headers
        self.framing = headers.framing
        self.cut = cut
        self.end_sector = end_sector
        self.ring = self.framing.ring
        self.exhaustive = exhaustive
        self.dropped = dropped
        self.clock = FrameClock(headers)
        self.holes: list[tuple[int, int]] = []
        """Stretches of sectors within runs, longer than the look-ahead, in which no header was found."""
        build = self.framing.layout.build
        self._pool = build is not None and build.pool

    def _ok(self, run: Run, i: int) -> bool:
        """Whether the header of buffer ``i`` counts as a run says; what else it says may be impossible."""
        return run.matches(i, self.headers.at(run.sector_of(i))) or self.headers.counts(run, i)

    def _extent(self, run: Run, most: int, counted: bool) -> int:
        """Number of buffers for which the arithmetic holds, holes and laps inside included."""
        if self.exhaustive:
            return self._extent_by_scan(run, most)
        if counted and most > 1 and self._ok(run, most - 1):
            return most
        low, step = 0, 1
        while low + 1 < most:
            high = min(low + step, most)
            if high < most and self._ok(run, high):
                low, step = high, 2 * step
                continue
            low = bisected(low, high, lambda i: not self._ok(run, i)) - 1
            resumed = self._resumes(run, low, most)
            if resumed is None:
                break
            low, step = resumed, 1
        return low + 1 if counted else self._without_detour(run, low + 1)

    def _without_detour(self, run: Run, count: int) -> int:
        """Cut an extent that leaps over drops into an older recording with the same counters.

        Without a count, a far probe that matches may be of a recording underneath. Short extents are read whole,
        long ones at even distances.
        """
        if self.headers.whole(run, count):
            self.headers.fetch(run, range(count))
            return self._extent_by_scan(run, count)
        marks = np.linspace(0, count - 1, _MARKS, dtype=np.int64).tolist()
        good = 0
        for mark in marks:
            if not self._ok(run, mark) and self._resumes(run, mark - 1, count) is None:
                return self._without_detour(run, bisected(good, mark, lambda i: not self._ok(run, i)))
            good = mark
        return count

    def _extent_by_scan(self, run: Run, most: int) -> int:
        low = 0
        while low + 1 < most:
            i = np.arange(low + 1, min(low + 1 + (1 << 14), most))
            rows = self.rows(run.sectors_of(i))
            bad = np.flatnonzero(~self.framing.vouched(rows, run, i))
            if not len(bad):
                low = int(i[-1])
                continue
            low = int(i[bad[0]]) - 1
            resumed = self._resumes(run, low, most)
            if resumed is None:
                break
            low = resumed
        return low + 1

    def rows(self, sectors: np.ndarray[Any, np.dtype[np.int64]]) -> np.ndarray[Any, Any]:
        """Headers at these sectors as a structured array; zeros where the card ends."""
        return read_rows(self.headers.source, self.headers.dtype, sectors * SECTOR)

    @property
    def lookahead(self) -> int:
        """Buffers looked at behind a break before it counts as the end of a run."""
        return 2 * max(self.ring, 4) + (len(self.cut) if self.cut else 0)

    def _resumes(self, run: Run, low: int, most: int) -> int | None:
        """Where the arithmetic holds again after ``low``: behind odd buffers, failed writes, laps, or a long hole."""
        near = min(low + 2 + self.lookahead, most)
        place = run.first.written + low + 1
        header = self.headers.at(run.sector_of(low + 1)) if low + 1 < most else None
        far = low + 2 + max(self.lookahead, self.framing.build.failed_writes)
        off_grid = None if header is not None and header.written == place else self._near(replace(run, count=low + 1))
        if off_grid is not None:  # nothing is missing, unless that is an old buffer within one whose write failed
            end = self.headers.at(run.sector_of(low))
            usual = end is not None and end.length == run.length_of(low) and not starts(off_grid[1])
            return self._back(run, low, off_grid[1], range(low + 2, min(far, most))) if usual else None
        for i in range(low + 1, near):
            sector = run.sector_of(i)
            header = self.headers.at(sector)
            if self._ok(run, i):
                return i
            if header is not None and starts(header) and self._confirmed(sector, header):
                return None  # another recording begins here; what matches behind it is of an older one
            if header is None or header.written != run.first.written + i or not self._dropped(run, low, header):
                continue
            if self._confirmed(sector, header):
                if header.count < run.first.count + i:
                    return None  # late ones of a pool: no writes failed
                return self._back(run, low, header, range(i + 1, min(far, most)))
        resumed = self._far(run, near, most)
        if resumed is not None and (self._no_hole(run, low, near) or self._led_to(run, resumed)):
            return None
        if resumed is not None:
            self.holes.append((run.sector_of(low + 1), run.sector_of(resumed)))
        return resumed

    def _no_hole(self, run: Run, low: int, near: int) -> bool:
        """Whether buffers that keep the clock stand in the places behind a break, as with a pool that overflows.

        In nearly every one: bits may have flipped in a header.
        """
        found = ((i, self.headers.at(run.sector_of(i))) for i in range(low + 1, near))
        there = [h for i, h in found if h is not None and h.written == run.first.written + i]
        if near - low - 1 - len(there) > _DAMAGED:
            return False
        shown = low + 1 >= 2 * len(run.cut)  # fewer buffers show no clock
        return not shown or all(self.clock.fits([replace(run, count=low + 1)], h) for h in there[:_LEADS])

    def _led_to(self, run: Run, i: int) -> bool:
        """Whether the buffers in front of one count on to it, though not as the arithmetic says: there is no hole."""
        before = range(max(i - _LEADS, 0), i)
        chain = [
            h for k in (*before, i) if (h := self.headers.at(run.sector_of(k))) and h.written == run.first.written + k
        ]
        return (
            len(chain) == _LEADS + 1
            and not any(run.matches(k, h) for k, h in zip(before, chain, strict=False))
            and all(a.count < b.count and a.time <= b.time for a, b in pairwise(chain))
        )

    def _back(self, run: Run, low: int, drop: Header, behind: range) -> int | None:
        """Where the arithmetic holds again behind a header that shows a drop, as writes failed over an older recording.

        That header has not the clock or the focus, and a later one has. Behind a drop of this recording it never comes
        back. A clock that few frames have shown fits any time far behind: the later one has to keep it clearly better.
        """
        end = self.headers.at(run.sector_of(low))
        if self._pool and end is not None and drop.written_next(end):
            return None
        if drop.dropped % 256 == self.dropped:
            return None
        before = [replace(run, count=low + 1)]
        off = self.clock.strain(before, drop) if drop.ewl == run.first.ewl else float("inf")
        if off <= FINE:
            return None
        most = min(FINE, off - 1)
        found = ((i, self.headers.at(run.sector_of(i))) for i in behind)
        return next((i for i, h in found if h and run.matches(i, h) and self.clock.fits(before, h, most)), None)

    def _dropped(self, run: Run, low: int, header: Header) -> bool:
        """Whether a header shows that buffers were dropped since a run began; a pool only counts what it captured.

        One whose slot was filled again is written ahead of its turn, and those in front of it come a ring later.
        """
        if not self._pool:
            return header.dropped > run.first.dropped
        more = header.count - header.written - (run.first.count - run.first.written)
        turned = more > 0 or (more < 0 and self.ring > 0 and not more % self.ring)
        return turned and self.clock.fits([replace(run, count=low + 1)], header)

    def _far(self, run: Run, start: int, most: int) -> int | None:
        """The first buffer behind a hole of any length that the arithmetic still predicts, found by galloping."""
        low, i = start - 1, start
        while i < most and not self._ok(run, i):
            low, i = i, i + 1 + (i - start) // 8
        if i >= most:
            i = most - 1
            if i <= low or not self._ok(run, i):
                return None
        return bisected(low, i, lambda k: self._ok(run, k))

    def _confirmed(self, sector: int, header: Header) -> bool:
        """Whether the buffer that follows a header on the card counts on from it: one odd word is no evidence."""

        def counts_on(following: Header | None) -> bool:
            return following is not None and (
                following.written == header.written + 1
                and following.dropped >= header.dropped
                and following.frame >= header.frame
                and (lapped or following.time >= header.time)
            )

        lapped = bool(self.ring) and not self._pool and header.ahead > 0
        if not lapped:
            return counts_on(self.headers.at(sector + self._sectors_of(header)))
        behind = range(header.written + 1, header.written + 2)  # it takes the sectors of the buffer it replaced
        return self.headers.find(sector + 1, sector + 1 + self.framing.full_sectors, behind, counts_on) is not None

    def _sectors_of(self, header: Header) -> int:
        return self.framing.sectors_for(header.length)

    def _follows(self, last: Run, header: Header) -> bool:
        """Whether a header can be a later buffer of the same recording as ``last``."""
        i = last.count - 1
        ahead = (header.frame, header.index) > (last.frame_of(i), last.index_of(i))
        if header.frame - last.last_frame > abs(header.count - last.first.count - i) + _LOST:
            return False  # a bit of it has flipped: no frame is without a buffer
        if header.count > last.first.count + i and not ahead and not self._pool:
            flipped = last.odd and self.cut and true_index(last.first, [header], self.cut) is not last.first
            if not flipped:
                return False
        return (
            header.dropped >= last.first.dropped
            and header.ahead >= 0
            and (self._pool or not self.ring or header.ahead % self.ring == 0)
            and header.frame >= last.last_frame - 4 - self.ring
        )

    def _near(self, last: Run) -> tuple[int, Header] | None:
        """The next buffer, or the start of another recording, where the last one takes other sectors than it says.

        A lapped buffer takes the sectors of the one it replaced: every sector it can end on is looked at.
        """
        sector, place = last.sector_of(last.count - 1), last.end_place
        return self.headers.find(
            sector + 1, sector + 1 + self.framing.full_sectors, range(place + 1),
            lambda h: starts(h) or (h.written == place and self._follows(last, h)),
        )  # fmt: skip
