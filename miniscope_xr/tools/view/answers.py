"""What each request of the page is answered with: one method a name.

What the first picture needs stands here; the rest is imported when it is asked for (:mod:`.longer`, :mod:`.wizard`),
so that a person sees the picture first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from miniscope_xr.tools.view.given import Answer, Answering, Frames, Given
from miniscope_xr.tools.view.seen import Seen, plain_numbers
from miniscope_xr.tools.view.shelf import Shelf, candidates

if TYPE_CHECKING:
    from miniscope_xr.tools.view.longer import Longer
    from miniscope_xr.tools.view.wizard import Wizard

MOST_BYTES = 8_000_000
"""Of pixels in one answer."""


class Answers:
    """What can be asked of a recording that is looked at, by the page or by a notebook.

    Parameters
    ----------
    folder
        Files are written into it.
    find
        The recording of two numbers: that of the card, and that of the recording.
    more
        What else can be asked.
    """

    def __init__(self, folder: Path, find: Callable[[int, int], Seen], more: Answering) -> None:
        self._folder = folder
        self._find = find
        self._asked: dict[str, Callable[[Given], Answer | Frames]] = {
            "frames": self._frames, "rate": lambda given: {"fps": self._seen(given).fps}, **more,
        }  # fmt: skip
        self._importing = threading.Lock()
        self._rest: Longer | None = None

    def of(self, name: str, given: Mapping[str, Any]) -> Answer | Frames | None:
        """Answer the request ``name``; None where there is no such request."""
        asked = self._asked.get(name) or self.longer().asked.get(name)
        return None if asked is None else asked(Given(given))

    def longer(self) -> Longer:
        """What takes longer than a picture; imports it."""
        with self._importing:
            if self._rest is None:
                from miniscope_xr.tools.view.longer import Longer  # start-up time: xarray takes half a second

                self._rest = Longer(self._folder, self._seen)
            return self._rest

    def _frames(self, given: Given) -> Frames:
        seen = self._seen(given)
        size = seen.height * seen.width * (4 if seen.real else 1)
        rows = seen.rows(given.whole("start"), min(given.whole("count"), max(MOST_BYTES // size, 1)))
        images = np.asarray(seen.pixels(rows), "<f4" if seen.real else "u1")
        heads = seen.heads(rows)
        about = {
            "start": int(rows[0]), "count": len(rows), "numbers": heads.numbers.tolist(),
            "ms": plain_numbers(heads.ms), "whole": heads.whole.tolist(),
        }  # fmt: skip
        return Frames(about, images.tobytes())

    def _seen(self, given: Given) -> Seen:
        return self._find(given.whole("card"), given.whole("recording"))


class PageAnswers(Answers):
    """What the page of ``view`` can ask besides: other cards, and to prepare one.

    Parameters
    ----------
    folder
        Images in it are offered, and files are written into it.
    """

    def __init__(self, folder: Path) -> None:
        self.shelf = Shelf()
        self.first: list[str] = []
        """Paths of the cards that the page opens at once."""
        self._prepares: Wizard | None = None
        super().__init__(folder, self.shelf.seen, {
            "start": lambda given: {"open": self.first, "folder": str(self._folder)},
            "open": lambda given: self.shelf.open(given.text("path")),
            "found": lambda given: {"found": candidates(self._folder)},
            "preparing": self._preparing,
            "cards": lambda given: self._wizard().preparer.cards(),
        })  # fmt: skip

    def of_posted(self, name: str, given: Mapping[str, Any]) -> Answer | Frames | None:
        """Answer a request that was posted: also what prepares a card."""
        if name in ("look", "plan", "begin", "stop", "preset"):
            return self._wizard().posted[name](Given(given))
        return self.of(name, given)

    @property
    def busy(self) -> bool:
        """Whether a card is being written."""
        return self._prepares is not None and self._prepares.preparer.busy

    def end_writing(self) -> str:
        """End the writing of a card; returns how that card is, "" where none was being written."""
        return "" if self._prepares is None else self._prepares.preparer.close()

    def _wizard(self) -> Wizard:
        with self._importing:
            if self._prepares is None:
                from miniscope_xr.tools.view.wizard import Wizard  # start-up time: looking needs nothing that writes

                self._prepares = Wizard()
            return self._prepares

    def _preparing(self, given: Given) -> Answer:
        return {"phase": "idle"} if self._prepares is None else self._prepares.preparer.state()
