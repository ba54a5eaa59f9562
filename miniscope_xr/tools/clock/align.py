"""``ds.miniscope.align``: the time of every frame by another clock, from whatever both have seen."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
import xarray as xr

from miniscope_xr.errors import refuse_unknown
from miniscope_xr.layout.arrays import Array
from miniscope_xr.tools.clock.fit import MOST_DRIFT, ClockError, ClockFit, fit_clocks
from miniscope_xr.tools.clock.lights import Light, find_lights, one_light
from miniscope_xr.tools.clock.match import match_pulses
from miniscope_xr.tools.clock.steps import Region, steps_of
from miniscope_xr.tools.clock.tables import Column, read_pairs, read_pulses, seconds_of
from miniscope_xr.tools.stream.camera import FrameTimes, camera_times, nominal_rate
from miniscope_xr.tools.stream.timing import (
    BLANK,
    ERROR,
    SHOWN,
    WALL,
    filled_times,
    frame_numbers,
    frame_rate,
    milliseconds,
)  # fmt: skip

TimesGiven = str | os.PathLike[str] | Sequence[Any] | Array

PAIR = "clock_pair"
_START_ONLY = "only the start is known: the drift is not (quartz clocks: 10 to 100 millionths, 36 to 360 ms an hour)"


class AlignOptions(TypedDict, total=False):
    """Options of :func:`align`; what brings the clocks together is one of the first four.

    Attributes
    ----------
    pairs
        Table (CSV) or array of pairs: the card's time in s, and the other clock's in s or as a date and time.
    video
        Behaviour video, or a camera's folder as Miniscope-DAQ writes it, in which the status LED is seen going on at
        the start and off at the end, or, with ``card``, a light that flashes.
    pulses
        Times of pulses by the other clock: a table (CSV: one column, or TTL edges with their level), or a list. With
        ``card`` their intervals tell which is which; without it, two of them are the recording's start and end.
    start
        When the recording began (date and time), where nothing else is known. With one of the others, whose clock
        shows no date: when that clock showed 0.
    card
        Times of the pulses by the card's clock, in s: a table or a list.
    region
        Where the light is in the video: x, y, width, height in px.
    camera
        Table of the times of the video's frames, where it is not beside the video.
    progress
        Show a progress bar (on a terminal).
    """

    pairs: TimesGiven
    video: str | os.PathLike[str]
    pulses: TimesGiven
    start: datetime | str
    card: TimesGiven
    region: Region
    camera: str | os.PathLike[str]
    progress: bool


@dataclass(frozen=True)
class _BothSaw:
    """What both clocks have seen: pairs of times, how far an event may be off, and where they come from."""

    card: Array
    other: Column
    bound: float
    source: str


_MOST_LIGHTS = 8  # whose flashes are compared with the card's
_HALF_HOUR = 1800.0  # s: by a multiple of it go the clocks of two time zones apart
_NEAR = 600.0
"""s before or behind a recording in which pairs may lie, however short it is."""


@dataclass(frozen=True)
class _Recording:
    """The card's clock: time of every frame, and from one to the next, in s."""

    times: Array
    period: float

    @property
    def start(self) -> float:
        """When the first frame began."""
        return float(self.times[0]) - self.period

    @property
    def length(self) -> float:
        """From there to the end of the last."""
        return float(self.times[-1]) - self.start


