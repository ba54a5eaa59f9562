"""BigTIFF: one page a frame; settings and gaps in its description, header values as a table beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from miniscope_xr.libraries import need
from miniscope_xr.tools.export.job import SOFTWARE, Job
from miniscope_xr.tools.stream.footage import Images


def _pages(job: Job) -> Iterator[Images]:
    for _, images in job.parts():
        yield from images


def _gaps(job: Job) -> list[dict[str, Any]]:
    return [{"row": gap.row, "first": gap.first, "last": gap.last} for gap in job.gaps()]


def write(job: Job) -> None:
    """Stream the pages, then write ``<name>_headers.csv``: a row a frame, times in ms."""
    tifffile = need("tifffile", "tiff")
    footage = job.footage
    about = {
        "axes": "TYX",
        "fps": job.fps,
        "start": job.start.isoformat(),
        "start_source": job.start_source,
        "settings": job.settings(),
    }
    with tifffile.TiffWriter(job.path, bigtiff=True) as file:
        file.write(
            _pages(job), shape=(footage.count, footage.height, footage.width), dtype="uint8",
            photometric="minisblack", software=SOFTWARE, metadata=about,
        )  # fmt: skip
    # the headers have been read by now, and they tell which frames are blank
    described = json.loads(tifffile.tiffcomment(job.path)) | {"gaps": _gaps(job)}
    tifffile.tiffcomment(job.path, json.dumps(described))
    job.write_table()
