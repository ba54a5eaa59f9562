"""Buffers of a recording: their headers, whether those vouch for them, and their data around what went wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from miniscope_xr.errors import CardReadError
from miniscope_xr.frames.stencil import FooterStencil, Stencil
from miniscope_xr.index.excursions import Behind
from miniscope_xr.index.framing import Framing
from miniscope_xr.index.headers import read_rows
from miniscope_xr.index.leftovers import same_bytes
from miniscope_xr.index.recording import Recording
from miniscope_xr.index.run_clock import Look, RunClock
from miniscope_xr.index.runs import Run, expected_headers
from miniscope_xr.layout import SECTOR
from miniscope_xr.layout.arrays import Array, Bools, Floats, Ints, Words
from miniscope_xr.source.base import ByteSource
from miniscope_xr.source.salvage import Tolerant, is_gone

_CHANCE = 4  # bytes in a row that are blank in a picture too


class Buffer(NamedTuple):
    """One buffer whose header vouches for it."""

    header: Array
    data: bytes
    landed: int
    """Bytes of ``data`` from its start that reached the card as far as the headers tell (fewer than all behind a power
    loss)."""
    readable: bool
    """No sector of it is unreadable; the bytes of those that are, are zeros."""
    whole: bool
    """All the data its header promises is there, and readable."""


class BufferReader:
    """Buffers of a recording by run and place in it.

    Parameters
    ----------
    recording : Recording
    framing : Framing
    tolerant : bool
        Leave out unreadable sectors instead of raising.
    """

    def __init__(self, recording: Recording, framing: Framing, tolerant: bool) -> None:
        self.recording = recording
        self.framing = framing
        self.tolerant = tolerant
        self._clocks: dict[int, RunClock] = {}

    # -- headers --------------------------------------------------------------------------------------

    def stencil(self, run: Run) -> Stencil:
        """How whole frames of a run are read at once."""
        return (Stencil if self.framing.words else FooterStencil)(run, self.framing)

    def headers(self, source: ByteSource, run: Run, i: Ints) -> Array:
        """Headers of buffers ``i`` of a run as they are on the card."""
        return self.rows(source, self.framing.places(run, i))

    def rows(self, source: ByteSource, places: Ints) -> Array:
        """Headers at some bytes of the card."""
        return read_rows(Tolerant(source) if self.tolerant else source, self.framing.dtype, places)

    def table(self, source: ByteSource, run: Run, i: Ints) -> tuple[Array, Bools]:
        """Headers of whole frames ``i`` (frames, buffers), and which frames are to be read buffer by buffer anyway.

        Those are the ones with a buffer behind which no header begins: a hole may begin in it.
        """
        if not self.framing.words:
            return self.headers(source, run, i.reshape(-1)).reshape(i.shape), np.zeros(len(i), bool)
        rows, every, (length,) = self.with_behind(source, run, i, run.count, "length")
        gone: Bools = length != self.framing.marker
        gone[every >= run.count] = False
        torn: Bools = np.logical_or.reduce(~gone[:, :-1] & gone[:, 1:], axis=1)
        return rows, torn

    def with_behind(
        self, source: ByteSource, run: Run, i: Ints, end: int, *fields: str
    ) -> tuple[Array, Ints, list[Words]]:
        """Headers of whole frames ``i`` (frames, buffers), and some fields with those of the buffer behind each frame.

        Between them stands which buffers these are (frames, buffers + 1). Of frames in a row each header is read once;
        zeros stand for what would be buffer ``end`` or later.
        """
        every = np.concatenate([i, i[:, -1:] + 1], axis=1)
        follows = np.append(i[1:, 0] == every[:-1, -1], False)
        ask = ~follows & (every[:, -1] < end)
        read = self.headers(source, run, np.concatenate([i.reshape(-1), every[ask, -1]]))
        rows = read[: i.size].reshape(i.shape)  # as they were read: a copy of them all takes as long as checking them
        values = []
        for name in fields:
            value = np.zeros(every.shape, read[name].dtype)
            value[:, :-1] = rows[name]
            value[ask, -1] = read[name][i.size :]
            value[:-1, -1][follows[:-1]] = value[1:, 0][follows[:-1]]
            values.append(value)
        return rows, every, values

    def ours(self, source: ByteSource, run: Run, i: Ints, rows: Array) -> Bools:
        """Which buffers ``i`` of a run are there and are this recording's, by these headers.

        Where a write failed, an older buffer stands in the place, and its counters may fit. Then its time is off the
        clock, or its focus is another one. Other headers are read only where the times in hand are not as expected.
        """
        good = self.framing.vouched(rows, run, i)
        if self.recording.focus is not None:
            good &= ~self.other_focus(rows["ewl"])
        if not self.framing.words:
            return good  # a footer has the time at which its frame was written
        odd, clock = self.framing.odd_length(rows, run, i), self._clock(run)
        away = (
            [k for k in np.flatnonzero(good & odd).tolist() if self._leads_away(source, run, int(i[k]), rows[k])]
            if odd.any()
            else []
        )
        if not clock.mute:
            times = np.where(good & ~odd, rows["timestamp"].astype(np.float64), np.nan)
            good &= ~clock.old(self._look(source, run), i, times)
        good[away] = False
        return good

    def other_focus(self, values: Ints) -> Bools:
        """Which values of the focus are not the recording's, nor that with one bit flipped."""
        if self.recording.focus is None:
            return np.zeros(values.shape, bool)
        bits = values ^ np.asarray(self.recording.focus, values.dtype)
        other: Bools = (bits & (bits - 1)) != 0
        return other

    def _leads_away(self, source: ByteSource, run: Run, i: int, header: Array) -> bool:
        """Whether the next buffer stands right behind one of odd length, where the run has none: both are old."""
        sectors = self.framing.sectors_for(int(header["data_length"]))
        if i + 1 >= run.count or sectors == run.sector_count(i):
            return False
        behind = self.rows(source, np.array([(run.sector_of(i) + sectors) * SECTOR]))[0]
        return bool(
            behind["length"] == self.framing.marker
            and behind["buffer_count"] == header["buffer_count"] + 1
            and behind["write_buffer_count"] == header["write_buffer_count"] + 1
            and behind["timestamp"] >= header["timestamp"]
        )

    def strange(self, run: Run, frames: Ints, times: Floats) -> Bools:
        """Which whole frames of a run, with these times of their buffers, do not seem to keep the clock.

        As :meth:`~miniscope_xr.index.run_clock.RunClock.strange`.
        """
        return self._clock(run).strange(frames, times)

    def on_time(self, run: Run, frame: int, times: Sequence[int]) -> bool:
        """Whether one whole frame of a run, with these times of its buffers, keeps the clock as expected."""
        return self._clock(run).on_time(frame, times)

    def _look(self, source: ByteSource, run: Run) -> Look:
        """What reads the times of buffers of a run, where its clock has to look at more than is in hand."""
        return lambda i: self.framing.stamps(self.headers(source, run, i), run, i)

    def _clock(self, run: Run) -> RunClock:
        if run.sector not in self._clocks:
            recording = self.recording
            end = Behind.ENDS if run is recording.runs[-1] else Behind.GOES_ON
            self._clocks[run.sector] = RunClock(run, recording.clock, recording.ticks, end, self.framing.build)
        return self._clocks[run.sector]

    def overwritten(self, run: Run, i: Ints) -> Bools:
        """Which buffers ``i`` of a run lie, in part, under what was written over the card later (a file system)."""
        if not self.recording.overwritten:
            return np.zeros(i.shape, bool)
        starts, stops = np.array(self.recording.overwritten, np.int64).T
        first = run.sectors_of(i)
        length = run.cut.arrays[0][(run.first.index - run.cut.first + i) % len(run.cut)]
        behind = first - -(self.framing.head + length) // SECTOR
        hit: Bools = np.searchsorted(stops, first, side="right") < np.searchsorted(starts, behind, side="left")
        return hit

    def _without_overwritten(self, data: bytes, run: Run, i: int) -> bytes:
        """The bytes of a buffer with zeros where something else was written over them."""
        kept, base = bytearray(data), run.sector_of(i)
        for first, stop in self.recording.overwritten:
            a, b = (min(max(sector - base, 0) * SECTOR, len(data)) for sector in (first, stop))
            kept[a:b] = bytes(b - a)
        return bytes(kept)

    # -- data -----------------------------------------------------------------------------------------

    def buffer(self, source: ByteSource, run: Run, i: int) -> Buffer | None:
        """Read one buffer, or None where its header does not vouch for it."""
        offset = run.sector_of(i) * SECTOR
        room = run.sector_count(i) * SECTOR
        readable = True
        try:
            data = source.read(offset, room)
        except CardReadError as error:
            if not self.tolerant:
                text = f"frame {run.frame_of(i)}: {error.strerror}"
                raise CardReadError(error.errno, text, error.filename) from error
            data, bad = source.salvage(offset, room)
            if bad and is_gone(source):
                raise
            readable = not bad
        if self.overwritten(run, np.array([i]))[0]:
            data, readable = self._without_overwritten(data, run, i), False
        framing, length = self.framing, run.length_of(i)
        header = framing.header_in(data, length)
        if header is None or not framing.vouched(header, run, np.array([i]))[0]:
            return None
        length = framing.length_in(header, length)
        data = data[framing.head : framing.head + length]
        if length and not data:
            return None  # the image ends right behind the header
        landed = min(len(data), self.reached(run, i, length))
        if readable and landed == length:
            readable = not (self._ends_in_a_hole(source, run, i, data) or self._ends_in_others(source, run, i))
        return Buffer(header, data, landed, readable, readable and landed == length)

    def _ends_in_a_hole(self, source: ByteSource, run: Run, i: int, data: bytes) -> bool:
        """Whether a hole begins within a buffer: its header and first sectors are there, the rest was erased.

        Blank bytes begin at a sector (what was erased is sectors, what is dark in a picture is not), and go on over the
        header behind, which is looked at only then.
        """
        blank = data[-1:]
        if blank not in (b"\x00", b"\xff") or i + 1 >= run.count:
            return False
        kept, head = len(data.rstrip(blank)), self.framing.head
        hole = -(-(kept + head) // SECTOR) * SECTOR - head
        if not 0 <= hole - kept <= _CHANCE < len(data) - hole:
            return False
        behind = bytearray(SECTOR)
        try:
            source.readv(run.sector_of(i + 1) * SECTOR, [memoryview(behind)])
        except CardReadError:
            return False
        return behind == blank * SECTOR

    def _ends_in_others(self, source: ByteSource, run: Run, i: int) -> bool:
        """Whether the end of a short buffer is another's: what stands behind its data repeats no buffer of the ring.

        Looked at only where no header follows. That leftovers repeat at all, the frame before has to show.
        """
        if not self.framing.repeats or run.odd or i + 1 >= run.count:
            return False
        if int(self.headers(source, run, np.array([i + 1]))["length"][0]) == self.framing.marker:
            return False
        return self._repeats(source, run, i) is False and self._repeats(source, run, i - len(run.cut)) is True

    def _repeats(self, source: ByteSource, run: Run, i: int) -> bool | None:
        """Whether the bytes behind a buffer's data are those of the one in its ring slot before it; None: not told."""
        ring, head = self.framing.repeats, self.framing.head
        if i < ring:
            return None
        start, stop = head + run.length_of(i), run.sector_count(i) * SECTOR
        before = next((k for k in range(i - ring, -1, -ring) if head + run.length_of(k) >= stop), None)
        if before is None or start >= stop:
            return None
        there = np.array([before])
        if not self.framing.vouched(self.headers(source, run, there), run, there)[0]:
            return None
        mine, theirs = (source.read(run.sector_of(k) * SECTOR + start, stop - start) for k in (i, before))
        return same_bytes(mine, theirs, start) if len(mine) == len(theirs) == stop - start else None

    def earlier(self, source: ByteSource, run: Run, i: Ints) -> Bools:
        """Which buffers ``i`` of a run stand one ring too early: they lapped the one that waited for the card."""
        ring = self.framing.ring
        found = np.zeros(len(i), bool)
        known = np.flatnonzero((i >= ring) & (i < run.count + ring)) if ring else np.zeros(0, np.int64)
        if len(known):
            places = i[known] - ring
            found[known] = self.framing.vouch(self.headers(source, run, places), self._expected_earlier(run, i[known]))
        return found

    def _expected_earlier(self, run: Run, i: Ints) -> dict[str, Ints]:
        expected = expected_headers(run, i)
        expected["write_buffer_count"] = expected["write_buffer_count"] - self.framing.ring
        return expected

    def earlier_copy(self, source: ByteSource, run: Run, i: int) -> Buffer | None:
        """Buffer ``i`` as it stands one ring too early (:meth:`earlier`); None where it does not."""
        framing, place = self.framing, i - self.framing.ring
        if not framing.ring or not 0 <= place < run.count:
            return None
        try:
            data = source.read(run.sector_of(place) * SECTOR, run.sector_count(place) * SECTOR)
        except CardReadError:
            return None
        header = framing.header_in(data, run.length_of(i))
        if header is None or not framing.vouch(header, self._expected_earlier(run, np.array([i])))[0]:
            return None
        length = framing.length_in(header, run.length_of(i))
        data = data[framing.head : framing.head + length]
        return Buffer(header, data, len(data), readable=True, whole=len(data) == length)

    def reached(self, run: Run, i: int, length: int) -> int:
        """Return the bytes of a buffer that reached the card before the power was lost: all but of the very last."""
        torn = self.recording.torn
        last = torn is not None and run is self.recording.runs[-1] and i >= run.count - 1
        return min(torn, length) if last and torn is not None else length
