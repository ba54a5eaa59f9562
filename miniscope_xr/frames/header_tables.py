"""Headers that came along with pixels, kept until somebody asks for the coordinates of those frames."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np

from miniscope_xr.frames.axis import Int


@dataclass(frozen=True)
class HeaderTable:
    """Headers of some frames.

    ``words`` holds them, uint32 (frames, words of all the headers of one); ``known`` says for which frames.
    """

    words: np.ndarray[Any, np.dtype[np.uint32]]
    known: np.ndarray[Any, np.dtype[np.bool_]]

    @classmethod
    def room(cls, count: int, width: int) -> HeaderTable:
        """A table of ``count`` frames of ``width`` words, none of them known."""
        return cls(np.empty((count, width), "<u4"), np.zeros(count, bool))


class HeaderTables:
    """Tables of stretches of frames that follow one another, the newest ``most`` frames of them.

    The newest table always stays, however many frames it has.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._tables: OrderedDict[int, HeaderTable] = OrderedDict()  # by first row
        self._frames = 0
        self._lock = threading.Lock()

    def put(self, rows: Int, table: HeaderTable) -> None:
        """Keep the headers of a stretch of rows; other selections are not kept."""
        if not _follow(rows):
            return
        with self._lock:
            self._forget(int(rows[0]))
            self._tables[int(rows[0])] = table
            self._frames += len(rows)
            while len(self._tables) > 1 and self._frames > self._most:
                self._forget(next(iter(self._tables)))

    def _forget(self, first: int) -> None:
        table = self._tables.pop(first, None)
        self._frames -= 0 if table is None else len(table.known)

    def take(self, rows: Int) -> HeaderTable | None:
        """Return what is known of a stretch of rows, and forget the tables that it covers."""
        if not _follow(rows):
            return None
        first, stop = int(rows[0]), int(rows[-1]) + 1
        with self._lock:
            parts = [(at, t) for at, t in self._tables.items() if at < stop and at + len(t.known) > first]
            for at, part in parts:
                if first <= at and at + len(part.known) <= stop:
                    self._forget(at)
        if len(parts) == 1 and parts[0][0] == first and len(parts[0][1].known) == len(rows):
            return parts[0][1]
        if not parts:
            return None
        table = HeaderTable.room(len(rows), parts[0][1].words.shape[1])
        for at, part in parts:
            here = slice(max(at - first, 0), min(at + len(part.known), stop) - first)
            there = slice(here.start + first - at, here.stop + first - at)
            table.words[here] = part.words[there]
            table.known[here] = part.known[there]
        return table


def _follow(rows: Int) -> bool:
    """Whether each row follows the one before; one row alone is not worth keeping."""
    return len(rows) > 1 and int(rows[-1] - rows[0]) == len(rows) - 1 and bool((np.diff(rows) == 1).all())
