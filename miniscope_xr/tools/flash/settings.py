"""``NAME=VALUE`` in a layout's names and people's units, to the raw words the firmware reads."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from miniscope_xr.errors import did_you_mean
from miniscope_xr.layout import Field, Layout
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
_SCAN = ("ewl_scan_start", "ewl_scan_stop", "ewl_scan_step", "ewl_scan_interval")
_FASTEST = 30
_LONGEST = 40
"""Characters of a value; none that means something has more."""
_WORDS = {"on": "on", "true": "on", "yes": "on", "off": "off", "false": "off", "no": "off"}


@dataclass(frozen=True)
class Settings:
    """Raw values of every setting of a layout, and what the user should know about them."""

    values: Mapping[str, int]
    notes: tuple[str, ...] = ()

    def shown(self, layout: Layout) -> dict[str, str]:
        """Return each setting as people read it, for example ``2 (2x)`` or ``1800 s``."""
        return {name: show(layout.header[name], raw) for name, raw in self.values.items()}


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
    if match is None and field.units == "s" and re.fullmatch(r"\d+:\d+", word[:_LONGEST], re.ASCII):
        raise SettingsError(f"{field.name}={word}: minutes or hours? write H:MM:SS (1:30:00), 90s, 30min or 1h30m")
    if match is None:
        text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
        raise SettingsError(f"{field.name}={text}: expected a number{f' in {field.units}' if field.units else ''}")
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


def _given(layout: Layout, words: Sequence[str]) -> dict[str, int]:
    given: dict[str, int] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise SettingsError(
                f"{word!r} is not a setting; write NAME=VALUE, for example {next(iter(layout.header))}=1"
            )
        if name not in layout.header:
            raise SettingsError(
                f"{name}: unknown setting of {layout.id}{did_you_mean(name, layout.header)}; "
                f"known: {', '.join(layout.header)}"
            )
        if name in given:
            raise SettingsError(f"{name} is given twice; give it once")
        given[name] = parse_value(layout.header[name], text)
    return given


def _check_scan(values: Mapping[str, int], *, derived: bool) -> None:
    """Refuse a focus scan that the firmware would never begin, or never end."""
    start, stop, step, interval = (values[name] for name in _SCAN)
    for name, value in (("ewl_scan_step", step), ("ewl_scan_interval", interval)):
        if value == 0:
            raise SettingsError(f"{name}=0: the focus scan would never move on; give a value of 1 or more")
    if stop < start:
        raise SettingsError(f"ewl_scan_stop={stop} is below ewl_scan_start={start}: the firmware scans upward only")
    if values["ewl"] == 0:
        raise SettingsError(
            "ewl=0: the focus scan starts at ewl and never runs if that is 0; give ewl=1 or more"
            + (" or ewl_scan_start=1 or more" if derived else "")
        )


def _scan(layout: Layout, values: dict[str, int], given: Mapping[str, int], notes: list[str], *, derive: bool) -> None:
    """Check a focus scan; ``derive`` lets length and first focus follow from it, as the lab notebook does."""
    if not values.get("ewl_scan_mode") or not {*_SCAN, "ewl", "record_length"} <= values.keys():
        return
    start, stop, step, interval = (values[name] for name in _SCAN)
    if derive and "ewl" not in given:
        values["ewl"] = start
    _check_scan(values, derived=derive and "ewl" not in given)
    if values["ewl"] != start:
        notes.append(f"the firmware starts the focus scan at ewl={values['ewl']}, not at ewl_scan_start={start}")
    if (stop - values["ewl"]) % step:
        notes.append(f"the last step of the focus scan may pass ewl_scan_stop={stop} by one step of {step}")
    seconds: float = interval
    if layout.header["ewl_scan_interval"].units == "frames":  # each step lasts one frame more
        seconds = (interval + 1) / (values.get("fs") or _FASTEST)
    needed = int(((stop - start) / step + 1) * seconds)
    if derive and "record_length" not in given:
        values["record_length"] = needed
        notes.append(f"record_length={needed} s, so that the focus scan fits")
    elif 0 < values["record_length"] < needed:
        length = values["record_length"]
        notes.append(f"the focus scan takes {needed} s; record_length={length} ends it before, {needed} would fit it")


def parse_settings(
    layout: Layout,
    words: Sequence[str],
    current: Mapping[str, int] | None = None,
    rivals: Sequence[Layout] = (),
) -> Settings:
    """Check ``NAME=VALUE`` words against a layout.

    Parameters
    ----------
    layout
        Whose header fields are the names.
    words
        What the user typed, for example ``["gain=2x", "record_length=30min"]``.
    current
        Raw values on the card, which stay where none is given; None for a card that was never prepared: the
        layout's defaults.
    rivals
        What the card's firmware may be as well, as far as anything tells: where one of them makes something else of a
        value that is given, a note says so.

    Raises
    ------
    SettingsError
        Unknown name, value out of range, or one the firmware would silently ignore.
    """
    given = _given(layout, words)
    base = {name: f.default or 0 for name, f in layout.header.items()} if current is None else dict(current)
    values = {**base, **given}
    notes: list[str] = []
    for name, raw in given.items():
        field = layout.header[name]
        if not field.used and raw != (field.default or 0):
            notes.append(f"{name}: {field.description}")
    notes += _meant(layout, words, given)
    notes += [note for name, raw in given.items() for note in differences(layout, name, raw, rivals)]
    if current is None or any(name.startswith("ewl") for name in given):
        begun = "ewl_scan_mode" in given and not base.get("ewl_scan_mode")
        _scan(layout, values, given, notes, derive=current is None or begun)
    notes += [
        f"{name}={show(layout.header[name], raw)} on the card: {complaint}"
        for name, raw in values.items()
        if name not in given and (complaint := problem(layout.header[name], raw))
    ]
    return Settings(values, tuple(notes))


def check_words(layouts: Sequence[Layout], words: Sequence[str]) -> None:
    """Check ``NAME=VALUE`` words before any card is looked at: they have to be right for one of the layouts.

    Raises
    ------
    SettingsError
        They are wrong for all; says what is wrong for the layout that knows most of the names, and that it is so there.
    """
    wrong = []
    names = dict.fromkeys(name for layout in layouts for name in layout.header)
    for layout in layouts:
        try:
            _given(layout, words)
            return
        except SettingsError as error:
            known = sum(word.partition("=")[0] in layout.header for word in words)
            wrong.append((known, layout.id, error))
    for name, equals, _ in (word.partition("=") for word in words):
        if equals and name not in names and len(layouts) > 1:
            raise SettingsError(
                f"{name or 'an empty name'}: no firmware has such a setting{did_you_mean(name, names)}; "
                "`miniscope-xr layouts` lists them"
            )
    if wrong:
        _, where, most = max(wrong, key=lambda each: each[0])
        if len({str(each) for _, _, each in wrong}) == 1:
            raise most
        raise SettingsError(f"{most} (so it is with {where}; give --layout if the card has another one)")


def _meant(layout: Layout, words: Sequence[str], given: Mapping[str, int]) -> list[str]:
    """Say in words what a bare number means, where people take it for something else."""
    notes = []
    for word in words:
        name, _, text = word.partition("=")
        field, raw = layout.header[name], given[name]
        if not re.fullmatch(r"\s*\d+\s*", text, re.ASCII):
            continue
        if field.units == "s" and raw:
            notes.append(f"{name}={raw} means {raw} second{'s' * (raw != 1)}; write {raw}min for minutes")
        meaning = (field.choices or {}).get(raw, "")
        other = [code for code, said in (field.choices or {}).items() if said == f"{raw}x" and code != raw]
        if other:
            notes.append(f"{name}={raw} is the code for {meaning}; for {raw}x write {name}={raw}x")
    return notes


def differences(layout: Layout, name: str, raw: int, rivals: Sequence[Layout]) -> list[str]:
    """Say which other firmware makes something else of a setting."""
    said: dict[str, list[str]] = {}
    for rival in rivals:
        if text := _difference(layout.header[name], raw, rival):
            who = f"firmware {rival.build.firmware}" if rival.build else rival.id
            said.setdefault(text, []).append(who + (f" (--layout {rival.id})" if rival.id != layout.id else ""))
    return [f"{name}={raw}: {' and '.join(who)} {text}" for text, who in said.items()]


def _difference(field: Field, raw: int, rival: Layout) -> str:
    """Say what a firmware makes of a setting that is meant for another; empty if it is the same."""
    other = rival.header.get(field.name)
    if other is None or other.offset != field.offset:
        end = field.offset + field.size
        there = [n for n, f in rival.header.items() if f.offset < end and field.offset < f.offset + f.size]
        return f"reads {' and '.join(there)} there" if there else "has no such setting"
    fixed = rival.build.fs if rival.build and field.name == "fs" else None
    if not other.used:
        return "does not read it" if field.used else ""
    if fixed and fixed != raw:
        return f"runs at {fixed:g} frames/s whatever is set"
    if field.means(raw) != other.means(raw):
        return f"takes it for {other.means(raw)}"
    if field.units != other.units:
        return f"counts it in {other.units}"
    low, high = other.limits
    return "" if other.choices or low <= raw <= high else f"takes {low} to {high} only"


def problem(field: Field, raw: int) -> str:
    """Say what is wrong with a value that is on the card already; empty if nothing is."""
    low, high = field.limits
    if field.choices and raw not in field.choices:
        return f"the firmware silently ignores it; use {_options(field.choices)}"
    if raw > high:
        return f"above the largest useful value {high}"
    return f"below the smallest useful value {low}" if raw < low else ""
