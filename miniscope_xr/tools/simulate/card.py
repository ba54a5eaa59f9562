"""Card images as the firmware would write them, and what a perfect reader gets out of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from miniscope_xr.errors import OptionError
from miniscope_xr.layout import Build, Field, Layout
from miniscope_xr.tools.simulate.events import BadHeight, Event, RecordAgain, Truncate
from miniscope_xr.tools.simulate.firmware import Ended, Firmware, Written
from miniscope_xr.tools.simulate.scene import Camera, noise_camera
from miniscope_xr.tools.simulate.spec import Spec, make_spec
from miniscope_xr.tools.simulate.v3 import WholeFrames

# Writes whose bytes are not a buffer of the recording, whatever their header says.
_NOT_THERE = ("write_failed", "padding", "beyond_image_end")


@dataclass(frozen=True)
class Buffer:
    """One write of the firmware (v3: one frame, with its footer as ``words``).

    ``status`` is good, good_but_short, mixed_content, wrong_content, torn, truncated, beyond_image_end,
    write_failed or padding. ``words`` are the header words as the firmware sent them to the card; ``n_sectors`` the
    sectors that got there; ``length`` the data length in bytes that the header gives.
    """

    recording: int
    sector: int
    n_sectors: int
    words: tuple[int, ...]
    status: str
    frame_num: int
    index: int
    length: int


@dataclass(frozen=True)
class Frame:
    """A frame with a buffer on the card; ``pieces`` are (first byte in the frame, bytes, offset on the card)."""

    recording: int
    frame_num: int
    present: int
    pieces: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, eq=False)
class SimulatedCard:
    """A card image and everything that is known about it."""

    data: bytes
    spec: Spec
    buffers: tuple[Buffer, ...]
    n_recordings: int

    @property
    def layout(self) -> Layout:
        """Layout of the card."""
        return self.spec.layout

    @property
    def build(self) -> Build:
        """Firmware build that wrote it."""
        return self.spec.build

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the image to ``path``."""
        path = Path(path)
        path.write_bytes(self.data)
        return path

    def end_sector(self, recording: int = 0) -> int:
        """Return the first sector behind the data of ``recording``."""
        ends = [b.sector + b.n_sectors for b in self.buffers if b.recording == recording and b.status != "padding"]
        return max(ends, default=self.layout.sectors.data)

    @cached_property
    def frames(self) -> tuple[Frame, ...]:
        """Frames with a buffer on the card, by recording and frame number."""
        spec, size = self.spec, len(self.data)
        found: dict[tuple[int, int], tuple[int, list[tuple[int, int, int]]]] = {}
        for b in self.buffers:
            if b.status in _NOT_THERE:
                continue
            offset = b.sector * spec.sector + spec.payload_at
            start = b.index * spec.payload
            length = min(b.length, b.n_sectors * spec.sector - spec.payload_at, spec.frame_bytes - start, size - offset)
            present, pieces = found.get((b.recording, b.frame_num), (0, []))
            pieces.append((start, max(length, 0), offset))
            found[b.recording, b.frame_num] = (present | (1 << b.index if b.index < 32 else 0), pieces)
        return tuple(Frame(*key, found[key][0], tuple(found[key][1])) for key in sorted(found))

    def expected(self, recording: int = 0) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.uint32]]:
        """Return what a perfect reader returns.

        Returns
        -------
        frame_num : int64 (n,)
            Numbers of the frames with a buffer on the card, rising.
        video : uint8 (n, height, width)
            The bytes as they are on the card, a later copy over an earlier one; 0 where nothing reached the card.
        present : uint32 (n,)
            Bit b: buffer b of the frame is on the card.
        """
        frames = [f for f in self.frames if f.recording == recording]
        card = np.frombuffer(self.data, np.uint8)
        video = np.zeros((len(frames), self.spec.frame_bytes), np.uint8)
        for row, frame in zip(video, frames, strict=True):
            for start, length, offset in frame.pieces:
                row[start : start + length] = card[offset : offset + length]
        return (
            np.array([f.frame_num for f in frames], np.int64),
            video.reshape(len(frames), self.build.height, self.build.width),
            np.array([f.present for f in frames], np.uint32),
        )


def _camera(camera: Camera | ArrayLike | None, spec: Spec) -> Camera:
    if camera is None:
        return noise_camera(spec.build.width, spec.build.height, spec.seed)
    if callable(camera):
        return camera
    frames = np.asarray(camera)
    if frames.dtype != np.uint8 or frames.ndim != 3 or not len(frames):
        raise OptionError(f"camera: expected uint8 frames (n, height, width), found {frames.dtype} {frames.shape}")
    return lambda c: frames[c % len(frames)]


