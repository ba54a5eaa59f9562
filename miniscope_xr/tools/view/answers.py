"""What each request of the page is answered with: one method a name."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from miniscope_xr.errors import OptionError
from miniscope_xr.tools.flash import presets
from miniscope_xr.tools.view import line, measure, written
from miniscope_xr.tools.view.preparing import Preparer
from miniscope_xr.tools.view.shelf import Seen, Shelf, candidates

MOST_BYTES = 8_000_000
"""Of pixels in one answer."""

Answer = dict[str, Any] | Generator[dict[str, Any]]


class Bytes(NamedTuple):
    """An answer that is not JSON: its type, its data, and the name of the file it becomes ("" for none)."""

    kind: str
    data: bytes
    name: str = ""


class Answers:
    """What can be asked.

    Parameters
    ----------
    folder : Path
        Images in it are offered.
    """

    def __init__(self, folder: Path) -> None:
        self.shelf = Shelf()
        self.first: list[str] = []
        """Paths of the cards that the page opens at once."""
        self._folder = folder
        self._asked: dict[str, Callable[[_Given], Answer | Bytes]] = {
            "start": self._start, "open": self._open, "line": self._line, "findings": self._findings,
            "frames": self._frames, "traces": self._traces, "projection": self._projection,
            "write": self._write, "cards": self._cards, "preparing": self._preparing,
        }  # fmt: skip
        self.preparer = Preparer()
        self._posted: dict[str, Callable[[_Given], Answer]] = {
            "look": self._look, "plan": self._plan, "begin": self._begin, "stop": self._stop, "preset": self._preset,
        }  # fmt: skip

    def of(self, name: str, given: Mapping[str, Any], posted: bool = True) -> Answer | Bytes | None:
        """Answer the request ``name``; None where there is no such request. What prepares a card has to be posted."""
        asked = self._asked.get(name) or (self._posted.get(name) if posted else None)
        return None if asked is None else asked(_Given(given))

    def _start(self, given: _Given) -> Answer:
        kinds = [kind._asdict() for kind in written.kinds().values()]
        return {"open": self.first, "found": candidates(self._folder), "folder": str(self._folder), "kinds": kinds}

    def _open(self, given: _Given) -> Answer:
        return self.shelf.open(given.text("path"))

    def _line(self, given: _Given) -> Answer:
        return line.line(self._seen(given))

    def _findings(self, given: _Given) -> Answer:
        return {"findings": line.findings(self.shelf.path(given.whole("card")))}

    def _frames(self, given: _Given) -> Bytes:
        """Frames as bytes: length of the JSON (uint32), the JSON, and the pixels of one frame after another."""
        seen = self._seen(given)
        size = seen.store.recording.height * seen.store.recording.width
        rows = seen.rows(given.whole("start"), min(given.whole("count"), max(MOST_BYTES // size, 1)))
        images = seen.pixels(rows)
        headers = seen.store.describe(rows)
        about = json.dumps({
            "start": int(rows[0]), "count": len(rows), "numbers": headers.frame_num.tolist(),
            "ms": line.plain_numbers(seen.store.times(rows)), "whole": headers.complete.tolist(),
        }).encode()  # fmt: skip
        return Bytes("application/octet-stream", struct.pack("<I", len(about)) + about + images.tobytes())

    def _traces(self, given: _Given) -> Answer:
        shapes = given.values.get("shapes")
        if not isinstance(shapes, list) or not all(isinstance(shape, dict) for shape in shapes):
            raise OptionError("shapes: expected a list of circles and boxes")
        return measure.traces(self._seen(given), shapes)

    def _projection(self, given: _Given) -> Answer:
        return measure.projection(self._seen(given), given.text("kind"), given.whole("start"), given.whole("stop"))

    def _write(self, given: _Given) -> Answer:
        seen = self._seen(given)
        start, stop = given.whole("start"), given.whole("stop")
        seen.rows(start, stop - start)
        path = self._folder / Path(given.text("path")).expanduser()
        return written.write(seen, given.text("kind"), path, slice(start, stop), given.text("animal", ""))

    def _cards(self, given: _Given) -> Answer:
        return self.preparer.cards()

    def _preparing(self, given: _Given) -> Answer:
        return self.preparer.state()

    def _look(self, given: _Given) -> Answer:
        return self.preparer.look(given.text("path"), given.yes("image"), given.text("layout", ""))

    def _plan(self, given: _Given) -> Answer:
        return self.preparer.plan(given.whole("look"), given.texts("words"))

    def _begin(self, given: _Given) -> Answer:
        return self.preparer.begin(given.whole("look"), given.text("typed", ""), given.text("given_up", ""))

    def _stop(self, given: _Given) -> Answer:
        return self.preparer.stop()

    def _preset(self, given: _Given) -> Answer:
        name, words = given.text("name"), given.texts("words")
        kept = presets.keep(name, given.text("layout"), words) if words else presets.forget(name)
        return {"presets": {known: asdict(each) for known, each in kept.items()}}

    def _seen(self, given: _Given) -> Seen:
        return self.shelf.seen(given.whole("card"), given.whole("recording"))


class _Given:
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

    def yes(self, name: str) -> bool:
        """Yes or no; no where nothing is said."""
        value = self.values.get(name, False)
        if not isinstance(value, bool):
            raise OptionError(f"{name}: expected true or false")
        return value
