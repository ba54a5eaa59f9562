"""Frames that never reached the card: before which row, how many, and which numbers they had."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from miniscope_xr.tools.stream.timing import BLANK, Times

_UNEVEN = 0.25  # of a step: what differs more from the others is no step of one frame


@dataclass(frozen=True)
class Gap:
    """Lost frames: ``count`` of them before row ``row``.

    ``first`` and ``last`` are their numbers, or -1 where the device did not count them and only its clock tells.
    """

    row: int
    count: int
    first: int = -1
    last: int = -1

    def __str__(self) -> str:
        some = "1 frame" if self.count == 1 else f"{self.count} frames"
        if self.first < 0:
            return f"{some} lost"
        return f"frame {self.first} lost" if self.count == 1 else f"{some} lost ({self.first} to {self.last})"


def counted_gaps(numbers: Times, places: Times, blank: np.ndarray[Any, np.dtype[np.bool_]]) -> list[Gap]:
    """Return the gaps that frame numbers show.

    Parameters
    ----------
    numbers
        The device's number of each row.
    places
        Its row in the whole recording: rows that the caller left out are not lost.
    blank
        Rows that stand for a lost frame themselves (``gaps="fill"``).
    """
    rows = np.flatnonzero(~blank)
    steps, apart = np.diff(places[rows]), np.diff(rows)
    lost = np.diff(numbers[rows]) - steps + (apart - 1)  # the rows between two that are there are blank
    found = []
    for k in np.flatnonzero((lost > 0) & (steps > 0)).tolist():
        row, before, after = int(rows[k + 1]), int(numbers[rows[k]]), int(numbers[rows[k + 1]])
        known = steps[k] == apart[k]
        found.append(Gap(row, int(lost[k]), before + 1, after - 1) if known else Gap(row, int(lost[k])))
    return found


def clock_gaps(times: Times) -> list[Gap]:
    """Return the gaps that only the clock shows: a v3 numbers the frames it writes, not those of its camera.

    After a stall of the card the next frames are stamped late, and then close together. So uneven steps that follow
    each other are looked at as one, and the gap lies before the longest of them::

        steps of 50 ms   50 50 208 9 83 50 50      208 + 9 + 83 = 6 steps for 3 frames: 3 are lost
    """
    steps = np.diff(times)
    if len(steps) < 2 or (times == BLANK).any():
        return []
    usual = float(np.median(steps))
    even = np.abs(steps - usual) <= max(_UNEVEN * usual, 2)
    if usual <= 0 or not even.any():
        return []
    usual = float(steps[even].mean())
    edges = np.diff(np.concatenate([[True], even, [True]]).astype(np.int8))
    found = []
    for start, stop in zip(np.flatnonzero(edges < 0).tolist(), np.flatnonzero(edges > 0).tolist(), strict=True):
        lost = int(np.floor(steps[start:stop].sum() / usual + _UNEVEN)) - (stop - start)
        if lost > 0:
            found.append(Gap(start + int(np.argmax(steps[start:stop])) + 1, lost))
    return found
