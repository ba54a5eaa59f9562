"""NWB: a OnePhotonSeries with the true time of every frame, the Miniscope as its device, headers as a table.

NWB asks for things no card knows: where in the brain, which indicator, which wavelengths. What the user does not tell
is written as "not given" (wavelengths: NaN), never guessed.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from miniscope_xr._version import SOFTWARE
from miniscope_xr.tools.export.aligned import Camera
from miniscope_xr.tools.export.job import ExportJob
from miniscope_xr.tools.export.surviving import surviving
from miniscope_xr.tools.stream.libraries import need
from miniscope_xr.tools.stream.timing import unix_seconds

_NOT_GIVEN = "not given"
_DISTANCE = 9
"""Decimals of s to which steps between frames are one: what NWB's inspector takes for an even clock."""
_LOOK = 1024  # frames whose headers are read at once


def _device(job: ExportJob) -> Any:
    settings = job.settings()
    known: dict[str, Any] = {"gain": str(settings.get("gain_meaning", settings["gain"]))} if "gain" in settings else {}
    if "led" in settings:
        known["led0"] = int(settings["led"])
    return need("ndx_miniscope", "nwb").Miniscope(
        name="Miniscope",
        description="settings on the card: " + "; ".join(f"{k}={v}" for k, v in job.card_settings().items()),
        deviceType=str(settings.get("layout", "wire-free Miniscope")),
        compression="GREY",
        frameRate=f"{job.fps:g}FPS",
        ROI=[job.footage.height, job.footage.width],
        **known,
    )


