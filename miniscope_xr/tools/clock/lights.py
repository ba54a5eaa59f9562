"""Lights in a behaviour video: the status LED that is on while a recording runs, a remote's flash, pulses.

One pass over the video, with little memory: of every frame only how bright the brightest point of each block is,
against what surrounds it, and of that only the sudden changes. A light switches on and off by the same amount; what
moves does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from miniscope_xr.errors import OptionError
from miniscope_xr.layout.arrays import Array
from miniscope_xr.tools.clock.fit import MOST_DRIFT, ClockError
from miniscope_xr.tools.stream.camera import opened_film, parts_of, refuse_no_film
from miniscope_xr.tools.stream.libraries import need
from miniscope_xr.tools.stream.outputs import progress_bar

Region = tuple[int, int, int, int]
"""x, y, width and height in px."""

BLOCK = 16  # px of a side
STRETCH = 5  # frames
_AROUND = 9  # px of a side of what a point is compared with
_LEAST = 14  # grey values by which a light stands out when it is on
_ALIKE = 0.35  # by how much of their size the steps of one light differ
_STAYS = 0.85  # of the time a light can be seen while it is on; else something stands before it
_SOME, _WINDOWS = 1500, 25  # stretches and windows by which is told what is usual
_TRIED = 8  # pairs of steps, the highest first
_LATE = 0.25  # s: by how much a light may be on longer or shorter than its recording, beside the clocks' drift
_MOST_PAIRS = 4_000_000  # of steps of a block: more come from something else
_HALVES = 3  # frames over which a light may come or go: compression smears it


@dataclass(frozen=True)
class Light:
    """A light that was found.

    Attributes
    ----------
    on, off
        Frames of the video in which it first is on, and first is off again.
    size
        Grey values by which it stands out.
    where
        Region in px; None where it moved.
    """

    on: Array
    off: Array
    size: float
    where: Region | None


def frames_of(path: Path) -> Iterator[Array]:
    """Yield the grey frames of a video, or of the numbered videos of a folder in their order."""
    cv2 = need("cv2", "video", "reading a behaviour video")
    for part in parts_of(path):
        with opened_film(part) as film:
            refuse_no_film(film, part)
            while True:
                there, image = film.read()
                if not there:
                    break
                yield image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)


@dataclass
class Steps:
    """Sudden changes of the blocks of a video: which frame, which block, how many grey values."""

    frame: Array
    block: Array
    size: Array
    count: int
    shape: tuple[int, int]
    """Blocks along y and x."""
    levels: Array
    """How far every block stood out on the whole in each stretch of :data:`STRETCH` frames (stretch, block)."""
    edge: int = BLOCK


def steps_of(path: Path, region: Region | None = None, progress: bool = True) -> Steps:
    """Look at a video once and keep the sudden changes of its blocks.

    Parameters
    ----------
    path
        A video, or a camera's folder.
    region
        Only this part of the picture, as one block; None looks everywhere.
    progress
        Show a progress bar (on a terminal).
    """
    past: list[Array] = []
    stretch: list[Array] = []
    levels: list[Array] = []
    found: list[tuple[Array, Array, Array]] = []
    count, shape = 0, (1, 1)
    with progress_bar(0, f"light in {path.name}", show=progress) as bar:
        for image in frames_of(path):
            points = _points(image, region)
            shape = points.shape
            flat = points.reshape(-1).astype(np.int16)
            past, stretch = [*past[-_HALVES:], flat], [*stretch, flat]
            if len(stretch) == STRETCH:
                levels.append(np.clip(np.median(stretch, axis=0), 0, 255).astype(np.uint8))
                stretch = []
            if len(past) > _HALVES:
                found.append(_changes(past, count - 1))
            count += 1
            bar.update(1)
    if count < 2 * _HALVES:
        raise ClockError(f"{path}: {count} frames are too few to find a light in")
    frames, blocks, sizes = (np.concatenate(each) for each in zip(*found, strict=True))
    whole = np.array(levels, np.uint8).reshape(-1, shape[0] * shape[1])
    return Steps(frames, blocks, sizes, count, shape, whole)


def _points(image: Array, region: Region | None) -> Array:
    """How far the brightest point of each block stands out of what surrounds it."""
    cv2 = need("cv2", "video", "reading a behaviour video")
    if region is not None:
        x, y, width, height = region
        if x < 0 or y < 0 or width < 1 or height < 1 or y + height > image.shape[0] or x + width > image.shape[1]:
            raise OptionError(f"region={region}: the picture is {image.shape[1]} px wide and {image.shape[0]} px high")
        return np.array([[image[y : y + height, x : x + width].mean()]])
    smooth = cv2.blur(image, (3, 3))
    out = cv2.subtract(smooth, cv2.blur(image, (_AROUND * 2 + 1, _AROUND * 2 + 1)))
    height, width = (size // BLOCK * BLOCK for size in image.shape)
    if not height or not width:
        return np.array([[float(out.max())]])
    points: Array = out[:height, :width].reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK).max(axis=(1, 3))
    return points


def _changes(past: list[Array], frame: int) -> tuple[Array, Array, Array]:
    """Blocks that changed between the frames ``frame`` - 1 and ``frame``, and did not waver on either side.

    ``past`` is the frames ``frame`` - 2 to ``frame`` + 1: a change may be half done in one frame.
    """
    before, last, now, after = past
    whole = after - before
    step = now - last
    sudden = (np.abs(step) * 2 >= np.abs(whole)) & (np.abs(whole) >= _LEAST / 2) & (np.sign(step) == np.sign(whole))
    blocks = np.flatnonzero(sudden)
    return np.full(len(blocks), frame, np.int64), blocks, whole[blocks]


def find_light(steps: Steps, seconds: Array, lit: float | None) -> Light:
    """Find the light among the changes.

    Parameters
    ----------
    steps
        Of a video.
    seconds
        Time of each of its frames, in s.
    lit
        How long it was on, in s, where that is known: it is on while a recording runs. None: it flashes more than once.

    Raises
    ------
    ClockError
        There is none, or there are several that could be it.
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
        light = _moving(steps, seconds, lit)
        if light is not None:
            return Light(light[1], light[2], light[3], None)
    if not found:
        wanted = "flashes" if lit is None else f"is on for {lit:.1f} s, as the recording was"
        raise ClockError(
            f"no light was found in the video: nothing {wanted}. Give its region (x, y, width, height), or pairs"
        )
    found.sort(key=lambda one: (-one[0], one[1]))
    score, block, on, off, size = found[0]
    for other in found[1:]:
        if other[0] > 0.6 * score and not _same(on, off, other[2], other[3]):
            raise ClockError(
                "two lights in the video go on and off at different times: one at "
                f"{_place(steps, block)}, one at {_place(steps, other[1])}; give the region of the right one"
            )
    return Light(on, off, size, _region(steps, block))


