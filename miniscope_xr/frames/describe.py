"""What headers say of frames: their numbers and times, which buffers are there, and whether a frame is complete.

Whole frames of a run are described all at once, by arithmetic and one comparison. Those that something is the matter
with are put together buffer by buffer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from miniscope_xr.frames.assemble import FrameAssembler
from miniscope_xr.frames.axis import NoRun
from miniscope_xr.frames.cache import HeaderTable
from miniscope_xr.frames.stencil import aligned_empty, tiles
from miniscope_xr.index.runs import Run
from miniscope_xr.layout.arrays import Array, Bools, Ints, Words
from miniscope_xr.source.base import ByteSource


@dataclass(frozen=True)
class FrameRows:
    """What the headers on the card say about some frames; one entry a frame.

    ``first`` and ``last`` are the headers (structured) of the frame's first and last buffer on the card,
    zeros where it has none; ``present`` has bit b set where buffer b is on the card.
    """

    frame_num: Ints
    first: Array
    last: Array
    present: Words
    complete: Bools


class FrameDescriber(FrameAssembler):
    """Describes frames of a recording, by row of the frame axis; parameters as for :class:`FrameAssembler`."""

    def headers(self, source: ByteSource, row: int) -> tuple[Array, Ints]:
        """Vouched headers of one row's buffers in card order (structured array), and their index in the frame."""
        found, index = [np.zeros(0, self.dtype)], [np.zeros(0, np.int64)]
        for piece in self.pieces(row):
            run = self.recording.runs[piece.run]
            i = np.arange(piece.start, piece.stop)
            rows, good = self.header_rows(source, run, i)
            found.append(rows[good])
            index.append(np.array([run.index_of(int(k)) for k in i[good]], np.int64))
        return np.concatenate(found), np.concatenate(index)

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
        self, source: ByteSource, rows: Ints, headers: HeaderTable | None = None, whole: bool = True
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
        if whole and self.buffers.tolerant:
            table, doubtful = self._look_at_all(source, rows, headers)
        for number, at in self.axis.by_run(rows):
            if number >= 0:
                self._describe_fast(source, number, at, rows, result, table)
            elif number == NoRun.PIECES:
                doubtful = np.concatenate([doubtful, at])
        for k in doubtful.tolist():
            self._describe_slow(source, int(rows[k]), k, result)
        return result

    def _look_at_all(self, source: ByteSource, rows: Ints, headers: HeaderTable | None) -> tuple[HeaderTable, Ints]:
        """Headers of some rows, of which every sector is read; and the rows with a sector that cannot be read."""
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
        self, source: ByteSource, number: int, at: Ints, rows: Ints, result: FrameRows, headers: HeaderTable | None
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
        good = self.buffers.ours(source, run, i.reshape(-1), table.reshape(-1)).reshape(i.shape)
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
        self, source: ByteSource, run: Run, i: Ints, at: Ints, headers: HeaderTable | None
    ) -> tuple[Array, Bools]:
        """Headers of whole frames ``i`` (frames, buffers), and which frames are to be put together by the buffer.

        What came along with pixels is in hand, and of frames that need no such care; the rest is read from the card.
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
