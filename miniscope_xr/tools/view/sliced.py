"""A Dataset as the page sees it: the frames it has, cut, masked or computed, each read when it is looked at."""

from __future__ import annotations

import contextlib
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from miniscope_xr.card import OpenCard, OpenRecording
from miniscope_xr.errors import MiniscopeError, OptionError, plain
from miniscope_xr.layout import builtin_layouts, load_layout
from miniscope_xr.layout.arrays import Array, Bools, Ints
from miniscope_xr.tools.stream.footage import PRESENT
from miniscope_xr.tools.stream.gaps import DROPPED, Gap, lost_frames
from miniscope_xr.tools.stream.timing import BLANK, filled_times, frame_numbers, measured_rate, milliseconds
from miniscope_xr.tools.view.findings import findings
from miniscope_xr.tools.view.seen import Heads, Seen, settings_told


class SeenDataset(Seen):
    """The frames of a Dataset.

    Where the card that it came from is still there, lost frames and those that lack buffers are found by the card's
    counters and the numbers of the frames, with no frame read; else by the Dataset's own columns.

    Parameters
    ----------
    ds
        With ``video`` (frame, y, x) of numbers.

    Raises
    ------
    OptionError
        It has no such video.
    """

    def __init__(self, ds: xr.Dataset) -> None:
        video = ds.variables.get("video")
        if video is None:
            raise OptionError("this Dataset has no variable 'video'; open the recording, not its group 'buffers'")
        if video.dims != ("frame", "y", "x") or video.dtype.kind not in "buif" or not video.size:
            raise OptionError(
                f"video is {video.dtype} {dict(video.sizes)}; to be looked at it has to be numbers over "
                "('frame', 'y', 'x'), one of each at least: choose one frame as ds.isel(frame=[5])"
            )
        self.real = video.dtype != np.uint8
        self._video = video
        self._ds = ds
        super().__init__(video.shape, ds.attrs, ds.encoding.get("source"), int(ds.attrs.get("recording", 0)))

    @property
    def ds(self) -> xr.Dataset:
        """The Dataset."""
        return self._ds

    @property
    def fps(self) -> float | None:
        """Frames per second by its times."""
        return measured_rate(self.ds)

    def pixels(self, rows: Ints) -> Array:
        """Pixels of some rows: as they are where they are uint8, else float32."""
        some = slice(int(rows[0]), int(rows[-1]) + 1) if (np.diff(rows) == 1).all() else rows
        return np.asarray(self._video[some].values, np.float32 if self.real else np.uint8)

    def holed(self, rows: Ints) -> Array:
        """Pixels as real numbers; a uint8 frame that is not whole is all NaN: nothing tells which of it are missing."""
        pixels = np.array(self.pixels(rows), np.float32)
        if not self.real:
            pixels[~self._whole(rows)] = np.nan
        return pixels

    def heads(self, rows: Ints) -> Heads:
        """What the Dataset says of some rows."""
        numbers = frame_numbers(self.ds, rows)
        ms = np.full(len(rows), np.nan)
        if "time" in self.ds.variables:
            times = milliseconds(self.ds["time"].variable[rows].values)
            ms = np.where(times == BLANK, np.nan, filled_times(times, numbers))
        return Heads(numbers, ms, self._whole(rows))

    def _whole(self, rows: Ints) -> Bools:
        if "complete" not in self.ds.variables:
            return np.ones(len(rows), bool)
        return np.asarray(self.ds["complete"].variable[rows].values, bool)

    def gaps(self) -> list[Gap]:
        """Where frames of the recording are not on the card; what was cut out of the Dataset is not lost."""
        places = np.asarray(self.ds["frame"].values, np.int64)

        def look(rows: Ints) -> Ints:
            if "time" not in self.ds.variables:
                return np.full(len(rows), BLANK)
            return milliseconds(self.ds["time"].variable[rows].values)

        return lost_frames(self._numbers, places, self._blank, DROPPED in self.ds.variables, look)

    def partial(self) -> list[int]:
        """Rows that lack buffers."""
        if self._origin is None:
            return [int(row) for row in np.flatnonzero(~self._whole(np.arange(self.count)) & ~self._blank)]
        return [int(row) for row in self._at(np.asarray(self._origin.frames.partial_rows(), np.int64))]

    def opened(self) -> contextlib.AbstractContextManager[xr.Dataset]:
        """The Dataset itself."""
        return contextlib.nullcontext(self.ds)

    def findings(self) -> list[dict[str, Any]]:
        """What ``check`` says of the card, with the rows of this Dataset.

        Raises
        ------
        OptionError
            The Dataset does not know its card.
        """
        if self.path is None:
            raise OptionError("this Dataset no longer knows its card; miniscope_xr.check(path) says what it finds")
        found = findings(self.path, self.ds.attrs.get("layout"))
        for finding in found:
            mine = finding["recording"] == self.number and self._origin is not None
            finding["rows"] = self._at(np.array(finding["rows"], np.int64)).tolist() if mine else []
        return found

    def card(self) -> dict[str, Any]:
        """What the page shows as the card: one recording, this Dataset."""
        layout = str(self.ds.attrs.get("layout", ""))
        names = load_layout(layout).header if layout in builtin_layouts() else ()
        name = Path(self.path).name if self.path else "Dataset"
        return {
            "card": 0, "name": plain(name), "path": plain(self.path or name), "layout": plain(layout),
            "settings": settings_told(self.attrs, names), "recordings": [self.described()],
        }  # fmt: skip

    @cached_property
    def _numbers(self) -> Ints:
        return frame_numbers(self.ds, slice(None))

    @cached_property
    def _origin(self) -> OpenRecording | None:
        """The recording on the card, where it is still the one that the Dataset came from."""
        if self.path is None or "frame_num" not in self.ds.variables:
            return None
        try:
            card = OpenCard(self.path, self.ds.attrs.get("layout"), errors="fill")
        except MiniscopeError:
            return None
        recording = next((one for one in card.index.recordings if one.number == self.number), None)
        if recording is None or recording.n_buffers != self.ds.attrs.get("n_buffers_found"):
            card.close()
            return None
        return OpenRecording(card, recording)

    def close(self) -> None:
        """Close the card that was opened to look for gaps; the Dataset stays open."""
        if (origin := self.__dict__.pop("_origin", None)) is not None:
            origin.card.close()

    def _at(self, rows: Ints) -> Ints:
        """Where some rows of the recording are in this Dataset, as far as it has them."""
        assert self._origin is not None
        return np.flatnonzero(np.isin(self._numbers, self._origin.frames.frame_num(rows)) & ~self._blank)

    @cached_property
    def _blank(self) -> Bools:
        """Rows that stand for frames that never reached the card (``gaps="fill"``)."""
        if self._origin is not None:
            return ~np.isin(self._numbers, self._origin.frames.frame_num(np.arange(self._origin.frames.count)))
        present = self.ds.variables.get(PRESENT)
        return np.zeros(self.count, bool) if present is None else np.asarray(present.values == 0)
