"""``ds.miniscope.align``: the time of every frame by another clock, from whatever both have seen."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import TypedDict, Unpack

import xarray as xr

from miniscope_xr.errors import refuse_unknown
from miniscope_xr.tools.clock.card_clock import CardClock, card_clock
from miniscope_xr.tools.clock.filmed import from_video
from miniscope_xr.tools.clock.fit import ClockError, ClockFit, fit_clocks
from miniscope_xr.tools.clock.found import PAIR, Clock, with_clock
from miniscope_xr.tools.clock.seen import BothSaw, TimesGiven, from_pairs, from_pulses
from miniscope_xr.tools.clock.steps import Region
from miniscope_xr.tools.clock.tables import seconds_of

__all__ = ["PAIR", "AlignOptions", "Clock", "align", "find_clock", "with_clock"]

_START_ONLY = "only the start is known: the drift is not (quartz clocks: 10 to 100 millionths, 36 to 360 ms an hour)"
_HALF_HOUR = 1800.0  # s: by a multiple of it go the clocks of two time zones apart


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
    recording = card_clock(ds)
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


def _seen(recording: CardClock, options: AlignOptions) -> BothSaw:
    if options.get("pairs") is not None:
        return from_pairs(recording, options["pairs"])
    if options.get("video") is None:
        return from_pulses(recording, options["pulses"], options.get("card"))
    return from_video(
        recording, Path(options["video"]), options.get("card"), options.get("region"), options.get("camera"),
        options.get("progress", True),
    )  # fmt: skip


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
