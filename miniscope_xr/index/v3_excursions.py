"""Frames of an older v3 recording among ours: they stand where writes failed, and are off the clock of those around.

A card that was busy makes frames late, too; but it catches up, and never makes one early.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from miniscope_xr.layout.arrays import Bools, Floats, Ints

NEAR = 24  # frames behind the end whose clock tells that of an older recording
_AROUND = 6  # frames on each side of one whose clock it should keep
_TWO = 2  # frames in a row whose writes fail
_FEW = 3  # frames on one side that show when another was due
_SMALL = 6  # bits of a time that a late frame may differ in
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


def period_of(*parts: tuple[Ints, Floats]) -> float:
    """Ms a frame that recordings of one camera show: times are whole ms, so over some frames, none of them late."""
    usual = float(np.median(np.concatenate([np.diff(times) / np.diff(frames) for frames, times in parts])))
    slopes = [np.zeros(0)]
    for frames, times in parts:
        for lag in range(_FEW + 1, 2 * _FEW + 2):
            over, took = frames[lag:] - frames[:-lag], times[lag:] - times[:-lag]
            slopes.append((took / over)[np.abs(took - usual * over) <= TOLERANCE])
    known = np.concatenate(slopes)
    return float(np.median(known)) if len(known) else usual


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
    behind = np.array(theirs or np.zeros((0, 2)), float)
    parts = [(frames, times), (behind[:, 0], behind[:, 1])][: 1 + (len(behind) > _TWO)]
    period = period_of(*parts) if len(frames) > _FEW else 0.0
    if period <= 0:
        return found
    camera, phase = camera_period(period, fs), times - period * frames
    old = behind[:, 1] - period * behind[:, 0]
    spread = np.abs(np.diff(phase))
    usual = spread[spread <= TOLERANCE]
    early, far = (
        min(FINE + 2 * float(np.percentile(usual, most)), TOLERANCE) if len(usual) else TOLERANCE for most in (90, 80)
    )
    jumps = np.flatnonzero(spread > FINE) + 1
    near = {k for at in jumps.tolist() for k in range(max(at - _AROUND, 0), min(at + _AROUND, len(phase)))}
    astray, noise = np.zeros(len(phase), bool), np.full(len(phase), np.inf)
    for k in near:
        found[k], astray[k], noise[k] = _judged(phase, times, k, camera, early, far)

    def as_theirs(k: int) -> bool:
        """Whether older frames behind the end are off by as much; not by more than those, which skip frames as well."""
        same = (apart(phase[k], old, camera) <= FINE) & (phase[k] <= old + FINE)
        return int(same.sum()) > 1 and not _skips(phase, k, camera)

    def alike(a: int, b: int) -> bool:
        same = 0 <= b < len(phase) and bool(astray[b]) and frames[b] - frames[a] == b - a
        return same and bool(abs(phase[a] - phase[b]) <= TOLERANCE)

    for k in np.flatnonzero(astray).tolist():
        found[k] |= as_theirs(k) or alike(k, k - 1) or alike(k, k + 1)
    damaged = flipped(times, times - phase, found)
    for k in np.flatnonzero(found & ~damaged).tolist():  # writes fail one behind the other
        for beside in (k - 1, k + 1):
            if 0 <= beside < len(phase) and abs(frames[beside] - frames[k]) == 1:
                found[beside] |= bool(noise[beside] < -0.5)  # times are whole ms
    return found


def flipped(times: Floats, due: Floats, which: Bools) -> Bools:
    """Which of some frames would keep the clock of those before or behind with one bit of their time flipped back.

    ``due`` are the times of a clock that begins at 0.
    """
    found, phase = np.zeros(len(times), bool), times - due
    for k in np.flatnonzero(which).tolist():
        sides = (phase[:k][~which[:k]][-_FEW:], phase[k + 1 :][~which[k + 1 :]][:_FEW])
        back = [int(times[k]) ^ 1 << bit for bit in range(_SMALL, 32)]
        found[k] = any(np.abs(back - due[k] - np.median(side)).min() <= TOLERANCE for side in sides if len(side))
    return found


def _skips(phase: Floats, k: int, camera: float) -> bool:
    """Whether the camera's frames were skipped around a frame: a card that was as busy makes it late."""
    near = phase[max(k - 2, 0) : k], phase[k + 1 : k + 3]
    return bool(min(map(len, near)) and near[1].max() - near[0].min() > camera / 2)