@dataclass(frozen=True)
class Clock:
    """Another clock against the card's.

    Attributes
    ----------
    fit
        The line between the two.
    dated
        Whether ``zero`` added to the other clock's seconds gives seconds since 1970.
    zero
        s.
    source, video
        What the times come from, as a sentence; and the behaviour video among them ("" for none).
    """

    fit: ClockFit
    dated: bool
    zero: float
    source: str
    video: str = ""

    def __str__(self) -> str:
        fit = self.fit
        if fit.ppm is None:
            return self.source
        error = float(fit.error(fit.card[fit.used]).max())
        said = [
            f"{self.source}: the other clock is {abs(fit.ppm):.1f} millionths {'fast' if fit.ppm > 0 else 'slow'}",
            f"{int(fit.used.sum())} of {len(fit.card)} pairs fit, within {1000 * fit.spread:.1f} ms",
            f"between the first and the last a frame's time is known to {1000 * error:.1f} ms (95 %)"
            if np.isfinite(error)
            else "how far off a frame's time may be is not known: two pairs fit any line, give a third",
            *(f"the other clock was set by {size:+.3f} s at {when:.1f} s of the card's" for when, size in fit.jumps),
        ]
        return "; ".join(said)


def align(ds: xr.Dataset, **options: Unpack[AlignOptions]) -> xr.Dataset:
    """Say when, by another clock, every frame of a recording was taken.

    Parameters
    ----------
    ds
        A recording.
    options
        Those of :class:`AlignOptions`.

    Returns
    -------
    The recording with coordinates along ``frame``: ``clock_time`` (s by the other clock), ``clock_error`` (s, half of
    the interval that holds the true time in 95 of 100 cases; NaN where only the start is known), and ``wall_time``
    (date and time, UTC) where the other clock has a date. ``attrs``: ``clock_source``, ``clock_drift_ppm``,
    ``clock_pairs``, ``clock_spread`` and so on. The pairs themselves are ``clock_pair_card``, ``clock_pair_other`` and
    ``clock_pair_used``.

    Raises
    ------
    ClockError
        The clocks cannot be brought together by what was given; the message says what is in doubt.
    OptionError
        A file cannot be read, or a region lies outside the picture.
    """
    return with_clock(ds, find_clock(ds, **options))


def find_clock(ds: xr.Dataset, **options: Unpack[AlignOptions]) -> Clock:
    """Find how another clock goes against the card's; parameters and errors as for :func:`align`."""
    refuse_unknown("align()", options, AlignOptions.__annotations__)
    given = [name for name in ("pairs", "video", "pulses") if options.get(name) is not None]
    if len(given) > 1:
        raise ClockError(f"{' and '.join(given)}: give one of them")
    start = options.get("start")
    if not given and start is None:
        raise ClockError("nothing brings the clocks together: give pairs, video, pulses, or at least start")
    recording = _recording(ds)
    zero = 0.0 if start is None else float(seconds_of([str(start)], "start").seconds[0])
    if not given:
        return Clock(fit_clocks(recording.times[:1], [0.0]), True, zero, f"start given; {_START_ONLY}")
    seen = _seen(recording, options)
    if start is not None and seen.other.dated:
        raise ClockError("start: the other clock shows the date and time by itself; leave start out")
    fit = fit_clocks(seen.card, seen.other.seconds, seen.bound)
    _refuse_hours(fit, seen.source)
    said = seen.source if fit.drift is not None else f"{seen.source}; {_START_ONLY}"
    return Clock(fit, seen.other.dated or start is not None, zero, said, str(options.get("video") or ""))


def _seen(recording: _Recording, options: AlignOptions) -> _BothSaw:
    if options.get("pairs") is not None:
        seen = _pairs(options["pairs"])
        _refuse_elsewhere(recording, seen)
        return seen
    if options.get("video") is not None:
        return _video(recording, Path(options["video"]), options)
    return _pulses(recording, _column(options["pulses"], "pulses"), options.get("card"))


def _recording(ds: xr.Dataset) -> _Recording:
    if "time" not in ds.variables:
        raise ClockError("this Dataset has no times: open the recording, and leave 'time' in")
    times = milliseconds(ds["time"].values)
    if not (times != BLANK).any():
        raise ClockError("no frame of this recording has a time")
    filled = filled_times(times, frame_numbers(ds, slice(None))) / 1000.0
    return _Recording(filled, 1 / frame_rate(ds) if len(filled) > 1 else 0.05)


