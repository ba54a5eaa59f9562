"""An index on ``time`` that bisects the card instead of reading every header.

The device's clock rises along a recording, so the few rows a label can mean are found by looking at single
headers; what the label then selects among them is decided by xarray's plain index. Whatever needs all times
(union, reindexing, comparison with another card) reads them once and behaves as the plain index does.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped,unused-ignore]
import xarray as xr
from xarray.indexes import Index, PandasIndex

from miniscope_xr.engine.arrays import FrameColumn
from miniscope_xr.engine.quarantine import CardVariable, indexing
from miniscope_xr.layout.arrays import Ints

_MANY = 64  # labels for which reading all headers is no more work than bisecting for each


class RowTimes:
    """Times of some rows of a recording, each looked up once."""

    def __init__(self, column: FrameColumn, rows: Ints) -> None:
        self.rows = rows
        self._time_of = column.prober()
        self._known: dict[int, Any] = {}

    def at(self, i: int) -> Any:
        """Time at position ``i``."""
        if i not in self._known:
            self._known[i] = self._time_of(int(self.rows[i]))
        return self._known[i]

    def first(self, holds: Callable[[Any], bool]) -> int:
        """Return the first position whose time fulfils what all later ones do; the number of rows if none does."""
        return bisect_left(range(len(self.rows)), True, key=lambda i: holds(self.at(i)))

    def around(self, start: int, stop: int) -> range:
        """Return the positions in [start, stop), and the nearest one on each side."""
        return range(max(start - 1, 0), min(stop + 1, len(self.rows)))

    @property
    def rises(self) -> bool:
        """Whether the times that were looked at are in order."""
        times = [time for _, time in sorted(self._known.items())]
        return all(a <= b for a, b in pairwise(times))


class TimeIndex(Index):
    """Index of the ``time`` of a card's frames.

    Parameters
    ----------
    name, dim
        Of the coordinate.
    column : FrameColumn or None
        Times on the card.
    rows : int64 array or None
        Rows of the card's frame axis that are indexed.
    plain : PandasIndex or None
        All times, where they were read or come from elsewhere; needed if there is no column.
    """

    def __init__(
        self,
        name: Hashable,
        dim: Hashable,
        column: FrameColumn | None,
        rows: Ints | None,
        plain: PandasIndex | None = None,
    ) -> None:
        self.name, self.dim = name, dim
        self.column, self.rows = column, rows
        self._plain = plain

    @classmethod
    def of(cls, plain: PandasIndex) -> TimeIndex:
        """Wrap times that are known."""
        return cls(plain.index.name, plain.dim, None, None, plain)

    @property
    def plain(self) -> PandasIndex:
        """The plain index of all times; reads every header the first time."""
        if self._plain is None:
            assert self.column is not None
            assert self.rows is not None
            times = pd.Index(self.column.read(self.rows, ()), name=self.name)
            self._plain = PandasIndex(times, self.dim, coord_dtype=self.column.dtype)
        return self._plain

    def __repr__(self) -> str:
        known = "not read" if self._plain is None else repr(self._plain)
        return f"<TimeIndex of {self.name!r} along {self.dim!r}, {known}>"

    # -- what xarray asks ---------------------------------------------------------------------------------

    @classmethod
    def from_variables(cls, variables: Mapping[Any, xr.Variable], *, options: Mapping[str, Any]) -> TimeIndex:
        """Index times for ``set_xindex``: those of a ``column`` of the card are not read."""
        column = options.get("column")
        if column is not None:
            ((name, variable),) = variables.items()
            return cls(name, variable.dims[0], column, np.arange(variable.size))
        return cls.of(PandasIndex.from_variables(variables, options=options))

    @classmethod
    def concat(
        cls, indexes: Sequence[Any], dim: Hashable, positions: Iterable[Iterable[int]] | None = None
    ) -> TimeIndex:
        """Join the times of several recordings, plain indexes among them."""
        return cls.of(PandasIndex.concat([_plain(index) for index in indexes], dim, positions))

    def create_variables(self, variables: Mapping[Any, xr.Variable] | None = None) -> dict[Any, xr.Variable]:
        """Make the coordinate: lazy as long as the times are not known."""
        if self._plain is not None or self.column is None or self.rows is None:
            return dict(self.plain.create_variables(variables))
        old = (variables or {}).get(self.name)
        attrs, encoding = (None, None) if old is None else (old.attrs, old.encoding)
        times: Any = indexing.LazilyIndexedArray(self.column, indexing.OuterIndexer((self.rows,)))
        data: Any = indexing.MemoryCachedArray(indexing.CopyOnWriteArray(times))  # type: ignore[no-untyped-call]
        return {self.name: CardVariable((self.dim,), data, attrs, encoding, fastpath=True)}

    def to_pandas_index(self) -> pd.Index:
        """All times as a pandas index."""
        return self.plain.index

    def isel(self, indexers: Mapping[Any, Any]) -> TimeIndex | None:
        """Index by position; lazy times stay lazy."""
        key = indexers[self.dim]
        if self._plain is not None or self.rows is None:
            taken = self.plain.isel(indexers)
            return None if taken is None else type(self).of(taken)
        if isinstance(key, xr.Variable):
            if key.dims != (self.dim,):
                return None
            key = key.data
        if np.ndim(key) == 0 and not isinstance(key, slice):
            return None
        return type(self)(self.name, self.dim, self.column, self.rows[key])

    def sel(self, labels: dict[Any, Any], method: str | None = None, tolerance: Any = None) -> Any:
        """Find what the plain index finds, by bisecting the card where that is less work."""
        label = labels[self.name]
        if self._plain is not None or self.column is None or self.rows is None or (np.diff(self.rows) <= 0).any():
            return self.plain.sel(labels, method, tolerance)
        clock = RowTimes(self.column, self.rows)
        find = self._slice if isinstance(label, slice) else self._points
        found = None
        try:
            found = find(clock, label, method, tolerance)
        except KeyError:
            if clock.rises:
                raise
        except (TypeError, ValueError, AttributeError):
            pass  # the label is none: the plain index says so best
        return found if found is not None and clock.rises else self.plain.sel(labels, method, tolerance)

    def join(self, other: Any, how: str = "inner") -> TimeIndex:
        """Union or intersection of two recordings' times."""
        return type(self).of(self.plain.join(_plain(other), how))

    def reindex_like(self, other: Any, method: Any = None, tolerance: Any = None) -> dict[Hashable, Any]:
        """Positions of another index's times in this one."""
        return dict(self.plain.reindex_like(_plain(other), method, tolerance))

    def equals(self, other: Index, **options: Any) -> bool:
        """Whether the times are equal; the same rows of the same card are without being read."""
        if not isinstance(other, TimeIndex):
            return False
        if self.column is not None and other.column is not None and self.rows is not None and other.rows is not None:
            same = self.column.__dask_tokenize__() == other.column.__dask_tokenize__()
            if same and self.dim == other.dim and np.array_equal(self.rows, other.rows):
                return True
        return bool(self.plain.equals(other.plain))

    def roll(self, shifts: Mapping[Any, int]) -> TimeIndex:
        """Shift the times around."""
        return type(self).of(self.plain.roll(shifts))

    def rename(self, name_dict: Mapping[Any, Hashable], dims_dict: Mapping[Any, Hashable]) -> TimeIndex:
        """Rename the coordinate or its dimension."""
        name, dim = name_dict.get(self.name, self.name), dims_dict.get(self.dim, self.dim)
        known: Any = self._plain
        plain = None if known is None else known.rename(name_dict, dims_dict)
        return type(self)(name, dim, self.column, self.rows, plain)

    def _copy(self, deep: bool = True, memo: dict[int, Any] | None = None) -> TimeIndex:
        plain = None if self._plain is None else self._plain.copy(deep)
        return type(self)(self.name, self.dim, self.column, self.rows, plain)

    # -- selecting ------------------------------------------------------------------------------------------

    def _few(self, times: list[Any]) -> PandasIndex:
        assert self.column is not None
        values = np.array(times, dtype=self.column.dtype)
        return PandasIndex(pd.Index(values, name=self.name), self.dim, coord_dtype=self.column.dtype)

    def _slice(self, clock: RowTimes, label: slice, method: Any, tolerance: Any) -> Any:
        """Find both ends; whether a time lies behind an end is for pandas to say ("60s" may mean a whole minute)."""
        if method is not None or tolerance is not None or not (label.step is None or isinstance(label.step, int)):
            raise ValueError

        def inside(part: slice) -> Callable[[Any], bool]:
            return lambda time: bool(range(1)[self._few([time]).sel({self.name: part}).dim_indexers[self.dim]])

        n = len(clock.rows)
        start = 0 if label.start is None else clock.first(inside(slice(label.start, None)))
        before_end = inside(slice(None, label.stop))
        stop = n if label.stop is None else clock.first(lambda time: not before_end(time))
        return indexing.IndexSelResult({self.dim: slice(start, stop, label.step)})

    def _points(self, clock: RowTimes, label: Any, method: Any, tolerance: Any) -> Any:
        """Look up labels among the few rows they can mean."""
        assert self.column is not None
        values = np.asarray(getattr(label, "values", label))
        if values.dtype.kind == "b" or not 0 < values.size <= _MANY:
            raise ValueError
        wanted = values.reshape(-1).tolist() if values.dtype.kind in "OU" else list(values.reshape(-1))
        if self.column.dtype.kind == "m":
            wanted = [pd.Timedelta(value).to_timedelta64() for value in wanted]
        rows: set[int] = set()
        for value in wanted:
            left = clock.first(lambda time, value=value: bool(time >= value))  # type: ignore[misc]
            right = clock.first(lambda time, value=value: bool(time > value))  # type: ignore[misc]
            rows.update(clock.around(left, right))
        near = np.array(sorted(rows), np.int64)
        found = self._few([clock.at(i) for i in near.tolist()]).sel({self.name: label}, method, tolerance)
        return indexing.IndexSelResult({self.dim: _places(near, found.dim_indexers[self.dim])})


def _plain(index: Any) -> PandasIndex:
    """The plain index behind one of ours, or the index itself."""
    plain: PandasIndex = index.plain if isinstance(index, TimeIndex) else index
    return plain


def _places(near: Ints, found: Any) -> Any:
    """Positions among all rows, from positions among the ``near`` ones."""
    if isinstance(found, slice) and found.step not in (None, 1):
        return near[found]
    if isinstance(found, slice):
        chosen = near[found]
        return slice(int(chosen[0]), int(chosen[-1]) + 1) if len(chosen) else slice(0, 0)
    if isinstance(found, xr.Variable | xr.DataArray):
        return found.copy(data=near[np.asarray(found.values)])
    positions = near[found]
    return int(positions) if np.ndim(positions) == 0 else positions
