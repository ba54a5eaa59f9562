"""What both clocks have seen, from tables: pairs of times, or pulses that have to be told apart."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from miniscope_xr.layout.arrays import Array
from miniscope_xr.tools.clock.card_clock import CardClock
from miniscope_xr.tools.clock.fit import MOST_DRIFT, ClockError
from miniscope_xr.tools.clock.match import match_pulses
from miniscope_xr.tools.clock.tables import Column, read_pairs, read_pulses, seconds_of

TimesGiven = str | os.PathLike[str] | Sequence[Any] | Array

_NEAR = 600.0
"""s before or behind a recording in which pairs may lie, however short it is."""


@dataclass(frozen=True)
class BothSaw:
    """What both clocks have seen."""

    card: Array
    other: Column
    """Times of the same events, in s."""
    bound: float
    """How far an event may be off by what saw it, in s."""
    source: str
    """Where they come from, as a sentence."""


def from_pairs(recording: CardClock, given: Any) -> BothSaw:
    """Pairs of a table or a list, where they are of this recording.

    Raises
    ------
    ClockError
        They are no pairs, or their card's times lie far from the recording.
    """
    seen = _pairs(given)
    _refuse_elsewhere(recording, seen)
    return seen


def from_pulses(recording: CardClock, given: Any, card: Any = None) -> BothSaw:
    """Pulses: matched with the card's (``card``) by their intervals; without, two of them are start and end.

    Raises
    ------
    ClockError
        They cannot be told apart, or none fit.
    """
    other = pulse_times(given, "pulses")
    if card is not None:
        mine = pulse_times(card, "card").seconds
        rows, theirs = match_pulses(mine, other.seconds, max(recording.period / 2, 0.005))
        said = f"{len(rows)} pulses, of {len(mine)} and {len(other.seconds)}, matched by their intervals"
        return BothSaw(np.sort(mine)[rows], Column(np.sort(other.seconds)[theirs], other.dated), 0.0, said)
    first, last = _as_long(other.seconds, recording.length, recording.period)
    ends = Column(np.array([first, last]), other.dated)
    return BothSaw(recording.ends, ends, recording.period, "pulses at start and end")


def pulse_times(given: Any, what: str) -> Column:
    """Times of pulses, of those that have one."""
    found = read_pulses(Path(given)) if isinstance(given, str | os.PathLike) else seconds_of(given, what)
    return Column(found.seconds[np.isfinite(found.seconds)], found.dated)


def _pairs(given: Any) -> BothSaw:
    if isinstance(given, str | os.PathLike):
        mine, other = read_pairs(Path(given))
        return BothSaw(mine, other, 0.0, f"pairs of {Path(given).name}")
    table = list(given)
    if not table or any(len(row) != 2 for row in table):
        raise ClockError("pairs: expected rows of two times, the card's and the other clock's")
    card = seconds_of([row[0] for row in table], "pairs")
    return BothSaw(card.seconds, seconds_of([row[1] for row in table], "pairs"), 0.0, "pairs")


def _refuse_elsewhere(recording: CardClock, seen: BothSaw) -> None:
    """Times in ms, or the two columns exchanged, fit a line as well as those that were meant."""
    known = seen.card[np.isfinite(seen.card)]
    apart = max(recording.length, _NEAR)
    if len(known) and not recording.start - apart <= float(np.median(known)) <= float(recording.times[-1]) + apart:
        raise ClockError(
            f"{seen.source}: the card's times are around {float(np.median(known)):g}, but the recording goes from "
            f"{recording.start:g} to {float(recording.times[-1]):g} s: are both columns in seconds, the card's first?"
        )


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
