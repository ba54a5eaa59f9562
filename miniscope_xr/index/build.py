"""Which recordings a card holds, and the runs of buffers each is made of."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from miniscope_xr.errors import NotACardError, OptionError
from miniscope_xr.index.clock import clock_of
from miniscope_xr.index.detect import detect
from miniscope_xr.index.front import Card
from miniscope_xr.index.headers import HeaderReader
from miniscope_xr.index.old_buffers import Starts, by_the_list, first_listed
from miniscope_xr.index.overwritten import with_overwritten
from miniscope_xr.index.recording import Recording
from miniscope_xr.index.run_facts import RunFacts
from miniscope_xr.index.runs import Cut, Header, Run, cut_at, ended_at
from miniscope_xr.index.seam import SeamSearch
from miniscope_xr.index.v3 import index_footers
from miniscope_xr.index.walker import Walker
from miniscope_xr.layout import SECTOR, Layout, lengths_of
from miniscope_xr.source.base import ByteSource
from miniscope_xr.source.salvage import Tolerant

_EVERY = 4096  # frames of a run up to which every header is looked at
_HOLE = 16  # buffers at the start of a recording that may be missing


class _Buffers:
    """Builds the recordings of a card whose frames are split into buffers."""

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
            sector + 1 + _HOLE * self.config["buffer_size"] // SECTOR,
            range(1, _HOLE + 1),
            lambda h: h.count == h.written + h.dropped,
        )
        if hit is None:
            raise NotACardError(
                f"sector {sector} (byte {sector * SECTOR}) holds no first buffer of a {self.layout.id} recording; "
                "check layout="
            )
        return hit

    def _starts(self, header: Header) -> bool:
        """Whether a header is a recording's first; it holds a later buffer where the card stalled at once."""
        lapped = bool(self.ring) and header.count % self.ring == 0
        later = self.card.build is not None and self.card.build.restarts  # its counters go on behind a timed stop
        return header.written == header.dropped == 0 and (header.count == 0 or lapped or later)

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

    def _counted(self, at: tuple[int, Header], limit: int) -> tuple[list[list[Run]], int | None]:
        """Runs of each recording on the card, and which one the count (``limit`` buffers) belongs to.

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
        if ends is None and passed is not None:
            return [*found[: passed[0]], passed[1]], passed[0]
        return found, ends

    def _up_to(self, runs: list[Run], start: tuple[int, Header] | None) -> list[Run]:
        """Runs whose last buffer ends where the next recording starts: a lapped one takes the sectors of another."""
        last = runs[-1]
        if start is None or start[0] == last.end_sector:
            return runs
        return ended_at(runs, start[0], self.headers.at(last.sector_of(last.count - 1)))

    def _overtaken(self, runs: list[Run]) -> list[Run]:
        """Runs whose last buffer, where the camera lapped it, ends where the buffer ended that it was to be.

        The firmware takes the number of sectors before the card listens, and the header after.
        """
        last, cut = runs[-1], self.walker.cut
        sector = last.sector_of(last.count - 1)
        header = self.headers.at(sector)
        if header is None or cut is None or not self.ring or header.written < 0:
            return runs
        laps = header.count - header.written - header.dropped
        end = sector + cut.sectors[(header.index - laps) % len(cut)]
        return runs if laps <= 0 or laps % self.ring or end >= last.end_sector else ended_at(runs, end, header)

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
            if own is None or own.length == last.length_of(i):
                return None
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
        scanning = bool(self.card.settings.get("ewl_scan_mode", 0))
        later = runs[0].sector > self.layout.sectors.data + _HOLE * self.config["buffer_size"] // SECTOR
        return SeamSearch(self.headers, scanning, self.facts.ticks(runs), later, runs)

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
        verdict = self._search(runs).first_seam(runs, self.exhaustive)
        counted = self.facts.low_counts(runs)
        if verdict.end is None:
            return runs, [] if counted is not None and counted(runs) else verdict.doubt, False
        number, i = verdict.end
        kept = cut_at(runs, number, i)
        if not i and kept and kept[-1].odd:  # it seemed to take more sectors than it has, up to the old buffer
            cut = kept[-1].cut
            kept[-1] = replace(kept[-1], cut=replace(cut, taken=min(cut.taken, cut.sectors_for(cut.lengths[0]))))
        if counted is not None and counted(runs) and not (kept and counted(kept)):
            return runs, [], False  # the low bytes of the counts confirm the end found by the counters alone
        old = runs[number].sector_of(i)
        said = f"an older recording lies behind this one, from sector {old} on, and is not returned"
        return kept, verdict.doubt or [said], True

    def _uncounted(self, at: tuple[int, Header]) -> tuple[list[Run], list[str], bool]:
        """Runs of a recording whose count the card does not hold; doubts; whether an older one was cut off."""
        runs, doubts, cut = self._without_older(self.walker.runs(*at, None))
        if self.card.build is not None and self.card.build.driver_timeout:
            runs = [part for run in runs for part in self._without_lost(run)]
        counted = self.facts.low_counts(runs) if runs else None
        if counted is None or counted(runs) or self.whole:  # a DAQ's clean stop left the low bytes of its counts
            return runs, doubts, cut
        word = self.config["height"]
        said = (
            f"the counts this card holds the low bytes of ({word & 255} buffers written, {word >> 8 & 255} dropped, "
            f"each modulo 256) are not those of the {runs[-1].end_place} buffers found: something is missing"
        )
        return runs, [*doubts, said], cut

    def _without_lost(self, run: Run) -> list[Run]:
        """A run without the frames none of whose buffers reached the card: the driver gave up on a busy card."""
        size = len(run.cut)
        if run.odd or run.count > _EVERY * size:
            return [run]
        i = np.arange(run.count)
        there = np.flatnonzero(self.card.framing.vouched(self.walker.rows(run.sectors_of(i)), run, i))
        frames = (there + run.first.index) // size
        parts = np.split(there, np.flatnonzero(np.diff(frames) > 1) + 1)
        if len(parts) == 1:
            return [run]
        stops = [*(int(part[0]) for part in parts[1:]), run.count]
        return [self._part(run, int(part[0]), int(part[-1]) + 1, stop) for part, stop in zip(parts, stops, strict=True)]

    def _part(self, run: Run, start: int, stop: int, following: int) -> Run:
        """Buffers from ``start`` to the end of the frame that ``stop`` is in; to the end of the run from the last."""
        header = self.headers.at(run.sector_of(start))
        size = len(run.cut)
        whole = -(-(stop + run.first.index) // size) * size - run.first.index
        count = (run.count if following == run.count else min(whole, following)) - start
        return Run(run.sector_of(start), count, header or run.first, run.cut)

    # -- describing them ------------------------------------------------------------------------------

    def _torn(self, runs: list[Run]) -> tuple[int | None, list[str]]:
        """Bytes of the last buffer that reached the card, where its tail is not of this recording."""
        run = runs[-1]
        i = run.count - 1
        sector, n = run.sector_of(i), run.sector_count(i)
        data = self.source.read(sector * SECTOR, n * SECTOR)
        if len(data) < n * SECTOR:
            return None, []
        blank = _blank_sectors(data)
        if blank and i >= len(run.cut):
            before = self.source.read(run.sector_of(i - len(run.cut)) * SECTOR, n * SECTOR)
            blank = 0 if _blank_sectors(before) >= blank else blank
        old = not blank and self._search(runs).link(run, i) is False
        if not blank and not old:
            return None, []
        frame = run.frame_of(i)
        if blank >= n:
            return 0, [f"the last buffer (frame {frame}) never reached the card"]
        kept = max((n - max(blank, 1)) * SECTOR - self.card.framing.head, 0)
        how = f"only {n - blank} of its {n} sectors" if blank else "not all of its sectors"
        return min(kept, run.length_of(i)), [
            f"the power went while the last buffer of frame {frame} was written: {how} reached the card, "
            "what follows in it is older card content"
        ]  # fmt: skip

    def recordings(self) -> list[Recording]:
        """All recordings of the card, in order."""
        start = self._start()
        limit = self.config["n_buffers_recorded"]
        if limit and not self.stale:
            chains, counted = self._counted(start, limit)
            last = len(chains) - 1 if counted is None else counted
            told = [self._describe(k, runs, k == last, counted is not None, []) for k, runs in enumerate(chains)]
            if last == len(chains) - 1 or self.whole:
                return told
            behind = (
                f"another recording follows in sector {chains[last + 1][0].sector} whose counts were never written: a "
                "later one that was interrupted, or one of an older session. It is not returned; recording= with "
                "until= (its last frame number) returns it"
            )
            return [*told[:last], replace(told[last], warnings=(*told[last].warnings, behind))]
        described: list[Recording] = []
        at: tuple[int, Header] | None = start
        while at is not None and len(described) < self.most:
            runs, doubts, cut = self._uncounted(at)
            if not runs:
                break
            at = None if cut else self._next_recording(runs)
            described.append(self._describe(len(described), self._up_to(runs, at), True, False, doubts))
        return described

    def _lost_at_end(self, last: Run, limit: int) -> bool:
        """Whether the writes up to the count all failed, on a card never written there: the count is this one's."""
        step, missing = self.card.framing.step, limit - last.end_place
        if not step or not 0 < missing <= _HOLE * self.card.framing.ring:
            return False
        size = step * SECTOR
        behind = self.source.read(last.end_sector * SECTOR, missing * size)
        return len(behind) == missing * size and all(
            len(set(behind[at : at + SECTOR])) == 1 for at in range(0, len(behind), size)
        )

    def _describe(self, number: int, runs: list[Run], last: bool, reached: bool, doubts: list[str]) -> Recording:
        runs = self._overtaken(runs)
        width, height, notes = self.facts.frame_size(runs)
        warnings = [*self.card.notes, *notes, *doubts]
        limit = self.config["n_buffers_recorded"] if last else 0
        found = runs[-1].end_place
        if self.stale:  # counts that may be another recording's: of this one only where they fit it
            reached = limit == found or self._lost_at_end(runs[-1], limit)
            limit = limit if reached else 0
        torn = None
        if (limit and reached) or self.facts.finished(runs):
            status = "finished"
        elif limit:
            status = "truncated" if self.facts.cut_off(runs) else "finished"
            if status == "finished":
                warnings.append(
                    f"the config sector counts {limit} buffers, but only the first {found} are there: "
                    f"nothing that follows sector {runs[-1].end_sector - 1} belongs to this recording"
                )
        elif (not last or self.stale) and self.facts.ran_its_time(runs):
            status = "finished"
        else:
            status = "interrupted"
            if not self.facts.cut_off(runs):
                torn, said = self._torn(runs)
                warnings += said
        return Recording(
            number, tuple(runs), width, height, status,
            n_recorded=limit, n_dropped=self.config.get("n_buffers_dropped", 0) if last else 0,
            ticks=self.facts.ticks(runs), torn=torn, clock=clock_of(runs, self.headers), warnings=tuple(warnings),
        )  # fmt: skip


