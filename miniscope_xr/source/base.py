"""What the index and the frame reader need of a card, whatever holds its bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

SECTOR = 512
"""Bytes of a sector: every SD card has such, and firmwares, layouts and journals count in them."""
Spans = list[tuple[int, int]]
"""(offset, length) in bytes."""


class Readable(Protocol):
    """Bytes that can be read from any place: all that telling one card from another asks for."""

    @property
    def size(self) -> int:
        """Size in bytes."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes; fewer only at the end.

        Raises
        ------
        CardReadError
            A sector cannot be read, or an image became shorter since it was opened.
        """
        ...


class ByteSource(Readable, Protocol):
    """Bytes of a card: an image, a block device, a server."""

    @property
    def path(self) -> str:
        """Where they come from."""
        ...

    @property
    def changed(self) -> bool:
        """Whether an image was written to since it was opened; False of disks and servers, which do not tell."""
        ...

    @property
    def unread(self) -> Spans:
        """Places of a copy that could not be read from the card, as a map beside it says."""
        ...

    def readv(self, offset: int, buffers: Sequence[Any]) -> int:
        """Fill writable buffers one after another from ``offset``; return the bytes read."""
        ...

    def gather(self, offsets: Sequence[int], length: int) -> bytes | None:
        """Return ``length`` bytes from each of many offsets, joined; None where that has to be done one by one."""
        ...

    def at_hand(self, offset: int) -> bool:
        """Whether what stands there is in memory: many small reads take less than a large one; False if unknown."""
        ...

    def salvage(self, offset: int, length: int) -> tuple[bytes, Spans]:
        """Read around bad sectors: zero-filled bytes, and the spans that are unreadable."""
        ...

    def close(self) -> None:
        """Let go of what is open; closing twice is fine."""
        ...


def pour(data: bytes, buffers: Sequence[Any]) -> int:
    """Copy bytes into writable buffers one after another; return how many there were."""
    rest = memoryview(data)
    for buffer in buffers:
        piece, rest = rest[: len(buffer)], rest[len(buffer) :]
        memoryview(buffer)[: len(piece)] = piece
    return len(data)


class Through:
    """A source that hands everything on to another one; its kinds do some of it otherwise."""

    def __init__(self, source: ByteSource) -> None:
        self.source = source
        self.size = source.size

    @property
    def path(self) -> str:
        """Where the bytes come from."""
        return self.source.path

    @property
    def changed(self) -> bool:
        """Whether an image was written to since it was opened."""
        return self.source.changed

    @property
    def unread(self) -> Spans:
        """Places of a copy that could not be read from the card."""
        return self.source.unread

    def read(self, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes; fewer only at the end."""
        return self.source.read(offset, length)

    def readv(self, offset: int, buffers: Sequence[Any]) -> int:
        """Fill writable buffers one after another."""
        return self.source.readv(offset, buffers)

    def gather(self, offsets: Sequence[int], length: int) -> bytes | None:
        """Return ``length`` bytes from each of many offsets, joined, where that can be done at once."""
        return self.source.gather(offsets, length)

    def at_hand(self, offset: int) -> bool:
        """Whether what stands there is in memory."""
        return self.source.at_hand(offset)

    def salvage(self, offset: int, length: int) -> tuple[bytes, Spans]:
        """Read around bad sectors."""
        return self.source.salvage(offset, length)

    def close(self) -> None:
        """Close the source behind."""
        self.source.close()
