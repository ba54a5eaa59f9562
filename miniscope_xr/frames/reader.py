"""Frames of one recording: which buffers make frame k, and their bytes in place.

A frame row is found by arithmetic. While pixels are read the headers between them are read too and
checked; a buffer whose header does not vouch for it is left out (its pixels stay 0).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from miniscope_xr.frames.assemble import Assembled
from miniscope_xr.frames.cache import HeaderTable
from miniscope_xr.frames.describe import FrameDescriber
from miniscope_xr.frames.stencil import FrameRoom, Stencil, aligned_empty
from miniscope_xr.index.runs import Run
from miniscope_xr.layout import SECTOR
from miniscope_xr.layout.arrays import Bytes, Ints, Words
from miniscope_xr.source.base import ByteSource


class FrameReader(FrameDescriber):
    """Frames of a recording by row of the frame axis; parameters as for :class:`FrameAssembler`."""

    def partial_rows(self) -> list[int]:
        """Rows that lack buffers by arithmetic (holes inside a run are not seen here)."""
        return self.axis.partial_rows(self._slots)

    def position(self, row: int) -> int:
        """Byte on the card where a row begins (its first buffer's header; for a blank frame, that of the next)."""
        for later in range(row, self.count):
            pieces = self.pieces(later)
            if pieces:
                first = pieces[0]
                return self.recording.runs[first.run].sector_of(first.start) * SECTOR
        return self.recording.end_sector * SECTOR

    # -- pixels ---------------------------------------------------------------------------------------

    def pixels(self, source: ByteSource, rows: Ints, headers: HeaderTable | None = None) -> Bytes:
        """Pixels of some rows: uint8 (len(rows), height, width); bytes not on the card are 0.

        The headers between them go into ``headers``, where they are read at once.
        """
        out = aligned_empty((len(rows), self.frame_bytes))
        self._fill(source, rows, out, headers)
        return out.reshape(len(rows), self.recording.height, self.recording.width)

    def pixels_or_nan(
        self, source: ByteSource, rows: Ints, headers: HeaderTable | None = None
    ) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Pixels of some rows: float32 (len(rows), height, width), NaN where they are not on the card."""
        out = aligned_empty((len(rows), self.frame_bytes))
        assembled = self._fill(source, rows, out, headers)
        values = out.astype(np.float32)
        for k, frame in assembled:
            values[k][~frame.there] = np.nan
        return values.reshape(len(rows), self.recording.height, self.recording.width)

    def images(self, source: ByteSource, rows: Ints) -> list[Bytes]:
        """Pixels of some rows, each an array of its own: keeping one does not keep the others."""
        out = [aligned_empty((self.frame_bytes,)) for _ in rows]
        self._fill(source, rows, out)
        return [image.reshape(self.recording.height, self.recording.width) for image in out]

    def _fill(
        self, source: ByteSource, rows: Ints, out: FrameRoom, headers: HeaderTable | None = None
    ) -> list[tuple[int, Assembled]]:
        """Read the pixels of some rows into as many rows of ``out``; return those put together buffer by buffer."""
        assembled = []
        for at, count, number, frame in self.axis.spans(rows):
            stencil = self._stencil(number)
            doubtful: Sequence[int] = range(count)
            if stencil is not None:
                span = slice(at, at + count)
                words = None
                if headers is not None:
                    words = headers.words[span, : stencil.header_words]
                elif self.framing.words:  # their times are looked at; a footer's are not
                    words = np.empty((count, stencil.header_words), "<u4")
                doubtful = stencil.read(source, frame - stencil.run.first.frame, out[span], words)
                doubtful = self._with_old(stencil.run, frame, doubtful, words)
                doubtful = self._with_lapped(source, stencil, frame, doubtful, count)
                doubtful = self._with_torn(stencil.run, frame, doubtful, count)
                doubtful = self._with_overwritten(stencil.run, number, frame, doubtful, count)
                if headers is not None:
                    headers.known[span] = True
                    headers.known[span][doubtful] = False
            assembled += [(at + k, self._assemble(source, int(rows[at + k]), out[at + k])) for k in doubtful]
        return assembled

    def _with_old(self, run: Run, frame: int, doubtful: list[int], words: Words | None) -> list[int]:
        """Rows to put together buffer by buffer: the doubtful ones, and those without the clock or the focus."""
        if words is None or not self.framing.words:
            return doubtful
        if self._focus_at is not None and self.recording.focus is not None:
            focus = words[:, self._focus_at :: self.framing.words]
            if (focus != self.recording.focus).any():
                other = self.buffers.other_focus(focus.astype(np.int64)).any(axis=1)
                doubtful = sorted({*doubtful, *np.flatnonzero(other).tolist()})
        ticks = words[:, self._time_at :: self.framing.words]
        first = frame - run.first.frame
        if len(ticks) == 1 and (doubtful or self.buffers.on_time(run, first, ticks[0].tolist())):
            return doubtful
        times = ticks.astype(np.float64)
        if doubtful:
            times[doubtful] = np.nan
        strange = self.buffers.strange(run, np.arange(first, first + len(words)), times)
        return sorted({*doubtful, *np.flatnonzero(strange).tolist()}) if strange.any() else doubtful

    def _with_overwritten(self, run: Run, number: int, frame: int, doubtful: list[int], count: int) -> list[int]:
        """Rows to put together buffer by buffer: the doubtful ones, and those with somebody else's bytes in them."""
        if not self.recording.overwritten:
            return doubtful
        i = self.axis.first_buffer(number, frame) + np.arange(count * len(run.cut)).reshape(count, -1)
        hit = self.buffers.overwritten(run, i).any(axis=1)
        return sorted({*doubtful, *np.flatnonzero(hit).tolist()})

    def _with_lapped(
        self, source: ByteSource, stencil: Stencil, frame: int, doubtful: list[int], count: int
    ) -> list[int]:
        """Rows of a stretch to read buffer by buffer: the doubtful ones, and those with an earlier copy of a buffer.

        Where headers have no write time (DAQ), an odd header says that a lap may have put a copy of a later buffer
        there: in the frame before the stretch, or in a doubtful one.
        """
        ring = self.framing.ring
        if not ring or "write_timestamp" in (self.dtype.names or ()):
            return doubtful
        run, number = stencil.run, frame - stencil.run.first.frame
        reach = -(-ring // len(run.cut))
        rows = {k + later for k in doubtful for later in range(reach + 1)}
        if not self._in_order(source, stencil, range(number - reach, number)):
            first = number * len(run.cut) - run.first.index
            before = np.arange(max(first - ring, 0), first)
            if len(before) and not self.header_rows(source, run, before)[1].all():
                rows.update(range(reach))
        return sorted(k for k in rows if k < count)

    def _in_order(self, source: ByteSource, stencil: Stencil, frames: range) -> bool:
        """Whether whole frames, counted from that of the run's first buffer, are there as expected, and on time.

        Then :meth:`header_rows` has nothing against them; where they are not, that takes the closer look.
        """
        for frame in frames:
            headers = stencil.headers_of(source, frame)
            on_time = headers is not None and self.buffers.on_time(
                stencil.run, frame, headers[self._time_at :: self.framing.words].tolist()
            )
            if not on_time:
                return False
        return True
