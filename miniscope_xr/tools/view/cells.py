"""The traces of cells as a file of their own."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from miniscope_xr.errors import OptionError, plain
from miniscope_xr.tools.stream.libraries import need
from miniscope_xr.tools.stream.outputs import whole_file
from miniscope_xr.tools.view.measure import BATCH, masks_of, means
from miniscope_xr.tools.view.seen import Seen

_REST = 0.2  # F0 is the 20th percentile of a trace, as on the page


def save(seen: Seen, shapes: list[Mapping[str, Any]], names: list[str], path: Path) -> Generator[dict[str, Any]]:
    """Write the traces of some shapes to a new NetCDF file, and yield how far it is; last, ``written``, its path.

    Parameters
    ----------
    seen
        The recording.
    shapes, names
        Of the cells: circles and boxes (px), and what they are called.
    path
        Ends in ``.nc``. Where something is there already, a number is put behind its name.

    Raises
    ------
    OptionError
        A shape, the number of names, or the ending is wrong.
    MissingDependencyError
        h5netcdf is not installed.
    """
    if path.suffix != ".nc" or len(names) != len(shapes):
        raise OptionError("expected a file that ends in .nc, and a name for each cell")
    need("h5netcdf", "netcdf", "a NetCDF file of cells")
    masks = masks_of(seen, shapes)
    values, numbers, ms = np.empty((len(masks), seen.count)), np.empty(seen.count, np.int64), np.empty(seen.count)
    final = _free(path)
    with whole_file(final) as part:
        for start in range(0, seen.count, BATCH):
            rows = seen.rows(start, BATCH)
            values[:, rows] = means(seen, rows, masks)
            heads = seen.heads(rows)
            numbers[rows], ms[rows] = heads.numbers, heads.ms
            yield {"what": "cells", "done": int(rows[-1]) + 1, "of": seen.count}
        made = _dataset(seen, values, numbers, ms)
        made = made.assign_coords(cell=names, shape=("cell", [json.dumps(dict(shape)) for shape in shapes]))
        made.to_netcdf(part, engine="h5netcdf")
    yield {"what": "cells", "done": seen.count, "of": seen.count, "written": plain(str(final))}


def _dataset(seen: Seen, values: Any, numbers: Any, ms: Any) -> xr.Dataset:
    """The traces with what an analysis needs beside them."""
    rest = np.full((len(values), 1), np.nan)
    for k, trace in enumerate(values):
        known = np.sort(trace[np.isfinite(trace)])
        if len(known) and (base := known[int(_REST * (len(known) - 1))]):
            rest[k] = base
    times = np.where(np.isnan(ms), np.nan, ms / 1000)
    return xr.Dataset(
        {
            "F": (("cell", "frame"), values, {"long_name": "mean of the pixels; NaN where one is not on the card"}),
            "dff": (
                ("cell", "frame"),
                (values - rest) / rest,
                {"long_name": "(F - F0) / F0, F0: 20th percentile of F"},
            ),
        },
        {
            "frame": ("frame", np.arange(seen.count)),
            "frame_num": ("frame", numbers, {"long_name": "the Miniscope's number of the frame"}),
            "seconds": ("frame", times, {"long_name": "time stamp of the frame in s", "unit": "s"}),
        },
        {"source": plain(seen.path or ""), "recording": seen.number},
    )


def _free(path: Path) -> Path:
    """The path, with a number behind its name where something is there."""
    found, number = path, 1
    while os.path.lexists(found):
        number += 1
        found = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return found
