"""Frames of one recording: which buffers make frame k, and their bytes in place.

A frame row is found by arithmetic. While pixels are read the headers between them are read too and
checked; a buffer whose header does not vouch for it is left out (its pixels stay 0).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from miniscope_xr.device import ByteSource
from miniscope_xr.errors import CardReadError, OptionError
from miniscope_xr.recording import Recording
from miniscope_xr.runs import Run, expected_headers, read_rows, vouched

Int = np.ndarray[Any, np.dtype[np.int64]]
_PAGE = 4096
_BATCH_VECTORS = 1000  # below IOV_MAX (1024)
_MAX_BLANKS = 1 << 24  # frames that gaps="fill" may insert


def aligned_empty(shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Uninitialised uint8 array that starts on a page: reads into unaligned memory are several times slower."""
    size = int(np.prod(shape, dtype=np.int64))
    raw = np.empty(size + _PAGE, np.uint8)
    start = -raw.ctypes.data % _PAGE
    return raw[start : start + size].reshape(shape)


class Piece(NamedTuple):
    """Buffers ``start`` to ``stop`` (exclusive) of run number ``run`` that carry one frame number."""

    run: int
    start: int
    stop: int


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


class _Axis:
    """The frame axis as segments: (first frame number, frames, run or -1 for pieces, first row)."""

    def __init__(self, runs: tuple[Run, ...], fill: bool, until: int | None) -> None:
        self.pieces: dict[int, list[Piece]] = {}
        spans: list[tuple[int, int, int]] = []  # whole frames [start, stop) of a run
        for number, run in enumerate(runs):
            spans += self._split(number, run)
        segments = self._resolve(sorted(spans), runs)
        segments += [(frame, 1, -1) for frame in self.pieces]
        segments.sort()
        if until is not None:
            segments = [(f, min(n, until - f + 1), r) for f, n, r in segments if f <= until]
        if fill:
            segments = self._filled(segments)
        self.start = np.array([s[0] for s in segments], np.int64)
        self.count = np.array([s[1] for s in segments], np.int64)
        self.run = np.array([s[2] for s in segments], np.int64)
        self.row = np.concatenate(([0], np.cumsum(self.count))).astype(np.int64)

    def _split(self, number: int, run: Run) -> Iterator[tuple[int, int, int]]:
        """Put the partial frames of a run into ``pieces``; yield its whole frames."""
        if run.single:
            self.pieces.setdefault(run.first.frame, []).append(Piece(number, 0, 1))
            return
        size = len(run.pattern)
        start = (-run.first.index) % size  # first buffer 0
        if start:
            self.pieces.setdefault(run.first.frame, []).append(Piece(number, 0, min(start, run.count)))
        if start >= run.count:
            return
        whole = (run.count - start) // size
        if whole:
            yield run.frame_of(start), run.frame_of(start) + whole, number
        rest = start + whole * size
        if rest < run.count:
            self.pieces.setdefault(run.frame_of(rest), []).append(Piece(number, rest, run.count))

    def _resolve(self, spans: list[tuple[int, int, int]], runs: tuple[Run, ...]) -> list[tuple[int, int, int]]:
        """Segments without overlaps: a frame that several runs carry becomes a frame of pieces."""
        shared = set(self.pieces)
        for (_, stop, _), (start, end, _) in zip(spans, spans[1:], strict=False):
            shared.update(range(start, min(stop, end)))
        segments = []
        marks = sorted(shared)
        for start, stop, number in spans:
            at = start
            run = runs[number]
            size = len(run.pattern)
            first = (-run.first.index) % size
            for frame in marks[np.searchsorted(marks, start) : np.searchsorted(marks, stop)]:
                if frame > at:
                    segments.append((at, frame - at, number))
                begin = first + (frame - run.frame_of(first)) * size
                self.pieces.setdefault(frame, []).append(Piece(number, begin, begin + size))
                at = frame + 1
            if at < stop:
                segments.append((at, stop - at, number))
        for pieces in self.pieces.values():
            pieces.sort()
        return segments

    @staticmethod
    def _filled(segments: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
        """Segments with blank frames (run -2) where numbers are missing."""
        filled, at = [], 0
        for start, count, run in segments:
            if start > at:
                filled.append((at, start - at, -2))
            filled.append((start, count, run))
            at = start + count
        blanks = sum(n for _, n, r in filled if r == -2)
        if blanks > _MAX_BLANKS:
            raise OptionError(
                f"gaps='fill' would insert {blanks} blank frames; frame numbers on this card jump too far, use 'skip'"
            )
        return filled


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
    """

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
    ) -> None:
        self.recording = recording
        self.words = words
        self.dtype = dtype
        self.salvage = salvage
        self.frame_bytes = recording.width * recording.height
        self.payload = payload or self.frame_bytes
        self._head = 4 * words
        self._size = sector_size
        self._axis = _Axis(recording.runs, fill, until)
        self.count = int(self._axis.row[-1])

    # -- the frame axis -------------------------------------------------------------------------------

    def _segment(self, row: int) -> int:
        return int(np.searchsorted(self._axis.row, row, side="right")) - 1

    def frame_num(self, rows: Int) -> Int:
        """Frame numbers of some rows, by arithmetic."""
        segment = np.searchsorted(self._axis.row, rows, side="right") - 1
        return self._axis.start[segment] + rows - self._axis.row[segment]

    def row_of(self, frame_num: int) -> int | None:
        """Row of a frame number, or None where it never reached the card."""
        k = int(np.searchsorted(self._axis.start, frame_num, side="right")) - 1
        if k < 0 or frame_num >= self._axis.start[k] + self._axis.count[k]:
            return None
        return int(self._axis.row[k] + frame_num - self._axis.start[k])

    def gaps(self) -> list[tuple[int, int]]:
        """(row behind the gap, frame numbers missing before it) wherever numbers never reached the card."""
        ends = np.concatenate(([0], self._axis.start + self._axis.count))[:-1]
        missing = self._axis.start - ends
        return [(int(self._axis.row[k]), int(missing[k])) for k in np.flatnonzero(missing > 0)]

    def partial_rows(self) -> list[int]:
        """Rows that lack buffers by arithmetic (holes inside a run are not seen here)."""
        rows = []
        for k in np.flatnonzero(self._axis.run == -1):
            row = int(self._axis.row[k])
            runs = self.recording.runs
            have = {runs[p.run].index_of(i) for p in self.pieces(row) for i in range(p.start, p.stop)}
            if not set(range(self._slots)) <= have:
                rows.append(row)
        return rows

    def pieces(self, row: int) -> list[Piece]:
        """The buffers of one row, in card order."""
        k = self._segment(row)
        frame = int(self._axis.start[k]) + row - int(self._axis.row[k])
        number = int(self._axis.run[k])
        if number == -2:
            return []
        if number == -1:
            return self._axis.pieces[frame]
        start = self._first_buffer(number, frame)
        return [Piece(number, start, start + len(self.recording.runs[number].pattern))]

    def _first_buffer(self, number: int, frame: int) -> int:
        run = self.recording.runs[number]
        return (frame - run.first.frame) * len(run.pattern) - run.first.index

    def position(self, row: int) -> int:
        """Byte on the card where a row begins (its first buffer's header; for a blank frame, that of the next)."""
        for later in range(row, self.count):
            pieces = self.pieces(later)
            if pieces:
                first = pieces[0]
                return self.recording.runs[first.run].sector_of(first.start) * self._size
        return self.recording.end_sector * self._size

    def _spans(self, rows: Int) -> Iterator[tuple[int, int, int, int]]:
        """(position in ``rows``, rows in a row, run, frame) of stretches that lie in one segment."""
        at = 0
        while at < len(rows):
            row = int(rows[at])
            k = self._segment(row)
            left = int(self._axis.row[k + 1]) - row
            window = rows[at : at + left]
            in_order = window == row + np.arange(len(window))
            n = len(window) if in_order.all() else int(np.argmin(in_order))
            yield at, n, int(self._axis.run[k]), int(self._axis.start[k]) + row - int(self._axis.row[k])
            at += n

    # -- pixels ---------------------------------------------------------------------------------------

    def pixels(self, source: ByteSource, rows: Int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Pixels of some rows: uint8 (len(rows), height, width); bytes not on the card are 0."""
        out = aligned_empty((len(rows), self.frame_bytes))
        for at, n, number, frame in self._spans(rows):
            if number < 0 or not self._fast(self.recording.runs[number]):
                for k in range(at, at + n):
                    self._slow(source, int(rows[k]), out[k])
                continue
            self._stream(source, rows[at : at + n], out[at : at + n], number, frame)
        return out.reshape(len(rows), self.recording.height, self.recording.width)

    def _fast(self, run: Run) -> bool:
        """Whether whole frames of a run tile the pixel row exactly."""
        lengths = run.pattern.lengths
        return sum(lengths) == self.frame_bytes and all(n == self.payload for n in lengths[:-1])

    def _stream(self, source: ByteSource, rows: Int, out: np.ndarray[Any, Any], number: int, frame: int) -> None:
        """Scatter consecutive whole frames straight from the card into ``out``, then check their headers."""
        run = self.recording.runs[number]
        pattern = run.pattern
        size = len(pattern)
        batch = max(_BATCH_VECTORS // (2 * size), 1)
        slack = [s * self._size - self._head - n for s, n in zip(pattern.sectors, pattern.lengths, strict=True)]
        junk = size * self._head + sum(slack)
        scratch = np.empty(max(batch * junk, 1), np.uint8)
        for start in range(0, len(rows), batch):
            n = min(batch, len(rows) - start)
            first = self._first_buffer(number, frame + start)
            vectors, wanted = self._vectors(out[start : start + n], scratch, pattern.lengths, slack)
            try:
                got = source.readv(run.sector_of(first) * self._size, vectors)
            except CardReadError:
                got = -1
            if got != wanted:  # a bad sector, or the image ends in here: buffer by buffer
                for k in range(start, start + n):
                    self._slow(source, int(rows[k]), out[k])
                continue
            self._check(source, rows[start : start + n], out[start : start + n], run, first, scratch, slack, junk)

    def _vectors(
        self, out: np.ndarray[Any, Any], scratch: np.ndarray[Any, Any], lengths: tuple[int, ...], slack: list[int]
    ) -> tuple[list[memoryview], int]:
        """Where the bytes of whole frames go: headers and slack into ``scratch``, payloads into ``out``."""
        pixels, junk = memoryview(out.reshape(-1)), memoryview(scratch)
        vectors = []
        at = into = left = 0
        for _ in range(len(out)):
            for length, rest in zip(lengths, slack, strict=True):
                if left + self._head:
                    vectors.append(junk[at : at + left + self._head])
                at += left + self._head
                if length:
                    vectors.append(pixels[into : into + length])
                into += length
                left = rest
        return vectors, at + into

    def _check(
        self, source: ByteSource, rows: Int, out: np.ndarray[Any, Any], run: Run, first: int,
        scratch: np.ndarray[Any, Any], slack: list[int], junk: int,
    ) -> None:  # fmt: skip
        """Re-read buffer by buffer every frame with a header that does not vouch for its pixels."""
        table = scratch[: len(rows) * junk].reshape(len(rows), junk)
        good = np.ones(len(rows), bool)
        at = 0
        for b, rest in enumerate(slack):
            headers = np.ascontiguousarray(table[:, at : at + self._head]).view(self.dtype)[:, 0]
            i = first + b + len(slack) * np.arange(len(rows))
            good &= vouched(headers, expected_headers(run, i), self.words)
            good &= headers["data_length"] == run.pattern.lengths[b]
            at += self._head + rest
        for k in np.flatnonzero(~good):
            self._slow(source, int(rows[k]), out[k])

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
        """Data of one buffer, or None where its header does not vouch for it.

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
            readable = None if bad else True
        if not self._vouched_by(data, run, i):
            return None, True
        length = self._length_in(data, run, i)
        data = data[self._head : self._head + length]
        return data, readable and len(data) == length and self._landed(run, i, length)

    def _length_in(self, data: bytes, run: Run, i: int) -> int:
        """Data bytes of a buffer as its own header says."""
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
        return bool(vouched(header, expected_headers(run, np.array([i])), self.words)[0])

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
        rows = read_rows(source, self.dtype, offsets, _skip if self.salvage else None)
        return rows, vouched(rows, expected_headers(run, i), self.words)

    def describe(self, source: ByteSource, rows: Int) -> FrameRows:
        """Headers, buffers and completeness of some rows, from the headers on the card."""
        n = len(rows)
        result = FrameRows(
            self.frame_num(rows), np.zeros(n, self.dtype), np.zeros(n, self.dtype),
            np.zeros(n, np.uint32), np.zeros(n, bool),
        )  # fmt: skip
        for at, count, number, frame in self._spans(rows):
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
        i = self._first_buffer(number, frame) + np.arange(count * size)
        flat, flat_good = self.header_rows(source, run, i)
        table, good = flat.reshape(count, size), flat_good.reshape(count, size)
        any_good = good.any(axis=1)
        each = np.arange(count)
        first, last = good.argmax(axis=1), size - 1 - good[:, ::-1].argmax(axis=1)
        result.first[span] = np.where(any_good, table[each, first], np.zeros((), self.dtype))
        result.last[span] = np.where(any_good, table[each, last], np.zeros((), self.dtype))
        bits = np.uint32(1) << np.minimum(np.arange(size), 31).astype(np.uint32)
        result.present[span] = (good[:, :32] * bits[:32]).sum(axis=1).astype(np.uint32)
        result.complete[span] = good.all(axis=1) & self._fast(run)
        ends = run.sectors_of(i).reshape(count, size) * self._size + self._head + np.array(run.pattern.lengths)
        odd = self._odd_lengths(table, run) & good.all(axis=1)
        for k in np.flatnonzero(odd | (ends.max(axis=1) > source.size)):
            self._describe_slow(source, int(rows[span.start + k]), span.start + int(k), result)
        if self.recording.torn is not None and run is self.recording.runs[-1]:
            last_frame = run.last_frame
            k = last_frame - frame
            if 0 <= k < count:
                result.complete[span.start + k] &= self.recording.torn >= run.length_of(run.count - 1)

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

    def _check(
        self, source: ByteSource, rows: Int, out: np.ndarray[Any, Any], run: Run, first: int,
        scratch: np.ndarray[Any, Any], slack: list[int], junk: int,
    ) -> None:  # fmt: skip
        footers = np.ascontiguousarray(out[:, -self.dtype.itemsize :]).view(self.dtype)[:, 0]
        for k in np.flatnonzero(footers["frame_num"] != run.first.frame + first + np.arange(len(rows))):
            self._slow(source, int(rows[k]), out[k])

    def header_rows(
        self, source: ByteSource, run: Run, i: Int
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, np.dtype[np.bool_]]]:
        """Footers of frames ``i`` and which of them carry the frame's number."""
        offsets = run.sectors_of(i) * self._size + run.pattern.lengths[0] - self.dtype.itemsize
        rows = read_rows(source, self.dtype, offsets, _skip if self.salvage else None)
        return rows, rows["frame_num"] == run.first.frame + i


def _skip(error: CardReadError) -> None:
    """Treat an unreadable header as no header."""
