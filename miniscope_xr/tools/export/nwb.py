"""NWB: a OnePhotonSeries with the true time of every frame, the Miniscope as its device, headers as a table."""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np

from miniscope_xr.libraries import need
from miniscope_xr.tools.export.job import SOFTWARE, Job


def _device(job: Job) -> Any:
    settings = job.settings()
    known: dict[str, Any] = {"gain": str(settings["gain"])} if "gain" in settings else {}
    if "led" in settings:
        known["led0"] = int(settings["led"])
    return need("ndx_miniscope", "nwb").Miniscope(
        name="Miniscope",
        description="settings on the card: " + "; ".join(f"{k}={v}" for k, v in settings.items()),
        deviceType=str(settings.get("layout", "wire-free Miniscope")),
        compression="GREY",
        frameRate=f"{job.fps:g}FPS",
        ROI=[job.footage.height, job.footage.width],
        **known,
    )


def _series(job: Job, file: Any, device: Any) -> Any:
    """Declare the movie; its pixels and times are filled in while the card is read."""
    pynwb = need("pynwb", "nwb")
    footage = job.footage
    channel = pynwb.ophys.OpticalChannel(name="OpticalChannel", description="green", emission_lambda=525.0)
    plane = file.create_imaging_plane(
        name="ImagingPlane", description="field of view of the Miniscope", device=device, optical_channel=channel,
        excitation_lambda=475.0, indicator="unknown", location="unknown", imaging_rate=job.fps,
    )  # fmt: skip
    shape = footage.count, footage.width, footage.height
    return pynwb.ophys.OnePhotonSeries(
        name="OnePhotonSeries",
        description="fluorescence as it is on the card (0 where a buffer is missing)",
        comments=str(job.start_source),
        imaging_plane=plane,
        device=device,
        unit="a.u.",
        dimension=[footage.width, footage.height],
        data=pynwb.H5DataIO(
            shape=shape, maxshape=shape, dtype=np.dtype(np.uint8), chunks=(footage.step, *shape[1:]),
            compression="gzip", compression_opts=1,
        ),
        timestamps=pynwb.H5DataIO(shape=(footage.count,), dtype=np.dtype(np.float64)),
    )  # fmt: skip


def _headers(job: Job) -> Any:
    """Declare the table of header values, a row a frame."""
    common = need("hdmf.common", "nwb")
    h5 = need("pynwb", "nwb").H5DataIO
    columns = []
    for name, values in job.footage.columns.items():
        attrs = job.footage.ds[name].attrs
        text = str(attrs.get("long_name", name))
        text += " (s)" if values.dtype.kind == "m" else f" ({attrs['units']})" if "units" in attrs else ""
        kind = np.dtype(np.float64) if values.dtype.kind == "m" else values.dtype
        columns.append(common.VectorData(name=name, description=text, data=h5(shape=values.shape, dtype=kind)))
    ids = common.ElementIdentifiers(name="id", data=np.arange(job.footage.count))
    return common.DynamicTable(
        name="frame_headers", description="header of the first buffer of every frame", columns=columns, id=ids
    )


def _gaps(job: Job) -> Any:
    """Return frames that never reached the card as time intervals, or None."""
    pynwb = need("pynwb", "nwb")
    times = job.seconds()
    gaps = job.gaps()
    if not gaps:
        return None
    table = pynwb.epoch.TimeIntervals(name="lost_frames", description="frames that never reached the card")
    for name in ("first_frame_num", "last_frame_num"):
        table.add_column(name, name.replace("_", " "))
    for gap in gaps:
        before = float(times[gap.row - 1])
        table.add_interval(
            start_time=before, stop_time=float(times[gap.row]), first_frame_num=gap.first, last_frame_num=gap.last
        )
    return table


def _fill(job: Job, series: Any, headers: Any) -> None:
    """Stream the frames into the datasets of a file that is open for writing, then their times and headers."""
    data = series.data.dataset
    for rows, images in job.parts():
        data[rows] = images.transpose(0, 2, 1)
    series.timestamps.dataset[...] = job.seconds()
    for name, values in job.footage.columns.items():
        if values.dtype.kind == "m":
            values = values.astype("timedelta64[ms]").astype(np.float64) / 1000
        headers[name].data.dataset[...] = values


def write(job: Job) -> None:
    """Declare the file, fill it in one pass over the card, then add what is only known at the end."""
    pynwb = need("pynwb", "nwb")
    file = pynwb.NWBFile(
        session_description=job.about.get("experiment") or "recording of a wire-free Miniscope",
        identifier=str(uuid.uuid4()),
        session_start_time=job.start,
        experimenter=[job.about["researcher"]] if job.about.get("researcher") else None,
        subject=pynwb.file.Subject(subject_id=job.about["animal"]) if job.about.get("animal") else None,
        source_script=SOFTWARE,
        source_script_file_name="miniscope-xr",
        notes=f"session_start_time: {job.start_source}",
    )
    device = _device(job)
    file.add_device(device)
    series, headers = _series(job, file, device), _headers(job)
    file.add_acquisition(series)
    file.add_acquisition(headers)
    h5py = need("h5py", "nwb")
    # no chunk cache: every chunk is written once and whole, and pynwb would keep 32 MB of them
    with h5py.File(job.path, "w", rdcc_nbytes=0) as whole, pynwb.NWBHDF5IO(file=whole, mode="w") as io:
        io.write(file)
        _fill(job, series, headers)
    gaps = _gaps(job)
    if gaps is not None:
        with pynwb.NWBHDF5IO(str(job.path), "a") as io:
            file = io.read()
            file.add_time_intervals(gaps)
            io.write(file)
