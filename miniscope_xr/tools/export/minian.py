"""The folder that minian's ``open_minian`` reads, with the time stamps CaMAP reads beside it."""

from __future__ import annotations

import numpy as np

from miniscope_xr.tools.export.job import ExportJob
from miniscope_xr.tools.export.zarr_store import add_headers, write_store


def write(job: ExportJob) -> None:
    """Write ``varr.zarr`` (format 2; frame, height, width) and ``timestamps.csv`` into a folder."""
    job.path.mkdir()
    path = job.path / "varr.zarr"
    footage = job.footage
    headers = write_store(job, path, "varr", ("frame", "height", "width"), 2)
    sides = {"height": np.arange(footage.height), "width": np.arange(footage.width)}
    add_headers(headers.assign_coords(sides), path, 2)
    # CaMAP compares them with the clock of the behaviour camera: all are unix times
    began = job.start.timestamp()
    first = began + job.since_start()
    last = began + (job.since_start("time_last") if "time_last" in footage.columns else job.since_start())
    with (job.path / "timestamps.csv").open("w", encoding="ascii", newline="\n") as file:
        file.write("frame_index,timestamp_first,timestamp_last,unix_time\n")
        file.writelines(f"{k},{a:.3f},{b:.3f},{a:.3f}\n" for k, (a, b) in enumerate(zip(first, last, strict=True)))
