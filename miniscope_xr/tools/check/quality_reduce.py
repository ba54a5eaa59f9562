"""Sums of neighbouring pixels: what sharpness, banding and shift are measured on."""

from __future__ import annotations

import numpy as np

from miniscope_xr.layout.arrays import Array
from miniscope_xr.tools.stream.footage import Images

REDUCED = 4
"""Pixels of the camera in one of the reduced picture, along each side."""


class Reducer:
    """Adds up neighbouring pixels of a few frames at a time, in memory that it keeps: new memory costs more than sums.

    Parameters
    ----------
    most
        Frames at a time.
    height, width
        Of a frame; multiples of 8.
    """

    def __init__(self, most: int, height: int, width: int) -> None:
        self._pairs, self._other = (np.empty((most, height, width // 2), np.uint16) for _ in range(2))
        self._twos = np.empty((most, height // 2, width // 2), np.uint16)
        self._wide, self._rest = (np.empty((most, height // 2, width // 4), np.uint32) for _ in range(2))
        self.pairs = np.empty(self._pairs.shape, np.float32)
        self.twos = np.empty(self._twos.shape, np.float32)
        self.fours = np.empty((most, height // 4, width // 4), np.float32)

    def add(self, images: Images) -> tuple[Array, Array, Array]:
        """Sums over 1 x 2, 2 x 2 and 4 x 4 pixels, as float32; they hold until the next call.

        A pair of bytes is one number of 16 bits, so both halves of it are added at once; and so on.
        """
        n = len(images)
        _halves_added(np.ascontiguousarray(images).view("<u2"), 8, self._pairs[:n], self._other[:n])
        np.copyto(self.pairs[:n], self._pairs[:n])
        np.add(self._pairs[:n, 0::2], self._pairs[:n, 1::2], out=self._twos[:n])
        np.copyto(self.twos[:n], self._twos[:n])
        _halves_added(self._twos[:n].view("<u4"), 16, self._wide[:n], self._rest[:n])
        np.add(self._wide[:n, 0::2], self._wide[:n, 1::2], out=self.fours[:n])
        return self.pairs[:n], self.twos[:n], self.fours[:n]


def _halves_added(numbers: Array, bits: int, out: Array, room: Array) -> None:
    """The lower half of each number and the upper one, added."""
    np.bitwise_and(numbers, numbers.dtype.type((1 << bits) - 1), out=out)
    np.right_shift(numbers, numbers.dtype.type(bits), out=room)
    np.add(out, room, out=out)
