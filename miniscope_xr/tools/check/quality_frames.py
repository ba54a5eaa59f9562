"""What every frame tells of itself in one look: brightness, sharpness, shift, saturation, row banding."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from miniscope_xr.layout.arrays import Array
from miniscope_xr.tools.check.quality_reduce import REDUCED, Reducer
from miniscope_xr.tools.check.quality_shift import Shifts
from miniscope_xr.tools.stream.footage import Images

BLOCK = 4  # frames whose sums are made at once: what is made of them stays in the processor's cache
_SOME = 32  # frames a thread measures at once
_SMOOTH = 9  # rows: slower changes of brightness from row to row are the scene's
FULL = 255
"""Grey value of a saturated pixel."""

COLUMNS = ("mean", "sharpness", "shift_y", "shift_x", "saturated", "banding")


def even_part(height: int, width: int) -> tuple[slice, slice]:
    """The part of a picture that whole blocks of 8 x 8 pixels cover, around its middle."""
    sides = []
    for size in (height, width):
        whole = size // (2 * REDUCED) * 2 * REDUCED
        start = (size - whole) // 2
        sides.append(slice(start, start + whole))
    return sides[0], sides[1]


@dataclass
class Extremes:
    """Of every pixel over frames: sum, lowest and highest value."""

    total: Array
    lowest: Array
    highest: Array
    frames: int = 0

    @classmethod
    def of(cls, height: int, width: int) -> Extremes:
        """None yet."""
        shape = height, width
        return cls(np.zeros(shape, np.uint64), np.full(shape, 255, np.uint8), np.zeros(shape, np.uint8))

    def add(self, images: Images) -> None:
        """Take in a batch."""
        if not len(images):
            return
        np.minimum(self.lowest, images.min(axis=0), out=self.lowest)
        np.maximum(self.highest, images.max(axis=0), out=self.highest)
        for at in range(0, len(images), 256):  # 256 * 255 fits 16 bits
            self.total += np.add.reduce(images[at : at + 256], axis=0, dtype=np.uint16)
        self.frames += len(images)

    @property
    def mean(self) -> Array:
        """Mean of each pixel."""
        return self.total / max(self.frames, 1)


class FrameMeasures:
    """Measures batches of frames on as many threads as there are cores.

    Parameters
    ----------
    height, width
        Of a frame.
    shifts
        Measures the shift of reduced pictures; None leaves it out (a frame too small for it).
    pool
        The threads.
    """

    def __init__(self, height: int, width: int, shifts: Shifts | None, pool: ThreadPoolExecutor) -> None:
        self._part = even_part(height, width)
        self._shifts = shifts
        self._pool = pool
        columns = self._part[1].stop - self._part[1].start
        halves = np.zeros((columns // 2, 2), np.float32)
        halves[: columns // 4, 0] = halves[columns // 4 :, 1] = 1 / (columns // 2)
        self._halves = halves
        self._rooms = threading.local()

    def begin(self, images: Images) -> list[Future[Array]]:
        """Have a batch measured: float64 (n, 6) each, in order, :data:`COLUMNS` of the frames."""
        return [self._pool.submit(self._some, images[at : at + _SOME]) for at in range(0, len(images), _SOME)]

    def _reducer(self, height: int, width: int) -> Reducer:
        """One for each thread."""
        if not hasattr(self._rooms, "reducer"):
            self._rooms.reducer = Reducer(BLOCK, height, width)
        found: Reducer = self._rooms.reducer
        return found

    def _some(self, images: Images) -> Array:
        """Sums are made while the pixels are near, shifts of what they leave in few calls: threads wait at each."""
        found = np.zeros((len(images), len(COLUMNS)))
        small, profiles = [], []
        for at in range(0, len(images), BLOCK):
            block = images[at : at + BLOCK]
            fours, profile = self._sums(block, found[at : at + BLOCK])
            small.append(fours.copy())
            profiles.append(profile)
        found[:, 5] = _banding(np.concatenate(profiles))
        found[:, 2:4] = np.nan if self._shifts is None else self._shifts.of(np.concatenate(small))
        return found

    def _sums(self, images: Images, found: Array) -> tuple[Array, Array]:
        """Fill in what sums of pixels tell; return the reduced pictures and what each half of each row is like."""
        part = np.ascontiguousarray(images[:, self._part[0], self._part[1]])
        pairs, twos, fours = self._reducer(*part.shape[1:]).add(part)
        profile = np.matmul(pairs, self._halves)
        covered = part.shape == images.shape
        total = fours.sum(axis=(1, 2), dtype=np.float64) if covered else images.sum(axis=(1, 2), dtype=np.uint64)
        found[:, 0] = total / images[0].size
        found[:, 1] = _sharpness(part, twos, fours, profile.mean(axis=(1, 2)))
        found[:, 4] = [np.count_nonzero(image == FULL) / image.size for image in images]
        return fours, profile


def _sharpness(part: Images, twos: Array, fours: Array, mean: Array) -> Array:
    """Contrast of detail of 2 to 4 px against the mean, without what noise adds.

    The energy of the differences between 2 x 2 pixels and the 4 x 4 around them (a Haar wavelet). White noise adds as
    much at every scale, so what neighbouring pixels differ by says how much that is.
    """
    blocks = fours[0].size
    detail = (_squares(twos) - _squares(fours) / 4) / (12 * blocks)  # in squared grey values of one pixel's noise
    some = part[:, :: 2 * REDUCED].astype(np.float32)
    steps = some[:, :, 1::2] - some[:, :, 0::2]
    noise = _squares(steps) / (2 * steps[0].size)
    energy = np.maximum(detail - noise, 0)
    sharp: Array = np.sqrt(energy) / 2 / np.maximum(mean, 1)
    return sharp


def _squares(pictures: Array) -> Array:
    """Sum of squares of each picture: rows in float32, exact enough and fast, their sum in float64."""
    found: Array = np.einsum("krc,krc->kr", pictures, pictures).sum(axis=1, dtype=np.float64)
    return found


def _banding(profile: Array) -> Array:
    """Standard deviation of bands of rows, in grey values.

    A band runs across the whole picture, the scene does not: so what the profiles of left and right half have in common
    is counted, and noise and tissue, of which each half has its own, are not.
    """
    n, rows, _ = profile.shape
    if rows <= 2 * _SMOOTH:
        return np.zeros(n)
    whole = np.cumsum(np.pad(profile.astype(np.float64), ((0, 0), (1, 0), (0, 0))), axis=1)
    smooth = (whole[:, _SMOOTH:] - whole[:, :-_SMOOTH]) / _SMOOTH
    fine = profile[:, _SMOOTH // 2 : rows - _SMOOTH // 2] - smooth
    common = (fine[..., 0] * fine[..., 1]).mean(axis=1) / (1 - 1 / _SMOOTH)  # the running mean takes its share
    found: Array = np.sqrt(np.maximum(common, 0))
    return found
