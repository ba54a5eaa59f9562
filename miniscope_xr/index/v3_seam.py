"""Where an older recording begins under a v3 one: the clock of its frames steps there, or the card was slow.

A footer has the time at which the write of its frame began. A busy card makes some of them late, and frames are skipped
behind those, by whole periods of the camera; another recording's clock is off by anything.
"""

from __future__ import annotations

from itertools import pairwise
from statistics import median

import numpy as np

from miniscope_xr.index.v3_excursions import (
    FINE,
    TOLERANCE,
    At,
    apart,
    camera_period,
    flipped,
    frames_astray,
    period_of,
)
from miniscope_xr.layout.arrays import Floats, Ints

_MARKS = 32  # places at which the clock of a longer recording is looked at
_WINDOW = 24  # frames on each side whose clock is compared
_ALIKE = 3  # frames in a row that agree to show a clock
_FAILED = 2  # frames in a row whose writes fail


def suspect_stretch(at: At, n: int, fs: float | None) -> range:
    """Frames of a long recording among which the frame clock steps; the last ones where it seems not to.

    The clock is looked at in short windows: whole periods (skipped frames) and steady drift do not count.
    """
    start = [t for t in (at(k) for k in range(_WINDOW)) if t is not None]
    period = median(b[0] - a[0] for a, b in pairwise(start)) if len(start) > 2 else 0
    if period <= 0:
        return range(0)
    camera = camera_period(period, fs)

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
        if not change(low, high, drift) > TOLERANCE:
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
    ours = ~frames_astray(frames, times, fs)
    frames, times = frames[ours], times[ours]
    falls = np.append(np.diff(times) < 0, False)
    if falls.any():
        ours = ~flipped(times, frames * float(np.median(np.diff(times) / np.diff(frames))), falls)
        frames, times = frames[ours], times[ours]
    steps = np.diff(times) / np.diff(frames)
    middle = float(median(steps.tolist()))
    usual = np.abs(steps - middle) <= TOLERANCE
    mean = float(steps[usual].mean()) if usual.any() else middle
    back = np.flatnonzero(np.diff(times) < 0)
    if len(back):  # and that one may lie over another
        earlier = seam_by_clock(at, range(int(frames[0]), int(frames[back[0] + 1])), fs)
        return earlier if earlier[0] is not None else (int(frames[back[0] + 1]), None)
    if min(middle, mean) <= 0:
        return 1, None
    # a short recording with jitter tells its period to a few percent: a seam is one by both estimates
    (seam, doubtful), (other, also) = (_step(frames, times, period, fs) for period in (middle, mean))
    if seam is not None and seam == other:
        own = frames < seam
        # what lies behind the seam tells nothing of those before
        if (doubtful is not None or also is not None) and own.sum() > 2:
            doubtful, also = (_step(frames[own], times[own], period, fs)[1] for period in (middle, mean))
        before = [k for k in (doubtful, also) if k is not None]
        return seam, min(before) if before else _small_step(frames[own], times[own], fs)
    first, second = seam or doubtful, other or also
    if first is not None and second is not None:
        return None, min(first, second)
    return None, _small_step(frames, times, fs)


def _small_step(frames: Ints, times: Floats, fs: float | None) -> int | None:
    """First frame at which a clock that hardly strays steps by less than others stray: no proof, but a doubt."""
    if len(times) < 3:
        return None
    steps = np.diff(times) / np.diff(frames)
    middle = float(np.median(steps))
    off = np.abs(steps - middle)
    if not (off <= TOLERANCE).any():
        return None
    tolerance = FINE + 2 * float(np.percentile(off[off <= TOLERANCE], 66))  # of most frames: not of those behind stalls
    usual = off <= tolerance
    if tolerance >= TOLERANCE:
        return None
    found = [_step(frames, times, period, fs, tolerance) for period in (middle, float(steps[usual].mean()))]
    first = [min((k for k in each if k is not None), default=None) for each in found]
    return None if None in first else min(k for k in first if k is not None)


