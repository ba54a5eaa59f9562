"""Every header of a recording: failed writes, laps, suspect buffers, jitter."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from miniscope_xr.card import OpenRecording
from miniscope_xr.index.runs import Run
from miniscope_xr.tools.check.result import Places, Problem, count
from miniscope_xr.tools.stream.outputs import progress_bar

_STEP = 1 << 15  # headers read at once


@dataclass
class HeaderScan:
    """What every header of a recording says."""

    missing: int = 0
    lapped: int = 0
    suspect: int = 0
    overflow: int = 0
    jitter: list[float] = field(default_factory=list)
    missing_frames: set[int] = field(default_factory=set)
    suspect_frames: set[int] = field(default_factory=set)


def scan_headers(store: OpenRecording, progress: bool) -> HeaderScan:
    """Read every header of a recording."""
    found = HeaderScan()
    reader = store.frames
    source = store.card.source()
    with progress_bar(store.recording.n_buffers, "headers", "buffer", progress) as bar:
        for number, run in enumerate(store.recording.runs):
            for start in range(0, run.count, _STEP):
                i = np.arange(start, min(start + _STEP, run.count))
                rows, good = reader.header_rows(source, run, i)
                _take(found, store, run, i, rows, good)
                bar.update(len(i))
            _suspects(found, store, number)
    return found


def _take(
    found: HeaderScan, store: OpenRecording, run: Run, i: np.ndarray[Any, Any], rows: np.ndarray[Any, Any],
    good: np.ndarray[Any, Any],
) -> None:  # fmt: skip
    framing = store.card.index.framing
    for k in np.flatnonzero(~good):
        found.missing_frames.add(run.frame_of(int(i[k])))
        plausible = framing.words and rows["length"][k] == framing.marker
        found.lapped += bool(plausible)
        found.missing += not plausible
    times = rows["timestamp"].astype(np.int64)
    size = len(run.cut)
    if len(i) > size:
        steps = (times[size:] - times[:-size])[good[size:] & good[:-size]]
        if len(steps) > 2:
            found.jitter.append(float(np.std(steps)) / store.recording.ticks)
    if framing.words:
        excess = rows["buffer_count"].astype(np.int64) - rows["write_buffer_count"] - rows["dropped_buffer_count"]
        found.lapped += int(np.sum(good & (excess > 0)))
        slots = -(-store.frames.frame_bytes // store.frames.payload)
        found.overflow += int(np.sum(good & (rows["frame_buffer_count"] >= slots)))


def _suspects(found: HeaderScan, store: OpenRecording, number: int) -> None:
    """Buffers of a run that the camera may have written over while they waited for the card.

    Buffer n is safe when buffer n + ring - 1 was complete only after the buffer written next had begun: until then
    the camera was not yet in its slot. Where n + ring - 1 was dropped, the frame clock says when it would have come.
    """
    runs = store.recording.runs
    run = runs[number]
    build = store.card.index.build
    names = store.card.header_dtype.names or ()
    if build is None or not build.ring or "write_timestamp" not in names or run.odd:
        return
    source, size, ahead = store.card.source(), len(run.cut), build.ring - 1
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


def scan_problems(scan: HeaderScan, places: Places) -> list[Problem]:
    """What the headers of a recording tell, as problems."""
    problems = []
    if scan.missing:
        rows = places.rows(scan.missing_frames)
        problems.append(Problem(
            "failed writes",
            f"{count(scan.missing, 'buffer')} in the middle of the recording never reached the card (in "
            f"{count(len(rows), 'frame')}: {places.named(rows)}); the card refused these writes, replace it",
            {"buffers": scan.missing, "frames": sorted(scan.missing_frames), "rows": rows},
        ))  # fmt: skip
    if scan.lapped:
        problems.append(Problem(
            "laps",
            f"{count(scan.lapped, 'buffer')} were overtaken by the camera while they waited for a slow card: "
            "they hold a later buffer than their place says",
            {"buffers": scan.lapped},
        ))  # fmt: skip
    if scan.suspect:
        rows = places.rows(scan.suspect_frames)
        problems.append(Problem(
            "suspect buffers",
            f"{count(scan.suspect, 'buffer')} may be mixed with later pixels: the camera came round the ring buffer "
            f"before they were written (in {places.named(rows, 10)})",
            {"buffers": scan.suspect, "frames": sorted(scan.suspect_frames), "rows": rows},
        ))  # fmt: skip
    if scan.overflow:
        problems.append(Problem(
            "overlong frames",
            f"{count(scan.overflow, 'buffer')} are more than a frame has: two camera frames under one number, or the "
            "first frame after a restart",
            {"buffers": scan.overflow},
        ))  # fmt: skip
    return problems
