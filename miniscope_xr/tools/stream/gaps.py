"""Frames that never reached the card: before which row and how many, by their numbers or (v3) by the clock alone.

The one place where gaps are counted; video, exports, report, check and the page of ``view`` ask here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from miniscope_xr.card import OpenRecording
from miniscope_xr.frames.rate import clock_step
from miniscope_xr.layout.arrays import Bools, Ints
from miniscope_xr.tools.stream.timing import BLANK

DROPPED = "dropped_buffer_count"
"""Field of a device that counts what it drops: it numbers every frame of its camera."""

_UNEVEN = 0.25  # of a step: what differs more from the others is no step of one frame
_SPAN = 1024  # frames over which the clocks of camera and device do not drift apart by a part of a frame
_NEAR = 32  # frames of which every time is looked at

TimesOf = Callable[[Ints], Ints]
"""Reads the times of some rows in ms, :data:`BLANK` where there is none."""


@dataclass(frozen=True)
class Gap:
    """Lost frames: ``count`` of them before row ``row``.

    ``first`` and ``last`` are their numbers, or -1 where the device did not count them and only its clock tells.
    """

    row: int
    count: int
    first: int = -1
    last: int = -1

    @property
    def counted(self) -> bool:
        """Whether the device gave numbers to the lost frames."""
        return self.first >= 0

    def __str__(self) -> str:
        some = "1 frame" if self.count == 1 else f"{self.count} frames"
        if not self.counted:
            return f"{some} lost"
        return f"frame {self.first} lost" if self.count == 1 else f"{some} lost ({self.first} to {self.last})"


def recording_gaps(opened: OpenRecording) -> list[Gap]:
    """Gaps of an open recording: by its frame numbers without a read, else by some hundred looks at its clock."""

    def look(rows: Ints) -> Ints:
        found = opened.describe(rows, whole=False)
        times = found.first["timestamp"].astype(np.int64) // opened.recording.ticks
        return np.where(found.present > 0, times, BLANK).astype(np.int64)

    rows = np.arange(opened.frames.count)
    counts = DROPPED in (opened.card.header_dtype.names or ())
    return lost_frames(opened.frames.frame_num(rows), rows, np.zeros(len(rows), bool), counts, look)


def lost_frames(numbers: Ints, places: Ints, blank: Bools, counts: bool, look: TimesOf) -> list[Gap]:
    """Return the gaps between some rows of a recording.

    Parameters
    ----------
    numbers, places, blank
        As for :func:`counted_gaps`.
    counts
        Whether the device numbers every frame of its camera; of others the clock tells, where the caller left no rows
        out.
    look
        Reads the times of some of these rows.
    """
    found = counted_gaps(numbers, places, blank)
    if found or counts or (np.diff(places) != 1).any():
        return found
    return clock_gaps(len(numbers), look)


def counted_gaps(numbers: Ints, places: Ints, blank: Bools) -> list[Gap]:
    """Return the gaps that frame numbers show; a recording's numbers begin at 0.

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
    found = []
    if len(rows) and places[0] == 0 and (ahead := int(numbers[rows[0]] - places[rows[0]] + rows[0])) > 0:
        found.append(Gap(int(rows[0]), ahead, 0, ahead - 1))
    steps, apart = np.diff(places[rows]), np.diff(rows)
    lost = np.diff(numbers[rows]) - steps + (apart - 1)  # the rows between two that are there are blank
    for k in np.flatnonzero((lost > 0) & (steps > 0)).tolist():
        row, before, after = int(rows[k + 1]), int(numbers[rows[k]]), int(numbers[rows[k + 1]])
        known = steps[k] == apart[k]
        found.append(Gap(row, int(lost[k]), before + 1, after - 1) if known else Gap(row, int(lost[k])))
    return found


def clock_gaps(count: int, look: TimesOf) -> list[Gap]:
    """Return the gaps that only the clock shows: a v3 numbers the frames it writes, not those of its camera.

    After a stall of the card the next frames are stamped late, and then close together. So uneven steps that follow
    each other are looked at as one, and the gap lies before the longest of them::

        steps of 50 ms   50 50 208 9 83 50 50      208 + 9 + 83 = 6 steps for 3 frames: 3 are lost

    Between two rows with even steps around them nothing is lost where the time that passed is that of the frames
    between them; where more passed, the gap is looked for in either half.
    """
    step = clock_step(count, lambda rows: (look(rows), rows))
    if step is None or count < 3:
        return []
    clock = _Clock(count, look, step)
    tail = max(count - 1 - _NEAR, 0)
    edges = [0, clock.steady(1)]
    while edges[-1] < tail:
        edges.append(clock.steady(min(edges[-1] + _SPAN, tail)))
    pairs = pairwise(sorted({*edges, count - 1}))
    return [gap for first, last in pairs for gap in clock.gaps(first, last)]


class _Clock:
    """Times of a recording against the step of its clock from frame to frame, in ms."""

    def __init__(self, count: int, look: TimesOf, step: float) -> None:
        self._end = count - 1
        self._look = look
        self._step = step
        self._uneven = max(_UNEVEN * step, 2)

    def steady(self, row: int) -> int:
        """The first row from ``row`` on with even steps on either side; the last row where there is none."""
        while row < self._end:
            rows = np.arange(row - 1, min(row + _NEAR, self._end) + 1)
            even = self._even(np.diff(self._look(rows)))
            found = np.flatnonzero(even[:-1] & even[1:])
            if len(found):
                return row + int(found[0])
            row += _NEAR
        return self._end

    def _even(self, steps: Ints) -> Bools:
        even: Bools = np.abs(steps - self._step) <= self._uneven
        return even

    def gaps(self, first: int, last: int) -> list[Gap]:
        """Gaps between two rows with even steps around them."""
        if last - first <= _NEAR:
            return self._looked_at(first, last)
        begun, ended = self._look(np.array([first, last])).tolist()
        if BLANK not in (begun, ended) and self._lost(ended - begun, last - first) < 1:
            return []
        middle = self.steady((first + last) // 2)
        if middle >= last:
            return self._looked_at(first, last)
        return self.gaps(first, middle) + self.gaps(middle, last)

    def _lost(self, passed: int, frames: int) -> int:
        return int(np.floor(passed / self._step + _UNEVEN)) - frames

    def _looked_at(self, first: int, last: int) -> list[Gap]:
        """Gaps between two rows by every time between them; frames without one are passed over."""
        rows = np.arange(first, last + 1)
        times = self._look(rows)
        rows, times = rows[times != BLANK], times[times != BLANK]
        steps, frames = np.diff(times), np.diff(rows)
        even = self._even(steps) & (frames == 1)
        edges = np.diff(np.concatenate([[True], even, [True]]).astype(np.int8))
        found = []
        for start, stop in zip(np.flatnonzero(edges < 0).tolist(), np.flatnonzero(edges > 0).tolist(), strict=True):
            lost = self._lost(int(steps[start:stop].sum()), int(frames[start:stop].sum()))
            if lost > 0:
                longest = start + int(np.argmax(steps[start:stop]))
                found.append(Gap(int(rows[longest + 1]), lost))
        return found
