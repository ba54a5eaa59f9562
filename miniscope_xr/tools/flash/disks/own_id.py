"""The id of a card where the reader does not show its own number (the CID).

Most USB readers do not, and Windows and macOS never ask for it; reader and size are then the same for every card of a
lab. So `prepare` and `set` leave an id in the header sector's free bytes, which is the card's name in every reader and
on every computer. Until then the name is derived from what is on the card: its first sector, settings, counts and first
data. A card with nothing on it is nobody's: its name is that of this insertion, which only Linux counts.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Protocol

from miniscope_xr.errors import MiniscopeError
from miniscope_xr.layout import SECTOR, builtin_layouts
from miniscope_xr.layout.stamp import read_stamp
from miniscope_xr.source.local import Device

_FIRST, _DATA, _END = 1016, 1024, 1032
"""Sectors of settings and counts of every layout, and of the first data."""


class _Known(Protocol):
    """What the id needs of a disk."""

    @property
    def path(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def diskseq(self) -> int | None: ...


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _boot() -> str:
    """Return what tells this start of the computer from others: Linux counts insertions from 1 at each."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def read_own_id(disk: _Known) -> tuple[str, bool]:
    """Return the id a card has by what is on it, and whether no other card can have the same.

    Empty where the card cannot be read: no permission, no medium, too small.
    """
    try:
        with Device(disk.path) as device:
            start = device.read(0, SECTOR)
            block = device.read(_FIRST * SECTOR, (_END - _FIRST) * SECTOR)
    except (MiniscopeError, OSError):
        return "", False
    if len(block) < (_DATA - _FIRST) * SECTOR:
        return "", False
    for place in sorted({known.sectors.header for known in builtin_layouts().values()}):
        at = (place - _FIRST) * SECTOR
        stamp = read_stamp(block[at : at + SECTOR]) if 0 <= at < len(block) else None
        if stamp and stamp.card:
            return stamp.card, True
    if any(start) or any(block):
        recorded = any(block[(_DATA - _FIRST) * SECTOR :])  # the sensor's noise: no two recordings begin alike
        return _digest(disk.size, start, block), recorded
    return _digest(disk.size, _boot(), disk.diskseq), disk.diskseq is not None


def id_to_leave(cid: str, own_id: str, unique: bool) -> bytes:
    """Return the id that is written onto a card that has none: the one it is known by, if no other card has it."""
    if cid:
        return hashlib.sha256(cid.encode()).digest()[:8]
    return bytes.fromhex(own_id) if own_id and unique else os.urandom(8)
