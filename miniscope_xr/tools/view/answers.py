"""What each request of the page is answered with: one method a name."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from miniscope_xr.errors import OptionError
from miniscope_xr.tools.flash import presets
from miniscope_xr.tools.view import cells, line, measure, written
from miniscope_xr.tools.view.preparing import Preparer
from miniscope_xr.tools.view.seen import Seen
from miniscope_xr.tools.view.shelf import Shelf, candidates

MOST_BYTES = 8_000_000
"""Of pixels in one answer."""

Answer = dict[str, Any] | Generator[dict[str, Any]]


class Frames(NamedTuple):
    """Frames: what is said of them, and their pixels, one frame after another (uint8, or little-endian float32)."""

    about: dict[str, Any]
    pixels: bytes

    @property
    def data(self) -> bytes:
        """Both as one: length of the JSON (uint32), the JSON, the pixels."""
        about = json.dumps(self.about).encode()
        return struct.pack("<I", len(about)) + about + self.pixels


class Answers:
    """What can be asked of a recording that is looked at, by the page or by a notebook.

    Parameters
    ----------
    folder
        Files are written into it.
    find
        The recording of two numbers: that of the card, and that of the recording.
    more
        What else can be asked, by name.
    """

    def __init__(
        self,
        folder: Path,
        find: Callable[[int, int], Seen],
        more: Mapping[str, Callable[[Given], Answer]],
    ) -> None:
        self._folder = folder
        self._find = find
        self._asked: dict[str, Callable[[Given], Answer | Frames]] = {
            "line": self._line, "frames": self._frames, "traces": self._traces, "projection": self._projection,
            "write": self._write, "cells": self._cells_file, **more,
        }  # fmt: skip

    def of(self, name: str, given: Mapping[str, Any]) -> Answer | Frames | None:
        """Answer the request ``name``; None where there is no such request."""
        asked = self._asked.get(name)
        return None if asked is None else asked(Given(given))

    def _line(self, given: Given) -> Answer:
        return line.line(self._seen(given))

    def _frames(self, given: Given) -> Frames:
        seen = self._seen(given)
        size = seen.height * seen.width * (4 if seen.real else 1)
        rows = seen.rows(given.whole("start"), min(given.whole("count"), max(MOST_BYTES // size, 1)))
        images = np.asarray(seen.pixels(rows), "<f4" if seen.real else "u1")
        heads = seen.heads(rows)
        about = {
            "start": int(rows[0]), "count": len(rows), "numbers": heads.numbers.tolist(),
            "ms": line.plain_numbers(heads.ms), "whole": heads.whole.tolist(),
        }  # fmt: skip
        return Frames(about, images.tobytes())

    def _traces(self, given: Given) -> Answer:
        return measure.traces(self._seen(given), given.shapes())

    def _cells_file(self, given: Given) -> Answer:
        path = self._folder / Path(given.text("path")).expanduser()
        return cells.save(self._seen(given), given.shapes(), given.texts("names"), path)

    def _projection(self, given: Given) -> Answer:
        return measure.projection(self._seen(given), given.text("kind"), given.whole("start"), given.whole("stop"))

    def _write(self, given: Given) -> Answer:
        seen = self._seen(given)
        start, stop = given.whole("start"), given.whole("stop")
        seen.rows(start, stop - start)
        path = self._folder / Path(given.text("path")).expanduser()
        return written.write(seen, given.text("kind"), path, slice(start, stop), given.text("animal", ""))

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
        super().__init__(folder, self.shelf.seen, {
            "start": self._start, "open": self._open, "findings": self._findings, "cards": self._cards,
            "preparing": self._preparing,
        })  # fmt: skip
        self.preparer = Preparer()
        self._posted: dict[str, Callable[[Given], Answer]] = {
            "look": self._look, "plan": self._plan, "begin": self._begin, "stop": self._stop, "preset": self._preset,
        }  # fmt: skip

    def of_posted(self, name: str, given: Mapping[str, Any]) -> Answer | Frames | None:
        """Answer a request that was posted: also what prepares a card."""
        posted = self._posted.get(name)
        return self.of(name, given) if posted is None else posted(Given(given))

    def _start(self, given: Given) -> Answer:
        return {
            "open": self.first, "found": candidates(self._folder), "folder": str(self._folder),
            "kinds": written.listed(),
        }  # fmt: skip

    def _open(self, given: Given) -> Answer:
        return self.shelf.open(given.text("path"))

    def _findings(self, given: Given) -> Answer:
        return {"findings": line.findings(self.shelf.path(given.whole("card")))}

    def _cards(self, given: Given) -> Answer:
        return self.preparer.cards()

    def _preparing(self, given: Given) -> Answer:
        return self.preparer.state()

    def _look(self, given: Given) -> Answer:
        return self.preparer.look(given.text("path"), given.yes("image"), given.text("layout", ""))

    def _plan(self, given: Given) -> Answer:
        return self.preparer.plan(given.whole("look"), given.texts("words"))

    def _begin(self, given: Given) -> Answer:
        return self.preparer.begin(given.whole("look"), given.text("typed", ""), given.text("given_up", ""))

    def _stop(self, given: Given) -> Answer:
        return self.preparer.stop()

    def _preset(self, given: Given) -> Answer:
        name, words = given.text("name"), given.texts("words")
        kept = presets.keep(name, given.text("layout"), words) if words else presets.forget(name)
        return {"presets": {known: asdict(each) for known, each in kept.items()}}


class Given:
    """What a request says, checked when it is used."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def whole(self, name: str) -> int:
        """A whole number."""
        value = self.values.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) > 1 << 53:
            raise OptionError(f"{name}: expected a whole number")
        return value

    def text(self, name: str, absent: str | None = None) -> str:
        """Some text; ``absent`` where there is none."""
        value = self.values.get(name) or absent
        if not isinstance(value, str):
            raise OptionError(f"{name}: expected text")
        return value

    def texts(self, name: str) -> list[str]:
        """Some texts, at most as many as a header sector has settings."""
        value = self.values.get(name)
        if not isinstance(value, list) or len(value) > 64 or not all(isinstance(each, str) for each in value):
            raise OptionError(f"{name}: expected a list of texts")
        return value

    def shapes(self) -> list[Mapping[str, Any]]:
        """Circles and boxes."""
        value = self.values.get("shapes")
        if not isinstance(value, list) or not all(isinstance(shape, dict) for shape in value):
            raise OptionError("shapes: expected a list of circles and boxes")
        return value

    def yes(self, name: str) -> bool:
        """Yes or no; no where nothing is said."""
        value = self.values.get(name, False)
        if not isinstance(value, bool):
            raise OptionError(f"{name}: expected true or false")
        return value
