"""Zarr: one store that ``xr.open_zarr`` gives back as it was."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import xarray as xr

from miniscope_xr.tools.export.job import ExportJob
from miniscope_xr.tools.export.patient import writable
from miniscope_xr.tools.stream.libraries import need


def write_store(job: ExportJob, path: Path, name: str, dims: tuple[str, str, str], zarr_format: int) -> xr.Dataset:
    """Stream the frames into an array of a new store, then its header values; return these."""
    zarr = need("zarr", "zarr")
    footage = job.footage
    group = zarr.open_group(writable(str(path)), mode="w", zarr_format=zarr_format)
    # in format 2 a fill value marks missing pixels for xarray, which would make them float
    options: dict[str, Any] = {"dimension_names": dims} if zarr_format == 3 else {"fill_value": None}
    array = group.create_array(
        name,
        shape=(footage.count, footage.height, footage.width),
        chunks=(footage.step, footage.height, footage.width),
        dtype="uint8",
        config={"write_empty_chunks": True},  # else every chunk is compared with black, in memory of its own
        **options,
    )
    attrs = dict(footage.ds["video"].attrs)
    array.attrs.update(attrs if zarr_format == 3 else {**attrs, "_ARRAY_DIMENSIONS": list(dims)})
    for rows, images in job.parts():
        array[rows] = images
    return footage.headers()


def add_headers(headers: xr.Dataset, path: Path, zarr_format: int) -> None:
    """Write the coordinates and attributes of a store, and its table of contents."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        headers.to_zarr(writable(str(path)), mode="a", zarr_format=zarr_format, consolidated=True)


def write(job: ExportJob) -> None:
    """Write format 3: video (frame, y, x) with every header coordinate."""
    if not job.ome:
        add_headers(write_store(job, job.path, "video", ("frame", "y", "x"), 3), job.path, 3)
        return
    headers = write_store(job, job.path, "video", ("t", "y", "x"), 3)
    add_headers(headers.rename(frame="t").assign_attrs(ome=_multiscales(job)), job.path, 3)


def _multiscales(job: ExportJob) -> dict[str, Any]:
    """Metadata of OME-Zarr 0.5: one image of one resolution, its axes, and s from frame to frame."""
    scale = {"type": "scale", "scale": [1 / job.fps, 1.0, 1.0]}
    axes = [
        {"name": "t", "type": "time", "unit": "second"},
        {"name": "y", "type": "space"},
        {"name": "x", "type": "space"},
    ]
    image = {"name": "video", "axes": axes, "datasets": [{"path": "video", "coordinateTransformations": [scale]}]}
    return {"version": "0.5", "multiscales": [image]}
