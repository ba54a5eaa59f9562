"""The card's own clock: when, by it, every frame was taken, and the recording began and ended."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from miniscope_xr.layout.arrays import Array
from miniscope_xr.tools.clock.fit import ClockError
from miniscope_xr.tools.stream.timing import BLANK, filled_times, frame_numbers, frame_rate, milliseconds


@dataclass(frozen=True)
class CardClock:
    """A recording by its card's clock."""

    times: Array
    """When each frame was taken, in s."""
    period: float
    """From one frame to the next, in s."""
    delay: int = 0
    """Seconds that the firmware was told to wait before it began (``delay_start``)."""

    @property
    def start(self) -> float:
        """When the first frame began."""
        return float(self.times[0]) - self.period

    @property
    def length(self) -> float:
        """From there to the end of the last."""
        return float(self.times[-1]) - self.start

    @property
    def ends(self) -> Array:
        """Both."""
        return np.array([self.start, self.start + self.length])


def card_clock(ds: xr.Dataset) -> CardClock:
    """Return the clock of a recording.

    Raises
    ------
    ClockError
        It has no times.
    """
    if "time" not in ds.variables:
        raise ClockError("this Dataset has no times: open the recording, and leave 'time' in")
    times = milliseconds(ds["time"].values)
    if not (times != BLANK).any():
        raise ClockError("no frame of this recording has a time")
    filled = filled_times(times, frame_numbers(ds, slice(None))) / 1000.0
    return CardClock(filled, 1 / frame_rate(ds) if len(filled) > 1 else 0.05, int(ds.attrs.get("delay_start", 0)))
