"""What a report shows of one recording, from a bounded number of reads however long it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from miniscope_xr.engine.sidecar import told
from miniscope_xr.errors import CardReadError, OptionError
from miniscope_xr.layout.arrays import Array, Ints
from miniscope_xr.source.open import address
from miniscope_xr.tools.check.quality import quality
from miniscope_xr.tools.check.result import clock
from miniscope_xr.tools.stream.footage import Footage, Images
from miniscope_xr.tools.stream.gaps import Gap
from miniscope_xr.tools.stream.outputs import begin_step, progress_bar
from miniscope_xr.tools.stream.selection import Picture, Preview, chosen, picture_of
from miniscope_xr.tools.stream.summary import Projections, whole_frames
from miniscope_xr.tools.stream.timing import BLANK, frame_numbers, frame_rate, milliseconds

if TYPE_CHECKING:
    from miniscope_xr.engine.options import LayoutLike
    from miniscope_xr.tools.check.check import RecordingReport
    from miniscope_xr.tools.stream.footage import PathLike

_HEADERS = 1000  # pairs of frames whose headers are drawn
_FRAMES = 1500
_FILM_FRAMES = 160
_SHEET = 12
_BATCH = 25


@dataclass(frozen=True)
class LostTime:
    """A gap on the time axis: s from the start."""

    start: float
    stop: float
    gap: Gap


@dataclass(frozen=True)
class Quality:
    """What the pixels tell: sentences, and values to draw against times in s, of frames from all over the recording."""

    findings: list[str]
    times: Array
    series: dict[str, Array]
    frames: int


@dataclass(frozen=True)
class Findings:
    """One recording, ready to be shown. Times in s since its first frame (the clock of a DAQ starts at power-on)."""

    report: RecordingReport
    attrs: dict[str, Any]
    rate: float
    seconds: float
    lost: list[LostTime]
    times: Array
    series: dict[str, Array]
    projections: dict[str, Array]
    projected: int
    sheet: list[tuple[str, Images]]
    film: Images
    film_labels: list[str]
    quality: Quality | None = None
    dff: bool = False
    """Whether sheet and film show dF/F."""


def _sampled_rows(n: int, gaps: Sequence[Gap]) -> Ints:
    """Rows evenly over the recording with the row behind each, and those beside every gap (the first thousand of them).

    Rows come in pairs, so that what is drawn as the step from one frame to the next is one.
    """
    spread = np.linspace(0, n - 1, min(n, _HEADERS)).astype(np.int64)
    edges = np.array([max(gap.row - 1, 0) for gap in gaps[:1000]], np.int64)
    rows = np.concatenate([spread, edges])
    return np.unique(np.concatenate([rows, np.minimum(rows + 1, n - 1)]))


def _gaps(gaps: Sequence[Gap], rows: Ints, times: Array) -> list[LostTime]:
    """Gaps at the times of the sampled rows on either side."""
    behind = np.array([gap.row for gap in gaps], np.int64)
    starts, stops = np.interp(np.maximum(behind - 1, 0), rows, times), np.interp(behind, rows, times)
    return [LostTime(float(a), float(b), gap) for a, b, gap in zip(starts, stops, gaps, strict=True)]


def _series(ds: xr.Dataset, rows: Ints, times: Array) -> dict[str, Array]:
    """Values to draw against the sampled times."""
    found: dict[str, Array] = {}
    table = ds.isel(frame=rows)
    if len(rows) > 1:
        step = np.where(np.diff(rows) == 1, np.diff(times) * 1000, np.nan)  # undivided: a gap is as long as it was
        found["interval"] = np.concatenate([[np.nan], step])
    if "battery_voltage" in ds.variables:
        volts = np.asarray(table["battery_voltage"].values, float)
        found["battery"] = np.where(volts > 0, volts, np.nan)
    if "write_timestamp" in ds.variables:
        wait = table["write_timestamp"].values.astype(np.int64) - table["timestamp"].values.astype(np.int64)
        found["wait"] = wait.astype(float)
    if "ewl" in ds.variables and np.ptp(table["ewl"].values) > 0:
        found["ewl"] = table["ewl"].values.astype(float)
    return found


def _blocks(count: int) -> Ints:
    """Numbers of the batches that are looked at, spread evenly over the recording."""
    blocks = -(-count // _BATCH)
    return np.unique(np.linspace(0, blocks - 1, min(blocks, _FRAMES // _BATCH)).astype(np.int64))


def _quality(ds: xr.Dataset, start: float, progress: bool) -> Quality | None:
    """Measure the frames of these batches, None where nothing can be; ``start`` is the first frame's time in ms."""
    n = ds.sizes["frame"]
    rows = (_blocks(n)[:, np.newaxis] * _BATCH + np.arange(_BATCH)).reshape(-1)
    part = ds.isel(frame=rows[rows < n])
    try:
        found = quality(part, progress)
    except OptionError:  # no frame is whole, or they are tiny: the projections say so
        return None
    times = milliseconds(part["time"].values)
    known = times != BLANK
    series = {name: found[name].values[known] for name in ("mean", "sharpness", "banding")}
    moved = np.hypot(found["shift_y"].values, found["shift_x"].values)[known]
    return Quality(
        found.attrs["findings"], (times[known] - start) / 1000.0, {**series, "moved": moved},
        found.attrs["frames_measured"],
    )  # fmt: skip


