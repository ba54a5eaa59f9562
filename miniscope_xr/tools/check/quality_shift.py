"""How far each frame has moved against a reference, below a pixel.

It is measured on pictures averaged over 4 x 4 pixels. What the optics do (vignette) stands still while the tissue
moves, so every picture is divided by the light of the reference first, and what varies slowly is taken off it. Phase
correlation finds the place to about a pixel of the reduced picture. Least squares on what still differs from the
reference finds the rest; a pixel counts less the more it differs, for a cell that flashes tells nothing of motion.
"""

from __future__ import annotations

import numpy as np

from miniscope_xr.layout.arrays import Array
from miniscope_xr.tools.check.quality_reduce import REDUCED

# Lengths are in pixels of the reduced picture.
_SIZES = (64, 60, 54, 48, 40, 36, 32, 30, 24, 20, 18, 16, 12, 8)  # sides that a transform does fast
_PAIR = 2  # pixels along each side of one that the rough place is found in
_REACH = 8  # around the part that is compared: motion brings it in
_LIGHT = 10  # sigma of what is taken for light and not for tissue
_SLOW = 2.5  # sigma of what is taken off each picture: light out of focus that wavers
_NOISE = 0.40  # periods in a pixel: what is finer is noise
_CONTRAST = 1.5  # times the reference's own: cells that flash are brighter, and would pull the correlation to them
_PLACES = 4  # of a pixel, at which the reference is kept ready along each side
_FAR = 4.0  # standard deviations: a pixel that differs by more counts less and less
_MEDIAN = 0.455  # of the square of normal noise of standard deviation 1
_SOME = 16  # of so many pixels one says how noisy a picture is
_STEPS = 2  # of least squares
_ROUNDS = 3  # in which the reference is made of pictures put where the one before has them


