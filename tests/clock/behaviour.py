"""Simulated behaviour videos: a box with an animal that walks, reflections that waver, a lamp, and a light or none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

WIDTH, HEIGHT = 320, 240


@dataclass
class Behaviour:
    """What is filmed; ``lit`` says of each frame how much of its time the light is on (0 to 1)."""

    lit: Any
    frames: int
    seed: int = 0
    where: tuple[int, int] | None = (250, 40)
    """x and y of the light; None: it is on the animal's head."""
    strength: float = 90
    radius: float = 2.2
    reflections: bool = True
    camera_noise: float = 2.0
    second: Any = None
    """Another light's share of each frame, at (60, 200)."""
    room: Any = None
    """How bright the room is in each frame (1: as it began)."""
    channel: int | None = None
    """The one colour of the light (0: blue); None: white."""

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        yy, xx = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
        self._yy, self._xx = yy, xx
        self._floor = 90 + 20 * np.sin(xx / 50) + 15 * np.cos(yy / 35) + rng.normal(0, 3, yy.shape)
        self._noise = rng.normal(0, 1, yy.shape).astype(np.float32)
        for x in range(20, WIDTH, 60):  # edges of the box
            self._floor[:, x : x + 2] += 40
        steps = np.cumsum(rng.normal(0, 2.2, (self.frames, 2)), axis=0)
        path = np.array([120, 150]) + steps
        span = np.array([HEIGHT - 60, WIDTH - 60])
        self.path = 30 + np.abs((path - 30) % (2 * span) - span)  # it turns at the walls
        self._glints = rng.uniform(20, 220, (4, 2))
        self._waver = rng.uniform(0, 2 * np.pi, 4), rng.uniform(0.02, 0.4, 4)

    def __call__(self, k: int) -> np.ndarray:
        """Frame ``k`` as the camera gives it: uint8 (height, width, 3)."""
        colours = [
            self._seen(k, self.channel in (None, channel)) for channel in range(3 if self.channel is not None else 1)
        ]
        return np.stack([colours[min(channel, len(colours) - 1)] for channel in range(3)], axis=2)

    def _seen(self, k: int, light: bool) -> np.ndarray:
        rng = np.random.default_rng((self.seed, k))
        picture = self._floor.copy()
        y, x = self.path[k]
        part = np.s_[max(int(y) - 30, 0) : int(y) + 31, max(int(x) - 40, 0) : int(x) + 41]
        away = ((self._yy[part] - y) / 14) ** 2 + ((self._xx[part] - x) / 20) ** 2
        picture[part] *= 1 - 0.75 * np.exp(-(away**2))
        if self.reflections:
            for n, (gy, gx) in enumerate(self._glints):
                strong = 60 + 40 * np.sin(self._waver[0][n] + self._waver[1][n] * k)
                self._add(picture, gx, gy, 3.0, strong)
        at = (x + 12, y - 6) if self.where is None else self.where
        self._add(picture, *at, self.radius, self.strength * float(self.lit[k]) * light)
        if self.second is not None:
            self._add(picture, 60, 200, self.radius, self.strength * float(self.second[k]))
        if self.room is not None:
            picture *= float(self.room[k])
        picture += self.camera_noise * np.roll(self._noise, int(rng.integers(0, self._noise.size)))
        return np.clip(picture, 0, 255).astype(np.uint8)

    def _add(self, picture: np.ndarray, x: float, y: float, radius: float, strength: float) -> None:
        part = np.s_[max(int(y) - 12, 0) : int(y) + 13, max(int(x) - 12, 0) : int(x) + 13]
        away = (self._yy[part] - y) ** 2 + (self._xx[part] - x) ** 2
        picture[part] += strength * np.exp(-away / (2 * radius**2))

    def write(self, path: Path, fps: float = 30, codec: str = "MJPG", some: range | None = None) -> Path:
        """Write it, or some of its frames, with a codec that loses detail, in colour as cameras do."""
        import cv2

        film = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), fps, (WIDTH, HEIGHT))
        assert film.isOpened()
        for k in some or range(self.frames):
            film.write(self(k))
        film.release()
        return path


def share(times: np.ndarray, exposure: float, *spans: tuple[float, float]) -> np.ndarray:
    """How much of each frame's exposure (up to its time stamp) a light is on that is lit in ``spans`` (s)."""
    lit = np.zeros(len(times))
    for on, off in spans:
        lit += np.clip(np.minimum(times, off) - np.maximum(times - exposure, on), 0, exposure) / exposure
    return np.minimum(lit, 1)
