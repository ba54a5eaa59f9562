"""The frames of a Dataset as a stream: bounded memory, and their header values from the same pass."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Protocol

import numpy as np
import xarray as xr

from miniscope_xr.errors import OptionError
from miniscope_xr.layout.arrays import Array, Bools, Bytes, Ints
from miniscope_xr.tools.stream.gaps import DROPPED, Gap, lost_frames
from miniscope_xr.tools.stream.timing import BLANK, SLOT, filled_times, frame_numbers, milliseconds

PRESENT = "buffers_present"

BATCH_BYTES = 6_000_000
SMALL_BATCH_BYTES = 1_500_000
"""For encoders that are slower than reading, several at once."""

_STRETCH = 1024  # frames whose columns are read at once: an encoder waits for each time that is done

Images = Bytes
FrameChoice = slice | Sequence[int] | None
PathLike = str | os.PathLike[str]


class Made(Protocol):
    """What is made of frames before they are written."""

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Size of what is made of a frame."""

    def __call__(self, images: Images) -> Images:
        """Make it, of a batch of frames."""


def select(ds: xr.Dataset, frames: FrameChoice) -> xr.Dataset:
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


def header_names(ds: xr.Dataset) -> list[str]:
    """Return the names of all per-frame values of a recording."""
    return [str(name) for name, variable in ds.variables.items() if variable.dims == ("frame",) and name != "frame"]


class Footage:
    """Frames of a recording in batches, with their header values.

    Parameters
    ----------
    ds
        Dataset with ``video`` (frame, y, x) of uint8.
    names
        Per-frame variables to collect besides what times and gaps need; see :func:`header_names`.
    batch_bytes
        Size of a batch.
    picture
        What is made of the frames of a batch, with the size that gives (``shape``); None leaves them as they are.

    Attributes
    ----------
    columns : dict
        Values of these variables, filled in as the batches are read.

    Notes
    -----
    Headers lie beside the pixels, so they are read with each batch, while the card is there anyway. Batches may be
    read from several threads at once.
    """

    def __init__(
        self, ds: xr.Dataset, names: Iterable[str] = (), batch_bytes: int = BATCH_BYTES, picture: Made | None = None
    ) -> None:
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
        self._read_bytes = ds.sizes["y"] * ds.sizes["x"]
        self.height, self.width = ds.sizes["y"], ds.sizes["x"]
        if picture is not None:
            self.height, self.width = picture.shape(self.height, self.width)
        self._picture = picture
        self._video = video.variable
        self._batch_bytes = batch_bytes
        wanted = [name for name in dict.fromkeys(["time", SLOT, PRESENT, "complete", *names]) if name in ds.variables]
        self.columns: dict[str, Array] = {name: np.zeros(self.count, ds.variables[name].dtype) for name in wanted}

    @cached_property
    def numbers(self) -> Ints:
        """The device's frame numbers."""
        return frame_numbers(self.ds, slice(None))

    @property
    def times(self) -> Ints:
        """Time stamps in ms, of what was read."""
        return self.clock("time")

    def clock(self, name: str) -> Ints:
        """Values of a column of times in ms, of what was read; a blank frame has the time it was due."""
        if name not in self.columns:
            return np.full(self.count, BLANK)
        return filled_times(milliseconds(self.columns[name]), self.numbers)

    @property
    def slots(self) -> Ints:
        """Slots of the ring buffer, of what was read; -1 for a blank frame."""
        if SLOT not in self.columns:
            return np.zeros(self.count, np.int64)
        return np.where(self.blank, -1, self.columns[SLOT].astype(np.int64))

    @property
    def blank(self) -> Bools:
        """Which rows stand for frames that never reached the card, of what was read."""
        present = self.columns.get(PRESENT)
        return np.zeros(self.count, bool) if present is None else present == 0

    @property
    def partial(self) -> Bools:
        """Which frames lack some of their buffers, of what was read."""
        complete = self.columns.get("complete")
        return np.zeros(self.count, bool) if complete is None else ~complete.astype(bool) & ~self.blank

    @property
    def status(self) -> list[str]:
        """``complete``, ``partial`` or ``blank`` for each row, of what was read."""
        words: list[str] = np.where(self.blank, "blank", np.where(self.partial, "partial", "complete")).tolist()
        return words

    @property
    def gaps(self) -> list[Gap]:
        """Frames that never reached the card, of what was read."""
        places = np.asarray(self.ds["frame"].values, np.int64)
        times = self.times
        return lost_frames(self.numbers, places, self.blank, DROPPED in self.ds.variables, lambda rows: times[rows])

    @property
    def step(self) -> int:
        """Frames in a batch; the chunks of a chunked Dataset are never cut."""
        if self._video.chunks is not None:
            return int(max(self._video.chunks[0]))
        return max(min(self._batch_bytes // max(self._read_bytes, 1), self.count), 1)

    def parts(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[slice, Images]]:
        """Yield rows and their frames from ``start`` to ``stop``, a batch at a time, when their columns are read."""
        return self._parts(start, stop, 1)

    def batches(self, start: int = 0, stop: int | None = None) -> Generator[Images]:
        """Yield the frames from ``start`` to ``stop``, a batch at a time; the columns follow in larger steps."""
        for _, images in self._parts(start, stop, _STRETCH):
            yield images
            del images

    def _parts(self, start: int, stop: int | None, stretch: int) -> Iterator[tuple[slice, Images]]:
        stop = self.count if stop is None else stop
        begun = start
        for at in range(start, stop, self.step):
            rows = slice(at, min(at + self.step, stop))
            images = self._video[rows].values
            images = np.ascontiguousarray(images if self._picture is None else self._picture(images))
            if rows.stop - begun >= stretch or rows.stop == stop:
                behind = slice(begun, rows.stop)
                for name, column in self.columns.items():
                    column[behind] = self.ds.variables[name][behind].values
                begun = rows.stop
            yield rows, images
            del images

    def headers(self) -> xr.Dataset:
        """Return the header values that were read, with the settings of the recording as attributes."""
        coords = {
            name: (
                "frame",
                self.clock(name).astype(values.dtype) if values.dtype.kind == "m" else values,
                self.ds.variables[name].attrs,
            )
            for name, values in self.columns.items()
        }
        index = ("frame", self.ds["frame"].values, self.ds["frame"].attrs)
        return xr.Dataset(coords={"frame": index, **coords}, attrs=self.ds.attrs)
