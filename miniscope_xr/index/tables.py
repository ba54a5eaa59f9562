"""Tables of a file system, as its modules read them: numbers within bytes, sectors of the card, stretches written."""

from __future__ import annotations

from miniscope_xr.layout import SECTOR
from miniscope_xr.source.base import Readable

Stretches = list[tuple[int, int]]
"""(first sector, first sector behind) of stretches, in card order."""
Occupied = tuple[str, Stretches] | None
"""Name of a file system and what it has written; None: there is no such file system."""


def number_at(data: bytes, at: int, size: int) -> int:
    """The whole number of ``size`` bytes from byte ``at`` on, least significant byte first."""
    return int.from_bytes(data[at : at + size], "little")


def read_table(source: Readable, sector: int, n: int) -> bytes:
    """Read ``n`` bytes from a sector that a file system names: none behind the end of the card.

    Raises
    ------
    ValueError
        No card has such a sector: what names it is damaged.
    """
    if sector < 0 or n < 0:
        raise ValueError(sector)
    return source.read(sector * SECTOR, n) if sector * SECTOR < source.size else b""
