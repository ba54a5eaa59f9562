"""The 512 bytes of the header sector: settings, write keys, and our own stamp behind what firmware reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from miniscope_xr.layout import Layout, stamp, words
from miniscope_xr.layout.stamp import read_stamp
from miniscope_xr.layout.words import has_keys, settings_of

__all__ = ["Kept", "build", "has_keys", "read_stamp", "settings_of"]


@dataclass(frozen=True)
class Kept:
    """The settings a recording that stays on the card was made with, and its first data sector as it will be."""

    header: bytes
    first: bytes


def build(
    layout: Layout,
    values: Mapping[str, int],
    old: bytes,
    session: bytes | None,
    time: int = 0,
    kept: Kept | None = None,
    card: bytes = b"",
) -> bytes:
    """Build the new header sector: ``values`` and keys over ``old``, whose other words stay as they were.

    ``session`` (16 bytes) is stamped with a CRC32 unless it is None, or foreign bytes or settings of the layout are in
    its place. ``kept`` goes into the stamp too, and ``card`` (8 bytes), unless the card has an id already.
    """
    struct = words.header_sector_struct(layout)
    fields = words.parse(struct, old)
    fields.update(zip(words.KEY_NAMES, layout.write_keys, strict=True))
    raw = bytearray(struct.build(fields))
    for field in layout.header.values():
        raw[field.offset : field.offset + field.size] = bytes(field.size)  # also the bits beside a bit field
    words.put(raw, layout.header, values)
    sector = stamp.unstamped(bytes(raw))
    own = any(field.offset + field.size > stamp.AT for field in layout.header.values())
    if session is None or own or not stamp.has_room(sector, kept is not None):
        return sector
    older = read_stamp(old)
    card = bytes.fromhex(older.card) if older and older.card else card
    if kept is None:
        return stamp.stamped(sector, session, layout.id, time, card=card)
    first = stamp.first_hash(kept.first)
    return stamp.stamped(sector, session, layout.id, time, card=card, kept=kept.header[: stamp.AT], first=first)
