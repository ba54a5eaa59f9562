"""Tables with times: pairs, pulses, and what Miniscope-DAQ writes beside a camera's video."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from miniscope_xr.layout.arrays import Array
from miniscope_xr.tools.clock.fit import ClockError
from miniscope_xr.tools.stream.camera import UNIX
from miniscope_xr.tools.stream.tables import Table, moment_of, read_table
from miniscope_xr.tools.stream.timing import unix_seconds

_HIGH = {"high", "on", "up", "rising", "true"}
_LOW = {"low", "off", "down", "falling", "false"}


@dataclass(frozen=True)
class Column:
    """Times in s, and whether they are since 1970 (a date is known)."""

    seconds: Array
    dated: bool


def seconds_of(values: Any, what: str) -> Column:
    """Times in s: numbers are seconds, text is a number or a date and time (without a zone: this computer's).

    NaN where there is none: an empty cell, NaN or NaT.
    """
    array = np.asarray(values)
    if array.dtype.kind == "M":
        array = array.reshape(-1)
        return Column(np.where(np.isnat(array), np.nan, unix_seconds(array)), True)
    if array.dtype.kind == "m":
        array = array.reshape(-1)
        return Column(np.where(np.isnat(array), np.nan, array.astype("timedelta64[us]").astype(np.int64) / 1e6), False)
    if array.dtype.kind in "OUS":
        return _texts([str(value).strip() for value in array.reshape(-1).tolist()], what)
    seconds = array.astype(float).reshape(-1)
    known = seconds[np.isfinite(seconds)]
    return Column(seconds, bool(len(known)) and bool(known.min() > UNIX))


def _texts(values: list[str], what: str) -> Column:
    try:
        return seconds_of(np.array([float(value or "nan") for value in values]), what)
    except ValueError:
        pass
    try:
        return Column(np.array([_since_1970(value) for value in values]), True)
    except ValueError as error:
        raise ClockError(f"{what}: expected seconds or times such as 2026-03-14T15:09:26.500 ({error})") from error


def _since_1970(text: str) -> float:
    """Seconds of a date and time; NaN for an empty cell, or what programs write in its place."""
    return np.nan if text.lower() in ("", "nan", "nat", "none") else moment_of(text).timestamp()


def read_pairs(path: Path) -> tuple[Array, Column]:
    """Two columns: the card's time in s, and the other clock's in s or as dates; a heading may be above.

    A column whose heading says ms is in ms.
    """
    table = read_table(path, 2)
    return _column(table, 0, path).seconds, _column(table, 1, path)


def read_pulses(path: Path) -> Column:
    """One column of times, or a table of TTL edges (time, level): the rising ones count.

    Raises
    ------
    ClockError
        Its second column goes to and fro between two words of which it is not clear which is the rising edge.
    """
    table = read_table(path, 1)
    levels = [row[1].lower() for row in table.rows if len(row) > 1]
    if len(levels) == len(table.rows) and len(set(levels)) <= 2:
        high = [_is_high(level) for level in levels]
        if None not in high:
            rows = [row for k, row in enumerate(table.rows) if high[k] and (k == 0 or not high[k - 1])]
            return _column(Table(rows, table.heading), 0, path)
        if len(levels) > 2 and all(one != other for one, other in itertools.pairwise(levels)):
            raise ClockError(
                f"{path}: its second column goes to and fro between {levels[0]!r} and {levels[1]!r}: write 1 for a "
                "rising edge and 0 for a falling one, or leave only the rising ones"
            )
    return _column(table, 0, path)


def _is_high(level: str) -> bool | None:
    """Whether a level, or the edge to it, is the upper one; None where that is not clear."""
    if level in _LOW or level in _HIGH:
        return level in _HIGH
    try:
        return {0.0: False, 1.0: True}.get(float(level))
    except ValueError:
        return None


def _column(table: Table, column: int, path: Path) -> Column:
    found = seconds_of([row[column] for row in table.rows], f"{path}, column {column + 1}")
    if not table.in_ms(column) or not np.isfinite(found.seconds).any() or not _are_numbers(table, column):
        return found
    seconds = found.seconds / 1000
    return Column(seconds, bool(np.nanmin(seconds) > UNIX))


def _are_numbers(table: Table, column: int) -> bool:
    return all("-" not in row[column][1:] and ":" not in row[column] for row in table.rows)
