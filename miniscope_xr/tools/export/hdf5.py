"""HDF5: ``/mov`` with the other names programs look for, headers as one array a field."""

from __future__ import annotations

from typing import Any

import numpy as np

from miniscope_xr._version import SOFTWARE
from miniscope_xr.tools.export.job import ExportJob
from miniscope_xr.tools.export.surviving import surviving
from miniscope_xr.tools.stream.libraries import need
from miniscope_xr.tools.stream.timing import unix_seconds

_OTHER_NAMES = ("data", "1", "images")
"""suite2p reads ``data``; CIAtah ``/1``; NoRMCorre's and EXTRACT's examples ``images``."""


def write(job: ExportJob) -> None:
    """Stream the frames into ``/mov`` (frame, y, x); header values go to ``/headers``, gaps to ``/gaps``."""
    h5py = need("h5py", "hdf5")
    footage = job.footage
    shape = footage.count, footage.height, footage.width
    # no chunk cache: every chunk is written once and whole
    with surviving(job.path) as raw, h5py.File(raw, "w", rdcc_nbytes=0) as file:
        movie = file.create_dataset(
            "mov", shape, "u1", chunks=(footage.step, *shape[1:]), **compressed(job.compression)
        )
        for rows, images in job.parts():
            movie[rows] = images
            raw.check()
        for name in _OTHER_NAMES:
            file[name] = h5py.SoftLink("/mov")
        movie.attrs.update({"fr": job.fps, "start_time": float(job.seconds()[0]), "dimensions": "frame, y, x"})
        _write_headers(job, file.create_group("headers"))
        _write_gaps(job, file)
        file.attrs.update(job.settings())
        file.attrs["software"] = SOFTWARE


def compressed(level: int) -> dict[str, Any]:
    """How h5py and h5netcdf are told to compress: deflate, which every HDF5 library reads."""
    return {"compression": "gzip", "compression_opts": level} if level else {}


def _write_headers(job: ExportJob, headers: Any) -> None:
    """One array a field, as plain numbers: times in s, flags as uint8 (MATLAB and Octave skip HDF5's booleans)."""
    for name, values in job.footage.columns.items():
        attrs = dict(job.footage.ds[name].attrs)
        if values.dtype.kind == "m":
            values, attrs["units"] = job.seconds(name), "s"
        if values.dtype.kind == "M":
            values, attrs["units"] = unix_seconds(values), "s since 1970-01-01 UTC"
        headers[name] = values.astype(np.uint8) if values.dtype.kind == "b" else values
        headers[name].attrs.update(attrs)


def _write_gaps(job: ExportJob, file: Any) -> None:
    gaps = job.footage.gaps
    rows = [(gap.row, gap.first, gap.last) for gap in gaps]
    file["gaps"] = np.array(rows, np.int64).reshape(-1, 3)
    file["gaps"].attrs["columns"] = (
        "row before which frames are missing, first and last frame number missing (-1: only the clock shows the gap)"
    )
    file["gap_lengths"] = np.array([gap.count for gap in gaps], np.int64)
    file["gap_lengths"].attrs["long_name"] = "frames missing in each gap"
