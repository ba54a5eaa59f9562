"""The Dataset of one recording: its video with what the headers say of each frame, or its buffers in a table."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from miniscope_xr.card import OpenCard, OpenRecording
from miniscope_xr.engine.arrays import (
    BufferField,
    BufferSectors,
    CardArray,
    FrameColumn,
    FrameField,
    FrameNumbers,
    Pixels,
)
from miniscope_xr.engine.attrs import card_attrs, field_attrs, recording_attrs
from miniscope_xr.engine.options import Options
from miniscope_xr.engine.quarantine import lazy_variable
from miniscope_xr.engine.sidecar import told
from miniscope_xr.engine.time_index import TimeIndex
from miniscope_xr.index.recording import Recording
from miniscope_xr.layout import Field
from miniscope_xr.layout.words import part_of

_DEFAULTS = Options()
_CHUNK_BYTES = 24_000_000  # about 256 frames of 304x304
_OWN = {
    "frame": "row of the recording",
    "time": "timestamp of the frame's first buffer",
    "time_last": "timestamp of the frame's last buffer",
    "buffers_present": "bit b set: buffer b of the frame is on the card",
    "complete": "all buffers of the frame are on the card",
    "video": "fluorescence",
}
"""What a dataset of frames calls its own (no layout may use these names for header fields)."""


def open_card(path: Any, options: Options) -> OpenCard:
    """Open the card that a Dataset is to be made of."""
    whole = options.until is not None
    return OpenCard(path, options.layout, options.index, options.errors, whole, options.old_buffers)


def recording_dataset(card: OpenCard, recording: Recording, options: Options) -> xr.Dataset:
    """Make the Dataset of a recording's frames, every value of it read when it is looked at."""
    nan = options.partial == "nan"
    return frames_dataset(OpenRecording(card, recording, options.gaps == "fill", options.until, nan), options)


def frames_dataset(opened: OpenRecording, options: Options = _DEFAULTS) -> xr.Dataset:
    """Make the Dataset of an open recording's frames."""
    return _of(opened.card, FrameVariables(opened, options).dataset())


def buffers_dataset(card: OpenCard, recording: Recording, options: Options) -> xr.Dataset:
    """Make the table of a recording's buffers: every word of their headers as it is on the card."""
    opened = OpenRecording(card, recording)
    arrays: dict[str, tuple[CardArray, dict[str, Any]]] = {}
    for name, item in {**_words(opened), **_fields(opened)}.items():
        arrays[name] = BufferField(opened, item, options.scaled), field_attrs(item, options.scaled)
    arrays["sector"] = BufferSectors(opened), {"long_name": "sector of the buffer on the card"}
    kept = {
        name: lazy_variable(("buffer",), array, {}, attrs)
        for name, (array, attrs) in arrays.items()
        if name not in options.dropped
    }
    rows = np.arange(recording.n_buffers, dtype=np.int64)
    rows_of = {} if "buffer" in options.dropped else {"buffer": rows}
    return _of(card, xr.Dataset(kept, rows_of, recording_attrs(opened)))


def card_dataset(card: OpenCard) -> xr.Dataset:
    """Make the root of a tree: what the card says of itself."""
    return _of(card, xr.Dataset(attrs=card_attrs(card)))


def _of(card: OpenCard, ds: xr.Dataset) -> xr.Dataset:
    """Let a Dataset say which card it is of, and what was told of it in a file beside the copy."""
    ds.encoding["source"] = card.path
    ds.attrs.update({name: text for name, text in told(card.path).items() if name not in ds.attrs})
    return ds


def _fields(opened: OpenRecording) -> dict[str, Field]:
    """Header fields of the layout for which the headers of this card have room."""
    layout, parts = opened.card.layout, opened.card.header_dtype.names or ()
    fields = layout.footer or layout.buffer
    return {name: item for name, item in fields.items() if part_of(item) in parts}


def _words(opened: OpenRecording) -> dict[str, Field]:
    """Words of the headers that no field names, or only bits of, as fields of their own."""
    dtype = opened.card.header_dtype
    known = _fields(opened)
    places: Any = dtype.fields or {}
    return {
        name: Field(name, int(places[name][1]), description=f"word {places[name][1] // 4} of the header")
        for name in dtype.names or ()
        if name not in known and dtype[name].kind != "V"
    }


def _rows(count: int) -> xr.Variable:
    return xr.Variable("frame", np.arange(count, dtype=np.int64), {"long_name": _OWN["frame"]})


class FrameVariables:
    """A recording's frames, as the variables of a Dataset."""

    def __init__(self, opened: OpenRecording, options: Options) -> None:
        self.opened = opened
        self.options = options
        recording = opened.recording
        pixel = 4 if opened.nan else 1
        self.count = opened.frames.count
        self.chunks = {"frame": max(_CHUNK_BYTES // max(recording.width * recording.height * pixel, 1), 1)}
        self.time = np.dtype("timedelta64[ms]" if options.timedelta else np.int64)

    def dataset(self) -> xr.Dataset:
        """Make the Dataset, with whatever the options leave out left out."""
        options = self.options
        coords = {name: variable for name, variable in self._coords().items() if name not in options.dropped}
        videos = {} if "video" in options.dropped else {"video": self._video()}
        # one thing after the other: a Dataset that is given coordinates looks at each of them several times
        ds = xr.Dataset({**videos, **coords}, attrs=recording_attrs(self.opened)).set_coords(list(coords))
        if options.time_index and "time" in coords:
            ds = ds.set_xindex("time", TimeIndex, column=FrameColumn(self.opened, "time", self.time))
        if options.partial != "drop":
            return ds
        ds = ds.isel(frame=np.flatnonzero(self.opened.describe(np.arange(self.count)).complete))
        # counted anew
        return ds.assign_coords(frame=_rows(ds.sizes["frame"])) if "frame" in coords else ds

    def _video(self) -> xr.Variable:
        recording = self.opened.recording
        chunks = {**self.chunks, "y": recording.height, "x": recording.width}
        return lazy_variable(("frame", "y", "x"), Pixels(self.opened), chunks, {"long_name": _OWN["video"]})

    def _coords(self) -> dict[str, xr.Variable]:
        opened, fields = self.opened, _fields(self.opened)
        units = {} if self.options.timedelta else {"units": "milliseconds"}
        arrays: dict[str, tuple[CardArray, dict[str, Any]]] = {
            "frame_num": (FrameNumbers(opened), field_attrs(fields.get("frame_num"), False)),
            "time": (FrameColumn(opened, "time", self.time), {"long_name": _OWN["time"], **units}),
            "time_last": (FrameColumn(opened, "time_last", self.time), {"long_name": _OWN["time_last"], **units}),
            **{
                name: (FrameColumn(opened, name, np.dtype(dtype)), {"long_name": _OWN[name]})
                for name, dtype in (("buffers_present", np.uint32), ("complete", np.bool_))
            },
        }
        for name, item in fields.items():
            if name != "frame_num":
                arrays[name] = FrameField(opened, item, self.options.scaled), field_attrs(item, self.options.scaled)
        coords = {name: lazy_variable(("frame",), array, self.chunks, attrs) for name, (array, attrs) in arrays.items()}
        return {**coords, "frame": _rows(self.count)}
