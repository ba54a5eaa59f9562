"""What the mean of a recording tells of the camera and the light: dead and hot pixels, and the vignette."""

from __future__ import annotations

from typing import Any

import numpy as np

from miniscope_xr.layout.arrays import Array

_SIGMAS = 10  # of the spread among neighbours: nothing of a scene is that far off in one pixel alone
_DARK, _BRIGHT = 0.5, 1.3  # of the neighbours' light: a pixel beyond is dead, or hot
_LEAST = 3.0  # grey values between a defect and its neighbours
_STUCK = 30  # frames in which a pixel that works shows at least two values
_BLOCKS = 19  # of the picture along a side, for the vignette
_DEGREE = 4


# Pairs that put eight values in order (Batcher's network), as far as the two in the middle need it.
_IN_ORDER = (
    (0, 2), (1, 3), (4, 6), (5, 7), (0, 4), (1, 5), (2, 6), (3, 7), (0, 1), (2, 3), (4, 5), (6, 7), (2, 4), (3, 5),
    (1, 4), (3, 6), (3, 4),
)  # fmt: skip


def neighbours(picture: Array) -> Array:
    """Median of the eight pixels around each; at the edges the picture is mirrored."""
    wide = np.pad(picture, 1, mode="reflect")
    height, width = picture.shape
    around = [wide[dy : dy + height, dx : dx + width] for dy in range(3) for dx in range(3) if (dy, dx) != (1, 1)]
    for low, high in _IN_ORDER:  # half of the time of np.median
        around[low], around[high] = np.minimum(around[low], around[high]), np.maximum(around[low], around[high])
    middle: Array = (around[3] + around[4]) / 2
    return middle


def defects(mean: Array, lowest: Array, highest: Array, frames: int) -> tuple[Array, Array]:
    """Which pixels are dead and which are hot.

    Parameters
    ----------
    mean, lowest, highest
        Of each pixel over the frames that were looked at.
    frames
        How many these are.

    Returns
    -------
    dead, hot
        bool (height, width). Dead: less than half of the neighbours' light, or always one value among neighbours that
        vary. Hot: a third and more above the neighbours. Both far beyond the spread of the picture's finest detail; a
        cell or a vessel covers several pixels, so that the neighbours are like it.
    """
    around = neighbours(mean)
    apart = mean - around
    spread = 1.4826 * np.median(np.abs(apart)) + 1e-6
    far = np.maximum(_SIGMAS * spread * np.sqrt(np.maximum(around, 1) / max(float(around.mean()), 1)), _LEAST)
    hot = (apart > far) & (mean > _BRIGHT * around)
    dark = (-apart > far) & (mean < _DARK * around)
    stuck = (highest == lowest) & (neighbours(highest.astype(float) - lowest) >= 2)
    dead = dark | (stuck & ~hot if frames >= _STUCK else np.zeros_like(dark))
    return dead, hot


def vignette(mean: Array) -> Array:
    """Light of each place against the brightest, 0 to 1: a smooth surface through the medians of blocks of the mean.

    It is what is even in the picture: optics, light and slow changes of the tissue; one picture cannot tell them apart.
    """
    height, width = mean.shape
    rows = np.array_split(np.arange(height), min(_BLOCKS, height))
    columns = np.array_split(np.arange(width), min(_BLOCKS, width))
    values = np.array([[float(np.median(mean[np.ix_(r, c)])) for c in columns] for r in rows])
    y, x = np.array([r.mean() for r in rows]), np.array([c.mean() for c in columns])
    surface = _fitted(y / height * 2 - 1, x / width * 2 - 1, np.log(np.maximum(values, 0.5)))
    light = np.exp(surface(np.arange(height) / height * 2 - 1, np.arange(width) / width * 2 - 1))
    relative: Array = (light / light.max()).astype(np.float32)
    return relative


def _fitted(y: Array, x: Array, values: Array) -> Any:
    """A polynomial through values on a grid; what lies far off, such as a vessel, counts little."""
    degree = min(_DEGREE, len(y) - 1, len(x) - 1)
    powers = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]

    def basis(v: Array, u: Array) -> Array:
        return np.stack([np.multiply.outer(v**i, u**j) for i, j in powers], axis=-1)

    grid = basis(y, x).reshape(-1, len(powers))
    flat = values.reshape(-1)
    weights = np.ones_like(flat)
    for _ in range(10):
        found = np.linalg.lstsq(grid * weights[:, np.newaxis], flat * weights, rcond=None)[0]
        left = flat - grid @ found
        size = 1.4826 * np.median(np.abs(left)) + 1e-9
        weights = np.sqrt(np.minimum(1, 1.5 * size / np.maximum(np.abs(left), 1e-12)))
    return lambda v, u: basis(v, u) @ found


def corner_light(relative: Array) -> float:
    """Light of the four corners (a twelfth of each side), against the brightest place."""
    h, w = max(relative.shape[0] // 12, 1), max(relative.shape[1] // 12, 1)
    corners = [relative[:h, :w], relative[:h, -w:], relative[-h:, :w], relative[-h:, -w:]]
    return float(np.mean([corner.mean() for corner in corners]))
