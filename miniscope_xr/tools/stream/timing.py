"""When frames were taken: the true frame rate, and time stamps as a CSV file."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from miniscope_xr.errors import OptionError
from miniscope_xr.frames.rate import clock_step
from miniscope_xr.layout.arrays import Array, Floats, Ints

BLANK = np.iinfo(np.int64).min
"""Time of a frame that never reached the card."""

SLOT = "linked_list"
"""Header field that is a Miniscope's buffer index: the slot of the ring buffer."""

WALL, SHOWN, ERROR = "wall_time", "clock_time", "clock_error"
"""Coordinates of a recording aligned with another clock: date and time (UTC), s, and s it may be off (95 %)."""

COLUMNS = "Frame Number,Time Stamp (ms),Buffer Index,DAQ Frame Number"


def milliseconds(values: Any) -> Ints:
    """Convert times to int64 milliseconds, :data:`BLANK` where there is none."""
    times = np.asarray(values)
    if times.dtype.kind == "m":
        times = times.astype("timedelta64[ms]")
    elif times.dtype.kind == "f":
        times = np.where(np.isnan(times), BLANK, times)
    return times.astype(np.int64)


def frame_numbers(ds: xr.Dataset, rows: Any) -> Ints:
    """Return the device's numbers of some frames (their place in the recording where the Dataset has lost them)."""
    if "frame_num" in ds.variables:
        numbers: Ints = np.asarray(ds["frame_num"].variable[rows].values, np.int64)
        return numbers
    places: Ints = np.arange(ds.sizes["frame"], dtype=np.int64)[rows]
    return places


def measured_rate(ds: xr.Dataset) -> float | None:
    """Frames per second by the clock of the recording; None where it has no two times."""
    if "time" not in ds.variables:
        return None

    def look(rows: Ints) -> tuple[Ints, Ints]:
        return milliseconds(ds["time"].variable[rows].values), frame_numbers(ds, rows)

    step = clock_step(ds.sizes["frame"], look)
    return None if step is None else 1000 / step


def unix_seconds(dates: Array) -> Floats:
    """Return dates (datetime64) as s since 1970-01-01 UTC, exact to the microsecond."""
    seconds: Floats = dates.astype("datetime64[us]").astype(np.int64) / 1e6
    return seconds


def frame_rate(ds: xr.Dataset, fps: float | str | None = None) -> float:
    """Frames per second to write into a file.

    Parameters
    ----------
    ds
        A recording.
    fps
        None measures the recording's clock; ``"nominal"`` takes the setting; a number is taken as it is.

    Raises
    ------
    OptionError
        ``fps`` is no such thing, or the recording does not tell its rate.
    """
    nominal = float(ds.attrs.get("fs", 0))
    if isinstance(fps, str):
        if fps != "nominal":
            raise OptionError(f"fps={fps!r}: expected 'nominal', a number, or None for the measured rate")
        if nominal <= 0:
            raise OptionError("fps='nominal': the card does not say its frame rate (no attribute fs); give a number")
        return nominal
    if fps is not None:
        if not 0 < float(fps) < 10_000:
            raise OptionError(f"fps={fps!r}: expected more than 0 and less than 10000 frames per second")
        return float(fps)
    rate = measured_rate(ds) or nominal
    if not rate > 0:
        raise OptionError("the frame rate is not known: fewer than two frames have a time; give fps=")
    return round(rate, 3)


def filled_times(times: Ints, numbers: Ints) -> Ints:
    """Fill holes: a frame that never reached the card gets the time its number stands for."""
    known = times != BLANK
    if known.all():
        return times
    if not known.any():
        return np.zeros_like(times)
    step = 0.0
    if known.sum() > 1:
        span = numbers[known][[0, -1]]
        step = float(np.diff(times[known][[0, -1]])[0]) / max(int(span[1] - span[0]), 1)
    filled = np.interp(numbers, numbers[known], times[known])
    first, last = np.flatnonzero(known)[[0, -1]]
    filled[:first] = times[first] - step * (numbers[first] - numbers[:first])
    filled[last + 1 :] = times[last] + step * (numbers[last + 1 :] - numbers[last])
    return np.where(known, times, np.rint(filled)).astype(np.int64)


def write_time_stamps(
    path: Path, times: Ints, slots: Ints, numbers: Ints, status: Sequence[str] = (), words: bool = True
) -> None:
    """Write the columns of a Miniscope's ``timeStamps.csv``, one row per frame of the video.

    Where a frame is not whole there is one column more, ``Frame Status``: ``complete``, ``partial`` (parts of it never
    reached the card) or ``blank`` (none did; its buffer index is -1). Without ``words`` it is ``Frame Complete``, 1 or
    0: what reads a Miniscope-DAQ folder, such as DataJoint's element-miniscope, takes every cell for a number.
    """
    marked = any(word != "complete" for word in status)
    name = "Frame Status" if words else "Frame Complete"
    marks = list(status) if words else [str(int(word == "complete")) for word in status]
    columns = [filled_times(times, numbers), slots, numbers]
    texts = [[str(value) for value in column.tolist()] for column in columns] + ([marks] if marked else [])
    with path.open("w", encoding="ascii", newline="\n") as file:
        file.write(COLUMNS + (f",{name}" if marked else "") + "\n")
        file.writelines(f"{k},{','.join(row)}\n" for k, row in enumerate(zip(*texts, strict=True)))


def warn_of_jumps(times: Ints) -> None:
    """Warn where times go back: two recordings were joined, and each has its own clock."""
    known = times[times != BLANK]
    back = np.flatnonzero(np.diff(known) < 0)
    if len(back):
        k = int(back[0])
        warnings.warn(
            f"times go back from {known[k] / 1000:g} s to {known[k + 1] / 1000:g} s before row {k + 1}: "
            "recordings that are joined have a clock each; write each by itself, or give the rows their true times",
            stacklevel=3,
        )
