"""Frames put together buffer by buffer: where headers do not vouch for all of a frame, or the card was slow there."""

from __future__ import annotations

import errno
from typing import Any, NamedTuple

import numpy as np

from miniscope_xr.errors import CardChangedError
from miniscope_xr.frames.axis import FrameAxis, Piece
from miniscope_xr.frames.buffers import Buffer, BufferReader
from miniscope_xr.frames.cache import HeaderTable
from miniscope_xr.frames.stencil import Stencil, tiles
from miniscope_xr.index.runs import Run
from miniscope_xr.layout.arrays import Array, Bools, Ints
from miniscope_xr.source.base import ByteSource


class Assembled(NamedTuple):
    """One frame put together buffer by buffer.

    ``present`` has bit b set where buffer b is on the card, ``there`` is True where a pixel is; ``headers`` are
    those of its buffers in card order, ``places`` their places in the frame.
    """

    present: int
    complete: bool
    there: Bools
    headers: Array
    places: Ints


class FrameAssembler:
    """Puts frames of a recording, by row of the frame axis, together from their buffers.

    Parameters
    ----------
    buffers : BufferReader
        Of the recording.
    fill : bool
        Insert blank frames for missing frame numbers.
    until : int or None
        Last frame number to return.
    """

    def __init__(self, buffers: BufferReader, fill: bool = False, until: int | None = None) -> None:
        self.buffers = buffers
        self.recording = buffers.recording
        self.framing = buffers.framing
        self.dtype = buffers.framing.dtype
        self.frame_bytes = self.recording.width * self.recording.height
        self.payload = buffers.framing.payload or self.frame_bytes
        self.axis = FrameAxis(self.recording.runs, fill, until)
        self.count = len(self.axis)
        self._stencils: dict[int, Stencil | None] = {}
        most = max((len(run.cut) for run in self.recording.runs), default=1)
        self._header_words = most * self.dtype.itemsize // 4  # of a frame
        fields = self.dtype.fields or {"timestamp": (self.dtype, 0)}
        self._time_at = fields["timestamp"][1] // 4  # word of a header
        self._focus_at = fields["ewl"][1] // 4 if "ewl" in fields else None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_stencils": {}}

    def frame_num(self, rows: Ints) -> Ints:
        """Frame numbers of some rows, by arithmetic."""
        return self.axis.frame_num(rows)

    def pieces(self, row: int) -> list[Piece]:
        """Return the buffers of one row, in card order."""
        return self.axis.pieces(row)

    def _stencil(self, number: int) -> Stencil | None:
        """How to read whole frames of a run at once; None where they are put together buffer by buffer."""
        if number < 0:
            return None
        if number not in self._stencils:
            run = self.recording.runs[number]
            fits = tiles(run, self.payload, self.frame_bytes)
            self._stencils[number] = self.buffers.stencil(run) if fits else None
        return self._stencils[number]

    def _with_torn(self, run: Run, frame: int, doubtful: list[int], count: int) -> list[int]:
        """Rows to put together buffer by buffer: the doubtful ones, and the last of a recording the power cut off."""
        if self.recording.torn is None or run is not self.recording.runs[-1]:
            return doubtful
        last = run.last_frame - frame
        return sorted({*doubtful, last}) if 0 <= last < count else doubtful

    def _assemble(self, source: ByteSource, row: int, out: Array) -> Assembled:
        """Put one frame together buffer by buffer; pixels that are not on the card are 0.

        Raises
        ------
        CardChangedError
            Some of it is missing from an image that was written to since it was opened.
        """
        out[:] = 0
        present = 0
        covered = np.zeros(self._slots, bool)
        there = np.zeros(self.frame_bytes, bool)
        headers: list[Array] = []
        indexes = []
        # Of two copies of one buffer the earlier one was read from the ring sooner after its capture, so it
        # goes on top; the later one may hold what the camera wrote over the slot since.
        for piece in reversed(self.pieces(row)):
            run = self.recording.runs[piece.run]
            for i, buffer in reversed(self._copies(source, run, piece)):
                index = run.index_of(i)
                headers.append(buffer.header)
                indexes.append(index)
                start = index * self.payload
                size = self._put(out, start, buffer.data)
                there[start : start + min(size, buffer.landed)] = buffer.readable
                if not buffer.readable:
                    continue  # its other pixels are kept, the buffer counts as missing
                present |= 1 << index
                if index < self._slots:
                    covered[index] |= buffer.whole and len(buffer.data) == min(self.payload, self.frame_bytes - start)
        complete = bool(covered.all()) and not present >> self._slots
        if not complete and not self.buffers.tolerant and self.pieces(row) and source.changed:
            raise CardChangedError(
                errno.ESTALE,
                f"frame {self.frame_num(np.array([row]))[0]} is not whole, and the image was written to since it was "
                "opened; open it again",
                source.path,
            )
        return Assembled(present, complete, there, self._joined(headers[::-1]), np.array(indexes[::-1], np.int64))

    def _copies(self, source: ByteSource, run: Run, piece: Piece) -> list[tuple[int, Buffer]]:
        """The buffers of a piece in card order, and before them those that were let through one ring too early.

        One of those may be all there is of a buffer whose own place the run does not reach. One that is of another time
        than the buffer in that place is an older recording's.
        """
        own = self._buffers(source, run, range(piece.start, piece.stop))
        if run.odd:
            return own
        i = piece.start - run.index_of(piece.start) + np.arange(len(run.cut))
        found = i[self.buffers.earlier(source, run, i)].tolist()
        early = [(k, buffer) for k in found if (buffer := self.buffers.earlier_copy(source, run, k)) is not None]
        times = {k: buffer.header["timestamp"][0] for k, buffer in own}
        return [*((k, b) for k, b in early if times.get(k, b.header["timestamp"][0]) == b.header["timestamp"][0]), *own]

    def _buffers(self, source: ByteSource, run: Run, places: range) -> list[tuple[int, Buffer]]:
        """The buffers of a run in some places, as far as they are on the card and of this recording."""
        found = [(i, buffer) for i in places if (buffer := self.buffers.buffer(source, run, i)) is not None]
        if not found:
            return []
        i, rows = np.array([i for i, _ in found]), self._joined([buffer.header for _, buffer in found])
        ours = self.buffers.ours(source, run, i, rows)
        return [each for each, own in zip(found, ours, strict=True) if own]

    def _joined(self, headers: list[Array]) -> Array:
        """Some headers as one array; as bytes, since numpy compares every field of each before it joins them."""
        return (
            headers[0] if len(headers) == 1 else np.frombuffer(b"".join(row.tobytes() for row in headers), self.dtype)
        )

    def _put(self, out: Array, start: int, data: bytes) -> int:
        """Put the data of a buffer in its place; what is too long for the frame is left out."""
        size = max(min(len(data), self.frame_bytes - start), 0)
        out[start : start + size] = np.frombuffer(data, np.uint8, size)
        return size

    @property
    def _slots(self) -> int:
        """Buffers a whole frame has."""
        return -(-self.frame_bytes // self.payload)

    def header_table(self, count: int) -> HeaderTable:
        """Return room for the headers of ``count`` frames, for :meth:`pixels` to fill."""
        return HeaderTable.room(count, self._header_words)

    def header_rows(self, source: ByteSource, run: Run, i: Ints) -> tuple[Array, Bools]:
        """Headers of buffers ``i`` of a run as they are on the card, and which of them vouch for their buffer."""
        rows = self.buffers.headers(source, run, i)
        return rows, self.buffers.ours(source, run, i, rows)
