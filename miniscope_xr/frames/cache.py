"""What was read last, kept for whoever asks next: a dozen coordinates, and the pixels, come with the same headers.

Two kinds, both bounded. :class:`HeaderTables` keeps raw headers that came along with pixels (``ds.load()`` would read
every header again without it). :class:`Recent` keeps values worked out for some rows, until other rows are asked for
often enough.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from miniscope_xr.layout.arrays import Bools, Ints, Words

T = TypeVar("T")


@dataclass(frozen=True)
class HeaderTable:
    """Headers of some frames.

    ``words`` holds them, uint32 (frames, words of all the headers of one); ``known`` says for which frames.
    """

    words: Words
    known: Bools

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

    def put(self, rows: Ints, table: HeaderTable) -> None:
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

    def take(self, rows: Ints, keep: bool = False) -> HeaderTable | None:
        """Return what is known of a stretch of rows, and forget the tables that it covers unless told to ``keep``."""
        if not _follow(rows):
            return None
        first, stop = int(rows[0]), int(rows[-1]) + 1
        with self._lock:
            parts = [(at, t) for at, t in self._tables.items() if at < stop and at + len(t.known) > first]
            for at, part in parts:
                if not keep and first <= at and at + len(part.known) <= stop:
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


def _follow(rows: Ints) -> bool:
    """Whether each row follows the one before; one row alone is not worth keeping."""
    return len(rows) > 1 and int(rows[-1] - rows[0]) == len(rows) - 1 and bool((np.diff(rows) == 1).all())


class Recent(Generic[T]):
    """Values by the rows they are of; the oldest go once there are more than ``most`` rows in all.

    The newest always stays, however many rows it has.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._rows = 0
        self._known: OrderedDict[tuple[int, ...], tuple[Ints, T]] = OrderedDict()
        self._lock = threading.Lock()

    @staticmethod
    def _key(rows: Ints) -> tuple[int, ...]:
        return (len(rows), int(rows[0]), int(rows[-1])) if len(rows) else ()

    def find(self, rows: Ints) -> T | None:
        """Return the value for ``rows``, or None where it is not known."""
        with self._lock:
            asked, value = self._known.get(self._key(rows), (None, None))
        return value if asked is not None and np.array_equal(asked, rows) else None

    def get(self, rows: Ints, read: Callable[[], T]) -> T:
        """Return the value for ``rows``, read where it is not known."""
        value = self.find(rows)
        if value is None:
            value = read()
            self.put(rows, value)
        return value

    def put(self, rows: Ints, value: T) -> None:
        """Remember the value for ``rows``."""
        key = self._key(rows)
        with self._lock:
            self._forget(key)
            while self._known and self._rows + len(rows) > self._most:
                self._forget(next(iter(self._known)))
            self._known[key] = rows, value
            self._rows += len(rows)

    def _forget(self, key: tuple[int, ...]) -> None:
        known = self._known.pop(key, None)
        self._rows -= 0 if known is None else len(known[0])