def _same(on: Array, off: Array, others_on: Array, others_off: Array) -> bool:
    """Whether two lights are one: a reflection, or the next block."""
    mine, theirs = np.concatenate([on, off]), np.concatenate([others_on, others_off])
    near = np.abs(theirs[:, np.newaxis] - mine).min(axis=1) <= 2
    return bool(near.mean() > 0.5)


def _region(steps: Steps, block: int) -> Region | None:
    if steps.shape == (1, 1):
        return None
    return block % steps.shape[1] * steps.edge, block // steps.shape[1] * steps.edge, steps.edge, steps.edge


def _place(steps: Steps, block: int) -> str:
    region = _region(steps, block)
    return "no fixed place" if region is None else f"x {region[0]}, y {region[1]}"


def _flashing(frames: Array, sizes: Array) -> tuple[float, Array, Array, float] | None:
    """(score, on, off, size) of a block that goes on and off by the same amount again and again, else None."""
    up, down = sizes > 0, sizes < 0
    if up.sum() < 2 or down.sum() < 2:
        return None
    size = float(np.median(np.abs(sizes)[np.abs(sizes) >= 0.5 * np.abs(sizes).max()]))
    good = np.abs(np.abs(sizes) - size) <= _ALIKE * size
    if size < _LEAST or good.mean() < 0.7:
        return None
    frames, up = frames[good], up[good]
    if float((up[1:] != up[:-1]).mean()) < 0.8:  # on, off, on, off
        return None
    return size * float(np.sqrt(good.sum())) * float(good.mean()), frames[up], frames[~up], size


