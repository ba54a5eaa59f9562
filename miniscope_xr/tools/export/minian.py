"""The folder that minian's ``open_minian`` reads, with the time stamps CaMAP reads beside it."""

from __future__ import annotations

import numpy as np

from miniscope_xr.tools.export.job import Job
from miniscope_xr.tools.export.zarr_store import add_headers, write_store
from miniscope_xr.tools.stream.timing import filled_times, milliseconds


def write(job: Job) -> None:
    """Write ``varr.zarr`` (format 2; frame, height, width) and ``timestamps.csv`` into a folder."""
    job.path.mkdir()
    path = job.path / "varr.zarr"
    footage = job.footage
    headers = write_store(job, path, "varr", ("frame", "height", "width"), 2)
    sides = {"height": np.arange(footage.height), "width": np.arange(footage.width)}
    add_headers(headers.assign_coords(sides), path, 2)
    first = job.seconds()
    ends = milliseconds(footage.columns["time_last"]) if "time_last" in footage.columns else footage.times
    last = filled_times(ends, footage.numbers) / 1000.0
    began = job.start.timestamp()
    with (job.path / "timestamps.csv").open("w", encoding="ascii", newline="\n") as file:
        file.write("frame_index,timestamp_first,timestamp_last,unix_time\n")
        file.writelines(
            f"{k},{a:.3f},{b:.3f},{began + a:.3f}\n" for k, (a, b) in enumerate(zip(first, last, strict=True))
        )
