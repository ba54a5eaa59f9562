"""Frames of one recording: which buffers make frame k, and their bytes in place.

A frame row is found by arithmetic. While pixels are read the headers between them are read too and
checked; a buffer whose header does not vouch for it is left out (its pixels stay 0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from miniscope_xr.axis import FrameAxis, Int, Piece
from miniscope_xr.device import ByteSource, Tolerant, is_gone
from miniscope_xr.errors import CardReadError
from miniscope_xr.headers import read_rows
from miniscope_xr.recording import Recording
from miniscope_xr.runs import Run, expected_headers, vouched
from miniscope_xr.scatter import FooterStencil, Stencil, aligned_empty, tiles

__all__ = ["FooterFrameReader", "FrameReader", "FrameRows", "Int", "Piece", "aligned_empty"]


@dataclass(frozen=True)
class FrameRows:
    """What the headers on the card say about some frames; one entry a frame.

    ``first`` and ``last`` are the headers (structured) of the frame's first and last buffer on the card,
    zeros where it has none; ``present`` has bit b set where buffer b is on the card.
    """

    frame_num: Int
    first: np.ndarray[Any, Any]
    last: np.ndarray[Any, Any]
    present: np.ndarray[Any, np.dtype[np.uint32]]
    complete: np.ndarray[Any, np.dtype[np.bool_]]


class FrameReader:
    """Frames of a recording by row of the frame axis.

    Parameters
    ----------
    recording : Recording
    words : int
        Length of the buffer headers (words).
    payload : int
        Data bytes of a full buffer: buffer b of a frame begins at byte ``b * payload`` of it.
    dtype : numpy dtype
        Of one buffer header.
    sector_size : int
    fill : bool
        Insert blank frames for missing frame numbers.
    until : int or None
        Last frame number to return.
    salvage : bool
        Leave out unreadable sectors instead of raising.
    ring : int
        Buffers in the firmware's ring; 0 if unknown (laps that fall on the grid are not looked for then).
    """

    _stencil_class: type[Stencil] = Stencil

    def __init__(
        self,
        recording: Recording,
        words: int,
        payload: int,
        dtype: np.dtype[Any],
        sector_size: int = 512,
        fill: bool = False,
        until: int | None = None,
        salvage: bool = False,
        ring: int = 0,
    ) -> None:
        self.recording = recording
        self.ring = ring
        self.words = words
        self.dtype = dtype
        self.salvage = salvage
        self.frame_bytes = recording.width * recording.height
        self.payload = payload or self.frame_bytes
        self._head = 4 * words
        self._size = sector_size
        self.axis = FrameAxis(recording.runs, fill, until)
        self.count = len(self.axis)
        self._stencils: dict[int, Stencil | None] = {}

    # -- the frame axis -------------------------------------------------------------------------------

    def frame_num(self, rows: Int) -> Int:
        """Frame numbers of some rows, by arithmetic."""
        return self.axis.frame_num(rows)

    def row_of(self, frame_num: int) -> int | None:
        """Row of a frame number, or None where it never reached the card."""
        return self.axis.row_of(frame_num)

    def gaps(self) -> list[tuple[int, int]]:
        """(row behind the gap, frame numbers missing before it) wherever numbers never reached the card."""
        return self.axis.gaps()

    def partial_rows(self) -> list[int]:
        """Rows that lack buffers by arithmetic (holes inside a run are not seen here)."""
        return self.axis.partial_rows(self._slots)

    def pieces(self, row: int) -> list[Piece]:
        """Return the buffers of one row, in card order."""
        return self.axis.pieces(row)

    def position(self, row: int) -> int:
        """Byte on the card where a row begins (its first buffer's header; for a blank frame, that of the next)."""
        for later in range(row, self.count):
            pieces = self.pieces(later)
            if pieces:
                first = pieces[0]
                return self.recording.runs[first.run].sector_of(first.start) * self._size
        return self.recording.end_sector * self._size

    # -- pixels ---------------------------------------------------------------------------------------

    def pixels(self, source: ByteSource, rows: Int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Pixels of some rows: uint8 (len(rows), height, width); bytes not on the card are 0."""
        out = aligned_empty((len(rows), self.frame_bytes))
        for at, count, number, frame in self.axis.spans(rows):
            stencil = self._stencil(number)
            doubtful = (
                range(count)
                if stencil is None
                else stencil.read(source, frame - stencil.run.first.frame, out[at : at + count])
            )
            if stencil is not None:
                doubtful = self._with_lapped(source, stencil.run, frame, list(doubtful), count)
            for k in doubtful:
                self._slow(source, int(rows[at + k]), out[at + k])
        return out.reshape(len(rows), self.recording.height, self.recording.width)

    def _with_lapped(self, source: ByteSource, run: Run, frame: int, doubtful: list[int], count: int) -> list[int]:
        """Rows of a stretch to read buffer by buffer: the doubtful ones, and those with an earlier copy of a buffer.

        Where headers have no write time (DAQ), an odd header says that a lap may have put a copy of a later buffer
        there: in the frame before the stretch, or in a doubtful one.
        """
        if not self.ring or "write_timestamp" in (self.dtype.names or ()):
            return doubtful
        reach = -(-self.ring // len(run.pattern))
        rows = {k + later for k in doubtful for later in range(reach + 1)}
        first = (frame - run.first.frame) * len(run.pattern) - run.first.index
        before = np.arange(max(first - self.ring, 0), first)
        if len(before) and not self.header_rows(source, run, before)[1].all():
            rows.update(range(reach))
        return sorted(k for k in rows if k < count)

    def _earlier_copy(self, source: ByteSource, run: Run, i: int) -> bytes | None:
        """Data of buffer ``i`` that a slow card let through one ring too early, in the place of another."""
        place = i - self.ring
        if not self.ring or place < 0:
            return None
        room = run.sector_count(place) * self._size
        try:
            data = source.read(run.sector_of(place) * self._size, room)
        except CardReadError:
            return None
        if len(data) < self._head:
            return None
        header = np.frombuffer(data, self.dtype, 1)
        expected = expected_headers(run, np.array([i]))
        expected["write_buffer_count"] = expected["write_buffer_count"] - self.ring
        if not vouched(header, expected, self.words, self.payload)[0]:
            return None
        return data[self._head : self._head + self._length_in(data, run, i)]

    def _stencil(self, number: int) -> Stencil | None:
        """How to read whole frames of a run at once; None where they are put together buffer by buffer."""
        if number < 0:
            return None
        if number not in self._stencils:
            run = self.recording.runs[number]
            fits = tiles(run, self.payload, self.frame_bytes)
            self._stencils[number] = self._stencil_class(run, self.dtype, self.words, self._size) if fits else None
        return self._stencils[number]

    def _slow(self, source: ByteSource, row: int, out: np.ndarray[Any, Any]) -> tuple[int, bool]:
        """One frame buffer by buffer; returns its buffers as bits, and whether every byte of it is there."""
        out[:] = 0
        present = 0
        covered = np.zeros(self._slots, bool)
        # Of two copies of one buffer the earlier one was read from the ring sooner after its capture, so it
        # goes on top; the later one may hold what the camera wrote over the slot since.
        for piece in reversed(self.pieces(row)):
            run = self.recording.runs[piece.run]
            for i in reversed(range(piece.start, piece.stop)):
                index = run.index_of(i)
                data, whole = self._buffer(source, run, i, row)
                if data is None:
                    continue
                start = index * self.payload
                stop = min(start + len(data), self.frame_bytes)
                if stop > start:
                    out[start:stop] = np.frombuffer(data, np.uint8, stop - start)
                earlier = self._earlier_copy(source, run, i)
                if earlier is not None:
                    stop = min(start + len(earlier), self.frame_bytes)
                    out[start:stop] = np.frombuffer(earlier, np.uint8, max(stop - start, 0))
                if whole is None:
                    continue  # unreadable sectors: its other pixels are kept, the buffer counts as missing
                present |= 1 << index
                if index < self._slots:
                    covered[index] |= whole and len(data) >= min(self.payload, self.frame_bytes - start)
        return present, bool(covered.all()) and not present >> self._slots

    @property
    def _slots(self) -> int:
        """Buffers a whole frame has."""
        return -(-self.frame_bytes // self.payload)

    def _buffer(self, source: ByteSource, run: Run, i: int, row: int) -> tuple[bytes | None, bool | None]:
        """Read the data of one buffer, or None where its header does not vouch for it.

        The second value: whether all of it reached the card; None where sectors of it cannot be read.
        """
        offset = run.sector_of(i) * self._size
        room = run.sector_count(i) * self._size
        readable: bool | None = True
        try:
            data = source.read(offset, room)
        except CardReadError as error:
            if not self.salvage:
                number = int(self.frame_num(np.array([row]))[0])
                raise CardReadError(error.errno, f"frame {number}: {error.strerror}", error.filename) from error
            data, bad = source.salvage(offset, room)
            if bad and is_gone(source):
                raise
            readable = None if bad else True
        if not self._vouched_by(data, run, i):
            return None, True
        length = self._length_in(data, run, i)
        data = data[self._head : self._head + length]
        if length and not data:
            return None, True  # the image ends right behind the header
        return data, readable and len(data) == length and self._landed(run, i, length)

    def _length_in(self, data: bytes, run: Run, i: int) -> int:
        """Return the data bytes of a buffer as its own header says."""
        return int(np.frombuffer(data, self.dtype, 1)["data_length"][0])

    def _landed(self, run: Run, i: int, length: int) -> bool:
        """Whether the power lasted for all of a buffer."""
        torn = self.recording.torn
        last = torn is not None and run is self.recording.runs[-1] and i == run.count - 1
        return not last or torn is None or torn >= length

    def _vouched_by(self, data: bytes, run: Run, i: int) -> bool:
        """Whether the bytes of a buffer begin with its header."""
        if len(data) < self._head:
            return False
        header = np.frombuffer(data, self.dtype, 1)
        return bool(vouched(header, expected_headers(run, np.array([i])), self.words, self.payload)[0])

    # -- headers --------------------------------------------------------------------------------------

    def headers(self, source: ByteSource, row: int) -> tuple[np.ndarray[Any, Any], Int]:
        """Vouched headers of one row's buffers in card order (structured array), and their index in the frame."""
        found, index = [np.zeros(0, self.dtype)], [np.zeros(0, np.int64)]
        for piece in self.pieces(row):
            run = self.recording.runs[piece.run]
            i = np.arange(piece.start, piece.stop)
            rows, good = self.header_rows(source, run, i)
            found.append(rows[good])
            index.append(np.array([run.index_of(int(k)) for k in i[good]], np.int64))
        return np.concatenate(found), np.concatenate(index)

    def header_rows(
        self, source: ByteSource, run: Run, i: Int
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, np.dtype[np.bool_]]]:
        """Headers of buffers ``i`` of a run as they are on the card, and which of them vouch for their buffer."""
        offsets = run.sectors_of(i) * self._size
        rows = read_rows(Tolerant(source) if self.salvage else source, self.dtype, offsets)
        return rows, vouched(rows, expected_headers(run, i), self.words, self.payload)

    def first_timestamp(self, source: ByteSource, row: int) -> int | None:
        """Timestamp of one row's first buffer on the card, from one header where that can be; None for no buffer."""
        pieces = self.pieces(row)
        if not pieces:
            return None
        if len(pieces) == 1:
            headers, good = self.header_rows(source, self.recording.runs[pieces[0].run], np.array([pieces[0].start]))
            if good[0]:
                return int(headers["timestamp"][0])
        found = self.describe(source, np.array([row]))
        return int(found.first["timestamp"][0]) if found.present[0] else None

    def describe(self, source: ByteSource, rows: Int) -> FrameRows:
        """Headers, buffers and completeness of some rows, from the headers on the card."""
        n = len(rows)
        result = FrameRows(
            self.frame_num(rows), np.zeros(n, self.dtype), np.zeros(n, self.dtype),
            np.zeros(n, np.uint32), np.zeros(n, bool),
        )  # fmt: skip
        for at, count, number, frame in self.axis.spans(rows):
            span = slice(at, at + count)
            if number < 0 or self.salvage:
                for k in range(at, at + count):
                    self._describe_slow(source, int(rows[k]), k, result)
            else:
                self._describe_fast(source, number, frame, span, rows, result)
        return result

    def _describe_fast(
        self, source: ByteSource, number: int, frame: int, span: slice, rows: Int, result: FrameRows
    ) -> None:
        run = self.recording.runs[number]
        size = len(run.pattern)
        count = span.stop - span.start
        i = self.axis.first_buffer(number, frame) + np.arange(count * size)
        flat, flat_good = self.header_rows(source, run, i)
        table, good = flat.reshape(count, size), flat_good.reshape(count, size)
        any_good = good.any(axis=1)
        each = np.arange(count)
        first, last = good.argmax(axis=1), size - 1 - good[:, ::-1].argmax(axis=1)
        result.first[span] = np.where(any_good, table[each, first], np.zeros((), self.dtype))
        result.last[span] = np.where(any_good, table[each, last], np.zeros((), self.dtype))
        bits = np.uint32(1) << np.minimum(np.arange(size), 31).astype(np.uint32)
        result.present[span] = (good[:, :32] * bits[:32]).sum(axis=1).astype(np.uint32)
        result.complete[span] = good.all(axis=1) & tiles(run, self.payload, self.frame_bytes)
        ends = run.sectors_of(i).reshape(count, size) * self._size + self._head + np.array(run.pattern.lengths)
        odd = self._odd_lengths(table, run) & good.all(axis=1)
        for k in np.flatnonzero(odd | (ends.max(axis=1) > source.size)):
            self._describe_slow(source, int(rows[span.start + k]), span.start + int(k), result)
        if self.recording.torn is not None and run is self.recording.runs[-1]:
            torn = run.last_frame - frame
            if 0 <= torn < count:
                result.complete[span.start + torn] &= self.recording.torn >= run.length_of(run.count - 1)

    def _odd_lengths(self, table: np.ndarray[Any, Any], run: Run) -> np.ndarray[Any, Any]:
        """Which frames have a buffer of another length than usual."""
        odd: np.ndarray[Any, Any] = (table["data_length"] != np.array(run.pattern.lengths)).any(axis=1)
        return odd

    def _describe_slow(self, source: ByteSource, row: int, k: int, result: FrameRows) -> None:
        headers, index = self.headers(source, row)
        if len(headers):
            # of two copies of one buffer the later one is the frame's: the earlier one lapped the ring
            order = np.lexsort((np.arange(len(index)), index))
            first = order[np.searchsorted(index[order], index.min(), side="right") - 1]
            result.first[k], result.last[k] = headers[first], headers[order[-1]]
        present, complete = self._slow(source, row, np.empty(self.frame_bytes, np.uint8))
        result.present[k] = present & 0xFFFFFFFF
        result.complete[k] = complete


class FooterFrameReader(FrameReader):
    """Frames of a v3 recording: one buffer a frame, vouched for by the footer over its last 16 bytes."""

    _stencil_class = FooterStencil

    def _length_in(self, data: bytes, run: Run, i: int) -> int:
        return run.length_of(i)

    def _odd_lengths(self, table: np.ndarray[Any, Any], run: Run) -> np.ndarray[Any, Any]:
        return np.zeros(len(table), bool)

    def _vouched_by(self, data: bytes, run: Run, i: int) -> bool:
        end = run.length_of(i)
        if len(data) < end:
            return False
        footer = np.frombuffer(data, self.dtype, 1, end - self.dtype.itemsize)
        return int(footer["frame_num"][0]) == run.frame_of(i)

    def header_rows(
        self, source: ByteSource, run: Run, i: Int
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, np.dtype[np.bool_]]]:
        """Footers of frames ``i`` and which of them carry the frame's number."""
        offsets = run.sectors_of(i) * self._size + run.pattern.lengths[0] - self.dtype.itemsize
        rows = read_rows(Tolerant(source) if self.salvage else source, self.dtype, offsets)
        return rows, rows["frame_num"] == run.first.frame + i
