"""The frames of a Dataset as a stream: bounded memory, and their times from the same pass."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr

from miniscope_xr.errors import OptionError
from miniscope_xr.tools.timing import BLANK, Times, frame_numbers, milliseconds, slot_name

_BATCH_BYTES = 6_000_000
Images = np.ndarray[Any, np.dtype[np.uint8]]
Frames = slice | Sequence[int] | None
PathLike = str | os.PathLike[str]


def select(ds: xr.Dataset, frames: Frames) -> xr.Dataset:
    """Take some frames of a recording: a slice of rows, a list of them, or None for all."""
    if frames is None:
        return ds
    if not isinstance(frames, slice):
        frames = list(frames)
    try:
        chosen = ds.isel(frame=frames)
    except (IndexError, TypeError, ValueError) as error:
        raise OptionError(f"frames={frames!r}: expected a slice or list of rows below {ds.sizes['frame']}") from error
    if chosen.sizes["frame"] == 0:
        raise OptionError(f"frames={frames!r} selects none of the {ds.sizes['frame']} frames")
    return chosen


class Footage:
    """Frames of a recording in batches, with their times.

    Parameters
    ----------
    ds
        Dataset with ``video`` (frame, y, x) of uint8.

    Notes
    -----
    The time stamps come from headers beside the pixels, so they are read with each batch, while the card is there
    anyway. Batches may be read from several threads at once.
    """

    def __init__(self, ds: xr.Dataset) -> None:
        if "video" not in ds.variables:
            raise OptionError("this Dataset has no variable 'video'; open the recording, not its group 'buffers'")
        video = ds["video"]
        if video.dims != ("frame", "y", "x") or video.dtype != np.uint8:
            raise OptionError(
                f"video is {video.dtype} {video.dims}, expected uint8 ('frame', 'y', 'x'); "
                "bring it there with .clip(0, 255).astype('uint8') and .transpose('frame', 'y', 'x')"
            )
        self.ds = ds
        self.count: int = ds.sizes["frame"]
        self.height: int = ds.sizes["y"]
        self.width: int = ds.sizes["x"]
        self._video = video.variable
        self._slots = slot_name(ds)
        self.times: Times = np.full(self.count, BLANK)
        self.slots: Times = np.zeros(self.count, np.int64)

    @cached_property
    def numbers(self) -> Times:
        """The device's frame numbers."""
        return frame_numbers(self.ds, slice(None))

    @property
    def step(self) -> int:
        """Frames in a batch; the chunks of a chunked Dataset are never cut."""
        if self._video.chunks is not None:
            return int(max(self._video.chunks[0]))
        return max(_BATCH_BYTES // max(self.width * self.height, 1), 1)

    def batches(self, start: int = 0, stop: int | None = None) -> Iterator[Images]:
        """Yield the frames from ``start`` to ``stop``, a batch at a time."""
        stop = self.count if stop is None else stop
        for at in range(start, stop, self.step):
            rows = slice(at, min(at + self.step, stop))
            images = np.ascontiguousarray(self._video[rows].values)
            self._read_times(rows)
            yield images
            del images

    def _read_times(self, rows: slice) -> None:
        for name, into in (("time", self.times), (self._slots, self.slots)):
            if name is not None and name in self.ds.variables:
                values = self.ds[name].variable[rows].values
                into[rows] = milliseconds(values) if name == "time" else values
