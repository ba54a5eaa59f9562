"""A behaviour camera: its videos, in their order, and when their frames were taken."""

from __future__ import annotations

import csv
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

UNIX = 1e8
"""Seconds from which on a clock is taken to show the time of day: 1973 and later, since 1970."""


def table_rows(path: Path, columns: int) -> list[list[str]]:
    """Rows of a CSV file that have a number or a date in front; what else is above them is a heading."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"{path}: cannot be read as a table: {getattr(error, 'strerror', None) or error}") from error
    found: list[list[str]] = []
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for number, line in enumerate(lines):
        cells = [cell.strip() for cell in next(csv.reader([line], delimiter=_separator(line)))]
        if not found and number == 0 and not any(character.isdigit() for character in cells[0]):
            continue
        if len(cells) < columns:
            raise OptionError(f"{path}, row {number + 1}: {len(cells)} columns, expected {columns}")
        found.append(cells)
    if not found:
        raise OptionError(f"{path}: no row with times")
    return found


def _separator(line: str) -> str:
    return next((mark for mark in (",", ";", "\t") if mark in line), ",")


@dataclass(frozen=True)
class FrameTimes:
    """When the frames of a camera were taken, in s; ``dated`` where since 1970, ``source`` how that is known."""

    seconds: Array
    dated: bool
    source: str


def camera_times(path: Path, count: int | None = None, rate: float | None = None) -> FrameTimes:
    """When a behaviour camera took its frames.

    Parameters
    ----------
    path
        A camera's folder as Miniscope-DAQ writes it (timeStamps.csv in it, metaData.json above), a table of the times
        of its frames, or a video.
    count, rate
        Of a video without a table: its frames, and how many a second its file says.
    """
    folder = path if path.is_dir() else path.parent
    table = path if path.suffix.lower() == ".csv" else folder / "timeStamps.csv"
    if not table.exists():
        table = folder / f"{path.stem}_timeStamps.csv"
    if table.exists():
        began = recording_start(folder)
        times = _milliseconds(table) / 1000.0
        return FrameTimes(times + (began or 0.0), began is not None or bool(times[0] > UNIX), table.name)
    if count is None or not rate:
        raise OptionError(f"{path}: no timeStamps.csv says when its frames were taken")
    return FrameTimes(np.arange(count) / rate, False, f"the {rate:g} frames/s that the video's file says")


def _milliseconds(path: Path) -> Array:
    """Second column of a timeStamps.csv: (frame number, ms since the start, buffer index)."""
    rows = table_rows(path, 2)
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
    """
    film = need("cv2", "video", "reading a behaviour video").VideoCapture(str(part))
    try:
        yield film
    finally:
        film.release()


def refuse_no_film(film: Any, part: Path) -> None:
    """Refuse a file that OpenCV could not open."""
    if not film.isOpened():
        raise OptionError(f"{part}: OpenCV cannot read it as a video")


def nominal_rate(path: Path) -> float:
    """Frames per second that a video's file says."""
    cv2 = need("cv2", "video", "reading a behaviour video")
    with opened_film(parts_of(path)[0]) as film:
        return float(film.get(cv2.CAP_PROP_FPS))


def picture_size(part: Path) -> tuple[int, int]:
    """Width and height of a video, in px."""
    cv2 = need("cv2", "video", "reading a behaviour video")
    with opened_film(part) as film:
        return int(film.get(cv2.CAP_PROP_FRAME_WIDTH)), int(film.get(cv2.CAP_PROP_FRAME_HEIGHT))


def frame_counts(parts: list[Path]) -> list[int]:
    """How many frames each video has, by its file."""
    cv2 = need("cv2", "video", "reading a behaviour video")
    found = []
    for part in parts:
        with opened_film(part) as film:
            refuse_no_film(film, part)
            found.append(int(film.get(cv2.CAP_PROP_FRAME_COUNT)))
    return found
