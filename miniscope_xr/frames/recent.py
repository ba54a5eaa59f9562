"""What was read last, kept for the next one to ask: a dozen coordinates come from the same headers."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

from miniscope_xr.frames.axis import Int

T = TypeVar("T")


class Recent(Generic[T]):
    """Values by the rows they are of; the oldest go once there are more than ``most`` rows in all.

    The newest always stays, however many rows it has.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._rows = 0
        self._known: OrderedDict[tuple[int, ...], tuple[Int, T]] = OrderedDict()
        self._lock = threading.Lock()

    @staticmethod
    def _key(rows: Int) -> tuple[int, ...]:
        return (len(rows), int(rows[0]), int(rows[-1])) if len(rows) else ()

    def find(self, rows: Int) -> T | None:
        """Return the value for ``rows``, or None where it is not known."""
        with self._lock:
            asked, value = self._known.get(self._key(rows), (None, None))
        return value if asked is not None and np.array_equal(asked, rows) else None

    def get(self, rows: Int, read: Callable[[], T]) -> T:
        """Return the value for ``rows``, read where it is not known."""
        value = self.find(rows)
        if value is None:
            value = read()
            self.put(rows, value)
        return value

    def put(self, rows: Int, value: T) -> None:
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
