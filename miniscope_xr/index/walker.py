"""Finding the runs of a recording with few header reads.

A run's end is found by galloping and bisecting, a few reads for millions of buffers. Where the arithmetic
breaks, :class:`Walker` takes single steps.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np

from miniscope_xr.index.clock import FrameClock
from miniscope_xr.index.headers import HeaderReader, read_rows
from miniscope_xr.index.runs import Cut, Header, Run, ended_at, odd_buffer
from miniscope_xr.layout import SECTOR

_MARKS = 64  # headers looked at in an uncounted run too long to look at all
_LEARN = 96  # buffers looked at to learn how a frame is cut
_BACK = 256  # buffers followed back from one behind a hole


def starts(header: Header) -> bool:
    """Whether a buffer is the first of a recording."""
    return header.written == header.dropped == header.count == 0


class Walker:
    """Finds the runs of one recording from its first buffer on.

    Parameters
    ----------
    headers : HeaderReader
    cut : Cut or None
        How a frame is expected to be cut (from the config sector); learnt from the card where it does not fit.
    end_sector : int
        First sector behind the card.
    exhaustive : bool
        Read every header instead of bisecting; finds the same runs.
    """

    def __init__(self, headers: HeaderReader, cut: Cut | None, end_sector: int, exhaustive: bool = False) -> None:
        self.headers = headers
        self.framing = headers.framing
        self.cut = cut
        self.end_sector = end_sector
        self.ring = self.framing.ring
        self.exhaustive = exhaustive
        self.clock = FrameClock(headers)
        self.holes: list[tuple[int, int]] = []
        """Stretches of sectors within runs, longer than the look-ahead, in which no header was found."""
        build = self.framing.layout.build
        self._pool = build is not None and build.overflow == "pool"

    def runs(self, sector: int, first: Header, limit: int | None) -> list[Run]:
        """All runs of the recording that starts at ``sector``; ``limit`` is its number of buffers if known."""
        if not self._predicts_second_frame(sector, first):
            learnt, expected = self._learn(sector, first), self.cut
            if learnt is not None and (expected is None or not expected.begins_like(learnt)):
                self.cut = learnt
        found: list[Run] = []
        at: tuple[int, Header] | None = (sector, first)
        while at is not None:
            run = self._run_from(*at, limit)
            found.append(run)
            at = None if limit is not None and run.end_place >= limit else self._next(found, limit)
        return found

    def _predicts_second_frame(self, sector: int, first: Header) -> bool:
        cut = self.cut
        if cut is None or first.index or first.length != cut.lengths[0]:
            return False
        run = Run(sector, 1 << 40, first, cut)
        last, following = (self.headers.at(run.sector_of(i)) for i in (len(cut) - 1, len(cut)))
        return (
            run.matches(len(cut) - 1, last)
            and run.matches(len(cut), following)
            and last is not None
            and last.length == cut.lengths[-1]
        )

    def _learn(self, sector: int, first: Header) -> Cut | None:
        """How frames are cut: as two in a row that have the size of a known build, else as most are."""
        sizes = {b.width * b.height for b in self.framing.layout.builds if b.header_words == self.framing.words}
        frames: list[list[int]] = [[]]
        previous, header = first, first
        for _ in range(_LEARN):
            if header.frame != previous.frame:
                alike = len(frames) > 1 and frames[-1] and frames[-1] == frames[-2]
                if alike and (not sizes or sum(frames[-1]) in sizes):
                    return self.framing.cut(tuple(frames[-1]))
                frames.append([])
            if header.index == len(frames[-1]):
                frames[-1].append(header.length)
            sector += self._sectors_of(header)
            following = self.headers.at(sector)
            if following is None or following.written != header.written + 1:
                hit = self._behind_hole(sector, header)
                if hit is None:
                    break
                sector, following = hit
                frames.append([])
            previous, header = header, following
        seen = Counter(tuple(frame) for frame in frames[:-1] or frames if frame)
        best = max(seen, key=lambda cut: (seen[cut] > 1, sum(cut) in sizes, seen[cut], sum(cut)), default=())
        return self.framing.cut(best) if best else None

    def _behind_hole(self, sector: int, header: Header) -> tuple[int, Header] | None:
        """The next buffer behind writes that failed."""
        return self.headers.find(
            sector, sector + self.lookahead * self.framing.full_sectors,
            range(header.written + 1, header.written + self.lookahead + 1), lambda h: h.frame >= header.frame,
        )  # fmt: skip

    def _run_from(self, sector: int, header: Header, limit: int | None) -> Run:
        for cut in self._cuts_for(header):
            run = Run(sector, 1, header, cut)
            count = self._extent(run, self._most(run, limit), limit is not None)
            if count > 1:
                return replace(run, count=count - self._ends_odd(run, count))
        return odd_buffer(sector, header, self.framing.cut((header.length,)), header.length)

    def _ends_odd(self, run: Run, count: int) -> bool:
        """Whether a run's last buffer has another length than usual, so that what is behind it stands elsewhere.

        A lost interrupt makes it so. Where a write failed behind it, nothing stands there that could say so.
        """
        if self.framing.step:
            return False
        last = self.headers.at(run.sector_of(count - 1))
        return last is not None and last.length != run.length_of(count - 1)

    def _cuts_for(self, header: Header) -> list[Cut]:
        cuts = []
        main = self.cut
        if main is not None and header.index < len(main) and header.length == main.lengths[header.index]:
            cuts.append(main)
        if header.index == 0 and (main is None or main.lengths != (header.length,)):
            cuts.append(self.framing.cut((header.length,)))  # a DAQ stopped by remote: one buffer a frame
        return cuts

    def _most(self, run: Run, limit: int | None) -> int:
        """Buffers a run can have at most: up to the end of the card, and to the count in the config sector."""
        room = max(self.end_sector - run.sector, 1) + run.cut.starts[run.first.index]
        most = -(-room // run.cut.frame_sectors) * len(run.cut) - run.first.index
        return max(most if limit is None else min(most, limit - run.first.written), 1)

    def _ok(self, run: Run, i: int) -> bool:
        return run.matches(i, self.headers.at(run.sector_of(i)))

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
            low = self._first_break(run, low, high) - 1
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
            self.headers.fetch(run, count)
            return self._extent_by_scan(run, count)
        marks = np.linspace(0, count - 1, _MARKS, dtype=np.int64).tolist()
        good = 0
        for mark in marks:
            if not self._ok(run, mark) and self._resumes(run, mark - 1, count) is None:
                return self._without_detour(run, self._first_break(run, good, mark))
            good = mark
        return count

    def _first_break(self, run: Run, low: int, high: int) -> int:
        """Number of buffers up to a break between a buffer that matches and one that does not."""
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._ok(run, middle) else (low, middle)
        return low + 1

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
        if (header is None or header.written != place) and self._near(replace(run, count=low + 1)) is not None:
            return None  # the next buffer stands off the grid: nothing is missing
        for i in range(low + 1, near):
            sector = run.sector_of(i)
            header = self.headers.at(sector)
            if run.matches(i, header):
                return i
            if header is None or header.written != run.first.written + i or not self._dropped(run, low, header):
                continue
            if self._confirmed(sector, header):
                return None  # a drop: the old arithmetic never comes back
        resumed = self._far(run, near, most)
        if resumed is not None:
            self.holes.append((run.sector_of(low + 1), run.sector_of(resumed)))
        return resumed

    def _dropped(self, run: Run, low: int, header: Header) -> bool:
        """Whether a header shows that buffers were dropped since a run began; a pool only counts what it captured."""
        if not self._pool:
            return header.dropped > run.first.dropped
        more = header.count - header.written > run.first.count - run.first.written
        return more and self.clock.fits([replace(run, count=low + 1)], header)

    def _far(self, run: Run, start: int, most: int) -> int | None:
        """The first buffer behind a hole of any length that the arithmetic still predicts, found by galloping."""
        low, i = start - 1, start
        while i < most and not self._ok(run, i):
            low, i = i, i + 1 + (i - start) // 8
        if i >= most:
            i = most - 1
            if i <= low or not self._ok(run, i):
                return None
        while i - low > 1:
            middle = (low + i) // 2
            low, i = (low, middle) if self._ok(run, middle) else (middle, i)
        return i

    def _confirmed(self, sector: int, header: Header) -> bool:
        """Whether the buffer that follows a header on the card counts on from it: one odd word is no evidence."""

        def counts_on(following: Header | None) -> bool:
            return following is not None and (
                following.written == header.written + 1
                and following.dropped >= header.dropped
                and following.frame >= header.frame
                and (lapped or following.time >= header.time)
            )

        lapped = bool(self.ring) and not self._pool and header.count > header.written + header.dropped
        if not lapped:
            return counts_on(self.headers.at(sector + self._sectors_of(header)))
        behind = range(header.written + 1, header.written + 2)  # it takes the sectors of the buffer it replaced
        return self.headers.find(sector + 1, sector + 1 + self.framing.full_sectors, behind, counts_on) is not None

    def _behind_older(self, last: Run, sector: int, header: Header) -> bool:
        """Whether the buffers in front of one behind a hole lead to it from one that is older than the end of a run.

        Then what seemed a hole holds an older recording, of which it is too.
        """
        end = self.headers.at(last.sector_of(last.count - 1)) or last.first
        sizes = sorted(set(last.cut.sectors))
        for _ in range(_BACK):
            before = ((sector - n, self.headers.at(sector - n)) for n in sizes if sector - n >= last.end_sector)
            leads = (
                (at, h) for at, h in before if h and h.written + 1 == header.written and h.count < header.count
                and h.time <= header.time
            )  # fmt: skip
            sector, found = next(leads, (sector, None))
            if found is None:
                return False
            header = found
            if header.written < last.end_place or header.time < end.time:
                return True
        return False

    def _sectors_of(self, header: Header) -> int:
        return self.framing.sectors_for(header.length)

    def _follows(self, last: Run, header: Header) -> bool:
        """Whether a header can be a later buffer of the same recording as ``last``."""
        excess = header.count - header.written - header.dropped
        i = last.count - 1
        ahead = (header.frame, header.index) > (last.frame_of(i), last.index_of(i))
        if header.count > last.first.count + i and not ahead and not self._pool:
            return False
        return (
            header.dropped >= last.first.dropped
            and excess >= 0
            and (self._pool or not self.ring or excess % self.ring == 0)
            and header.frame >= last.last_frame - 4 - self.ring
        )

    def _next(self, found: list[Run], limit: int | None) -> tuple[int, Header] | None:
        """Where the recording goes on behind the last run; corrects the size of its last buffer if needed."""
        last = found[-1]
        place, expected = last.end_place, last.end_sector
        header = self.headers.at(expected)
        if header is not None and header.written == place and self._follows(last, header):
            return expected, header
        if header is not None and starts(header):
            return None  # another recording begins here
        hit = self._near(last)
        if hit is not None:
            if starts(hit[1]):
                return None
            found[:] = ended_at(found, hit[0], self.headers.at(last.sector_of(last.count - 1)))
            return hit
        return self._over_hole(found, limit)

    def _near(self, last: Run) -> tuple[int, Header] | None:
        """The next buffer, or the start of another recording, where the last one takes other sectors than it says.

        A lapped buffer takes the sectors of the one it replaced: every sector it can end on is looked at.
        """
        sector, place = last.sector_of(last.count - 1), last.end_place
        return self.headers.find(
            sector + 1, sector + 1 + self.framing.full_sectors, range(place + 1),
            lambda h: starts(h) or (h.written == place and self._follows(last, h)),
        )  # fmt: skip

    def _over_hole(self, found: list[Run], limit: int | None) -> tuple[int, Header] | None:
        """Where the recording goes on behind a hole off the grid: with a drop in it, or bytes left out or put in."""
        last = found[-1]

        def accept(sector: int, header: Header) -> bool:
            return (
                header.written >= last.end_place
                and (limit is None or header.written < limit)
                and self._follows(last, header)
                and self.clock.fits(found, header)
                and (self._confirmed(sector, header) or header.written + 1 == limit)
                and not self._behind_older(last, sector, header)
            )

        sector = last.sector_of(last.count - 1)
        hit = self.headers.beyond(sector + 1, self.end_sector, self.framing.full_sectors, accept)
        within = hit is not None and (hit[0] < last.end_sector or hit[1].written == last.end_place)
        if hit is not None and within:  # something is missing in the last buffer, or was put into it
            found[:] = ended_at(found, hit[0], self.headers.at(sector))
        return hit
