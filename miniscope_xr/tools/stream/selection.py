"""Which part of a recording an output shows, and how: the one list of options for video, export and report.

The recording itself, and a copy of its card, stay as they are.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import xarray as xr

from miniscope_xr.errors import OptionError
from miniscope_xr.layout.arrays import Array
from miniscope_xr.tools.stream.footage import FrameChoice, Images, select
from miniscope_xr.tools.stream.timing import BLANK, milliseconds

TimeSpan = str | slice | Sequence[float] | None
"""``"5s:60s"``, ``slice(5, 60)`` or ``(5, 60)``: s since the first frame; one that is left out is the recording's."""
Crop = str | Sequence[int] | None
"""x, y, width, height in px; as text with commas between them."""

_UNITS = {"": 1.0, "s": 1.0, "ms": 1e-3, "m": 60.0, "min": 60.0, "h": 3600.0}
_TIME = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|min|m|h|)\s*")
_MOST_BINNED = 16  # a sum of 16 x 16 pixels of 255 fits 16 bits
_BASELINE_FRAMES, _BASELINE = 100, 20  # frames and percentile that make the resting picture of dF/F
DFF = (-0.1, 0.5)
"""Change above the resting picture that a preview shows as black, and as white."""
DARK = 5.0
"""Grey values that the change is divided by at least: where less light rests, dF/F is noise."""


class Selection(TypedDict, total=False):
    """What part of a recording is written.

    Attributes
    ----------
    frames
        A slice or list of rows; None (default) for all.
    time
        A stretch in s since the first frame instead: ``"5s:60s"``, ``"2min:"``, ``slice(5, 60)``.
    crop
        x, y, width, height in px.
    bin
        Mean of so many pixels along each side, 2 to 16; what is left at the right and at the bottom is left out.
    """

    frames: FrameChoice
    time: TimeSpan
    crop: Crop
    bin: int | None


class Preview(Selection, total=False):
    """What a picture shows.

    Attributes
    ----------
    dff
        The change above the resting picture (dF/F) instead of grey values, see :func:`picture_of`. Default False.
    """

    dff: bool


def chosen(ds: xr.Dataset, options: Mapping[str, Any]) -> xr.Dataset:
    """Take the rows and the part of the picture that are asked for; attributes ``crop`` and ``binning`` say so.

    Raises
    ------
    OptionError
        A value that cannot be, or a selection without a frame.
    """
    frames, span, crop = options.get("frames"), options.get("time"), options.get("crop")
    if frames is not None and span is not None:
        raise OptionError("frames and time both say which rows; give one of them")
    part = select(ds, rows_of(ds, span) if span is not None else frames)
    if crop is not None:
        x, y, width, height = _checked_crop(crop, part.sizes["x"], part.sizes["y"])
        part = part.isel(x=slice(x, x + width), y=slice(y, y + height)).assign_attrs(crop=[x, y, width, height])
    if options.get("bin") is not None:
        part = part.assign_attrs(binning=_checked_bin(options["bin"], part.sizes["x"], part.sizes["y"]))
    return part


def _checked_crop(crop: Any, wide: int, high: int) -> list[int]:
    values = list(crop) if not isinstance(crop, str) else crop.split(",")
    try:
        x, y, width, height = (int(value) for value in values)
    except (TypeError, ValueError) as error:
        raise OptionError(f"crop={crop!r}: expected x, y, width and height in px") from error
    if x < 0 or y < 0 or width < 1 or height < 1 or x + width > wide or y + height > high:
        raise OptionError(f"crop={crop!r}: the picture is {wide} px wide and {high} px high")
    return [x, y, width, height]


def _checked_bin(size: Any, wide: int, high: int) -> int:
    if (
        isinstance(size, bool)
        or not isinstance(size, int | np.integer)
        or not 1 <= size <= min(_MOST_BINNED, wide, high)
    ):
        raise OptionError(f"bin={size!r}: expected 1 to {min(_MOST_BINNED, wide, high)} pixels along each side")
    return int(size)


def seconds_span(span: TimeSpan) -> tuple[float, float]:
    """Both ends of a stretch of time in s; the last is infinite where it is left out."""
    parts: Sequence[Any]
    if isinstance(span, str):
        parts = span.split(":")
    elif isinstance(span, slice):
        parts = [span.start, span.stop] if span.step is None else []
    else:
        parts = list(span or ())
    ends = [_seconds(part) for part in parts]
    if len(ends) != 2 or ends[0] is False or ends[1] is False:
        raise OptionError(f"time={span!r}: expected FROM:TO, such as 5s:60s, 1.5min: or :500ms")
    first, last = ends[0] or 0.0, np.inf if ends[1] is None else float(ends[1])
    if not 0 <= first < last:
        raise OptionError(f"time={span!r}: the end has to lie behind the start")
    return float(first), last


