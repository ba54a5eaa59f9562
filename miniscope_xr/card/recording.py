"""One recording of an open card: pixels and headers of some rows, what was read last, frames read ahead."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from miniscope_xr.card.card import OpenCard
from miniscope_xr.errors import CardReadError
from miniscope_xr.frames.cache import HeaderTables, Recent
from miniscope_xr.frames.describe import FrameRows
from miniscope_xr.frames.due import DueTimes
from miniscope_xr.index.recording import Recording
from miniscope_xr.layout.arrays import Array, Bytes, Floats, Ints
from miniscope_xr.source.base import ByteSource

_AHEAD = 32  # frames
_KEPT = 1 << 16  # rows, of about 100 bytes

Image = Bytes | np.ndarray[Any, np.dtype[np.float32]]


class OpenRecording:
    """One recording of an open card, with the header rows read last kept for the next coordinate.

    Parameters
    ----------
    card : OpenCard
    recording : Recording
    fill : bool
        Insert blank frames for missing frame numbers.
    until : int or None
        Last frame number to return.
    nan : bool
        Pixels that are not on the card are NaN (and all pixels float32) instead of 0.
    strict : bool
        A sector that cannot be read is an error, also of a card that was opened with ``errors="fill"``.
    """

    def __init__(
        self,
        card: OpenCard,
        recording: Recording,
        fill: bool = False,
        until: int | None = None,
        nan: bool = False,
        strict: bool = False,
    ) -> None:
        self.card = card
        self.recording = recording
        self.nan = nan
        self.frames = card.frames(recording, fill, until, strict)
        self._reset()

    def _reset(self) -> None:
        self._frame_rows: Recent[FrameRows] = Recent(_KEPT)
        self._whole_rows: Recent[FrameRows] = Recent(_KEPT)
        self._header_tables = HeaderTables(_KEPT // 2)
        self._buffer_rows: Recent[Array] = Recent(_KEPT)
        self._ahead: tuple[int, Iterator[Bytes]] = (-1, iter(()))
        self._careful = 0  # row up to which frames are read one by one

    def __getstate__(self) -> dict[str, Any]:
        return {"card": self.card, "recording": self.recording, "nan": self.nan, "frames": self.frames}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def pixels(self, rows: Ints) -> Image:
        """Pixels of some rows of the frame axis; the headers between them are kept for :meth:`describe`."""
        source = self.card.source()
        headers = self.frames.header_table(len(rows))
        read = self.frames.pixels_or_nan if self.nan else self.frames.pixels
        pixels = read(source, rows, headers)
        self._header_tables.put(rows, headers)
        return pixels

    def image(self, row: int) -> Image:
        """Pixels of one row of the frame axis."""
        if self.nan:
            image: Image = self.frames.pixels_or_nan(self.card.source(), np.array([row]))[0]
            return image
        return self._images(row, 1)[0]

    def frame(self, row: int) -> Bytes:
        """Pixels of one row for a cursor: rows asked for one after another are read many at a time.

        Each image is handed out once, so that it is the caller's to change. Not for several threads.
        """
        following, images = self._ahead
        image = next(images, None) if row == following else None
        if image is None:
            ahead = row == following and row >= self._careful
            count = min(_AHEAD, self.frames.count - row) if ahead else 1
            try:
                images = iter(self._images(row, count))
            except CardReadError:
                if count == 1:
                    raise
                self._careful = row + count  # one of them cannot be read, and only that one is lost
                images = iter(self._images(row, 1))
            image = next(images)
        self._ahead = row + 1, images
        return image

    def _images(self, row: int, count: int) -> list[Bytes]:
        return self.frames.images(self.card.source(), np.arange(row, row + count))

    def describe(self, rows: Ints, whole: bool = True) -> FrameRows:
        """Header rows; several coordinates of the same frames cost one read.

        ``whole=False`` does not look for unreadable sectors behind the headers (see :meth:`FrameReader.describe`).
        """
        source = self.card.source()
        whole = whole and self.card.tolerant
        known = self._whole_rows if whole else self._frame_rows
        keep = self.card.tolerant and not whole  # they also tell which sectors could be read
        return known.get(rows, lambda: self.frames.describe(source, rows, self._header_tables.take(rows, keep), whole))

    def times(self, rows: Ints, end: bool = False) -> Floats:
        """Timestamps of some rows in ms: of a frame's first buffer on the card, or its last; else when it was due.

        NaN only in a recording in which no frame has a time.
        """
        found = self.describe(rows, whole=False)
        ticks = (found.last if end else found.first)["timestamp"].astype(np.float64)
        lost = np.flatnonzero(found.present == 0)
        if len(lost):
            config = self.card.index.config or {}
            period = 1000 * self.recording.ticks / (config.get("fs", 0) or 20)
            ticks[lost] = DueTimes(self.frames, self.card.source(), period).at(rows[lost])
        times: Floats = ticks // self.recording.ticks
        return times

    def time_of(self, row: int, source: ByteSource) -> float:
        """Timestamp of one row in ms, from one header where that can be."""
        first = self.frames.first_timestamp(source, row)
        return float(self.times(np.array([row]))[0]) if first is None else first // self.recording.ticks

    def buffer_rows(self, rows: Ints) -> Array:
        """Headers of some buffers of the recording as they are on the card (structured array)."""
        source = self.card.source()

        def read() -> Array:
            return self._by_run(
                rows, lambda run, i: self.frames.buffers.headers(source, run, i), self.card.header_dtype
            )

        return self._buffer_rows.get(rows, read)

    def buffer_sectors(self, rows: Ints) -> Ints:
        """Sectors of some buffers."""
        return self._by_run(rows, lambda run, i: run.sectors_of(i), np.dtype(np.int64))

    def _by_run(self, rows: Ints, values: Any, dtype: np.dtype[Any]) -> Array:
        runs = self.recording.runs
        if len(runs) == 1:
            return np.asarray(values(runs[0], rows), dtype)
        starts = np.concatenate(([0], np.cumsum([run.count for run in runs])))
        number = np.searchsorted(starts, rows, side="right") - 1
        out = np.empty(len(rows), dtype)
        for n in np.unique(number):
            mine = number == n
            out[mine] = values(runs[int(n)], rows[mine] - starts[n])
        return out
