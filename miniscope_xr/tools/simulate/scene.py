"""Cameras: cheap frames that are all different, and a brain surface with blinking neurons for the demo."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Uint8Image = NDArray[np.uint8]
Greys = NDArray[np.float32]
Scenery = Callable[[int], Uint8Image]

_MARGIN = 8  # pixels of brain around the picture, for the motion
_PERIOD = 4096  # frames after which the neurons' activity repeats


def noise_camera(width: int, height: int, seed: int = 0) -> Scenery:
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

    def camera(c: int) -> Uint8Image:
        start = (c * 1031) % 4096
        return (pool[start : start + size] + np.uint8((37 * c + c // 4096) & 255)).reshape(height, width)

    return camera


def _blur(picture: Greys, sigma: float) -> Greys:
    """Gaussian blur by FFT; the edges wrap around."""
    fy = np.fft.fftfreq(picture.shape[0])[:, None]
    fx = np.fft.rfftfreq(picture.shape[1])[None]
    pass_band = np.exp(-2 * (np.pi * sigma) ** 2 * (fy**2 + fx**2))
    return np.fft.irfft2(np.fft.rfft2(picture) * pass_band, picture.shape).astype(np.float32)


def _vessels(shape: tuple[int, int], rng: np.random.Generator) -> Greys:
    """How much light blood vessels take away (0 to 1): branching walks that turn slowly and get thinner."""
    dark = np.zeros(shape, np.float32)
    scale = min(shape)
    walks = [(rng.uniform(0, 1, 2) * shape, rng.uniform(0, 2 * np.pi), 0.014 * scale) for _ in range(4)]
    yy, xx = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    for at, direction, width in walks:
        place = at.copy()
        for _ in range(int(260 * width / (0.014 * scale))):
            reach = int(3 * width) + 2
            y, x = int(place[0]), int(place[1])
            if not (-reach <= y < shape[0] + reach and -reach <= x < shape[1] + reach):
                break
            part = np.s_[max(0, y - reach) : max(0, y + reach), max(0, x - reach) : max(0, x + reach)]
            near = np.exp(-((yy[part] - place[0]) ** 2 + (xx[part] - place[1]) ** 2) / (2 * width**2))
            np.maximum(dark[part], near, out=dark[part])
            direction += rng.normal(0, 0.085)
            place += 0.0055 * scale * np.array([np.sin(direction), np.cos(direction)])
            if width > 0.005 * scale and rng.random() < 0.022 and len(walks) < 24:
                walks.append((place.copy(), direction + rng.choice([-0.7, 0.7]), 0.65 * width))
    return dark


def _activity(neurons: int, rng: np.random.Generator) -> Greys:
    """Calcium of each neuron in each frame, (neurons, _PERIOD): rare bursts, fast rise, exponential decay."""
    rate = rng.uniform(0.004, 0.016, (neurons, 1))
    spikes = (rng.random((neurons, _PERIOD)) < rate) * rng.uniform(0.4, 1.3, (neurons, _PERIOD))
    decay = np.exp(-1 / rng.uniform(8, 22, (neurons, 1)))  # 0.4 to 1.1 s at 20 frames/s
    trace = np.zeros((neurons, _PERIOD), np.float32)
    level = rise = np.zeros((neurons, 1))
    for lap in range(2):  # twice around, so that the end runs into the beginning
        for k in range(_PERIOD):
            rise = 0.45 * rise + spikes[:, k : k + 1]
            level = decay * level + 0.55 * rise
            if lap:
                trace[:, k] = level[:, 0]
    return trace


def _neurons(
    rng: np.random.Generator, at: tuple[Greys, Greys], light: Greys, through: Greys
) -> list[tuple[tuple[slice, slice], Greys]]:
    """About 40 cell bodies with a halo each: which part of the picture, and how bright it is there when they fire."""
    (yy, xx), shape = at, light.shape
    size = max(2.0, 0.016 * min(shape))
    reach = int(4 * size) + 1
    spots = []
    for y, x in rng.uniform(0.12, 0.88, (40, 2)) * shape:
        part = np.s_[max(0, int(y) - reach) : int(y) + reach, max(0, int(x) - reach) : int(x) + reach]
        turn, long, short = rng.uniform(0, np.pi), size * rng.uniform(0.9, 1.3), size * rng.uniform(0.6, 0.9)
        u = (yy[part] - y) * np.sin(turn) + (xx[part] - x) * np.cos(turn)
        v = (yy[part] - y) * np.cos(turn) - (xx[part] - x) * np.sin(turn)
        body = np.exp(-((u / long) ** 2 + (v / short) ** 2)) + 0.18 * np.exp(-(u**2 + v**2) / (2.2 * size) ** 2)
        spots.append((part, (body * light[part] * through[part] * rng.uniform(70, 140)).astype(np.float32)))
    return spots


def calcium_scene(width: int = 304, height: int = 304, seed: int = 0) -> Scenery:
    """Brain surface under a miniscope: dim, vignetted, with vessels, about 40 neurons, slow motion and shot noise.

    Parameters
    ----------
    width, height
        Frame size in pixels.
    seed
        Another brain.

    Returns
    -------
    callable
        Camera frame number -> uint8 pixels (height, width); the same number always gives the same frame.
    """
    rng = np.random.default_rng((seed, 11))
    shape = (height + 2 * _MARGIN, width + 2 * _MARGIN)
    yy, xx = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    tissue = _blur(rng.normal(0, 1, shape).astype(np.float32), 0.03 * min(shape))
    tissue = tissue / tissue.std() * 0.10 + _blur(rng.normal(0, 1, shape).astype(np.float32), 1.5) * 0.12
    light = np.exp(-(((yy / shape[0] - 0.52) / 0.52) ** 2 + ((xx / shape[1] - 0.48) / 0.52) ** 2)).astype(np.float32)
    through = 1 - 0.55 * _vessels(shape, rng)
    background = (12 + 100 * light * (1 + tissue) * through).astype(np.float32)

    spots = _neurons(rng, (yy, xx), light, through)
    for part, spot in spots:
        background[part] += 0.15 * spot
    activity = _activity(len(spots), rng)
    phase = rng.uniform(0, 2 * np.pi, 6)
    noise = rng.normal(0, 1, 4 * shape[0] * shape[1]).astype(np.float32)

    def drift(c: int, k: int) -> float:
        """Slow motion in pixels: three incommensurate waves, at most 4 pixels."""
        waves = (2.2, 97.0), (1.2, 31.0), (0.6, 11.3)
        return float(sum(a * np.sin(c / t + phase[3 * k + i]) for i, (a, t) in enumerate(waves)))

    def camera(c: int) -> Uint8Image:
        picture = background.copy()
        now = activity[:, c % _PERIOD]
        for (part, spot), level in zip(spots, now, strict=True):
            if level > 0.01:
                picture[part] += level * spot
        dy, dx = _MARGIN + drift(c, 0), _MARGIN + drift(c, 1)
        y, x = int(dy), int(dx)
        fy, fx = np.float32(dy - y), np.float32(dx - x)
        rows = picture[y : y + height] * (1 - fy) + picture[y + 1 : y + 1 + height] * fy
        moved = rows[:, x : x + width] * (1 - fx) + rows[:, x + 1 : x + 1 + width] * fx
        start = (c * 7919) % (noise.size - moved.size)
        moved += noise[start : start + moved.size].reshape(moved.shape) * np.sqrt(moved) * np.float32(0.45)
        frame: Uint8Image = np.clip(moved + 0.5, 0, 255).astype(np.uint8)
        return frame

    return camera
