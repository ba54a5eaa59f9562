"""A behaviour camera: its videos, in their order, and when their frames were taken."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from miniscope_xr.errors import OptionError
from miniscope_xr.layout.arrays import Array
from miniscope_xr.tools.stream.libraries import need
from miniscope_xr.tools.stream.tables import read_table

UNIX = 1e8
"""Seconds from which on a clock is taken to show the time of day: 1973 and later, since 1970."""
_UNEVEN = 0.5  # of the time from one frame to the next: off by more than that the rate of a video is not even


@dataclass(frozen=True)
class FrameTimes:
    """When the frames of a camera were taken, in s; ``dated`` where since 1970, ``source`` how that is known."""

    seconds: Array
    dated: bool
    source: str


def camera_times(
    path: Path, count: int | None = None, rate: float | None = None, shown: Array | None = None
) -> FrameTimes:
    """When a behaviour camera took its frames.

    Parameters
    ----------
    path
        A camera's folder as Miniscope-DAQ writes it (timeStamps.csv in it, metaData.json above), a table of the times
        of its frames, or a video.
    count, rate
        Of a video without a table: its frames, and how many a second its file says.
    shown
        When its file shows each of them, in s: a phone's video has no even rate.
    """
    table = stamps_of(path)
    if table is not None:
        began = recording_start(table.parent)
        times = _milliseconds(table) / 1000.0
        return FrameTimes(times + (began or 0.0), began is not None or bool(times[0] > UNIX), table.name)
    if count is None or not rate:
        raise OptionError(f"{path}: no timeStamps.csv says when its frames were taken")
    even = np.arange(count) / rate
    if shown is not None and len(shown) == count and np.abs(shown - shown[0] - even).max() > _UNEVEN / rate:
        if (np.diff(shown) <= 0).any():
            raise OptionError(f"{path}: the times that its file gives its frames run back; give a table of them")
        return FrameTimes(shown - shown[0], False, "the times that the video's file gives its frames")
    return FrameTimes(even, False, f"the {rate:g} frames/s that the video's file says")


def stamps_of(path: Path) -> Path | None:
    """The table of the times of a camera's frames: itself, or the one beside its video; None where there is none."""
    folder = path if path.is_dir() else path.parent
    named = path if path.suffix.lower() == ".csv" else folder / "timeStamps.csv"
    return next((table for table in (named, folder / f"{path.stem}_timeStamps.csv") if table.exists()), None)


def film_times(parts: list[Path]) -> list[Array]:
    """When each file of a camera shows each of its frames, in s, one file behind the other: a pass over all of them.

    Of an uneven rate the number of frames that a file tells is a guess.
    """
    cv2 = need("cv2", "video", "reading a behaviour video")
    found: list[Array] = []
    begins = 0.0
    for part in parts:
        with opened_film(part) as film:
            rate = float(film.get(cv2.CAP_PROP_FPS))
            times: list[float] = []
            while film.grab():
                times.append(begins + float(film.get(cv2.CAP_PROP_POS_MSEC)) / 1000)
        found.append(np.array(times))
        begins = (times[-1] if times else begins) + (1 / rate if rate > 0 else 0.0)
    return found


def _milliseconds(path: Path) -> Array:
    """Second column of a timeStamps.csv: (frame number, ms since the start, buffer index)."""
    rows = read_table(path, 2).rows
    try:
        return np.array([float(row[1]) for row in rows])
    except ValueError as error:
        raise OptionError(f"{path}: its second column is not in ms ({error})") from error


def recording_start(folder: Path) -> float | None:
    """When a Miniscope-DAQ session began, in s since 1970, by the metaData.json in this folder or the one above."""
    for place in (folder, folder.parent):
        try:
            said = json.loads((place / "metaData.json").read_text(encoding="utf-8"))
            start = said["recordingStartTime"]
            return float(start["msecSinceEpoch"]) / 1000.0
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def parts_of(path: Path) -> list[Path]:
    """The video itself, or those of a camera's folder as Miniscope-DAQ writes them: 0.avi, 1.avi, ..."""
    if not path.is_dir():
        if not path.exists():
            raise OptionError(f"{path}: there is no such video")
        return [path]
    parts = sorted((p for p in path.iterdir() if p.suffix.lower() in (".avi", ".mkv", ".mp4", ".mov")), key=_number)
    if not parts:
        raise OptionError(f"{path}: no video is in this folder")
    return parts


def _number(path: Path) -> tuple[int, str]:
    return (int(path.stem), "") if path.stem.isdecimal() else (1 << 60, path.stem)


@contextmanager
def opened_film(part: Path) -> Iterator[Any]:
    """Open a video with OpenCV, and let it go at the end.

    Raises
    ------
    MissingDependencyError
        There is no OpenCV.
    OptionError
        It cannot read the file.
    """
    film = need("cv2", "video", "reading a behaviour video").VideoCapture(str(part))
    try:
        if not film.isOpened():
            raise OptionError(f"{part}: OpenCV cannot read it as a video")
        yield film
    finally:
        film.release()


def _told(part: Path, *names: str) -> list[float]:
    """What a video's file says of itself, by OpenCV's names of it (``FPS``)."""
    cv2 = need("cv2", "video", "reading a behaviour video")
    with opened_film(part) as film:
        return [float(film.get(getattr(cv2, f"CAP_PROP_{name}"))) for name in names]


def nominal_rate(path: Path) -> float:
    """Frames per second that a video's file says."""
    return _told(parts_of(path)[0], "FPS")[0]


def picture_size(part: Path) -> tuple[int, int]:
    """Width and height of a video, in px."""
    width, height = _told(part, "FRAME_WIDTH", "FRAME_HEIGHT")
    return int(width), int(height)


def frame_counts(parts: list[Path]) -> list[int]:
    """How many frames each video has, by its file."""
    return [int(_told(part, "FRAME_COUNT")[0]) for part in parts]
