"""Frames of an older v3 recording among ours: they stand where writes failed, and are off the clock of those around.

A card that was busy makes frames late, too; but it catches up, and never makes one early.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

from miniscope_xr.layout.arrays import Bools, Floats, Ints

NEAR = 24  # frames behind the end whose clock tells that of an older recording
_AROUND = 6  # frames on each side of one whose clock it should keep
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


def old_among(at: At, own: range, behind: range, fs: float | None) -> frozenset[int]:
    """Frames of a recording in whose place an older one's stand, as writes failed there.

    They are off the clock of the frames around them. A busy card makes frames late too, but it catches up: not two in a
    row by as much, not by as much as the older recording's frames ``behind`` the end are, and not later than the frame
    that follows.

        frame      4    5    6    7    8      30   31      the older recording's frames come 12 ms after ours
        time     264  314  376  426  464    1576 1626      6 and 7 are its
    """
    mine = [(k, found[0]) for k in own if (found := at(k)) is not None]
    theirs = [(k, found[0]) for k in behind[:NEAR] if (found := at(k)) is not None]
    if len(mine) < 4:
        return frozenset()
    frames, times = np.array([k for k, _ in mine]), np.array([t for _, t in mine], float)
    return frozenset(frames[frames_astray(frames, times, fs, theirs)].tolist())


def frames_astray(frames: Ints, times: Floats, fs: float | None, theirs: list[tuple[int, int]] | None = None) -> Bools:
    """Which frames are off the clock to which those behind them come back; ``theirs``: (frame, time) of older ones."""
    found = np.zeros(len(frames), bool)
    steps = np.diff(times) / np.diff(frames)
    period = float(np.median(steps)) if len(steps) > 2 else 0.0
    if period <= 0:
        return found
    camera, phase = camera_period(period, fs), times - period * frames
    old = median(t - period * k for k, t in theirs) if theirs and len(theirs) > 2 else float("nan")
    spread = np.abs(np.diff(phase))
    usual = spread[spread <= TOLERANCE]
    early, far = (
        min(FINE + 2 * float(np.percentile(usual, most)), TOLERANCE) if len(usual) else TOLERANCE for most in (90, 80)
    )
    jumps = np.flatnonzero(spread > FINE) + 1
    near = {k for at in jumps.tolist() for k in range(max(at - _AROUND, 0), min(at + _AROUND, len(phase)))}
    astray = np.zeros(len(phase), bool)
    for k in near:
        found[k], astray[k] = _judged(phase, times, k, camera, early, far)

    def alike(a: int, b: int) -> bool:
        same = 0 <= b < len(phase) and bool(astray[b]) and frames[b] - frames[a] == b - a
        return same and bool(abs(phase[a] - phase[b]) <= FINE)

    for k in np.flatnonzero(astray).tolist():
        found[k] |= bool(_apart(phase[k], old, camera) <= FINE) or alike(k, k - 1) or alike(k, k + 1)
    return found


def _apart(phase: Any, level: float, camera: float) -> Any:
    """Ms between phases, whole periods aside."""
    return np.abs((phase - level + camera / 2) % camera - camera / 2)


def _judged(phase: Floats, times: Floats, k: int, camera: float, early: float, far: float) -> tuple[bool, bool]:
    """Whether a frame cannot be one of those around it; and whether it is off the clock most of those keep.

    It cannot where it comes early, or later than a frame behind it. The clock is one that frames on both sides keep.
    """
    first = max(k - _AROUND, 0)
    before, after = phase[first:k], phase[k + 1 : k + 1 + _AROUND]
    near = np.concatenate([before, after])
    level = near[int(np.argmin([_apart(near, each, camera).sum() for each in near]))]
    kept = _apart(near, level, camera) <= FINE
    ahead, behind = np.flatnonzero(kept[: len(before)]), np.flatnonzero(kept[len(before) :])
    if 2 * kept.sum() <= len(near) or not len(ahead) or not len(behind):
        return False, False
    wrong = phase[k] < before[ahead].min() - early or times[k] >= times[k + 1 + behind].min()
    return bool(wrong), bool(_apart(phase[k], level, camera) > far)
