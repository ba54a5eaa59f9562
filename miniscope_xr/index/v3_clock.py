"""What a v3 card's frame clock is: the period of its camera, and by how much two phases differ."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from miniscope_xr.layout.arrays import Floats, Ints

_LEAST = 0.33  # ms that times stray at least
_WHOLE = 0.7  # ms, as times are whole ms: a clock that drifts steps by one
_FEW = 3  # frames on one side that show when another was due
TOLERANCE = 3.0  # ms
FINE = 1.5  # ms by which times of a clock that does not stray may be off, whole ms as they are

At = Callable[[int], tuple[int, int] | None]
"""(time in ms, line count) of a frame; None where its footer is not there."""


def camera_period(step: float, fs: float | None) -> float:
    """Time from one camera frame to the next, where each frame on the card comes ``step`` after the one before.

    A build with a single buffer writes every second frame of its camera, so that a stall may last any whole number of
    *camera* frames: 350 ms where frames follow each other in 100 ms, and the camera runs at 20 frames/s.
    """
    return step / max(round(step * fs / 1000), 1) if fs else step


def apart(phase: Any, level: Any, camera: float) -> Any:
    """Ms between phases, whole periods aside."""
    return np.abs((phase - level + camera / 2) % camera - camera / 2)


@dataclass(frozen=True)
class Clock:
    """What is known of a card's clock.

    Attributes
    ----------
    period
        Ms from one frame to the next.
    camera
        Ms from one frame of the camera to the next.
    noise
        Ms by which times stray.
    limit
        Ms after which no frame is the newest recording's.
    frames
        How many frames there may be.
    single
        The firmware has a single buffer: it skips frames, and none is late.
    begun
        The first frame seen is not the recording's first.
    """

    period: float
    camera: float
    noise: float
    limit: float
    frames: int
    single: bool
    begun: bool

    def off(self, ms: float, shown: int) -> float:
        """Cost of being off by some ms a phase that so many frames showed."""
        wide = self.noise * math.sqrt(1 + 1 / shown)
        beyond = max(abs(ms) - _WHOLE, 0.0) / wide
        near = 0.97 * math.exp(-0.5 * beyond * beyond) / (wide * 2.5066 + 2 * _WHOLE)
        return -math.log(near + (0.0 if abs(ms) > 3 else 1e-3 if ms > 0 else 1e-4) + 1e-9)


def clock_of(frames: Ints, times: Floats, seconds: int, fs: float | None, single: bool) -> Clock | None:
    """What all footers of a card say of its clock: it is the same device's in each recording."""
    if len(frames) < 3:
        return None
    usual = period_of(frames, times)
    if usual <= 0:
        return None
    strays = {p: _strays(times - p * frames) for p in (usual, _along(frames, times, usual))}
    period = min(strays, key=lambda p: strays[p])
    nominal = max(round(usual * fs / 1000), 1) * 1000 / fs if fs else period
    if _strays(times - nominal * frames) <= 2 * strays[period] + TOLERANCE:
        period = nominal  # of few frames
    noise = max(_LEAST, _noise(times - period * frames))
    limit = 1000.0 * seconds if seconds else math.inf
    most = max(len(frames), int(seconds * 1000 / period), 20)
    return Clock(period, camera_period(period, fs), noise, limit, most, single, bool(frames[0] > 0))


def _noise(phase: Floats) -> float:
    """By how much times stray: in one recording less than in another, and an older one tells nothing of the newest."""
    steps = np.abs(np.diff(phase))
    parts = np.split(steps, np.flatnonzero(steps > TOLERANCE))
    return max((0.9 * float(part[1:].mean()) for part in parts if len(part) > _FEW), default=0.0)


def _along(frames: Ints, times: Floats, period: float) -> float:
    """The period along stretches in which the clock does not step."""
    phase = times - period * frames
    parts = np.split(np.arange(len(phase)), np.flatnonzero(np.abs(np.diff(phase)) > TOLERANCE) + 1)
    over = np.concatenate([frames[p] - frames[p].mean() for p in parts])
    off = np.concatenate([phase[p] - phase[p].mean() for p in parts])
    wide = float(over @ over)
    return period + float(over @ off) / wide if wide else period


def _strays(phase: Floats) -> float:
    """By how much a phase strays with this period, steps aside."""
    lags = [lag for lag in (1, 4, 8, 64) if lag < len(phase)]
    return sum(float(np.minimum(np.abs(phase[lag:] - phase[:-lag]), TOLERANCE).sum()) for lag in lags)


def period_of(frames: Ints, times: Floats) -> float:
    """Ms a frame that recordings of one camera show: times are whole ms, so over some frames, none of them late."""
    usual = float(np.median(np.diff(times) / np.diff(frames)))
    slopes = [np.zeros(0)]
    for lag in range(_FEW + 1, 2 * _FEW + 2):
        over, took = frames[lag:] - frames[:-lag], times[lag:] - times[:-lag]
        slopes.append((took / over)[np.abs(took - usual * over) <= TOLERANCE])
    known = np.concatenate(slopes)
    return float(np.median(known)) if len(known) else usual
