"""Tables with times: pairs, pulses, and what Miniscope-DAQ writes beside a camera's video."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from miniscope_xr.layout.arrays import Array
from miniscope_xr.tools.clock.fit import ClockError
from miniscope_xr.tools.stream.camera import UNIX, table_rows
from miniscope_xr.tools.stream.timing import unix_seconds


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
    return np.nan if text.lower() in ("", "nan", "nat", "none") else datetime.fromisoformat(text).timestamp()


def read_pairs(path: Path) -> tuple[Array, Column]:
    """Two columns: the card's time in s, and the other clock's in s or as dates; a heading may be above."""
    rows = table_rows(path, 2)
    card = seconds_of([row[0] for row in rows], f"{path}, column 1")
    return card.seconds, seconds_of([row[1] for row in rows], f"{path}, column 2")


def read_pulses(path: Path) -> Column:
    """One column of times, or a table of TTL edges (time, level): the rising ones count."""
    rows = table_rows(path, 1)
    levels = [row[1] for row in rows if len(row) > 1]
    if len(levels) == len(rows) and set(levels) <= {"0", "1", "0.0", "1.0", "False", "True"}:
        high = [float({"False": 0, "True": 1}.get(level, level)) > 0 for level in levels]
        rows = [row for k, row in enumerate(rows) if high[k] and (k == 0 or not high[k - 1])]
    return seconds_of([row[0] for row in rows], f"{path}, column 1")
