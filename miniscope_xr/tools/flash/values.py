"""One setting's value: what a person writes, the raw word of the firmware, and how that is shown again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction

from miniscope_xr.layout import Field
from miniscope_xr.tools.flash.errors import SettingsError

_SUFFIXES: Mapping[str, Mapping[str, int]] = {
    "s": {"s": 1, "sec": 1, "min": 60, "h": 3600},
    "Hz": {"hz": 1, "fps": 1},
    "percent": {"%": 1, "percent": 1},
    "mV": {"mv": 1, "v": 1000},
    "px": {"px": 1},
}
_NUMBER = re.compile(r"([+-]?\d+(?:\.\d+)?)\s*([a-z%]*)", re.ASCII)
_TIMES = (
    re.compile(r"(?:(?P<h>\d+)\s*h)?\s*(?:(?P<m>\d+)\s*m(?:in)?)?\s*(?:(?P<s>\d+)\s*s(?:ec)?)?", re.ASCII),
    re.compile(r"(?P<h>\d+):(?P<m>[0-5]\d):(?P<s>[0-5]\d)", re.ASCII),
)
_LONGEST = 40
"""Characters of a value; none that means something has more."""
_WORDS = {"on": "on", "true": "on", "yes": "on", "off": "off", "false": "off", "no": "off"}


def show(field: Field, raw: int) -> str:
    """Return a raw value as people read it."""
    meaning = (field.choices or {}).get(raw)
    if meaning is not None and meaning != str(raw):
        return f"{raw} ({meaning})"
    if field.units == "s" and raw > 60:
        return f"{raw} s ({duration(raw)})"
    return f"{raw} {field.units}" if field.units else str(raw)


def duration(seconds: int) -> str:
    """Return a length of time as people say it, for example ``45 s``, ``30 min`` or ``1 h 30 min``."""
    hours, rest = divmod(seconds, 3600)
    minutes, left = divmod(rest, 60)
    parts = [f"{number} {unit}" for number, unit in ((hours, "h"), (minutes, "min"), (left, "s")) if number]
    return " ".join(parts) or "0 s"


def _options(choices: Mapping[int, str]) -> str:
    words = [str(raw) if str(raw) == m else f"{raw} ({m})" for raw, m in choices.items()]
    return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]


def _seconds(text: str) -> int | None:
    """Read ``1h30m``, ``90m``, ``1min 30s`` or ``1:30:00``; None for anything else."""
    for pattern in _TIMES:
        match = pattern.fullmatch(text)
        if match and any(match.groups()):
            hours, minutes, seconds = (int(match[part] or 0) for part in "hms")
            return 3600 * hours + 60 * minutes + seconds
    return None


def _number(field: Field, text: str) -> int:
    word = text.strip().lower()
    match = _NUMBER.fullmatch(word) if len(word) <= _LONGEST else None
    if field.units == "s" and len(word) <= _LONGEST and (match is None or match[2] == "m"):
        seconds = _seconds(word)
        if seconds is not None:
            return seconds
    if match is None:
        raise SettingsError(f"{field.name}={_no_number(field, text)}")
    units = _SUFFIXES.get(field.units or "", {})
    if match[2] and match[2] not in units:
        known = f"units that work here: {', '.join(units)}" if units else "it has no unit"
        raise SettingsError(f"{field.name}={text}: unknown unit {match[2]!r}; {known}")
    value = Fraction(match[1]) * units.get(match[2], 1)
    if value.denominator != 1:
        raise SettingsError(
            f"{field.name}={text}: expected a whole number{f' of {field.units}' if field.units else ''}"
        )
    return int(value)


def _no_number(field: Field, text: str) -> str:
    """Say what is wrong with a text in which no number was found."""
    if field.units == "s" and re.fullmatch(r"\s*\d+:\d+\s*", text[:_LONGEST], re.ASCII):
        return f"{text.strip()}: minutes or hours? write H:MM:SS (1:30:00), 90s, 30min or 1h30m"
    shown = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    return f"{shown}: expected a number{f' in {field.units}' if field.units else ''}"


def _choice(field: Field, choices: Mapping[int, str], text: str) -> int:
    word = text.strip().lower()
    for raw, meaning in choices.items():
        if word == str(raw) or word == meaning.lower() or _WORDS.get(word) == meaning.lower():
            return raw
    for raw, meaning in choices.items():  # 3.5 for 3.5x, where it is no code itself
        if "." in word and word == meaning.lower().removesuffix("x"):
            return raw
    try:
        raw = _number(field, text)
    except SettingsError:
        raw = -1
    if raw not in choices:
        raise SettingsError(
            f"{field.name}={text}: the firmware would silently ignore this {field.description or field.name}; "
            f"use {_options(choices)}"
        )
    return raw


def parse_value(field: Field, text: str) -> int:
    """Turn one value into its raw word; a :class:`SettingsError` says what would have been right."""
    if field.choices:
        return _choice(field, field.choices, text)
    raw = _number(field, text)
    low, high = field.limits
    if not low <= raw <= high:
        units = f" {field.units}" if field.units else ""
        raise SettingsError(f"{field.name}={text} is outside {low} to {high}{units}: {field.description}")
    return raw


def problem(field: Field, raw: int) -> str:
    """Say what is wrong with a value that is on the card already; empty if nothing is."""
    low, high = field.limits
    if field.choices and raw not in field.choices:
        return f"the firmware silently ignores it; use {_options(field.choices)}"
    if raw > high:
        return f"above the largest useful value {high}"
    return f"below the smallest useful value {low}" if raw < low else ""
