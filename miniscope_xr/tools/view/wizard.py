"""What the page asks to prepare cards: one method a name. What writes is posted, never a link."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from miniscope_xr.tools.flash import presets
from miniscope_xr.tools.view.given import Answer, Given
from miniscope_xr.tools.view.preparing import Preparer


class Wizard:
    """Requests of the page's wizard."""

    def __init__(self) -> None:
        self.preparer = Preparer()
        self.posted: dict[str, Callable[[Given], Answer]] = {
            "look": self._look, "plan": self._plan, "begin": self._begin, "preset": self._preset,
            "stop": lambda given: self.preparer.stop(),
        }  # fmt: skip

    def _look(self, given: Given) -> Answer:
        return self.preparer.look(given.text("path"), given.yes("image"), given.text("layout", ""))

    def _plan(self, given: Given) -> Answer:
        return self.preparer.plan(given.whole("look"), given.texts("words"))

    def _begin(self, given: Given) -> Answer:
        return self.preparer.begin(given.whole("look"), given.text("typed", ""), given.text("given_up", ""))

    def _preset(self, given: Given) -> Answer:
        name, words = given.text("name"), given.texts("words")
        kept = presets.keep(name, given.text("layout"), words) if words else presets.forget(name)
        return {"presets": {known: asdict(each) for known, each in kept.items()}}
