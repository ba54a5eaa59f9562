"""The xarray engine: ``xr.open_dataset(card, engine="miniscope")``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendEntrypoint

import miniscope_xr.accessor  # noqa: F401 - registers ds.miniscope
from miniscope_xr.card import CardStore, RecordingStore
from miniscope_xr.engine.arrays import BufferColumn, CardArray, FrameColumn, FrameNumbers, Pixels
from miniscope_xr.engine.variable import CardVariable
from miniscope_xr.errors import MiniscopeError, OptionError, RecordingError, did_you_mean
from miniscope_xr.index.detect import detect
from miniscope_xr.layout import Field, Layout
from miniscope_xr.source.local import Device

_CHUNK_BYTES = 24_000_000  # about 256 frames of 304x304
_HEADER_TIMES = ("frame_num",)  # header fields that have a coordinate of their own name already
LayoutLike = str | os.PathLike[str] | Mapping[str, Any] | Layout | None


def _variable(dims: tuple[str, ...], array: CardArray, chunks: dict[str, int], attrs: dict[str, Any]) -> xr.Variable:
    from xarray.core import indexing

    encoding = {"preferred_chunks": chunks, "card": array.store.card.fingerprint}
    return CardVariable(dims, indexing.LazilyIndexedArray(array), attrs, encoding)


def _flat(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes every file format takes: no None, no bool, no empty list."""
    return {k: v for k, v in attrs.items() if v is not None and v != []}


def _fps(store: RecordingStore) -> float | int:
    """Nominal frames per second; where a card does not say, its clock does."""
    card = store.card.index.card
    if card.config is not None and "fs" in card.config:
        return int(card.config["fs"])
    n = store.frames.count
    ends = np.array([0, n - 1])
    frames = int(np.diff(store.frames.frame_num(ends))[0])
    ticks = np.diff(store.describe(ends).first["timestamp"].astype(np.int64))[0]
    return round(1000 * store.recording.ticks * frames / max(int(ticks), 1), 2) if frames else 0


def recording_attrs(store: RecordingStore) -> dict[str, Any]:
    """Flat attributes of one recording."""
    recording, card = store.recording, store.card.index.card
    return _flat({
        **{name: int(value) for name, value in card.settings.items()},
        "layout": card.layout.id,
        "fs": _fps(store),
        "width": recording.width,
        "height": recording.height,
        "buffer_size": None if card.config is None else int(card.config["buffer_size"]),
        "recording": recording.number,
        "n_buffers_recorded": recording.n_recorded,
        "n_buffers_dropped": recording.n_dropped,
        "n_buffers_found": recording.n_buffers,
        "status": recording.status,
        "warnings": list(recording.warnings),
    })  # fmt: skip


def card_attrs(card: CardStore) -> dict[str, Any]:
    """Flat attributes of the card: its layout, settings and number of recordings."""
    found = card.index.card
    return _flat({
        **{name: int(value) for name, value in found.settings.items()},
        "layout": found.layout.id,
        "write_keys": int(found.keyed),
        "n_recordings": len(card.index.recordings),
    })  # fmt: skip


def _field_attrs(item: Field | None, scaled: bool) -> dict[str, Any]:
    """Attributes of a header field. Units of time go into the name: xarray would decode them as durations."""
    if item is None:
        return {}
    attrs: dict[str, Any] = {"long_name": item.description or item.name}
    if item.scale is not None and not scaled:
        attrs["scale_factor"] = item.scale
    elif item.units and item.units not in ("ms", "s"):
        attrs["units"] = item.units
    elif item.units:
        attrs["long_name"] += f" ({item.units})"
    return attrs


