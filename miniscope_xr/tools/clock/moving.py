"""A light on an animal: it moves over the picture, so that no block of it tells when it was on.

Of each stretch of frames the block that stands out most counts, against what is usual there.
"""

from __future__ import annotations

import numpy as np

from miniscope_xr.layout.arrays import Array
from miniscope_xr.tools.clock.lit import STAYS, Lit
from miniscope_xr.tools.clock.steps import LEAST, STRETCH, Steps

_SOME, _WINDOWS = 1500, 25  # stretches and windows by which is told what is usual


def _beyond_usual(levels: Array, length: int) -> Array:
    """How far the block that stands out most in each stretch is above what is usual there while the light is off.

    When that is, is not known: of windows all over the video the one is taken that leaves the light least elsewhere.
    """
    some = levels[:: max(len(levels) // _SOME, 1)]
    best, found = -np.inf, np.zeros(len(levels))
    for share in np.linspace(0, 1, _WINDOWS).tolist():
        start = round(share * (len(levels) - length))
        at = np.arange(len(some)) * len(levels) / len(some)
        on = (at >= start) & (at < start + length)
        if on.all() or not on.any():
            continue
        usual = np.percentile(some[~on], 95, axis=0)
        level = (some - usual).max(axis=1)
        apart = float(np.median(level[on]) - np.median(level[~on]))
        if apart > best:
            best, found = apart, (levels - usual).max(axis=1)
    return found


def moving_light(steps: Steps, seconds: Array, lit: Lit) -> tuple[float, Array, Array, float] | None:
    """A light on an animal: some block stands out by more than usual for as long as the recording was, and not else.

    Where that is so says roughly when; the steepest steps there, in whichever block, say in which frames.
    """
    for length in lit.lengths:
        light = _moving_for(steps, seconds, lit, length)
        if light is not None:
            return light
    return None


def _moving_for(steps: Steps, seconds: Array, lit: Lit, seconds_lit: float) -> tuple[float, Array, Array, float] | None:
    """The same, of one that is on for so many seconds."""
    count = len(steps.levels)
    length = round(seconds_lit / float(np.median(np.diff(seconds))) / STRETCH)
    if not 2 <= length <= count - 4:
        return None
    level = _beyond_usual(steps.levels, length)
    sums = np.concatenate([[0.0], np.cumsum(level)])
    inside = (sums[length:] - sums[:-length]) / length
    outside = (sums[-1] - (sums[length:] - sums[:-length])) / (count - length)
    start = int(np.argmax(inside - outside))
    on = np.zeros(count, bool)
    on[start : start + length] = True
    size = float(np.median(level[on]) - np.median(level[~on]))
    shown = level > np.median(level[~on]) + max(size / 4, LEAST / 2)  # it is weaker between two blocks
    if size < LEAST or shown[on].mean() < STAYS or shown[~on].mean() > 1 - STAYS:
        return None
    edges = []
    for stretch, sign in ((start, 1), (start + length, -1)):
        near = np.abs(steps.frame - stretch * STRETCH) <= 2 * STRETCH
        strong = near & (sign * steps.size >= size / 2)
        if not strong.any():
            return None
        frames, sizes = steps.frame[strong], steps.size[strong]
        edges.append(int(frames[np.argmax(np.abs(sizes))]))
    if abs(float(seconds[edges[1]] - seconds[edges[0]]) - seconds_lit) > lit.late:
        return None
    return size, np.array(edges[:1]), np.array(edges[1:]), size
