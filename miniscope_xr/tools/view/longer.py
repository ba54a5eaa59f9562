"""What takes longer than a picture: the line, traces, projections, files, and what the check finds.

Imported when it is first asked for, or a moment after the first picture (:meth:`.answers.Answers.longer`): xarray,
which most of it needs, takes longer to import than the first picture takes to come.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from miniscope_xr.errors import OptionError
from miniscope_xr.tools.view import cells, line, measure, written
from miniscope_xr.tools.view.given import Answer, Given
from miniscope_xr.tools.view.seen import Seen


class Longer:
    """Requests about a recording that are more than its frames.

    Parameters
    ----------
    folder
        Files are written into it.
    find
        The recording that a request is about.
    """

    def __init__(self, folder: Path, find: Callable[[Given], Seen]) -> None:
        self._folder, self._seen = folder, find
        self.asked: dict[str, Callable[[Given], Answer]] = {
            "line": lambda given: line.line(find(given)),
            "resting": lambda given: measure.resting(find(given)),
            "traces": lambda given: measure.traces(find(given), given.shapes()),
            "kinds": lambda given: {"kinds": written.listed(find(given))},
            "findings": lambda given: {"findings": find(given).findings()},
            "projection": self._projection,
            "cells": self._cells,
            "write": self._write,
        }

    def _projection(self, given: Given) -> Answer:
        return measure.projection(self._seen(given), given.text("kind"), given.whole("start"), given.whole("stop"))

    def _cells(self, given: Given) -> Answer:
        return cells.save(self._seen(given), given.shapes(), given.texts("names"), self._path(given))

    def _write(self, given: Given) -> Answer:
        seen = self._seen(given)
        start, stop = given.whole("start"), given.whole("stop")
        seen.rows(start, stop - start)
        return written.write(seen, given.text("kind"), self._path(given), slice(start, stop), given.text("animal", ""))

    def _path(self, given: Given) -> Path:
        try:
            return self._folder / Path(given.text("path")).expanduser()
        except RuntimeError as error:
            raise OptionError(f"{given.text('path')}: {error}; type the whole path") from error
