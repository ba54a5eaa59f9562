"""Buffers of a firmware whose capture goes on when the queue to the card is full (layout key ``overflow: pool``).

When a user meets this: the card was slow for a moment. The ring slot of a buffer that waits for the card is filled
again, so that the buffer lands with its own header and, in front, pixels of the buffer a ring later. Such a buffer is
*torn*, and left out. The headers only say which may be; the bytes say which are:

    buffer    complete at   written from
    120         1237          1238          the card stalls ...
    127         1303                        ... slot 0 is filled again from here on, with buffer 128
    121         1314          1336          ... until here: 120 is suspect, and torn if it repeats bytes of 128

A driver that gives up on a busy card cuts a buffer: what follows in it is what was there before. A buffer before a
hole, or whose write took nearly as long as the driver waits, is suspect; it is cut where it ends in blank sectors.

A suspect buffer of which nothing tells whether it is torn stays, but its frame is not called complete.
"""

from __future__ import annotations

from enum import Enum

import numpy as np

from miniscope_xr.errors import CardReadError
from miniscope_xr.frames.buffers import Buffer, BufferReader
from miniscope_xr.frames.stencil import LATE, PoolStencil, Stencil
from miniscope_xr.index.clock import Model
from miniscope_xr.index.framing import Framing
from miniscope_xr.index.recording import Recording
from miniscope_xr.index.runs import Run
from miniscope_xr.layout import SECTOR, Build
from miniscope_xr.layout.arrays import Array, Bools, Ints
from miniscope_xr.source.base import ByteSource

_FURTHER = 3  # rings behind a buffer in which the one that filled its slot again is looked for
_ALIKE = 16  # bytes in a row that two buffers do not share by chance
_FRONT = 4  # the same at the very start, where a slot is filled first


class Tear(Enum):
    """Whether a buffer was torn: its memory was filled again before it was written, or the driver gave it up."""

    WHOLE = "whole"
    SUSPECT = "suspect"  # nothing tells: it stays, but its frame is not called complete
    TORN = "torn"


