"""Which recordings a card holds, the runs of buffers each is made of, and how much of a torn last buffer there is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

from miniscope_xr.errors import NotACardError, OptionError
from miniscope_xr.index.chains import NOT_HERE, Chains
from miniscope_xr.index.clock import clock_of
from miniscope_xr.index.detect import detect, shown_otherwise
from miniscope_xr.index.front import Card
from miniscope_xr.index.overwritten import blank_sectors, made_since, with_overwritten
from miniscope_xr.index.recording import Recording
from miniscope_xr.index.runs import Header, Run, overtaken
from miniscope_xr.index.v3 import index_footers
from miniscope_xr.layout import SECTOR, Layout
from miniscope_xr.source.base import ByteSource
from miniscope_xr.source.salvage import Tolerant

_FEW = 2  # buffers: of fewer the first header may say what it is not
_BEHIND = 2  # buffers behind the last one that is certain, where it is not certain that it is the last
Found = tuple[list[Recording], list[tuple[int, int]], bool]


class _BufferChains(Chains):
    """Builds the recordings of a card whose frames are split into buffers."""

    def _torn(self, runs: list[Run]) -> tuple[int | None, list[str]]:
        """Bytes of the last buffer that reached the card, where its tail is not of this recording."""
        run = runs[-1]
        i = run.count - 1
        sector, n = run.sector_of(i), run.sector_count(i)
        data = self.source.read(sector * SECTOR, n * SECTOR)
        if len(data) < n * SECTOR:
            return None, []
        blank = blank_sectors(data)
        if blank and i >= len(run.cut):
            before = self.source.read(run.sector_of(i - len(run.cut)) * SECTOR, n * SECTOR)
            blank = 0 if blank_sectors(before) >= blank else blank
        old = not blank and (self._search(runs).link(run, i) is False or self._older_tail(run, i))
        if not blank and not old:
            return None, []
        frame = run.frame_of(i)
        if blank >= n:
            return 0, [f"the last buffer (frame {frame}) never reached the card"]
        kept = max((n - max(blank, 1)) * SECTOR - self.card.framing.head, 0)
        gives_up = bool(self.card.framing.build.driver_timeout[0])
        why = "the power went, or the driver gave up," if gives_up else "the power went"
        said = f"{why} while the last buffer of frame {frame} was written"
        if blank:
            said += f", or some was erased since, as by formatting: only {n - blank} of its {n} sectors are there"
        else:
            said += ": not all of its sectors reached the card, what follows in it is older card content"
        return min(kept, run.length_of(i)), [said]

    def _ahead_of_its_place(self, runs: list[Run], more: bool) -> list[str]:
        """What to say of frames behind the last one that have a buffer on the card: in the place of one a ring before.

        The camera overtook a slow card there, and the recording ended before that buffer's own place was written. Only
        looked at where the last buffer waited for the card as long as half a ring takes, or ``more`` lies behind it.
        """
        lapped, ring = len(runs) > 1 and runs[-1].odd, self.ring
        run = runs[-2] if lapped else runs[-1]
        end = self.headers.at(run.sector_of(run.count - 1))
        if not ring or run.odd or end is None or self.card.framing.build.pool:
            return []
        waited = (end.write_time - end.time) * max(run.count - 1, 1)
        slow = end.write_time >= 0 and waited >= (end.time - run.first.time) * ring / 2
        if not slow and not more and not lapped and run.matches(run.count - 1, end):
            return []
        near = range(max(run.count - ring, 0), run.count + (_BEHIND if more and not lapped else 0))
        known = ((i, self.headers.at(run.sector_of(i))) for i in near)
        ahead = {
            h.frame for i, h in known if h is not None and h.frame > run.last_frame
            and h.written == run.first.written + i and h.ahead > 0 == h.ahead % ring
        }  # fmt: skip
        return [
            f"of frame {frame} one buffer is on the card, in the place of another that is missing (the card was too "
            "slow); it is not returned"
            for frame in sorted(ahead)
        ]

    def _older_tail(self, run: Run, i: int) -> bool:
        """Whether what an older recording's buffer leaves a ring behind the last buffer is the last one's own tail."""
        behind = i + self.card.framing.repeats
        longer = replace(run, count=behind + 1)
        return (
            behind > i
            and longer.matches(behind, self.headers.at(longer.sector_of(behind)))
            and bool(self._search([longer]).link(longer, behind))
        )

    def recordings(self) -> list[Recording]:
        """All recordings of the card, in order."""
        start = self._start()
        limit = self.config["n_buffers_recorded"]
        if limit and not self.stale:
            chains, counted, doubtful = self._counted(start, limit)
            last = len(chains) - 1 if counted is None else counted
            told = []
            for k, runs in enumerate(chains):
                doubts = [*self._hole_behind(chains, k), *(doubtful if k == last else [])]
                told.append(self._describe(k, runs, k == last, counted is not None, doubts))
            if counted == NOT_HERE:
                gone = (
                    f"the config sector counts {limit} buffers, which no recording here ends at: the one it is of "
                    "lacks its end, or is gone"
                )
                return [*told[:-1], replace(told[-1], warnings=(*told[-1].warnings, gone))]
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

    def _hole_behind(self, chains: list[list[Run]], k: int) -> list[str]:
        """What is to be said of a recording whose end, and the beginning of the next one, were overwritten."""
        if k + 1 >= len(chains) or not chains[k + 1][0].first.written:
            return []
        here, following = chains[k][-1], chains[k + 1][0]
        return [
            f"sectors {here.end_sector} to {following.sector - 1} hold other data: what followed frame "
            f"{here.last_frame} of this recording there, and the first {following.first.written} buffers of the next "
            "one, are gone"
        ]

    def _lost_at_end(self, last: Run, limit: int) -> bool:
        """Whether the writes up to the count all failed, on a card never written there: the count is this one's."""
        step, missing = self.card.framing.step, limit - last.end_place
        if not step or not 0 < missing <= self.card.framing.build.failed_writes * self.card.framing.ring:
            return False
        size = step * SECTOR
        behind = self.source.read(last.end_sector * SECTOR, missing * size)
        return len(behind) == missing * size and all(
            len(set(behind[at : at + SECTOR])) == 1 for at in range(0, len(behind), size)
        )

    def _doubtful_count(self, last: Run, limit: int) -> list[str]:
        """What to say of a count that is more than was found, where none of the older buffers there ends at it.

        It is this recording's, whose last writes all failed, or that of one older than what lies there. Where nothing
        lies at the count, no older recording's buffers end there either.
        """
        step, found = self.card.framing.step, last.end_place
        if not step or not 0 < limit - found <= self.card.framing.build.failed_writes:
            return []
        if last.end_sector + (limit - found) * step > self.end_sector:
            return []  # the card, or this image of it, ends before the count
        frame = len(last.cut)
        places = [limit - frame - 1, limit - frame, limit - 1, limit]
        known = [self.headers.at(last.end_sector + (place - found) * step) for place in places]
        c, d, a, b = (h if h and h.written == place else None for h, place in zip(known, places, strict=True))
        if a is not None and b is None:
            return []  # what lies there ends at the count
        within = places[0] >= found  # else the clock steps there because this recording ends there
        if (
            within
            and a
            and b
            and c
            and d
            and abs((b.time - a.time) - (d.time - c.time)) > 2
            and b.count - a.count == d.count - c.count == 1
        ):
            return []  # the clock steps there: what lies there ends at the count, and it is its
        return [
            f"whether this recording ended with frame {last.last_frame} is in doubt: the config sector counts {limit} "
            f"buffers, of it (then the last {limit - found} never reached the card) or of an earlier one"
        ]

    def _older_at_count(self, runs: list[Run]) -> list[str]:
        """What to say where a count may be another recording's, and leftovers of the buffer it ends at are not ours."""
        run = runs[-1]
        if run.odd or self.whole or self._search(runs).link(run, run.count - 1) is not False:
            return []
        a, last = run.frame_of(max(run.count - self.ring, 0)), run.last_frame
        without = f"; until={a - 1} leaves them out" if a else ""
        return [
            f"whether this recording ended with frame {last} is in doubt: the buffer at which the count of the config "
            f"sector ends is not of it; frames {a} to {last} may be of the recording before it{without}"
        ]

    def of_another_ring(self, run: Run) -> bool:
        """Whether buffers that are read to see how frames are cut stand in slots of another ring than the build's."""
        size = len(run.cut)
        near = (self.headers.at(run.sector_of(i)) for i in range(size - 1, size + 3))
        slots = ((h.slot, h.count % self.ring) for h in near if h is not None and h.slot >= 0)
        shown = list(islice(slots, 2)) if self.ring else []
        return len(shown) > 1 and all(slot != due for slot, due in shown)

    def _describe(self, number: int, runs: list[Run], last: bool, reached: bool, doubts: list[str]) -> Recording:
        runs = overtaken(runs, self.headers.at, self.ring)
        width, height, notes = self.facts.frame_size(runs)
        warnings = [*self.card.notes, *notes, *doubts]
        limit = self.config["n_buffers_recorded"] if last else 0
        found = runs[-1].end_place
        if self.stale:  # counts that may be another recording's: of this one only where they fit it
            reached = limit == found or self._lost_at_end(runs[-1], limit)
            if reached:
                warnings += self._older_at_count(runs)
            elif not self.facts.ran_its_time(runs):
                warnings += self._doubtful_count(runs[-1], limit)
            limit = limit if reached else 0
        warnings += self._ahead_of_its_place(runs, bool(doubts))
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
        elif self.facts.low_counts(runs) and self.facts.cut_off(runs):
            status = "truncated"  # it was stopped, further on
        else:
            status = "interrupted"
            if not self.facts.cut_off(runs) and (last or not doubts):
                torn, said = self._torn(runs)
                warnings += said
        return Recording(
            number, tuple(runs), width, height, status,
            n_recorded=limit, n_dropped=self.config.get("n_buffers_dropped", 0) if last else 0,
            ticks=self.facts.ticks(runs), torn=torn, clock=clock_of(runs, self.headers), focus=self.facts.focus(runs),
            warnings=tuple(warnings),
        )  # fmt: skip


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
    options = index == "scan", whole, old_buffers
    failed: NotACardError | None = None
    found: Found = [], [], False
    try:
        found = _found(source, card, *options)
    except NotACardError as error:
        failed = error
    if card.words and (found[2] or sum(recording.n_buffers for recording in found[0]) < _FEW):
        other = shown_otherwise(source, layout, card)
        if other is not None:
            card, failed, found = other, None, _found(source, other, *options)
    if failed is not None:
        raise failed
    front_gone = card.start is not None
    systems = made_since(source, found[0], card.layout.sectors.config, front_gone)
    recordings = with_overwritten(source, *found[:2], systems, front_gone, card.own, card.framing.build.failed_writes)
    return replace(card, recordings=recordings, file_systems=tuple(systems))


def _found(source: ByteSource, card: Card, exhaustive: bool, whole: bool, old_buffers: bool) -> Found:
    """The recordings of a card, stretches of sectors that hold none of their buffers, whether the build is wrong."""
    if card.config is not None:
        buffers = _BufferChains(source, card, card.config, exhaustive, whole, old_buffers)
        found = buffers.recordings()
        return found, buffers.walker.holes, bool(found) and buffers.of_another_ring(found[0].runs[0])
    if card.build is not None:
        return *index_footers(source, card, card.build, exhaustive, whole, old_buffers), False
    raise NotACardError(f"layout {card.layout.id!r} says neither where the frame size stands nor what builds there are")
