"""Traces and projections, as they come: first a coarse answer over the whole span, then the exact one."""

from __future__ import annotations

import base64
from collections.abc import Generator, Iterator, Mapping
from typing import Any

import numpy as np

from miniscope_xr.errors import OptionError
from miniscope_xr.layout.arrays import Array, Bools, Ints
from miniscope_xr.tools.stream.selection import DARK, DFF, picture_of
from miniscope_xr.tools.stream.summary import Projections
from miniscope_xr.tools.view.findings import ONE_AT_A_TIME
from miniscope_xr.tools.view.seen import Seen, plain_numbers

BATCH = 32
"""Frames read at once: 3 MB of 304x304."""
_COARSE = 256  # frames all over the recording that come first
_EVERY = 8  # batches between two pictures of a growing projection
MOST_SHAPES = 32
KINDS = ("mean", "max", "std", "peak")

Mask = tuple[slice, slice, Bools]


def mask_of(shape: Mapping[str, Any], height: int, width: int) -> Mask:
    """Pixels of a circle ``{x, y, r}`` or a box ``{x0, y0, x1, y1}`` (px; the box has its last row and column).

    A pixel is in the circle when its centre is. Returned are the rows and columns of the box around it, and which
    pixels of that box are in.

    Raises
    ------
    OptionError
        It is no such shape, or holds no pixel of the image.
    """
    try:
        if "r" in shape:
            x, y, r = (float(shape[k]) for k in ("x", "y", "r"))
            x0, x1, y0, y1 = x - r, x + r, y - r, y + r
        else:
            x0, y0, x1, y1 = (float(shape[k]) for k in ("x0", "y0", "x1", "y1"))
    except (KeyError, TypeError, ValueError) as error:
        raise OptionError(f"{dict(shape)!r} is neither a circle (x, y, r) nor a box (x0, y0, x1, y1)") from error
    if np.isfinite([x0, x1, y0, y1]).all():
        rows = slice(max(int(np.floor(y0)), 0), max(min(int(np.ceil(y1)) + 1, height), 0))
        columns = slice(max(int(np.floor(x0)), 0), max(min(int(np.ceil(x1)) + 1, width), 0))
        ys, xs = np.arange(height)[rows, None], np.arange(width)[None, columns]
        if "r" in shape:
            inside = (xs - x) ** 2 + (ys - y) ** 2 <= r**2
        else:
            inside = (xs >= x0) & (xs <= x1) & (ys >= y0) & (ys <= y1)
        if inside.any():
            return rows, columns, inside
    raise OptionError(f"{dict(shape)!r} holds no pixel of this image of {width}x{height}")


def masks_of(seen: Seen, shapes: list[Mapping[str, Any]]) -> list[Mask]:
    """Pixels of some shapes.

    Raises
    ------
    OptionError
        There are none or too many, or one is wrong.
    """
    if not 1 <= len(shapes) <= MOST_SHAPES:
        raise OptionError(f"{len(shapes)} shapes at once: 1 to {MOST_SHAPES} can be measured")
    return [mask_of(shape, seen.height, seen.width) for shape in shapes]


def means(seen: Seen, rows: Ints, masks: list[Mask]) -> Array:
    """Mean of the pixels of each shape in each frame: float64 (shapes, rows).

    NaN where a pixel of the shape is not on the card: the same numbers as the mean, without skipping NaN, of a Dataset
    opened with ``partial="nan"``.
    """
    images = seen.pixels(rows)
    out = np.array([[image[ys, xs][inside].mean(dtype=np.float64) for image in images] for ys, xs, inside in masks])
    lacking = np.flatnonzero(~seen.heads(rows).whole)
    if len(lacking) and not seen.real:
        holed = seen.holed(rows[lacking])
        for k, (ys, xs, inside) in enumerate(masks):
            out[k, lacking] = [image[ys, xs][inside].astype(np.float64).mean() for image in holed]
    return out


