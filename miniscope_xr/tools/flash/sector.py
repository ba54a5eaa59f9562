"""The 512 bytes of the header sector: settings, write keys, and our own stamp behind what firmware reads."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from construct import Bytes, Int32ul, Int64ul, Struct

from miniscope_xr.layout import Layout, words

_MAGIC = b"MSXR"
_AT = 128
_CRC_AT = 508
_STAMP = Struct("magic" / Bytes(4), "version" / Int32ul, "session" / Bytes(16), "time" / Int64ul, "layout" / Bytes(32))


@dataclass(frozen=True)
class Stamp:
    """What this tool left in bytes 128-511 of a header sector; no firmware reads there."""

    session: str
    time: int
    layout: str
    intact: bool


def read_stamp(sector: bytes) -> Stamp | None:
    """Read the stamp of a header sector, or None if this tool did not write (one into) it."""
    if sector[_AT : _AT + 4] != _MAGIC:
        return None
    found = _STAMP.parse(sector[_AT:])
    crc = int.from_bytes(sector[_CRC_AT:], "little")
    layout = found.layout.rstrip(b"\0").decode("utf-8", "replace")
    return Stamp(found.session.hex(), found.time, layout, crc == zlib.crc32(sector[:_CRC_AT]))


def settings_of(layout: Layout, sector: bytes) -> dict[str, int]:
    """Read the raw values of every setting in a header sector."""
    parsed = words.parse(words.header_sector_struct(layout), sector)
    return {name: int(value) for name, value in words.values(layout.header, parsed).items()}


def has_keys(layout: Layout, sector: bytes) -> bool:
    """Tell whether the four write keys are there (the v4 notebook never writes them)."""
    parsed = words.parse(words.header_sector_struct(layout), sector)
    return tuple(parsed[name] for name in words.KEY_NAMES) == layout.write_keys


def build(layout: Layout, values: Mapping[str, int], old: bytes, session: bytes | None, time: int = 0) -> bytes:
    """Build the new header sector: ``values`` and keys over ``old``, whose other words stay as they were.

    ``session`` (16 bytes) is stamped with a CRC32 unless it is None or foreign bytes are in its place.
    """
    struct = words.header_sector_struct(layout)
    fields = words.parse(struct, old)
    fields.update(zip(words.KEY_NAMES, layout.write_keys, strict=True))
    sector = bytearray(struct.build(fields))
    for field in layout.header.values():
        sector[field.offset : field.offset + field.size] = bytes(field.size)  # also the bits beside a bit field
    words.put(sector, layout.header, values)
    ours = read_stamp(old) is not None
    end = _AT + _STAMP.sizeof()
    if ours:
        sector[_AT:end] = bytes(end - _AT)
        sector[_CRC_AT:] = bytes(4)
    if session is not None and not any(sector[_AT:end]) and not any(sector[_CRC_AT:]):
        name = layout.id.encode()[:32].ljust(32, b"\0")
        sector[_AT:end] = _STAMP.build(
            {"magic": _MAGIC, "version": 1, "session": session, "time": time, "layout": name}
        )
        sector[_CRC_AT:] = zlib.crc32(sector[:_CRC_AT]).to_bytes(4, "little")
    return bytes(sector)
