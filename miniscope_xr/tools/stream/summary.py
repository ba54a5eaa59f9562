"""Projections of a whole recording: mean, maximum and standard deviation in one pass."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import numpy as np
import xarray as xr

from miniscope_xr.errors import OptionError
from miniscope_xr.layout.arrays import Array
from miniscope_xr.tools.stream.footage import Footage, Images
from miniscope_xr.tools.stream.outputs import progress_bar
from miniscope_xr.tools.stream.readahead import read_ahead

_TEXTS = {"mean": "mean fluorescence", "max": "maximum fluorescence", "std": "standard deviation of fluorescence"}
_FIT = 1 << 24
"""Frames of which n times the sum of squares, at most 255**2 * n**2, fits 64 bits."""


class Projections:
    """Running sums of frames of uint8; exact, as integers."""

    def __init__(self, height: int, width: int) -> None:
        self.count = 0
        self._sum = np.zeros((height, width), np.uint64)
        self._squares = np.zeros((height, width), np.uint64)
        self._max = np.zeros((height, width), np.uint8)

    def add(self, images: Images) -> None:
        """Take in a batch of frames."""
        if not len(images):
            return
        self.count += len(images)
        self._sum += images.sum(axis=0, dtype=np.uint64)
        self._squares += np.square(images, dtype=np.uint16).sum(axis=0, dtype=np.uint64)
        np.maximum(self._max, images.max(axis=0), out=self._max)

    def images(self) -> dict[str, Array]:
        """Return ``mean``, ``max`` and ``std``."""
        n = max(self.count, 1)
        mean = self._sum / n
        # n * squares - sum^2 in exact integers: two large float numbers that nearly cancel would lose digits
        squares, total = self._squares, self._sum
        if n > _FIT:
            squares, total = squares.astype(object), total.astype(object)
        exact = squares * n - total**2
        std = np.sqrt(exact.astype(np.float64)) / n
        return {"mean": mean, "max": self._max, "std": std}


def whole_frames(columns: dict[str, Array], rows: slice, images: Images) -> Images:
    """Leave out frames with missing buffers, whose black stripes would darken every projection."""
    if "complete" not in columns:
        return images
    good = columns["complete"][rows].astype(bool)
    return images if good.all() else images[good]


def _dataset(images: dict[str, Any], frames: int, ds: xr.Dataset) -> xr.Dataset:
    variables = {name: (("y", "x"), images[name], {"long_name": _TEXTS[name]}) for name in _TEXTS}
    return xr.Dataset(variables, attrs={**ds.attrs, "frames_used": frames})


def _with_dask(ds: xr.Dataset) -> xr.Dataset:
    """Let dask read every chunk once for all three."""
    from dask.base import compute

    video = ds["video"]
    if "complete" in ds.variables:
        complete = np.asarray(ds["complete"].values, bool)
        video = video if complete.all() else video.isel(frame=np.flatnonzero(complete))
    lazy = {"mean": video.mean("frame").data, "max": video.max("frame").data, "std": video.std("frame").data}
    (images,) = compute(lazy)  # type: ignore[no-untyped-call]
    return _dataset(images, video.sizes["frame"], ds)


def summarise(ds: xr.Dataset, progress: bool = True) -> xr.Dataset:
    """Compute mean, maximum and standard deviation of all whole frames.

    Parameters
    ----------
    ds
        A recording; a chunked one is computed with dask, another is streamed in bounded memory.
    progress
        Show a progress bar (on a terminal).

    Returns
    -------
    Dataset with ``mean``, ``max`` and ``std`` (y, x); ``attrs["frames_used"]`` says of how many frames.

    Raises
    ------
    OptionError
        No frame is whole.
    """
    footage = Footage(ds, [name for name in ("complete",) if name in ds.variables])
    if "complete" in ds.variables and not bool(ds["complete"].any()):
        raise OptionError("no frame has all its buffers; look at single frames, or at ds.video.mean('frame')")
    if ds["video"].chunks is not None:
        return _with_dask(ds)
    sums = Projections(footage.height, footage.width)
    with closing(read_ahead(footage.parts())) as ahead, progress_bar(footage.count, "summary", show=progress) as bar:
        for rows, images in ahead:
            sums.add(whole_frames(footage.columns, rows, images))
            bar.update(len(images))
    return _dataset(sums.images(), sums.count, ds)