def traces(seen: Seen, shapes: list[Mapping[str, Any]]) -> Generator[dict[str, Any]]:
    """Yield the traces of some shapes part by part: ``rows`` and a list of ``values`` for each shape.

    Frames all over the recording come first, marked ``coarse``; then every frame, in order.
    """
    masks = masks_of(seen, shapes)
    if seen.count > 4 * _COARSE:
        rows = np.linspace(0, seen.count - 1, _COARSE).astype(np.int64)
        for some in np.array_split(rows, _COARSE // BATCH):
            yield {
                "coarse": True,
                "rows": some.tolist(),
                "values": [plain_numbers(v) for v in means(seen, some, masks)],
            }
    for start in range(0, seen.count, BATCH):
        rows = seen.rows(start, BATCH)
        yield {"start": start, "values": [plain_numbers(v) for v in means(seen, rows, masks)]}


def spread(count: int) -> Iterator[int]:
    """Every number below ``count`` once, so that the first ones lie all over: 0, 1/2, 1/4, 3/4, 1/8, ..."""
    bits = max(count - 1, 0).bit_length()
    for k in range(1 << bits):
        at = int(f"{k:0{bits}b}"[::-1], 2) if bits else 0
        if at < count:
            yield at


class RealProjections:
    """Running mean, maximum and standard deviation of frames of real numbers, pixel by pixel; NaN is left out."""

    def __init__(self, height: int, width: int) -> None:
        self.count = 0
        self._seen = np.zeros((height, width))
        self._mean, self._apart = np.zeros((height, width)), np.zeros((height, width))
        self._max = np.full((height, width), -np.inf)

    def add(self, images: Array) -> None:
        """Take in a batch of frames, by Welford's sums."""
        self.count += len(images)
        for image in images.astype(np.float64):
            known = np.isfinite(image)
            self._seen += known
            step = np.where(known, image - self._mean, 0)
            self._mean += step / np.maximum(self._seen, 1)
            self._apart += step * np.where(known, image - self._mean, 0)
            np.fmax(self._max, np.where(known, image, -np.inf), out=self._max)

    def images(self) -> dict[str, Array]:
        """Return ``mean``, ``max`` and ``std``; NaN where no frame has the pixel."""
        found = {"mean": self._mean, "max": self._max, "std": np.sqrt(self._apart / np.maximum(self._seen, 1))}
        return {name: np.where(self._seen > 0, image, np.nan) for name, image in found.items()}


def projection(seen: Seen, kind: str, start: int, stop: int) -> Generator[dict[str, Any]]:
    """Yield a growing projection of the whole frames from row ``start`` to ``stop`` (excluded).

    ``kind`` is ``mean``, ``max``, ``std``, or ``peak`` (maximum minus mean: how far each pixel rose). Each part has
    ``frames`` (how many are in it), ``of``, and ``image`` (base64 of little-endian float32, row by row); the last one
    is exact.
    """
    if kind not in KINDS:
        raise OptionError(f"{kind!r} is no projection: {', '.join(KINDS)}")
    rows = seen.rows(start, stop - start)
    sums = (RealProjections if seen.real else Projections)(seen.height, seen.width)
    batches = -(-len(rows) // BATCH)
    for done, at in enumerate(spread(batches), 1):
        some = rows[at * BATCH : (at + 1) * BATCH]
        images = seen.pixels(some)
        sums.add(images if seen.real else images[seen.heads(some).whole])
        if sums.count and (done % _EVERY == 0 or done == batches or done == 1):
            found = sums.images()
            image = found["max"] - found["mean"] if kind == "peak" else found[kind]
            yield {"frames": sums.count, "of": len(rows), "image": _encoded(image), "last": done == batches}
    if not sums.count:
        raise OptionError(f"no whole frame from row {start} to {stop - 1}")


def resting(seen: Seen) -> dict[str, Any]:
    """The resting picture of a recording: ``image`` (base64 of float32), as previews of dF/F have it.

    What the page shows of a frame is (F - image) / max(image, ``dark``), from ``low`` to ``high``.
    """
    with ONE_AT_A_TIME:
        picture = picture_of(seen.ds.assign_attrs(binning=1), dff=True)
    assert picture is not None
    low, high = DFF
    return {"image": _encoded(picture.resting), "dark": DARK, "low": low, "high": high}


def _encoded(image: Any) -> str:
    return base64.b64encode(np.ascontiguousarray(image, "<f4").tobytes()).decode("ascii")
