"""Tables with times: pairs, pulses, and what Miniscope-DAQ writes beside a camera's video."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from miniscope_xr.errors import OptionError
from miniscope_xr.tools.clock.fit import ClockError

Array = np.ndarray[Any, Any]

UNIX = 1e8
"""Seconds from which on a clock is taken to show the time of day: 1973 and later, since 1970."""


@dataclass(frozen=True)
class Column:
    """Times in s, and whether they are since 1970 (a date is known)."""

    seconds: Array
    dated: bool


def seconds_of(values: Any, what: str) -> Column:
    """Times in s: numbers are seconds, text is a number or a date and time (without a zone: this computer's)."""
    array = np.asarray(values)
    if array.dtype.kind == "M":
        return Column(array.astype("datetime64[us]").astype(np.int64) / 1e6, True)
    if array.dtype.kind == "m":
        return Column(array.astype("timedelta64[us]").astype(np.int64) / 1e6, False)
    if array.dtype.kind in "OUS":
        return _texts([str(value).strip() for value in array.reshape(-1).tolist()], what)
    seconds = array.astype(float).reshape(-1)
    return Column(seconds, bool(len(seconds)) and bool(np.nanmin(seconds) > UNIX))


def _texts(values: list[str], what: str) -> Column:
    try:
        return seconds_of(np.array([float(value) for value in values]), what)
    except ValueError:
        pass
    try:
        return Column(np.array([datetime.fromisoformat(value).timestamp() for value in values]), True)
    except ValueError as error:
        raise ClockError(f"{what}: expected seconds or times such as 2026-03-14T15:09:26.500 ({error})") from error


def _rows(path: Path, columns: int) -> list[list[str]]:
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


def read_pairs(path: Path) -> tuple[Array, Column]:
    """Two columns: the card's time in s, and the other clock's in s or as dates; a heading may be above."""
    rows = _rows(path, 2)
    card = seconds_of([row[0] for row in rows], f"{path}, column 1")
    return card.seconds, seconds_of([row[1] for row in rows], f"{path}, column 2")


def read_pulses(path: Path) -> Column:
    """One column of times, or a table of TTL edges (time, level): the rising ones count."""
    rows = _rows(path, 1)
    levels = [row[1] for row in rows if len(row) > 1]
    if len(levels) == len(rows) and set(levels) <= {"0", "1", "0.0", "1.0", "False", "True"}:
        high = [float({"False": 0, "True": 1}.get(level, level)) > 0 for level in levels]
        rows = [row for k, row in enumerate(rows) if high[k] and (k == 0 or not high[k - 1])]
    return seconds_of([row[0] for row in rows], f"{path}, column 1")


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
        raise ClockError(f"{path}: no timeStamps.csv says when its frames were taken")
    return FrameTimes(np.arange(count) / rate, False, f"the {rate:g} frames/s that the video's file says")


def _milliseconds(path: Path) -> Array:
    """Second column of a timeStamps.csv: (frame number, ms since the start, buffer index)."""
    rows = _rows(path, 2)
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
