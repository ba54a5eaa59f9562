"""Progress bars with time left, on a terminal only."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from miniscope_xr.tools.flash.operation import Progress
from miniscope_xr.tools.stream.outputs import progress_bar

PLACES = {"marks", "reading back"}
"""What counts places on the card; everything else counts bytes."""
_DRAWN: dict[str, Any] = {}  # the bar on the terminal, of which there is one


@contextlib.contextmanager
def bars(quiet: bool = False) -> Iterator[Progress | None]:
    """Yield a progress callback that draws one bar for each thing in work; None where there is no terminal."""
    if quiet or not sys.stderr.isatty():
        yield None
        return

    def update(name: str, done: int, total: int) -> None:
        if name not in _DRAWN:
            clear()
            _DRAWN[name] = progress_bar(total, name, "place" if name in PLACES else "B")
        _DRAWN[name].update(done - _DRAWN[name].n)

    try:
        yield update
    finally:
        clear()


def clear() -> None:
    """Take the bar off the terminal: a word is about to be said, and would stand behind it."""
    for bar in _DRAWN.values():
        bar.close()
    _DRAWN.clear()
