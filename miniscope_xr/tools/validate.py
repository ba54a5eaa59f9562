"""``check``: what is wrong with a card, in sentences a person understands, with numbers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from miniscope_xr.errors import CardReadError
from miniscope_xr.frames import FrameReader
from miniscope_xr.layout import Layout
from miniscope_xr.runs import Run, expected_headers, vouched
from miniscope_xr.store import CardStore, RecordingStore
from miniscope_xr.tools.outputs import progress_bar

_STEP = 1 << 15  # headers read at once


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
        lines = [f"{self.card}: layout {self.layout}, {_count(len(self.recordings), 'recording')}"]
        for r in self.recordings:
            lines += [f"recording {r.number}: {line}" for line in _describe(r)]
            lines += [f"  PROBLEM: {p.sentence}" for p in r.problems]
        lines += [f"PROBLEM: {p.sentence}" for p in self.problems]
        if self.ok:
            lines.append("no problem found" + ("" if self.deep else " (--deep reads every buffer header)"))
        return "\n".join(lines)


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _describe(r: RecordingReport) -> list[str]:
    rate = "" if r.frames_per_second is None else f" at {r.frames_per_second:.2f} frames/s"
    lines = [f"{r.status}, {_count(r.frames, 'frame')} in {r.seconds:.1f} s{rate}, {_count(r.buffers, 'buffer')}"]
    if r.battery_start is not None and r.battery_end is not None:
        lines.append(f"battery {r.battery_start:.2f} V at the start, {r.battery_end:.2f} V at the end")
    if r.jitter_ms is not None:
        lines.append(f"frame clock jitter {r.jitter_ms:.2f} ms")
    return lines


@dataclass
class _Scan:
    """What every header of a recording says."""

    missing: int = 0
    lapped: int = 0
    suspect: int = 0
    overflow: int = 0
    backwards: int = 0
    jitter: list[float] = field(default_factory=list)
    missing_frames: set[int] = field(default_factory=set)
    suspect_frames: set[int] = field(default_factory=set)


def _scan(store: RecordingStore, progress: bool) -> _Scan:
    """Read every header of a recording."""
    found = _Scan()
    reader = store.frames
    source = store.card.source()
    with progress_bar(store.recording.n_buffers, "headers", "buffer", progress) as bar:
        for number, run in enumerate(store.recording.runs):
            for start in range(0, run.count, _STEP):
                i = np.arange(start, min(start + _STEP, run.count))
                rows, good = reader.header_rows(source, run, i)
                _scan_rows(found, store, run, i, rows, good)
                bar.update(len(i))
            _scan_suspects(found, store, number)
    return found


def _scan_rows(
    found: _Scan, store: RecordingStore, run: Run, i: np.ndarray[Any, Any], rows: np.ndarray[Any, Any],
    good: np.ndarray[Any, Any],
) -> None:  # fmt: skip
    words = store.card.index.card.words
    for k in np.flatnonzero(~good):
        found.missing_frames.add(run.frame_of(int(i[k])))
        plausible = words and rows["length"][k] == words
        found.lapped += bool(plausible)
        found.missing += not plausible
    times = rows["timestamp"].astype(np.int64)
    size = 1 if run.single else len(run.pattern)
    if not run.single and len(i) > size:
        steps = (times[size:] - times[:-size])[good[size:] & good[:-size]]
        if len(steps) > 2:
            found.jitter.append(float(np.std(steps)) / store.recording.ticks)
    if words:
        excess = rows["buffer_count"].astype(np.int64) - rows["write_buffer_count"] - rows["dropped_buffer_count"]
        found.lapped += int(np.sum(good & (excess > 0)))
        slots = -(-store.frames.frame_bytes // store.frames.payload)
        found.overflow += int(np.sum(good & (rows["frame_buffer_count"] >= slots)))


def _scan_suspects(found: _Scan, store: RecordingStore, number: int) -> None:
    """Buffers of a run that the camera may have written over while they waited for the card.

    Buffer n is safe when buffer n + ring - 1 was complete only after the buffer written next had begun: until then
    the camera was not yet in its slot. Where n + ring - 1 was dropped, the frame clock says when it would have come.
    """
    runs = store.recording.runs
    run = runs[number]
    build = store.card.index.card.build
    names = store.card.header_dtype.names or ()
    if build is None or not build.ring or "write_timestamp" not in names or run.single:
        return
    source, size, ahead = store.card.source(), len(run.pattern), build.ring - 1
    follows = store.frames.header_rows(source, runs[number + 1], np.array([0]))[0] if number + 1 < len(runs) else None
    for start in range(0, run.count, _STEP):
        first, stop = max(start - ahead - size, 0), min(start + _STEP, run.count)
        i = np.arange(first, min(stop + ahead + 1, run.count))
        rows, good = store.frames.header_rows(source, run, i)
        times, writes = (rows[name].astype(np.int64) for name in ("timestamp", "write_timestamp"))
        # frames to go back for a buffer whose successor in the ring is on the card
        k = np.arange(start - first, stop - first)
        back = -(-np.maximum(k + ahead - len(i) + 1, 0) // size) * size
        k, back = k[k >= back], back[k >= back]
        begun = writes[np.minimum(k + 1, len(i) - 1)]
        known = good[k] & good[k - back] & good[k - back + ahead]
        if stop == run.count and len(k):  # what was written behind the run's last buffer
            known[-1] &= follows is not None
            begun[-1] = 0 if follows is None else int(follows["write_timestamp"][0])
        overtaken = times[k] + times[k - back + ahead] - times[k - back] <= begun
        for late in k[known & overtaken]:
            found.suspect += 1
            found.suspect_frames.add(run.frame_of(int(i[late])))


def _battery(store: RecordingStore) -> tuple[float | None, float | None]:
    """Battery voltage at the start (first measurement) and the end, in V."""
    card = store.card.index.card
    item = card.layout.buffer.get("battery_voltage")
    names = store.card.header_dtype.names or ()
    if item is None or "battery_voltage" not in names:
        return None, None
    n = store.recording.n_buffers
    # the firmware first measures 0.5 to 1 s after power-on
    early = np.unique(np.minimum(np.array([0, 25, 50, 100, 150, 200, 400]), n - 1))
    values = store.buffer_rows(np.append(early, n - 1))["battery_voltage"].astype(float)
    known = values[(values > 0) & (values <= 255)]
    if not len(known) or not 0 < values[-1] <= 255:
        return None, None
    scale = item.scale or 1.0
    return float(known[0]) * scale, float(values[-1]) * scale


def _gaps(reader: FrameReader) -> tuple[int, int, list[tuple[int, int]]]:
    """Frames lost, longest gap in frames, and (row before, row after) of each gap."""
    gaps = reader.gaps()
    lost = sum(n for _, n in gaps)
    return lost, max((n for _, n in gaps), default=0), [(row - 1, row) for row, _ in gaps]


def _times(store: RecordingStore, rows: list[int]) -> np.ndarray[Any, Any]:
    """Times of some rows in s; NaN for rows without a header."""
    if not rows:
        return np.zeros(0)
    described = store.describe(np.array(rows, np.int64))
    seconds = described.first["timestamp"] / store.recording.ticks / 1000
    return np.where(described.present > 0, seconds, np.nan)


def _report(store: RecordingStore, deep: bool, progress: bool) -> RecordingReport:
    recording, reader = store.recording, store.frames
    n = reader.count
    lost, longest, edges = _gaps(reader)
    start, end = _times(store, [0, n - 1])
    numbers = reader.frame_num(np.array([0, n - 1]))
    span = float(end - start)
    frames = int(numbers[1] - numbers[0])
    period = span / frames if frames > 0 and span > 0 else None
    partial = reader.partial_rows()
    problems: list[Problem] = []
    gap_seconds = [0.0]
    if edges:
        before, after = _times(store, [a for a, _ in edges if a >= 0]), _times(store, [b for a, b in edges if a >= 0])
        gap_seconds += [float(g) for g in after - before if np.isfinite(g)]
    seconds_lost = lost * (period or 0.0)
    if lost:
        problems.append(Problem(
            "frames lost",
            f"{_count(lost, 'frame')} never reached the card in {_count(len(edges), 'gap')} "
            f"({seconds_lost:.2f} s of the recording); the longest gap is {_count(longest, 'frame')}, "
            f"{max(gap_seconds):.2f} s between the frames on either side",
            {"frames": lost, "gaps": len(edges), "longest": longest, "seconds": seconds_lost},
        ))  # fmt: skip
    inner = [row for row in partial if row != n - 1]
    if inner:
        first_partial = reader.frame_num(np.array(inner[:1]))[0]
        problems.append(Problem(
            "partial frames",
            f"{_count(len(inner), 'frame')} lack buffers (the first is frame {int(first_partial)}); "
            "their missing pixels are 0, see buffers_present",
            {"frames": len(inner)},
        ))  # fmt: skip
    complete = jitter = None
    if deep:
        scan = _scan(store, progress)
        complete = _complete(store, progress)
        jitter = float(np.mean(scan.jitter)) if scan.jitter else None
        problems += _scan_problems(scan)
    if recording.status == "interrupted":
        problems.append(Problem(
            "interrupted",
            "the recording was interrupted: the firmware never wrote its counts (battery empty, card pulled, or the "
            f"Miniscope was switched on again since); {_count(n, 'frame')} were found all the same",
        ))  # fmt: skip
    elif recording.status == "truncated":
        problems.append(Problem(
            "truncated",
            f"the image ends at byte {store.card.source().size}, before the recording does: "
            f"{_count(recording.n_buffers, 'buffer')} of {recording.n_recorded:,} are there; copy the card again",
            {"found": recording.n_buffers, "recorded": recording.n_recorded},
        ))  # fmt: skip
    problems += [Problem("warning", _sentence(text)) for text in recording.warnings if "overwrote" not in text]
    battery = _battery(store)
    return RecordingReport(
        recording.number, recording.status, n, complete, lost, len(partial), recording.n_buffers,
        recording.n_dropped or recording.runs[-1].first.dropped, span + (period or 0.0),
        None if period is None else 1 / period, longest, max(gap_seconds), seconds_lost, jitter, *battery,
        problems=tuple(problems),
    )  # fmt: skip


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _complete(store: RecordingStore, progress: bool) -> int:
    total = 0
    n = store.frames.count
    with progress_bar(n, "frames", "frame", progress) as bar:
        for start in range(0, n, 1 << 13):
            rows = np.arange(start, min(start + (1 << 13), n))
            total += int(store.frames.describe(store.card.source(), rows).complete.sum())
            bar.update(len(rows))
    return total


def _scan_problems(scan: _Scan) -> list[Problem]:
    problems = []
    if scan.missing:
        problems.append(Problem(
            "failed writes",
            f"{_count(scan.missing, 'buffer')} in the middle of the recording never reached the card (in "
            f"{_count(len(scan.missing_frames), 'frame')}, the first is {min(scan.missing_frames)}); "
            "the card refused these writes, replace it",
            {"buffers": scan.missing, "frames": sorted(scan.missing_frames)[:100]},
        ))  # fmt: skip
    if scan.lapped:
        problems.append(Problem(
            "laps",
            f"{_count(scan.lapped, 'buffer')} were overtaken by the camera while they waited for a slow card: "
            "they hold a later buffer than their place says",
            {"buffers": scan.lapped},
        ))  # fmt: skip
    if scan.suspect:
        problems.append(Problem(
            "suspect buffers",
            f"{_count(scan.suspect, 'buffer')} may be mixed with later pixels: the camera came round the ring buffer "
            f"before they were written (frames {', '.join(map(str, sorted(scan.suspect_frames)[:10]))}"
            f"{' ...' if len(scan.suspect_frames) > 10 else ''})",
            {"buffers": scan.suspect, "frames": sorted(scan.suspect_frames)[:100]},
        ))  # fmt: skip
    if scan.overflow:
        problems.append(Problem(
            "overlong frames",
            f"{_count(scan.overflow, 'buffer')} are more than a frame has: two camera frames under one number, or the "
            "first frame after a restart",
            {"buffers": scan.overflow},
        ))  # fmt: skip
    return problems


def _stale(card: CardStore) -> Problem | None:
    """Buffers of an older recording right behind the last one."""
    found = card.index
    last = found.recordings[-1]
    if not found.card.words:
        return None
    size = found.layout.sectors.size
    data = card.source().read(last.end_sector * size, size)
    if len(data) < size:
        return None
    header = np.frombuffer(data, card.header_dtype, 1)
    if not vouched(header, {}, found.card.words, found.card.payload)[0]:
        return None
    expected = expected_headers(last.runs[-1], np.array([last.runs[-1].count]))
    same = vouched(header, expected, found.card.words, found.card.payload)[0]
    return Problem(
        "older recording",
        f"an older recording lies behind the end, from sector {last.end_sector} on (frame {int(header['frame_num'][0])}"
        f"{', counters running on' if same else ''}); it is not returned. Wipe the card before the next session: "
        "after a power loss it is hard to tell the two apart",
        {"sector": last.end_sector},
    )  # fmt: skip


def check(
    card: str | os.PathLike[str],
    deep: bool = False,
    layout: str | os.PathLike[str] | Mapping[str, Any] | Layout | None = None,
    progress: bool = False,
) -> CheckResult:
    """Check a card or image.

    Parameters
    ----------
    card
        Image file or block device.
    deep
        Read every buffer header (the whole index), not only the ends.
    layout
        As in ``xr.open_dataset``.
    progress
        Show progress bars (on a terminal).

    Returns
    -------
    CheckResult
        True where nothing is wrong; ``print`` it, or take ``problems`` and ``to_dict()``.
    """
    opened = CardStore(card, layout, index="scan" if deep else "bisect", errors="fill")
    try:
        problems = []
        reports = []
        for recording in opened.index.recordings:
            store = RecordingStore(opened, recording)
            store.frames.salvage = False
            try:
                reports.append(_report(store, deep, progress))
            except CardReadError as error:
                problems.append(Problem("unreadable", f"{error.strerror} ({recording.number})"))
        older = _stale(opened)
        if older is not None:
            problems.append(older)
        return CheckResult(opened.path, opened.index.layout.id, deep, tuple(reports), tuple(problems))
    finally:
        opened.close()
