"""When a frame was due of which no buffer reached the card.

``gaps="fill"`` inserts such frames, and failed writes can lose all buffers of one. The camera's clock went on: between
the frames around it, a frame was due in proportion to its number.

    frame       10    11    12    13          11 and 12 lost: due at 550 and 600
    timestamp  500     -     -   650
"""

from __future__ import annotations

import numpy as np

from miniscope_xr.frames.reader import FrameReader
from miniscope_xr.layout.arrays import Ints
from miniscope_xr.source.base import ByteSource

_MOST = 256  # rows looked at in one go while searching for a frame with a time


class DueTimes:
    """Timestamps of rows without a buffer on the card.

    Parameters
    ----------
    frames : FrameReader
    source : ByteSource
    period : float
        Timestamp units from frame to frame by the settings, for a recording in which at most one frame has a time.
    """

    def __init__(self, frames: FrameReader, source: ByteSource, period: float) -> None:
        self._frames = frames
        self._source = source
        self._period = period

    def at(self, rows: Ints) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Return the timestamps at which the frames of some rows were due; NaN where no frame has a time at all."""
        due = np.full(len(rows), np.nan)
        before: tuple[int, int] | None = None
        after: tuple[int, int] | None = None
        stretch = range(0)  # rows between the two
        for k in np.argsort(rows, kind="stable").tolist():
            row = int(rows[k])
            if row not in stretch:
                before, after = self._timed(row - 1, -1), self._timed(row + 1, 1)
                start = 0 if before is None else before[0] + 1
                stretch = range(start, self._frames.count if after is None else after[0])
            due[k] = self._between(row, before, after)
        return due

    def _timed(self, row: int, step: int) -> tuple[int, int] | None:
        """(row, timestamp) of the nearest frame with a time from ``row`` on, in one direction."""
        count = 1
        while True:
            row = self._frames.axis.skip_blank(row, step)
            stop = min(row + count, self._frames.count) if step > 0 else max(row - count, -1)
            rows = np.arange(row, stop, step)
            if not 0 <= row < self._frames.count:
                return None
            found = self._frames.describe(self._source, np.sort(rows), whole=False)
            timed = np.flatnonzero(found.present[::step])
            if len(timed):
                k = int(timed[0])
                return int(rows[k]), int(found.first["timestamp"][::step][k])
            row, count = stop, min(2 * count, _MOST)

    def _between(self, row: int, before: tuple[int, int] | None, after: tuple[int, int] | None) -> float:
        ends = [end for end in (before, after) if end is not None]
        if not ends:
            return float("nan")
        if len(ends) == 1:  # in front of the first row that has a time, or behind the last: on at their pace
            step = 1 if before is None else -1
            far = self._timed(ends[0][0] + step, step)
            if far is None:
                return ends[0][1] + self._period * self._apart(ends[0][0], row)
            ends = [ends[0], far][::step]
        (first, begun), (second, ended) = ends
        return begun + (ended - begun) / self._apart(first, second) * self._apart(first, row)

    def _apart(self, first: int, second: int) -> int:
        """Frames of the camera from one row to another."""
        numbers = self._frames.frame_num(np.array([first, second]))
        return int(numbers[1] - numbers[0])
