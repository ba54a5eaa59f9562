"""Card images as the firmware would write them."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Unpack

import numpy as np
from numpy.typing import ArrayLike

from miniscope_xr.errors import OptionError
from miniscope_xr.layout import Build, Layout
from miniscope_xr.tools.simulate.events import BadHeight, Event, RecordAgain, Truncate
from miniscope_xr.tools.simulate.firmware import Ended, Firmware
from miniscope_xr.tools.simulate.image import SimulatedCard, assemble, config_sector, truncated
from miniscope_xr.tools.simulate.pool import Pool
from miniscope_xr.tools.simulate.scene import Scenery, noise_camera
from miniscope_xr.tools.simulate.spec import DeviceOptions, Spec, make_spec
from miniscope_xr.tools.simulate.v3 import WholeFrames


def _camera(camera: Scenery | ArrayLike | None, spec: Spec) -> Scenery:
    if camera is None:
        return noise_camera(spec.build.width, spec.build.height, spec.seed)
    if callable(camera):
        return camera
    frames = np.asarray(camera)
    if frames.dtype != np.uint8 or frames.ndim != 3 or not len(frames):
        raise OptionError(f"camera: expected uint8 frames (n, height, width), found {frames.dtype} {frames.shape}")
    return lambda c: frames[c % len(frames)]


def _noted(ended: Ended, spec: Spec) -> Ended | None:
    """The end of a recording where the firmware puts it into the config sector (the DAQ: into its height word)."""
    stop = "timed stop" if ended.timed else "stop"
    return ended if ended.finished and (spec.is_daq or stop in spec.build.config_written) else None


def _frame_count(frames: int | None, seconds: float | None, again: Sequence[RecordAgain]) -> int | None:
    """Camera frames of the first recording; None where it ends by time."""
    if frames is not None and seconds is not None:
        raise OptionError("give either frames or seconds, not both")
    if frames is None and seconds is None:
        frames = 60
    if min(frames or 0, *(press.frames for press in again), 0) < 0:
        raise OptionError("the number of frames cannot be negative")
    return frames


def _record(
    device: Firmware, spec: Spec, again: Sequence[RecordAgain], frames: int | None, seconds: float | None
) -> tuple[Ended, Ended | None]:
    """Record, and again at each press; how the last recording ended, and which end is in the config sector."""
    ended = device.record(0.0, frames, seconds)
    last, before_press = _noted(ended, spec), None
    for press in again:
        if not ended.finished:
            raise OptionError("RecordAgain: the power was lost before")
        if not press.finalise_first:
            last = before_press
        before_press = last
        ended = device.record(ended.t + press.pause_ms, None if press.seconds else press.frames, press.seconds)
        last = _noted(ended, spec) or last
    return ended, last


def simulate(
    layout: str | os.PathLike[str] | Mapping[str, Any] | Layout = "v4-wirefree",
    build: str | Build | None = None,
    frames: int | None = None,
    *,
    seconds: float | None = None,
    camera: Scenery | ArrayLike | None = None,
    settings: Mapping[str, int] | None = None,
    events: Sequence[Event] = (),
    width: int | None = None,
    height: int | None = None,
    height_rewrite: bool = True,
    under: SimulatedCard | bytes | None = None,
    fill: int = 0,
    tail_sectors: int = 64,
    **device: Unpack[DeviceOptions],
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
    settings
        Header sector: values by the layout's names.
    events
        What goes wrong; see :mod:`miniscope_xr.tools.simulate.events`.
    width, height
        Another frame size than the build's (small cards); the buffers of a frame follow.
    height_rewrite
        DAQ: False when the card refuses the write that spoils the height word.
    under, fill
        What the card held before: a card, bytes, or one byte value.
    tail_sectors
        Sectors of the image behind the data.
    device
        ``period_ms=``, ``jitter_ms=``, ``seed=`` and more: those of
        :class:`~miniscope_xr.tools.simulate.spec.DeviceOptions`.

    Returns
    -------
    SimulatedCard
    """
    again = [e for e in events if isinstance(e, RecordAgain)]
    frames = _frame_count(frames, seconds, again)
    spec = make_spec(
        layout, build, width=width, height=height, settings=settings, frames=frames, seconds=seconds, **device
    )
    if spec.whole_frames and again:
        raise OptionError("v3 records once after power-on: RecordAgain does not apply")
    kind = WholeFrames if spec.whole_frames else Pool if spec.build.pool else Firmware
    firmware = kind(spec, _camera(camera, spec), events)
    ended, last = _record(firmware, spec, again, frames, seconds)
    length = math.ceil(ended.t / 1000)
    if spec.whole_frames and seconds is None and length > spec.settings.get("record_length", length):
        spec = replace(spec, settings={**spec.settings, "record_length": length})  # v3 never goes on behind its length
    bad = next((e for e in events if isinstance(e, BadHeight)), BadHeight(refused=not height_rewrite))
    before = under.data if isinstance(under, SimulatedCard) else under or b""
    card = assemble(spec, firmware.writes, config_sector(spec, last, bad), before, fill, tail_sectors, 1 + len(again))
    for event in (e for e in events if isinstance(e, Truncate)):
        card = truncated(card, event.byte)
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
    spec = make_spec(layout, build, settings=settings, frames=0, write_keys=keys)
    config = config_sector(spec, None, BadHeight()) if booted else None
    return assemble(spec, [], config, b"", fill, tail_sectors, 0)
