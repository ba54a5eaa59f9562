"""Which runs of buffers follow one another as one recording, and where the next recording begins."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import replace

from miniscope_xr.index.ends import Ends
from miniscope_xr.index.filesystem import seems_formatted
from miniscope_xr.index.old_buffers import Starts
from miniscope_xr.index.runs import Header, Run, cut_at, ended_at
from miniscope_xr.index.walker import Walker
from miniscope_xr.layout import SECTOR

_TRIED = 128  # headers from which buffers are followed to the count: more stand behind no hole, but on a ruined card
_COPIES = 4  # of one header: the buffer behind it leads on as well
NOT_HERE = -1  # the recording that the card's count is of is not among those found


class Chains(Ends):
    """Finds the runs of each recording of a card whose frames are split into buffers."""

    def _counted(self, at: tuple[int, Header], limit: int) -> tuple[list[list[Run]], int | None, list[str]]:
        """Runs of each recording on the card, which one the count (``limit`` buffers) belongs to, and doubts about it.

        That is the last one that ends at the count. One behind it was interrupted, or is of an older session.
        """
        found: list[list[Run]] = []
        ends: int | None = None
        passed: tuple[int, list[Run]] | None = None  # the first that reaches the count but seems to go on
        start: tuple[int, Header] | None = at
        while start is not None and len(found) < self.most:
            runs = self.walker.runs(*start, limit)
            longer = None
            reached = runs[-1].end_place >= limit
            if reached:
                longer = self._goes_on(start, runs, limit)
                if longer is None:
                    ends = len(found)
                else:
                    passed = passed or (len(found), runs)
            found.append(longer or runs)
            end = found[-1][-1].first
            tidy = not end.ahead  # a lapped buffer takes the sectors of another
            start = self._next_recording(found[-1], exactly=reached and longer is None and tidy)
            found[-1] = self._up_to(found[-1], start)
        hidden = self._behind_hole(found[-1], limit) if ends is None else None
        if hidden is not None:
            return [*found[:-1], *self._around_hole(found[-1], hidden, limit)], len(found), []
        if ends is None and passed is not None:
            proven = True if self.whole else self._proven_past(found[passed[0]], limit)
            lacks_end = len(found) > passed[0] + 1 and self.facts.cut_off(found[-1])
            if proven or lacks_end:  # of a later one
                return found, NOT_HERE, []
            doubt = [] if proven is False else [_goes_on_like_it(passed[1][-1].last_frame, found[passed[0]][-1], limit)]
            return [*found[: passed[0]], passed[1]], passed[0], doubt
        if ends is None and not self.whole and not self.facts.cut_off(found[-1]):
            kept, told, older = self._without_older(found[-1])  # the count is another's: it excludes nothing
            if kept and older:
                return [*found[:-1], kept], None, told
        return found, ends, []

    def _proven_past(self, runs: list[Run], limit: int) -> bool | None:
        """Whether leftovers prove that a recording goes on behind buffer ``limit``; clocks may agree by chance.

        None where they tell nothing.
        """
        search = self._search(runs)
        within = [(run, limit - run.first.written) for run in runs if 0 < limit - run.first.written < run.count]
        told = {search.link(run, k) for run, i in within for k in range(i, min(i + self.ring, run.count))}
        return None if told <= {None} else False not in told

    def _behind_hole(self, runs: list[Run], limit: int) -> list[Run] | None:
        """The card's last recording, where its beginning was overwritten: the buffers that end at the card's count."""
        looked, tried = runs[-1].end_sector, Counter[Header]()
        ends: list[Run] | None = None

        def accept(sector: int, header: Header) -> bool:
            nonlocal looked, ends
            if sector < looked or tried[header] == _COPIES or tried.total() == _TRIED:
                return False
            tried[header] += 1
            chain = self.walker.runs(sector, header, limit)
            looked = chain[-1].end_sector
            behind = self.headers.at(looked)
            goes_on = behind is not None and behind.written == limit
            whole = any(len(run.cut) > 1 for run in chain)  # the first may be odd: a remote started it
            ends = chain if chain[-1].end_place == limit and whole and not goes_on else None
            return ends is not None

        full = self.card.framing.full_sectors
        self.headers.beyond(looked, self.end_sector, full, range(1, limit), accept)
        if ends is None:
            return None
        most = max(ends[0].sector - ends[0].first.written * full, runs[0].end_sector)
        start = self.headers.find(most, ends[0].sector, range(1), self._starts)  # it follows a hole right away
        whole = self.walker.runs(*start, limit) if start is not None else ends
        return whole if whole[-1].end_place == limit else ends

    def _around_hole(self, runs: list[Run], hidden: list[Run], limit: int) -> tuple[list[Run], list[Run]]:
        """A recording and the last one behind a hole, of which the count is: it says nothing of the one in front."""
        walker = Walker(self.headers, self.walker.cut, hidden[0].sector, self.exhaustive)  # as if the card ended there
        walker.holes = self.walker.holes
        longer = walker.runs(runs[0].sector, runs[0].first, None)
        places = Starts(longer)
        kept = cut_at(longer, *places.locate(bisect_left(places, hidden[0].sector)))
        if not kept or kept[-1].end_place <= runs[-1].end_place:
            return runs, hidden
        start = self._next_recording(kept)
        whole = self.walker.runs(*start, limit) if start is not None and start[0] <= hidden[0].sector else hidden
        return kept, whole if whole[-1].end_place == limit else hidden

    def _up_to(self, runs: list[Run], start: tuple[int, Header] | None) -> list[Run]:
        """Runs whose last buffer ends where the next recording starts: a lapped one takes the sectors of another."""
        last = runs[-1]
        if start is None or start[0] == last.end_sector:
            return runs
        return ended_at(runs, start[0], self.headers.at(last.sector_of(last.count - 1)))

    def _behind_format(self, last: Run) -> bool:
        """Whether a run goes on behind a hole at its end, on a card that was formatted."""
        if self.headers.at(last.end_sector) is not None or not seems_formatted(self.source):
            return False
        places = [last.count + n * max(self.ring, 1) for n in (1, 2, 4)]
        longer = replace(last, count=places[-1] + 1)
        return any(longer.matches(i, self.headers.at(longer.sector_of(i))) for i in places)

    def _count_is_of_next(self, runs: list[Run], limit: int) -> bool:
        """Whether another recording starts right behind some runs, and ends at the count: it is not these ones'."""
        start = self._next_recording(runs, exactly=True)
        return start is not None and self.walker.runs(*start, limit)[-1].end_place == limit

    def _goes_on(self, start: tuple[int, Header], runs: list[Run], limit: int) -> list[Run] | None:
        """The recording's runs without the count, where it seems to go on behind buffer ``limit``.

        The count in the config sector is that of the card's last recording; an earlier one may be longer.
        """
        last = runs[-1]
        header = self.headers.at(last.end_sector)
        if header is None or header.written != limit:
            i = last.count - 1
            sector = last.sector_of(i)
            own = self.headers.at(sector)
            goes_on = self.headers.flipped(replace(last, count=i + 2), i + 1) or self._behind_format(last)
            if own is None or (own.length == last.length_of(i) and not goes_on):
                return None
            if own.length != last.length_of(i):
                reach = self.config["buffer_size"] // SECTOR  # a lost interrupt makes a buffer longer or shorter
                if self.headers.find(sector + 1, sector + 1 + reach, range(limit, limit + 1)) is None:
                    return None
        longer = self.walker.runs(*start, None)
        for run in longer:
            place = limit - run.first.written
            if 0 < place < run.count and self._search(longer).continues(run, place) is False:
                return longer if self._count_is_of_next(longer, limit) else None
        kept = self._without_older(longer)[0]
        return kept if kept and kept[-1].end_place > limit else None


def _goes_on_like_it(end: int, behind: Run, limit: int) -> str:
    """The doubt about an end at a count, where what lies behind it shows no other recording."""
    last = behind.last_frame
    return (
        f"whether this recording ended with frame {end} is in doubt: the config sector counts {limit} buffers, but "
        f"those behind them go on like it, up to frame {last}; until={last} returns them"
    )