class _Builder:
    """Builds the Dataset of one recording."""

    def __init__(self, store: RecordingStore, timedelta: bool, scale: bool, dropped: frozenset[str]) -> None:
        self.store = store
        self.timedelta = timedelta
        self.scale = scale
        self.dropped = dropped
        card = store.card.index.card
        self.fields: dict[str, Field] = dict(card.layout.footer or card.layout.buffer)

    def _scale(self, name: str) -> float | None:
        item = self.fields.get(name)
        return item.scale if item is not None and self.scale else None

    def frames(self, time_index: bool = False) -> xr.Dataset:
        """Video with its per-frame coordinates."""
        store = self.store
        n = store.frames.count
        frame_bytes = max(store.recording.width * store.recording.height, 1)
        chunks = {"frame": max(_CHUNK_BYTES // frame_bytes, 1)}
        time = np.dtype("timedelta64[ms]" if self.timedelta else np.int64)
        units = {} if self.timedelta else {"units": "milliseconds"}
        makers: dict[str, tuple[Callable[[], CardArray], dict[str, Any]]] = {
            "frame_num": (lambda: FrameNumbers(store), _field_attrs(self.fields.get("frame_num"), False)),
            "time": (lambda: FrameColumn(store, "time", time), {
                "long_name": "timestamp of the frame's first buffer", **units}),
            "time_last": (lambda: FrameColumn(store, "time_last", time), {
                "long_name": "timestamp of the frame's last buffer", **units}),
            "buffers_present": (lambda: FrameColumn(store, "buffers_present", np.dtype(np.uint32)), {
                "long_name": "bit b set: buffer b of the frame is on the card"}),
            "complete": (lambda: FrameColumn(store, "complete", np.dtype(bool)), {
                "long_name": "all buffers of the frame are on the card"}),
        }  # fmt: skip
        dtype = store.card.header_dtype
        for name in self.fields:
            if name in makers or name not in (dtype.names or ()):
                continue
            makers[name] = (lambda name=name: self._column(name), _field_attrs(self.fields[name], self.scale))  # type: ignore[misc]
        coords = {
            name: _variable(("frame",), make(), chunks, attrs)
            for name, (make, attrs) in makers.items()
            if name not in self.dropped
        }
        coords["frame"] = xr.Variable("frame", np.arange(n, dtype=np.int64), {"long_name": "row of the recording"})
        variables = {}
        if "video" not in self.dropped:
            chunks = {**chunks, "y": store.recording.height, "x": store.recording.width}
            variables["video"] = _variable(("frame", "y", "x"), Pixels(store), chunks, {"long_name": "fluorescence"})
        ds = xr.Dataset(variables, coords, recording_attrs(store))
        return self._time_indexed(ds, time) if time_index and "time" in coords else ds

    def _time_indexed(self, ds: xr.Dataset, dtype: np.dtype[Any]) -> xr.Dataset:
        from miniscope_xr.engine.time_index import TimeIndex

        index = TimeIndex("time", "frame", FrameColumn(self.store, "time", dtype), np.arange(ds.sizes["frame"]))
        return ds.assign_coords(xr.Coordinates(index.create_variables({"time": ds["time"].variable}), {"time": index}))

    def _column(self, name: str) -> CardArray:
        scale = self._scale(name)
        dtype = np.dtype(np.float64) if scale else self.store.card.header_dtype[name]
        return FrameColumn(self.store, name, dtype.newbyteorder("="), scale)

    def buffers(self) -> xr.Dataset:
        """One row per written buffer, every word of its header as it is on the card."""
        store = self.store
        n = store.recording.n_buffers
        dtype = store.card.header_dtype
        variables = {}
        for name in dtype.names or ():
            scale = self._scale(name)
            kind = np.dtype(np.float64) if scale else dtype[name].newbyteorder("=")
            array = BufferColumn(store, name, kind, scale)
            variables[name] = _variable(("buffer",), array, {}, _field_attrs(self.fields.get(name), self.scale))
        sector = BufferColumn(store, "sector", np.dtype(np.int64), None)
        variables["sector"] = _variable(("buffer",), sector, {}, {"long_name": "sector of the buffer on the card"})
        kept = {name: variable for name, variable in variables.items() if name not in self.dropped}
        return xr.Dataset(kept, {"buffer": np.arange(n, dtype=np.int64)}, recording_attrs(store))


def _parse_group(group: str | None, recording: int | None) -> tuple[int | None, bool]:
    """(recording, whether its buffer table is meant) of a group path."""
    if group is None:
        return recording, False
    if not isinstance(group, str):
        raise OptionError(f"group={group!r}: expected text such as 'buffers' or 'recording_1/buffers'")
    parts = [part for part in group.split("/") if part]
    table = bool(parts) and parts[-1] == "buffers"
    if table:
        parts.pop()
    if not parts:
        return recording, table
    name, _, number = parts[0].rpartition("_")
    if len(parts) > 1 or name != "recording" or not number.isdecimal():
        known = ("buffers", "recording_0", "recording_0/buffers")
        raise RecordingError(f"group={group!r}{did_you_mean(group, known)}: groups are {', '.join(known)} and so on")
    if recording is not None and recording != int(number):
        raise OptionError(f"group={group!r} and recording={recording!r} disagree; give one of them")
    return int(number), table


def _dropped(names: str | Iterable[str] | None) -> frozenset[str]:
    return frozenset([names] if isinstance(names, str) else names or ())


def _check_options(gaps: str, until: int | None) -> None:
    if gaps not in ("skip", "fill"):
        raise OptionError(f"gaps={gaps!r}: expected 'skip' or 'fill'")
    if until is not None and (isinstance(until, bool) or not isinstance(until, int | np.integer) or until < 0):
        raise OptionError(f"until={until!r}: expected the number of the last frame to return (0 or more)")


class MiniscopeBackendEntrypoint(BackendEntrypoint):
    """SD cards (and their images) of wire-free UCLA Miniscopes."""

    description = "SD cards of wire-free UCLA Miniscopes"
    url = "https://miniscope-xr.readthedocs.io"
    supports_groups = True
    open_dataset_parameters = (
        "filename_or_obj", "drop_variables", "layout", "recording", "gaps", "index", "errors", "until", "time_index",
        "group",
        "mask_and_scale", "decode_times", "decode_timedelta",
    )  # fmt: skip

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Whether this is a card with a recording in a layout we know; cheap, False on any error."""
        if not isinstance(filename_or_obj, str | os.PathLike):
            return False
        try:
            with Device(os.path.expanduser(os.fspath(filename_or_obj))) as device:  # noqa: PTH111
                detect(device)
        except Exception:
            return False
        return True

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        layout: LayoutLike = None,
        recording: int | None = None,
        gaps: str = "skip",
        index: str = "bisect",
        errors: str = "raise",
        until: int | None = None,
        time_index: bool = False,
        group: str | None = None,
        mask_and_scale: bool | None = True,
        decode_times: bool | None = True,
        decode_timedelta: bool | None = None,
    ) -> xr.Dataset:
        """Open one recording of a card, or its buffer table.

        Parameters
        ----------
        filename_or_obj
            Image file or block device.
        layout
            Id, path, mapping or Layout; None detects it.
        recording
            Which recording, where the card holds several.
        gaps : {"skip", "fill"}
            Leave out frame numbers that never reached the card, or insert blank frames for them.
        index : {"bisect", "scan"}
            Find buffers with few reads, or read every header; both give the same.
        errors : {"raise", "fill"}
            At unreadable sectors raise CardReadError, or leave the pixels 0 and the buffers missing.
        until
            Last frame number to return, where the end of the recording is in doubt.
        time_index
            Index ``time`` by bisecting the card; ``ds.set_xindex("time")`` does the same by reading every header.
        group
            ``"buffers"``, ``"recording_1"`` or ``"recording_1/buffers"``.
        """
        _check_options(gaps, until)
        number, table = _parse_group(group, recording)
        card = CardStore(filename_or_obj, layout, index, errors, whole=until is not None)
        try:
            store = RecordingStore(card, card.recording(number), gaps == "fill", until)
            timedelta = bool(decode_times if decode_timedelta is None else decode_timedelta)
            builder = _Builder(store, timedelta, mask_and_scale is not False, _dropped(drop_variables))
            ds = builder.buffers() if table else builder.frames(time_index)
        except BaseException:
            card.close()
            raise
        ds.encoding["source"] = card.path
        ds.set_close(card.close)
        return ds

    def open_groups_as_dict(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        layout: LayoutLike = None,
        gaps: str = "skip",
        index: str = "bisect",
        errors: str = "raise",
        until: int | None = None,
        mask_and_scale: bool | None = True,
        decode_times: bool | None = True,
        decode_timedelta: bool | None = None,
        **unknown: Any,
    ) -> dict[str, xr.Dataset]:
        """Every node of the card: ``/``, ``/recording_0``, ``/recording_0/buffers`` and so on."""
        for name, value in unknown.items():
            if value is not None:
                raise OptionError(f"{name}= is not an option of a tree, which always holds the whole card")
        _check_options(gaps, until)
        card = CardStore(filename_or_obj, layout, index, errors, whole=until is not None)
        try:
            timedelta = bool(decode_times if decode_timedelta is None else decode_timedelta)
            groups = {"/": xr.Dataset(attrs=card_attrs(card))}
            for found in card.index.recordings:
                store = RecordingStore(card, found, gaps == "fill", until)
                builder = _Builder(store, timedelta, mask_and_scale is not False, _dropped(drop_variables))
                groups[f"/recording_{found.number}"] = builder.frames()
                groups[f"/recording_{found.number}/buffers"] = builder.buffers()
        except BaseException:
            card.close()
            raise
        for ds in groups.values():
            ds.encoding["source"] = card.path
            ds.set_close(card.close)
        return groups

    def open_datatree(self, filename_or_obj: Any, **options: Any) -> xr.DataTree:
        """The whole card as a tree; options as for :meth:`open_groups_as_dict`."""
        groups = self.open_groups_as_dict(filename_or_obj, **options)
        tree = xr.DataTree.from_dict(groups)
        for path, ds in groups.items():
            tree[path].set_close(ds._close)
        return tree


__all__ = ["MiniscopeBackendEntrypoint", "MiniscopeError"]
