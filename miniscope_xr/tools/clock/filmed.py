"""What a behaviour video shows of the card's clock: the status LED while it recorded, or a light that flashes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from miniscope_xr.layout.arrays import Array
from miniscope_xr.tools.clock.card_clock import CardClock
from miniscope_xr.tools.clock.fit import ClockError
from miniscope_xr.tools.clock.lights import Light, find_lights, one_light
from miniscope_xr.tools.clock.lit import Lit
from miniscope_xr.tools.clock.match import match_pulses
from miniscope_xr.tools.clock.seen import BothSaw, pulse_times
from miniscope_xr.tools.clock.steps import Region, steps_of
from miniscope_xr.tools.clock.tables import Column
from miniscope_xr.tools.stream.camera import FrameTimes, camera_times, nominal_rate

_MOST_LIGHTS = 8  # whose flashes are compared with the card's
_BLINK = 1.0
"""s: while the firmware waits it turns its LED on or off every second; after an odd number of them it is on already."""
_BLINKS_LATER = 5.0
"""s: after a recording that ended by itself Miniscope-zero blinks for four."""
_MOST_LACKING = 1.0  # s of the video: a program that is closed writes some times more than frames
_DOUBT = 0.15  # s from the middle between two lengths within which a light could be of either


def from_video(
    recording: CardClock, path: Path, card: Any, region: Region | None, camera: str | os.PathLike[str] | None,
    progress: bool,
) -> BothSaw:  # fmt: skip
    """Find the light in a behaviour video, and when it was seen.

    Parameters
    ----------
    recording
        By the card's clock.
    path
        The video, or a camera's folder.
    card
        Times of flashes by the card's clock; None: the light is the status LED.
    region
        Where the light is, in px.
    camera
        Table of the times of the video's frames, where it is not beside the video.
    progress
        Show a progress bar (on a terminal).

    Raises
    ------
    ClockError
        There is no such light, or several could be it.
    """
    steps = steps_of(path, region, bool(progress))
    times = camera_times(Path(camera) if camera else path, steps.count, nominal_rate(path), steps.shown)
    half = float(np.median(np.diff(times.seconds))) / 2
    lacking = _lacking(times, steps.count, path)
    if card is None:
        early = _BLINK * (recording.delay % 2)
        lit = Lit(recording.length, early, float(recording.delay), _BLINKS_LATER)
        light = one_light(find_lights(steps, times.seconds, lit))
        seen = np.array([_between(times, light.on[0]), _between(times, light.off[0])])
        early = _went_on_early(float(seen[1] - seen[0]), recording, early)
        what = (
            f"status LED, on {early:g} s before the recording (delay_start={recording.delay}),"
            if early
            else "status LED"
        )
        ends = recording.ends - np.array([early, 0.0])
        return BothSaw(
            ends, Column(seen, times.dated), 2 * half + recording.period + lacking, _said(light, times, what)
        )
    lights = find_lights(steps, times.seconds, None)
    mine = pulse_times(card, "card").seconds
    light, flashes, rows, theirs = _flashes(lights, times, mine, 2 * half)
    said = _said(light, times, f"{len(rows)} of {len(flashes)} flashes")
    return BothSaw(np.sort(mine)[rows], Column(flashes[theirs], times.dated), half + lacking, said)


def _lacking(times: FrameTimes, count: int, path: Path) -> float:
    """How far the times may be off because some of them have no frame, in s: which ones is not known."""
    lost = max(len(times.seconds) - count, 0)
    seconds = lost * float(np.median(np.diff(times.seconds)))
    if seconds > _MOST_LACKING:
        raise ClockError(
            f"{path}: {count} frames, and {times.source} has {len(times.seconds)} times: {seconds:.1f} s of the video "
            "are missing, and it is not known where; give a table of the times of these frames (camera), or pairs"
        )
    return seconds


def _went_on_early(lit: float, recording: CardClock, early: float) -> float:
    """How long before the recording a light went on that was on for ``lit`` s: 0, or ``early`` where that may be."""
    more = lit - recording.length
    if early and abs(more - early / 2) < _DOUBT:
        raise ClockError(
            f"the light was on for {lit:.2f} s, the recording took {recording.length:.2f} s: whether it went on with "
            f"it or {early:g} s before, as delay_start={recording.delay} lets it, cannot be told by clocks that "
            "may drift; give pairs or pulses"
        )
    return early if more > early / 2 else 0.0


def _flashes(lights: list[Light], times: FrameTimes, mine: Array, jitter: float) -> tuple[Light, Array, Array, Array]:
    """The light whose flashes are the card's, their times, and which are which (:func:`match_pulses`)."""
    fit: list[tuple[Light, Array, Array, Array]] = []
    wrong: list[ClockError] = []
    for light in lights[:_MOST_LIGHTS]:
        flashes = np.sort([_between(times, frame) for frame in light.on])
        try:
            fit.append((light, flashes, *match_pulses(mine, flashes, jitter)))
        except ClockError as error:
            wrong.append(error)
    if not fit:
        raise wrong[0]  # what the clearest light lacks
    one_light([light for light, *_ in fit])
    return fit[0]


def _between(times: FrameTimes, frame: int) -> float:
    """When a light went on that is first seen in this frame: between it and the one before."""
    return float(times.seconds[max(frame - 1, 0)] + times.seconds[frame]) / 2


def _said(light: Light, times: FrameTimes, what: str) -> str:
    at = "" if light.where is None else " at x {}, y {}, {} x {} px".format(*light.where)
    return f"{what} in the video{at}, its frames' times by {times.source}"