def _merged(frames: Array, sizes: Array) -> tuple[Array, Array]:
    """One step where the same one was seen in frames that follow each other: the steepest."""
    if not len(frames):
        return frames, sizes
    new = np.append(True, (np.diff(frames) > _HALVES) | (np.sign(sizes[1:]) != np.sign(sizes[:-1])))
    group = np.cumsum(new) - 1
    best = np.full(group[-1] + 1, -1)
    for k in np.argsort(np.abs(sizes), kind="stable").tolist():
        best[group[k]] = k
    return frames[best], sizes[best]


def _lit_once(
    frames: Array, sizes: Array, seconds: Array, lit: float, level: Array
) -> tuple[float, Array, Array, float] | None:
    """The step up and the step down that lie as far apart as the recording is long, with a light between them."""
    ups, downs = np.flatnonzero(sizes >= _LEAST), np.flatnonzero(sizes <= -_LEAST)
    if not len(ups) or not len(downs) or len(ups) * len(downs) > _MOST_PAIRS:
        return None
    apart = seconds[frames[downs]][np.newaxis] - seconds[frames[ups]][:, np.newaxis]
    rise, fall = sizes[ups][:, np.newaxis], -sizes[downs][np.newaxis]
    alike = np.abs(rise - fall) <= _ALIKE * np.maximum(rise, fall)
    fits = alike & (np.abs(apart - lit) <= MOST_DRIFT / 4 * lit + _LATE)
    heights = np.where(fits, np.minimum(rise, fall), 0)
    for place in np.argsort(-heights, axis=None, kind="stable")[:_TRIED].tolist():
        k, m = divmod(place, heights.shape[1])
        size, first, last = float(heights[k, m]), int(frames[ups[k]]), int(frames[downs[m]])
        if size > 0 and _stays(level, first, last, size):
            return size, np.array([first]), np.array([last]), size
    return None


def _stays(level: Array, first: int, last: int, size: float) -> bool:
    """Whether a block stood out from ``first`` to ``last`` and not else: an animal comes and goes, it does not stay."""
    stretch = np.arange(len(level)) * STRETCH
    on = (stretch >= first) & (stretch + STRETCH <= last)
    off = (stretch + STRETCH <= first) | (stretch >= last)
    if on.sum() < 2 or off.sum() < 2:
        return False
    shown = level > np.median(level[off]) + size / 2
    return bool(shown[on].mean() >= _STAYS and shown[off].mean() <= 1 - _STAYS)


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


def _moving(steps: Steps, seconds: Array, lit: float) -> tuple[float, Array, Array, float] | None:
    """A light on an animal: some block stands out by more than usual for as long as the recording was, and not else.

    Where that is so says roughly when; the steepest steps there, in whichever block, say in which frames.
    """
    count = len(steps.levels)
    length = round(lit / float(np.median(np.diff(seconds))) / STRETCH)
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
    shown = level > np.median(level[~on]) + max(size / 4, _LEAST / 2)  # it is weaker between two blocks
    if size < _LEAST or shown[on].mean() < _STAYS or shown[~on].mean() > 1 - _STAYS:
        return None
    edges = []
    for stretch, sign in ((start, 1), (start + length, -1)):
        near = np.abs(steps.frame - stretch * STRETCH) <= 2 * STRETCH
        strong = near & (sign * steps.size >= size / 2)
        if not strong.any():
            return None
        frames, sizes = steps.frame[strong], steps.size[strong]
        edges.append(int(frames[np.argmax(np.abs(sizes))]))
    late = abs(float(seconds[edges[1]] - seconds[edges[0]]) - lit)
    if late > MOST_DRIFT / 4 * lit + _LATE:
        return None
    return size, np.array(edges[:1]), np.array(edges[1:]), size
