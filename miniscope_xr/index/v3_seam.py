"""Where an older recording begins under a v3 one: the clock of its frames steps there, or the card was slow.

A footer has the time at which the write of its frame began. A busy card makes some of them late, and frames are skipped
behind those, by whole periods of the camera; another recording's clock is off by anything.
"""

from __future__ import annotations

from itertools import pairwise
from statistics import median
from typing import NamedTuple

import numpy as np

from miniscope_xr.index.v3_clock import FINE, TOLERANCE, At, apart, camera_period, clock_of
from miniscope_xr.index.v3_story import old_frames
from miniscope_xr.layout.arrays import Bools, Floats

NEAR = 24  # frames behind the end that tell of an older recording
_MARKS = 32  # places at which the clock of a longer recording is looked at
_WINDOW = 24  # frames on each side whose clock is compared
_ALIKE = 3  # frames in a row that agree to show a clock
_UNSURE = 0.04  # what is less probable is not said
_RATHER = 0.7  # of an older recording, though the card was busy elsewhere, too
_STILL = 0.3  # ms by which a clock strays that does not
_EVEN = 8  # steps between frames that show such a one
_TWO = 2
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


class Weighed(NamedTuple):
    """Whose the frames are, by all that the footers say.

    Attributes
    ----------
    seam : int
        The first frame from which on all are of older recordings.
    doubtful : int or None
        The first of those in front of the seam that may be so, too.
    old : frozenset of int
        Frames in front of these that are an older recording's: their writes failed.
    alone : tuple of int
        Those of which that is in doubt.
    """

    seam: int
    doubtful: int | None
    old: frozenset[int]
    alone: tuple[int, ...]


def weighed(at: At, frames: range, seconds: int, fs: float | None, single: bool = False) -> Weighed:
    """Weigh the footers of some frames in a row, the last of which may be of older recordings."""
    found = [at(k) for k in frames]
    there = np.array([f is not None for f in found], bool)
    numbers, times = np.array(frames), np.array([0 if f is None else f[0] for f in found], float)
    clock = clock_of(numbers[there], times[there], seconds, fs, single)
    if clock is None:
        return Weighed(frames.stop, None, frozenset(), ())
    times[~there] = np.nan
    old = old_frames(numbers, times, there, clock)
    sure, maybe = (old > 1 - _UNSURE) | ~there, (old > _UNSURE) | ~there
    seam, doubtful = (_begins(which & there, which) for which in (sure, maybe))
    doubtful = next((i for i in range(doubtful, seam) if there[i] and not sure[i]), seam)
    phase = times - clock.period * numbers
    if seam < len(frames) and times[seam] <= clock.limit:
        doubtful = min(doubtful, _as_theirs(phase, seam, clock.camera))
    alone = [i for i in np.flatnonzero(there & maybe & ~sure).tolist() if i < doubtful]
    if _was_busy(phase[:doubtful], alone, clock.camera):
        alone = [i for i in alone if old[i] > _RATHER]
    if not alone:
        alone = _off_by_little(phase[:doubtful])
    strays = frozenset(numbers[i] for i in np.flatnonzero(there & sure).tolist() if i < seam)
    first = frames.start
    return Weighed(
        first + seam,
        first + doubtful if doubtful < seam else None,
        frozenset(int(k) for k in strays),
        tuple(first + i for i in alone),
    )


def _begins(which: Bools, or_missing: Bools) -> int:
    """The first place from which on all are so; those that are missing in front of it are none of them."""
    others = np.flatnonzero(~or_missing)
    behind = np.flatnonzero(which)
    last = int(others[-1]) if len(others) else -1
    return next((i for i in behind.tolist() if i > last), len(which))


def _as_theirs(phase: Floats, seam: int, camera: float) -> int:
    """The first of the frames in front of a seam that rather keep the clock of those behind it."""
    ours, theirs = (part[np.isfinite(part)] for part in (phase[max(seam - NEAR, 0) : seam], phase[seam : seam + NEAR]))
    if min(len(ours), len(theirs)) <= _TWO:
        return seam
    mine, old = float(np.median(ours)), float(np.median(theirs))
    first = seam
    while first and apart(phase[first - 1], old, camera) + _STILL < apart(phase[first - 1], mine, camera):
        first -= 1
    return first


def _off_by_little(phase: Floats) -> list[int]:
    """The two frames in a row that alone are off a clock that strays by nothing else, be it by a ms."""
    steps = np.diff(phase)
    odd = np.flatnonzero(np.abs(steps) > _STILL).tolist()
    pairs = [k for k in odd if k + _TWO in odd and abs(steps[k] + steps[k + _TWO]) < _STILL]
    if len(pairs) != 1 or len(odd) > _TWO + 1 or len(steps) < _EVEN or not np.isfinite(phase).all():
        return []  # one more: a clock that drifts steps by a ms
    return [pairs[0] + 1, pairs[0] + 2] if abs(steps[pairs[0]]) <= TOLERANCE else []


def _was_busy(phase: Floats, alone: list[int], camera: float) -> bool:
    """Whether frames that are late alone show a busy card: it was so before, or each is late by another time."""
    if not alone:
        return False
    others = np.delete(phase, alone)
    others = others[np.isfinite(others)]
    apart_by = apart(phase[alone], phase[alone[0]], camera)
    skipped = len(others) > 0 and np.ptp(others) > camera - TOLERANCE
    return bool(skipped or apart_by.max() > TOLERANCE)


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
