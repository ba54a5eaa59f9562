"""Variables over a card: their dask keys name the card, and one frame of them is cheap to take."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from xarray.core import indexing

from miniscope_xr.arrays import Pixels

_ALL = slice(None)
_WHOLE = (_ALL,) * 3
# whether a variable of this xarray is these four things and nothing else
_PLAIN = {"_dims", "_data", "_attrs", "_encoding"} == {
    name for kind in xr.Variable.__mro__ for name in getattr(kind, "__slots__", ("?",) * (kind is not object))
}


class _Row(indexing.ExplicitlyIndexedNDArrayMixin):
    """One row of a lazy array; even the indexing waits until somebody looks at it.

    Selecting one frame cuts every coordinate with it, a dozen of them that are seldom looked at. What it becomes
    then is what xarray would have made of it (cached, copied before it is written to).
    """

    __slots__ = ("array", "position")

    def __init__(self, array: indexing.ExplicitlyIndexed, position: int) -> None:
        self.array: Any = array
        self.position: int | None = position

    @property
    def shape(self) -> tuple[int, ...]:
        shape: tuple[int, ...] = tuple(self.array.shape)
        return shape if self.position is None else shape[1:]

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = self.array.dtype
        return dtype

    def _now(self) -> Any:
        if self.position is not None:
            rest = (slice(None),) * (len(self.array.shape) - 1)
            self.array, self.position = self.array[indexing.BasicIndexer((self.position, *rest))], None
        return self.array

    def __array__(self, dtype: Any = None, /, *, copy: bool | None = None) -> np.ndarray[Any, Any]:
        values = np.asarray(self.get_duck_array(), dtype=dtype)
        return values.copy() if copy else values

    def get_duck_array(self) -> Any:
        pixels = None if self.position is None else _whole_video(self.array)
        if pixels is None or self.position is None:
            return self._now().get_duck_array()
        image = pixels.image(self.position)
        if isinstance(self.array, indexing.MemoryCachedArray):
            self.array, self.position = indexing.as_indexable(image), None  # type: ignore[no-untyped-call]
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


def _whole_video(array: Any) -> Pixels | None:
    """The frames behind xarray's wrappers, where nothing was cut off or changed: reading one skips all of them."""
    for wrapper in (indexing.MemoryCachedArray, indexing.CopyOnWriteArray):
        if type(array) is wrapper:
            array = array.array
    if type(array) is not indexing.LazilyIndexedArray or not isinstance(array.array, Pixels):
        return None
    whole = isinstance(array.key, indexing.BasicIndexer) and array.key.tuple == _WHOLE
    return array.array if whole else None


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
        if indexers and not kwargs and isinstance(self._data, indexing.ExplicitlyIndexed):
            first, *others = self._dims
            position = indexers.get(first)
            if type(position) is int and all(
                name == first or (name in others and isinstance(key, slice) and key == _ALL)
                for name, key in indexers.items()
            ):
                return self._row(position)
        return super().isel(indexers, missing_dims, **kwargs)

    def _row(self, position: int) -> Any:
        """One row, made without the checks of the constructor: a frame has some 17 coordinates."""
        if not _PLAIN:
            data = _Row(self._data, position)  # type: ignore[arg-type]
            return type(self)(self._dims[1:], data, self._attrs, self._encoding, fastpath=True)
        row = object.__new__(type(self))
        row._dims = self._dims[1:]
        row._data = _Row(self._data, position)  # type: ignore[arg-type, assignment]
        row._attrs = self._attrs and dict(self._attrs)
        row._encoding = self._encoding and dict(self._encoding)
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
