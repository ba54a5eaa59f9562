"""Checks a layout's values are made of: each takes a value and the name of its place, and returns it or refuses.

A table of names and checks (:class:`Schema`) is the whole schema of a mapping; :mod:`miniscope_xr.layout.schema` holds
the tables.
"""

from __future__ import annotations

import reprlib
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

from miniscope_xr.errors import LayoutError, did_you_mean

Rule = Callable[[Any, str], Any]

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxdict, _SHORT.maxlist, _SHORT.maxtuple, _SHORT.maxset = 2, 3, 4, 4, 4
_SHORT.maxstring = _SHORT.maxother = 60


def shortened(value: Any) -> str:
    """A value in a message: short, however large or nested it is (a few lines of YAML can mean gigabytes)."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 128:
        return f"a number of {value.bit_length()} bits"
    return _SHORT.repr(value)


def fail(where: str, what: str) -> LayoutError:
    """The error that names the field ``where``."""
    return LayoutError(f"layout {where if len(where) <= 200 else where[:200] + '...'}: {what}")


def whole(low: int = 0, high: int = 2**32 - 1) -> Rule:
    """A whole number in [low, high]."""

    def check(value: Any, where: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise fail(where, f"expected a whole number, found {shortened(value)}")
        if not low <= value <= high:
            raise fail(where, f"{shortened(value)} is outside {low} to {high}")
        return value

    return check


def positive(value: Any, where: str) -> float:
    """A number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise fail(where, f"expected a positive number, found {shortened(value)}")
    return float(value)


def flag(value: Any, where: str) -> bool:
    """Yes or no."""
    if not isinstance(value, bool):
        raise fail(where, f"expected true or false, found {shortened(value)}")
    return value


def _shown(value: str, where: str) -> str:
    """Text that a terminal shows and does not obey: a layout may be somebody else's, and is printed."""
    if not value.isprintable() and any(unicodedata.category(c) in ("Cc", "Cf", "Cs") for c in value if c != "\n"):
        raise fail(where, f"{shortened(value)} holds characters that no terminal shows")
    return value


def text(value: Any, where: str) -> str:
    """Text."""
    if not isinstance(value, str):
        raise fail(where, f"expected text, found {shortened(value)}")
    return _shown(value, where)


def label(value: Any, where: str) -> str:
    """Text, or a number or yes/no that YAML made of it."""
    if not isinstance(value, str | int | float):
        raise fail(where, f"expected text, found {shortened(value)}")
    return shortened(value) if isinstance(value, int) and not isinstance(value, bool) else _shown(str(value), where)


def one_of(*names: str) -> Rule:
    """One of a few words."""

    def check(value: Any, where: str) -> str:
        if not isinstance(value, str) or value not in names:
            hint = did_you_mean(value, names) if isinstance(value, str) else ""
            raise fail(where, f"expected one of {', '.join(names)}, found {shortened(value)}{hint}")
        return value

    return check


def either(first: Rule, second: Rule) -> Rule:
    """What one of two checks takes; the second one's words when neither does."""

    def check(value: Any, where: str) -> Any:
        try:
            return first(value, where)
        except LayoutError:
            return second(value, where)

    return check


def list_of(item: Rule, what: str, length: int | None = None) -> Rule:
    """A list, perhaps of a given length, as a tuple; ``what`` is in it, for the message."""

    def check(value: Any, where: str) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple) or (length is not None and len(value) != length):
            raise fail(where, f"expected a list of {what}, found {shortened(value)}")
        return tuple(item(each, f"{where}[{i}]") for i, each in enumerate(value))

    return check


def mapping(value: Any, where: str) -> Mapping[str, Any]:
    """A mapping with names for keys."""
    if not isinstance(value, Mapping):
        raise fail(where, f"expected a mapping of names to values, found {shortened(value)}")
    for key in value:
        if not isinstance(key, str):
            raise fail(where, f"expected names, found {shortened(key)}")
        _shown(key, where)
    return value


class Schema:
    """The schema of a mapping: a check for each name there may be.

    Parameters
    ----------
    checks
        Name to check.
    needed
        Names that must be there, with what to say where one is missing.
    """

    def __init__(self, checks: Mapping[str, Rule], needed: Mapping[str, str] | None = None) -> None:
        self.checks = checks
        self.needed = needed or {}

    def __call__(self, value: Any, where: str) -> dict[str, Any]:
        """The checked values of the names that are there; None (YAML: nothing) is as if the name were not."""
        given = mapping(value, where)
        for key in given:
            if key not in self.checks:
                known = ", ".join(self.checks)
                hint = did_you_mean(key, self.checks) if len(key) < 100 else ""
                raise fail(f"{where}.{key}", f"unknown name{hint}; known: {known}")
        for key, said in self.needed.items():
            if given.get(key) is None:
                raise fail(f"{where}.{key}", said)
        return {
            key: check(given[key], f"{where}.{key}") for key, check in self.checks.items() if given.get(key) is not None
        }