def _refuse_elsewhere(recording: _Recording, seen: _BothSaw) -> None:
    """Times in ms, or the two columns exchanged, fit a line as well as those that were meant."""
    known = seen.card[np.isfinite(seen.card)]
    apart = max(recording.length, _NEAR)
    if len(known) and not recording.start - apart <= float(np.median(known)) <= float(recording.times[-1]) + apart:
        raise ClockError(
            f"{seen.source}: the card's times are around {float(np.median(known)):g}, but the recording goes from "
            f"{recording.start:g} to {float(recording.times[-1]):g} s: are both columns in seconds, the card's first?"
        )


def _refuse_hours(fit: ClockFit, source: str) -> None:
    """Where daylight saving time begins or ends, nobody has set the clock: half of its times would be an hour wrong."""
    off = [(size, when) for when, size in fit.jumps]
    off += zip(fit.residuals[~fit.used].tolist(), fit.card[~fit.used].tolist(), strict=True)
    for size, when in off:
        halves = round(size / _HALF_HOUR)
        if halves and abs(size - halves * _HALF_HOUR) < max(4 * fit.spread, 0.1):
            raise ClockError(
                f"{source}: the other clock's times leap by {size:+.2f} s at {when:.1f} s of the card's, as they do "
                "where daylight saving time begins or ends and in another time zone; write all of them with their zone "
                "(2026-03-29T01:30:00+01:00), or in seconds since 1970"
            )


def _column(given: Any, what: str) -> Column:
    """Times of pulses, of those that have one."""
    found = read_pulses(Path(given)) if isinstance(given, str | os.PathLike) else seconds_of(given, what)
    return Column(found.seconds[np.isfinite(found.seconds)], found.dated)


def _pairs(given: Any) -> _BothSaw:
    if isinstance(given, str | os.PathLike):
        mine, other = read_pairs(Path(given))
        return _BothSaw(mine, other, 0.0, f"pairs of {Path(given).name}")
    table = list(given)
    if not table or any(len(row) != 2 for row in table):
        raise ClockError("pairs: expected rows of two times, the card's and the other clock's")
    card = seconds_of([row[0] for row in table], "pairs")
    return _BothSaw(card.seconds, seconds_of([row[1] for row in table], "pairs"), 0.0, "pairs")


def _pulses(recording: _Recording, other: Column, card: Any) -> _BothSaw:
    if card is not None:
        mine = _column(card, "card").seconds
        rows, theirs = match_pulses(mine, other.seconds, max(recording.period / 2, 0.005))
        said = f"{len(rows)} pulses, of {len(mine)} and {len(other.seconds)}, matched by their intervals"
        return _BothSaw(np.sort(mine)[rows], Column(np.sort(other.seconds)[theirs], other.dated), 0.0, said)
    first, last = _as_long(other.seconds, recording.length, recording.period)
    ends = np.array([recording.start, recording.start + recording.length])
    return _BothSaw(ends, Column(np.array([first, last]), other.dated), recording.period, "pulses at start and end")


def _as_long(times: Array, length: float, period: float) -> tuple[float, float]:
    """The two pulses that are as far apart as the recording is long."""
    times = np.unique(times)
    apart = times[np.newaxis] - times[:, np.newaxis]
    found = np.argwhere(np.abs(apart - length) <= MOST_DRIFT / 4 * length + 2 * period)
    if len(found) != 1:
        count = "no two pulses are" if not len(found) else f"{len(found)} pairs of pulses are"
        raise ClockError(
            f"{count} {length:.2f} s apart, as start and end of the recording were; give pairs, or the pulses' "
            "times by the card's clock (card)"
        )
    return float(times[found[0, 0]]), float(times[found[0, 1]])


