"""One line a card, on a terminal only: what is done with it now, and how far that is."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from typing import Any

from miniscope_xr.tools.flash import interrupts
from miniscope_xr.tools.flash.operation import Progress
from miniscope_xr.tools.flash.progress import PLACES

_FORM = "{desc}: {percentage:3.0f}%|{bar:24}| {n_fmt}/{total_fmt} [{remaining}, {rate_fmt}]"


class Stopped(Exception):
    """The person wants it to end: raised in each card's thread at its next step."""


class Lines:
    """The lines, and the word to stop. Used by all threads.

    Parameters
    ----------
    cards
        What each line begins with.
    show
        False: none (``--json``). Off a terminal there is none either.
    """

    def __init__(self, cards: Sequence[str], show: bool) -> None:
        from tqdm import tqdm

        self._stop = threading.Event()
        self._cards, self._what = list(cards), [""] * len(cards)
        self._bars: list[Any] = []
        if show and sys.stderr is not None and sys.stderr.isatty():
            self._bars = [
                tqdm(total=1, desc=f"{card}: waiting", position=place, leave=False, bar_format="{desc}")
                for place, card in enumerate(cards)
            ]

    def stop(self) -> None:
        """Have every card end at its next step."""
        self._stop.set()

    @property
    def stopped(self) -> bool:
        """Whether it is to end: a signal arrived, or a card's work was interrupted."""
        return self._stop.is_set() or bool(interrupts.arrived())

    def see(self, card: int, unit: str = "B") -> Progress:
        """Return what the work on a card tells of its progress; it raises :class:`Stopped` once it is to end.

        ``unit`` is what it counts: bytes, or ``frame``.
        """

        def told(what: str, done: int, total: int) -> None:
            if self.stopped:
                raise Stopped
            self.show(card, what, done, total, "place" if what in PLACES else unit)

        return told

    def show(self, card: int, what: str, done: int, total: int, unit: str) -> None:
        """Show how far a card is."""
        anew = what != self._what[card]
        self._what[card] = what
        if not self._bars:
            return
        bar = self._bars[card]
        if anew:
            bar.unit, bar.unit_scale = unit, unit == "B"
            bar.set_description_str(f"{self._cards[card]}: {what}", refresh=False)
            bar.bar_format = _FORM
            bar.reset(total)
        bar.update(done - bar.n)

    def doing(self, card: int) -> str:
        """What is done with a card now; empty before it began."""
        return self._what[card]

    def ended(self, card: int, how: str) -> None:
        """Show how a card ended."""
        if self._bars:
            bar = self._bars[card]
            bar.bar_format = "{desc}"
            bar.set_description_str(f"{self._cards[card]}: {how}")

    def close(self) -> None:
        """Take them off the terminal."""
        for bar in self._bars:
            bar.close()
