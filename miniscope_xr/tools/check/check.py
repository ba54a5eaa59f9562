"""``check``: what is wrong with a card, in sentences a person understands, with numbers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from miniscope_xr.card import CardStore, RecordingStore
from miniscope_xr.errors import CardReadError
from miniscope_xr.frames.reader import FrameReader
from miniscope_xr.index.runs import expected_headers, vouched
from miniscope_xr.layout import Layout
from miniscope_xr.tools.check.result import CheckResult, Problem, RecordingReport, count
from miniscope_xr.tools.check.scan import scan_headers, scan_problems
from miniscope_xr.tools.stream.outputs import progress_bar

__all__ = ["CheckResult", "Problem", "RecordingReport", "check"]


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
            f"{count(lost, 'frame')} never reached the card in {count(len(edges), 'gap')} "
            f"({seconds_lost:.2f} s of the recording); the longest gap is {count(longest, 'frame')}, "
            f"{max(gap_seconds):.2f} s between the frames on either side",
            {"frames": lost, "gaps": len(edges), "longest": longest, "seconds": seconds_lost},
        ))  # fmt: skip
    inner = [row for row in partial if row != n - 1]
    if inner:
        first_partial = reader.frame_num(np.array(inner[:1]))[0]
        problems.append(Problem(
            "partial frames",
            f"{count(len(inner), 'frame')} lack buffers (the first is frame {int(first_partial)}); "
            "their missing pixels are 0, see buffers_present",
            {"frames": len(inner)},
        ))  # fmt: skip
    complete = jitter = None
    if deep:
        scan = scan_headers(store, progress)
        complete = _complete(store, progress)
        jitter = float(np.mean(scan.jitter)) if scan.jitter else None
        problems += scan_problems(scan)
    if recording.status == "interrupted":
        problems.append(Problem(
            "interrupted",
            "the recording was interrupted: the firmware never wrote its counts (battery empty, card pulled, or the "
            f"Miniscope was switched on again since); {count(n, 'frame')} were found all the same",
        ))  # fmt: skip
    elif recording.status == "truncated":
        problems.append(Problem(
            "truncated",
            f"the image ends at byte {store.card.source().size}, before the recording does: "
            f"{count(recording.n_buffers, 'buffer')} of {recording.n_recorded:,} are there; copy the card again",
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
            store.frames.buffers.salvage = False
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
