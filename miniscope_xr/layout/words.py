"""The one declaration of header sector, config sector, buffer header and footer.

``construct`` structs are built from a layout; the numpy dtypes that parse a million headers at once are derived from
those structs, never from the layout a second time (a property test holds the two equal).

A struct has one part for each *number* on the card. Where fields are bits of a word, the part is the whole word, called
``word_N``; :func:`values` takes every field out of parsed parts, of one header or of a million.
"""

from __future__ import annotations

import struct as packing
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from construct import Bytes, Int8sl, Int8ul, Int16sl, Int16ul, Int32sl, Int32ul, Struct

from miniscope_xr.layout.model import Field, Layout, Record
from miniscope_xr.source.base import SECTOR

_CONSTRUCT = {
    "uint32": Int32ul, "uint16": Int16ul, "uint8": Int8ul, "int32": Int32sl, "int16": Int16sl, "int8": Int8sl,
}  # fmt: skip
_NATIVE = {name: np.dtype(name) for name in _CONSTRUCT}
_NUMPY = {"<L": "<u4", "<H": "<u2", "<B": "u1", "<l": "<i4", "<h": "<i2", "<b": "i1"}
KEY_NAMES = tuple(f"write_key{i}" for i in range(4))


def part_of(item: Field) -> str:
    """Name of the struct part that holds a field: its own, or its word's where the field is only some bits of it."""
    return item.name if item.bits is None else f"word_{item.word}"


def struct_of(fields: Mapping[str, Field], size: int) -> Struct:
    """A construct Struct of ``size`` bytes; what no field names, or only bits of, is ``word_N`` or ``byte_N``."""
    parts = []
    position = 0
    numbers = (f for f in fields.values() if f.bits is None)
    for item in [*sorted(numbers, key=lambda f: f.offset), None]:
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


def value_dtype(item: Field) -> np.dtype[Any]:
    """The numpy dtype of a field's values, before they are scaled (native byte order)."""
    return _NATIVE[item.type]


def value(item: Field, parts: Any) -> Any:
    """One field of parsed parts, unscaled.

    Parameters
    ----------
    item
        The field.
    parts
        What :func:`parse` returned, or a structured array with the dtype of the same struct.

    Returns
    -------
    int, or an array of :func:`value_dtype` where ``parts`` is an array.
    """
    number = parts[part_of(item)]
    if item.bits is None:
        return number
    wide: Any = number.astype(np.int64) if isinstance(number, np.ndarray | np.generic) else int(number)
    found = ((wide >> item.shift & item.mask) ^ item.sign) - item.sign
    return found if isinstance(found, int) else found.astype(value_dtype(item))


def values(fields: Mapping[str, Field], parts: Any) -> dict[str, Any]:
    """Every field of parsed parts, unscaled; see :func:`value`. Fields the parts have no room for are left out."""
    names = parts if isinstance(parts, Mapping) else parts.dtype.names
    return {name: value(item, parts) for name, item in fields.items() if part_of(item) in names}


def physical(item: Field, raw: Any) -> Any:
    """Raw values in the field's units as float64; NaN where they say that nothing was measured."""
    numbers = np.asarray(raw)
    scaled = numbers.astype(np.float64) * (1.0 if item.scale is None else item.scale)
    return scaled if item.none is None else np.where(numbers.astype(np.int64) == item.none, np.nan, scaled)


def take(fields: Mapping[str, Field], block: bytes | memoryview) -> dict[str, int]:
    """Read values out of a struct's bytes, unscaled: what :func:`put` writes."""
    found = {}
    for name, item in fields.items():
        bits = int.from_bytes(block[4 * item.word : 4 * item.word + 4], "little") >> item.shift & item.mask
        found[name] = (bits ^ item.sign) - item.sign
    return found


class FieldWords:
    """Some fields of the first ``words`` words of a struct, ready to be read thousands of times.

    Says the same as :func:`take` does field by field.

    Parameters
    ----------
    fields : mapping of str to Field
    words : int
    """

    def __init__(self, fields: Mapping[str, Field], words: int) -> None:
        self.names = tuple(fields)
        self._words = packing.Struct(f"<{words}I")
        self._fields = [(item.word, item.shift, item.mask, item.sign) for item in fields.values()]

    def take(self, data: bytes | memoryview) -> list[int]:
        """Values of the fields, in the order of ``names``, unscaled; ``data`` has all the words at least."""
        words = self._words.unpack_from(data)
        return [((words[word] >> shift & mask) ^ sign) - sign for word, shift, mask, sign in self._fields]

    def named(self, data: bytes | memoryview) -> dict[str, int]:
        """The same by name."""
        return dict(zip(self.names, self.take(data), strict=True))


