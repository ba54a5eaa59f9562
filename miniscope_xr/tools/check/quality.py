"""``ds.miniscope.quality()``: is the recording good? One pass over its pixels, at the speed of a card reader."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any

import numpy as np
import xarray as xr

from miniscope_xr.errors import OptionError
from miniscope_xr.frames.stencil import cores
from miniscope_xr.layout.arrays import Array, Bools, Ints
from miniscope_xr.tools.check.quality_findings import bleaching, focus_curve, sentences
from miniscope_xr.tools.check.quality_frames import BLOCK, COLUMNS, Extremes, FrameMeasures, even_part
from miniscope_xr.tools.check.quality_pixels import corner_light, defects, vignette
from miniscope_xr.tools.check.quality_reduce import REDUCED, Reducer
from miniscope_xr.tools.check.quality_shift import Shifts
from miniscope_xr.tools.stream.footage import Footage, Images
from miniscope_xr.tools.stream.outputs import begin_step, progress_bar
from miniscope_xr.tools.stream.readahead import read_ahead

_REFERENCE = 48  # frames from all over the recording that make the picture shifts are measured against
_LEAST = 64  # pixels of a side below which there is no telling how far a picture moved
_SPARE = 4  # of a long recording every so many-th frame is enough for what its pixels are like on average
_LONG = 2000
_STEP = "quality"
_BATCH = 6_000_000  # bytes: enough frames for some threads


_ABOUT = {
    "mean": {"long_name": "mean of the frame", "units": "grey value"},
    "sharpness": {"long_name": "contrast of detail of 2 to 4 px against the mean, without noise", "units": "1"},
    "shift_y": {"long_name": "how far the picture moved down against the reference", "units": "px"},
    "shift_x": {"long_name": "how far the picture moved right against the reference", "units": "px"},
    "saturated": {"long_name": "share of pixels at the highest grey value", "units": "1"},
    "banding": {"long_name": "standard deviation of bands of rows", "units": "grey value"},
}


def quality(ds: xr.Dataset, progress: bool = True) -> xr.Dataset:
    """Measure every frame of a recording.

    Parameters
    ----------
    ds
        A recording with ``video`` (frame, y, x) of uint8, or a part of one.
    progress
        Show a progress bar (on a terminal).

    Returns
    -------
    Dataset with, of each frame (``frame``; NaN for one that lacks buffers): ``mean`` (grey value), ``sharpness``
    (contrast of fine detail, 1), ``shift_y`` and ``shift_x`` (px, down and right, against a mean of frames from all
    over the recording), ``saturated`` (share of pixels) and ``banding`` (grey values); of each pixel (``y``, ``x``):
    ``dead``, ``hot`` (bool), ``vignette`` (light, 1 at the brightest place) and ``reference``; and where the lens was
    scanned, ``focus_curve`` over ``ewl_value``. ``attrs``: ``findings`` (sentences),
    ``bleaching_percent_per_minute``, ``bleached_percent``, ``corner_light``, ``best_ewl``. ``ds.merge(found)`` puts it
    beside the recording.

    Raises
    ------
    OptionError
        No frame is whole, or a frame is smaller than 16 x 16 pixels.

    Notes
    -----
    How far off each of them is on recordings with known truth: docs/quality.md.
    """
    names = [name for name in ("complete", "ewl") if name in ds.variables]
    footage = Footage(ds, names, _BATCH)
    if min(footage.height, footage.width) < 4 * REDUCED:
        raise OptionError(f"frames of {footage.width}x{footage.height} are too small to be measured")
    begin_step(_STEP)
    some = _whole_frames(ds)
    begin_step(_STEP)
    shifts, reference = _reference(some)
    table = np.full((footage.count, len(COLUMNS)), np.nan)
    pixels = Extremes.of(footage.height, footage.width)
    spare = _SPARE if footage.count > _LONG else 1
    with (
        closing(read_ahead(footage.parts(), 2)) as ahead,
        progress_bar(footage.count, _STEP, show=progress) as bar,
        ThreadPoolExecutor(cores()) as pool,
    ):
        measures = FrameMeasures(footage.height, footage.width, shifts, pool)
        begun: deque[tuple[Ints, list[Future[Any]]]] = deque()
        for rows, images in ahead:
            good = _good(footage, rows)
            whole = images if good.all() else images[good]
            begun.append((np.flatnonzero(good) + rows.start, measures.begin(whole)))
            pixels.add(whole[::spare])
            bar.update(len(images))
            if len(begun) > 1:
                _finish(table, *begun.popleft())
        for rows_and_found in begun:
            _finish(table, *rows_and_found)
    begin_step(_STEP)
    return _dataset(footage, table, pixels, reference)


def _finish(table: Array, rows: Ints, found: list[Future[Any]]) -> None:
    if found:
        table[rows] = np.concatenate([some.result() for some in found])


def _good(footage: Footage, rows: slice) -> Bools:
    if "complete" not in footage.columns:
        return np.ones(rows.stop - rows.start, bool)
    return footage.columns["complete"][rows].astype(bool)


def _whole_frames(ds: xr.Dataset) -> Images:
    """Whole frames from all over the recording."""
    rows = np.unique(np.linspace(0, ds.sizes["frame"] - 1, min(ds.sizes["frame"], _REFERENCE)).astype(np.int64))
    if "complete" in ds.variables:
        part = rows[np.asarray(ds["complete"].variable[rows].values, bool)]
        if not len(part):
            part = np.flatnonzero(np.asarray(ds["complete"].values, bool))[:_REFERENCE]
        rows = part
    if not len(rows):
        raise OptionError("no frame has all its buffers: there is nothing to measure")
    some: Images = np.asarray(ds["video"].isel(frame=rows).values)
    return some


def _reference(some: Images) -> tuple[Shifts | None, Array]:
    """What measures shifts, and the mean of some frames."""
    height, width = some.shape[1:]
    pixels = Extremes.of(height, width)
    pixels.add(some)
    if min(height, width) < _LEAST:
        return None, pixels.mean
    y, x = even_part(height, width)
    spoilt = np.any(defects(pixels.mean, pixels.lowest, pixels.highest, len(some)), axis=0)[y, x]
    blocks = spoilt.reshape(spoilt.shape[0] // REDUCED, REDUCED, spoilt.shape[1] // REDUCED, REDUCED).any(axis=(1, 3))
    reducer = Reducer(BLOCK, *spoilt.shape)
    small = np.concatenate([reducer.add(some[at : at + BLOCK, y, x])[2].copy() for at in range(0, len(some), BLOCK)])
    begin_step(_STEP)
    return Shifts(small, blocks), pixels.mean


def _dataset(footage: Footage, table: Array, pixels: Extremes, reference: Array) -> xr.Dataset:
    dead, hot = defects(pixels.mean, pixels.lowest, pixels.highest, pixels.frames)
    begin_step(_STEP)
    light = vignette(pixels.mean)
    found = xr.Dataset(
        {name: ("frame", table[:, k], _ABOUT[name]) for k, name in enumerate(COLUMNS)},
        {"frame": footage.ds["frame"].values} if "frame" in footage.ds.coords else None,
        {"frames_measured": int(np.isfinite(table[:, 0]).sum()), "corner_light": corner_light(light)},
    )
    found["dead"] = ("y", "x"), dead, {"long_name": "always dark, or always one value"}
    found["hot"] = ("y", "x"), hot, {"long_name": "far brighter than all its neighbours"}
    found["vignette"] = ("y", "x"), light, {"long_name": "light against the brightest place", "units": "1"}
    found["reference"] = ("y", "x"), reference.astype(np.float32), {"long_name": "what shifts are measured against"}
    seconds = (footage.times - footage.times[0]) / 1000.0
    begin_step(_STEP)
    fit = bleaching(seconds, table[:, 0])
    if fit is not None:
        found.attrs |= {"bleaching_percent_per_minute": fit.per_minute, "bleached_percent": fit.whole}
    curve = focus_curve(footage.columns["ewl"].astype(float), table[:, 1]) if "ewl" in footage.columns else None
    if curve is not None:
        found = found.assign_coords(ewl_value=curve.values)
        found["focus_curve"] = "ewl_value", curve.sharpness, _ABOUT["sharpness"]
        if curve.best is not None:
            found.attrs["best_ewl"] = curve.best
    found.attrs["findings"] = sentences(found, seconds)
    return found
