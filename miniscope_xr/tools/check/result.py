"""What :func:`miniscope_xr.check` returns: problems, in sentences and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any


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
            lines += [f"  PROBLEM: {p.sentence}" for p in r.problems]
        lines += [f"PROBLEM: {p.sentence}" for p in self.problems]
        if self.ok:
            lines.append("no problem found" + ("" if self.deep else " (--deep reads every buffer header)"))
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """What a notebook shows: the sentences."""
        return f"<pre>{escape(str(self))}</pre>"


def count(n: int, noun: str) -> str:
    """``1 frame``, ``2,000 frames``."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _describe(r: RecordingReport) -> list[str]:
    rate = "" if r.frames_per_second is None else f" at {r.frames_per_second:.2f} frames/s"
    lines = [f"{r.status}, {count(r.frames, 'frame')} in {r.seconds:.1f} s{rate}, {count(r.buffers, 'buffer')}"]
    if r.battery_start is not None and r.battery_end is not None:
        lines.append(f"battery {r.battery_start:.2f} V at the start, {r.battery_end:.2f} V at the end")
    if r.jitter_ms is not None:
        lines.append(f"frame clock jitter {r.jitter_ms:.2f} ms")
    return lines
