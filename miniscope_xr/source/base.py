"""What the index and the frame reader need of a card, whatever holds its bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Protocol

from miniscope_xr.errors import CardReadError

SECTOR = 512


class ByteSource(Protocol):
    """Bytes of a card: an image, a block device, a server."""

    @property
    def size(self) -> int:
        """Size in bytes."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes; fewer only at the end."""
        ...

    def readv(self, offset: int, buffers: Sequence[Any]) -> int:
        """Fill writable buffers one after another from ``offset``; return the bytes read."""
        ...

    def salvage(self, offset: int, length: int) -> tuple[bytes, list[tuple[int, int]]]:
        """Read around bad sectors: zero-filled bytes, and the (offset, length) spans that are unreadable."""
        ...


def pour(data: bytes, buffers: Sequence[Any]) -> int:
    """Copy bytes into writable buffers one after another; return how many there were."""
    rest = memoryview(data)
    for buffer in buffers:
        piece, rest = rest[: len(buffer)], rest[len(buffer) :]
        memoryview(buffer)[: len(piece)] = piece
    return len(data)


def is_gone(source: ByteSource) -> bool:
    """Whether nothing of a card can be read any more (a reader pulled out), rather than some of its sectors."""
    last = max(source.size - 1, 0) // SECTOR
    return all(source.salvage(sector * SECTOR, SECTOR)[1] for sector in (0, last // 2, last))


class Tolerant:
    """A source that reads unreadable sectors as zeros, unless the whole card is gone."""

    def __init__(self, source: ByteSource) -> None:
        self.source = source
        self.size = source.size
        self.readv = source.readv
        self.salvage = source.salvage

    def read(self, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes; fewer only at the end."""
        try:
            return self.source.read(offset, length)
        except CardReadError:
            if is_gone(self.source):
                raise
            return self.source.salvage(offset, length)[0]

    def gather(self, offsets: Sequence[int], length: int) -> bytes | None:
        """Return ``length`` bytes from each of many offsets, joined, where the source can do that."""
        gather = getattr(self.source, "gather", None)
        found: bytes | None = None if gather is None else gather(offsets, length)
        return found


def fingerprint(source: ByteSource, sectors: Sequence[int], sector_size: int = SECTOR) -> str:
    """Hash of the card's size and of the given sectors: tells one card from another in the same reader."""
    digest = hashlib.sha256(str(source.size).encode())
    for sector in sectors:
        digest.update(source.read(sector * sector_size, sector_size))
    return digest.hexdigest()
