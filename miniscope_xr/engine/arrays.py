"""Lazy arrays over a card: pixels, per-frame coordinates, buffer table columns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
from xarray.backends import BackendArray

from miniscope_xr.card import OpenRecording
from miniscope_xr.engine.quarantine import indexing
from miniscope_xr.layout import Field, words
from miniscope_xr.layout.arrays import Array, Ints

_BATCH = 512  # frames in memory at once when only a part of each is wanted


class CardArray(BackendArray):
    """An array that reads a card when indexed. Outer indexing: basic alone would read the whole span of a list."""

    def __init__(self, opened: OpenRecording, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.opened = opened
        self.shape = shape
        self.dtype = dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        if isinstance(key, indexing.BasicIndexer):
            return self._get(key.tuple)  # nothing for the adapter to take apart
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._get)

    async def async_getitem(self, key: indexing.ExplicitIndexer) -> Any:
        """Index in a worker thread (reads need no lock)."""
        return await asyncio.to_thread(self.__getitem__, key)

    def _get(self, key: tuple[Any, ...]) -> Array:
        first, *rest = key
        n = self.shape[0]
        if isinstance(first, int | np.integer):
            if not -n <= first < n:
                raise IndexError(f"index {first} is out of bounds for axis 0 with size {n}")
            value: Array = self.read(np.array([first % n]), tuple(rest))[0]
            return value
        rows = np.arange(*first.indices(n)) if isinstance(first, slice) else np.arange(n)[first]
        return self.read(rows, tuple(rest))

    def single(self, row: int) -> Array | None:
        """Return one row by a shorter way, where there is one."""
        return None

    def read(self, rows: Ints, rest: tuple[Any, ...]) -> Array:
        """Values of some rows; ``rest`` indexes the other axes."""
        raise NotImplementedError

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        card = self.opened.card
        return (type(self).__name__, card.path, card.fingerprint, self.shape, str(self.dtype), *self._token())

    def _token(self) -> tuple[Any, ...]:
        recording = self.opened.recording
        return (recording.number, recording.n_buffers, str(recording.runs[0]), self.opened.card.tolerant)


class Pixels(CardArray):
    """Video (frame, y, x): uint8, or float32 where pixels that are not on the card are NaN."""

    def __init__(self, opened: OpenRecording) -> None:
        shape = (opened.frames.count, opened.recording.height, opened.recording.width)
        super().__init__(opened, shape, np.dtype(np.float32 if opened.nan else np.uint8))

    def single(self, row: int) -> Array:
        """One frame."""
        return self.opened.image(row)

    def read(self, rows: Ints, rest: tuple[Any, ...]) -> Array:
        """Whole frames where all of them is wanted, else in batches of bounded memory."""
        if all(_is_all(k, n) for k, n in zip(rest, self.shape[1:], strict=True)):
            return self.opened.pixels(rows)
        parts = [
            _outer(self.opened.pixels(rows[at : at + _BATCH]), rest).copy()
            for at in range(0, len(rows), _BATCH)
        ]  # fmt: skip
        return np.concatenate(parts) if parts else _outer(np.empty((0, *self.shape[1:]), self.dtype), rest)


def _is_all(key: Any, n: int) -> bool:
    return isinstance(key, slice) and key.indices(n) == (0, n, 1)


def _outer(values: Array, rest: tuple[Any, ...]) -> Array:
    """Index y and x independently of each other."""
    y, x = rest
    return values[:, y][..., x]


class FrameColumn(CardArray):
    """What all headers of a frame tell together: its times, which buffers it has, whether it is complete.

    ``name`` is ``"time"``, ``"time_last"``, ``"buffers_present"`` or ``"complete"``.
    """

    def __init__(self, opened: OpenRecording, name: str, dtype: np.dtype[Any]) -> None:
        super().__init__(opened, (opened.frames.count,), dtype)
        self.name = name

    def read(self, rows: Ints, rest: tuple[Any, ...]) -> Array:
        """Read the headers of these frames and take one value of each."""
        if self.name in ("time", "time_last"):
            return self._as_time(self.opened.times(rows, end=self.name == "time_last"))
        found = self.opened.describe(rows)
        return found.complete if self.name == "complete" else found.present

    def prober(self) -> Callable[[int], Any]:
        """Return a function that gives one row's time, from one header where that can be."""
        source = self.opened.card.source()
        return lambda row: self._as_time(np.array([self.opened.time_of(row, source)]))[0]

    def _as_time(self, times: Array) -> Array:
        """Durations, or whole numbers of ms; what is not known is NaT, or the least number there is."""
        whole = np.where(np.isnan(times), np.iinfo(np.int64).min, times).astype(np.int64)
        return whole.astype("timedelta64[ms]") if self.dtype.kind == "m" else whole

    def _token(self) -> tuple[Any, ...]:
        return (*super()._token(), self.name)


class FrameNumbers(CardArray):
    """Frame numbers: arithmetic, no reads."""

    def __init__(self, opened: OpenRecording) -> None:
        super().__init__(opened, (opened.frames.count,), np.dtype(np.int64))

    def read(self, rows: Ints, rest: tuple[Any, ...]) -> Array:
        """Frame numbers of some rows."""
        return self.opened.frames.frame_num(rows)


def _field_dtype(item: Field, scaled: bool) -> np.dtype[Any]:
    measured = item.scale is not None or item.none is not None
    return np.dtype(np.float64) if scaled and measured else words.value_dtype(item)


class FrameField(CardArray):
    """A field of the header of each frame's first buffer on the card.

    Parameters
    ----------
    item : Field
    scaled : bool
        In physical units, NaN where nothing was measured or the frame has no buffer on the card; else raw.
    """

    def __init__(self, opened: OpenRecording, item: Field, scaled: bool) -> None:
        super().__init__(opened, (opened.frames.count,), _field_dtype(item, scaled))
        self.item = item

    def read(self, rows: Ints, rest: tuple[Any, ...]) -> Array:
        """Read the headers of these frames and take the field out of each."""
        found = self.opened.describe(rows, whole=False)
        raw: Array = words.value(self.item, found.first)
        if self.dtype.kind != "f":
            return raw
        physical: Array = words.physical(self.item, raw)
        physical[found.present == 0] = np.nan
        return physical

    def _token(self) -> tuple[Any, ...]:
        return (*super()._token(), repr(self.item))


class BufferField(CardArray):
    """A field of every buffer's header, as it is on the card."""

    def __init__(self, opened: OpenRecording, item: Field, scaled: bool) -> None:
        super().__init__(opened, (opened.recording.n_buffers,), _field_dtype(item, scaled))
        self.item = item

    def read(self, rows: Ints, rest: tuple[Any, ...]) -> Array:
        """Read these buffers' headers and take the field out of each."""
        raw = words.value(self.item, self.opened.buffer_rows(rows))
        values: Array = words.physical(self.item, raw) if self.dtype.kind == "f" else raw
        return values

    def _token(self) -> tuple[Any, ...]:
        return (*super()._token(), repr(self.item))


class BufferSectors(CardArray):
    """The sector of every buffer: arithmetic, no reads."""

    def __init__(self, opened: OpenRecording) -> None:
        super().__init__(opened, (opened.recording.n_buffers,), np.dtype(np.int64))

    def read(self, rows: Ints, rest: tuple[Any, ...]) -> Array:
        """Sectors of some buffers."""
        return self.opened.buffer_sectors(rows)
