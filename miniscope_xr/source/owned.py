"""A card's own descriptor: there whenever somebody reads, and never closed under him.

A notebook may hold hundreds of cards, more than the system lets one process open. So a card opens when it is read,
stays open, and only cards that nobody is reading make room for others. Whoever reads one that had to make room sees
nothing of it: it is opened again, and first of all checked to be the same card.
"""

from __future__ import annotations

import errno
import itertools
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from miniscope_xr.errors import CardChangedError
from miniscope_xr.source.base import ByteSource, Spans

MOST_OPEN = 128
"""Cards open at once; those read longest ago are closed when there are more."""
_TOO_MANY = (errno.EMFILE, errno.ENFILE)
T = TypeVar("T")

_clock = itertools.count()
_known: weakref.WeakSet[OwnedSource] = weakref.WeakSet()
_known_lock = threading.Lock()


class OwnedSource:
    """The bytes of one card, through a descriptor that is opened when it is needed. For any number of threads.

    Pickles as its path, and as what it must look like where it is opened again.

    Parameters
    ----------
    path : str
    open_source
        Opens the card by its path.
    """

    def __init__(self, path: str, open_source: Callable[[str], ByteSource]) -> None:
        self.path = path
        self.identity = b""
        self._identify: Callable[[ByteSource], bytes] | None = None
        self._open_source = open_source
        self._size: int | None = None
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._source: ByteSource | None = None
        self._readers = 0
        self._unwanted = False  # close when the last reader is done
        self._used = next(_clock)
        with _known_lock:
            _known.add(self)

    def __getstate__(self) -> dict[str, Any]:
        names = ("path", "identity", "_identify", "_open_source", "_size")
        return {name: self.__dict__[name] for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def __repr__(self) -> str:
        return f"<OwnedSource {self.path!r}{'' if self._source is not None else ', closed'}>"

    # -- which card it is ---------------------------------------------------------------------------------

    def remember(self, identify: Callable[[ByteSource], bytes]) -> None:
        """From now on expect of the card what ``identify`` reads of it now."""
        self.identity = self.ask(identify)
        self._identify = identify

    def verify(self) -> None:
        """Raise where another card is here than the one that was opened.

        Raises
        ------
        CardChangedError
        """
        self.ask(self._verify)

    def _verify(self, source: ByteSource) -> None:
        if self._identify is not None and self._identify(source) != self.identity:
            raise CardChangedError(
                errno.ESTALE,
                "this is not the card that was opened (its settings, counts or first buffer differ); "
                "put the first card back, or open this one anew",
                self.path,
            )

    # -- the descriptor ---------------------------------------------------------------------------------

    def _acquire(self) -> ByteSource:
        """The open source, which stays open until :meth:`_release`."""
        with self._lock:
            source = self._source
            opened = source is None
            if source is None:
                source = self._source = self._opened()
            self._unwanted = False
            self._readers += 1
            self._used = next(_clock)
        if opened:
            make_room(MOST_OPEN)
        return source

    def _opened(self) -> ByteSource:
        try:
            source = self._open_source(self.path)
        except OSError as error:
            if error.errno not in _TOO_MANY:
                raise
            make_room(0)
            source = self._open_source(self.path)
        try:
            if self._size is None:
                self._size = source.size
            elif source.size < self._size:
                raise CardChangedError(
                    errno.ESTALE, f"it had {self._size} bytes when it was opened and has {source.size} now", self.path
                )
            else:
                self._verify(source)
        except BaseException:
            source.close()
            raise
        return source

    def _release(self) -> None:
        with self._lock:
            self._readers -= 1
            if self._unwanted:
                self._close_idle()

    def _close_idle(self) -> None:
        """Close, with the lock held, where nobody reads."""
        if self._readers == 0 and self._source is not None:
            self._source.close()
            self._source = None

    def _make_room(self) -> None:
        """Close if nobody reads; a card that is just being opened or closed is left alone."""
        if self._lock.acquire(blocking=False):
            try:
                self._close_idle()
            finally:
                self._lock.release()

    def close(self) -> None:
        """Close the descriptor, once the reads under way are done; reading again opens it."""
        with self._lock:
            self._unwanted = True
            self._close_idle()

    def ask(self, question: Callable[[ByteSource], T]) -> T:
        """Answer a question that takes many reads: the descriptor is held meanwhile, not for each of them."""
        source = self._acquire()
        try:
            return question(source)
        finally:
            self._release()

    # -- ByteSource ---------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Size in bytes when the card was first opened."""
        return self.ask(lambda source: source.size) if self._size is None else self._size

    @property
    def changed(self) -> bool:
        """Whether an image was written to since its descriptor was opened."""
        return self.ask(lambda source: source.changed)

    @property
    def unread(self) -> Spans:
        """Places of a copy that could not be read from the card."""
        return self.ask(lambda source: source.unread)

    def read(self, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes; fewer only at the end."""
        source = self._acquire()
        try:
            return source.read(offset, length)
        finally:
            self._release()

    def readv(self, offset: int, buffers: Sequence[Any]) -> int:
        """Fill writable buffers one after another from ``offset``; return the bytes read."""
        source = self._acquire()
        try:
            return source.readv(offset, buffers)
        finally:
            self._release()

    def gather(self, offsets: Sequence[int], length: int) -> bytes | None:
        """Return ``length`` bytes from each of many offsets, joined, where that can be done at once."""
        return self.ask(lambda source: source.gather(offsets, length))

    def at_hand(self, offset: int) -> bool:
        """Whether what stands there is in memory."""
        return self.ask(lambda source: source.at_hand(offset))

    def salvage(self, offset: int, length: int) -> tuple[bytes, Spans]:
        """Read around bad sectors."""
        return self.ask(lambda source: source.salvage(offset, length))


def make_room(most: int) -> None:
    """Close cards nobody is reading, those read longest ago first, until no more than ``most`` are open."""
    with _known_lock:
        known = [owned for owned in _known if owned._source is not None]
    excess = len(known) - most
    for owned in sorted(known, key=lambda owned: owned._used)[: max(excess, 0)]:
        owned._make_room()