def _seconds(part: Any) -> float | bool | None:
    """One end in s; None where it is left out, False where the text is no time."""
    if part is None or part == "":
        return None
    if isinstance(part, str):
        found = _TIME.fullmatch(part)
        return float(found[1]) * _UNITS[found[2]] if found else False
    return float(part) if isinstance(part, int | float | np.number) and not isinstance(part, bool) else False


def rows_of(ds: xr.Dataset, span: TimeSpan) -> slice:
    """Rows of a stretch of time, found by bisection: some tens of headers are read, not all."""
    first, last = seconds_span(span)
    if "time" not in ds.variables:
        raise OptionError(f"time={span!r}: this Dataset has no times; give frames")
    times = ds["time"].variable
    count = ds.sizes["frame"]
    looked: dict[int, int] = {}

    def at(row: int) -> int:
        """Time of a row, or of the next one that has a time, in ms."""
        for k in range(row, count):
            if k not in looked:
                looked[k] = int(milliseconds(times[k].values[np.newaxis])[0])
            if looked[k] != BLANK:
                return looked[k]
        return np.iinfo(np.int64).max

    def behind(ms: float) -> int:
        return bisect_left(range(count), ms, key=at)

    origin = at(0)
    start = behind(origin + 1000 * first)
    stop = count if np.isinf(last) else behind(origin + 1000 * last)
    if start >= stop:
        raise OptionError(
            f"time={span!r} selects none of the {count} frames, the last of which is at "
            f"{(at_end(times) - origin) / 1000:g} s"
        )
    return slice(start, stop)


def at_end(times: xr.Variable) -> int:
    """The last time there is, in ms."""
    known = milliseconds(times[-64:].values)
    return int(known[known != BLANK].max(initial=0))


@dataclass(frozen=True)
class Picture:
    """What is made of every frame before it is written."""

    size: int = 1
    """Pixels along each side of which the mean is taken."""
    resting: Array | None = None
    """Resting picture of a dF/F preview (after they are averaged); None for grey values as they are."""

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Size of what is made of a frame."""
        return height // self.size, width // self.size

    def __call__(self, images: Images) -> Images:
        """Make it, of a batch of frames."""
        images = images if self.size == 1 else self._binned(images)
        return images if self.resting is None else self._dff(images)

    def _binned(self, images: Images) -> Images:
        n = len(images)
        height, width = self.shape(*images.shape[1:])
        part = images[:, : height * self.size, : width * self.size]
        sums = part.reshape(n, height, self.size, width * self.size).sum(axis=2, dtype=np.uint16)
        whole = sums.reshape(n, height, width, self.size).sum(axis=3, dtype=np.uint32)
        made: Images = ((whole + self.size**2 // 2) // self.size**2).astype(np.uint8)
        return made

    def _dff(self, images: Images) -> Images:
        resting = np.asarray(self.resting, np.float32)
        low, high = DFF
        scale = 255 / (high - low) / np.maximum(resting, DARK)
        made: Images = np.clip((images - resting) * scale - low * 255 / (high - low), 0, 255).astype(np.uint8)
        return made


def picture_of(ds: xr.Dataset, dff: bool = False) -> Picture | None:
    """What is to be made of the frames of a selection; None for nothing.

    Parameters
    ----------
    ds
        What :func:`chosen` returned.
    dff
        A preview of dF/F: from -10 % (black) to 50 % (white) above the resting picture, which is the 20th percentile of
        100 whole frames from all over the selection.
    """
    size = int(ds.attrs.get("binning", 1))
    if not dff:
        return Picture(size) if size > 1 else None
    count = ds.sizes["frame"]
    rows = np.unique(np.linspace(0, count - 1, min(count, _BASELINE_FRAMES)).astype(np.int64))
    if "complete" in ds.variables:
        whole = rows[np.asarray(ds["complete"].variable[rows].values, bool)]
        rows = whole if len(whole) else rows
    some = Picture(size)(np.asarray(ds["video"].isel(frame=rows).values))
    return Picture(size, np.percentile(some, _BASELINE, axis=0).astype(np.float32))
