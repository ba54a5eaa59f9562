"""Recordings of the v3 firmware: whole frames in a row, each with a footer over its last 16 bytes.

There is no config sector and no count, and a card that was used before holds an older recording on the
same grid with the same frame numbers. The frame clock and the record length setting tell them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np

from miniscope_xr.index.ahead import Ahead
from miniscope_xr.index.front import Card
from miniscope_xr.index.headers import HOLE_WINDOW, gallop
from miniscope_xr.index.locate import FOOTER, footers_in
from miniscope_xr.index.old_buffers import by_the_list, first_listed
from miniscope_xr.index.recording import Recording
from miniscope_xr.index.runs import Header, Run
from miniscope_xr.layout import SECTOR, Build
from miniscope_xr.source.base import ByteSource

_ALL = 4096  # frames up to which every footer is read at opening
_MARKS = 32  # places at which the clock of a longer recording is looked at
_AHEAD = 16  # frames looked at behind one that was never written
_WINDOW = 24  # frames on each side whose clock is compared
_TOLERANCE = 3.0  # ms


class _Footers:
    """Footers by frame, each read once.

    Where bytes were left out of an image, or put in, the frames behind stand elsewhere: ``pieces`` are (first frame,
    byte at which frame 0 would begin).
    """

    def __init__(self, source: ByteSource, card: Card, build: Build) -> None:
        self.source = Ahead(source)
        self.start = (card.layout.sectors.data if card.start is None else card.start) * SECTOR
        self.frame_sectors = build.frame_sectors
        self.frame_bytes = build.frame_sectors * SECTOR
        self.lines = (build.width, build.height)
        self.dtype = card.framing.dtype
        self.cut = card.framing.cut((self.frame_bytes,))
        self.pieces = [(0, self.start)]
        self._seen: dict[int, tuple[int, int] | None] = {}

    @property
    def most(self) -> int:
        """Frames there can be, counted from 0, up to the end of the card."""
        return -(-max(self.source.size - self.pieces[-1][1], 0) // self.frame_bytes)

    def byte_of(self, k: int) -> int:
        """Where frame ``k`` begins."""
        start = next(start for first, start in reversed(self.pieces) if first <= k or not first)
        return start + k * self.frame_bytes

    def footer_of(self, k: int) -> int:
        """Byte at which the footer of frame ``k`` begins."""
        return self.byte_of(k) + self.frame_bytes - FOOTER

    def sector_of(self, k: int) -> int:
        """Sector in which frame ``k`` begins."""
        return self.byte_of(k) // SECTOR

    def last_sectors(self, n: int) -> Sequence[int]:
        """Sectors that end the first ``n`` frames."""
        return [self.sector_of(k) + self.frame_sectors - 1 for k in range(n)]

    def at(self, k: int) -> tuple[int, int] | None:
        """(time in ms, line count) of frame ``k``, or None where its footer is not there."""
        if k not in self._seen:
            at = self.footer_of(k)
            self._seen[k] = self._parse(k, self.source.read(at, FOOTER) if at >= 0 else b"")
        return self._seen[k]

    def moved(self, k: int, sector: int) -> None:
        """From frame ``k`` on, which ends in a sector, frames stand elsewhere."""
        start = (sector + 1) * SECTOR - (k + 1) * self.frame_bytes
        if start != self.pieces[-1][1]:
            self.pieces.append((k, start))
            self._seen = {known: found for known, found in self._seen.items() if known < k}

    def _parse(self, k: int, data: bytes) -> tuple[int, int] | None:
        if len(data) < FOOTER:
            return None
        footer = np.frombuffer(data, self.dtype, 1)[0]
        lines = int(footer["line_count"]) if "line_count" in (self.dtype.names or ()) else self.lines[1]
        if int(footer["frame_num"]) != k or lines not in self.lines:
            return None
        return int(footer["timestamp"]), lines


def _extent(footers: _Footers, first: int, exhaustive: bool) -> int:
    """The frame behind those in a row from ``first`` on whose footers count up; some between were never written."""
    low, step = first, 1
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


def _beyond(footers: _Footers, last: int) -> tuple[int, int] | None:
    """(frame, sector it ends in) of the first frame behind a hole of any length, on the grid of the others or off."""
    end = footers.at(last)
    before = next((k for k in range(max(last - _WINDOW, 0), last) if footers.at(k) is not None), None)
    if end is None or before is None:
        return None
    period = (end[0] - (footers.at(before) or end)[0]) / (last - before)
    start = footers.sector_of(last + 1)
    step = footers.frame_sectors
    window = max(step, HOLE_WINDOW)

    def look(at: int) -> tuple[int, int] | None:
        data = footers.source.read(at * SECTOR, window * SECTOR)
        for sector, frame, time in footers_in(data, footers.dtype, footers.lines, at):
            late = time - end[0] >= 0.9 * period * (frame - last)
            if last < frame < last + 1 + (sector + 1 - start) // step + step and late:
                following = footers.source.read((sector + 1 + step) * SECTOR - FOOTER, FOOTER)
                after = footers_in(following.rjust(SECTOR, b"\0"), footers.dtype, footers.lines, 0)
                if any(number == frame + 1 and then >= time for _, number, then in after):
                    return frame, sector
        return None

    return gallop(look, start, -(-footers.source.size // SECTOR), window)


def _ends(footers: _Footers, first: int, seconds: int, exhaustive: bool) -> tuple[int, list[tuple[int, int]]]:
    """The frame behind the last one, and the stretches of sectors between that hold no frames."""
    n = _extent(footers, first, exhaustive)
    holes: list[tuple[int, int]] = []
    while not _complete(footers, n, seconds, first):
        found = _beyond(footers, n - 1)
        if found is None:
            break
        frame, sector = found
        holes.append((footers.sector_of(n), sector + 1 - footers.frame_sectors))
        footers.moved(frame, sector)
        n = _extent(footers, frame, exhaustive)
    return n, holes


def _end_by_length(footers: _Footers, n: int, seconds: int) -> int:
    """Frames within the record length: no footer has a time past it."""
    limit = seconds * 1000

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


def _complete(footers: _Footers, end: int, seconds: int, begin: int = 0) -> bool:
    """Whether the last frame is the last of the record length."""
    first, last = footers.at(begin), footers.at(end - 1)
    if not seconds or first is None or last is None:
        return False
    period = (last[0] - first[0]) / max(end - 1 - begin, 1)
    return last[0] + 3 * period + 50 >= seconds * 1000


def index_footers(
    source: ByteSource, card: Card, build: Build, exhaustive: bool, whole: bool, old_buffers: bool
) -> tuple[list[Recording], list[tuple[int, int]]]:
    """The one recording of a v3 card, and the stretches of sectors within it that hold no frames."""
    footers = _Footers(source, card, build)
    begin = card.first_frame
    seconds = int(card.settings.get("record_length", 0))
    n, holes = _ends(footers, begin, seconds, exhaustive)
    warnings: list[str] = list(card.notes)
    said = len(warnings)
    end = n
    listed = first_listed(source, card.layout, footers.last_sectors(n)) if old_buffers and not whole else None
    if listed is not None:
        end = max(listed, begin + 1)
        warnings.append(by_the_list(f"frame {end - 1}" if listed < n else None))
    elif not whole:
        end = _end_by_length(footers, n, seconds) if seconds else n
        every = end <= _ALL or exhaustive
        if every:
            footers.source.fetch((footers.footer_of(k), FOOTER) for k in range(begin, end))
        fs = build.fs
        seam, doubtful = _seam(footers, range(begin, end) if every else _suspect_stretch(footers, end, fs), fs)
        if seam is not None:
            end = max(seam, begin + 1)
            warnings.append(f"an older recording lies behind this one, from frame {seam} on, and is not returned")
        elif doubtful is not None:
            warnings.append(
                f"the frame clock changes at frame {doubtful}: a slow card, or an older recording from there on; "
                f"if it is one, pass until={doubtful - 1}"
            )
    first = footers.at(begin)
    lines = build.height if first is None else first[1]
    width = footers.frame_bytes // lines
    short = end == n and footers.byte_of(n) + footers.frame_bytes > source.size
    status = "finished" if _complete(footers, end, seconds, begin) else "truncated" if short else "interrupted"
    if status != "finished" and not whole and listed is None and len(warnings) == said and end > 1:
        warnings.append(
            "v3 cards keep no count and this recording ended before its record length: an older recording with the "
            f"same frame clock between frames {begin} and {end - 1} is not excluded"
        )
    runs = _runs(footers, begin, end)
    return [Recording(0, runs, width, lines, status, warnings=tuple(warnings))], holes


def _runs(footers: _Footers, begin: int, end: int) -> tuple[Run, ...]:
    """The frames as runs: one, or one more wherever they go on elsewhere."""
    edges = [begin, *(k for k, _ in footers.pieces if begin < k < end), end]
    runs = []
    for k, stop in pairwise(edges):
        while stop > k + 1 and stop < end and footers.at(stop - 1) is None:
            stop -= 1  # frames that are missing where the card goes on elsewhere
        time = (footers.at(k) or (0, 0))[0]
        header = Header(0, 0, k, k, 0, k, 0, time, footers.frame_bytes, -1, -1, -1)
        runs.append(Run(footers.sector_of(k), stop - k, header, footers.cut))
    return tuple(runs)
