"""HDF5: ``/mov`` with the other names programs look for, headers as one array a field."""

from __future__ import annotations

from miniscope_xr.libraries import need
from miniscope_xr.tools.export.job import SOFTWARE, Job

_OTHER_NAMES = ("data", "1", "images")
"""suite2p reads ``data``; CIAtah ``/1``; NoRMCorre's and EXTRACT's examples ``images``."""


def write(job: Job) -> None:
    """Stream the frames into ``/mov`` (frame, y, x); header values go to ``/headers``, gaps to ``/gaps``."""
    h5py = need("h5py", "hdf5")
    footage = job.footage
    shape = footage.count, footage.height, footage.width
    with h5py.File(job.path, "w", rdcc_nbytes=0) as file:
        movie = file.create_dataset("mov", shape, "u1", chunks=(footage.step, *shape[1:]))
        for rows, images in job.parts():
            movie[rows] = images
        for name in _OTHER_NAMES:
            file[name] = h5py.SoftLink("/mov")
        movie.attrs.update({"fr": job.fps, "start_time": 0.0, "dimensions": "frame, y, x"})
        headers = file.create_group("headers")
        headers["time"] = job.seconds()
        headers["time"].attrs["units"] = "s"
        for name, values in footage.columns.items():
            if name != "time":
                plain = values.astype("timedelta64[ms]").astype("int64") if values.dtype.kind == "m" else values
                headers[name] = plain
                headers[name].attrs.update(footage.ds[name].attrs)
                if plain is not values:
                    headers[name].attrs["units"] = "ms"
        gaps = [(gap.row, gap.first, gap.last) for gap in job.gaps()]
        table = file.create_dataset("gaps", (len(gaps), 3), "i8")
        if gaps:
            table[...] = gaps
        table.attrs["columns"] = "row before which frames are missing, first and last frame number missing"
        file.attrs.update(job.settings())
        file.attrs.update({"software": SOFTWARE, "start": job.start.isoformat(), "start_source": job.start_source})
