"""Where an older recording begins under a v3 one: the clock of its frames steps there, or the card was slow.

A footer has the time at which the write of its frame began. A busy card makes some of them late, and frames are skipped
behind those, by whole periods of the camera; another recording's clock is off by anything.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np

_MARKS = 32  # places at which the clock of a longer recording is looked at
_WINDOW = 24  # frames on each side whose clock is compared
_NEAR = 6  # frames on each side of one whose clock it should keep
_TOLERANCE = 3.0  # ms
_FINE = 1.5  # ms by which times of a clock that does not stray may be off, whole ms as they are

At = Callable[[int], tuple[int, int] | None]
"""(time in ms, line count) of a frame; None where its footer is not there."""


def _camera_period(step: float, fs: float | None) -> float:
    """Time from one camera frame to the next, where each frame on the card comes ``step`` after the one before.

    A build with a single buffer writes every second frame of its camera, so that a stall may last any whole number of
    *camera* frames: 350 ms where frames follow each other in 100 ms, and the camera runs at 20 frames/s.
    """
    return step / max(round(step * fs / 1000), 1) if fs else step


def suspect_stretch(at: At, n: int, fs: float | None) -> range:
    """Frames of a long recording among which the frame clock steps; the last ones where it seems not to.

    The clock is looked at in short windows: whole periods (skipped frames) and steady drift do not count.
    """
    start = [t for t in (at(k) for k in range(_WINDOW)) if t is not None]
    period = median(b[0] - a[0] for a, b in pairwise(start)) if len(start) > 2 else 0
    if period <= 0:
        return range(0)
    camera = _camera_period(period, fs)

    def phase(k: int) -> float:
        times = [found[0] - period * j for j in range(k, k + _WINDOW) if (found := at(j)) is not None]
        return min(times) if times else float("nan")

    def change(a: int, b: int, drift: float) -> float:
        step = (phase(b) - phase(a) - drift * (b - a)) % camera
        return min(step, camera - step)

    def wrapped(a: int, b: int) -> float:
        step = (phase(b) - phase(a)) % camera
        return step - camera if step > camera / 2 else step

    marks = np.linspace(0, n - _WINDOW, _MARKS + 1, dtype=int).tolist()
    drift = median(wrapped(a, b) / (b - a) for a, b in pairwise(marks))
    for low, high in pairwise(marks):
        if not change(low, high, drift) > _TOLERANCE:
            continue
        while high - low > 4 * _WINDOW:
            middle = (low + high) // 2
            low, high = (low, middle) if change(low, middle, drift) > change(middle, high, drift) else (middle, high)
        return range(max(low - 2 * _WINDOW, 0), min(high + 3 * _WINDOW, n))
    return range(max(n - 4 * _WINDOW, 0), n)  # a step among the last frames hides in the last window


def seam_by_clock(at: At, frames_there: range, fs: float | None) -> tuple[int | None, int | None]:
    """First frame of an older recording, by the frame clock; and the first that may be one, or is late by a stall."""
    known = [(k, found[0]) for k in frames_there if (found := at(k)) is not None]
    if len(known) < 3:
        return None, None
    frames = np.array([k for k, _ in known])
    times = np.array([t for _, t in known], float)
    steps = np.diff(times) / np.diff(frames)
    middle = float(median(steps.tolist()))
    usual = np.abs(steps - middle) <= _TOLERANCE
    mean = float(steps[usual].mean()) if usual.any() else middle
    back = np.flatnonzero(np.diff(times) < 0)
    if min(middle, mean) <= 0 or len(back):
        return int(frames[back[0] + 1]) if len(back) else 1, None
    # a short recording with jitter tells its period to a few percent: a seam is one by both estimates
    (seam, doubtful), (other, also) = (_step(frames, times, period, fs) for period in (middle, mean))
    if seam is not None and seam == other:
        return seam, _small_step(frames[frames < seam], times[frames < seam], fs)
    first, second = seam or doubtful, other or also
    if first is not None and second is not None:
        return None, min(first, second)
    return None, _small_step(frames, times, fs)


def _small_step(
    frames: np.ndarray[Any, np.dtype[np.int64]], times: np.ndarray[Any, np.dtype[np.float64]], fs: float | None
) -> int | None:
    """First frame at which a clock that hardly strays steps by less than others stray: no proof, but a doubt."""
    steps = np.diff(times) / np.diff(frames)
    middle = float(np.median(steps))
    off = np.abs(steps - middle)
    if len(steps) < 2 or not (off <= _TOLERANCE).any():
        return None
    tolerance = _FINE + 2 * float(
        np.percentile(off[off <= _TOLERANCE], 66)
    )  # of most frames: not of those behind stalls
    usual = off <= tolerance
    if tolerance >= _TOLERANCE:
        return None
    found = [_step(frames, times, period, fs, tolerance) for period in (middle, float(steps[usual].mean()))]
    first = [seam or doubtful for seam, doubtful in found]
    return None if None in first else min(k for k in first if k is not None)


def _step(
    frames: np.ndarray[Any, np.dtype[np.int64]],
    times: np.ndarray[Any, np.dtype[np.float64]],
    period: float,
    fs: float | None,
    tolerance: float = _TOLERANCE,
) -> tuple[int | None, int | None]:
    """First frame at which the clock steps by no whole number of periods; and the first at which it may."""
    steps = np.diff(times) / np.diff(frames)
    phase, camera = times - period * frames, _camera_period(period, fs)
    doubtful = None
    for n_th in np.flatnonzero(np.abs(steps - period) * np.diff(frames) > tolerance) + 1:
        before, was_settled = _settled_phase(phase[max(n_th - _WINDOW, 0) : n_th][::-1], tolerance)
        after, settled = _settled_phase(phase[n_th : n_th + _WINDOW], tolerance)
        jump = after - before
        if abs(jump - max(round(jump / camera), 0) * camera) <= tolerance:
            continue  # late writes, or frames the firmware skipped (which leave no gap in the number)
        k = int(frames[n_th])
        if settled and was_settled:
            return k, None
        doubtful = k if doubtful is None else doubtful
    return None, doubtful


def _settled_phase(phase: np.ndarray[Any, np.dtype[np.float64]], tolerance: float) -> tuple[float, bool]:
    """Phase of the frame clock over the nearest frames most of which agree on it, and whether they do.

    Behind a stall some writes are late, and frames are skipped only behind those: the clock is what comes after.
    """
    for size in range(_WINDOW // 3, _WINDOW + 1, _WINDOW // 3):
        near = phase[:size]
        middle = float(np.sort(near)[(len(near) - 1) // 2])
        if int(np.sum(np.abs(near - middle) <= tolerance)) > max(len(near) // 2, 1):
            return middle, True
    return float(phase.min()), False


def old_among(at: At, own: range, behind: range, fs: float | None) -> frozenset[int]:
    """Frames of a recording in whose place an older one's stand, as writes failed there.

    They are off the clock of the frames around them. A busy card makes frames late too, but it catches up: not two in a
    row by as much, and not by as much as the older recording's frames ``behind`` the end are.

        frame      4    5    6    7    8      30   31      the older recording's frames come 12 ms after ours
        time     264  314  376  426  464    1576 1626      6 and 7 are its
    """
    mine = [(k, found[0]) for k in own if (found := at(k)) is not None]
    theirs = [(k, found[0]) for k in behind[:_WINDOW] if (found := at(k)) is not None]
    if len(mine) < 4:
        return frozenset()
    frames, times = (np.array(part, float) for part in zip(*mine, strict=True))
    period = float(np.median(np.diff(times) / np.diff(frames)))
    if period <= 0:
        return frozenset()
    camera, phase = _camera_period(period, fs), times - period * frames
    old = median(t - period * k for k, t in theirs) if len(theirs) > 2 else float("nan")
    steps = np.flatnonzero(_apart(np.diff(phase), 0.0, camera) > _FINE)
    near = {k for step in steps.tolist() for k in range(max(step + 1 - _NEAR, 0), min(step + 1 + _NEAR, len(phase)))}
    astray = np.zeros(len(phase), bool)
    for k in near:
        astray[k] = _astray(phase, k, camera)

    def alike(a: int, b: int) -> bool:
        same = 0 <= b < len(phase) and bool(astray[b]) and frames[b] - frames[a] == b - a
        return same and bool(abs(phase[a] - phase[b]) <= _FINE)

    return frozenset(
        int(frames[k])
        for k in np.flatnonzero(astray).tolist()
        if _apart(phase[k], old, camera) <= _FINE or alike(k, k - 1) or alike(k, k + 1)
    )


def _apart(phase: Any, level: float, camera: float) -> Any:
    """Ms between phases, whole periods aside."""
    return np.abs((phase - level + camera / 2) % camera - camera / 2)


def _astray(phase: np.ndarray[Any, np.dtype[np.float64]], k: int, camera: float) -> bool:
    """Whether a frame is off the clock that most of those around it, on both sides, keep."""
    before, after = phase[max(k - _NEAR, 0) : k], phase[k + 1 : k + 1 + _NEAR]
    near = np.concatenate([before, after])
    level = near[int(np.argmin([_apart(near, each, camera).sum() for each in near]))]
    kept = _apart(near, level, camera) <= _FINE
    both = kept[: len(before)].any() and kept[len(before) :].any()
    return bool(_apart(phase[k], level, camera) > _TOLERANCE and 2 * kept.sum() > len(near) and both)
