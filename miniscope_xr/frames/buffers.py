"""Buffers of a recording: their headers, whether those vouch for them, and their data around what went wrong."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from miniscope_xr.errors import CardReadError
from miniscope_xr.frames.axis import Int
from miniscope_xr.frames.stencil import FooterStencil, Stencil
from miniscope_xr.index.headers import read_rows
from miniscope_xr.index.recording import Recording
from miniscope_xr.index.runs import Run, expected_headers, vouched
from miniscope_xr.source.base import ByteSource, Tolerant, is_gone

Rows = np.ndarray[Any, Any]
Bools = np.ndarray[Any, np.dtype[np.bool_]]


class Buffer(NamedTuple):
    """One buffer whose header vouches for it.

    Attributes
    ----------
    header : structured array of one
    data : bytes
    landed : int
        Bytes of ``data`` from its start that reached the card as far as the headers tell (fewer than all behind a
        power loss).
    readable : bool
        No sector of it is unreadable; the bytes of those that are, are zeros.
    whole : bool
        All the data its header promises is there, and readable.
    """

    header: Rows
    data: bytes
    landed: int
    readable: bool
    whole: bool


class BufferReader:
    """Buffers of a recording by run and place in it.

    Parameters
    ----------
    recording : Recording
    words : int
        Length of the buffer headers (words).
    payload : int
        Data bytes of a full buffer.
    dtype : numpy dtype
        Of one buffer header.
    sector_size : int
    salvage : bool
        Leave out unreadable sectors instead of raising.
    ring : int
        Buffers in the firmware's ring; 0 if unknown (laps that fall on the grid are not looked for then).
    """

    _stencil: type[Stencil] = Stencil

    def __init__(
        self, recording: Recording, words: int, payload: int, dtype: np.dtype[Any], sector_size: int, salvage: bool,
        ring: int,
    ) -> None:  # fmt: skip
        self.recording = recording
        self.words = words
        self.payload = payload
        self.dtype = dtype
        self.sector_size = sector_size
        self.salvage = salvage
        self.ring = ring
        self.head = 4 * words

    # -- headers --------------------------------------------------------------------------------------

    def stencil(self, run: Run) -> Stencil:
        """How whole frames of a run are read at once."""
        return self._stencil(run, self.dtype, self.words, self.sector_size)

    def headers(self, source: ByteSource, run: Run, i: Int) -> Rows:
        """Headers of buffers ``i`` of a run as they are on the card."""
        return self._rows(source, run.sectors_of(i) * self.sector_size)

    def _rows(self, source: ByteSource, offsets: Int) -> Rows:
        return read_rows(Tolerant(source) if self.salvage else source, self.dtype, offsets)

    def vouched(self, rows: Rows, run: Run, i: Int) -> Bools:
        """Which of these headers vouch for buffers ``i`` of a run."""
        return vouched(rows, expected_headers(run, i), self.words, self.payload)

    def odd_lengths(self, table: Rows, run: Run) -> Bools:
        """Which frames (rows of ``table``) have a buffer of another length than usual."""
        odd: Bools = (table["data_length"] != np.array(run.cut.lengths)).any(axis=1)
        return odd

    def ends(self, run: Run, i: Int) -> Int:
        """Byte on the card behind the data of buffers ``i`` (frames of buffers) of a run."""
        ends: Int = run.sectors_of(i) * self.sector_size + self.head + np.array(run.cut.lengths)
        return ends

    # -- data -----------------------------------------------------------------------------------------

    def buffer(self, source: ByteSource, run: Run, i: int) -> Buffer | None:
        """Read one buffer, or None where its header does not vouch for it."""
        offset = run.sector_of(i) * self.sector_size
        room = run.sector_count(i) * self.sector_size
        readable = True
        try:
            data = source.read(offset, room)
        except CardReadError as error:
            if not self.salvage:
                text = f"frame {run.frame_of(i)}: {error.strerror}"
                raise CardReadError(error.errno, text, error.filename) from error
            data, bad = source.salvage(offset, room)
            if bad and is_gone(source):
                raise
            readable = not bad
        header = self._header_in(data, run, i)
        if header is None:
            return None
        length = self._length_in(header, run, i)
        data = data[self.head : self.head + length]
        if length and not data:
            return None  # the image ends right behind the header
        landed = min(len(data), self.reached(run, i, length))
        return Buffer(header, data, landed, readable, readable and landed == length)

    def earlier_copy(self, source: ByteSource, run: Run, i: int) -> bytes | None:
        """Data of buffer ``i`` that a slow card let through one ring too early, in the place of another."""
        place = i - self.ring
        if not self.ring or place < 0:
            return None
        room = run.sector_count(place) * self.sector_size
        try:
            data = source.read(run.sector_of(place) * self.sector_size, room)
        except CardReadError:
            return None
        if len(data) < self.head:
            return None
        header = np.frombuffer(data, self.dtype, 1)
        expected = expected_headers(run, np.array([i]))
        expected["write_buffer_count"] = expected["write_buffer_count"] - self.ring
        if not vouched(header, expected, self.words, self.payload)[0]:
            return None
        return data[self.head : self.head + self._length_in(header, run, i)]

    def reached(self, run: Run, i: int, length: int) -> int:
        """Return the bytes of a buffer that reached the card before the power was lost: all but of the very last."""
        torn = self.recording.torn
        last = torn is not None and run is self.recording.runs[-1] and i >= run.count - 1
        return min(torn, length) if last and torn is not None else length

    def _length_in(self, header: Rows, run: Run, i: int) -> int:
        """Return the data bytes of a buffer as its own header says."""
        return int(header["data_length"][0])

    def _header_in(self, data: bytes, run: Run, i: int) -> Rows | None:
        """The header at the start of a buffer's bytes, where it vouches for them."""
        if len(data) < self.head:
            return None
        header = np.frombuffer(data, self.dtype, 1)
        return header if self.vouched(header, run, np.array([i]))[0] else None


class FooterBufferReader(BufferReader):
    """Buffers of a v3 recording: one a frame, vouched for by the footer over its last 16 bytes."""

    _stencil = FooterStencil

    def headers(self, source: ByteSource, run: Run, i: Int) -> Rows:
        """Footers of frames ``i`` of a run as they are on the card."""
        return self._rows(source, self.ends(run, i) - self.dtype.itemsize)

    def vouched(self, rows: Rows, run: Run, i: Int) -> Bools:
        """Which of these footers carry the number of their frame."""
        good: Bools = rows["frame_num"] == run.first.frame + i
        return good

    def odd_lengths(self, table: Rows, run: Run) -> Bools:
        """None: a footer does not say the length of its frame."""
        return np.zeros(len(table), bool)

    def _length_in(self, header: Rows, run: Run, i: int) -> int:
        return run.length_of(i)

    def _header_in(self, data: bytes, run: Run, i: int) -> Rows | None:
        end = run.length_of(i)
        if len(data) < end:
            return None
        footer = np.frombuffer(data, self.dtype, 1, end - self.dtype.itemsize)
        return footer if int(footer["frame_num"][0]) == run.frame_of(i) else None