def _step(
    frames: Ints,
    times: Floats,
    period: float,
    fs: float | None,
    tolerance: float = TOLERANCE,
) -> tuple[int | None, int | None]:
    """First frame at which the clock steps by no whole number of periods; and the first at which it may."""
    steps = np.diff(times) / np.diff(frames)
    phase, camera = times - period * frames, camera_period(period, fs)
    doubtful = None
    off = np.abs(steps - period) * np.diff(frames)
    for n_th in np.flatnonzero(off > tolerance) + 1:
        within = tolerance if off[n_th - 1] <= TOLERANCE else TOLERANCE  # a late frame or two stray by more
        before, was_settled = _settled_phase(phase[max(n_th - _WINDOW, 0) : n_th][::-1], within)
        after, settled = _settled_phase(phase[n_th : n_th + _WINDOW], within)
        jump = after - before
        if within > tolerance and not (settled and was_settled):
            continue  # it was judged as others are
        ahead = phase[n_th + 1 : n_th + _WINDOW]
        if settled and was_settled and abs(jump) > tolerance:
            ours = abs(phase[n_th] - before) <= FINE < abs(phase[n_th] - after)
            if ours or _comes_back(ahead, before, after):
                continue  # a late frame or two, and only then the step
        if abs(jump - max(round(jump / camera), 0) * camera) <= tolerance:
            continue  # late writes, or frames the firmware skipped (which leave no gap in the number)
        k = int(frames[n_th])
        too_early = n_th >= _ALIKE and phase[n_th] < phase[:n_th].min() - tolerance  # which no card makes it
        skips = times[n_th] - times[n_th - 1] > period * (frames[n_th] - frames[n_th - 1]) + camera - tolerance
        shown = n_th > 1 or k == 1  # one frame alone may be late where others around it are gone
        never = shown and phase[:n_th].max() < after - tolerance
        for_good = settled and not skips and never  # a busy card catches up
        if too_early or for_good or (settled and was_settled):
            return k, doubtful
        last = (phase[-1] - before + camera / 2) % camera - camera / 2
        if was_settled and len(phase) - n_th <= _ALIKE and phase[-1] > before and abs(last) <= FINE:
            break  # the last one is due again, some frames later
        if was_settled and (np.diff(times[n_th:]) < period / 2).all() and n_th + 1 < len(times):
            break  # the last few catch up, as no older recording does
        doubtful = k if doubtful is None else doubtful
    return None, doubtful


def _comes_back(phase: Floats, before: float, after: float) -> bool:
    """Whether the clock before a step is kept behind it, until that after the step is for good."""
    ours, theirs = np.abs(phase - before) <= FINE, np.abs(phase - after) <= FINE
    first = int(np.argmax(theirs)) if theirs.any() else 0
    return bool(ours[:first].any())


def _settled_phase(phase: Floats, tolerance: float) -> tuple[float, bool]:
    """Phase of the frame clock over the nearest frames most of which agree on it, and whether they do.

    Behind a stall some writes are late, and frames are skipped only behind those: the clock is what comes after. A card
    that catches up does not make several in a row late by as much.
    """
    near = phase[:_ALIKE]
    if len(near) == _ALIKE and np.ptp(near) <= min(tolerance, FINE):
        return float(np.median(near)), True
    for size in range(_WINDOW // 3, _WINDOW + 1, _WINDOW // 3):
        near = phase[:size]
        middle = float(np.sort(near)[(len(near) - 1) // 2])
        if int(np.sum(np.abs(near - middle) <= tolerance)) > max(len(near) // 2, 1):
            return middle, True
    return float(phase.min()), False


def same_clock_behind(at: At, frames: range, behind: range) -> int | None:
    """First of the last frames of a recording that keep one clock with what lies behind its end; None if they do not.

    What lies there is an older recording. If it happens to have the same clock, nothing shows where it begins: at the
    end, or at any of these.
    """
    near = range(max(frames.start, frames.stop - _WINDOW), frames.stop), behind[:_WINDOW]
    times = [[(k, found[0]) for k in part if (found := at(k)) is not None] for part in near]
    if min(map(len, times)) < _ALIKE:
        return None
    period = median((b - a) / (j - i) for part in times for (i, a), (j, b) in pairwise(part))
    ours, theirs = ([t - period * k for k, t in part] for part in times)
    if abs(median(ours[-_ALIKE:]) - median(theirs[:_ALIKE])) > FINE:
        return None
    level, first, off = theirs[0], frames.stop, 0
    for k in reversed(frames):
        found = at(k)
        if found is not None:
            off = off + 1 if abs(found[0] - period * k - level) > TOLERANCE else 0
            if off > _FAILED:
                break
            level, first = (level, first) if off else (found[0] - period * k, k)
    return first if first < frames.stop else None


def as_theirs(at: At, frames: range, behind: range, fs: float | None) -> int | None:
    """First of the last frames of a recording that rather keep the clock of the older one behind it; None if none do.

    That one's clock steps once more there: its card was busy.
    """
    near = range(max(frames.start, frames.stop - _WINDOW), frames.stop), behind[:_WINDOW]
    times = [[(k, found[0]) for k in part if (found := at(k)) is not None] for part in near]
    if min(map(len, times)) < _ALIKE:
        return None
    period = period_of(*((np.array([k for k, _ in part]), np.array([t for _, t in part], float)) for part in times))
    camera = camera_period(period, fs)
    ours, theirs = (np.array([t - period * k for k, t in part]) for part in times)
    mine, old = float(np.median(ours)), float(np.median(theirs))
    nearer = apart(ours, old, camera) < apart(ours, mine, camera)
    first = len(ours) - int(np.argmin(nearer[::-1])) if not nearer.all() else 0
    return times[0][first][0] if len(ours) - first > 1 else None
