"""Changes of a card as data, and the one loop that carries them out: journal, write, flush, read back, next."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from miniscope_xr.errors import CardReadError
from miniscope_xr.layout import SECTOR
from miniscope_xr.tools.flash import interrupts
from miniscope_xr.tools.flash.errors import CardWriteError, InterruptedWriteError
from miniscope_xr.tools.flash.journal import Journal
from miniscope_xr.tools.flash.target.base import Target

STEP = 4 << 20
"""Bytes of one write; steps are aligned to it, as cards like it."""
SMALL = 64 << 10
"""Changes up to this length are read once more at the very end."""
Known = Mapping[tuple[int, int], bytes]
"""SHA-256 of stretches of the card (offset, length) as they were read a moment ago."""
NOTHING_KNOWN: Known = {}
Progress = Callable[[str, int, int], None]
"""Called with the change's name, bytes done and bytes in all."""


@dataclass(frozen=True)
class Change:
    """Make ``length`` bytes at ``offset`` be ``data`` (zeros if None)."""

    name: str
    offset: int
    length: int
    data: bytes | None = None

    @property
    def wanted(self) -> bytes:
        """What will stand there."""
        return bytes(self.length) if self.data is None else self.data

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """Yield offsets and wanted bytes, in aligned steps upward."""
        at, end = self.offset, self.offset + self.length
        zeros = bytes(min(STEP, self.length))
        while at < end:
            stop = min(end, (at // STEP + 1) * STEP)
            yield at, zeros[: stop - at] if self.data is None else self.data[at - self.offset : stop - self.offset]
            at = stop

    def to_json(self) -> dict[str, Any]:
        """Return it for the journal."""
        text = None if self.data is None else base64.b64encode(self.data).decode()
        return {"name": self.name, "offset": self.offset, "length": self.length, "data": text}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Change:
        """Read it from the journal."""
        data = None if value["data"] is None else base64.b64decode(value["data"])
        return cls(str(value["name"]), int(value["offset"]), int(value["length"]), data)


def read_twice(target: Target, offset: int, length: int) -> bytes:
    """Read and read again; a card that answers differently is not to be trusted with a write."""
    if not length:
        return b""
    first, second = target.read(offset, length), target.read(offset, length)
    if first != second:
        raise CardReadError(
            5, f"sectors from {offset // SECTOR} read differently each time; clean its contacts or try another reader"
        )
    return first


def apply(target: Target, change: Change, progress: Progress | None = None, known: Known = NOTHING_KNOWN) -> int:
    """Carry out one change: write what differs, flush, read back. Returns the bytes written.

    What is ``known`` from a read just before is not read again.
    """
    written: list[tuple[int, bytes]] = []
    for at, wanted in change.pieces():
        if change.data is None and target.next_data(at) >= at + len(wanted):
            continue
        interrupts.check()
        seen = known.get((at, len(wanted)))
        if (target.read(at, len(wanted)) != wanted) if seen is None else (seen != sha256(wanted).digest()):
            target.same()
            written.append((at, wanted))
            target.write(at, wanted)
        if progress:
            progress(change.name, at + len(wanted) - change.offset, change.length)
    target.flush()  # also where nothing was written: it may have been, just before the power went
    verify(target, change.name, written, progress)
    return sum(len(wanted) for _, wanted in written)


def verify(target: Target, name: str, pieces: Sequence[tuple[int, bytes]], progress: Progress | None = None) -> None:
    """Read back what was written; a difference is an error."""
    done, total = 0, sum(len(wanted) for _, wanted in pieces)
    for at, wanted in pieces:
        interrupts.check()
        if target.read(at, len(wanted)) != wanted:
            raise CardWriteError(
                5,
                f"{name}: sectors from {at // SECTOR} read back differently from what was written; "
                "the card or reader is failing, do not record on it",
            )
        done += len(wanted)
        if progress:
            progress(f"verifying {name}", done, total)


class _Watched:
    """A target that remembers where a write was tried, and what was there before."""

    known: Known = NOTHING_KNOWN

    def __init__(self, target: Target) -> None:
        self.size, self._target = target.size, target
        self.flush, self.same = target.flush, target.same
        self.next_data, self.reread_partitions = target.next_data, target.reread_partitions
        self._last: tuple[int, bytes] = (-1, b"")
        self.touched: list[tuple[int, int, bytes]] = []

    def read(self, offset: int, length: int) -> bytes:
        self._last = (offset, self._target.read(offset, length))
        return self._last[1]

    def write(self, offset: int, data: bytes) -> None:
        before = self._last[1] if self._last[0] == offset else b""
        known = self.known.get((offset, len(data)))
        self.touched.append((offset, len(data), known or sha256(before).digest()))
        self._target.write(offset, data)

    def changed(self) -> bool:
        """Return False only if everything a write was tried on is proven to be as before."""
        try:
            return any(sha256(self._target.read(at, length)).digest() != before for at, length, before in self.touched)
        except Exception:
            return True


def run(
    target: Target,
    changes: Sequence[Change],
    journal: Journal,
    progress: Progress | None = None,
    *,
    resumed: bool = False,
    known: Known = NOTHING_KNOWN,
) -> None:
    """Carry out ``changes`` in order; the journal is on disk before the first write and after the last.

    A signal stops it between two steps (:mod:`miniscope_xr.tools.flash.interrupts`); ``resumed`` says that the journal
    is that of an earlier run, which may have changed the card already. What is ``known`` was read just before, under
    the same descriptor.

    Raises
    ------
    InterruptedWriteError
        Something failed or was interrupted; it tells whether the card was changed, and where the journal is.
    """
    watched = _Watched(target)
    watched.known = known
    with interrupts.held():
        try:
            journal.write(journal.phase if resumed else "intent")  # it can be written, or nothing is
            for i, change in enumerate(changes):
                target.same()
                if i:
                    journal.write(change.name)
                apply(watched, change, progress, known)
            target.same()
            for change in changes:  # writing one sector may have disturbed its neighbours
                if change.length <= SMALL:
                    verify(target, change.name, list(change.pieces()))
            journal.changed = bool(watched.touched)
            journal.write("done")
        except (Exception, KeyboardInterrupt) as error:
            raise _interrupted(error, watched.changed(), journal, resumed) from error


def _interrupted(error: BaseException, changed: bool, journal: Journal, resumed: bool) -> InterruptedWriteError:
    what = "interrupted" if isinstance(error, KeyboardInterrupt) else getattr(error, "strerror", None) or str(error)
    ways = f"`resume` finishes it, `restore` brings the settings back (journal {journal.path})."
    if journal.finished:
        state = "The card is complete and verified; only the journal could not be finished."
    elif changed:
        state = f"The card was changed: {ways}"
    elif resumed:
        state = f"The card is as the first interruption left it: {ways}"
    else:
        state = "The card was not changed."
    return InterruptedWriteError(
        f"{what}. {state}", card_changed=changed, journal=str(journal.path), phase=journal.phase
    )
