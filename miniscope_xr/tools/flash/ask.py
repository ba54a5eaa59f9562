"""What is shown before a card is written, and the one question."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

from miniscope_xr.errors import OptionError, plain
from miniscope_xr.layout import SECTOR
from miniscope_xr.source import windows
from miniscope_xr.tools.flash.errors import RefusedError
from miniscope_xr.tools.flash.look import Look
from miniscope_xr.tools.flash.operation import Change
from miniscope_xr.tools.flash.probe import block_of
from miniscope_xr.tools.flash.progress import clear
from miniscope_xr.tools.flash.settings import Settings
from miniscope_xr.tools.flash.values import show

_RATE = 20e6
"""Bytes a second of an ordinary card; only for the estimate."""


def describe_changes(changes: tuple[Change, ...] | list[Change]) -> Iterator[str]:
    """Say what changes, and where, one line each."""
    for change in changes:
        first, last = change.offset // SECTOR, (change.offset + change.length) // SECTOR - 1
        where = f"sector {first}" if first == last else f"sectors {first} to {last}"
        what = "zero" if change.data is None or not any(change.data) else "write"
        length = f" ({change.length / 1e6:.1f} MB, only where not zero)" if change.length > SECTOR else ""
        yield f"{what} {change.name}: {where}{length}"


def estimate(changes: Sequence[Change], data_end: int, prove: tuple[int, int] | None = None) -> float:
    """Return the seconds the changes may take on an ordinary card.

    Everything is read once; what is not zero, up to where old data ends, is written and read back too. To ``prove`` a
    region its end is read, written and put back.
    """
    moved = 3 * block_of(*prove)[1] if prove else 0
    for change in changes:
        end = change.offset + change.length
        dirty = change.length if change.name != "data" else max(0, min(end, data_end) - change.offset)
        moved += change.length + 2 * dirty
    return moved / _RATE


def show_card(seen: Look) -> Iterator[str]:
    """Describe identity and content of a card."""
    yield seen.disk.describe()
    yield f"layout: {seen.layout.id}; {seen.contents.origin}"
    yield f"on it: {seen.lost() if seen.has_recording else 'no recording'}"


def show_settings(seen: Look, new: Settings) -> Iterator[str]:
    """Lay old and new settings side by side."""
    width = max(len(name) for name in new.values)
    yield f"{'setting':{width}}  {'now':>14}  {'new':>14}"
    for name, raw in new.values.items():
        old = seen.contents.settings[name]
        mark = "  *" if old != raw else ""
        field = seen.layout.header[name]
        yield f"{name:{width}}  {show(field, old):>14}  {show(field, raw):>14}{mark}"


def check_card_option(card: str | None, yes: bool, card_id: str) -> None:
    """Check ``--card``; ``--yes`` skips the question only, and needs it.

    Raises
    ------
    OptionError
        ``--yes`` without ``--card``.
    RefusedError
        ``--card`` names another card.
    """
    if yes and not card:
        raise OptionError("--yes skips the question and so needs --card ID, the id that `list` shows")
    if card and card.lower() != card_id.lower():
        raise RefusedError(f"--card {card} is not this card; it is {card_id}. Look again with `list`", card_id=card_id)


def is_person(source: Any) -> bool:
    """Whether a stream comes from a terminal. To Windows ``NUL`` is one too, which is what a planned task is given."""
    if not getattr(source, "isatty", lambda: False)():
        return False
    return sys.platform != "win32" or not windows.is_nul(source)


def confirm(card_id: str, yes: bool) -> None:
    """Let the user type the last four characters of the card id.

    Raises
    ------
    RefusedError
        Something else was typed, or nobody is there to ask.
    """
    if yes:
        return
    if not is_person(sys.stdin):
        raise RefusedError(f"nobody is there to ask; if this is the card: --yes --card {card_id}", card_id=card_id)
    question = f"Type the last four characters of the card id {plain(card_id)} to go on: "
    clear()
    print(question, end="", file=sys.stderr, flush=True)
    try:
        typed = sys.stdin.readline().strip()
    except UnicodeDecodeError:
        raise RefusedError("what was typed is no text; nothing was written") from None
    check_typed(typed, card_id)


def check_typed(typed: str, card_id: str) -> None:
    """Refuse unless the last four characters of the card id were typed.

    Raises
    ------
    RefusedError
        Something else was.
    """
    if typed.strip().lower() != card_id[-4:].lower():
        raise RefusedError(f"{typed!r} is not {card_id[-4:]!r}; nothing was written")
