"""Every header of a recording: failed writes, laps, suspect buffers, jitter."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from miniscope_xr.card import OpenRecording
from miniscope_xr.index.runs import Run
from miniscope_xr.layout.arrays import Array
from miniscope_xr.tools.check.result import FrameNames, Problem, count
from miniscope_xr.tools.stream.outputs import progress_bar

_STEP = 1 << 15  # headers read at once


@dataclass
class Odd:
    """Buffers with one thing wrong, and the numbers of their frames."""

    buffers: int = 0
    frames: set[int] = field(default_factory=set)

    def add(self, run: Run, places: Iterable[int]) -> None:
        """Count some buffers of a run."""
        self.count(run.frame_of(int(i)) for i in places)

    def count(self, frames: Iterable[int]) -> None:
        """Count a buffer of each of these frames."""
        for frame in frames:
            self.buffers += 1
            self.frames.add(frame)


@dataclass
class HeaderScan:
    """What every header of a recording says."""

    buffers_a_frame: int
    missing: Odd = field(default_factory=Odd)
    lapped: Odd = field(default_factory=Odd)
    suspect: Odd = field(default_factory=Odd)
    overlong: Odd = field(default_factory=Odd)
    jitter: list[float] = field(default_factory=list)


def scan_headers(opened: OpenRecording, progress: bool) -> HeaderScan:
    """Read every header of a recording."""
    found = HeaderScan(max(len(run.cut) for run in opened.recording.runs))
    reader = opened.frames
    source = opened.card.source()
    with progress_bar(opened.recording.n_buffers, "headers", "buffer", progress) as bar:
        for number, run in enumerate(opened.recording.runs):
            for start in range(0, run.count, _STEP):
                i = np.arange(start, min(start + _STEP, run.count))
                rows, good = reader.header_rows(source, run, i)
                _take(found, opened, run, i, rows, good)
                bar.update(len(i))
            _suspects(found, opened, number)
    return found


def _take(
    found: HeaderScan, opened: OpenRecording, run: Run, i: Array, rows: Array,
    good: Array,
) -> None:  # fmt: skip
    framing = opened.card.index.framing
    other = ~good & (rows["length"] == framing.marker) if framing.words else np.zeros(len(i), bool)
    found.missing.add(run, _without(run, i[~good & ~other], opened.recording.overwritten))
    found.lapped.add(run, i[other])
    times = rows["timestamp"].astype(np.int64)
    size = len(run.cut)
    if len(i) > size:
        steps = (times[size:] - times[:-size])[good[size:] & good[:-size]]
        if len(steps) > 2:
            found.jitter.append(float(np.std(steps)) / opened.recording.ticks)
    if framing.words and "dropped_buffer_count" in framing.layout.buffer:
        overrun = rows["buffer_count"].astype(np.int64) - rows["write_buffer_count"] - rows["dropped_buffer_count"]
        late = np.flatnonzero(good & (overrun > 0))
        found.lapped.count(_lapped(rows[k], int(overrun[k]), found.buffers_a_frame) for k in late)
    if framing.words:
        slots = -(-opened.frames.frame_bytes // opened.frames.payload)
        found.overlong.add(run, i[good & (rows["frame_buffer_count"] >= slots)])


def _without(run: Run, i: Array, overwritten: Iterable[tuple[int, int]]) -> Array:
    """Leave out buffers in sectors of which it is known, and said, what has overwritten them."""
    for first, stop in overwritten:
        at = run.sectors_of(i)
        i = i[
            [
                k
                for k, sector in enumerate(at.tolist())
                if sector >= stop or sector + run.sector_count(int(i[k])) <= first
            ]
        ]
    return i


def _lapped(header: np.void, overrun: int, size: int) -> int:
    """Frame whose buffer was due where a later one, ``overrun`` buffers on, was written; frames have ``size`` buffers.

    Buffer 43 (frame 8, its index 3) in the place of buffer 27, of 5 a frame: it was frame 5 that lost a buffer.
    """
    return int(header["frame_num"]) + (int(header["frame_buffer_count"]) - overrun) // size


def _suspects(found: HeaderScan, opened: OpenRecording, number: int) -> None:
    """Buffers of a run that the camera may have written over while they waited for the card.

    Buffer n is safe when buffer n + ring - 1 was complete only after the buffer written next had begun: until then
    the camera was not yet in its slot. Where n + ring - 1 was dropped, the frame clock says when it would have come.
    """
    runs = opened.recording.runs
    run = runs[number]
    build = opened.card.index.build
    names = opened.card.header_dtype.names or ()
    if build is None or not build.ring or "write_timestamp" not in names or run.odd:
        return
    source, size, ahead = opened.card.source(), len(run.cut), build.ring - 1
    follows = opened.frames.header_rows(source, runs[number + 1], np.array([0]))[0] if number + 1 < len(runs) else None
    for start in range(0, run.count, _STEP):
        first, stop = max(start - ahead - size, 0), min(start + _STEP, run.count)
        i = np.arange(first, min(stop + ahead + 1, run.count))
        rows, good = opened.frames.header_rows(source, run, i)
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
        lapped = times[k] + times[k - back + ahead] - times[k - back] <= begun
        found.suspect.add(run, i[k[known & lapped]])


def scan_problems(scan: HeaderScan, places: FrameNames) -> list[Problem]:
    """What the headers of a recording tell, as problems; every frame of each is in its numbers."""

    def problem(kind: str, seen: Odd, sentence: Callable[[str, str], str]) -> list[Problem]:
        if not seen.buffers:
            return []
        frames = sorted(seen.frames)
        said = sentence(count(seen.buffers, "buffer"), f"in {count(len(frames), 'frame')}: {places.named(frames)}")
        return [Problem(kind, said, {"buffers": seen.buffers, "frames": frames, **places.of_frames(frames)})]

    return [
        *problem("failed writes", scan.missing, lambda buffers, where: (
            f"{buffers} missing in the middle of the recording ({where}): refused by the card, or overwritten since. "
            "Prove the card with `miniscope-xr qualify` before it is used again"
        )),
        *problem("laps", scan.lapped, lambda buffers, where: (
            f"{buffers} overtaken by the camera while waiting for a slow card: a later one is in that place ({where})"
        )),
        *problem("suspect buffers", scan.suspect, lambda buffers, where: (
            f"{buffers} may be mixed with later pixels: the camera came round the ring buffer before the card had "
            f"taken what was there ({where})"
        )),
        *problem("overlong frames", scan.overlong, lambda buffers, where: (
            f"{buffers} more than a frame has: two camera frames under one number, or the first frame after a restart "
            f"({where})"
        )),
    ]  # fmt: skip
