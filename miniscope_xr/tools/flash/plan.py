"""How much of a card a recording needs, and how long a recording fits on it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from miniscope_xr.layout import SECTOR, Build, Layout
from miniscope_xr.tools.flash.errors import RefusedError

_MARGIN = 1.05
# Firmware that ignores the frame rate setting runs at the camera's own; 30 is the fastest any of them does.
_FASTEST = 30


@dataclass(frozen=True)
class Plan:
    """A recording as planned: its rate and the bytes of card it will cover."""

    build: Build
    fps: int
    frame_bytes: int
    start: int
    size: int
    seconds: int

    @property
    def rate(self) -> int:
        """Bytes a second."""
        return self.fps * self.frame_bytes

    @property
    def fits_seconds(self) -> int:
        """Longest recording that fits on the card, in seconds."""
        return max(0, self.size - self.start) // self.rate

    @property
    def end(self) -> int:
        """First byte behind the planned recording, with 5 % to spare; the card's end if it runs until stopped."""
        if not self.seconds:
            return self.size
        return min(self.size, self.start + int(self.seconds * self.rate * _MARGIN))

    def describe(self) -> str:
        """Say it in one sentence for the question and ``--dry-run``."""
        length = "until stopped"
        if self.seconds:
            length = f"{self.seconds / 60:.4g} min" if self.seconds >= 120 else f"{self.seconds} s"
        return (
            f"{self.build.width}x{self.build.height} at {self.fps} frames/s = {self.rate / 1e6:.3f} MB/s; "
            f"planned {length}; {self.fits_seconds / 60:.1f} min fit on this card"
        )


def frame_bytes(layout: Layout, build: Build) -> int:
    """Return the bytes one frame takes on the card, headers and padding included."""
    return SECTOR * (build.frame_sectors or sum(build.sectors_for(length) for length in build.lengths()))


def buffers_a_frame(build: Build) -> int:
    """Return how many buffers of this build hold one frame (v3: one)."""
    return 1 if build.frame_sectors else len(build.lengths())


def frame_rate(layout: Layout, build: Build, values: Mapping[str, int]) -> int:
    """Return the frames a second the firmware makes of these settings; the fastest there is where it is not known."""
    field = layout.header.get("fs")
    if field is None or not field.used:
        return _FASTEST
    if build.fs:
        return math.ceil(build.fs)
    said = re.search(r"\d+(?:\.\d+)?", field.means(values["fs"]))
    return math.ceil(float(said[0])) or _FASTEST if said else _FASTEST


def holds(layout: Layout, config: Mapping[str, int], size: int) -> bool:
    """Tell whether as many buffers as this config sector counts can be on a card of ``size`` bytes."""
    counted = config.get("n_buffers_recorded", 0)
    if not counted:
        return True
    least = SECTOR  # a buffer whose build is unknown takes a sector at least
    if layout.builds:
        build = choose_build(layout, config)
        least = frame_bytes(layout, build) // buffers_a_frame(build)
    return counted * least <= size + frame_room(layout)


def frame_room(layout: Layout) -> int:
    """Return the bytes by which a count may be beyond the end: the firmware counts a buffer before it is written."""
    return max((frame_bytes(layout, build) for build in layout.builds), default=0)


def possible_builds(layout: Layout, config: Mapping[str, int]) -> list[Build]:
    """Return the builds that can have written this config sector; all where there is none."""
    if layout.build is not None:
        return [layout.build]
    fitting = [
        build
        for build in layout.builds
        if build.buffer_sectors * SECTOR == config.get("buffer_size")
        and config.get("width") == (build.config_frame or (build.width, build.height))[0]
    ]
    return fitting or list(layout.builds)


def choose_build(layout: Layout, config: Mapping[str, int]) -> Build:
    """Choose the build whose config is on the card, else the layout's first (its newest)."""
    return possible_builds(layout, config)[0]


def make_plan(
    layout: Layout, values: Mapping[str, int], config: Mapping[str, int], size: int, *, must_fit: bool = True
) -> Plan:
    """Make the plan for these settings on a card of ``size`` bytes.

    ``must_fit`` is False where nobody asked for this length and the size is not a card's: for settings that stay as
    they are in a trimmed image.

    Raises
    ------
    RefusedError
        The planned recording does not fit.
    """
    if not layout.builds:
        raise RefusedError(
            f"layout {layout.id} names no firmware builds, so the rate of its data is unknown; add builds:"
        )
    build = choose_build(layout, config)
    fps = frame_rate(layout.of(build), build, values)
    start = layout.sectors.data * SECTOR
    plan = Plan(build, fps, frame_bytes(layout, build), start, size, values.get("record_length", 0))
    if must_fit and plan.fits_seconds < plan.seconds:
        raise RefusedError(
            f"the planned {plan.seconds} s do not fit: {plan.fits_seconds} s ({plan.fits_seconds / 60:.1f} min) fit on "
            f"this card of {size} bytes at {fps} frames/s; lower record_length, or take a larger card"
        )
    return plan
