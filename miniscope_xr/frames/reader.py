"""Frames of one recording: which buffers make frame k, and their bytes in place.

A frame row is found by arithmetic. While pixels are read the headers between them are read too and
checked; a buffer whose header does not vouch for it is left out (its pixels stay 0).
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from miniscope_xr.errors import CardChangedError
from miniscope_xr.frames.axis import PIECES, FrameAxis, Int, Piece
from miniscope_xr.frames.buffers import Buffer, BufferReader
from miniscope_xr.frames.cache import HeaderTable
from miniscope_xr.frames.stencil import Rows, Stencil, aligned_empty, tiles
from miniscope_xr.index.runs import Run
from miniscope_xr.layout import SECTOR
from miniscope_xr.source.base import ByteSource

__all__ = ["FrameReader", "FrameRows", "Int", "Piece", "aligned_empty"]


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


class Assembled(NamedTuple):
    """One frame put together buffer by buffer.

    ``present`` has bit b set where buffer b is on the card, ``there`` is True where a pixel is; ``headers`` are
    those of its buffers in card order, ``places`` their places in the frame.
    """

    present: int
    complete: bool
    there: np.ndarray[Any, np.dtype[np.bool_]]
    headers: np.ndarray[Any, Any]
    places: Int


class FrameReader:
    """Frames of a recording by row of the frame axis.

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

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_stencils": {}}

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
                return self.recording.runs[first.run].sector_of(first.start) * SECTOR
        return self.recording.end_sector * SECTOR

    # -- pixels ---------------------------------------------------------------------------------------

    def header_table(self, count: int) -> HeaderTable:
        """Return room for the headers of ``count`` frames, for :meth:`pixels` to fill."""
        return HeaderTable.room(count, self._header_words)

    def pixels(
        self, source: ByteSource, rows: Int, headers: HeaderTable | None = None
    ) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Pixels of some rows: uint8 (len(rows), height, width); bytes not on the card are 0.

        The headers between them go into ``headers``, where they are read at once.
        """
        out = aligned_empty((len(rows), self.frame_bytes))
        self._fill(source, rows, out, headers)
        return out.reshape(len(rows), self.recording.height, self.recording.width)

    def pixels_or_nan(
        self, source: ByteSource, rows: Int, headers: HeaderTable | None = None
    ) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Pixels of some rows: float32 (len(rows), height, width), NaN where they are not on the card."""
        out = aligned_empty((len(rows), self.frame_bytes))
        assembled = self._fill(source, rows, out, headers)
        values = out.astype(np.float32)
        for k, frame in assembled:
            values[k][~frame.there] = np.nan
        return values.reshape(len(rows), self.recording.height, self.recording.width)

    def images(self, source: ByteSource, rows: Int) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
        """Pixels of some rows, each an array of its own: keeping one does not keep the others."""
        out = [aligned_empty((self.frame_bytes,)) for _ in rows]
        self._fill(source, rows, out)
        return [image.reshape(self.recording.height, self.recording.width) for image in out]

    def _fill(
        self, source: ByteSource, rows: Int, out: Rows, headers: HeaderTable | None = None
    ) -> list[tuple[int, Assembled]]:
        """Read the pixels of some rows into as many rows of ``out``; return those put together buffer by buffer."""
        assembled = []
        for at, count, number, frame in self.axis.spans(rows):
            stencil = self._stencil(number)
            doubtful: Sequence[int] = range(count)
            if stencil is not None:
                span = slice(at, at + count)
                words = (headers or self.header_table(count)).words[span if headers else slice(None)]
                words = words[:, : stencil.header_words]
                doubtful = stencil.read(source, frame - stencil.run.first.frame, out[span], words)
                doubtful = self._with_old(stencil.run, frame, doubtful, words)
                doubtful = self._with_lapped(source, stencil.run, frame, doubtful, count)
                doubtful = self._with_torn(stencil.run, frame, doubtful, count)
                doubtful = self._with_overwritten(stencil.run, number, frame, doubtful, count)
                if headers is not None:
                    headers.known[span] = True
                    headers.known[span][doubtful] = False
            assembled += [(at + k, self._assemble(source, int(rows[at + k]), out[at + k])) for k in doubtful]
        return assembled

    def _with_old(
        self, run: Run, frame: int, doubtful: list[int], words: np.ndarray[Any, np.dtype[np.uint32]]
    ) -> list[int]:
        """Rows to put together buffer by buffer: the doubtful ones, and those that do not seem to keep the clock."""
        if not self.framing.words:
            return doubtful
        times = words[:, self._time_at :: self.framing.words].astype(np.float64)
        if doubtful:
            times[doubtful] = np.nan
        first = frame - run.first.frame
        strange = self.buffers.strange(run, np.arange(first, first + len(words)), times)
        return sorted({*doubtful, *np.flatnonzero(strange).tolist()}) if strange.any() else doubtful

    def _with_torn(self, run: Run, frame: int, doubtful: list[int], count: int) -> list[int]:
        """Rows to put together buffer by buffer: the doubtful ones, and the last of a recording the power cut off."""
        if self.recording.torn is None or run is not self.recording.runs[-1]:
            return doubtful
        last = run.last_frame - frame
        return sorted({*doubtful, last}) if 0 <= last < count else doubtful

    def _with_overwritten(self, run: Run, number: int, frame: int, doubtful: list[int], count: int) -> list[int]:
        """Rows to put together buffer by buffer: the doubtful ones, and those with somebody else's bytes in them."""
        if not self.recording.overwritten:
            return doubtful
        i = self.axis.first_buffer(number, frame) + np.arange(count * len(run.cut)).reshape(count, -1)
        hit = self.buffers.overwritten(run, i).any(axis=1)
        return sorted({*doubtful, *np.flatnonzero(hit).tolist()})

    def _with_lapped(self, source: ByteSource, run: Run, frame: int, doubtful: list[int], count: int) -> list[int]:
        """Rows of a stretch to read buffer by buffer: the doubtful ones, and those with an earlier copy of a buffer.

        Where headers have no write time (DAQ), an odd header says that a lap may have put a copy of a later buffer
        there: in the frame before the stretch, or in a doubtful one.
        """
        ring = self.framing.ring
        if not ring or "write_timestamp" in (self.dtype.names or ()):
            return doubtful
        reach = -(-ring // len(run.cut))
        rows = {k + later for k in doubtful for later in range(reach + 1)}
        first = (frame - run.first.frame) * len(run.cut) - run.first.index
        before = np.arange(max(first - ring, 0), first)
        if len(before) and not self.header_rows(source, run, before)[1].all():
            rows.update(range(reach))
        return sorted(k for k in rows if k < count)

    def _stencil(self, number: int) -> Stencil | None:
        """How to read whole frames of a run at once; None where they are put together buffer by buffer."""
        if number < 0:
            return None
        if number not in self._stencils:
            run = self.recording.runs[number]
            fits = tiles(run, self.payload, self.frame_bytes)
            self._stencils[number] = self.buffers.stencil(run) if fits else None
        return self._stencils[number]

    def _assemble(self, source: ByteSource, row: int, out: np.ndarray[Any, Any]) -> Assembled:
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
        headers, indexes = [np.zeros(0, self.dtype)], []
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
        if not complete and not self.buffers.salvage and self.pieces(row) and source.changed:
            raise CardChangedError(
                errno.ESTALE,
                f"frame {self.frame_num(np.array([row]))[0]} is not whole, and the image was written to since it was "
                "opened; open it again",
                source.path,
            )
        return Assembled(present, complete, there, np.concatenate(headers[::-1]), np.array(indexes[::-1], np.int64))

    def _copies(self, source: ByteSource, run: Run, piece: Piece) -> list[tuple[int, Buffer]]:
        """The buffers of a piece in card order, and before them those that were let through one ring too early.

        One of those may be all there is of a buffer whose own place the run does not reach.
        """
        own = self._buffers(source, run, range(piece.start, piece.stop))
        if run.odd:
            return own
        i = piece.start - run.index_of(piece.start) + np.arange(len(run.cut))
        found = i[self.buffers.earlier(source, run, i)].tolist()
        early = [(k, buffer) for k in found if (buffer := self.buffers.earlier_copy(source, run, k)) is not None]
        return [*early, *own]

    def _buffers(self, source: ByteSource, run: Run, places: range) -> list[tuple[int, Buffer]]:
        """The buffers of a run in some places, as far as they are on the card and of this recording."""
        found = [(i, buffer) for i in places if (buffer := self.buffers.buffer(source, run, i)) is not None]
        if not found:
            return []
        i, rows = np.array([i for i, _ in found]), np.concatenate([buffer.header for _, buffer in found])
        old = self.buffers.old(source, run, i, rows)
        return [each for each, odd in zip(found, old, strict=True) if not odd]

    def _put(self, out: np.ndarray[Any, Any], start: int, data: bytes) -> int:
        """Put the data of a buffer in its place; what is too long for the frame is left out."""
        size = max(min(len(data), self.frame_bytes - start), 0)
        out[start : start + size] = np.frombuffer(data, np.uint8, size)
        return size

    @property
    def _slots(self) -> int:
        """Buffers a whole frame has."""
        return -(-self.frame_bytes // self.payload)

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
        rows = self.buffers.headers(source, run, i)
        return rows, self.framing.vouched(rows, run, i) & ~self.buffers.old(source, run, i, rows)

    def first_timestamp(self, source: ByteSource, row: int) -> int | None:
        """Timestamp of one row's first buffer on the card, from one header where that can be; None for no buffer."""
        pieces = self.pieces(row)
        if not pieces:
            return None
        if len(pieces) == 1:
            headers, good = self.header_rows(source, self.recording.runs[pieces[0].run], np.array([pieces[0].start]))
            if good[0]:
                return int(headers["timestamp"][0])
        found = self.describe(source, np.array([row]), whole=False)
        return int(found.first["timestamp"][0]) if found.present[0] else None

    def describe(
        self, source: ByteSource, rows: Int, headers: HeaderTable | None = None, whole: bool = True
    ) -> FrameRows:
        """Headers, buffers and completeness of some rows, from the headers on the card (those in hand are not read).

        With ``whole=False`` a buffer with unreadable sectors behind its header counts as present: only headers are
        read. Otherwise, where unreadable sectors are left out, every sector of the frames has to be looked at.
        """
        n = len(rows)
        result = FrameRows(
            self.frame_num(rows), np.zeros(n, self.dtype), np.zeros(n, self.dtype),
            np.zeros(n, np.uint32), np.zeros(n, bool),
        )  # fmt: skip
        table, doubtful = headers, np.zeros(0, np.int64)
        if whole and self.buffers.salvage:
            table, doubtful = self._look_at_all(source, rows, headers)
        for number, at in self.axis.by_run(rows):
            if number >= 0:
                self._describe_fast(source, number, at, rows, result, table)
            elif number == PIECES:
                doubtful = np.concatenate([doubtful, at])
        for k in doubtful.tolist():
            self._describe_slow(source, int(rows[k]), k, result)
        return result

    def _look_at_all(self, source: ByteSource, rows: Int, headers: HeaderTable | None) -> tuple[HeaderTable, Int]:
        """Headers of some rows, every sector of which can be read; and which of the rows are not like that."""
        table = self.header_table(len(rows))
        doubtful: list[int] = []
        for at, count, number, frame in self.axis.spans(rows):
            if number >= 0:
                found = self._look_at_span(source, number, frame, slice(at, at + count), table, headers)
                doubtful += [at + k for k in found]
        return table, np.array(doubtful, np.int64)

    def _look_at_span(
        self, source: ByteSource, number: int, frame: int, span: slice, table: HeaderTable, headers: HeaderTable | None
    ) -> Sequence[int]:
        """Put the headers of whole frames of a run into a table; return the frames to put together by the buffer."""
        count = span.stop - span.start
        table.words[span] = 0
        table.known[span] = True
        stencil = self._stencil(number)
        if stencil is None:
            return range(count)
        doubtful: list[int] = []
        seen = np.zeros(count, bool) if headers is None else headers.known[span]
        if headers is not None:
            table.words[span][seen] = headers.words[span][seen]
        unseen = np.flatnonzero(~seen)
        for part in np.split(unseen, np.flatnonzero(np.diff(unseen) > 1) + 1):
            for some in (part[at : at + stencil.batch] for at in range(0, len(part), stencil.batch)):
                first, out = int(some[0]), aligned_empty((len(some), self.frame_bytes))
                words = table.words[span][first : first + len(some), : stencil.header_words]
                bad = stencil.read(source, frame + first - stencil.run.first.frame, out, words)
                doubtful += [first + k for k in bad]
        table.words[span][doubtful] = 0
        return self._with_torn(stencil.run, frame, doubtful, count)

    def _describe_fast(
        self, source: ByteSource, number: int, at: Int, rows: Int, result: FrameRows, headers: HeaderTable | None
    ) -> None:
        """Describe whole frames of one run, all at once, however far apart they are.

        Parameters
        ----------
        number
            Of the run.
        at
            Which of ``rows`` are frames of it.
        rows, result, headers
            As for :meth:`describe`.
        """
        run = self.recording.runs[number]
        size, frames = len(run.cut), result.frame_num[at]
        i = np.add.outer((frames - run.first.frame) * size - run.first.index, np.arange(size))
        table, careful = self._headers_of(source, run, i, at, headers)
        good = self.framing.vouched(table, run, i)
        good &= ~self.buffers.old(source, run, i.reshape(-1), table.reshape(-1)).reshape(i.shape)
        any_good, all_good = good.any(axis=1), good.all(axis=1)
        each = np.arange(len(at))
        first, last = good.argmax(axis=1), size - 1 - good[:, ::-1].argmax(axis=1)
        result.first[at[any_good]] = table[each, first][any_good]
        result.last[at[any_good]] = table[each, last][any_good]
        bits = np.uint32(1) << np.minimum(np.arange(size), 31).astype(np.uint32)
        result.present[at] = (good[:, :32] * bits[:32]).sum(axis=1).astype(np.uint32)
        result.complete[at] = all_good & tiles(run, self.payload, self.frame_bytes)
        odd = self.framing.odd_lengths(table, run) & all_good
        odd |= careful | self.buffers.overwritten(run, i).any(axis=1)
        if not all_good.all():
            lacking = np.nonzero(~good)[0]
            odd[lacking[self.buffers.earlier(source, run, i[~good])]] = True
        for k in at[odd | (self.framing.ends(run, i).max(axis=1) > source.size)].tolist():
            self._describe_slow(source, int(rows[k]), k, result)
        for k in at[frames == run.last_frame].tolist():
            end = run.count - 1
            length = run.length_of(end)
            result.complete[k] &= self.buffers.reached(run, end, length) == length

    def _headers_of(
        self, source: ByteSource, run: Run, i: Int, at: Int, headers: HeaderTable | None
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, np.dtype[np.bool_]]]:
        """Headers of whole frames ``i`` (frames, buffers), and which frames are to be put together by the buffer.

        Those in hand came along with pixels and are no such frames; the rest comes from the card.
        """
        if headers is None or not (known := headers.known[at]).any():
            return self.buffers.table(source, run, i)
        width = i.shape[1] * self.dtype.itemsize // 4
        table = np.ascontiguousarray(headers.words[at, :width]).view(self.dtype)
        careful = np.zeros(len(i), bool)
        if not known.all():
            table[~known], careful[~known] = self.buffers.table(source, run, i[~known])
        return table, careful

    def _describe_slow(self, source: ByteSource, row: int, k: int, result: FrameRows) -> None:
        frame = self._assemble(source, row, np.empty(self.frame_bytes, np.uint8))
        index = frame.places
        if len(index):
            # of two copies of one buffer the later one is the frame's: the earlier one lapped the ring
            order = np.lexsort((np.arange(len(index)), index))
            first = order[np.searchsorted(index[order], index.min(), side="right") - 1]
            result.first[k], result.last[k] = frame.headers[first], frame.headers[order[-1]]
        result.present[k] = frame.present & 0xFFFFFFFF
        result.complete[k] = frame.complete and frame.present > 0