def _sector(fields: Mapping[str, Field], values: Mapping[str, int], size: int) -> bytearray:
    block = bytearray(size)
    for name, field in fields.items():
        value = values.get(name, 0) % (1 << 8 * field.size)
        block[field.offset : field.offset + field.size] = value.to_bytes(field.size, "little")
    return block


def _header(spec: Spec) -> bytearray:
    block = _sector(spec.layout.header, spec.settings, spec.sector)
    if spec.write_keys:
        block[:16] = b"".join(key.to_bytes(4, "little") for key in spec.layout.write_keys)
    return block


def _config(spec: Spec, ended: Ended | None, height: BadHeight) -> bytearray | None:
    """Make the config sector; ``ended`` is the last recording that was finished (main.c, stopRecording)."""
    if spec.layout.sectors.config is None or spec.over_pixels:
        return None
    fs = 20 if spec.is_daq else spec.settings.get("fs", 20)  # the DAQ stores its own FRAME_RATE, v4 copies the setting
    values = {"width": spec.build.width, "height": spec.build.height, "fs": fs, "buffer_size": spec.buffer_bytes}
    if ended is not None and not spec.is_daq:
        values.update(n_buffers_recorded=ended.written, n_buffers_dropped=ended.dropped)
    elif ended is not None and not height.refused:
        counts = (ended.written & 255) | (ended.dropped & 255) << 8
        values["height"] = counts if height.value is None else height.value
    return _sector(spec.layout.config, values, spec.sector)


def _assemble(
    spec: Spec, writes: Sequence[Written], config: bytearray | None, under: bytes, fill: int, tail: int, n: int
) -> SimulatedCard:
    """Put everything where it belongs, over what was on the card before."""
    size, sectors = spec.sector, spec.layout.sectors
    end = max([sectors.data, *(w.sector + w.n_sectors for w in writes)]) + tail
    image = np.full(max(end * size, len(under)), fill, np.uint8)
    image[: sectors.data * size] = 0
    image[: len(under)] = np.frombuffer(under, np.uint8)
    parts: list[tuple[int, Any]] = [(sectors.header, _header(spec))]
    if config is not None and sectors.config is not None:
        parts.append((sectors.config, config))
    parts += [(w.sector, w.data) for w in writes if w.data is not None]
    for sector, data in parts:
        image[sector * size : sector * size + len(data)] = np.frombuffer(data, np.uint8)
    return SimulatedCard(image.tobytes(), spec, tuple(_describe(w, spec) for w in writes), n)


def _describe(w: Written, spec: Spec) -> Buffer:
    part = spec.layout.footer or spec.layout.buffer
    frame = w.words[part["frame_num"].word]
    index, length = 0, spec.frame_bytes
    if not spec.whole_frames:
        index, length = (w.words[part[name].word] for name in ("frame_buffer_count", "data_length"))
    return Buffer(w.recording, w.sector, w.n_sectors, w.words, w.status, frame, index, length)


def _truncated(card: SimulatedCard, byte: int) -> SimulatedCard:
    size, cut = card.spec.sector, []
    for b in card.buffers:
        start, end = b.sector * size, b.sector * size + min(card.spec.payload_at + b.length, b.n_sectors * size)
        seen = start + (0 if card.spec.whole_frames else card.spec.header_bytes)
        status = "beyond_image_end" if byte <= seen else "truncated" if byte < end else b.status
        cut.append(Buffer(**{**b.__dict__, "status": status if b.status != "write_failed" else b.status}))
    return SimulatedCard(card.data[:byte], card.spec, tuple(cut), card.n_recordings)


