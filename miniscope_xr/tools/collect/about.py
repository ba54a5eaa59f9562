"""What is told of each card: from options, from a table, from what was told before, or asked for once."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Callable, Mapping, Sequence

from miniscope_xr.errors import OptionError, plain
from miniscope_xr.tools.export.options import ABOUT, facts
from miniscope_xr.tools.flash.ask import is_person
from miniscope_xr.tools.stream.tables import moment_of

SESSION = {
    "animal": "name of the animal",
    "session": "the lab's name for the session",
    "date": "when it was recorded: 2026-03-14, or with the time of day 2026-03-14T15:09:26, or today",
    "experimenter": "who did it, as 'Last, First'",
    "notes": "anything else",
}
TOLD = {**SESSION, **{name: text for name, text in ABOUT.items() if name not in ("session_id", *SESSION)}}
"""What can be told of a card, and what it is."""
SETTINGS = "settings"
"""Column of a table that is not about this recording but the next: NAME=VALUE words for ``--then-prepare``."""
_SAME = ("date", "experimenter")  # are likely to be those of the card before

About = dict[str, str]


def checked(given: Mapping[str, object]) -> About:
    """Return what was told as texts, the date as ISO 8601 writes it; what is empty is left out.

    Raises
    ------
    OptionError
        A value that cannot be.
    """
    about: About = {}
    for name, value in given.items():
        text = " ".join(str(value).split()) if name != "notes" else str(value).strip()
        if value is not None and text:
            about[name] = date_of(value) if name == "date" else text
    facts({name: about[name] for name in ABOUT if name in about})
    return about


def date_of(value: object) -> str:
    """Return a day, or a day and a time of day, as ISO 8601 writes it.

    Raises
    ------
    OptionError
        It is none; 3/4/2026 is not taken, which is another day in another country. 29.11.2026 and 11/29/2026 are.
    """
    if isinstance(value, datetime.date):  # also a datetime: YAML has them
        return value.isoformat()
    text = str(value).strip()
    if text.lower() == "today":
        return datetime.date.today().isoformat()
    try:
        moment = moment_of(text)
    except ValueError as error:
        raise OptionError(
            f"date={plain(text)!r}: expected a day such as 2026-03-14, with a time of day 2026-03-14T15:09:26, or today"
        ) from error
    return moment.isoformat() if ":" in text or "T" in text else moment.date().isoformat()


def asked(
    cards: Sequence[str], abouts: Sequence[About], fields: Sequence[str], ask: Callable[[str], str] | None
) -> list[About]:
    """Fill in what the template needs and nobody told, by asking a person.

    Parameters
    ----------
    cards
        Each in words that a person knows it by.
    abouts
        What is told of each so far.
    fields
        That the template needs.
    ask
        Asks a question and returns the answer; None where nobody is there.

    Raises
    ------
    OptionError
        Something is missing, and nobody is there to ask.
    """
    missing = {card: [name for name in fields if name not in about] for card, about in zip(cards, abouts, strict=True)}
    lacking = {card: names for card, names in missing.items() if names}
    if lacking and ask is None:
        said = "; ".join(f"{name} of {_some(cards)}" for name, cards in _by_field(lacking).items())
        raise OptionError(
            f"not known: {said}. Name them with options ({', '.join('--' + name for name in SESSION)}) or in a table "
            "(--table), or take other fields for the names of the files, such as --name '{card}'"
        )
    found, before = [], {"date": datetime.date.today().isoformat()}
    for card, about in zip(cards, abouts, strict=True):
        full = dict(about)
        for name in missing[card]:
            full[name] = _answer(card, name, before.get(name, ""), ask)
        before.update({name: full[name] for name in _SAME if name in full})
        found.append(full)
    return found


def _by_field(lacking: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The cards of which the same things are not known, by these."""
    cards: dict[str, list[str]] = {}
    for card, names in lacking.items():
        cards.setdefault(" and ".join(names), []).append(card)
    return cards


def _some(cards: Sequence[str], most: int = 3) -> str:
    more = f" and {len(cards) - most:,} more cards" if len(cards) > most else ""
    return ", ".join(cards[:most]) + more


def _answer(card: str, name: str, usual: str, ask: Callable[[str], str] | None) -> str:
    assert ask is not None
    while True:
        answer = ask(f"{name} of {plain(card)}{f' [{usual}]' if usual else ''}: ").strip() or usual
        try:
            about = checked({name: answer})
        except OptionError as error:
            print(plain(error), file=sys.stderr)
            continue
        if name in about:
            return about[name]


def terminal() -> Callable[[str], str] | None:
    """Return what asks the person at the terminal; None where there is none.

    Raises (when it asks)
    ---------------------
    OptionError
        The input ended.
    """
    if not is_person(sys.stdin):
        return None

    def ask(question: str) -> str:
        print(question, end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            raise OptionError("the answers ended; give the rest with options or a table (--table)")
        return line

    return ask
