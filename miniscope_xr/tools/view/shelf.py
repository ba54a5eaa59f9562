"""The cards a page looks at: opened once, known by a number, closed at the end."""

from __future__ import annotations

import errno
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from miniscope_xr.card import OpenCard, OpenRecording
from miniscope_xr.engine.dataset import frames_dataset
from miniscope_xr.errors import CardChangedError, MiniscopeError, OptionError, plain
from miniscope_xr.tools.flash import refuse
from miniscope_xr.tools.flash.disks.find import present
from miniscope_xr.tools.stream.timing import frame_rate

MOST_CARDS = 16


@dataclass(frozen=True)
class Seen:
    """One recording as the page sees it."""

    store: OpenRecording
    nan: OpenRecording
    """The same recording with NaN where pixels are not on the card."""
    ds: xr.Dataset

    @property
    def count(self) -> int:
        """Frames of the recording."""
        return self.store.frames.count

    def pixels(self, rows: np.ndarray[Any, np.dtype[np.int64]]) -> np.ndarray[Any, Any]:
        """Pixels of some rows: uint8 (rows, height, width), black where they are not on the card.

        Raises
        ------
        CardChangedError
            Another card is in the reader, or the image was written to.
        """
        pixels = self.store.pixels(rows)
        if self.store.card.source().changed:
            raise self._changed()
        return pixels

    def refuse_other(self, card: OpenCard) -> None:
        """Raise CardChangedError where the card that is opened again is another one."""
        if card.fingerprint != self.store.card.fingerprint:
            raise self._changed()

    def _changed(self) -> CardChangedError:
        text = "was written to or changed since it was opened; open it again"
        return CardChangedError(errno.ESTALE, text, self.store.card.path)

    def rows(self, start: int, count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Rows ``start`` to ``start + count``, as far as the recording has them.

        Raises
        ------
        OptionError
            It has none of them.
        """
        if not 0 <= start < self.count or count < 1:
            raise OptionError(f"frames {start} to {start + count - 1}: this recording has frames 0 to {self.count - 1}")
        return np.arange(start, min(start + count, self.count))

    def described(self) -> dict[str, Any]:
        """What the page has to know before the first picture."""
        recording = self.store.recording
        return {
            "number": recording.number, "frames": self.count, "width": recording.width, "height": recording.height,
            "fps": frame_rate(self.ds) if self.count > 1 else 20.0, "status": recording.status,
            "warnings": list(recording.warnings),
        }  # fmt: skip


class Shelf:
    """Cards by number. Safe for the threads of a server."""

    def __init__(self) -> None:
        self._cards: list[tuple[OpenCard, list[Seen]]] = []
        self._lock = threading.Lock()

    def open(self, path: str) -> dict[str, Any]:
        """Open a card or image, or find it where it is open already; returns what the page shows of it."""
        with self._lock:
            for number, (card, seen) in enumerate(self._cards):
                if card.path == path and _same(card):
                    return self._described(number, card, seen)
            if len(self._cards) >= MOST_CARDS:
                raise OptionError(f"{MOST_CARDS} cards are open already; close the page and start again")
            card = OpenCard(path, errors="fill")
            try:
                seen = [_seen(card, number) for number in range(len(card.index.recordings))]
                described = self._described(len(self._cards), card, seen)
            except BaseException:
                card.close()
                raise
            self._cards.append((card, seen))
            return described

    def _described(self, number: int, card: OpenCard, seen: list[Seen]) -> dict[str, Any]:
        settings = {name: str(seen[0].ds.attrs[name]) for name in card.layout.header if name in seen[0].ds.attrs}
        meanings = {name: str(seen[0].ds.attrs.get(f"{name}_meaning", value)) for name, value in settings.items()}
        return {
            "card": number, "name": plain(Path(card.path).name or card.path), "path": plain(card.path),
            "layout": card.index.layout.id, "settings": meanings, "recordings": [one.described() for one in seen],
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

    def _card(self, number: int) -> tuple[OpenCard, list[Seen]]:
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


def _seen(card: OpenCard, number: int) -> Seen:
    recording = card.index.recordings[number]
    store = OpenRecording(card, recording)
    return Seen(store, OpenRecording(card, recording, nan=True), frames_dataset(store))


def candidates(folder: Path) -> list[dict[str, str]]:
    """What could be looked at: the cards that ``list`` shows, and the images in a folder."""
    found = []
    for disk in present():
        if disk.size and not refuse.reasons(disk, expect_size=disk.size):
            found.append({"path": disk.path, "said": disk.describe()})
    for path in sorted(folder.glob("*.img")):
        found.append({"path": str(path), "said": plain(f"{path.name}, {path.stat().st_size / 1e9:.2f} GB")})
    return found
