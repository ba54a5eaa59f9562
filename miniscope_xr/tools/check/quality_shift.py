"""How far each frame has moved against a reference: phase correlation of a reduced picture, below a pixel.

The picture is averaged over 4 x 4 pixels and its middle is taken, which a Fourier transform does fast. What the optics
do (vignette) stands still while the tissue moves, so every picture is divided by the reference's smooth part first. The
highest point of the correlation gives whole steps, and Newton's method on the spectrum what is left.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from miniscope_xr.tools.stream.footage import Images

Array = np.ndarray[Any, Any]

REDUCED = 4
"""Pixels of the camera in one of the reduced picture, along each side."""

_SIZES = (256, 192, 160, 128, 96, 80, 64, 48, 40, 32, 24, 16, 12, 8)  # sides that a transform does fast
_MOST = 64  # pixels of a side that are used: more cost time and gain nothing
_SMOOTH = 2.5  # periods in the picture: what varies more slowly is taken for light and not for tissue
_FINE = 0.40  # periods in a pixel of the reduced picture: what is finer is noise and defects of single pixels
_CONTRAST = 1.5  # times the reference's own: cells that flash are brighter, and would pull the correlation to them
_STEPS = 3  # of Newton's method


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


def _middle(size: int) -> slice:
    side = next((s for s in _SIZES if s <= min(size, _MOST)), size)
    return slice((size - side) // 2, (size - side) // 2 + side)


class Shifts:
    """Measures how far pictures have moved against a reference.

    Parameters
    ----------
    reference
        Mean of some frames, reduced: float (height, width).
    spoilt
        Which of its pixels hold a defect of the camera, which does not move: they are taken from their neighbours.
    """

    def __init__(self, reference: Array, spoilt: Array | None = None) -> None:
        self._spoilt = np.nonzero(np.zeros(reference.shape, bool) if spoilt is None else spoilt)
        reference = self._mended(reference[np.newaxis])[0]
        self._part = _middle(reference.shape[0]), _middle(reference.shape[1])
        self._shape = reference[self._part].shape
        height, width = self._shape
        self._ky = (2 * np.pi * np.fft.fftfreq(height))[:, np.newaxis].astype(np.float32)
        self._kx = (2 * np.pi * np.fft.rfftfreq(width))[np.newaxis].astype(np.float32)
        radius = np.hypot(np.fft.fftfreq(height)[:, np.newaxis] * height, np.fft.rfftfreq(width)[np.newaxis] * width)
        periods = np.hypot(np.fft.fftfreq(height)[:, np.newaxis], np.fft.rfftfreq(width)[np.newaxis])
        band = (1 - np.exp(-((radius / _SMOOTH) ** 2))) * np.exp(-((periods / _FINE) ** 4))
        window = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1]).astype(np.float32)
        smooth = _smoothed(reference[self._part], radius)
        self._window = window
        self._even = (1 / np.maximum(smooth, max(float(smooth.max()) / 50, 1e-6))).astype(np.float32)
        self._smooth = smooth.astype(np.float32)
        self._clip = np.float32(np.inf)
        flat = self._flattened(reference[np.newaxis].astype(np.float32))
        self._clip = np.float32(_CONTRAST * max(float(flat[:, height // 4 : -height // 4].std()), 1e-6))
        spectrum = self._spectrum(reference[np.newaxis].astype(np.float32))[0]
        strength = np.abs(spectrum)
        level = float(np.median(strength[band > band.max() / 2])) + 1e-12
        self._filter = (np.conj(spectrum) / (strength + level) * band).astype(np.complex64)
        self._filter[:, 1 : (width + 1) // 2] *= 2  # the half of the spectrum that is not there
        self._halved = np.ones(self._filter.shape[1], np.float32)
        self._halved[1 : (width + 1) // 2] = 0.5

    def _mended(self, pictures: Array) -> Array:
        """Put the mean of the four neighbours where a defect is."""
        y, x = self._spoilt
        if not len(y):
            return pictures
        bottom, right = pictures.shape[1] - 1, pictures.shape[2] - 1
        made = pictures.copy()
        made[:, y, x] = (
            pictures[:, np.abs(y - 1), x] + pictures[:, bottom - np.abs(bottom - y - 1), x]
            + pictures[:, y, np.abs(x - 1)] + pictures[:, y, right - np.abs(right - x - 1)]
        ) / 4  # fmt: skip
        return made

    def _spectrum(self, pictures: Array) -> Array:
        return np.fft.rfft2(np.clip(self._flattened(pictures), -self._clip, self._clip) * self._window)

    def _flattened(self, pictures: Array) -> Array:
        """Contrast of tissue, as if it were lit evenly and as bright as in the reference."""
        part = pictures[:, self._part[0], self._part[1]] * self._even
        flat: Array = part / np.maximum(part.mean(axis=(1, 2), keepdims=True), 1e-6) - 1
        return flat

    def of(self, pictures: Array) -> Array:
        """Shift of each reduced picture (n, height, width) along y and x, in pixels of the camera."""
        cross = self._spectrum(self._mended(pictures)) * self._filter
        width = self._shape[1]
        seen = np.fft.irfft2(cross * self._halved, s=self._shape)
        peak = np.argmax(seen.reshape(len(seen), -1), axis=1)
        at = np.stack([peak // width, peak % width], axis=1).astype(np.float32)
        sides = np.array(self._shape, np.float32)
        at = np.where(at > sides / 2, at - sides, at)
        for _ in range(_STEPS):
            at = at + self._newton(cross, at)
        return at * REDUCED

    def _newton(self, cross: Array, at: Array) -> Array:
        """One step uphill, at most half a pixel: the correlation's slope over its curvature."""
        ky, kx = self._ky[:, 0], self._kx[0]
        turned = cross * np.exp(1j * at[:, :1] * ky)[:, :, np.newaxis] * np.exp(1j * at[:, 1:] * kx)[:, np.newaxis]
        rows, columns = turned.sum(axis=2), turned.sum(axis=1)
        slope = -np.stack([rows.imag @ ky, columns.imag @ kx], axis=1)
        yy, xx = rows.real @ ky**2, columns.real @ kx**2
        yx = (turned.real @ kx) @ ky
        scale = yy * xx - yx**2
        good = (scale > 0) & (yy > 0)
        scale = np.where(good, scale, 1)
        step = np.stack([xx * slope[:, 0] - yx * slope[:, 1], yy * slope[:, 1] - yx * slope[:, 0]], axis=1)
        return np.where(good[:, np.newaxis], np.clip(step / scale[:, np.newaxis], -0.5, 0.5), 0)


