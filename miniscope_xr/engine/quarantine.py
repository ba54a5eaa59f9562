"""All that is used of xarray's inside, in one place: what its next version may move is mended here.

Variables over a card: their dask keys name the card, one frame of them is cheap to take, any chunks may be asked for.
Each of these only replaces something slower (or a warning), or refuses what would lose frames: where xarray has other
insides, it falls back on xarray's own way.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any

import numpy as np
import xarray as xr
from xarray.core import indexing

__all__ = ["CardVariable", "PreferredChunks", "indexing", "lazy_variable", "open_mfdataset_calls"]

_ALL = slice(None)
_WHOLE = {n: indexing.BasicIndexer((_ALL,) * n) for n in (1, 3)}
"""All of an array of n dimensions: made once for the some 17 variables of each recording that is opened."""
# whether a variable of this xarray is these four things and nothing else
_PLAIN = {"_dims", "_data", "_attrs", "_encoding"} == {
    name for kind in xr.Variable.__mro__ for name in getattr(kind, "__slots__", ("?",) * (kind is not object))
}


class _Row(indexing.ExplicitlyIndexedNDArrayMixin):
    """One row of a lazy array; even the indexing waits until somebody looks at it.

    Selecting one frame cuts every coordinate with it, a dozen of them that are seldom looked at. What it becomes
    then is what xarray would have made of it (cached, copied before it is written to).
    """

    __slots__ = ("cached", "lazy", "made", "position")

    def __init__(self, lazy: indexing.LazilyIndexedArray, position: int, cached: bool) -> None:
        self.lazy = lazy
        self.position = position
        self.cached = cached
        self.made: Any = None  # set once and never taken back: several threads may look at one row

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.lazy.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = self.lazy.dtype
        return dtype

    def _now(self) -> Any:
        made = self.made
        if made is None:
            rest = (_ALL,) * (len(self.lazy.shape) - 1)
            made = indexing.CopyOnWriteArray(self.lazy[indexing.BasicIndexer((self.position, *rest))])
            if self.cached:
                made = indexing.MemoryCachedArray(made)  # type: ignore[no-untyped-call]
            self.made = made
        return made

    def __array__(self, dtype: Any = None, /, *, copy: bool | None = None) -> np.ndarray[Any, Any]:
        values = np.asarray(self.get_duck_array(), dtype=dtype)
        return values.copy() if copy else values

    def get_duck_array(self) -> Any:
        image = None
        if self.made is None and _is_uncut(self.lazy):
            image = self.lazy.array.single(self.position)
        if image is None:
            return self._now().get_duck_array()
        if self.cached:
            self.made = indexing.as_indexable(image)  # type: ignore[no-untyped-call]
        return image

    async def async_get_duck_array(self) -> Any:
        return await self._now().async_get_duck_array()

    def __getitem__(self, indexer: Any) -> Any:
        return self._now()[indexer]

    def _oindex_get(self, indexer: Any) -> Any:
        return self._now().oindex[indexer]

    def _vindex_get(self, indexer: Any) -> Any:
        return self._now().vindex[indexer]

    def __setitem__(self, indexer: Any, value: Any) -> None:
        self._now()[indexer] = value

    def _oindex_set(self, indexer: Any, value: Any) -> None:
        self._now().oindex[indexer] = value

    def _vindex_set(self, indexer: Any, value: Any) -> None:
        self._now().vindex[indexer] = value

    def transpose(self, order: Any) -> Any:
        return self._now().transpose(order)


def _is_uncut(lazy: indexing.LazilyIndexedArray) -> bool:
    """Whether nothing of the array was cut off: one frame of it can be read without xarray's layers."""
    key = lazy.key
    return isinstance(key, indexing.BasicIndexer) and all(part == _ALL for part in key.tuple)


def _still_lazy(data: Any) -> tuple[indexing.LazilyIndexedArray | None, bool]:
    """The array behind xarray's wrappers where nothing of it was loaded or written; whether it will be cached."""
    cached = type(data) is indexing.MemoryCachedArray
    if cached:
        data = data.array
    if type(data) is indexing.CopyOnWriteArray:
        data = data.array
    return data if type(data) is indexing.LazilyIndexedArray else None, cached