def _video(recording: _Recording, path: Path, options: AlignOptions) -> _BothSaw:
    """Find the light in a behaviour video, and when it was seen."""
    steps = steps_of(path, options.get("region"), bool(options.get("progress", True)))
    table = Path(options["camera"]) if options.get("camera") else path
    times = camera_times(table, steps.count, nominal_rate(path))
    known = options.get("card")
    lights = find_lights(steps, times.seconds, None if known is not None else recording.length)
    half = float(np.median(np.diff(times.seconds))) / 2
    if known is None:
        light = one_light(lights)
        ends = np.array([recording.start, recording.start + recording.length])
        seen = np.array([_between(times, light.on[0]), _between(times, light.off[0])])
        return _BothSaw(ends, Column(seen, times.dated), 2 * half + recording.period, _said(light, times, "status LED"))
    mine = _column(known, "card").seconds
    light, flashes, rows, theirs = _flashes(lights, times, mine, 2 * half)
    said = _said(light, times, f"{len(rows)} of {len(flashes)} flashes")
    return _BothSaw(np.sort(mine)[rows], Column(flashes[theirs], times.dated), half, said)


def _flashes(lights: list[Light], times: FrameTimes, mine: Array, jitter: float) -> tuple[Light, Array, Array, Array]:
    """The light whose flashes are the card's, their times, and which are which (:func:`match_pulses`)."""
    fit: list[tuple[Light, Array, Array, Array]] = []
    wrong: list[ClockError] = []
    for light in lights[:_MOST_LIGHTS]:
        flashes = np.sort([_between(times, frame) for frame in light.on])
        try:
            fit.append((light, flashes, *match_pulses(mine, flashes, jitter)))
        except ClockError as error:
            wrong.append(error)
    if not fit:
        raise wrong[0]  # what the clearest light lacks
    one_light([light for light, *_ in fit])
    return fit[0]


def _between(times: FrameTimes, frame: int) -> float:
    """When a light went on that is first seen in this frame: between it and the one before."""
    return float(times.seconds[max(frame - 1, 0)] + times.seconds[frame]) / 2


def _said(light: Light, times: FrameTimes, what: str) -> str:
    at = "" if light.where is None else " at x {}, y {}, {} x {} px".format(*light.where)
    return f"{what} in the video{at}, its frames' times by {times.source}"


def with_clock(ds: xr.Dataset, clock: Clock) -> xr.Dataset:
    """Return the recording with another clock's time of every frame; see :func:`align`."""
    fit, times = clock.fit, _recording(ds).times
    shown, error = fit.at(times) + clock.zero, fit.error(times)
    coords: dict[str, Any] = {
        SHOWN: ("frame", shown, {"long_name": "time by the other clock, in s"}),
        ERROR: (
            "frame",
            error,
            {"long_name": "error of clock_time in s: half of an interval that holds it in 95 %"},
        ),
        "clock_pair_card": (PAIR, fit.card, {"long_name": "time of an event by the card's clock, in s"}),
        "clock_pair_other": (PAIR, fit.other + clock.zero, {"long_name": "its time by the other clock, in s"}),
        "clock_pair_used": (PAIR, fit.used, {"long_name": "whether the two are of one event"}),
    }
    if clock.dated:
        dates = np.rint(shown * 1e6).astype("datetime64[us]").astype("datetime64[ns]")
        coords[WALL] = ("frame", dates, {"long_name": "date and time of the frame (UTC)"})
    attrs: dict[str, Any] = {
        "clock_source": clock.source,
        "clock_zero": clock.zero,
        "clock_pairs": len(fit.card),
        "clock_pairs_used": int(fit.used.sum()),
        "clock_spread": fit.spread,
        "clock_drift_ppm": "not known" if fit.ppm is None else fit.ppm,
    }
    if np.isfinite(error).all():
        attrs["clock_error"] = float(error.max())
    if fit.jumps:
        attrs["clock_jumps"] = [f"{size:+.4f} s at {when:.3f} s of the card's clock" for when, size in fit.jumps]
    if clock.video:
        attrs["clock_video"] = clock.video
    old = [PAIR] if PAIR in ds.dims else []
    return ds.drop_dims(old).assign_coords(coords).assign_attrs(attrs)