def _smoothed(picture: Array, radius: Array) -> Array:
    """The slow part of a picture, without what its opposite edges would do to each other (it is mirrored)."""
    whole = np.pad(picture, [(n // 2, n // 2) for n in picture.shape], mode="symmetric")
    fy = np.fft.fftfreq(whole.shape[0])[:, np.newaxis] * picture.shape[0]
    fx = np.fft.rfftfreq(whole.shape[1])[np.newaxis] * picture.shape[1]
    slow = np.fft.irfft2(np.fft.rfft2(whole) * np.exp(-((np.hypot(fy, fx) / _SMOOTH) ** 2)), s=whole.shape)
    y, x = picture.shape[0] // 2, picture.shape[1] // 2
    part: Array = slow[y : y + picture.shape[0], x : x + picture.shape[1]]
    return part


def reference_of(pictures: Array, spoilt: Array | None = None) -> Array:
    """Mean of reduced pictures, each put where the middle one is: motion would blur it."""
    middle = pictures[len(pictures) // 2]
    found = Shifts(middle, spoilt).of(pictures) / REDUCED
    ky = np.fft.fftfreq(middle.shape[0])[:, np.newaxis]
    kx = np.fft.rfftfreq(middle.shape[1])[np.newaxis]
    pictures = Shifts(middle, spoilt)._mended(pictures)
    found = np.where(np.abs(found) < min(middle.shape) / 4, found, 0)
    turn = np.exp(2j * np.pi * (found[:, :1, np.newaxis] * ky + found[:, 1:, np.newaxis] * kx))
    mean: Array = np.fft.irfft2((np.fft.rfft2(pictures) * turn).mean(axis=0), s=middle.shape)
    return mean