class PoolBufferReader(BufferReader):
    """Buffers that all take the same number of sectors, and may be torn by an overflow or a driver that gave up."""

    def __init__(self, recording: Recording, framing: Framing, tolerant: bool) -> None:
        super().__init__(recording, framing, tolerant)
        self._step = framing.step or framing.full_sectors

    @property
    def _build(self) -> Build:
        build = self.framing.layout.build
        assert build is not None
        return build

    def stencil(self, run: Run) -> Stencil:
        """How whole frames of a run are read at once: with the header behind them, which says how long a write took."""
        return PoolStencil(run, self.framing, ended=run is self.recording.runs[-1])

    def table(self, source: ByteSource, run: Run, i: Ints) -> tuple[Array, Bools]:
        """Headers of whole frames ``i`` (frames, buffers), and which frames may have a torn buffer."""
        fields = ("length", "write_buffer_count", "timestamp", "write_timestamp")
        rows, every, (length, place, full, written) = self.with_behind(source, run, i, run.count + 1, *fields)
        late = written.astype(np.int64) - full > LATE
        odd = late | (place != run.first.written + every) | (length != self.framing.marker)
        if run is self.recording.runs[-1]:
            odd[every == run.count] = False  # the recording ends there
        return rows, odd.any(axis=1)

    def buffer(self, source: ByteSource, run: Run, i: int) -> Buffer | None:
        """Read one buffer, or None where its header does not vouch for it or it is torn."""
        found = super().buffer(source, run, i)
        if found is None:
            return None
        verdict = self._verdict(source, run, i, found)
        return None if verdict is Tear.TORN else found if verdict is Tear.WHOLE else found._replace(whole=False)

    def _header_at(self, source: ByteSource, sector: int) -> Array | None:
        rows = self.rows(source, np.array([sector * SECTOR]))
        return rows if int(rows["length"][0]) == self.framing.marker else None

    def _verdict(self, source: ByteSource, run: Run, i: int, buffer: Buffer) -> Tear:
        """Whether a buffer is whole, torn, or may be either."""
        sector, place = run.sector_of(i), int(buffer.header["write_buffer_count"][0])
        if run is self.recording.runs[-1] and i == run.count - 1:
            return Tear.WHOLE  # nothing was written behind it; a power loss is looked for elsewhere
        behind = self._header_at(source, sector + self._step)
        if behind is None or int(behind["write_buffer_count"][0]) != place + 1:
            return self._cut(source, sector, buffer)
        began, ends = int(buffer.header["write_timestamp"][0]), int(behind["write_timestamp"][0])
        if ends < began:
            return self._cut(source, sector, buffer)  # an older recording's stands in the next place
        verdict = Tear.WHOLE
        if self._filled_again(source, run, buffer.header) <= ends:
            verdict = self._compare(source, sector, buffer)
        lasted = ends - max(began, int(behind["timestamp"][0]))
        if verdict is Tear.WHOLE and 0 < self._build.driver_timeout[0] <= lasted:
            found = self._cut(source, sector, buffer)
            verdict = found if found is Tear.TORN or not self._waited(source, run, buffer.header, ends) else Tear.WHOLE
        return verdict

    def _model(self, source: ByteSource, run: Run) -> Model | None:
        """The frame clock of a run, learnt once; of one too short to tell, that of the longest. None: nothing tells."""
        if run.count < 4 * len(run.cut):
            like = (other for other in self.recording.runs if other.cut == run.cut)
            run = max(like, key=lambda other: other.count, default=run)
        return self._clock(run).learnt(self._look(source, run))

    def _waited(self, source: ByteSource, run: Run, header: Array, began: int) -> bool:
        """Whether a write began when it did because a buffer was complete then: behind an overflow a later one."""
        model = self._model(source, run)
        if model is None:
            return False
        since = began - int(header["timestamp"][0]) + model.offsets[int(header["frame_buffer_count"][0]) % len(run.cut)]
        after = (since - model.offsets) % model.period
        return bool((after <= max(self._build.write_clock) + 1).any())

    def _filled_again(self, source: ByteSource, run: Run, header: Array) -> float:
        """When the slot of a buffer was filled again: as the buffer seven behind it (of a ring of eight) was complete.

        By the frame clock: that buffer need not be on the card.
        """
        index, size = int(header["frame_buffer_count"][0]), len(run.cut)
        model = self._model(source, run)
        if model is None or index >= size:
            return 0.0
        frames, later = divmod(index + self.framing.ring - 1, size)
        return float(header["timestamp"][0] + frames * model.period + model.offsets[later] - model.offsets[index])

    def _compare(self, source: ByteSource, sector: int, buffer: Buffer) -> Tear:
        """Whether a buffer repeats bytes of the one that was captured into its slot next."""
        wanted = int(buffer.header["buffer_count"][0]) + self.framing.ring
        places = sector + self._step * np.arange(1, _FURTHER * self.framing.ring + 1)
        rows = self.rows(source, places * SECTOR)
        hits = np.flatnonzero((rows["length"] == self.framing.marker) & (rows["buffer_count"] == wanted))
        if not len(hits):
            return Tear.SUSPECT
        size = min(len(buffer.data), int(rows["data_length"][hits[-1]]))
        try:
            data = source.read(int(places[hits[-1]]) * SECTOR + self.framing.head, size)
        except CardReadError:
            return Tear.SUSPECT
        mine, other = (np.frombuffer(part, np.uint8, len(data)) for part in (buffer.data, data))
        return _alike(mine, other)

    def _cut(self, source: ByteSource, sector: int, buffer: Buffer) -> Tear:
        """Whether a buffer that the driver may have given up on lacks its end."""
        end = np.frombuffer(buffer.data, np.uint8)[-SECTOR:]
        if len(set(end.tolist())) == 1 and int(end[0]) in (0, 0xFF):
            return Tear.TORN
        behind = source.read((sector + self._step) * SECTOR, SECTOR)
        fresh = len(set(behind)) == 1  # had it been cut here, its end would be as blank as the hole behind it
        return Tear.WHOLE if fresh else Tear.SUSPECT


def _alike(mine: Array, other: Array) -> Tear:
    """Whether one buffer repeats a stretch of another at the same place; a flat stretch proves nothing."""
    same = np.concatenate(([False], mine == other, [False]))
    edges = np.flatnonzero(np.diff(same.astype(np.int8)))
    suspect = False
    for start, stop in edges.reshape(-1, 2).tolist():
        if stop - start >= (_FRONT if start == 0 else _ALIKE):
            if len(set(mine[start:stop].tolist())) > 1:
                return Tear.TORN
            suspect = True
    return Tear.SUSPECT if suspect else Tear.WHOLE
