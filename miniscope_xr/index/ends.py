"""Where a recording begins and ends by its buffers, where the card does not hold its count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

from miniscope_xr.errors import NotACardError
from miniscope_xr.index.captured import captured_twice, either
from miniscope_xr.index.filesystem import seems_formatted
from miniscope_xr.index.front import Card
from miniscope_xr.index.gave_up import without_lost
from miniscope_xr.index.headers import HeaderReader
from miniscope_xr.index.low_counts import LowCounts, ended_by
from miniscope_xr.index.old_buffers import Starts, by_the_list, first_listed
from miniscope_xr.index.place import Verdict
from miniscope_xr.index.run_facts import RunFacts
from miniscope_xr.index.runs import Cut, Header, Run, cut_at, ended_as_said, last_as_written, overtaken
from miniscope_xr.index.seam import SeamSearch
from miniscope_xr.index.walker import Walker
from miniscope_xr.layout import SECTOR, lengths_of
from miniscope_xr.source.base import ByteSource


class Ends:
    """Finds where the recordings of a card whose frames are split into buffers begin and end, by their buffers."""

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
        most = self.card.framing.build.buffers_a_frame or None
        return self.card.framing.cut(lengths_of(frame_bytes, self.card.payload)[:most])

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
            lambda h: not h.ahead,
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
        restarts = self.card.build is not None and self.card.build.restarts  # its counters go on behind a timed stop
        later = restarts and min(header.count, header.frame) > 0
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

    def _search(self, runs: list[Run]) -> SeamSearch:
        later = runs[0].sector > self.layout.sectors.data + self._hole
        ticks = self.facts.ticks(runs)
        by_itself = self.card.framing.build.clock == "recording" and not later
        stops = 1000 * ticks * self.card.settings.get("record_length", 0) if by_itself else 0.0
        return SeamSearch(self.headers, self.facts.scanning(runs), ticks, later, runs, stops)

    def _without_older(self, runs: list[Run], beyond: int = 0) -> tuple[list[Run], list[str], bool]:
        """Runs without an older recording behind them; doubts; whether one was cut off.

        It is known to go on over what seemed to be its end up to buffer ``beyond``.
        """
        if self.whole:
            return runs, [], False
        told = self._listed(runs) or self._there_twice(runs)
        if told is not None:
            return told
        counts, search = self.facts.low_counts(runs), self._search(runs)
        search.written_low = counts.written if counts else None
        verdict = search.first_seam(runs, self.exhaustive)
        if verdict.end is None:
            return runs, [] if counts is not None and counts.fit(runs) else verdict.doubt, False
        verdict, (number, i), kept = self._earliest(runs, verdict, verdict.end)
        place = runs[number].first.written + i
        on = search.goes_on(runs, number, i) if place > beyond else None
        if on is not None and on.runs:
            found = self._without_older(on.runs, place)
            if not found[0] or found[0][-1].end_place <= on.own[-1].first.written:
                found = on.own, [_behind(on.own[-1].end_sector)], True
            return found[0], [*on.doubt, *(said for said in found[1] if said not in on.doubt)], found[2]
        if not i and kept and kept[-1].odd:  # it seemed to take more sectors than it has, up to the old buffer
            cut = kept[-1].cut
            kept[-1] = replace(kept[-1], cut=replace(cut, taken=min(cut.taken, cut.sectors_for(cut.lengths[0]))))
        if counts is not None and counts.fit(runs) and not (kept and counts.written_fits(kept)):
            return runs, search.left_over(runs), False  # the low bytes of the counts confirm the counters' own end
        kept = self._last_filled_again(ended_as_said(kept, self.headers.at), counts)
        old = max(self._behind_lapped_end(runs[number], i), kept[-1].end_sector if kept else 0)
        if i and kept[-1].count == i and kept[-1].sector == runs[number].sector:
            kept = [*kept[:-1], *search.without_theirs(runs[number], i)]
        return kept, [*verdict.doubt, *(on.doubt if on is not None else [])] or [_behind(old)], True

    def _listed(self, runs: list[Run]) -> tuple[list[Run], list[str], bool] | None:
        """The same as a list of what was on the card before says it, sector by sector: it was prepared with --keep."""
        starts = Starts(runs)
        listed = first_listed(self.source, self.layout, starts) if self.old_buffers else None
        if listed is None:
            return None
        if listed == len(starts):
            return runs, [by_the_list(None)], False
        number, i = starts.locate(listed)
        return cut_at(runs, number, i), [by_the_list(f"buffer {listed}")], True

    def _there_twice(self, runs: list[Run]) -> tuple[list[Run], list[str], bool] | None:
        """The same where a pool's buffers are there twice, and no clock tells which of them are this recording's."""
        first = captured_twice(runs, self.walker.clock) if self.card.framing.build.pool else None
        if first is None:
            return None
        kept, doubts, cut = self._without_older(runs[:first])
        return kept, doubts if cut else [*doubts, either(kept, runs[first:])], True

    def _last_filled_again(self, runs: list[Run], counts: LowCounts | None) -> list[Run]:
        """Runs with a last buffer that is a later frame's, the slot of which was filled again before it was written.

        A pool's write times tell; where there are none, the counts, as they say that the recording ended with it.
        """
        if not self.ring or not runs or runs[-1].odd or runs[-1].count < 2:
            return runs
        run, i, pool = runs[-1], runs[-1].count - 1, self.card.framing.build.pool
        before, filled = self.headers.at(run.sector_of(i - 1)), last_as_written(runs, self.headers.at)
        if filled is runs or before is None:
            return runs
        last, front = filled[-1].first, cut_at(runs, len(runs) - 1, i)
        laps = last.count - run.first.count - i if pool else last.ahead
        ended = before.write_time <= last.write_time if pool else counts is not None and counts.written_fits(runs)
        if not ended or not laps > 0 == laps % self.ring or not self.walker.clock.fits(front, last):
            return runs
        return filled if pool else overtaken(filled, self.headers.at, self.ring)

    def _behind_lapped_end(self, run: Run, i: int) -> int:
        """The sector where buffer ``i`` of a run would begin, or behind one that lapped it: that is no older one's."""
        sector = run.sector_of(i)
        last, here = (self.headers.at(run.sector_of(k)) if 0 <= k < run.count else None for k in (i - 1, i))
        if last is None or here is None or not self.ring or run.odd or i + 1 >= run.count:
            return sector
        laps = here.count - run.first.count - i
        lapped = (here.written, here.dropped) == (run.first.written + i, run.first.dropped) and laps > 0
        ours = lapped and laps % self.ring == 0 and here.time > last.time and here.write_time >= last.write_time
        return run.sector_of(i + 1) if ours else sector

    def _earliest(
        self, runs: list[Run], verdict: Verdict, end: tuple[int, int]
    ) -> tuple[Verdict, tuple[int, int], list[Run]]:
        """What is said of the first of several older recordings, where it begins, and the runs in front of it.

        Of one that lies over another the clock steps twice, and the larger step is found first.
        """
        kept = cut_at(runs, *end)
        while kept:
            search = self._search(kept)
            earlier = search.first_seam(kept, self.exhaustive)
            if earlier.end is None:
                break
            number, i = earlier.end
            whole = all(f"until={kept[-1].last_frame}" in said for said in earlier.doubt)
            damaged = search.parts(kept[number], i) and not search.steps_at(kept[number], i)  # over failed writes
            if earlier.doubt and (damaged or not whole):
                break  # no other clock, or a doubt that does not name all that it would leave out
            verdict, end, kept = earlier, earlier.end, cut_at(kept, number, i)
            if verdict.doubt:
                break
        return verdict, end, kept

    def _uncounted(self, at: tuple[int, Header]) -> tuple[list[Run], list[str], bool]:
        """Runs of a recording whose count the card does not hold; doubts; whether an older one was cut off."""
        runs = self._walked(at)
        low_end = self._end_at_low_counts(runs)
        if low_end is not None:
            return low_end[0], [low_end[1]], True
        counted_end = self._end_at_count(runs) if self.stale and not self.whole else None
        runs, doubts, cut = (counted_end, [], True) if counted_end else self._without_older(runs)
        if self.card.build is not None and self.card.build.driver_timeout[0]:
            runs = without_lost(runs, self._search(runs))
        if self.stale and not self.whole and not cut:
            doubts = [*doubts, *self._count_in_hole(runs)]
        counts = self.facts.low_counts(runs) if runs else None
        if counts is None or counts.written_fits(runs) or self.whole:  # a DAQ's clean stop left them
            return runs, doubts, cut
        if not cut and counts.places(runs):
            doubts = []  # that counts were never written is not true here; where they fit says more
        return runs, [*doubts, counts.missed(runs)], cut

    def _walked(self, at: tuple[int, Header]) -> list[Run]:
        """Runs from a buffer on; over a drop that a DAQ counted where both its counts are met behind that."""
        runs = self.walker.runs(*at, None)
        counts = self.facts.low_counts(runs)
        if counts is None or not counts.dropped or counts.met(runs):
            return runs
        walker = Walker(self.headers, self.walker.cut, self.end_sector, self.exhaustive, counts.dropped)
        walker.holes = self.walker.holes
        again = walker.runs(*at, None)
        return again if counts.met(again) else runs

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
            found = self._without_older(kept) if ends else None
            if found is not None and not found[2]:
                return found[0]
        return None

    def _count_in_hole(self, runs: list[Run]) -> list[str]:
        """What to say where a count that may be this recording's ends in a hole: what is behind it may be older."""
        limit = self.config["n_buffers_recorded"]
        for before, behind in pairwise(runs):
            if before.end_place <= limit <= behind.first.written:
                a, last = before.last_frame, max(run.last_frame for run in runs)
                return [
                    f"the config sector counts {limit} buffers, which end in the hole behind frame {a}: whether what "
                    f"is there and behind it, frames {a} to {last}, is of this recording or of an older one, is in "
                    "doubt; "
                    f"until={a} leaves out what is behind it"
                ]
        return []

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


def _behind(sector: int) -> str:
    return f"an older recording lies behind this one, from sector {sector} on, and is not returned"
