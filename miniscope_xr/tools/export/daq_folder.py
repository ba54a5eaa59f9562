"""The folder Miniscope-DAQ writes, which minian, roiextractors, neuroconv and element-miniscope open."""

from __future__ import annotations

import contextlib
import csv
import errno
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from miniscope_xr._version import SOFTWARE
from miniscope_xr.errors import OptionError, OutputExistsError
from miniscope_xr.frames.stencil import cores
from miniscope_xr.tools.export.aligned import Camera
from miniscope_xr.tools.export.job import ExportJob
from miniscope_xr.tools.stream.camera import picture_size
from miniscope_xr.tools.stream.timing import write_time_stamps
from miniscope_xr.tools.video.codecs import normal_codec
from miniscope_xr.tools.video.write import check_even, write_rows

FRAMES_PER_FILE = 1000
USER_CONFIG = "userConfig.json"
_NAME = "Miniscope"
_CAMERA = "BehavCam"


def session_folder(ds: xr.Dataset, base: Path, start: datetime) -> Path:
    """Return the folder of a recording below the one that holds the days: by day and time of day.

    A card does not say when its later recordings began, so all of them would get the folder of the first: the number
    of the recording is in the names of theirs.

    Raises
    ------
    OutputExistsError
        Another recording's folder has that name, which ``force`` would replace.
    """
    number = int(ds.attrs.get("recording", 0))
    folder = base / f"{start:%Y_%m_%d}" / (f"{start:%H_%M_%S}" + (f"_recording_{number}" if number else ""))
    try:
        other = json.loads((folder / "metaData.json").read_text(encoding="utf-8"))["recordedCard"]
    except (OSError, ValueError, KeyError, TypeError):
        return folder
    if other != _card_of(ds):
        raise OutputExistsError(
            errno.EEXIST, "holds another card's recording of that time: give another folder, or start= (--start)",
            str(folder),
        )  # fmt: skip
    return folder


def _card_of(ds: xr.Dataset) -> str:
    return str(ds["video"].encoding.get("card", ""))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")


def _session(job: ExportJob) -> dict[str, Any]:
    start = job.start
    return {
        "researcherName": job.about.get("researcher", ""),
        "animalName": job.about.get("animal", ""),
        "experimentName": job.about.get("experiment", ""),
        "baseDirectory": "",
        "recordingStartTime": {
            "year": start.year, "month": start.month, "day": start.day,
            "hour": start.hour, "minute": start.minute, "second": start.second, "msec": start.microsecond // 1000,
            "msecSinceEpoch": round(start.timestamp() * 1000),
        },
        "recordingStartTimeSource": job.start_source,
        "recordingStartTimeZone": start.isoformat()[-6:],
        "miniscopes": [_NAME],
        "cameras": [] if job.camera is None else [_CAMERA],
        "software": SOFTWARE,
        "recordedCard": _card_of(job.footage.ds),
    }  # fmt: skip


def _device(job: ExportJob, codec: str) -> dict[str, Any]:
    footage, settings = job.footage, job.settings()
    return {
        "deviceName": _NAME,
        "deviceType": str(settings.get("layout", "wire-free Miniscope")),
        "deviceID": 0,
        "deviceDirectory": "",
        "framesPerFile": FRAMES_PER_FILE,
        "compression": codec,
        "ROI": {"leftEdge": 0, "topEdge": 0, "width": footage.width, "height": footage.height},
        "frameRate": f"{max(round(job.fps), 1)}FPS",  # DataJoint's element-miniscope reads an integer
        "measuredFrameRate": job.fps,
        "gain": settings.get("gain", 0),
        "led0": settings.get("led", 0),
        "ewl": settings.get("ewl", 0),
        "cardSettings": job.card_settings(),
    }


