"""NetCDF-4: one file that ``xr.open_dataset`` gives back as it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from miniscope_xr.tools.export.hdf5 import compressed
from miniscope_xr.tools.export.job import ExportJob
from miniscope_xr.tools.export.surviving import surviving
from miniscope_xr.tools.stream.libraries import need


def write(job: ExportJob) -> None:
    """Stream the frames, then add every header coordinate and the settings."""
    h5netcdf = need("h5netcdf", "netcdf")
    footage = job.footage
    sizes = {"frame": footage.count, "y": footage.height, "x": footage.width}
    with surviving(job.path) as raw, h5netcdf.File(raw, "w", rdcc_nbytes=0) as file:
        file.dimensions = sizes
        video = file.create_variable(
            "video", tuple(sizes), "u1", chunks=(footage.step, footage.height, footage.width),
            **compressed(job.compression),
        )  # fmt: skip
        for rows, images in job.parts():
            video[rows] = images
            raw.check()
        headers = footage.headers()
        if job.start_given:
            headers.attrs["recording_start"] = job.start.isoformat()
        variables, attrs = xr.conventions.cf_encoder(headers.variables, headers.attrs)
        for name, variable in variables.items():
            made = file.create_variable(str(name), variable.dims, variable.dtype, data=variable.values)
            made.attrs.update(_texts(variable.attrs))
        others = " ".join(str(name) for name in variables if name != "frame")
        video.attrs.update(_texts({**footage.ds["video"].attrs, "coordinates": others}))
        file.attrs.update(_texts(attrs))


def _texts(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """Text as characters, which every program reads; a list of texts has no such form, and is the lines of one."""
    made: dict[str, Any] = {}
    for name, value in attrs.items():
        if isinstance(value, list) and value and isinstance(value[0], str):
            value = "\n".join(value)
        made[str(name)] = np.bytes_(value.encode()) if isinstance(value, str) and value.isascii() else value
    return made
