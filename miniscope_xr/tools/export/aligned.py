"""What an aligned recording brings along: when the session began by the other clock, and the camera that has it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from miniscope_xr.errors import OptionError
from miniscope_xr.layout.arrays import Floats
from miniscope_xr.tools.stream.camera import camera_times, film_times, frame_counts, nominal_rate, parts_of, stamps_of
from miniscope_xr.tools.stream.timing import SHOWN, WALL, unix_seconds

ALIGNED = "by the clock the recording was aligned with"


@dataclass(frozen=True)
class Camera:
    """A behaviour camera beside a recording."""

    path: Path
    """Its video, or its folder."""
    parts: list[Path]
    """Its videos, in their order."""
    counts: list[int]
    """How many frames each of them has."""
    seconds: Floats
    """When its frames were taken, by the clock that the recording was aligned with."""
    source: str
    """How that is known."""

    @property
    def rate(self) -> float:
        """Frames per second."""
        return 1 / float(np.median(np.diff(self.seconds)))

    def copy_to(self, folder: Path) -> None:
        """Copy its videos as 0.avi, 1.avi, ... (each keeps its ending)."""
        for k, part in enumerate(self.parts):
            shutil.copyfile(part, folder / f"{k}{part.suffix.lower()}")


def camera_of(ds: xr.Dataset, path: Any) -> Camera | None:
    """Look at the camera that is to lie beside a recording; None for none.

    Raises
    ------
    OptionError
        The recording was not aligned, or the video and its time stamps do not fit each other.
    """
    if path is None:
        return None
    if SHOWN not in ds.coords:
        raise OptionError("camera: the recording has no time by the camera's clock: align it first (`align`, --clock)")
    parts = parts_of(Path(path))
    if stamps_of(Path(path)) is None:
        shown = film_times(parts)
        counts = [len(each) for each in shown]
        times = camera_times(Path(path), sum(counts), nominal_rate(Path(path)), np.concatenate(shown))
    else:
        counts, times = frame_counts(parts), camera_times(Path(path))
    if len(times.seconds) != sum(counts):
        raise OptionError(f"{path}: {sum(counts)} frames, and {times.source} has {len(times.seconds)} times")
    zero = 0.0 if times.dated else float(ds.attrs.get("clock_zero", 0.0))
    return Camera(Path(path), parts, counts, times.seconds + zero, times.source)


def aligned_start(ds: xr.Dataset, start: Any, camera: Camera | None) -> tuple[datetime, str] | None:
    """When an aligned session began, and how that is known; None where the recording has no date by itself."""
    if WALL not in ds.coords:
        return None
    if start is not None:
        raise OptionError(f"start={start!r}: the recording was aligned and has a date of its own; leave start out")
    seconds = float(unix_seconds(ds[WALL].values[:1])[0])
    if camera is not None:
        seconds = min(seconds, float(camera.seconds[0]))
    return datetime.fromtimestamp(seconds, UTC).astimezone(), f"{ALIGNED}: {ds.attrs.get('clock_source', '')}"
