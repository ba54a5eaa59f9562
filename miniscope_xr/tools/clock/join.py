"""``ds.miniscope.join``: the recordings of one session as one, with times that never run back."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import xarray as xr

from miniscope_xr.errors import OptionError
from miniscope_xr.tools.clock.align import PAIR
from miniscope_xr.tools.stream.libraries import need
from miniscope_xr.tools.stream.timing import WALL, frame_numbers, frame_rate

_MOST_APART = 0.02
"""Of the frame rate: recordings that differ by more are no one film."""


def join(recordings: Sequence[xr.Dataset], apart: float | None = None) -> xr.Dataset:
    """Put recordings behind each other; nothing of their pixels is read yet.

    Parameters
    ----------
    recordings
        Of one card or of several. Where all were aligned, in the order of their ``wall_time``; else in the order given.
    apart
        s between the end of one and the start of the next, where they were not aligned. None: one frame, and
        ``attrs["joined"]`` says that it is not known.

    Returns
    -------
    Dataset with coordinates along ``frame``: ``recording`` (0, 1, ... in this order), ``time`` that runs on from one to
    the next, ``frame_num`` that counts on; ``frame`` counts all rows. What the recordings' attributes differ in is left
    out; ``attrs["recordings"]`` says where each comes from and which row it begins at.

    Raises
    ------
    OptionError
        They do not fit each other: sizes, frame rates, times that overlap, or only some were aligned.
    """
    need("dask.array", "dask", "joining recordings")
    if len(recordings) < 2:
        raise OptionError("join: give at least one other recording")
    _refuse_unlike(recordings)
    dated = [WALL in ds.coords for ds in recordings]
    if any(dated) and not all(dated):
        raise OptionError("join: some of the recordings were aligned and some were not; align all or none")
    if all(dated):
        if apart is not None:
            raise OptionError(f"apart={apart!r}: the recordings were aligned and say themselves how far apart they are")
        recordings = sorted(recordings, key=lambda ds: ds[WALL].values[0])
    starts = _by_date(recordings) if all(dated) else _one_behind_the_other(recordings, apart)
    parts, row, number = [], 0, 0
    for k, (ds, start) in enumerate(zip(recordings, starts, strict=True)):
        parts.append(_placed(ds, k, start, row, number))
        row += ds.sizes["frame"]
        number += int(frame_numbers(ds, slice(-1, None))[0]) + 1
    how: Any = {"data_vars": "minimal", "coords": "minimal", "compat": "override", "combine_attrs": "drop_conflicts"}
    both: xr.Dataset = xr.concat(parts, "frame", **how)
    rows = np.cumsum([0, *(ds.sizes["frame"] for ds in recordings)]).tolist()
    both.attrs["recordings"] = [
        f"{ds.encoding.get('source', '?')}, recording {int(ds.attrs.get('recording', 0))}, from row {first} on"
        for ds, first in zip(recordings, rows, strict=False)
    ]
    both.attrs["joined"] = (
        "by their wall_time" if all(dated) else f"{apart:g} s apart, as given" if apart is not None
        else "one frame apart: the time between the recordings is not known"
    )  # fmt: skip
    both.encoding["sources"] = [source for ds in recordings for source in _sources(ds)]
    return both


def _sources(ds: xr.Dataset) -> list[str]:
    return list(ds.encoding.get("sources") or [ds.encoding["source"]] if "source" in ds.encoding else [])


def _refuse_unlike(recordings: Sequence[xr.Dataset]) -> None:
    first = recordings[0]
    for k, ds in enumerate(recordings):
        for name in ("video", "time"):
            if name not in ds.variables:
                raise OptionError(f"join: recording {k} has no {name!r}; open the recording, not its group 'buffers'")
        if ds["video"].shape[1:] != first["video"].shape[1:] or ds["video"].dtype != first["video"].dtype:
            raise OptionError(
                f"join: frames of {first.sizes['x']}x{first.sizes['y']} {first['video'].dtype} and of "
                f"{ds.sizes['x']}x{ds.sizes['y']} {ds['video'].dtype} are not one film; crop or bin one of them"
            )
    rates = [frame_rate(ds) for ds in recordings if ds.sizes["frame"] > 1]
    if rates and max(rates) > (1 + _MOST_APART) * min(rates):
        raise OptionError(f"join: {min(rates):g} and {max(rates):g} frames/s are not one film; export each by itself")


def _ends(ds: xr.Dataset) -> tuple[Any, Any]:
    """The first and the last time of a recording."""
    first, last = (ds["time"].variable[row].values for row in (0, -1))
    if np.isnat(first) or np.isnat(last):
        raise OptionError("join: the first or last frame of a recording has no time; leave it out (.isel)")
    return first.astype("timedelta64[ms]"), last.astype("timedelta64[ms]")


def _by_date(recordings: Sequence[xr.Dataset]) -> list[Any]:
    """What is added to each recording's times so that all count from the first one's zero."""
    walls = [ds[WALL].values for ds in recordings]
    for k in range(1, len(walls)):
        if walls[k][0] <= walls[k - 1][-1]:
            raise OptionError(
                f"join: a recording ends at {walls[k - 1][-1]} and the next begins before, at {walls[k][0]}: two "
                "scopes at once are two films"
            )
    origin = walls[0][0] - _ends(recordings[0])[0]
    return [
        (wall[0] - origin).astype("timedelta64[ms]") - _ends(ds)[0] for wall, ds in zip(walls, recordings, strict=True)
    ]


def _one_behind_the_other(recordings: Sequence[xr.Dataset], apart: float | None) -> list[Any]:
    if apart is not None and not 0 < apart < 1e9:
        raise OptionError(f"apart={apart!r}: expected more than 0 s")
    added: list[Any] = [np.timedelta64(0, "ms")]
    for before, ds in pairwise(recordings):
        step = np.timedelta64(round(1000 * (apart or 1 / frame_rate(before))), "ms")
        added.append(added[-1] + _ends(before)[1] + step - _ends(ds)[0])
    return added


def _placed(ds: xr.Dataset, k: int, start: np.timedelta64, row: int, number: int) -> xr.Dataset:
    """One recording, lazily: its rows, times and numbers where they are in the whole."""
    preferred: Any = ds["video"].encoding.get("preferred_chunks") or {}
    size = int(preferred.get("frame", 256)) if ds["video"].chunks is None else None
    ds = ds.drop_dims([PAIR] if PAIR in ds.dims else [])
    if "time" in ds.indexes or "time" in ds.xindexes:
        ds = ds.drop_indexes("time")
    lazy = ds if size is None else ds.chunk({"frame": size})
    count = ds.sizes["frame"]
    moved = {"time": start, "time_last": start}
    coords: dict[str, Any] = {
        name: ("frame", lazy[name].data.astype("timedelta64[ms]") + by, ds[name].attrs)
        for name, by in moved.items()
        if name in ds.variables
    }
    if "frame_num" in ds.variables:
        coords["frame_num"] = "frame", lazy["frame_num"].data + number, ds["frame_num"].attrs
    coords["recording"] = "frame", np.full(count, k, np.int64), {"long_name": "which of the joined recordings"}
    coords["frame"] = "frame", np.arange(row, row + count), ds["frame"].attrs
    return lazy.assign_coords(coords)
