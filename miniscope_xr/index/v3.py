"""Recordings of the v3 firmware: whole frames in a row, each with a footer over its last 16 bytes.

There is no config sector and no count, and a card that was used before holds an older recording on the
same grid with the same frame numbers. The frame clock and the record length setting tell them apart.
"""

from __future__ import annotations

from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np

from miniscope_xr.index.detect import CardSectors
from miniscope_xr.index.old_buffers import by_the_list, first_listed
from miniscope_xr.index.recording import Recording
from miniscope_xr.index.runs import Header, Run
from miniscope_xr.layout import SECTOR
from miniscope_xr.source.base import ByteSource

FOOTER = 16  # bytes
_ALL = 4096  # frames up to which every footer is read at opening
_MARKS = 32  # places at which the clock of a longer recording is looked at
_AHEAD = 16  # frames looked at behind one that was never written
_WINDOW = 24  # frames on each side whose clock is compared
_TOLERANCE = 3.0  # ms
_LATE = 1000  # ms by which a slow card may delay the last writes


class _Footers:
    """Footers by frame, each read once."""

    def __init__(self, source: ByteSource, card: CardSectors) -> None:
        assert card.build is not None
        self.source = source
        self.start = card.layout.sectors.data * SECTOR
        self.frame_bytes = card.build.frame_sectors * SECTOR
        self.lines = (card.build.width, card.build.height)
        self.dtype = card.framing.dtype
        self.most = -(-max(source.size - self.start, 0) // self.frame_bytes)
        self._seen: dict[int, tuple[int, int] | None] = {}

    def last_sectors(self, n: int) -> range:
        """Sectors that end the first ``n`` frames."""
        step = self.frame_bytes // SECTOR
        first = self.start // SECTOR + step - 1
        return range(first, first + n * step, step)

    def at(self, k: int) -> tuple[int, int] | None:
        """(time in ms, line count) of frame ``k``, or None where its footer is not there."""
        if k not in self._seen:
            data = self.source.read(self.start + (k + 1) * self.frame_bytes - FOOTER, FOOTER)
            self._seen[k] = self._parse(k, data)
        return self._seen[k]

    def _parse(self, k: int, data: bytes) -> tuple[int, int] | None:
        if len(data) < FOOTER:
            return None
        footer = np.frombuffer(data, self.dtype, 1)[0]
        lines = int(footer["line_count"]) if "line_count" in (self.dtype.names or ()) else self.lines[1]
        if int(footer["frame_num"]) != k or lines not in self.lines:
            return None
        return int(footer["timestamp"]), lines


def _extent(footers: _Footers, exhaustive: bool) -> int:
    """Frames in a row whose footers count up; frames that were never written lie between some."""
    low, step = 0, 1
    while low + 1 < footers.most:
        high = min(low + (1 if exhaustive else step), footers.most)
        if high < footers.most and footers.at(high) is not None:
            low, step = high, 2 * step
            continue
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if footers.at(middle) is not None else (low, middle)
        ahead = range(low + 2, min(low + 2 + _AHEAD, footers.most))
        resumed = next((k for k in ahead if footers.at(k) is not None), None)
        if resumed is None:
            break
        low, step = resumed, 1
    return low + 1


def _end_by_length(footers: _Footers, n: int, seconds: int) -> int:
    """Frames within the record length; the firmware stops at the first frame behind it."""
    limit = seconds * 1000 + _LATE

    def within(k: int) -> bool:
        found = next((f for j in range(k, n) if (f := footers.at(j)) is not None), None)
        return found is None or found[0] <= limit

    low, high = 0, n
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if within(middle) else (low, middle)
    return high


def _camera_period(step: float, fs: float | None) -> float:
    """Time from one camera frame to the next, where each frame on the card comes ``step`` after the one before.

    A build with a single buffer writes every second frame of its camera, so that a stall may last any whole number of
    *camera* frames: 350 ms where frames follow each other in 100 ms, and the camera runs at 20 frames/s.
    """
    return step / max(round(step * fs / 1000), 1) if fs else step


def _suspect_stretch(footers: _Footers, n: int, fs: float | None) -> range:
    """Frames of a long recording among which the frame clock steps; the last ones where it seems not to.

    The clock is looked at in short windows: whole periods (skipped frames) and steady drift do not count.
    """
    start = [t for t in (footers.at(k) for k in range(_WINDOW)) if t is not None]
    period = median(b[0] - a[0] for a, b in pairwise(start)) if len(start) > 2 else 0
    if period <= 0:
        return range(0)
    camera = _camera_period(period, fs)

    def phase(k: int) -> float:
        times = [found[0] - period * j for j in range(k, k + _WINDOW) if (found := footers.at(j)) is not None]
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


def _seam(footers: _Footers, frames_there: range, fs: float | None) -> tuple[int | None, int | None]:
    """First frame of an older recording, by the frame clock; and the first that may be one, or is late by a stall."""
    known = [(k, found[0]) for k in frames_there if (found := footers.at(k)) is not None]
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
        return seam, None
    first, second = seam or doubtful, other or also
    return None, None if first is None or second is None else min(first, second)


def _step(
    frames: np.ndarray[Any, np.dtype[np.int64]],
    times: np.ndarray[Any, np.dtype[np.float64]],
    period: float,
    fs: float | None,
) -> tuple[int | None, int | None]:
    """First frame at which the clock steps by no whole number of periods; and the first at which it may."""
    steps = np.diff(times) / np.diff(frames)
    phase, camera = times - period * frames, _camera_period(period, fs)
    doubtful = None
    for n_th in np.flatnonzero(np.abs(steps - period) * np.diff(frames) > _TOLERANCE) + 1:
        before, was_settled = _settled_phase(phase[max(n_th - _WINDOW, 0) : n_th][::-1])
        after, settled = _settled_phase(phase[n_th : n_th + _WINDOW])
        jump = after - before
        if abs(jump - max(round(jump / camera), 0) * camera) <= _TOLERANCE:
            continue  # late writes, or frames the firmware skipped (which leave no gap in the number)
        k = int(frames[n_th])
        if settled and was_settled:
            return k, None
        doubtful = k if doubtful is None else doubtful
    return None, doubtful


def _settled_phase(phase: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[float, bool]:
    """Phase of the frame clock over the nearest frames most of which agree on it, and whether they do.

    Behind a stall some writes are late, and frames are skipped only behind those: the clock is what comes after.
    """
    for size in range(_WINDOW // 3, _WINDOW + 1, _WINDOW // 3):
        near = phase[:size]
        middle = float(np.sort(near)[(len(near) - 1) // 2])
        if int(np.sum(np.abs(near - middle) <= _TOLERANCE)) > max(len(near) // 2, 1):
            return middle, True
    return float(phase.min()), False


def _complete(footers: _Footers, end: int, seconds: int) -> bool:
    """Whether the last frame is the last of the record length."""
    first, last = footers.at(0), footers.at(end - 1)
    if not seconds or first is None or last is None:
        return False
    period = (last[0] - first[0]) / max(end - 1, 1)
    return last[0] + 3 * period + 50 >= seconds * 1000


def index_footers(
    source: ByteSource, card: CardSectors, exhaustive: bool, whole: bool, old_buffers: bool
) -> list[Recording]:
    """The one recording of a v3 card."""
    assert card.build is not None
    footers = _Footers(source, card)
    n = _extent(footers, exhaustive)
    seconds = int(card.settings.get("record_length", 0))
    warnings: list[str] = []
    end = n
    listed = first_listed(source, card.layout, footers.last_sectors(n)) if old_buffers and not whole else None
    if listed is not None:
        end = max(listed, 1)
        warnings = [by_the_list(f"frame {end - 1}" if listed < n else None)]
    elif not whole:
        end = _end_by_length(footers, n, seconds) if seconds else n
        every = end <= _ALL or exhaustive
        fs = card.build.fs
        seam, doubtful = _seam(footers, range(end) if every else _suspect_stretch(footers, end, fs), fs)
        if seam is not None:
            end, warnings = seam, [
                f"an older recording lies behind this one, from frame {seam} on, and is not returned"
            ]  # fmt: skip
        elif doubtful is not None:
            warnings = [
                f"the frame clock changes at frame {doubtful}: a slow card, or an older recording from there on; "
                f"if it is one, pass until={doubtful - 1}"
            ]
    cut = card.framing.cut((footers.frame_bytes,))
    first = footers.at(0)
    assert first is not None
    lines = first[1]
    width = footers.frame_bytes // lines
    short = end == n and footers.start + (n + 1) * footers.frame_bytes > source.size
    status = "finished" if _complete(footers, end, seconds) else "truncated" if short else "interrupted"
    if status != "finished" and not whole and listed is None and not warnings and end > 1:
        warnings = [
            "v3 cards keep no count and this recording ended before its record length: an older recording with the "
            f"same frame clock between frames 0 and {end - 1} is not excluded"
        ]
    header = Header(0, 0, 0, 0, 0, 0, 0, first[0], footers.frame_bytes, -1, -1, -1)
    run = Run(card.layout.sectors.data, end, header, cut)
    return [Recording(0, (run,), width, lines, status, warnings=tuple(warnings))]