def stands_out(at: At, own: range, fs: float | None, behind: range = range(0)) -> range:
    """The one frame, or two in a row, that alone of a recording are off the clock of those around them.

    A card that was busy but once wrote it late, or it is an older one. Where frames were skipped, or two came late, the
    card was busy; and a single one that is off by a ms may have strayed. Where an older recording's frames are seen
    ``behind`` the end, one that does not keep their clock is none of them.
    """
    mine = [(k, found[0]) for k in own if (found := at(k)) is not None]
    if len(mine) < _AROUND:
        return range(0)
    frames, times = np.array([k for k, _ in mine]), np.array([t for _, t in mine], float)
    period = float(np.median(np.diff(times) / np.diff(frames)))
    phase = times - period * frames
    if np.ptp(phase) > camera_period(period, fs) - TOLERANCE:
        return range(0)
    off = np.array([_off(phase, k) for k in range(len(phase))])
    for edge in (off[:_TWO], off[-_TWO:]):  # a clock that drifts steps by a ms: here nothing shows that it stays there
        edge[np.abs(edge) <= FINE] = 0.0
    most = int(np.argmax(np.abs(off)))
    beside = [k for k in (most - 1, most + 1) if 0 <= k < len(off) and abs(off[k] - off[most]) < 1 <= abs(off[k])]
    first, last = min(most, *beside, most), max(most, *beside, most)
    if last - first >= _TWO or not 0 < first <= last < len(off) - 1:
        return range(0)
    noise = float(np.abs(np.delete(off, np.s_[first : last + 1])).max())
    strays = noise + FINE if not beside or noise >= 1 else noise + 1 - FINE / 3
    theirs = [found[0] - period * k for k in behind[:NEAR] if (found := at(k)) is not None]
    if len(theirs) > _TWO and apart(phase[most], np.median(theirs), camera_period(period, fs)) > TOLERANCE:
        return range(0)
    stands = noise <= TOLERANCE and np.abs(off[first : last + 1]).min() > strays
    return range(int(frames[first]), int(frames[last]) + 1) if stands else range(0)


def _off(phase: Floats, k: int) -> float:
    """Ms by which a frame is off those before it and those behind it, without the next ones: off the nearer of both."""
    sides = (phase[max(k - _AROUND - 1, 0) : max(k - 1, 0)], phase[k + 2 : k + 2 + _AROUND])
    return min((float(phase[k] - np.median(side)) for side in sides if len(side)), key=abs, default=0.0)


def apart(phase: Any, level: Any, camera: float) -> Any:
    """Ms between phases, whole periods aside."""
    return np.abs((phase - level + camera / 2) % camera - camera / 2)


def _judged(phase: Floats, times: Floats, k: int, camera: float, early: float, far: float) -> tuple[bool, bool, float]:
    """Whether a frame cannot be one of those around it; whether it is off the clock most of those keep.

    It cannot where it comes early, or later than a frame behind it. The clock is one that frames on both sides keep,
    and to which those behind it come back. Thirdly, by how many ms less than they stray it is off that: less than 0
    where it is off by more.
    """
    first = max(k - _AROUND, 0)
    before, after = phase[first:k], phase[k + 1 : k + 1 + _AROUND]
    near = np.concatenate([before, after])
    level = near[int(np.argmin([apart(near, each, camera).sum() for each in near]))]
    kept = apart(near, level, camera) <= FINE
    ahead, behind = np.flatnonzero(kept[: len(before)]), np.flatnonzero(kept[len(before) :])
    if 2 * kept.sum() <= len(near) or not len(ahead) or not len(behind):
        return False, False, np.inf
    if after[behind].max() < before[ahead].min() - early:
        return False, False, np.inf  # time goes back there for good
    wrong = phase[k] < before[ahead].min() - early or times[k] >= times[k + 1 + behind].min()
    off = apart(phase[k], level, camera)
    return bool(wrong), bool(off > far), float(apart(near[kept], level, camera).max() - off)