class HeaderWords(FieldWords):
    """The buffer headers of a layout that are ``words`` words long.

    Made once for a layout and length (:func:`header_words`).

    Parameters
    ----------
    layout : Layout
    words : int
    """

    def __init__(self, layout: Layout, words: int) -> None:
        fields = layout.fields_for(words)
        super().__init__(fields, words)
        bounds = [(k, *item.limits, item.none) for k, item in enumerate(fields.values()) if item.trusted]
        full = [((0, item.mask) if not item.sign else (-item.sign, item.sign - 1)) for item in fields.values()]
        self._bounds = [b for b in bounds if self.names[b[0]] != "length" and b[1:3] != full[b[0]]]

    def plausible(self, values: Sequence[int]) -> bool:
        """Whether a firmware can have written all of these values, as far as the layout trusts the fields."""
        for k, low, high, none in self._bounds:  # noqa: SIM110 a generator takes as long again
            if not low <= values[k] <= high and values[k] != none:
                return False
        return True


@lru_cache(maxsize=256)
def header_words(layout: Layout, words: int) -> HeaderWords:
    """How to read the buffer headers of a layout that are ``words`` words long."""
    return HeaderWords(layout, words)


def put(block: bytearray, fields: Mapping[str, Field], given: Mapping[str, int]) -> None:
    """Write values into a struct's bytes; bits beside a bit field stay."""
    for name, raw in given.items():
        item = fields[name]
        if item.offset + item.size > len(block):
            continue
        place = slice(item.offset, item.offset + item.size)
        number = raw % (1 << 8 * item.size)
        if item.bits is not None:
            mask = item.mask << item.bits[0]
            number = int.from_bytes(block[place], "little") & ~mask | (raw << item.bits[0]) & mask
        block[place] = number.to_bytes(item.size, "little")


@lru_cache(maxsize=64)
def header_sector_struct(layout: Layout) -> Struct:
    """The header sector (settings), one whole sector; words 0-3 are the write keys."""
    keys = {name: Field(name, 4 * i) for i, name in enumerate(KEY_NAMES)}
    return struct_of({**keys, **layout.header}, SECTOR)


def settings_of(layout: Layout, sector: bytes) -> dict[str, int]:
    """The raw values of every setting in a header sector; empty where the card ends before it."""
    return _sector_words(layout)[0].named(sector) if len(sector) >= SECTOR else {}


def config_of(layout: Layout, sector: bytes) -> dict[str, int]:
    """The raw values of a whole config sector."""
    return _sector_words(layout)[1].named(sector)


@lru_cache(maxsize=64)
def _sector_words(layout: Layout) -> tuple[FieldWords, FieldWords]:
    """The header sector and the config sector of a layout."""
    return FieldWords(layout.header, SECTOR // 4), FieldWords(layout.config, SECTOR // 4)


def has_keys(layout: Layout, sector: bytes) -> bool:
    """Whether the four write keys are in a header sector (the v4 notebook never writes them)."""
    return len(sector) == SECTOR and packing.unpack_from("<4I", sector) == layout.write_keys


@lru_cache(maxsize=64)
def buffer_header_struct(layout: Layout, words: int) -> Struct:
    """A buffer header of ``words`` words; fields it is too short for are absent."""
    return struct_of(layout.fields_for(words), 4 * words)


@lru_cache(maxsize=64)
def footer_struct(layout: Layout) -> Struct:
    """The 16-byte footer of a whole frame."""
    return struct_of(layout.footer, 16)


def parse(struct: Struct, data: bytes) -> dict[str, Any]:
    """Parse bytes into a plain dict of every part, named or not."""
    found = struct.parse(data)
    return {part.name: found[part.name] for part in struct.subcons}


@lru_cache(maxsize=64)
def buffer_header_dtype(layout: Layout, words: int) -> np.dtype[Any]:
    """The numpy dtype of one buffer header of ``words`` words."""
    return dtype_of(buffer_header_struct(layout, words))


def read_record(record: Record, counts: Any, pieces: Any) -> dict[str, int] | None:
    """Put a version record together from the bytes that buffers carry.

    Parameters
    ----------
    record
        What it is like.
    counts, pieces : int arrays, shape (n,)
        ``buffer_count`` and the record's field of n buffers, in any order.

    Returns
    -------
    dict or None
        The record's fields; None where bytes are missing, contradict each other, or do not add up.
    """
    at = np.asarray(counts, np.int64) % record.length
    found = np.asarray(pieces, np.int64)
    data = np.full(record.length, -1, np.int64)
    data[at] = found
    if (data < 0).any() or (data[at] != found).any():
        return None
    if data[0] != record.start or int(data.sum()) % 256 != record.total:
        return None
    return take(record.fields, data.astype(np.uint8).tobytes())
