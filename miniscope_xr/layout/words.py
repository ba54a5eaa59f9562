"""The one declaration of header sector, config sector, buffer header and footer.

``construct`` structs are built from a layout; the numpy dtypes that parse a million headers at once are
derived from those structs, never from the layout a second time (a property test holds the two equal).
"""

from __future__ import annotations

import struct as packing
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from construct import Bytes, Int8ul, Int16ul, Int32ul, Struct

from miniscope_xr.layout.load import Field, Layout

_CONSTRUCT = {"uint32": Int32ul, "uint16": Int16ul, "uint8": Int8ul}
_NUMPY = {"<L": "<u4", "<H": "<u2", "<B": "u1"}
KEY_NAMES = tuple(f"write_key{i}" for i in range(4))


def struct_of(fields: Mapping[str, Field], size: int) -> Struct:
    """A construct Struct of ``size`` bytes; bytes no field names are kept as ``word_N`` or ``byte_N``."""
    parts = []
    position = 0
    for item in [*sorted(fields.values(), key=lambda f: f.offset), None]:
        end = size if item is None else item.offset
        while position < end:
            whole = position % 4 == 0 and position + 4 <= end
            parts.append((f"word_{position // 4}" / Int32ul) if whole else (f"byte_{position}" / Bytes(1)))
            position += 4 if whole else 1
        if item is not None and item.offset + item.size <= size:
            parts.append(item.name / _CONSTRUCT[item.type])
            position = item.offset + item.size
    return Struct(*parts)


@lru_cache(maxsize=256)
def dtype_of(struct: Struct) -> np.dtype[Any]:
    """The numpy dtype of a struct made by :func:`struct_of` (little-endian, packed)."""
    fields = []
    for part in struct.subcons:
        code = getattr(part.subcon, "fmtstr", None)
        fields.append((part.name, _NUMPY[code] if code else f"V{part.subcon.sizeof()}"))
    return np.dtype(fields)


@lru_cache(maxsize=64)
def header_sector_struct(layout: Layout) -> Struct:
    """The header sector (settings), one whole sector; words 0-3 are the write keys."""
    keys = {name: Field(name, 4 * i) for i, name in enumerate(KEY_NAMES)}
    return struct_of({**keys, **layout.header}, layout.sectors.size)


@lru_cache(maxsize=64)
def config_sector_struct(layout: Layout) -> Struct:
    """The config sector (what the firmware wrote about the recording), one whole sector."""
    return struct_of(layout.config, layout.sectors.size)


@lru_cache(maxsize=64)
def buffer_header_struct(layout: Layout, words: int) -> Struct:
    """A buffer header of ``words`` words; fields it is too short for are absent."""
    return struct_of(layout.fields_for(words), 4 * words)


@lru_cache(maxsize=64)
def footer_struct(layout: Layout) -> Struct:
    """The 16-byte footer of a whole frame."""
    return struct_of(layout.footer, 16)


@lru_cache(maxsize=256)
def _unpacker(struct: Struct) -> tuple[packing.Struct, tuple[str, ...]]:
    """The struct module's form of a struct made by :func:`struct_of`, and the names of its parts."""
    codes = [getattr(part.subcon, "fmtstr", "<s")[1:] for part in struct.subcons]
    return packing.Struct("<" + "".join(codes)), tuple(part.name for part in struct.subcons)


def parse(struct: Struct, data: bytes) -> dict[str, Any]:
    """Parse bytes into a plain dict: what ``struct.parse`` returns, fifty times sooner."""
    unpacker, names = _unpacker(struct)
    return dict(zip(names, unpacker.unpack_from(data), strict=True))


@lru_cache(maxsize=64)
def buffer_header_dtype(layout: Layout, words: int) -> np.dtype[Any]:
    """The numpy dtype of one buffer header of ``words`` words."""
    return dtype_of(buffer_header_struct(layout, words))