class CardVariable(xr.Variable):
    """A variable whose dask keys carry the card's fingerprint.

    xarray names dask arrays by path and modification time, and a device node's time says nothing about the
    card in the reader: two cards read through one slot would share keys and silently mix.
    """

    __slots__ = ()

    def to_base_variable(self) -> xr.Variable:
        """Return a copy of this class: xarray makes base variables of all coordinates, and those forget the card."""
        return type(self)(self._dims, self._data, self._attrs, self._encoding, fastpath=True)  # type: ignore[arg-type]

    to_variable = to_base_variable

    def isel(self, indexers: Any = None, missing_dims: Any = "raise", **kwargs: Any) -> Any:
        """Index as xarray does; one row of a lazy variable costs next to nothing before it is looked at."""
        if indexers and self._dims and not kwargs and missing_dims == "raise":
            position = indexers.get(self._dims[0])
            if isinstance(position, np.integer):
                position = int(position)
            if type(position) is int and (len(indexers) == 1 or self._alone(indexers)):
                lazy, cached = _still_lazy(self._data)
                if lazy is not None and -(count := lazy.shape[0]) <= position < count:
                    return self._of(_Row(lazy, position % count, cached))
        return super().isel(indexers, missing_dims, **kwargs)

    def _alone(self, indexers: Mapping[Any, Any]) -> bool:
        """Whether nothing is cut off along the other dimensions than the first."""
        first, *others = self._dims
        return all(
            name == first or (name in others and isinstance(key, slice) and key == _ALL)
            for name, key in indexers.items()
        )

    def _of(self, data: Any) -> Any:
        """One row, made without the checks of the constructor: a frame has some 17 coordinates."""
        if not _PLAIN:
            return type(self)(self._dims[1:], data, self._attrs, self._encoding, fastpath=True)
        row = object.__new__(type(self))
        row._dims = self._dims[1:]
        row._data = data
        row._attrs = None if self._attrs is None else dict(self._attrs)
        row._encoding = None if self._encoding is None else dict(self._encoding)
        return row

    def chunk(self, chunks: Any = {}, *args: Any, **kwargs: Any) -> xr.Variable:  # type: ignore[override]  # noqa: B006
        """Chunk as xarray does, under a name that tells cards apart."""
        options = dict(kwargs.get("from_array_kwargs") or {})
        token = self.encoding.get("card")
        if token and isinstance(options.get("name"), str):
            options["name"] = f"{options['name']}-{token}"
            kwargs["from_array_kwargs"] = options
        chunked = super().chunk(chunks, *args, **kwargs)
        return xr.Variable(chunked.dims, chunked.data, chunked.attrs, chunked.encoding, fastpath=True)


class PreferredChunks(dict[str, int]):
    """Sizes of chunks that are good to read, where none is stored.

    ``chunks={}`` takes them. xarray also compares them with the chunks somebody asks for, and warns that those
    separate stored ones: it looks them up without a default then, and finds nothing.
    """

    def get(self, name: str, default: Any = None) -> Any:
        """Return a size for those who have a default for it."""
        return default if default is None else super().get(name, default)

    def __getitem__(self, name: str) -> int:
        raise KeyError(name)


def lazy_variable(dims: tuple[str, ...], array: Any, chunks: dict[str, int], attrs: dict[str, Any]) -> xr.Variable:
    """Make a variable of an array that reads the card when it is looked at."""
    encoding = {"preferred_chunks": PreferredChunks(chunks), "card": array.opened.card.fingerprint}
    return CardVariable(dims, indexing.LazilyIndexedArray(array, _WHOLE[len(dims)]), attrs, encoding, fastpath=True)


def open_mfdataset_calls() -> Iterator[dict[str, Any]]:
    """What each ``open_mfdataset`` that runs now was told; with ``parallel=True`` it waits in another thread."""
    for frame in list(sys._current_frames().values()):
        at: FrameType | None = frame
        while at is not None:
            if at.f_code.co_name == "open_mfdataset" and at.f_globals.get("__name__") == "xarray.backends.api":
                yield dict(at.f_locals)
            at = at.f_back
