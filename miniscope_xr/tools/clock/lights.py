"""Lights in a behaviour video: the status LED that is on while a recording runs, a remote's flash, pulses.

They are looked for among the sudden changes of the picture (:mod:`miniscope_xr.tools.clock.steps`). A light switches
on and off by the same amount; what moves does not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from miniscope_xr.layout.arrays import Array
from miniscope_xr.tools.clock.fit import ClockError
from miniscope_xr.tools.clock.lit import LATE, STAYS, Lit
from miniscope_xr.tools.clock.moving import moving_light
from miniscope_xr.tools.clock.steps import HALVES, LEAST, STRETCH, Region, Steps

_ALIKE = 0.35  # by how much of their size the steps of one light differ
_QUIET, _DARK = 4, 25  # stretches in which it does not blink tell how dark it is, else the darkest percents of all
_TRIED = 8  # pairs of steps, the highest first
_MOST_PAIRS = 4_000_000  # of steps of a block: more come from something else


@dataclass(frozen=True)
class Light:
    """A light that was found."""

    on: Array
    off: Array
    """Frames of the video in which it first is on, and first is off again."""
    size: float
    """Grey values by which it stands out."""
    where: Region | None
    """Region in px; None where it moved."""

    @property
    def place(self) -> str:
        """The same in words."""
        return "no fixed place" if self.where is None else f"x {self.where[0]}, y {self.where[1]}"


def find_lights(steps: Steps, seconds: Array, lit: Lit | None) -> list[Light]:
    """Find the lights among the changes: those that can be told apart, the clearest first.

    Parameters
    ----------
    steps
        Of a video.
    seconds
        Time of each of its frames, in s.
    lit
        How long it was on, where that is known: it is on while a recording runs. None: it flashes more than once.

    Raises
    ------
    ClockError
        There is none.
    """
    if len(seconds) < steps.count:
        raise ClockError(f"the video has {steps.count} frames, and {len(seconds)} of them have a time")
    found = []
    for block in np.unique(steps.block).tolist():
        frames, sizes = _merged(*(each[steps.block == block] for each in (steps.frame, steps.size)))
        level = steps.levels[:, block].astype(float)
        light = _flashing(frames, sizes) if lit is None else _lit_once(frames, sizes, seconds, lit, level)
        if light is not None:
            found.append((light[0], block, light[1], light[2], light[3]))
    if not found and lit is not None and steps.shape != (1, 1):
        light = moving_light(steps, seconds, lit)
        if light is not None:
            return [Light(light[1], light[2], light[3], None)]
    if not found:
        raise ClockError(_nothing(steps, seconds, lit))
    found.sort(key=lambda one: (-one[0], one[1]))
    lights: list[Light] = []
    for _, block, on, off, size in found:
        if not any(_same(light.on, light.off, on, off) for light in lights):
            lights.append(Light(on, off, size, _region(steps, block)))
    return lights


def _nothing(steps: Steps, seconds: Array, lit: Lit | None) -> str:
    """Say why there is none."""
    filmed = float(seconds[steps.count - 1] - seconds[0])
    if lit is not None and filmed < lit.length:
        return (
            f"the video is {filmed:.1f} s long and the recording {lit.length:.1f} s: the light cannot be seen going on "
            "at its start and off at its end. Give the whole video (a camera's folder), or pairs"
        )
    wanted = (
        "flashes"
        if lit is None
        else f"is on for {' or '.join(f'{s:.1f}' for s in lit.lengths)} s, as the recording was,"
    )
    return (
        f"no light was found in the video: nothing {wanted} while the room's light stays as it is. "
        "Give its region (x, y, width, height), or pairs"
    )


def one_light(lights: list[Light]) -> Light:
    """Return the light that was found.

    Raises
    ------
    ClockError
        There are several that could be it.
    """
    if len(lights) > 1:
        first, second = (light.place for light in lights[:2])
        raise ClockError(
            "two lights in the video go on and off at different times: one at "
            f"{first}, one at {second}; give the region of the right one"
        )
    return lights[0]


def _same(on: Array, off: Array, others_on: Array, others_off: Array) -> bool:
    """Whether two lights are one: a reflection, or the next block."""
    mine, theirs = np.concatenate([on, off]), np.concatenate([others_on, others_off])
    near = np.abs(theirs[:, np.newaxis] - mine).min(axis=1) <= 2
    return bool(near.mean() > 0.5)


def _region(steps: Steps, block: int) -> Region | None:
    if steps.shape == (1, 1):
        return None
    return block % steps.shape[1] * steps.edge, block // steps.shape[1] * steps.edge, steps.edge, steps.edge


def _flashing(frames: Array, sizes: Array) -> tuple[float, Array, Array, float] | None:
    """(score, on, off, size) of a block that goes on and off by the same amount again and again, else None."""
    up, down = sizes > 0, sizes < 0
    if up.sum() < 2 or down.sum() < 2:
        return None
    size = float(np.median(np.abs(sizes)[np.abs(sizes) >= 0.5 * np.abs(sizes).max()]))
    good = np.abs(np.abs(sizes) - size) <= _ALIKE * size
    if size < LEAST or good.mean() < 0.7:
        return None
    frames, up = frames[good], up[good]
    if float((up[1:] != up[:-1]).mean()) < 0.8:  # on, off, on, off
        return None
    return size * float(np.sqrt(good.sum())) * float(good.mean()), frames[up], frames[~up], size


def _merged(frames: Array, sizes: Array) -> tuple[Array, Array]:
    """One step where the same one was seen in frames that follow each other: the steepest."""
    if not len(frames):
        return frames, sizes
    new = np.append(True, (np.diff(frames) > HALVES) | (np.sign(sizes[1:]) != np.sign(sizes[:-1])))
    group = np.cumsum(new) - 1
    best = np.full(group[-1] + 1, -1)
    for k in np.argsort(np.abs(sizes), kind="stable").tolist():
        best[group[k]] = k
    return frames[best], sizes[best]


def _lit_once(
    frames: Array, sizes: Array, seconds: Array, lit: Lit, level: Array
) -> tuple[float, Array, Array, float] | None:
    """The step up and the step down that lie as far apart as the recording is long, with a light between them."""
    ups, downs = np.flatnonzero(sizes >= LEAST), np.flatnonzero(sizes <= -LEAST)
    if not len(ups) or not len(downs) or len(ups) * len(downs) > _MOST_PAIRS:
        return None
    apart = seconds[frames[downs]][np.newaxis] - seconds[frames[ups]][:, np.newaxis]
    rise, fall = sizes[ups][:, np.newaxis], -sizes[downs][np.newaxis]
    alike = np.abs(rise - fall) <= _ALIKE * np.maximum(rise, fall)
    fits = alike & (lit.off_by(apart) <= lit.late)
    heights = np.where(fits, np.minimum(rise, fall), 0)
    for place in np.argsort(-heights, axis=None, kind="stable")[:_TRIED].tolist():
        k, m = divmod(place, heights.shape[1])
        size, first, last = float(heights[k, m]), int(frames[ups[k]]), int(frames[downs[m]])
        if size > 0 and _stays(level, first, last, size, _blinks(seconds, first, last, lit)):
            return size, np.array([first]), np.array([last]), size
    return None


def _blinks(seconds: Array, first: int, last: int, lit: Lit) -> tuple[int, int]:
    """Frames from which and to which a LED may blink that is on from ``first`` to ``last``."""
    begun = np.searchsorted(seconds, seconds[first] - lit.before - LATE) if lit.before else first
    return int(begun), int(np.searchsorted(seconds, seconds[last] + lit.after)) if lit.after else last


def _stays(level: Array, first: int, last: int, size: float, blinks: tuple[int, int]) -> bool:
    """Whether a block stood out from ``first`` to ``last`` and at no other time: an animal comes and goes.

    While the LED may blink before and behind that, the block may stand out for half of the time.
    """
    stretch = np.arange(len(level)) * STRETCH
    on = (stretch >= first) & (stretch + STRETCH <= last)
    off = (stretch + STRETCH <= first) | (stretch >= last)
    quiet = off & ((stretch + STRETCH <= blinks[0]) | (stretch >= blinks[1]))
    if on.sum() < 2 or off.sum() < 2:
        return False
    dark = np.median(level[quiet]) if quiet.sum() >= _QUIET else np.percentile(level[off], _DARK)
    shown = level > dark + size / 2
    return bool(
        shown[on].mean() >= STAYS
        and shown[quiet].sum() <= (1 - STAYS) * quiet.sum()
        and shown[off & ~quiet].sum() <= (1 - STAYS + 0.5) * (off & ~quiet).sum()
    )
