"""Which recordings a card holds, and the runs of buffers each is made of."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from miniscope_xr.detect import CardSectors, detect
from miniscope_xr.errors import NotACardError, OptionError
from miniscope_xr.footers import index_footers
from miniscope_xr.headers import HeaderReader
from miniscope_xr.kept_list import Starts, first_listed
from miniscope_xr.layout import Layout
from miniscope_xr.recording import Recording
from miniscope_xr.runs import Header, Pattern, Run, cut_at, ended_at
from miniscope_xr.seam import Evidence
from miniscope_xr.source import ByteSource, Tolerant
from miniscope_xr.walker import Walker

_HOLE = 16  # buffers at the start of a recording that may be missing
_SPARE = 1 << 22  # bytes a short recording's frames may take more than the card


@dataclass(frozen=True)
class CardIndex:
    """Everything known about a card after opening it."""

    card: CardSectors
    recordings: tuple[Recording, ...]

    @property
    def layout(self) -> Layout:
        """The card's layout."""
        return self.card.layout


class _Buffers:
    """Builds the recordings of a card whose frames are split into buffers."""

    def __init__(
        self,
        source: ByteSource,
        card: CardSectors,
        exhaustive: bool,
        whole: bool,
    ) -> None:
        assert card.config is not None
        self.source = source
        self.card = card
        self.config = card.config
        self.exhaustive = exhaustive
        self.whole = whole
        self.layout = card.layout
        self.size = card.layout.sectors.size
        self.end_sector = -(-source.size // self.size)
        self.headers = HeaderReader(source, card.layout, card.words, card.payload)
        self.ring = card.build.ring if card.build else 0
        pattern = self._expected_pattern()
        self.walker = Walker(self.headers, pattern, self.end_sector, self.ring, exhaustive)
        # The remote cannot be pressed twice within one frame, so a card has room for so many recordings.
        room = max(self.end_sector - card.layout.sectors.data, 0)
        self.most = 1 + room // max(pattern.frame_sectors if pattern else 1, card.config["buffer_size"] // self.size)

    def _expected_pattern(self) -> Pattern | None:
        """How a frame of the size in the config sector is cut; None where that size cannot be."""
        frame_bytes = self.config["width"] * self.config["height"]
        full, rest = divmod(frame_bytes, self.card.payload)
        if not 0 < frame_bytes <= 1 << 26 or full > 60:
            return None
        lengths = (self.card.payload,) * full + ((rest,) if rest else ())
        return Pattern(lengths, 4 * self.card.words, self.size)

    # -- finding the runs ---------------------------------------------------------------------------

    def _start(self) -> tuple[int, Header]:
        """The first buffer: at the data sector, or behind a hole that a failed write left there."""
        sector = self.layout.sectors.data
        header = self.headers.at(sector)
        if header is not None and self._starts(header):
            return sector, header
        hit = self.headers.find(
            sector + 1,
            sector + 1 + _HOLE * self.config["buffer_size"] // self.size,
            range(1, _HOLE + 1),
            lambda h: h.count == h.written + h.dropped,
        )
        if hit is None:
            raise NotACardError(
                f"sector {sector} (byte {sector * self.size}) holds no first buffer of a {self.layout.id} recording; "
                "check layout="
            )
        return hit

    def _starts(self, header: Header) -> bool:
        """Whether a header is a recording's first; it holds a later buffer where the card stalled at once."""
        lapped = bool(self.ring) and header.count % self.ring == 0
        return header.written == header.dropped == 0 and (header.count == 0 or lapped)

    def _next_recording(self, runs: list[Run], exactly: bool = False) -> tuple[int, Header] | None:
        """The start of a recording in the sector behind the last buffer of ``runs``.

        Unless ``exactly`` there, it may be where the last buffer took fewer or more sectors than its header says.
        """
        last = runs[-1]
        header = self.headers.at(last.end_sector)
        if header is not None and self._starts(header):
            return last.end_sector, header
        if exactly:
            return None
        sector = last.sector_of(last.count - 1)
        return self.headers.find(
            sector + 1, sector + 1 + self.config["buffer_size"] // self.size, range(1), self._starts
        )

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
            reach = self.config["buffer_size"] // self.size  # a lost interrupt makes a buffer longer or shorter
            if self.headers.find(sector + 1, sector + 1 + reach, range(limit, limit + 1)) is None:
                return None
        longer = self.walker.runs(*start, None)
        for run in longer:
            place = limit - run.first.written
            if 0 < place < run.count and self._evidence(longer).continues(run, place) is False:
                return None
        kept = self._without_older(longer)[0]
        return kept if kept and kept[-1].end_place > limit else None

    def _evidence(self, runs: list[Run]) -> Evidence:
        build = self.card.build
        scanning = bool(self.card.settings.get("ewl_scan_mode", 0))
        later = runs[0].sector > self.layout.sectors.data + _HOLE * self.config["buffer_size"] // self.size
        return Evidence(self.headers, self.ring, build.drop_step if build else 0, scanning, self._ticks(runs), later)

    def _without_older(self, runs: list[Run]) -> tuple[list[Run], list[str], bool]:
        """Runs without an older recording behind them; doubts; whether one was cut off."""
        if self.whole:
            return runs, [], False
        starts = Starts(runs)
        listed = first_listed(self.source, self.layout, starts)
        if listed is not None:  # prepared with --keep: what was there before is known sector by sector
            if listed == len(starts):
                return runs, [], False
            number, i = starts.locate(listed)
            said = f"an older recording, listed when the card was prepared, lies behind buffer {listed}"
            return cut_at(runs, number, i), [said], True
        verdict = self._evidence(runs).first_seam(runs, self.exhaustive)
        counted = self._low_counts(runs)
        if verdict.end is None:
            return runs, [] if counted is not None and counted(runs) else verdict.doubt, False
        number, i = verdict.end
        kept = cut_at(runs, number, i)
        if not i and kept and kept[-1].single:  # it seemed to take more sectors than it has, up to the old buffer
            own = kept[-1].pattern.sectors_for(kept[-1].single[1])
            kept[-1] = replace(kept[-1], single=(min(kept[-1].single[0], own), kept[-1].single[1]))
        if counted is not None and counted(runs) and not (kept and counted(kept)):
            return runs, [], False  # the low bytes of the counts confirm the end found by the counters alone
        old = runs[number].sector_of(i)
        said = f"an older recording lies behind this one, from sector {old} on, and is not returned"
        return kept, verdict.doubt or [said], True

    def _uncounted(self, at: tuple[int, Header]) -> tuple[list[Run], list[str], bool]:
        """Runs of a recording whose count the card does not hold; doubts; whether an older one was cut off."""
        runs, doubts, cut = self._without_older(self.walker.runs(*at, None))
        counted = self._low_counts(runs) if runs else None
        if counted is None or counted(runs) or self.whole:
            return runs, doubts, cut
        # A DAQ's clean stop left the low bytes of its counts: perhaps the rest lies behind writes that failed.
        self.walker.over_holes = True
        further = self.walker.runs(*at, None)
        self.walker.over_holes = False
        if counted(further):
            return further, [], False
        word = self.config["height"]
        said = (
            f"the counts this card holds the low bytes of ({word & 255} buffers written, {word >> 8 & 255} dropped, "
            f"each modulo 256) are not those of the {runs[-1].end_place} buffers found: something is missing"
        )
        return runs, [*doubts, said], cut

    def _low_counts(self, runs: list[Run]) -> Callable[[list[Run]], bool] | None:
        """A test whether runs end at the counts whose low bytes a DAQ leaves in the height word at a clean stop."""
        if not self.layout.height_overwritten or self.config["height"] == self._frame_size(runs)[1]:
            return None
        word = self.config["height"]
        return lambda ended: word == (ended[-1].end_place & 255) | (ended[-1].first.dropped & 255) << 8

    # -- describing them ------------------------------------------------------------------------------

    def _ticks(self, runs: list[Run]) -> float:
        """Timestamp units per ms: 10 where a frame takes about ten times 1000 / fs (early DAQ builds), else 1."""
        fs = self.config.get("fs", 0)
        run = max(runs, key=lambda r: r.count)
        if not self.layout.height_overwritten or not fs or run.single or run.count <= len(run.pattern):
            return 1.0
        first = self.headers.at(run.sector)
        second = self.headers.at(run.sector_of(len(run.pattern)))
        if first is None or second is None:
            return 1.0
        return 10.0 if second.time - first.time > 4 * 1000 / fs else 1.0

    def _frame_size(self, runs: list[Run]) -> tuple[int, int, list[str]]:
        """Width, height and what had to be said about them."""
        width, height = self.config["width"], self.config["height"]
        # behind a remote stop the DAQ writes one stale buffer a frame: the fullest frames are the camera's
        whole = (r for r in runs if not r.single and r.count >= len(r.pattern))
        main = max(whole, key=lambda r: (sum(r.pattern.lengths), r.count), default=None)
        total = sum(main.pattern.lengths) if main else 0
        if total == width * height:
            return width, height, []
        if self.layout.height_overwritten and total and total % width == 0:
            recovered = total // width
            return width, recovered, [
                f"the config sector says height {height}, which the firmware overwrote when the recording ended; "
                f"height {recovered} was recovered from the frames themselves ({total} bytes at width {width})"
            ]  # fmt: skip
        known = [(b.width, b.height) for b in self.layout.builds_for(self.card.words, self.config["buffer_size"])]
        if (width, height) in known or (not total and self._has_room(runs, width, height)):
            return width, height, []
        like = [size for size in known if size[0] == width] or known
        fallback = like[0] if like else self.layout.frame or (width, height)
        sure = main is not None and main.count >= 2 * len(main.pattern)
        wide, high = next((size for size in known if size[0] * size[1] == total), fallback)
        if sure and wide * high != total and total % width == 0:
            wide, high = width, total // width
        elif sure and wide * high != total and height and total % height == 0:
            wide, high = total // height, height
        said = f"the config sector's frame size {width}x{height} does not fit the frames; {wide}x{high} is assumed"
        return wide, high, [said]

    def _has_room(self, runs: list[Run], width: int, height: int) -> bool:
        """Whether a frame size no whole frame proves can be: not much more than what the buffers there are hold."""
        slots = -(-width * height // self.card.payload)
        indexes = max(r.first.index if r.single else len(r.pattern) - 1 for r in runs)
        frames = sum(r.last_frame - r.first.frame + 1 for r in runs)
        fits = not self.layout.height_overwritten or indexes < slots
        return fits and height >= 8 and frames * width * height <= 8 * (self.source.size + _SPARE)

    def _finished_daq(self, runs: list[Run]) -> bool:
        """Whether the height word says that the recording ended here."""
        counted = self._low_counts(runs)
        return counted is not None and counted(runs)

    def _torn(self, runs: list[Run]) -> tuple[int | None, list[str]]:
        """Bytes of the last buffer that reached the card, where its tail is not of this recording."""
        run = runs[-1]
        i = run.count - 1
        sector, n = run.sector_of(i), run.sector_count(i)
        data = self.source.read(sector * self.size, n * self.size)
        if len(data) < n * self.size:
            return None, []
        blank = _blank_sectors(data, self.size)
        if blank and i >= len(run.pattern):
            before = self.source.read(run.sector_of(i - len(run.pattern)) * self.size, n * self.size)
            blank = 0 if _blank_sectors(before, self.size) >= blank else blank
        old = not blank and self._evidence(runs).link(run, i) is False
        if not blank and not old:
            return None, []
        frame = run.frame_of(i)
        if blank >= n:
            return 0, [f"the last buffer (frame {frame}) never reached the card"]
        kept = max((n - max(blank, 1)) * self.size - 4 * self.card.words, 0)
        how = f"only {n - blank} of its {n} sectors" if blank else "not all of its sectors"
        return min(kept, run.length_of(i)), [
            f"the power went while the last buffer of frame {frame} was written: {how} reached the card, "
            "what follows in it is older card content"
        ]  # fmt: skip

    def _cut_off(self, runs: list[Run]) -> bool:
        """Whether the image ends before there is room for the header of another buffer."""
        return runs[-1].end_sector * self.size + 4 * self.card.words > self.source.size

    def recordings(self) -> list[Recording]:
        """All recordings of the card, in order."""
        start = self._start()
        limit = self.config["n_buffers_recorded"]
        if limit:
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

    def _describe(self, number: int, runs: list[Run], last: bool, reached: bool, doubts: list[str]) -> Recording:
        width, height, notes = self._frame_size(runs)
        warnings = [*self.card.notes, *notes, *doubts]
        limit = self.config["n_buffers_recorded"] if last else 0
        found = runs[-1].end_place
        torn = None
        if (limit and reached) or self._finished_daq(runs):
            status = "finished"
        elif limit:
            status = "truncated" if self._cut_off(runs) else "finished"
            if status == "finished":
                warnings.append(
                    f"the config sector counts {limit} buffers, but only the first {found} are there: "
                    f"nothing that follows sector {runs[-1].end_sector - 1} belongs to this recording"
                )
        elif not last and self._ran_its_time(runs):
            status = "finished"
        else:
            status = "interrupted"
            if not self._cut_off(runs):
                torn, said = self._torn(runs)
                warnings += said
        return Recording(
            number, tuple(runs), width, height, status,
            n_recorded=limit, n_dropped=self.config.get("n_buffers_dropped", 0) if last else 0,
            ticks=self._ticks(runs), torn=torn, warnings=tuple(warnings),
        )  # fmt: skip

    def _ran_its_time(self, runs: list[Run]) -> bool:
        """Whether an earlier one of several recordings (whose counts were overwritten) ended by its record length."""
        first, last = runs[0], runs[-1]
        end = self.headers.at(last.sector_of(last.count - 1)) or last.first
        seconds = (end.time - first.first.time) / self._ticks(runs) / 1000
        return 0 < self.card.settings.get("record_length", 0) <= seconds + 0.2


def _blank_sectors(data: bytes, size: int) -> int:
    """Sectors at the end of ``data`` that hold nothing but zeros or nothing but 0xFF."""
    for value in (0, 0xFF):
        kept = len(data.rstrip(bytes([value])))
        blank = (len(data) - -(-kept // size) * size) // size
        if blank:
            return blank
    return 0


def build_index(
    source: ByteSource,
    layout: str | os.PathLike[str] | Mapping[str, Any] | Layout | None = None,
    index: str = "bisect",
    errors: str = "raise",
    whole: bool = False,
) -> CardIndex:
    """Find the recordings of a card.

    Parameters
    ----------
    source : ByteSource
    layout
        As for :func:`miniscope_xr.detect.detect`.
    index : {"bisect", "scan"}
        Find the runs with few reads, or read every header; both find the same.
    errors : {"raise", "fill"}
        What to do at unreadable sectors.
    whole : bool
        Do not cut off what looks like an older recording (the caller gives the end with ``until=``).
    """
    if index not in ("bisect", "scan"):
        raise OptionError(f"index={index!r}: expected 'bisect' or 'scan'")
    if errors not in ("raise", "fill"):
        raise OptionError(f"errors={errors!r}: expected 'raise' or 'fill'")
    if errors == "fill":
        source = Tolerant(source)
    card = detect(source, layout)
    exhaustive = index == "scan"
    if card.layout.footer:
        return CardIndex(card, tuple(index_footers(source, card, exhaustive, whole)))
    return CardIndex(card, tuple(_Buffers(source, card, exhaustive, whole).recordings()))