def simulate(
    layout: str | os.PathLike[str] | Mapping[str, Any] | Layout = "v4-wirefree",
    build: str | Build | None = None,
    frames: int | None = None,
    *,
    seconds: float | None = None,
    camera: Camera | ArrayLike | None = None,
    settings: Mapping[str, int] | None = None,
    write_keys: bool = True,
    events: Sequence[Event] = (),
    seed: int = 0,
    width: int | None = None,
    height: int | None = None,
    start_offset_ms: float | None = None,
    period_ms: float | None = None,
    readout_ms: float | None = None,
    lead_ms: float | None = None,
    sector_ms: float | None = None,
    busy_ms: float | None = None,
    clock_ppm: float = 0.0,
    jitter_ms: float = 0.0,
    battery: int = 190,
    battery_slope: float = 0.5,
    battery_first_ms: float = 100.0,
    height_rewrite: bool = True,
    under: SimulatedCard | bytes | None = None,
    fill: int = 0,
    tail_sectors: int = 64,
) -> SimulatedCard:
    """Make the card a recording leaves behind; a pure function of its arguments.

    Parameters
    ----------
    layout, build
        Which device: an id, path, mapping or Layout, and the name of one of its firmware builds (default: the first)
        or a Build.
    frames
        Camera frames until the clean stop (default 60).
    seconds
        Instead of ``frames``: stop as the firmware does, after the first write that ends past this time since the
        start (DAQ: since power-on). The record length in the header sector follows.
    camera
        Camera frame number -> uint8 (height, width); or uint8 (n, height, width), repeated; default noise.
    settings, write_keys
        Header sector: values by the layout's names, and whether the write keys are stored.
    events
        What goes wrong; see :mod:`miniscope_xr.tools.simulate.events`.
    width, height
        Another frame size than the build's (small cards); the buffers of a frame follow.
    start_offset_ms, period_ms, readout_ms
        Camera clock: start of the first frame, frame period, time to read a frame out.
    lead_ms, sector_ms, busy_ms
        Pace of the card: ms before the first sector of a write, for each sector, and after the last.
    clock_ppm, jitter_ms
        Error of the device's clock against the camera; uniform jitter of the frame starts.
    battery, battery_slope, battery_first_ms
        ADC word at the first check, its fall per second, and when the first check is (0 in the header until then).
    height_rewrite
        DAQ: False when the card refuses the write that spoils the height word.
    under, fill
        What the card held before: a card, bytes, or one byte value.
    tail_sectors
        Sectors of the image behind the data.

    Returns
    -------
    SimulatedCard
    """
    if (frames is not None) and (seconds is not None):
        raise OptionError("give either frames or seconds, not both")
    if frames is None and seconds is None:
        frames = 60
    options = {
        "start_offset_ms": start_offset_ms, "period_ms": period_ms, "readout_ms": readout_ms, "lead_ms": lead_ms,
        "sector_ms": sector_ms, "busy_ms": busy_ms, "clock_ppm": clock_ppm, "jitter_ms": jitter_ms, "seed": seed,
        "battery": battery, "battery_slope": battery_slope, "battery_first_ms": battery_first_ms,
        "write_keys": write_keys,
    }  # fmt: skip
    spec = make_spec(
        layout, build, width=width, height=height, settings=settings, frames=frames, seconds=seconds, options=options
    )
    again = [e for e in events if isinstance(e, RecordAgain)]
    if spec.whole_frames and again:
        raise OptionError("v3 records once after power-on: RecordAgain does not apply")
    device = (WholeFrames if spec.whole_frames else Firmware)(spec, _camera(camera, spec), events)
    ended = device.record(0.0, frames, seconds)
    last = ended if ended.finished else None
    before_press = None
    for press in again:
        if not ended.finished:
            raise OptionError("RecordAgain: the power was lost before")
        if not press.finalise_first:
            last = before_press
        before_press = last
        ended = device.record(ended.t + press.pause_ms, None if press.seconds else press.frames, press.seconds)
        last = ended if ended.finished else last
    bad = next((e for e in events if isinstance(e, BadHeight)), BadHeight(refused=not height_rewrite))
    before = under.data if isinstance(under, SimulatedCard) else under or b""
    card = _assemble(spec, device.writes, _config(spec, last, bad), before, fill, tail_sectors, 1 + len(again))
    for event in events:
        if isinstance(event, Truncate):
            card = _truncated(card, event.byte)
    return card


def blank(
    layout: str | os.PathLike[str] | Mapping[str, Any] | Layout = "v4-wirefree",
    build: str | Build | None = None,
    *,
    keys: bool = True,
    booted: bool = False,
    settings: Mapping[str, int] | None = None,
    fill: int = 0,
    tail_sectors: int = 64,
) -> SimulatedCard:
    """Make a card on which nothing was recorded.

    Parameters
    ----------
    layout, build, settings, fill, tail_sectors
        As in :func:`simulate`.
    keys
        Store the write keys (the v4 notebook does not).
    booted
        A device was switched on with the card in it: the config sector is written, with counts of 0.
    """
    options = dict.fromkeys(("clock_ppm", "jitter_ms", "battery_slope", "battery_first_ms", "battery", "seed"), 0)
    spec = make_spec(
        layout, build, width=None, height=None, settings=settings, frames=0, seconds=None,
        options={**options, "write_keys": keys},
    )  # fmt: skip
    config = _config(spec, None, BadHeight()) if booted else None
    return _assemble(spec, [], config, b"", fill, tail_sectors, 0)