class Shifts:
    """Measures how far pictures have moved against a reference that is made of some of them.

    Parameters
    ----------
    pictures
        From all over the recording, reduced: float32 (n, height, width).
    spoilt
        Which of their pixels hold a defect of the camera, which does not move: they are taken from their neighbours.
    """

    def __init__(self, pictures: Array, spoilt: Array | None = None) -> None:
        height, width = pictures.shape[1:]
        self._spoilt = np.nonzero(np.zeros((height, width), bool) if spoilt is None else spoilt)
        self._shape = height, width = tuple(next((s for s in _SIZES if s <= size), size) for size in (height, width))
        self._outer = tuple(
            _middle(full, side + 2 * _REACH) for full, side in zip(pictures.shape[1:], self._shape, strict=True)
        )
        pictures = self._mended(pictures)[:, self._outer[0], self._outer[1]]
        self._sides = pictures.shape[1:]
        self._part = _middle(self._sides[0], height), _middle(self._sides[1], width)
        self._window = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1]).astype(np.float32)
        self._slow = _Blur(self._sides, _SLOW)
        light = _Blur(self._sides, _LIGHT)(pictures.mean(axis=0))
        self._even = (1 / np.maximum(light, max(float(light.max()) / 50, 1e-6))).astype(np.float32)
        flat = self._flattened(pictures)
        reference = flat[len(flat) // 2]
        for _ in range(_ROUNDS):
            reference = np.median(_moved(flat, -self._learn(reference, flat)), axis=0)
        self._learn(reference, flat)

    def of(self, pictures: Array) -> Array:
        """Shift of each reduced picture (n, height, width) along y and x, in pixels of the camera."""
        flat = self._flattened(self._mended(pictures)[:, self._outer[0], self._outer[1]])
        return self._followed(flat, self._correlated(flat)) * REDUCED

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

    def _flattened(self, pictures: Array) -> Array:
        """Contrast of tissue, as if it were lit evenly and as bright as in the reference, without what is slow."""
        flat = np.asarray(pictures, np.float32) * self._even
        flat /= np.maximum(flat.mean(axis=(1, 2), keepdims=True), np.float32(1e-6))
        flat -= self._slow(flat)
        return flat

    def _learn(self, reference: Array, flat: Array) -> Array:
        """Keep ready what pictures are compared with; return where those the reference was made of are."""
        self._learn_spectrum(reference)
        self._learn_places(reference)
        places = self._correlated(flat)
        self._doubt = np.ones(self._window.size, np.float32)
        scatter = np.median(np.abs(self._apart(flat, places)))
        self._learn_doubt(np.full(self._window.size, scatter))
        places = self._followed(flat, places)
        self._learn_doubt(np.median(np.abs(self._apart(flat, places)), axis=0))
        return self._followed(flat, places)

    def _learn_spectrum(self, reference: Array) -> None:
        height, width = self._coarse = self._shape[0] // _PAIR, self._shape[1] // _PAIR
        fy, fx = np.fft.fftfreq(height)[:, np.newaxis], np.fft.rfftfreq(width)[np.newaxis]
        band = np.exp(-((np.hypot(fy, fx) / _NOISE) ** 4))
        self._clip = np.float32(np.inf)
        self._clip = np.float32(_CONTRAST * max(float(reference[self._part].std()), 1e-6))
        spectrum = self._spectrum(reference[np.newaxis].astype(np.float32))[0]
        strength = np.abs(spectrum)
        level = float(np.median(strength[band > band.max() / 2])) + 1e-12
        self._filter = (np.conj(spectrum) / (strength + level) * band).astype(np.complex64)

    def _learn_places(self, reference: Array) -> None:
        """The reference moved by each part of a pixel, and its slopes and their products, which least squares need."""
        steps = np.arange(_PLACES) / _PLACES
        at = np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1).reshape(-1, 2)
        moved = _moved(np.repeat(reference[np.newaxis], len(at), axis=0), at)
        y, x = (np.gradient(moved, axis=axis)[:, self._part[0], self._part[1]] for axis in (1, 2))
        products = np.stack([y, x, y * y, y * x, x * x], axis=1)
        self._slopes = products.reshape(len(at), 5, -1).astype(np.float32)
        self._ready = moved[:, self._part[0], self._part[1]].astype(np.float32)

    def _learn_doubt(self, scatter: Array) -> None:
        """How much pixels differ as a rule: its median size, of each."""
        scatter = 1.4826 * np.maximum(scatter, max(float(np.median(scatter)) / 2, 1e-6))
        self._doubt = (1 / (_FAR * scatter) ** 2).astype(np.float32)

    def _spectrum(self, flat: Array) -> Array:
        """Of the part that is compared, at half the size: only the rough place is asked of it."""
        part = np.clip(flat[:, self._part[0], self._part[1]], -self._clip, self._clip)
        part *= self._window
        rows = part[:, 0::_PAIR] + part[:, 1::_PAIR]
        return np.fft.rfft2(rows[..., 0::_PAIR] + rows[..., 1::_PAIR])

    def _correlated(self, flat: Array) -> Array:
        """Where the correlation with the reference is highest, to about a pixel of the reduced picture."""
        height, width = self._coarse
        seen = np.fft.irfft2(self._spectrum(flat) * self._filter, s=self._coarse)
        row = np.arange(len(seen))
        y, x = np.divmod(np.argmax(seen.reshape(len(seen), -1), axis=1), width)
        top = seen[row, y, x]
        at = np.stack(
            [
                y + _summit(seen[row, y - 1, x], top, seen[row, (y + 1) % height, x]),
                x + _summit(seen[row, y, x - 1], top, seen[row, y, (x + 1) % width]),
            ],
            axis=1,
        )
        return _PAIR * np.where(at > np.array(self._coarse) / 2, at - self._coarse, at)

    def _followed(self, flat: Array, at: Array) -> Array:
        for _ in range(_STEPS):
            at = self._step(flat, at)
        return at

    def _apart(self, flat: Array, at: Array) -> Array:
        """What each picture, put back by whole pixels, has more than the reference where it is by the rest.

        float32 (n, pixels); 0 where motion has brought in what the camera does not see.
        """
        whole, place = _split(at)
        apart = np.zeros((len(flat), *self._shape), np.float32)
        for row, (picture, (dy, dx)) in enumerate(zip(flat, whole.tolist(), strict=True)):
            to_y, from_y = _overlap(self._part[0], dy, self._sides[0])
            to_x, from_x = _overlap(self._part[1], dx, self._sides[1])
            np.subtract(picture[from_y, from_x], self._ready[place[row], to_y, to_x], out=apart[row, to_y, to_x])
        return apart.reshape(len(flat), -1)

    def _step(self, flat: Array, at: Array) -> Array:
        """One step of least squares, at most a pixel: where each picture is more like the reference."""
        apart = self._apart(flat, at)
        weight = np.square(apart)
        weight *= self._doubt
        some = weight[:, ::_SOME].copy()
        some.partition(some.shape[1] // 2, axis=1)
        noisy = some[:, some.shape[1] // 2, np.newaxis] * np.float32(_FAR**2 / _MEDIAN)
        weight /= np.maximum(noisy, 1)
        weight += 1
        np.square(weight, out=weight)
        np.divide(self._doubt, weight, out=weight)
        apart *= weight
        slopes = self._slopes[_split(at)[1]]
        towards = np.matmul(slopes[:, :2], apart[..., np.newaxis])[..., 0]
        yy, yx, xx = np.matmul(slopes[:, 2:], weight[..., np.newaxis])[..., 0].astype(float).T
        scale = np.maximum(yy * xx - yx**2, 1e-30)
        y, x = xx * towards[:, 0] - yx * towards[:, 1], yy * towards[:, 1] - yx * towards[:, 0]
        found: Array = np.rint(at * _PLACES) / _PLACES - np.clip(np.stack([y, x], axis=1) / scale[:, np.newaxis], -1, 1)
        return found


def _summit(before: Array, top: Array, after: Array) -> Array:
    """How far the top of a parabola through three neighbours is from the middle one, the highest."""
    bent = 2 * top - before - after
    found: Array = np.where(bent > 0, (after - before) / np.where(bent > 0, 2 * bent, 1), 0.0)
    return found


def _middle(size: int, side: int) -> slice:
    side = min(size, side)
    return slice((size - side) // 2, (size - side) // 2 + side)


def _split(at: Array) -> tuple[Array, Array]:
    """Whole pixels below, and which of the places between pixels at which the reference is kept ready is nearest."""
    parts = np.rint(at * _PLACES).astype(np.int64)
    whole, rest = parts // _PLACES, parts % _PLACES
    return whole, rest[:, 0] * _PLACES + rest[:, 1]


def _overlap(part: slice, moved: int, size: int) -> tuple[slice, slice]:
    """Where in the part there is something of a picture that has moved, and where in the picture it is."""
    start, stop = max(part.start + moved, 0), min(part.stop + moved, size)
    stop = max(start, stop)
    first = min(start - moved - part.start, part.stop - part.start)
    return slice(first, first + stop - start), slice(start, stop)


class _Blur:
    """Blurs pictures by a Gaussian: down to few pixels and up again; beyond the edges they are mirrored.

    Parameters
    ----------
    sides
        Height and width.
    sigma
        In pixels.
    """

    def __init__(self, sides: tuple[int, ...], sigma: float) -> None:
        self._down, self._up = zip(*(_down_and_up(side, sigma / np.sqrt(2)) for side in sides), strict=True)

    def __call__(self, pictures: Array) -> Array:
        """Blur pictures, float32 (..., height, width)."""
        few = np.matmul(np.matmul(self._down[0], pictures), self._down[1].T)
        blurred: Array = np.matmul(self._up[0], np.matmul(few, self._up[1].T))
        return blurred


def _down_and_up(size: int, sigma: float) -> tuple[Array, Array]:
    """Matrices that blur a side and keep a pixel every 1.6 sigma, and that blur these to all pixels again."""
    few = np.linspace(0, size - 1, max(int(size / (1.6 * sigma)) + 1, 2))
    every = np.arange(-size, 2 * size)
    wide = np.exp(-((few[:, np.newaxis] - every) ** 2) / (2 * sigma**2)).reshape(len(few), 3, size)
    down = wide[:, 1] + wide[:, 0, ::-1] + wide[:, 2, ::-1]
    up = np.exp(-((np.arange(size)[:, np.newaxis] - few) ** 2) / (2 * sigma**2))
    return tuple((m / m.sum(axis=1, keepdims=True)).astype(np.float32) for m in (down, up))


def _moved(pictures: Array, at: Array) -> Array:
    """Each picture moved down and right by parts of a pixel; what comes in at the edges is mirrored."""
    margin = [min(_REACH, size - 1) for size in pictures.shape[1:]]
    wide = np.pad(pictures, [(0, 0), *((m, m) for m in margin)], mode="reflect")
    fy, fx = np.fft.fftfreq(wide.shape[1])[:, np.newaxis], np.fft.rfftfreq(wide.shape[2])[np.newaxis]
    turn = np.exp(-2j * np.pi * (at[:, :1, np.newaxis] * fy + at[:, 1:, np.newaxis] * fx))
    whole = np.fft.irfft2(np.fft.rfft2(wide) * turn, s=wide.shape[1:])
    found: Array = whole[:, margin[0] : margin[0] + pictures.shape[1], margin[1] : margin[1] + pictures.shape[2]]
    return found
