"""``check``: what is wrong with a card, in sentences a person understands, with numbers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import numpy as np

from miniscope_xr.card import OpenCard, OpenRecording
from miniscope_xr.errors import CardReadError
from miniscope_xr.frames.rate import clock_step
from miniscope_xr.index.front import Card
from miniscope_xr.layout import SECTOR, Layout
from miniscope_xr.layout.arrays import Array
from miniscope_xr.tools.check.fake import fakes
from miniscope_xr.tools.check.result import CheckResult, FrameNames, Problem, RecordingReport, count
from miniscope_xr.tools.check.scan import scan_headers, scan_problems
from miniscope_xr.tools.stream.gaps import Gap, recording_gaps
from miniscope_xr.tools.stream.outputs import progress_bar

_LOOKED_AT = 2000  # buffers whose headers `check` reads unless it is deep: a second or two on a card
_STEP = 1 << 13  # frames described at once
_NEVER = "{} never reached the card {} ({})"
_GONE = "{} gone {} ({}): counted as written by the Miniscope, and not there"
_MIXED = "{} missing {} ({}): dropped for a slow card, or gone since"
_ENDS = 8  # rows at either end among which one with a time is looked for

__all__ = ["CheckResult", "Problem", "RecordingReport", "check"]


def _battery(opened: OpenRecording) -> tuple[float | None, float | None]:
    """Battery voltage at the start (first measurement) and the end, in V."""
    card = opened.card.index
    item = card.layout.buffer.get("battery_voltage")
    names = opened.card.header_dtype.names or ()
    if item is None or "battery_voltage" not in names:
        return None, None
    n = opened.recording.n_buffers
    # the firmware first measures 0.5 to 1 s after power-on
    early = np.unique(np.minimum(np.array([0, 25, 50, 100, 150, 200, 400]), n - 1))
    values = opened.buffer_rows(np.append(early, n - 1))["battery_voltage"].astype(float)
    known = values[(values > 0) & (values <= 255)]
    if not len(known) or not 0 < values[-1] <= 255:
        return None, None
    scale = item.scale or 1.0
    return float(known[0]) * scale, float(values[-1]) * scale


def _times(opened: OpenRecording, rows: list[int]) -> Array:
    """Times of some rows in s; NaN for rows without a header."""
    if not rows:
        return np.zeros(0)
    described = opened.describe(np.array(rows, np.int64))
    seconds = described.first["timestamp"] / opened.recording.ticks / 1000
    return np.where(described.present > 0, seconds, np.nan)


def _length(opened: OpenRecording, numbers: Array, period: float | None) -> float:
    """Length of a recording in s, by its first and last row that have a time: of others nothing but black is left."""
    n = len(numbers)
    rows = np.unique(np.concatenate([np.arange(min(n, _ENDS)), np.arange(max(n - _ENDS, 0), n)]))
    times = _times(opened, rows.tolist())
    timed = np.flatnonzero(np.isfinite(times))
    if not len(timed):
        return 0.0
    first, last = rows[timed[0]], rows[timed[-1]]
    without = int(numbers[first] - numbers[0] + numbers[-1] - numbers[last])
    return float(times[timed[-1]] - times[timed[0]]) + (without + 1) * (period or 0.0)


def _rate(opened: OpenRecording, rows: Array) -> float | None:
    """Seconds from frame to frame by the recording's clock."""

    def look(some: Array) -> tuple[Any, Any]:
        return np.nan_to_num(1000 * _times(opened, some.tolist()), nan=-1).astype(np.int64), rows[some]

    step = clock_step(opened.frames.count, look)
    return None if step is None else step / 1000


