"""NetCDF-4: one file that ``xr.open_dataset`` gives back as it was."""

from __future__ import annotations

from miniscope_xr.libraries import need
from miniscope_xr.tools.export.job import Job


def write(job: Job) -> None:
    """Stream the frames, then add every header coordinate and the settings."""
    h5netcdf = need("h5netcdf", "netcdf")
    footage = job.footage
    sizes = {"frame": footage.count, "y": footage.height, "x": footage.width}
    with h5netcdf.File(job.path, "w", rdcc_nbytes=0) as file:
        file.dimensions = sizes
        video = file.create_variable(
            "video", tuple(sizes), "u1", chunks=(footage.step, footage.height, footage.width)
        )  # fmt: skip
        video.attrs.update(footage.ds["video"].attrs)
        for rows, images in job.parts():
            video[rows] = images
    footage.headers().to_netcdf(job.path, mode="a", engine="h5netcdf")
