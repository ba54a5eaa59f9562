"""When frames were taken: the true frame rate, and time stamps as a CSV file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from miniscope_xr.errors import OptionError

Times = np.ndarray[Any, np.dtype[np.int64]]
BLANK = np.iinfo(np.int64).min
"""Time of a frame that never reached the card."""

SLOT = "linked_list"
"""Header field that is a Miniscope's buffer index: the slot of the ring buffer."""

_SAMPLE = 64  # pairs
COLUMNS = "Frame Number,Time Stamp (ms),Buffer Index,DAQ Frame Number"


def milliseconds(values: Any) -> Times:
    """Convert times to int64 milliseconds, :data:`BLANK` where there is none."""
    times = np.asarray(values)
    if times.dtype.kind == "m":
        times = times.astype("timedelta64[ms]")
    elif times.dtype.kind == "f":
        times = np.where(np.isnan(times), BLANK, times)
    return times.astype(np.int64)


def frame_numbers(ds: xr.Dataset, rows: Any) -> Times:
    """Return the device's numbers of some frames (their place in the recording where the Dataset has lost them)."""
    if "frame_num" in ds.variables:
        numbers: Times = np.asarray(ds["frame_num"].variable[rows].values, np.int64)
        return numbers
    places: Times = np.arange(ds.sizes["frame"], dtype=np.int64)[rows]
    return places


def measured_rate(ds: xr.Dataset) -> float | None:
    """Frames per second by the clock of the recording; None where it has no two times.

    The median, over pairs of frames half a recording apart, of frame numbers by time: lost frames, a late frame
    and the millisecond steps of the clock do not move it. Reads some hundred frames' headers.
    """
    n = ds.sizes["frame"]
    if n < 2 or "time" not in ds.variables:
        return None
    half = n // 2
    first = np.unique(np.linspace(0, n - half - 1, min(n - half, _SAMPLE)).astype(np.int64))
    rows = np.concatenate([first, first + half])
    times = milliseconds(ds["time"].variable[rows].values)
    numbers = frame_numbers(ds, rows)
    early, late = np.arange(len(first)), np.arange(len(first), len(rows))
    good = (times[early] != BLANK) & (times[late] != BLANK) & (times[late] > times[early])
    if not good.any():
        return None
    return float(np.median(1000 * (numbers[late] - numbers[early])[good] / (times[late] - times[early])[good]))


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
            raise OptionError(f"fps={fps!r}: expected more than 0 frames per second")
        return float(fps)
    rate = measured_rate(ds) or nominal
    if not rate > 0:
        raise OptionError("the frame rate is not known: fewer than two frames have a time; give fps=")
    return round(rate, 3)


def filled_times(times: Times, numbers: Times) -> Times:
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


def write_time_stamps(path: Path, times: Times, slots: Times, numbers: Times) -> None:
    """Write the columns of a Miniscope's ``timeStamps.csv``, one row per frame of the video."""
    rows = zip(filled_times(times, numbers).tolist(), slots.tolist(), numbers.tolist(), strict=True)
    with path.open("w", encoding="ascii", newline="\n") as file:
        file.write(COLUMNS + "\n")
        file.writelines(f"{k},{time},{slot},{number}\n" for k, (time, slot, number) in enumerate(rows))