def _lost(opened: OpenRecording, gaps: list[Gap], numbers: Array, period: float) -> tuple[float, list[Problem]]:
    """Longest time between the frames around a gap in s, and the gaps as problems, those of one cause as one."""
    inner = [gap for gap in gaps if gap.row > 0]
    before, after = _times(opened, [gap.row - 1 for gap in inner]), _times(opened, [gap.row for gap in inner])
    around = {gap: float(seconds) for gap, seconds in zip(inner, after - before, strict=True) if np.isfinite(seconds)}
    why = _why_gone(opened)
    causes: dict[str, list[Gap]] = {}
    for gap in gaps:
        causes.setdefault(why.get(int(numbers[gap.row]), _NEVER), []).append(gap)
    problems = []
    for cause, some in causes.items():
        lost, longest = sum(gap.count for gap in some), max(gap.count for gap in some)
        where = f"in {count(len(some), 'gap')}" if some[-1].row else "at the beginning"
        most = f"; the longest gap is {count(longest, 'frame')}" if some[-1].row else ""
        if seconds := [around[gap] for gap in some if gap in around]:
            most += f", {max(seconds):.2f} s between the frames on either side"
        how = "" if gaps[0].counted else "; this device does not number what it loses, its clock shows it"
        problems.append(Problem(
            "frames lost" if cause is _NEVER else "frames gone",
            cause.format(count(lost, "frame"), where, f"{lost * period:.2f} s of the recording") + most + how,
            {"frames": lost, "gaps": len(some), "longest": longest, "seconds": lost * period},
        ))  # fmt: skip
    return max(around.values(), default=0.0), problems


def _why_gone(opened: OpenRecording) -> dict[int, str]:
    """What is to be said of the frames missing in front of some frame, where the device counted them as written."""
    place, dropped, why = 0, 0, {}
    for run in opened.recording.runs:
        if run.first.written > place:
            why[run.first.frame] = _GONE if run.first.dropped == dropped else _MIXED
        place, dropped = run.end_place, run.first.dropped
    return why


def _report(opened: OpenRecording, deep: bool, progress: bool) -> RecordingReport:
    """Look at one recording: its gaps, its frames, how it ended; ``deep`` at every buffer's header too."""
    recording, reader = opened.recording, opened.frames
    n = reader.count
    numbers = reader.frame_num(np.arange(n))
    period = _rate(opened, numbers)
    gaps = recording_gaps(opened)
    lost = sum(gap.count for gap in gaps)
    seconds_lost = lost * (period or 0.0)
    names = FrameNames(numbers)
    complete, looked_at, lacking = _lacking(opened, deep, progress)
    longest_seconds, problems = _lost(opened, gaps, numbers, period or 0.0)
    problems += _partial(lacking, names, numbers, every=complete is not None)
    jitter = None
    if deep:
        scan = scan_headers(opened, progress)
        jitter = float(np.mean(scan.jitter)) if scan.jitter else None
        problems += scan_problems(scan, names)
    problems += _ending(opened, n)
    problems += [Problem("warning", _sentence(text)) for text in recording.warnings if "overwrote" not in text]
    notes = []
    if lacking and lacking[-1] == n - 1:
        notes.append(f"the last frame, {names.named([int(numbers[-1])])}, lacks buffers: the recording ends within it")
    return RecordingReport(
        recording.number, recording.status, n, complete, lost, len(lacking), recording.n_buffers,
        recording.n_dropped or recording.runs[-1].first.dropped, _length(opened, numbers, period),
        None if period is None else 1 / period, max((gap.count for gap in gaps), default=0), longest_seconds,
        seconds_lost, jitter, *_battery(opened),
        problems=tuple(problems), lacking=tuple(lacking), looked_at=looked_at, gaps=tuple(gaps),
        notes=tuple(notes),
    )  # fmt: skip


def _partial(lacking: list[int], names: FrameNames, numbers: Array, every: bool) -> list[Problem]:
    """Frames that lack buffers, of ``every`` one or of a sample; in the last one a recording may just end."""
    inner = [int(numbers[row]) for row in lacking if row != len(numbers) - 1]
    if not inner:
        return []
    some = (
        f"{'' if every else 'at least '}{count(len(inner), 'frame')} {'lacks' if len(inner) == 1 else 'lack'} buffers"
    )
    return [Problem(
        "partial frames", f"{some} ({names.named(inner)}); the missing pixels are black",
        {"frames": len(inner), **names.of_frames(inner)},
    )]  # fmt: skip