def _series(job: ExportJob, file: Any, device: Any) -> Any:
    """Declare the movie; its pixels and times are filled in while the card is read."""
    pynwb = need("pynwb", "nwb")
    footage = job.footage
    excitation, emission = job.about.get("wavelengths", (np.nan, np.nan))
    channel = pynwb.ophys.OpticalChannel(
        name="OpticalChannel", description="the only channel of the Miniscope", emission_lambda=emission
    )
    plane = file.create_imaging_plane(
        name="ImagingPlane", description="field of view of the Miniscope", device=device, optical_channel=channel,
        excitation_lambda=excitation, imaging_rate=job.fps, indicator=job.about.get("indicator", _NOT_GIVEN),
        location=job.about.get("location", _NOT_GIVEN),
    )  # fmt: skip
    shape = footage.count, footage.width, footage.height
    return pynwb.ophys.OnePhotonSeries(
        name="OnePhotonSeries",
        description="fluorescence as it is on the card (0 where a buffer is missing)",
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


def _behaviour(job: ExportJob, camera: Camera, file: Any) -> Any:
    """Name the behaviour video as an external file, with the time of each of its frames."""
    device = file.create_device(name="BehaviorCamera", description="camera that filmed the animal")
    return need("pynwb", "nwb").image.ImageSeries(
        name="BehaviorVideo",
        description=f"behaviour video; its frames' times by {camera.source}",
        format="external",
        external_file=[_relative(part, job.final) for part in camera.parts],
        starting_frame=np.concatenate([[0], np.cumsum(camera.counts)[:-1]]).tolist(),
        timestamps=camera.seconds - camera.seconds[0] + job.camera_begins,
        unit="n.a.",
        device=device,
    )


def _relative(video: Path, file: Path) -> str:
    """Where a video is as seen from the file, with slashes; where no way leads there, its whole path."""
    try:
        return Path(os.path.relpath(video.absolute(), file.absolute().parent)).as_posix()
    except ValueError:  # another drive of Windows
        return str(video.absolute())


def _headers(job: ExportJob) -> Any:
    """Declare the table of header values, a row a frame."""
    common = need("hdmf.common", "nwb")
    h5 = need("pynwb", "nwb").H5DataIO
    columns = []
    for name, values in job.footage.columns.items():
        if _empty(job, name):
            continue
        attrs = job.footage.ds[name].attrs
        text = str(attrs.get("long_name", name))
        text += " (s)" if values.dtype.kind in "mM" else f" ({attrs['units']})" if "units" in attrs else ""
        kind = np.dtype(np.float64) if values.dtype.kind in "mM" else values.dtype
        columns.append(common.VectorData(name=name, description=text, data=h5(shape=values.shape, dtype=kind)))
    ids = common.ElementIdentifiers(name="id", data=np.arange(job.footage.count))
    return common.DynamicTable(
        name="frame_headers", description="header of the first buffer of every frame", columns=columns, id=ids
    )


def _empty(job: ExportJob, name: str) -> bool:
    """Whether nothing is known in a column: NWB's inspector warns of one that holds only NaN.

    It is read up to the first value, which most often is near: the rest of it comes along with the pixels.
    """
    found = job.footage.ds.variables[name]
    parts = (found[at : at + _LOOK].values for at in range(0, job.footage.count, _LOOK))
    return found.dtype.kind == "f" and all(np.isnan(part).all() for part in parts)


def _gaps(job: ExportJob) -> Any:
    """Return frames that never reached the card as time intervals, or None."""
    times = job.since_start()
    gaps = job.footage.gaps
    if not gaps:
        return None
    table = need("pynwb", "nwb").epoch.TimeIntervals(
        name="lost_frames", description="frames that never reached the card, between the two frames around them"
    )
    table.add_column("first_frame_num", "number of the first lost frame; -1 where only the clock shows the gap")
    table.add_column("last_frame_num", "number of the last lost frame; -1 where only the clock shows the gap")
    table.add_column("n_frames", "how many frames were lost")
    there = np.flatnonzero(~job.footage.blank)
    for gap in gaps:
        before = there[there < gap.row]  # none: the first frames of the recording were lost
        start = times[before[-1]] if len(before) else max(times[gap.row] - gap.count / job.fps, 0)
        table.add_interval(
            start_time=float(start), stop_time=float(times[gap.row]),
            first_frame_num=gap.first, last_frame_num=gap.last, n_frames=gap.count,
        )  # fmt: skip
    return table


def _fill(job: ExportJob, series: Any, headers: Any, check: Any) -> None:
    """Stream the frames into the datasets of a file that is open for writing, then their times and headers."""
    data = series.data.dataset
    for rows, images in job.parts():
        data[rows] = images.transpose(0, 2, 1)
        check()
    _fill_times(job, series.timestamps.dataset)
    for name in headers.colnames:
        values = job.footage.columns[name]
        if values.dtype.kind == "M":
            values = unix_seconds(values)
        headers[name].data.dataset[...] = job.seconds(name) if values.dtype.kind == "m" else values


def _fill_times(job: ExportJob, timestamps: Any) -> None:
    """Write a time for every frame; where the clock is even, the first one and the rate, as NWB asks for."""
    times = job.since_start()
    steps = np.unique(np.diff(times).round(_DISTANCE))
    if len(steps) != 1 or steps[0] <= 0:
        timestamps[...] = times
        return
    group = timestamps.parent
    del group["timestamps"]
    start = group.create_dataset("starting_time", data=float(times[0]))
    start.attrs.update({"rate": np.float32(1 / steps[0]), "unit": "seconds"})


def _file(job: ExportJob) -> Any:
    """Make the file's own entry: who, what, when, by what the user told."""
    pynwb, about = need("pynwb", "nwb"), job.about
    people = dict.fromkeys(about[name] for name in ("experimenter", "researcher") if name in about)
    names = {"animal": "subject_id", "sex": "sex", "age": "age", "species": "species"}
    animal = {theirs: about[ours] for ours, theirs in names.items() if ours in about}
    return pynwb.NWBFile(
        session_description=f"recording of a wire-free Miniscope ({job.settings().get('layout', 'unknown layout')})",
        experiment_description=about.get("experiment"),
        identifier=str(uuid.uuid4()),
        session_start_time=job.start,
        session_id=about.get("session_id"),
        experimenter=list(people) or None,
        institution=about.get("institution"),
        keywords=about.get("keywords"),
        subject=pynwb.file.Subject(**animal) if animal else None,
        source_script=SOFTWARE,
        source_script_file_name="miniscope-xr",
        notes="\n".join(filter(None, [job.notes, f"session_start_time: {job.start_source}"])),
    )


def write(job: ExportJob) -> None:
    """Declare the file, fill it in one pass over the card, then add what is only known at the end."""
    pynwb, h5py = need("pynwb", "nwb"), need("h5py", "nwb")
    file = _file(job)
    device = _device(job)
    file.add_device(device)
    series, headers = _series(job, file, device), _headers(job)
    file.add_acquisition(series)
    file.add_acquisition(headers)
    if job.camera is not None:
        file.add_acquisition(_behaviour(job, job.camera, file))
    # no chunk cache: every chunk is written once and whole, and pynwb would keep 32 MB of them
    with (
        surviving(job.path) as raw,
        h5py.File(raw, "w", rdcc_nbytes=0) as whole,
        pynwb.NWBHDF5IO(file=whole, mode="w") as io,
    ):
        io.write(file)
        _fill(job, series, headers, raw.check)
    gaps = _gaps(job)
    if gaps is None:
        return
    with surviving(job.path, "r+b") as raw, h5py.File(raw, "r+") as whole, pynwb.NWBHDF5IO(file=whole, mode="a") as io:
        read = io.read()
        read.add_time_intervals(gaps)
        io.write(read)
