"""TIFF: one page a frame that ImageJ opens with its time axis; header values as a table beside it.

Below 4 GB it is a classic TIFF, which every program reads; above, a BigTIFF. Settings and gaps are in the file: in
ImageJ's ``Info`` (Image > Show Info), and in the description of a BigTIFF or OME-TIFF.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from miniscope_xr._version import SOFTWARE
from miniscope_xr.tools.export.job import ExportJob
from miniscope_xr.tools.stream.footage import Images
from miniscope_xr.tools.stream.libraries import need

_CLASSIC = 2**32 - 2**20
_PAGE = 512
"""Bytes a page takes besides its pixels, generously."""


def _pages(job: ExportJob) -> Iterator[Images]:
    for _, images in job.parts():
        yield from images


def _about(job: ExportJob) -> dict[str, Any]:
    return {
        "fps": job.fps,
        "start": job.start.isoformat(),
        "start_source": job.start_source,
        "settings": job.settings(),
    }


def _gaps(job: ExportJob) -> list[dict[str, int]]:
    return [{"row": gap.row, "count": gap.count, "first": gap.first, "last": gap.last} for gap in job.footage.gaps]


def write(job: ExportJob) -> None:
    """Stream the pages, then write ``<name>_headers.csv``: a row a frame, times in ms."""
    footage = job.footage
    big = footage.count * (footage.width * footage.height + _PAGE) > _CLASSIC
    if job.ome:
        _write(job, {"ome": True, "bigtiff": big}, _ome(job))
    elif big:
        _write(job, {"bigtiff": True}, {"axes": "TYX", **_about(job)})
        _describe_shaped(job)
    else:
        times = {"fps": job.fps, "finterval": 1 / job.fps, "tunit": "sec", "unit": "pixel"}
        _write(job, {"imagej": True}, {"axes": "TYX", **times, "Info": json.dumps(_about(job))})
        _describe_imagej(job)
    job.write_table()


def _write(job: ExportJob, kind: dict[str, Any], metadata: dict[str, Any]) -> None:
    footage = job.footage
    with need("tifffile", "tiff").TiffWriter(job.path, **kind) as file:
        file.write(
            _pages(job), shape=(footage.count, footage.height, footage.width), dtype="uint8",
            photometric="minisblack", software=SOFTWARE, metadata=metadata,
            **({"compression": "zlib", "compressionargs": {"level": job.compression}} if job.compression else {}),
        )  # fmt: skip


def _ome(job: ExportJob) -> dict[str, Any]:
    found: dict[str, Any] = {
        "axes": "TYX",
        "TimeIncrement": 1 / job.fps,
        "TimeIncrementUnit": "s",
        "Description": json.dumps(_about(job)),
    }
    if job.start_given:
        found["AcquisitionDate"] = job.start.isoformat(timespec="seconds")
    return found


def _describe_shaped(job: ExportJob) -> None:
    """Add the gaps: the headers have been read by now, and they tell which frames are blank."""
    tifffile = need("tifffile", "tiff")
    described = json.loads(tifffile.tiffcomment(job.path)) | {"gaps": _gaps(job)}
    tifffile.tiffcomment(job.path, json.dumps(described))


def _describe_imagej(job: ExportJob) -> None:
    """Put settings and gaps where ImageJ shows them: into the tags of its metadata, on the first page."""
    tifffile = need("tifffile", "tiff")
    text = json.dumps({**_about(job), "gaps": _gaps(job)}, indent=1)
    with tifffile.TiffFile(job.path, mode="r+b") as file:
        page = file.pages.first
        for code, _, _, value, _ in tifffile.imagej_metadata_tag({"Info": text}, file.byteorder):
            page.tags[code].overwrite(value)