def _blank_sectors(data: bytes) -> int:
    """Sectors at the end of ``data`` that hold nothing but zeros or nothing but 0xFF."""
    for value in (0, 0xFF):
        kept = len(data.rstrip(bytes([value])))
        blank = (len(data) - -(-kept // SECTOR) * SECTOR) // SECTOR
        if blank:
            return blank
    return 0


def build_index(
    source: ByteSource,
    layout: str | os.PathLike[str] | Mapping[str, Any] | Layout | None = None,
    index: str = "bisect",
    errors: str = "raise",
    whole: bool = False,
    old_buffers: bool = True,
) -> Card:
    """Find the recordings of a card.

    Parameters
    ----------
    source : ByteSource
    layout
        As for :func:`miniscope_xr.index.detect.detect`.
    index : {"bisect", "scan"}
        Find the runs with few reads, or read every header; both find the same.
    errors : {"raise", "fill"}
        What to do at unreadable sectors.
    whole : bool
        Do not cut off what looks like an older recording (the caller gives the end with ``until=``).
    old_buffers : bool
        Let the list that ``prepare --keep`` saved on this computer, if there is one, say what is older.
    """
    if index not in ("bisect", "scan"):
        raise OptionError(f"index={index!r}: expected 'bisect' or 'scan'")
    if errors not in ("raise", "fill"):
        raise OptionError(f"errors={errors!r}: expected 'raise' or 'fill'")
    if errors == "fill":
        source = Tolerant(source)
    card = detect(source, layout)
    exhaustive = index == "scan"
    if card.config is not None:
        buffers = _Buffers(source, card, card.config, exhaustive, whole, old_buffers)
        found, holes = buffers.recordings(), buffers.walker.holes
    elif card.build is not None:
        found, holes = index_footers(source, card, card.build, exhaustive, whole, old_buffers)
    else:
        raise NotACardError(
            f"layout {card.layout.id!r} says neither where the frame size stands nor what builds there are"
        )
    return replace(card, recordings=with_overwritten(source, found, holes, card.start is not None))
