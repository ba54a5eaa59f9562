"""What the measures of all frames add up to: bleaching, steps of brightness, the best focus, and sentences on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from miniscope_xr.layout.arrays import Array
from miniscope_xr.tools.check.result import clock, count

_WINDOWS = 200  # stretches of the recording whose brightness is compared
_QUIET = 0.25  # of the frames of a stretch: the darker ones, in which fewer cells flash
_NEAR_PEAK = 0.6  # of the highest sharpness: what lies above it makes the top of a focus curve
_STEP_FRAMES = 40  # frames on either side of a step of brightness


@dataclass(frozen=True)
class Bleaching:
    """How the brightness goes along a recording: percent a minute and from start to end; a loss is positive."""

    per_minute: float
    whole: float


def bleaching(seconds: Array, mean: Array) -> Bleaching | None:
    """Fit an exponential to the brightness in quiet frames; None for a recording of less than a few seconds.

    The median of the slopes between all pairs of stretches (Theil and Sen): a few that are off do not move it. The
    camera's black level is not known and counts as light.
    """
    known = np.isfinite(mean) & np.isfinite(seconds)
    seconds, mean = seconds[known], mean[known]
    if len(mean) < 40 or seconds[-1] - seconds[0] < 2 or mean.max() <= 0:
        return None
    stretches = np.array_split(np.arange(len(mean)), min(_WINDOWS, len(mean) // 10))
    at = np.array([seconds[rows].mean() for rows in stretches])
    level = np.log([max(float(np.quantile(mean[rows], _QUIET)), 1e-3) for rows in stretches])
    first, second = np.triu_indices(len(at), 1)
    slope = float(np.median((level[second] - level[first]) / (at[second] - at[first])))
    return Bleaching(-100 * float(np.expm1(60 * slope)), -100 * float(np.expm1(slope * (seconds[-1] - seconds[0]))))


def brightness_step(mean: Array) -> tuple[int, float] | None:
    """Row and size (in percent) of the largest sudden and lasting change of brightness; None where there is none."""
    known = np.flatnonzero(np.isfinite(mean))
    values, wide = mean[known], _STEP_FRAMES
    if len(values) < 4 * wide:
        return None
    sums = np.concatenate([[0.0], np.cumsum(values)])
    middle = np.arange(wide, len(values) - wide)
    before, after = (sums[middle] - sums[middle - wide]) / wide, (sums[middle + wide] - sums[middle]) / wide
    step = (after - before) / np.maximum(before, 1e-6)
    spread = 1.4826 * float(np.median(np.abs(step - np.median(step))))
    k = int(np.argmax(np.abs(step)))
    at = int(middle[k])
    sudden = abs(float(np.median(values[at : at + 3]) - np.median(values[at - 3 : at]))) / max(float(before[k]), 1e-6)
    if abs(step[k]) < max(0.04, 10 * spread) or sudden < 0.6 * abs(step[k]):
        return None
    return int(known[at]), 100 * float(step[k])


@dataclass(frozen=True)
class Focus:
    """A focus curve: settings of the lens, sharpness at each, and the setting that is sharpest (None: not clear)."""

    values: Array
    sharpness: Array
    best: float | None


def focus_curve(ewl: Array, sharpness: Array) -> Focus | None:
    """Sharpness against the setting of the lens; None where it was not scanned (fewer than three settings).

    The best setting is the top of a parabola through the logarithms of what lies near the highest value. None where the
    curve is no higher than its own scatter, or is highest at an end: then the focus lies beyond the scan.
    """
    known = np.isfinite(ewl) & np.isfinite(sharpness)
    ewl, sharpness = ewl[known], sharpness[known]
    values = np.unique(ewl)
    if len(values) < 3:
        return None
    groups = [sharpness[ewl == value] for value in values]
    curve = np.array([float(np.median(group)) for group in groups])
    scatter = float(np.median([np.std(group) / np.sqrt(len(group)) for group in groups]))
    top = int(np.argmax(curve))
    if curve[top] <= 0 or curve[top] - float(curve.min()) < max(6 * scatter, 0.05 * curve[top]):
        return Focus(values, curve, None)
    if top in (0, len(values) - 1):
        return Focus(values, curve, None)
    near = np.zeros(len(values), bool)
    first, last = top, top
    while first > 0 and curve[first - 1] > _NEAR_PEAK * curve[top]:
        first -= 1
    while last < len(values) - 1 and curve[last + 1] > _NEAR_PEAK * curve[top]:
        last += 1
    near[min(first, top - 1) : max(last, top + 1) + 1] = True
    x = values[near] - values[top]
    a, b, _ = np.polyfit(x, np.log(np.maximum(curve[near], 1e-9)), 2)
    best = float(values[top] - b / (2 * a)) if a < 0 else float(values[top])
    return Focus(values, curve, best if values[0] <= best <= values[-1] else float(values[top]))


def sentences(found: xr.Dataset, seconds: Array) -> list[str]:
    """What a person should know, a sentence each; nothing is said of what is as it should be."""
    said = [*_of_the_camera(found), *_of_the_light(found, seconds), *_of_the_tissue(found)]
    blind = int(np.isnan(found["mean"].values).sum())
    if blind:
        said.append(f"{count(blind, 'frame')} that lack parts were not measured")
    return said


def _of_the_camera(found: xr.Dataset) -> list[str]:
    said = []
    for name in ("dead", "hot"):
        places = np.argwhere(found[name].values).tolist()
        if places:
            some = ", ".join(f"({y}, {x})" for y, x in places[:5]) + (" and more" if len(places) > 5 else "")
            said.append(f"{count(len(places), f'{name} pixel')}, at (y, x) {some}")
    banding = float(np.nanmedian(found["banding"])) if found.sizes["frame"] else 0.0
    if banding > 0.5:
        said.append(f"rows are banded: brightness varies from row to row by {banding:.1f} grey values")
    return said


def _of_the_light(found: xr.Dataset, seconds: Array) -> list[str]:
    said = []
    saturated = found["saturated"].values
    many = int((saturated > 0.001).sum())
    if many:
        said.append(
            f"{count(many, 'frame')} with more than 0.1 % of the pixels at the highest grey value "
            f"(at most {100 * np.nanmax(saturated):.2g} %): lower the LED or the gain"
        )
    lost, rate = found.attrs.get("bleached_percent"), found.attrs.get("bleaching_percent_per_minute")
    if lost is not None and rate is not None and abs(lost) >= 3:
        word = "falls" if lost > 0 else "rises"
        said.append(
            f"the picture's brightness {word} by {abs(lost):.0f} % from start to end ({abs(rate):.2g} % a minute)"
        )
    step = brightness_step(found["mean"].values)
    if step is not None:
        row, size = step
        frame = int(found["frame"].values[row])
        said.append(f"the brightness jumps by {size:+.0f} % at frame {frame} ({clock(float(seconds[row]))})")
    if found.attrs["corner_light"] < 0.6:
        said.append(f"the corners get {100 * found.attrs['corner_light']:.0f} % of the light of the brightest place")
    return said


def _of_the_tissue(found: xr.Dataset) -> list[str]:
    said = []
    moved = np.hypot(found["shift_y"].values, found["shift_x"].values)
    if np.isfinite(moved).any() and np.nanmax(moved) >= 1:
        usual = float(np.nanpercentile(moved, 95))
        said.append(f"the picture moves by up to {np.nanmax(moved):.1f} px (95 % of the frames within {usual:.1f} px)")
    if "focus_curve" in found:
        best, values = found.attrs.get("best_ewl"), found["ewl_value"].values
        scan = f"a scan of {len(values)} settings from {values[0]:g} to {values[-1]:g}"
        said.append(f"sharpest at EWL {best:.0f} ({scan})" if best is not None else f"no clear focus in {scan}")
        return said
    sharp = found["sharpness"].values
    sharp = sharp[np.isfinite(sharp)]
    tenth = len(sharp) // 10
    if tenth >= 20:
        begun, ended = float(np.median(sharp[:tenth])), float(np.median(sharp[-tenth:]))
        if begun > 0 and abs(ended / begun - 1) > 0.2:
            word = "less" if ended < begun else "more"
            said.append(f"the end is {100 * abs(ended / begun - 1):.0f} % {word} sharp than the start: the focus moved")
    return said
