"""The cards a page looks at: opened once, known by a number, closed at the end."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from miniscope_xr.card import OpenCard
from miniscope_xr.errors import MiniscopeError, OptionError, plain
from miniscope_xr.source.open import address
from miniscope_xr.tools.flash import refuse
from miniscope_xr.tools.flash.disks.find import present
from miniscope_xr.tools.view.seen import Seen, SeenRecording, settings_told

MOST_CARDS = 16


class Shelf:
    """Cards by number. Safe for the threads of a server."""

    def __init__(self) -> None:
        self._cards: list[tuple[OpenCard, list[SeenRecording]]] = []
        self._lock = threading.Lock()

    def open(self, path: str) -> dict[str, Any]:
        """Open a card or image, or find it where it is open already; returns what the page shows of it."""
        path = address(path)
        with self._lock:
            for number, (card, seen) in enumerate(self._cards):
                if card.path == path and _same(card):
                    return self._described(number, card, seen)
            if len(self._cards) >= MOST_CARDS:
                raise OptionError(f"{MOST_CARDS} cards are open already; close the page and start again")
            card = OpenCard(path, errors="fill")
            try:
                seen = [SeenRecording(card, number) for number in range(len(card.index.recordings))]
                described = self._described(len(self._cards), card, seen)
            except BaseException:
                card.close()
                raise
            self._cards.append((card, seen))
            return described

    def _described(self, number: int, card: OpenCard, seen: Sequence[Seen]) -> dict[str, Any]:
        return {
            "card": number, "name": plain(Path(card.path).name or card.path), "path": plain(card.path),
            "layout": card.index.layout.id, "settings": settings_told(seen[0].attrs, card.layout.header),
            "recordings": [one.described() for one in seen],
        }  # fmt: skip

    def path(self, number: int) -> str:
        """Where card ``number`` is."""
        return self._card(number)[0].path

    def seen(self, number: int, recording: int) -> Seen:
        """One recording of an open card."""
        found = self._card(number)[1]
        if not 0 <= recording < len(found):
            raise OptionError(f"recording {recording}: this card has {len(found)}")
        return found[recording]

    def _card(self, number: int) -> tuple[OpenCard, list[SeenRecording]]:
        if not 0 <= number < len(self._cards):
            raise OptionError(f"card {number} is not open")
        return self._cards[number]

    def close(self) -> None:
        """Close every card."""
        with self._lock:
            for card, _ in self._cards:
                card.close()


def _same(card: OpenCard) -> bool:
    """Whether it is still the card that was opened."""
    try:
        return not card.source().changed
    except MiniscopeError:
        return False


def candidates(folder: Path) -> list[dict[str, str]]:
    """What could be looked at: the cards that ``list`` shows, and the images in a folder."""
    found = []
    for disk in present():
        if disk.size and not refuse.reasons(disk, expect_size=disk.size):
            found.append(_candidate(disk.path, disk.describe()))
    for path in sorted(folder.glob("*.img")):
        with contextlib.suppress(OSError):  # a link that leads nowhere, or one that has just gone
            if path.is_file():
                found.append(_candidate(str(path), f"{path.name}, {path.stat().st_size / 1e9:.2f} GB"))
    return found


def _candidate(path: str, said: str) -> dict[str, str]:
    """``shown`` is the path as a person can read it: a name may hold what is no letter."""
    return {"path": path, "shown": plain(path), "said": plain(said)}
