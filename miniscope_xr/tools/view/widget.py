"""``ds.miniscope.view()``: the page's film, line, cells and files as a widget of a notebook.

The page's own modules run in the notebook's page; what they ask comes as messages of the notebook to Python, wherever
Python is: nothing is asked of 127.0.0.1, so a JupyterHub or an editor on another computer shows it as well. Only what
is looked at is read and sent.

A question is ``{id, ask, given}``; its answer has its ``id`` and either ``error`` or ``answer``. Frames have their
pixels as a buffer. Long work has ``work`` besides: its next part is asked for as ``next``, and ``end`` ends it, so that
cells run between two parts.

This module needs anywidget; :meth:`miniscope_xr.accessor.MiniscopeAccessor.view` imports it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
from collections import OrderedDict
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import anywidget

from miniscope_xr.errors import MiniscopeError, OptionError, message_of, plain
from miniscope_xr.tools.view.answers import Answers
from miniscope_xr.tools.view.given import Frames, Given
from miniscope_xr.tools.view.server import PAGE
from miniscope_xr.tools.view.sliced import SeenDataset

_MOST_WORK = 16  # at the same time; of pages that have gone the oldest are ended
_LOADER = """// Loads the page's modules from their texts, under addresses that only this notebook knows.
const MODULES = %s;
const PAGE = %s;
const made = {};
function address(name) {
  made[name] ??= URL.createObjectURL(new Blob([
    MODULES[name].replace(/from "\\.\\/([a-z]+\\.js)"/g, (_, other) => `from "${address(other)}"`),
  ], { type: "text/javascript" }));
  return made[name];
}
let kernel;
async function render(given) {
  kernel ??= import(address("kernel.js"));
  return (await kernel).render(given, PAGE);
}
export default { render };
"""


def module() -> str:
    """The page's modules as one, as anywidget takes it: a loader with their texts."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in sorted(PAGE.glob("*.js"))}
    for name in ("main.js", "prepare.js", "server.js"):  # of the page of `view` alone
        del texts[name]
    page = {"html": (PAGE / "index.html"), "style": (PAGE / "style.css")}
    return _LOADER % (
        json.dumps(texts),
        json.dumps({name: path.read_text(encoding="utf-8") for name, path in page.items()}),
    )


class ViewerWidget(anywidget.AnyWidget):
    """A Dataset as a film, its traces and projections. Shown by a notebook as the last value of a cell.

    Parameters
    ----------
    seen
        The Dataset, as the page sees it.
    """

    def __init__(self, seen: SeenDataset) -> None:
        self._seen = seen
        self._questions = _Questions(seen)
        super().__init__(_esm=module())
        self.on_msg(self._hear)

    def _hear(self, _: Any, content: Any, buffers: Any) -> None:
        reply = self._questions.reply(content)
        if reply is not None:
            answer, data = reply
            self.send(answer, data)

    def close(self) -> None:
        """Take the widget away, and end what it still computes or writes. The Dataset stays open."""
        self._questions.close()
        self._seen.close()
        super().close()


class _Questions:
    """Answers what the widget's page asks. Safe for several threads: notebooks may have one for messages."""

    def __init__(self, seen: SeenDataset) -> None:
        self._seen = seen
        self._answers = Answers(Path.cwd(), lambda card, recording: seen, {
            "start": lambda given: {"card": seen.card()},
        })  # fmt: skip
        self._work: OrderedDict[int, Generator[dict[str, Any]]] = OrderedDict()
        self._made = itertools.count()
        self._lock = threading.Lock()

    def reply(self, content: Any) -> tuple[dict[str, Any], list[bytes]] | None:
        """Answer a message; None where nothing is expected."""
        if not isinstance(content, Mapping) or not isinstance(content.get("given"), Mapping):
            return None
        given = Given(content["given"])
        try:
            answer, data = self._answer(str(content.get("ask")), given)
        except MiniscopeError as error:
            answer, data = {"error": plain(message_of(error))}, []
        except Exception as error:  # the page has to be told, whatever it was: a Dataset may compute anything
            answer, data = {"error": plain(f"{type(error).__name__}: {error}")}, []
        return None if content.get("id") is None else ({"id": content["id"], **answer}, data)

    def _answer(self, ask: str, given: Given) -> tuple[dict[str, Any], list[bytes]]:
        if ask == "next":
            return self._next(given.whole("work")), []
        if ask == "end":
            self._end(given.whole("work"))
            return {}, []
        answer = self._answers.of(ask, given.values)
        if answer is None:
            raise OptionError(f"{ask}: there is nothing of this name")
        if isinstance(answer, Frames):
            return {"answer": answer.about}, [answer.pixels]
        if not isinstance(answer, Generator):
            return {"answer": answer}, []
        with self._lock:
            number = next(self._made)
            self._work[number] = answer
            oldest = list(self._work)[:-_MOST_WORK]
        for known in oldest:
            self._end(known)
        return self._next(number), []

    def _next(self, number: int) -> dict[str, Any]:
        with self._lock:
            work = self._work.get(number)
        if work is None:
            raise OptionError("this was ended")
        try:
            part = next(work)
        except StopIteration:
            self._end(number)
            return {}
        except BaseException:
            self._end(number)
            raise
        return {"answer": part, "work": number}

    def _end(self, number: int) -> None:
        with self._lock:
            work = self._work.pop(number, None)
        if work is not None:
            with contextlib.suppress(ValueError):  # another thread is in the middle of a part: it is the last one
                work.close()

    def close(self) -> None:
        """End all work."""
        for number in list(self._work):
            self._end(number)