def _interrupted(card: Card, counted: bool) -> str:
    """What is known of the end of a recording without counts; ``counted``: one behind it on the card has some."""
    unknown = "whether the recording was stopped or interrupted is not known:"
    if card.counts_gone:
        return f"{unknown} its counts are not on the card any more"
    if not card.layout.config:
        if card.settings.get("record_length"):
            return "the recording ended before its record length was over"
        return f"{unknown} this device keeps no counts"
    if counted:
        return f"{unknown} the card has the counts of the next one only"
    written = card.build.config_written if card.build else ()
    if "timed stop" in written and "stop" not in written:
        return (
            "the recording was stopped by hand, of which this firmware writes nothing down, or it was interrupted "
            "(battery empty, card pulled)"
        )
    return (
        "the recording was interrupted: the firmware never wrote its counts (battery empty, card pulled, or the "
        "Miniscope was switched on again since)"
    )


def _ending(opened: OpenRecording, frames: int) -> list[Problem]:
    """What is wrong with the end of a recording."""
    recording = opened.recording
    if recording.status == "interrupted":
        card = opened.card.index
        counted = any(each.n_recorded for each in card.recordings if each.number > recording.number)
        said = f"{_interrupted(card, counted)}; {count(frames, 'frame')} were found all the same"
        return [Problem("interrupted", said)]
    if recording.status == "truncated":
        whole = f" of {recording.n_recorded:,}" if recording.n_recorded else ""  # a v3 card keeps no count
        return [Problem(
            "truncated",
            f"the image ends at byte {opened.card.source().size:,}, before the recording does: "
            f"{count(recording.n_buffers, 'buffer')}{whole} are there; copy the card again",
            {"found": recording.n_buffers, "recorded": recording.n_recorded or None},
        )]  # fmt: skip
    return []


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _lacking(opened: OpenRecording, deep: bool, progress: bool) -> tuple[int | None, int, list[int]]:
    """Whole frames (None where not all were looked at), frames looked at, and the rows that lack buffers.

    Deep, the headers of all frames are read; else those of a short recording, or of frames all over a long one, beside
    what the counters tell without reading.
    """
    n = opened.frames.count
    rows = np.arange(n)
    if not deep and opened.recording.n_buffers > _LOOKED_AT:
        rows = np.unique(np.linspace(0, n - 1, max(_LOOKED_AT * n // opened.recording.n_buffers, 2)).astype(np.int64))
    lacking = set(opened.frames.partial_rows())
    with progress_bar(len(rows), "frames", "frame", progress) as bar:
        for start in range(0, len(rows), _STEP):
            part = rows[start : start + _STEP]
            lacking.update(part[~opened.frames.describe(opened.card.source(), part).complete].tolist())
            bar.update(len(part))
    return (n - len(lacking) if len(rows) == n else None), len(rows), sorted(lacking)


def _stale(card: OpenCard) -> Problem | None:
    """Buffers of an older recording right behind the last one."""
    found = card.index
    last = found.recordings[-1]
    framing = found.framing
    data = card.source().read(last.end_sector * SECTOR, SECTOR) if framing.words else b""
    if len(data) < SECTOR:
        return None
    header = np.frombuffer(data, card.header_dtype, 1)
    if not framing.vouch(header, {})[0]:
        return None
    same = framing.vouched(header, last.runs[-1], np.array([last.runs[-1].count]))[0]
    return Problem(
        "older recording",
        f"an older recording lies behind the end, from sector {last.end_sector} on (frame {int(header['frame_num'][0])}"
        f"{', counters running on' if same else ''}); it is not returned. Wipe the card before the next session: "
        "after a power loss it is hard to tell the two apart",
        {"sector": last.end_sector, "frame_num": int(header["frame_num"][0])},
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
    with closing(OpenCard(card, layout, index="scan" if deep else "bisect", errors="fill")) as open_card:
        problems = []
        reports = []
        for recording in open_card.index.recordings:
            opened = OpenRecording(open_card, recording, strict=True)
            try:
                reports.append(_report(opened, deep, progress))
            except CardReadError as error:
                problems.append(Problem("unreadable", f"{error.strerror} ({recording.number})"))
        problems += fakes(open_card)
        older = _stale(open_card)
        if older is not None:
            problems.append(older)
        return CheckResult(open_card.path, open_card.index.layout.id, deep, tuple(reports), tuple(problems))