def _projections(ds: xr.Dataset, progress: bool) -> Projections:
    """Project batches spread evenly over the recording."""
    footage = Footage(ds, ["complete"])
    sums = Projections(footage.height, footage.width)
    blocks = _blocks(footage.count)
    with progress_bar(min(len(blocks) * _BATCH, footage.count), "report", "frame", progress) as bar:
        for block in blocks.tolist():
            for rows, images in footage.parts(block * _BATCH, min((block + 1) * _BATCH, footage.count)):
                sums.add(whole_frames(footage.columns, rows, images))
            bar.update(min(_BATCH, footage.count - block * _BATCH))
    return sums


def _pictures(ds: xr.Dataset, rows: Ints) -> Images:
    begin_step("pictures")
    images: Images = np.asarray(ds["video"].isel(frame=rows).values)
    begin_step("pictures")
    return images


def collect(
    card: PathLike, layout: LayoutLike, report: RecordingReport, progress: bool = True, shown: Preview | None = None
) -> Findings:
    """Read what a report shows of one recording; around unreadable sectors where there are any, which is slower.

    Parameters
    ----------
    card, layout, report
        What is looked at.
    progress
        Show a progress bar (on a terminal).
    shown
        What its pictures show.
    """
    begin_step("report")
    try:
        return _collect(card, layout, report, progress, "raise", shown or {})
    except CardReadError:
        return _collect(card, layout, report, progress, "fill", shown or {})


def _collect(
    card: PathLike, layout: LayoutLike, report: RecordingReport, progress: bool, errors: str, shown: Preview
) -> Findings:
    """Read it; the parameters of :func:`collect`, and what is to be done about unreadable sectors."""
    with xr.open_dataset(card, engine="miniscope", layout=layout, recording=report.number, errors=errors) as ds:
        about = told(address(card))
        n = ds.sizes["frame"]
        numbers = frame_numbers(ds, slice(None))
        rows = _sampled_rows(n, report.gaps)
        times = milliseconds(ds["time"].isel(frame=rows).values)
        rows, times = rows[times != BLANK], times[times != BLANK] / 1000.0
        start_ms = float(times[0]) * 1000 if len(times) else 0.0
        times = times - times[0] if len(times) else times
        begin_step("report")
        part = chosen(ds, shown)
        picture = picture_of(part, shown.get("dff", False)) or Picture()
        place = np.asarray(part["frame"].values, np.int64)
        sums = _projections(part, progress)
        m = len(place)
        sheet = np.unique(np.linspace(0, m - 1, min(m, _SHEET)).astype(np.int64))
        first = max(min(m // 2, m - _FILM_FRAMES), 0)
        film = np.arange(first, min(first + _FILM_FRAMES, m))
        at = {k: clock(float(np.interp(place[k], rows, times))) for k in [*sheet.tolist(), *film.tolist()]}
        return Findings(
            report=report,
            attrs={name: value for name, value in ds.attrs.items() if name not in about},
            rate=frame_rate(ds),
            seconds=float(times[-1]) if len(times) else 0.0,
            lost=_gaps(report.gaps, rows, times) if len(times) else [],
            times=times,
            series=_series(ds, rows, times),
            projections=sums.images() if sums.count else {},
            projected=sums.count,
            sheet=list(zip([at[k] for k in sheet.tolist()], picture(_pictures(part, sheet)), strict=True)),
            film=picture(_pictures(part, film)),
            film_labels=[f"frame {numbers[place[k]]}, {at[k]}" for k in film.tolist()],
            dff=bool(shown.get("dff", False)),
            quality=_quality(part, start_ms, progress) if sums.count else None,
        )
