"""Sizes and times of the simulated device: a firmware build, a camera clock and the pace of the card."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypedDict, Unpack

import numpy as np

from miniscope_xr.errors import OptionError, did_you_mean
from miniscope_xr.layout import SECTOR, Build, Layout, builtin_layouts, load_layout


class DeviceOptions(TypedDict, total=False):
    """What is odd about the simulated device; None is what its family does.

    Attributes
    ----------
    start_offset_ms, period_ms, readout_ms
        Camera clock: start of the first frame, frame period, time to read a frame out.
    lead_ms, sector_ms, busy_ms
        Pace of the card: ms before the first sector of a write, for each sector, and after the last.
    clock_ppm, jitter_ms
        Error of the device's clock against the camera; uniform jitter of the frame starts.
    battery, battery_slope, battery_first_ms
        ADC word at the first check (190; 2110 where it has 12 bits), its fall per second, and when the first check is
        (0 in the header until then; firmware of 2026 measures at every write).
    write_ahead_ms
        Firmware of 2026: how far the clock of ``write_timestamp`` is ahead of that of ``timestamp``.
    driver_waits
        Firmware of 2026: True where its card driver is patient, so that a stall overflows the pool; by itself it gives
        up after ``driver_timeout`` and leaves holes.
    write_keys
        Whether the header sector has the write keys.
    seed
        Of the jitter, and of the noise that is filmed where no camera is given.
    """

    start_offset_ms: float | None
    period_ms: float | None
    readout_ms: float | None
    lead_ms: float | None
    sector_ms: float | None
    busy_ms: float | None
    clock_ppm: float
    jitter_ms: float
    battery: int | None
    battery_slope: float | None
    battery_first_ms: float
    write_ahead_ms: float
    driver_waits: bool
    write_keys: bool
    seed: int


@dataclass(frozen=True)
class Spec:
    """Everything about the device that does not change while it runs. Times in ms, sizes in bytes.

    ``lead_ms + sector_ms * sectors + busy_ms`` is one write to the card; the defaults were fitted to the write times
    in the headers of cards that the compiled firmware wrote.
    """

    layout: Layout
    build: Build
    settings: Mapping[str, int]
    start_offset_ms: float
    period_ms: float
    readout_ms: float
    lead_ms: float
    sector_ms: float
    busy_ms: float
    battery: int
    battery_slope: float
    battery_first_ms: float = 100.0
    jitter_ms: float = 0.0
    clock_ppm: float = 0.0
    write_ahead_ms: float = 2.0
    driver_waits: bool = False
    write_keys: bool = True
    seed: int = 0

    @cached_property
    def own(self) -> Layout:
        """The layout with the build's own words."""
        return self.layout.of(self.build)

    @cached_property
    def is_daq(self) -> bool:
        """The wire-free DAQ board, known by what it does to the height word."""
        return self.layout.height_overwritten

    @cached_property
    def drops_torn(self) -> bool:
        """Whether a perfect reader leaves torn buffers out: where headers show which ones can be."""
        return self.build.pool

    @cached_property
    def whole_frames(self) -> bool:
        """V3: frames with a footer instead of buffers with headers."""
        return bool(self.layout.footer)

    @cached_property
    def frame_bytes(self) -> int:
        """Bytes of a frame (one a pixel)."""
        return self.build.width * self.build.height

    @cached_property
    def header_bytes(self) -> int:
        """Bytes of a buffer header."""
        return 4 * self.build.header_words

    @cached_property
    def over_pixels(self) -> bool:
        """The 9-word v4 build (08d3fd2): DMA fills a buffer from its first word and the header lands on pixels."""
        return bool(self.build.unsupported)

    @cached_property
    def payload_at(self) -> int:
        """Offset of the pixels in a buffer."""
        return 0 if self.over_pixels else self.header_bytes

    @cached_property
    def buffer_bytes(self) -> int:
        """Bytes of one slot of the ring."""
        return self.build.buffer_sectors * SECTOR

    @cached_property
    def payload(self) -> int:
        """Pixels in a full buffer."""
        return self.buffer_bytes - self.payload_at

    def frame_start(self, c: int) -> float:
        """Time since power-on at which camera frame ``c`` starts to be read out."""
        at = self.start_offset_ms + c * self.period_ms
        if self.jitter_ms:
            at += self.jitter_ms * float(np.random.default_rng((self.seed, c + 1_000_000)).uniform(-1, 1))
        return at

    def battery_at(self, t: float, ir_presses: int = 0) -> int:
        """ADC word at ``t``: 0 until the first check, then one check every 500 ms (main.c, checkBattVoltage_cb).

        Every press of the remote after power-on holds the timers up for 13 ms (irReceive_cb).
        """
        checks = int((t - self.battery_first_ms - 13 * ir_presses) // 500)
        return 0 if checks < 0 else max(0, self.battery - int(self.battery_slope * 0.5 * checks))

    def battery_now(self, t: float) -> int:
        """ADC word of firmware that measures at every write (2026): no 0, but noise of one unit where it falls."""
        noise = int(t * 7919) % 2 if self.battery_slope else 0
        return max(0, self.battery - int(self.battery_slope * t / 1000) - noise)


def find_build(layout: Layout, build: str | Build | None) -> Build:
    """Find the build called ``build``, or the first of the layout."""
    if isinstance(build, Build):
        return build
    builds = layout.builds or tuple(
        b
        for known in builtin_layouts().values()
        for b in known.builds
        if known.sectors == layout.sectors and (b.header_words == layout.max_words or layout.footer)
    )
    if not builds:
        raise OptionError(f"layout {layout.id!r} names no firmware builds: give build=Build(...)")
    if build is None:
        return builds[0]
    for candidate in builds:
        if candidate.firmware == build:
            return candidate
    names = [b.firmware for b in builds]
    raise OptionError(f"build {build!r} is not in layout {layout.id!r}{did_you_mean(build, names)}: {', '.join(names)}")


def _resized(build: Build, layout: Layout, width: int | None, height: int | None) -> Build:
    """Another frame size; the drop step follows as in main.c (v4 counts the unbinned sensor, the DAQ rounds down)."""
    if width is None and height is None:
        return build
    build = replace(build, width=width or build.width, height=height or build.height)
    pixels = build.width * build.height
    if layout.footer:
        return replace(build, frame_sectors=pixels // SECTOR)
    step = pixels // build.payload if layout.height_overwritten else -(-4 * pixels // build.payload)
    return replace(build, drop_step=max(1, step) if build.drop_step else build.drop_step, buffers_a_frame=0)


def _settings(layout: Layout, given: Mapping[str, int] | None, length: int) -> dict[str, int]:
    values = {name: field.default or 0 for name, field in layout.header.items()}
    if "record_length" in values:
        values["record_length"] = length
    for name, value in (given or {}).items():
        if name not in values:
            known = ", ".join(values)
            raise OptionError(f"settings: no setting is called {name!r}{did_you_mean(name, values)}; known: {known}")
        values[name] = int(value)
    return values


def _frames_a_second(layout: Layout, settings: Mapping[str, int] | None) -> float:
    """Rate of the camera: what the firmware makes of the setting."""
    item = layout.header.get("fs")
    if item is None or not item.choices:
        return 20.0
    raw = (settings or {}).get("fs", item.default or 0)
    meant = item.means(raw)
    try:
        return float(meant)
    except ValueError:
        return 20.0  # unchanged, that is as after power-on


def _pace(layout: Layout, build: Build, fs: float) -> dict[str, float]:
    """Times of the device family in ms: its first frame, a read-out, what a write takes."""
    daq_offset = 1547.6 if build.header_words > 9 else 25.85  # 9 words: the clock starts with the recording
    v4 = {"start_offset_ms": 42.0, "readout_ms": 30.0, "lead_ms": 0.25, "sector_ms": 0.04, "busy_ms": 0.25}
    daq = {"start_offset_ms": daq_offset, "readout_ms": 25.2, "lead_ms": 0.1, "sector_ms": 0.034, "busy_ms": 0.1}
    v3 = {"start_offset_ms": 62.0}
    # the capture begins with a frame; 40 sectors take 2.4 ms; a frame is read out faster where more fit into a second
    new = {"start_offset_ms": 15.0, "readout_ms": min(28.0, 750.0 / fs), "sector_ms": 0.047}
    family = v3 if layout.footer else daq if layout.height_overwritten else new if build.pool else {}
    return {"period_ms": 1000.0 / fs, **v4, **family}


def _battery(layout: Layout, build: Build) -> dict[str, float]:
    """What its battery word begins with, and by how much it falls: of eight bits, or of twelve."""
    item = layout.of(build).buffer.get("battery_voltage")
    twelve_bits = item is not None and item.limits[1] > 255
    return {"battery": 2110, "battery_slope": 5.0} if twelve_bits else {"battery": 190, "battery_slope": 0.5}


def make_spec(
    layout: str | os.PathLike[str] | Mapping[str, Any] | Layout,
    build: str | Build | None,
    *,
    width: int | None = None,
    height: int | None = None,
    settings: Mapping[str, int] | None = None,
    frames: int | None = None,
    seconds: float | None = None,
    **options: Unpack[DeviceOptions],
) -> Spec:
    """Gather a :class:`Spec`."""
    layout = load_layout(layout)
    chosen = _resized(find_build(layout, build), layout, width, height)
    pixels = chosen.width * chosen.height
    if pixels % 4 or not pixels:
        raise OptionError(f"a frame of {chosen.width}x{chosen.height} pixels: the camera moves whole words of 4 pixels")
    if layout.footer and pixels % SECTOR:
        raise OptionError(f"a frame of {chosen.width}x{chosen.height} pixels does not fill whole sectors")
    fs = chosen.fs or _frames_a_second(layout.of(chosen), settings)
    defaults = {**_pace(layout, chosen, fs), **_battery(layout, chosen)}
    merged: dict[str, Any] = {**defaults, **{name: value for name, value in options.items() if value is not None}}
    if layout.footer and seconds is None:  # v3 stops by time only, and 0 ends at once
        seconds = (merged["start_offset_ms"] + merged["readout_ms"] + merged["period_ms"] * (frames or 0)) / 1000
    values = _settings(layout, settings, math.ceil(seconds or 0))
    spec = Spec(layout=layout, build=chosen, settings=values, **merged)
    _refuse(spec)
    return spec


def _refuse(spec: Spec) -> None:
    """Refuse a device that cannot be."""
    build = spec.build
    if spec.readout_ms <= 0 or spec.readout_ms + 2 * spec.jitter_ms > spec.period_ms:
        raise OptionError(
            f"frames of {spec.readout_ms} ms every {spec.period_ms} ms with {spec.jitter_ms} ms jitter would overlap"
        )
    drops = build.drop_step is not None or build.pool
    if not spec.layout.footer and (spec.payload <= 0 or build.ring < 1 or not drops):
        raise OptionError(f"build {build.firmware!r} needs ring and drop_step, and buffers larger than their headers")
