"""Which runs of buffers follow one another as one recording, and where the next recording begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from miniscope_xr.errors import NotACardError
from miniscope_xr.index.filesystem import seems_formatted
from miniscope_xr.index.front import Card
from miniscope_xr.index.gave_up import without_lost
from miniscope_xr.index.headers import HeaderReader
from miniscope_xr.index.low_counts import ended_by
from miniscope_xr.index.old_buffers import Starts, by_the_list, first_listed
from miniscope_xr.index.run_facts import RunFacts
from miniscope_xr.index.runs import Cut, Header, Run, cut_at, ended_as_said, ended_at
from miniscope_xr.index.seam import SeamSearch
from miniscope_xr.index.walker import Walker
from miniscope_xr.layout import SECTOR, lengths_of
from miniscope_xr.source.base import ByteSource

_TRIED = 128  # headers from which buffers are followed to the count: more stand behind no hole, but on a ruined card
NOT_HERE = -1  # the recording that the card's count is of is not among those found


class Chains:
    """Finds the runs of each recording of a card whose frames are split into buffers."""

    def __init__(
        self,
        source: ByteSource,
        card: Card,
        config: Mapping[str, int],
        exhaustive: bool,
        whole: bool,
        old_buffers: bool,
    ) -> None:
        self.source = source
        self.card = card
        self.config = config
        self.exhaustive = exhaustive
        self.whole = whole
        self.old_buffers = old_buffers
        self.layout = card.layout
        self.end_sector = -(-source.size // SECTOR)
        self.headers = HeaderReader(source, card.framing)
        self.facts = RunFacts(source.size, card, config, self.headers)
        self.ring = card.framing.ring
        self.stale = card.build is not None and card.build.stale_config
        cut = self._expected_cut()
        self.walker = Walker(self.headers, cut, self.end_sector, exhaustive)
        # The remote cannot be pressed twice within one frame, so a card has room for so many recordings.
        room = max(self.end_sector - card.layout.sectors.data, 0)
        self.most = 1 + room // max(cut.frame_sectors if cut else 1, config["buffer_size"] // SECTOR)

    def _expected_cut(self) -> Cut | None:
        """How a frame of the size in the config sector is cut; None where that size cannot be."""
        frame_bytes = self.config["width"] * self.config["height"]
        if not 0 < frame_bytes <= 1 << 26 or frame_bytes // self.card.payload > 60:
            return None
        return self.card.framing.cut(lengths_of(frame_bytes, self.card.payload))

    # -- finding the runs ---------------------------------------------------------------------------

    def _start(self) -> tuple[int, Header]:
        """The first buffer: at the data sector, or behind a hole that a failed write left there."""
        found = self.card.start
        sector = self.layout.sectors.data if found is None else found
        header = self.headers.at(sector)
        if header is not None and (found is not None or self._starts(header)):
            return sector, header
        hit = self.headers.find(
            sector + 1,
            sector + 1 + self._hole,
            range(1, self.card.framing.build.failed_writes + 1),
            lambda h: h.count == h.written + h.dropped,
        )
        if hit is None:
            raise NotACardError(
                f"sector {sector} (byte {sector * SECTOR}) holds no first buffer of a {self.layout.id} recording; "
                "check layout="
            )
        return hit

    @property
    def _hole(self) -> int:
        """Sectors at the start of a recording whose writes may have failed."""
        return self.card.framing.build.failed_writes * self.config["buffer_size"] // SECTOR

    def _starts(self, header: Header) -> bool:
        """Whether a header is a recording's first; it holds a later buffer where the card stalled at once."""
        fresh = header.count == header.frame == header.index == 0  # else a bit of it has flipped
        lapped = bool(self.ring) and header.count > 0 and header.count % self.ring == 0
        later = self.card.build is not None and self.card.build.restarts  # its counters go on behind a timed stop
        return header.written == header.dropped == 0 and (fresh or lapped or later)

    def _next_recording(self, runs: list[Run], exactly: bool = False) -> tuple[int, Header] | None:
        """The start of a recording in the sector behind the last buffer of ``runs``.

        Unless ``exactly`` there, it may be where the last buffer took fewer or more sectors than its header says.
        """
        if self.card.build is not None and self.card.build.restarts:
            return None
        last = runs[-1]
        header = self.headers.at(last.end_sector)
        if header is not None and self._starts(header):
            return last.end_sector, header
        if exactly:
            return None
        sector = last.sector_of(last.count - 1)
        return self.headers.find(sector + 1, sector + 1 + self.config["buffer_size"] // SECTOR, range(1), self._starts)

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
            tidy = end.count == end.written + end.dropped  # a lapped buffer takes the sectors of another
            start = self._next_recording(found[-1], exactly=reached and longer is None and tidy)
            found[-1] = self._up_to(found[-1], start)
        hidden = self._behind_hole(found[-1], limit) if ends is None else None
        if hidden is not None:
            return [*found, hidden], len(found), []
        if ends is None and passed is not None:
            proven = True if self.whole else self._proven_past(found[passed[0]], limit)
            if proven:
                return found, NOT_HERE, []
            doubt = [] if proven is False else [_goes_on_like_it(passed[1][-1].last_frame, found[passed[0]][-1], limit)]
            return [*found[: passed[0]], passed[1]], passed[0], doubt
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
        looked, tried = runs[-1].end_sector, 0
        ends: list[Run] | None = None

        def accept(sector: int, header: Header) -> bool:
            nonlocal looked, ends, tried
            if sector < looked or not 0 < header.written < limit or tried == _TRIED:
                return False
            tried += 1
            chain = self.walker.runs(sector, header, limit)
            looked = chain[-1].end_sector
            behind = self.headers.at(looked)
            goes_on = behind is not None and behind.written == limit
            whole = any(len(run.cut) > 1 for run in chain)  # the first may be odd: a remote started it
            ends = chain if chain[-1].end_place == limit and whole and not goes_on else None
            return ends is not None

        self.headers.beyond(looked, self.end_sector, self.card.framing.full_sectors, accept)
        return ends

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
                return None
        kept = self._without_older(longer)[0]
        return kept if kept and kept[-1].end_place > limit else None

    def _search(self, runs: list[Run]) -> SeamSearch:
        later = runs[0].sector > self.layout.sectors.data + self._hole
        ticks = self.facts.ticks(runs)
        by_itself = self.card.framing.build.clock == "recording" and not later
        stops = 1000 * ticks * self.card.settings.get("record_length", 0) if by_itself else 0.0
        return SeamSearch(self.headers, bool(self.card.settings.get("ewl_scan_mode", 0)), ticks, later, runs, stops)

    def _without_older(self, runs: list[Run]) -> tuple[list[Run], list[str], bool]:
        """Runs without an older recording behind them; doubts; whether one was cut off."""
        if self.whole:
            return runs, [], False
        starts = Starts(runs)
        listed = first_listed(self.source, self.layout, starts) if self.old_buffers else None
        if listed is not None:  # prepared with --keep: what was there before is known sector by sector
            if listed == len(starts):
                return runs, [by_the_list(None)], False
            number, i = starts.locate(listed)
            return cut_at(runs, number, i), [by_the_list(f"buffer {listed}")], True
        counts, search = self.facts.low_counts(runs), self._search(runs)
        search.written_low = counts.written if counts else None
        verdict = search.first_seam(runs, self.exhaustive)
        if verdict.end is None:
            return runs, [] if counts is not None and counts.fit(runs) else verdict.doubt, False
        (number, i), kept = verdict.end, cut_at(runs, *verdict.end)
        while kept:  # that one lies over another: the clock steps twice
            earlier = self._search(kept).first_seam(kept, self.exhaustive)
            if earlier.end is None or earlier.doubt:
                break
            verdict, (number, i), kept = earlier, earlier.end, cut_at(kept, *earlier.end)
        if not i and kept and kept[-1].odd:  # it seemed to take more sectors than it has, up to the old buffer
            cut = kept[-1].cut
            kept[-1] = replace(kept[-1], cut=replace(cut, taken=min(cut.taken, cut.sectors_for(cut.lengths[0]))))
        if counts is not None and counts.fit(runs) and not (kept and counts.written_fits(kept)):
            return runs, search.left_over(runs), False  # the low bytes of the counts confirm the counters' own end
        kept = ended_as_said(kept, self.headers.at)
        old = max(runs[number].sector_of(i), kept[-1].end_sector if kept else 0)
        said = f"an older recording lies behind this one, from sector {old} on, and is not returned"
        back = search.comes_back(runs[number], i)
        return kept, [*verdict.doubt, *search.perhaps_later(runs[number], back)] or [said], True

    def _uncounted(self, at: tuple[int, Header]) -> tuple[list[Run], list[str], bool]:
        """Runs of a recording whose count the card does not hold; doubts; whether an older one was cut off."""
        runs = self.walker.runs(*at, None)
        low_end = self._end_at_low_counts(runs)
        if low_end is not None:
            return low_end[0], [low_end[1]], True
        counted_end = self._end_at_count(runs) if self.stale and not self.whole else None
        runs, doubts, cut = (counted_end, [], True) if counted_end else self._without_older(runs)
        if self.card.build is not None and self.card.build.driver_timeout[0]:
            runs = without_lost(runs, self._search(runs))
        counts = self.facts.low_counts(runs) if runs else None
        if counts is None or counts.written_fits(runs) or self.whole:  # a DAQ's clean stop left them
            return runs, doubts, cut
        if not cut and counts.places(runs):
            doubts = []  # that counts were never written is not true here; where they fit says more
        return runs, [*doubts, counts.missed(runs)], cut

    def _end_at_count(self, runs: list[Run]) -> list[Run] | None:
        """Runs up to a count that may be another recording's, where the buffer behind it is not this recording's."""
        limit, search = self.config["n_buffers_recorded"], self._search(runs)
        for number, run in enumerate(runs):
            i = limit - run.first.written
            if not 0 < i <= run.count or not run.matches(i - 1, self.headers.at(run.sector_of(i - 1))):
                continue
            behind = self.headers.at(run.sector_of(i)) if i < run.count else None
            if not i < run.count and number == len(runs) - 1:
                continue
            kept = cut_at(runs, number, i)
            gone = not run.matches(i, behind) and not self.headers.flipped(run, i)
            ends = gone or search.steps_at(run, i) or search.parts(run, i)
            if ends and not self._without_older(kept)[2]:
                return kept
        return None

    def _end_at_low_counts(self, runs: list[Run]) -> tuple[list[Run], str] | None:
        """Runs up to the one place at which a DAQ's counts fit, where nothing says that they go on; what to say."""
        counts = self.facts.low_counts(runs)
        if counts is None or self.whole or counts.written_fits(runs):
            return None
        if self.facts.cut_off(runs) or seems_formatted(self.source):
            return None  # buffers may be missing behind them
        if self._next_recording(runs) is not None:
            return None  # they are the last recording's
        found = ended_by(counts, runs, self._search(runs))
        return None if found is None or self._without_older(found[0])[2] else found


def _goes_on_like_it(end: int, behind: Run, limit: int) -> str:
    """The doubt about an end at a count, where what lies behind it shows no other recording."""
    last = behind.last_frame
    return (
        f"whether this recording ended with frame {end} is in doubt: the config sector counts {limit} buffers, but "
        f"those behind them go on like it, up to frame {last}; until={last} returns them"
    )
