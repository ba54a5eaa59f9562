"""What `prepare` and `set` leave in bytes 128-511 of the header sector, where no firmware reads.

::

    128  magic "MSXR", version, session (16 bytes), time (s, UTC), layout id (32)    every version
    192  id of the card (8), CRC-32 of that id, kept (0 or 1)                        from version 2
    208  hash of the first data sector (8), bytes 0-127 as they were before          only where kept is 1
    508  CRC-32 of bytes 0-507

Kept is 1 where settings change under a recording that stays on the card: the stamp then holds the settings that
recording was made with. The hash says which recording is meant, so that the next one, which overwrites the first data
sector, is not given them. The id of the card has a checksum of its own, so that it can be read in a torn sector.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass

from construct import Bytes, Int32ul, Int64ul, Struct

from miniscope_xr.source.base import SECTOR

AT = 128
_MAGIC = b"MSXR"
_CRC_AT = 508
_PLAIN = Struct("magic" / Bytes(4), "version" / Int32ul, "session" / Bytes(16), "time" / Int64ul, "layout" / Bytes(32))
_CARD = Struct("card" / Bytes(8), "crc" / Int32ul, "kept" / Int32ul)
_KEPT = Struct("first" / Bytes(8), "settings" / Bytes(AT))
_CARD_AT = AT + 64
_KEPT_AT = _CARD_AT + 16
_END = _KEPT_AT + 8 + AT


@dataclass(frozen=True)
class Stamp:
    """What this tool left in a header sector."""

    session: str
    """Id of the operation that wrote it, 32 hexadecimal digits."""
    time: int
    """When, in seconds since 1970 (UTC)."""
    layout: str
    """Id of the layout."""
    intact: bool
    """The checksum over the whole sector fits."""
    kept: bytes = b""
    """The first 128 bytes of the header sector with which the recording on the card was made; empty if the settings in
    the sector are those."""
    kept_first: bytes = b""
    """Hash of the first data sector by which that recording is known."""
    card: str = ""
    """Id of the card itself, 16 hexadecimal digits; empty if there is none or it is damaged."""


def first_hash(first: bytes) -> bytes:
    """Return the hash by which a recording is known: of its first data sector."""
    return hashlib.blake2b(first, digest_size=8).digest()


def read_stamp(sector: bytes) -> Stamp | None:
    """Read the stamp of a header sector, or None if this tool did not write (one into) it."""
    if sector[AT : AT + 4] != _MAGIC:
        return None
    found = _PLAIN.parse(sector[AT:])
    crc = int.from_bytes(sector[_CRC_AT:], "little")
    layout = found.layout.rstrip(b"\0").decode("utf-8", "replace")
    intact = crc == zlib.crc32(sector[:_CRC_AT])
    if found.version < 2:
        return Stamp(found.session.hex(), found.time, layout, intact)
    card = _CARD.parse(sector[_CARD_AT:])
    kept = _KEPT.parse(sector[_KEPT_AT:]) if card.kept else None
    return Stamp(
        found.session.hex(), found.time, layout, intact,
        kept.settings if kept else b"", kept.first if kept else b"",
        card.card.hex() if any(card.card) and card.crc == zlib.crc32(card.card) else "",
    )  # fmt: skip


def stamps_in(data: bytes) -> list[Stamp]:
    """Return every stamp in a stretch of whole sectors."""
    found, place = [], data.find(_MAGIC)
    while place >= 0:
        if place % SECTOR == AT and (stamp := read_stamp(data[place - AT : place - AT + SECTOR])):
            found.append(stamp)
        place = data.find(_MAGIC, place + 1)
    return found


def recorded_with(header: bytes, first: bytes) -> bytes | None:
    """Return the header sector as it was when the recording on the card was made.

    That is the header sector itself, unless settings were changed since. None if that cannot be known any more: they
    were changed, and the stamp that kept the old ones is damaged.

    Parameters
    ----------
    header : bytes
        The header sector as it is.
    first : bytes
        The first data sector.
    """
    stamp = read_stamp(header)
    if stamp is None or not stamp.kept:
        return header
    if not stamp.intact:
        return None
    return stamp.kept + header[AT:] if stamp.kept_first == first_hash(first) else header


def has_room(sector: bytes, kept: bool) -> bool:
    """Tell whether a stamp has room: nothing but an older stamp of ours is in its place."""
    bare = unstamped(sector)
    return not any(bare[AT : _END if kept else _KEPT_AT]) and not any(bare[_CRC_AT:])


def unstamped(sector: bytes) -> bytes:
    """Return the sector without the stamp."""
    stamp = read_stamp(sector)
    if stamp is None:
        return sector
    end = _END if stamp.kept else _KEPT_AT
    return sector[:AT] + bytes(end - AT) + sector[end:_CRC_AT] + bytes(4)


def stamped(
    sector: bytes, session: bytes, layout: str, time: int, *, card: bytes = b"", kept: bytes = b"", first: bytes = b""
) -> bytes:
    """Return the sector with a stamp.

    Parameters
    ----------
    sector : bytes
        The header sector; an older stamp in it is replaced.
    session : bytes
        Id of the operation, 16 bytes.
    layout : str
        Id of the layout.
    time : int
        Seconds since 1970 (UTC).
    card : bytes
        Id of the card, 8 bytes; empty for none.
    kept : bytes
        The 128 bytes of the header sector with which the recording that stays on the card was made; empty for none.
    first : bytes
        Hash of the first data sector, 8 bytes, where there is ``kept``.
    """
    bare = bytearray(unstamped(sector))
    name = layout.encode()[:32].ljust(32, b"\0")
    data = _PLAIN.build({"magic": _MAGIC, "version": 2, "session": session, "time": time, "layout": name})
    data += _CARD.build({"card": card or bytes(8), "crc": zlib.crc32(card) if card else 0, "kept": int(bool(kept))})
    if kept:
        data += _KEPT.build({"first": first, "settings": kept})
    bare[AT : AT + len(data)] = data
    bare[_CRC_AT:] = zlib.crc32(bare[:_CRC_AT]).to_bytes(4, "little")
    return bytes(bare)
