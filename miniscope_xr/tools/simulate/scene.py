"""Cameras: cheap frames that are all different, and a brain surface with blinking neurons for the demo."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Camera = Callable[[int], Pixels]


def noise_camera(width: int, height: int, seed: int = 0) -> Camera:
    """Noise in which every frame differs from every other and no stretch repeats within a frame.

    Parameters
    ----------
    width, height
        Frame size in pixels.
    seed
        Two seeds give unrelated frames.

    Returns
    -------
    callable
        Camera frame number -> uint8 pixels (height, width).
    """
    size = width * height
    pool = np.frombuffer(np.random.default_rng((seed, 7)).bytes(size + 4096), np.uint8)

    def camera(c: int) -> Pixels:
        start = (c * 1031) % 4096
        return (pool[start : start + size] + np.uint8((37 * c + c // 4096) & 255)).reshape(height, width)

    return camera


def calcium_scene(width: int = 304, height: int = 304, seed: int = 0) -> Camera:
    """Placeholder until the scene is drawn."""
    return noise_camera(width, height, seed)
