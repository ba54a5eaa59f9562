"""``NAME=VALUE`` words, to every setting that the firmware reads, and what the user should know of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from miniscope_xr.errors import did_you_mean
from miniscope_xr.layout import Field, Layout
from miniscope_xr.tools.flash.errors import SettingsError
from miniscope_xr.tools.flash.focus_scan import fit_scan
from miniscope_xr.tools.flash.values import parse_value, problem, show


@dataclass(frozen=True)
class Settings:
    """Raw values of every setting of a layout, and what the user should know about them."""

    values: Mapping[str, int]
    notes: tuple[str, ...] = ()

    def shown(self, layout: Layout) -> dict[str, str]:
        """Return each setting as people read it, for example ``2 (2x)`` or ``1800 s``."""
        return {name: show(layout.header[name], raw) for name, raw in self.values.items()}


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
    notes = [*_unread(layout, given), *_meant(layout, words, given)]
    notes += [note for name, raw in given.items() for note in differences(layout, name, raw, rivals)]
    if current is None or any(name.startswith("ewl") for name in given):
        begun = "ewl_scan_mode" in given and not base.get("ewl_scan_mode")
        fit_scan(layout, values, given, notes, derive=current is None or begun)
    notes += _wrong_on_card(layout, {name: raw for name, raw in values.items() if name not in given})
    return Settings(values, tuple(notes))


def _unread(layout: Layout, given: Mapping[str, int]) -> list[str]:
    """Say which settings no firmware of this layout reads, where they are given a value."""
    fields = [layout.header[name] for name in given if not layout.header[name].used]
    return [f"{field.name}: {field.description}" for field in fields if given[field.name] != (field.default or 0)]


def _wrong_on_card(layout: Layout, values: Mapping[str, int]) -> list[str]:
    """Say which values that stay as they are the firmware does not understand."""
    known = [(layout.header[name], raw) for name, raw in values.items()]
    return [
        f"{field.name}={show(field, raw)} on the card: {complaint}"
        for field, raw in known
        if (complaint := problem(field, raw))
    ]


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
