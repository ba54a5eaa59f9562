"""A forward model of what a miniscope's camera sees, and the truth: tissue that moves behind optics that do not.

Sharp tissue (vessels, cells that blink) is blurred by the focus, moved, lit and vignetted, bleached, put through shot
noise and read noise, banded by rows, spoilt by dead and hot pixels, and cut to 8 bits. It shares no code with
what it judges.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

Array = np.ndarray[Any, Any]
_MARGIN = 24


@dataclass
class Film:
    """What is filmed, and with what.

    ``motion``, ``brightness``, ``blur`` and ``banding`` say of each frame number how far the tissue has moved (y, x in
    px), how bright it is (1: as it began), how far out of focus (sigma in px), and how strong the bands of rows are
    (grey values, standard deviation).
    """

    height: int = 304
    width: int = 304
    seed: int = 0
    motion: Callable[[int], tuple[float, float]] = lambda k: (0.0, 0.0)
    brightness: Callable[[int], float] = lambda k: 1.0
    blur: Callable[[int], float] = lambda k: 0.0
    banding: Callable[[int], float] = lambda k: 0.0
    corner: float = 0.45
    """Light in the corners, against the middle."""
    optics: float = 0.9
    """Blur of the optics in focus, sigma in px."""
    level: float = 90.0
    """Grey value of the middle."""
    noise: float = 0.45
    """Standard deviation of the shot noise of grey value 1."""
    read: float = 0.8
    dead: list[tuple[int, int]] = field(default_factory=list)
    hot: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = np.random.default_rng((self.seed, 5))
        shape = self.height + 2 * _MARGIN, self.width + 2 * _MARGIN
        tissue = sum(
            weight * _scaled(_blurred(rng.normal(0, 1, shape), size))
            for size, weight in ((1.2, 0.04), (3, 0.05), (12, 0.08))
        )
        vessels = _scaled(_blurred(rng.normal(0, 1, shape), 4))
        self._tissue = (1 + tissue) * (1 - 0.35 * (np.abs(vessels) < 0.12))
        self._cells = []
        yy, xx = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
        for y, x in rng.uniform(0.1, 0.9, (40, 2)) * shape:
            spot = 0.8 * np.exp(-((yy - y) ** 2 + (xx - x) ** 2) / (2 * rng.uniform(2.5, 4) ** 2))
            part = np.s_[max(0, int(y) - 16) : int(y) + 16, max(0, int(x) - 16) : int(x) + 16]
            self._cells.append((part, spot[part], rng.uniform(40, 200), rng.uniform(0, 400)))
        self.vignette = _vignette(self.height, self.width, self.corner)
        self._ky = np.fft.fftfreq(shape[0])[:, np.newaxis]
        self._kx = np.fft.rfftfreq(shape[1])[np.newaxis]

    def __call__(self, k: int) -> Array:
        """Frame ``k``, uint8 (height, width); the same number always gives the same frame."""
        return self.seen(self.light(k), k)

    def light(self, k: int) -> Array:
        """What frame ``k`` would be without noise, bands and defects: float (height, width)."""
        picture = self._tissue.copy()
        for part, spot, period, phase in self._cells:
            picture[part] += spot * np.exp(-((k + phase) % period) / 10)
        (dy, dx), sigma = self.motion(k), np.hypot(self.optics, self.blur(k))
        turn = np.exp(-2j * np.pi * (dy * self._ky + dx * self._kx))
        turn = turn * np.exp(-2 * (np.pi * sigma) ** 2 * (self._ky**2 + self._kx**2))
        moved = np.fft.irfft2(np.fft.rfft2(picture) * turn, s=picture.shape)
        seen: Array = self.level * self.brightness(k) * self.vignette * moved[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
        return seen

    def seen(self, light: Array, k: int) -> Array:
        """What the camera makes of the light of frame ``k``."""
        rng = np.random.default_rng((self.seed, 6, k))
        light = light + rng.normal(0, 1, light.shape) * np.sqrt(self.noise**2 * np.maximum(light, 0) + self.read**2)
        light += self.banding(k) * rng.normal(0, 1, (self.height, 1))
        frame = np.clip(np.rint(light), 0, 255).astype(np.uint8)
        for y, x in self.dead:
            frame[y, x] = 0
        for y, x in self.hot:
            frame[y, x] = 255
        return frame


def filmed(camera: Callable[[int], Array], frames: int, ms: float = 50.0, **columns: Any) -> xr.Dataset:
    """A recording as the engine opens it, of frames that are made when they are read."""
    height, width = camera(0).shape

    def batch(block_info: Any = None) -> Array:
        start, stop = block_info[None]["array-location"][0]
        return np.stack([camera(k) for k in range(start, stop)])

    video = da.map_blocks(batch, chunks=(_chunks(frames), (height,), (width,)), dtype=np.uint8)
    coords = {"frame": np.arange(frames), "time": ("frame", (np.arange(frames) * ms).astype("timedelta64[ms]"))}
    return xr.Dataset({"video": (("frame", "y", "x"), video)}, {**coords, **columns})


def _chunks(frames: int, most: int = 40) -> tuple[int, ...]:
    return tuple(min(most, frames - at) for at in range(0, frames, most))


def _vignette(height: int, width: int, corner: float) -> Array:
    yy = (np.arange(height) - (height - 1) / 2)[:, np.newaxis] / (height / 2)
    xx = (np.arange(width) - (width - 1) / 2)[np.newaxis] / (width / 2)
    return np.exp(np.log(corner) * (yy**2 + xx**2) / 2)


def _blurred(picture: Array, sigma: float) -> Array:
    ky, kx = np.fft.fftfreq(picture.shape[0])[:, np.newaxis], np.fft.rfftfreq(picture.shape[1])[np.newaxis]
    return np.fft.irfft2(np.fft.rfft2(picture) * np.exp(-2 * (np.pi * sigma) ** 2 * (ky**2 + kx**2)), s=picture.shape)


def _scaled(picture: Array) -> Array:
    return (picture - picture.mean()) / picture.std()
