"""Finding the runs of a recording with few header reads.

Where the arithmetic of a run breaks (``extent.py``), :class:`Walker` takes single steps.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from statistics import median

from miniscope_xr.index.captured import captured_once
from miniscope_xr.index.extent import FINE, Extents, starts
from miniscope_xr.index.runs import Cut, Header, Run, ended_at, odd_buffer, with_true_indexes

_LEARN = 96  # buffers looked at to learn how a frame is cut
_PAUSES = 8  # pauses between two buffers of the same indices that show the usual one
_BACK = 256  # buffers followed back from one behind a hole


class Walker(Extents):
    """Finds the runs of one recording from its first buffer on; made as :class:`Extents`."""

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
        return with_true_indexes(captured_once(found, self.clock) if self._pool else found, self.cut)

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

    def _behind_older(self, last: Run, sector: int, header: Header) -> bool:
        """Whether the buffers in front of one behind a hole lead to it from one that is older than the end of a run.

        Then what seemed a hole holds an older recording, of which it is too.
        """
        end = self.headers.at(last.sector_of(last.count - 1)) or last.first
        others = 0  # in a row that cannot follow: of one, a bit may have flipped
        for _ in range(_BACK):
            before = self._in_front(last, sector, header)
            if before is None:
                return False
            sector, header = before
            others = 0 if self._follows(last, header) else others + 1
            if header.written < last.end_place or header.time < end.time or others > 1:
                return True
        return False

    def _in_front(self, last: Run, sector: int, header: Header) -> tuple[int, Header] | None:
        """The buffer in front of one behind a hole that leads to it: of a usual size, or of any."""

        def leads(h: Header) -> bool:
            counts = h.written + 1 == header.written and h.count < header.count
            return counts and h.time <= header.time

        usual = ((sector - n, self.headers.at(sector - n)) for n in sorted(set(last.cut.sectors)))
        found = next(((at, h) for at, h in usual if at >= last.end_sector and h is not None and leads(h)), None)
        start = max(sector - self.framing.full_sectors, last.end_sector)
        if found is not None or start >= sector:
            return found
        return self.headers.find(start, sector, range(header.written - 1, header.written), leads)

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
            i = last.count - 1
            end = self.headers.at(last.sector_of(i))
            usual = last.matches(i, end) and end is not None and end.length == last.length_of(i)
            if hit[0] < expected or not usual:
                found[:] = ended_at(found, hit[0], end)
            return hit
        return self._over_hole(found, limit)

    def _over_hole(self, found: list[Run], limit: int | None) -> tuple[int, Header] | None:
        """Where the recording goes on behind a hole off the grid: with a drop in it, or bytes left out or put in."""
        last = found[-1]

        def accept(sector: int, header: Header) -> bool:
            return (
                self._follows(last, header)
                and self.clock.fits(found, header)
                and (self._confirmed(sector, header) or header.written + 1 == limit)
                and not self._behind_older(last, sector, header)
            )

        sector = last.sector_of(last.count - 1)
        places = range(last.end_place, 1 << 32 if limit is None else limit)
        hit = self.headers.beyond(sector + 1, self.end_sector, self.framing.full_sectors, places, accept)
        within = hit is not None and (hit[0] < last.end_sector or hit[1].written == last.end_place)
        if hit is not None and within:  # something is missing in the last buffer, or was put into it
            found[:] = ended_at(found, hit[0], self.headers.at(sector))
        return hit if hit is None or within else self._led_from(found, *hit)

    def _led_from(self, found: list[Run], sector: int, header: Header) -> tuple[int, Header]:
        """The first of the buffers behind a hole that lead to one of this recording, at the usual pace.

        Edges of a remote within the hole put the clock behind, so that the first ones seemed not to keep it.
        """
        like = max((run for run in found if not run.odd), key=lambda run: run.count, default=found[-1])
        cut, size = like.cut, len(like.cut)
        if like.odd or size < 2 or like.count < 2 * size:
            return sector, header
        pauses: dict[int, tuple[float, float] | None] = {}
        for _ in range(_BACK):
            index = header.index
            if index not in pauses:
                pauses[index] = self._usual_pauses(like, index)
            pause = pauses[index]
            before = sector - cut.sectors[(index - 1) % size]
            own = self.headers.at(before) if before >= found[-1].end_sector else None
            if own is None or own.index >= size or own.written < found[-1].end_place or pause is None:
                break
            leads = Run(before, 2, own, cut).matches(1, header) and own.length == cut.lengths[own.index]
            least = 0 if self.framing.build.remote_edge[1] else pause[0]
            if not leads or not least <= header.time - own.time <= pause[1]:
                break
            sector, header = before, own
        return sector, header

    def _usual_pauses(self, run: Run, index: int) -> tuple[float, float] | None:
        """The least and the most ticks by which a run's buffers of an index usually come later than those before."""
        size = len(run.cut)
        last = run.count - 1 - (run.index_of(run.count - 1) - index) % size
        there = range(last, max(last - _PAUSES * size, 0), -size)
        pairs = ((self.headers.at(run.sector_of(i - 1)), self.headers.at(run.sector_of(i))) for i in there)
        known = [b.time - a.time for a, b in pairs if a is not None and b is not None]
        if not known:
            return None
        near = [pause for pause in known if abs(pause - median(known)) <= 2 * FINE]  # not over an edge of a remote
        return min(near, default=median(known)) - 1, max(near, default=median(known)) + 1
