"""Lazy arrays over a card: pixels, per-frame coordinates, buffer table columns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
from xarray.backends import BackendArray
from xarray.core import indexing

from miniscope_xr.card import RecordingStore
from miniscope_xr.frames.reader import FrameRows, Int

_BATCH = 512  # frames in memory at once when only a part of each is wanted


class CardArray(BackendArray):
    """An array that reads a card when indexed. Outer indexing: basic alone would read the whole span of a list."""

    def __init__(self, store: RecordingStore, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.store = store
        self.shape = shape
        self.dtype = dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        if isinstance(key, indexing.BasicIndexer):
            return self._get(key.tuple)  # nothing for the adapter to take apart
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._get)

    async def async_getitem(self, key: indexing.ExplicitIndexer) -> Any:
        """Index in a worker thread (reads need no lock)."""
        return await asyncio.to_thread(self.__getitem__, key)

    def _get(self, key: tuple[Any, ...]) -> np.ndarray[Any, Any]:
        first, *rest = key
        n = self.shape[0]
        if isinstance(first, int | np.integer):
            if not -n <= first < n:
                raise IndexError(f"index {first} is out of bounds for axis 0 with size {n}")
            value: np.ndarray[Any, Any] = self.read(np.array([first % n]), tuple(rest))[0]
            return value
        rows = np.arange(*first.indices(n)) if isinstance(first, slice) else np.arange(n)[first]
        return self.read(rows, tuple(rest))

    def read(self, rows: Int, rest: tuple[Any, ...]) -> np.ndarray[Any, Any]:
        """Values of some rows; ``rest`` indexes the other axes."""
        raise NotImplementedError

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        card = self.store.card
        return (type(self).__name__, card.path, card.fingerprint, self.shape, str(self.dtype), *self._token())

    def _token(self) -> tuple[Any, ...]:
        recording = self.store.recording
        return (recording.number, recording.n_buffers, str(recording.runs[0]), self.store.card.salvage)


class Pixels(CardArray):
    """Video: uint8 (frame, y, x)."""

    def __init__(self, store: RecordingStore) -> None:
        shape = (store.frames.count, store.recording.height, store.recording.width)
        super().__init__(store, shape, np.dtype(np.uint8))

    def read(self, rows: Int, rest: tuple[Any, ...]) -> np.ndarray[Any, Any]:
        """Whole frames where all of them is wanted, else in batches of bounded memory."""
        if all(_is_all(k, n) for k, n in zip(rest, self.shape[1:], strict=True)):
            return self.store.pixels(rows)
        parts = [
            _outer(self.store.pixels(rows[at : at + _BATCH]), rest).copy()
            for at in range(0, len(rows), _BATCH)
        ]  # fmt: skip
        return np.concatenate(parts) if parts else _outer(np.empty((0, *self.shape[1:]), np.uint8), rest)


def _is_all(key: Any, n: int) -> bool:
    return isinstance(key, slice) and key.indices(n) == (0, n, 1)


def _outer(values: np.ndarray[Any, Any], rest: tuple[Any, ...]) -> np.ndarray[Any, Any]:
    """Index y and x independently of each other."""
    y, x = rest
    return values[:, y][..., x]


class FrameColumn(CardArray):
    """One value a frame, from the headers on the card.

    ``name`` is ``"time"``, ``"time_last"``, ``"buffers_present"``, ``"complete"`` or a header field's name.
    """

    def __init__(self, store: RecordingStore, name: str, dtype: np.dtype[Any], scale: float | None = None) -> None:
        super().__init__(store, (store.frames.count,), dtype)
        self.name = name
        self.scale = scale

    def read(self, rows: Int, rest: tuple[Any, ...]) -> np.ndarray[Any, Any]:
        """Read the headers of these frames and take one value of each."""
        found = self.store.describe(rows)
        if self.name == "buffers_present":
            return found.present
        if self.name == "complete":
            return found.complete
        if self.name in ("time", "time_last"):
            return self._times(found)
        values = found.first[self.name]
        return values * self.scale if self.scale else values

    def prober(self) -> Callable[[int], Any]:
        """Return a function that gives one row's time from one header (None for a blank frame)."""
        source = self.store.card.source()

        def time_of(row: int) -> Any:
            raw = self.store.frames.first_timestamp(source, row)
            if raw is None:
                return None
            time = int(raw // self.store.recording.ticks)
            return np.timedelta64(time, "ms") if self.dtype.kind == "m" else time

        return time_of

    def _times(self, found: FrameRows) -> np.ndarray[Any, Any]:
        raw = (found.first if self.name == "time" else found.last)["timestamp"]
        times = (raw // self.store.recording.ticks).astype(np.int64)
        if self.dtype.kind != "m":
            return np.where(found.present > 0, times, np.iinfo(np.int64).min)
        values = times.astype("timedelta64[ms]")
        values[found.present == 0] = np.timedelta64("NaT")
        return values

    def _token(self) -> tuple[Any, ...]:
        return (*super()._token(), self.name, self.scale)


class FrameNumbers(CardArray):
    """Frame numbers: arithmetic, no reads."""

    def __init__(self, store: RecordingStore) -> None:
        super().__init__(store, (store.frames.count,), np.dtype(np.int64))

    def read(self, rows: Int, rest: tuple[Any, ...]) -> np.ndarray[Any, Any]:
        """Frame numbers of some rows."""
        return self.store.frames.frame_num(rows)


class BufferColumn(CardArray):
    """One word of every buffer header, as it is on the card."""

    def __init__(self, store: RecordingStore, name: str, dtype: np.dtype[Any], scale: float | None) -> None:
        super().__init__(store, (store.recording.n_buffers,), dtype)
        self.name = name
        self.scale = scale

    def read(self, rows: Int, rest: tuple[Any, ...]) -> np.ndarray[Any, Any]:
        """Return the word of these buffers' headers, scaled where the layout says so."""
        if self.name == "sector":
            return self.store.buffer_sectors(rows)
        values = self.store.buffer_rows(rows)[self.name]
        return values * self.scale if self.scale else values

    def _token(self) -> tuple[Any, ...]:
        return (*super()._token(), self.name, self.scale)