def _user_config(job: ExportJob, device: dict[str, Any]) -> dict[str, Any]:
    """Which cameras there are, as a program asks that converts all of a session (neuroconv's MiniscopeConverter)."""
    scope = {name: device[name] for name in ("deviceType", "deviceID", "compression", "framesPerFile", "gain", "led0")}
    return {
        "dataDirectory": "",
        "directoryStructure": [],
        "devices": {"miniscopes": {_NAME: scope}, "cameras": {} if job.camera is None else {_CAMERA: {"deviceID": 1}}},
    }


def _videos(job: ExportJob, folder: Path, codec: str) -> None:
    """Write the AVIs, as many side by side as there are cores."""
    count = job.footage.count
    halt = threading.Event()

    def one(start: int) -> None:
        path = folder / f"{start // FRAMES_PER_FILE}.avi"
        stop = min(start + FRAMES_PER_FILE, count)
        write_rows(job.footage, path, job.fps, codec, job.bar, start, stop, halt=halt)

    pool = ThreadPoolExecutor(cores())
    try:
        for _ in pool.map(one, range(0, count, FRAMES_PER_FILE)):  # raises what a writer raised
            pass
    finally:
        halt.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _camera(job: ExportJob, camera: Camera) -> None:
    """Copy the behaviour camera's videos beside the Miniscope, on the same clock, since the same start."""
    folder = job.path / _CAMERA
    folder.mkdir()
    camera.copy_to(folder)
    times = np.rint(1000 * (camera.seconds - camera.seconds[0] + job.camera_begins)).astype(np.int64)
    rows = np.arange(len(times))
    with (folder / "timeStamps.csv").open("w", encoding="ascii", newline="\n") as file:
        file.write("Frame Number,Time Stamp (ms),Buffer Index\n")
        file.writelines(f"{k},{ms},0\n" for k, ms in zip(rows.tolist(), times.tolist(), strict=True))
    described: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        described = json.loads((camera.path / "metaData.json").read_text(encoding="utf-8"))
    width, height = picture_size(camera.parts[0])
    known = {
        "ROI": {"leftEdge": 0, "topEdge": 0, "width": width, "height": height},
        "deviceName": _CAMERA, "deviceType": "behaviour camera", "deviceID": 1, "deviceDirectory": "",
        "framesPerFile": max(camera.counts), "frameRate": f"{max(round(camera.rate), 1)}FPS",
    }  # fmt: skip
    ours = (
        "deviceDirectory",
        "framesPerFile",
        "deviceName",
        "recordingStartTime",
    )  # that is the session's, and another
    own = {k: v for k, v in described.items() if k not in ours}
    _write_json(folder / "metaData.json", {**known, **own})


def write(job: ExportJob) -> None:
    """Write what describes the session, and the Miniscope's folder of AVIs and time stamps."""
    codec = normal_codec(job.codec)
    if codec not in ("FFV1", "GREY"):
        raise OptionError(f"codec={job.codec!r}: a Miniscope-DAQ folder holds FFV1 or GREY")
    footage = job.footage
    check_even(footage.width, footage.height)
    folder = job.path / _NAME
    folder.mkdir(parents=True)
    _videos(job, folder, codec)
    times = np.rint(1000 * job.since_start()).astype(np.int64)
    write_time_stamps(folder / "timeStamps.csv", times, footage.slots, footage.numbers, footage.status, words=False)
    if job.camera is not None:
        _camera(job, job.camera)
    device = _device(job, codec)
    _write_json(folder / "metaData.json", device)
    _write_json(job.path / "metaData.json", _session(job))
    _write_json(job.path / USER_CONFIG, _user_config(job, device))
    with (job.path / "notes.csv").open("w", encoding="utf-8", newline="") as file:
        file.write("Time Stamp (ms), Note\n")  # with the space, as Miniscope-DAQ writes it
        notes = csv.writer(file, lineterminator="\n")
        notes.writerow([0, f"start of the recording: {job.start_source}"])
        notes.writerows([0, line] for line in job.notes.splitlines())
        notes.writerows([int(times[gap.row]), str(gap)] for gap in footage.gaps)
