"""What ``miniscope_xr.check`` returns: problems, in sentences and numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any

import numpy as np

from miniscope_xr.layout.arrays import Array
from miniscope_xr.tools.stream.gaps import Gap


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: a stable ``kind`` for programs, a ``sentence`` for people, ``numbers`` for both."""

    kind: str
    sentence: str
    numbers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RecordingReport:
    """What was found in one recording. Times in s, voltages in V; None where the card does not say."""

    number: int
    status: str
    frames: int
    complete_frames: int | None
    frames_lost: int
    partial_frames: int
    buffers: int
    buffers_dropped: int
    seconds: float
    frames_per_second: float | None
    longest_gap_frames: int
    longest_gap_seconds: float
    seconds_lost: float
    jitter_ms: float | None
    battery_start: float | None
    battery_end: float | None
    problems: tuple[Problem, ...] = ()
    lacking: tuple[int, ...] = ()
    """Rows known to lack buffers: all of them where every header was read, else what was seen."""
    looked_at: int = 0
    """Frames whose every header was read."""
    gaps: tuple[Gap, ...] = ()
    """Frames that never reached the card: before which row, how many, their numbers."""
    notes: tuple[str, ...] = ()
    """What is no problem and yet not to be passed over."""


@dataclass(frozen=True)
class CheckResult:
    """Result of :func:`check`; true when nothing is wrong."""

    card: str
    layout: str
    deep: bool
    recordings: tuple[RecordingReport, ...]
    problems: tuple[Problem, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether no problem was found."""
        return not self.all_problems

    def __bool__(self) -> bool:
        return self.ok

    @property
    def all_problems(self) -> list[Problem]:
        """Problems of the card and of every recording."""
        return [*self.problems, *(p for r in self.recordings for p in r.problems)]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {"ok": self.ok, **asdict(self)}

    def __str__(self) -> str:
        lines = [f"{self.card}: layout {self.layout}, {count(len(self.recordings), 'recording')}"]
        for r in self.recordings:
            lines += [f"recording {r.number}: {line}" for line in _describe(r)]
            lines += [f"  note: {text}" for text in r.notes]
            lines += [f"  PROBLEM: {p.sentence}" for p in r.problems]
        lines += [f"PROBLEM: {p.sentence}" for p in self.problems]
        frames, looked_at = sum(r.frames for r in self.recordings), sum(r.looked_at for r in self.recordings)
        if self.ok or looked_at < frames:
            lines.append(self._looked_at(looked_at, frames))
        return "\n".join(lines)

    def _looked_at(self, looked_at: int, frames: int) -> str:
        """Close with what was looked at; "no problem found" is not said while a frame lacks a buffer."""
        any_said = not self.ok or any(r.lacking for r in self.recordings)
        said = "nothing else was found" if any_said else "no problem found"
        if looked_at < frames:
            said += f" in the {looked_at:,} of {frames:,} frames that were looked at"
        return said if self.deep else f"{said} (--deep reads every buffer header)"

    def _repr_html_(self) -> str:
        """What a notebook shows: the sentences."""
        return f"<pre>{escape(str(self))}</pre>"


def count(n: int, noun: str) -> str:
    """``1 frame``, ``2,000 frames``."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def clock(seconds: float) -> str:
    """Write a length of time as 1:02:03, 2:03 or 3.4 s."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


@dataclass(frozen=True)
class FrameNames:
    """Names frames by their row in the dataset and by the device's own number, which differ where frames were lost."""

    numbers: Array

    def rows(self, frame_nums: Sequence[int]) -> list[int | None]:
        """Row of each device frame number; None for a frame of which nothing is on the card."""
        found = np.searchsorted(self.numbers, frame_nums).tolist()
        held = [row < len(self.numbers) and int(self.numbers[row]) for row in found]
        return [row if held[k] == frame_nums[k] else None for k, row in enumerate(found)]

    def of_frames(self, frame_nums: Sequence[int]) -> dict[str, Any]:
        """Numbers for programs: what the device calls every frame, and the rows of those that have one."""
        rows = [row for row in self.rows(frame_nums) if row is not None]
        return {"rows": rows, "frame_nums": list(frame_nums)}

    def named(self, frame_nums: Sequence[int], most: int = 5) -> str:
        """Write ``row 390 (device frame 399), row 391 (device frame 400) and 3 more``."""
        some = frame_nums[:most]
        named = [
            f"device frame {number} (lost, no row)" if row is None else f"row {row} (device frame {number})"
            for number, row in zip(some, self.rows(some), strict=True)
        ]
        return ", ".join(named) + (f" and {len(frame_nums) - most:,} more" if len(frame_nums) > most else "")


def _describe(r: RecordingReport) -> list[str]:
    rate = "" if r.frames_per_second is None else f" at {r.frames_per_second:.2f} frames/s"
    lines = [f"{r.status}, {count(r.frames, 'frame')} in {clock(r.seconds)}{rate}, {count(r.buffers, 'buffer')}"]
    if r.battery_start is not None and r.battery_end is not None:
        lines.append(f"battery {r.battery_start:.2f} V at the start, {r.battery_end:.2f} V at the end")
    if r.jitter_ms is not None:
        lines.append(f"frame clock jitter {r.jitter_ms:.2f} ms")
    return lines
