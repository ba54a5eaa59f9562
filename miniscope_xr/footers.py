"""Recordings of the v3 firmware: whole frames in a row, each with a footer over its last 16 bytes.

There is no config sector and no count, and a card that was used before holds an older recording on the
same grid with the same frame numbers. The frame clock and the record length setting tell them apart.
"""

from __future__ import annotations

from statistics import median

import numpy as np

from miniscope_xr.detect import CardSectors
from miniscope_xr.device import ByteSource
from miniscope_xr.recording import Recording
from miniscope_xr.runs import Header, Pattern, Run
from miniscope_xr.words import dtype_of, footer_struct

FOOTER = 16  # bytes
_ALL = 4096  # frames up to which every footer is read at opening
_WINDOW = 24  # frames on each side whose clock is compared
_TOLERANCE = 3.0  # ms


class _Footers:
    """Footers by frame, each read once."""

    def __init__(self, source: ByteSource, card: CardSectors) -> None:
        assert card.build is not None
        self.source = source
        self.size = card.layout.sectors.size
        self.start = card.layout.sectors.data * self.size
        self.frame_bytes = card.build.frame_sectors * self.size
        self.lines = (card.build.width, card.build.height)
        self.dtype = dtype_of(footer_struct(card.layout))
        self.most = -(-max(source.size - self.start, 0) // self.frame_bytes)
        self._seen: dict[int, tuple[int, int] | None] = {}

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
    """Frames in a row whose footers count up."""
    if exhaustive:
        return next((k for k in range(footers.most) if footers.at(k) is None), footers.most)
    low, step = 0, 1
    while low + step < footers.most and footers.at(low + step) is not None:
        low, step = low + step, 2 * step
    high = min(low + step, footers.most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if footers.at(middle) is not None else (low, middle)
    return low + 1


def _time(footers: _Footers, k: int) -> int:
    found = footers.at(k)
    return -1 if found is None else found[0]


def _end_by_length(footers: _Footers, n: int, seconds: int) -> int:
    """Frames within the record length; the firmware stops at the first frame behind it."""
    limit = seconds * 1000 + 250
    low, high = 0, n
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _time(footers, middle) <= limit else (low, middle)
    return high


def _seam(footers: _Footers, n: int) -> tuple[int | None, list[str]]:
    """First frame of an older recording, by the frame clock; and doubts."""
    if n < 3:
        return None, []
    times = np.array([_time(footers, k) for k in range(n)])
    steps = np.diff(times)
    period = float(median(steps.tolist()))
    if period <= 0:
        return 1, []
    for k in range(1, n):
        if times[k] < times[k - 1]:
            return k, []
    # Writes are late after a stall but never early, so the least phase of a stretch is the frame clock's.
    phase = times - period * np.arange(n)
    doubts: list[str] = []
    for k in np.flatnonzero(np.abs(steps - period) > _TOLERANCE) + 1:
        before, after = phase[max(k - _WINDOW, 0) : k], phase[k : k + _WINDOW]
        jump = float(after.min() - before.min())
        if jump < -_TOLERANCE:
            return int(k), []  # frames never come early
        off = abs(jump - round(jump / period) * period)
        if off <= _TOLERANCE:
            continue  # late writes, or frames the firmware skipped (which leave no gap in the number)
        settled = int(np.sum(after - after.min() <= _TOLERANCE)) >= _WINDOW // 2
        if settled:
            return int(k), []
        doubts = [
            f"the frame clock changes at frame {k}: a slow card, or an older recording from there on; "
            f"if it is one, pass until={k - 1}"
        ]
    return None, doubts


def index_footers(source: ByteSource, card: CardSectors, exhaustive: bool, whole: bool) -> list[Recording]:
    """The one recording of a v3 card."""
    assert card.build is not None
    footers = _Footers(source, card)
    n = _extent(footers, exhaustive)
    seconds = int(card.settings.get("record_length", 0))
    warnings: list[str] = []
    end = n
    if not whole:
        end = _end_by_length(footers, n, seconds) if seconds else n
        if end <= _ALL or exhaustive:
            seam, warnings = _seam(footers, end)
            end = seam or end
        else:
            warnings = [
                f"the card keeps no count; frames 0 to {end - 1} were not compared one by one, so an older recording "
                "underneath is not excluded; index='scan' compares every frame"
            ]
    pattern = Pattern((footers.frame_bytes,), 0, footers.size)
    first = footers.at(0)
    assert first is not None
    lines = first[1]
    width = footers.frame_bytes // lines
    period = (_time(footers, end - 1) - first[0]) / max(end - 1, 1)
    complete = bool(seconds) and _time(footers, end - 1) + 3 * period + 50 >= seconds * 1000
    cut = end == n and footers.start + (n + 1) * footers.frame_bytes > source.size
    status = "finished" if complete else "truncated" if cut else "interrupted"
    header = Header(0, 0, 0, 0, 0, 0, 0, first[0], footers.frame_bytes, -1, -1, -1)
    run = Run(card.layout.sectors.data, end, header, pattern)
    return [Recording(0, (run,), width, lines, status, warnings=tuple(warnings))]
