"""Validation of a layout: every error names the field that is wrong.

The tables below are the whole schema; docs/layouts.md explains every name in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from miniscope_xr.errors import did_you_mean
from miniscope_xr.layout.checks import (
    Schema,
    either,
    fail,
    flag,
    label,
    list_of,
    mapping,
    one_of,
    positive,
    shortened,
    text,
    whole,
)
from miniscope_xr.layout.model import NEEDED, TYPE_SIZES, WRITE_KEY, Build, Field, Layout, Record, Sectors
from miniscope_xr.source.base import SECTOR

_NAME = "a field name must be a plain word (letters, digits, underscore)"
# Names a dataset has already: a coordinate, variable or attribute of these would hide the field, or be hidden by it.
TAKEN = {
    "buffer": (
        "video", "frame", "y", "x", "time", "time_last", "buffers_present", "complete", "sector",
        "buffer",
    ),
    "header": (
        "layout", "width", "height", "buffer_size", "recording", "n_buffers_recorded", "n_buffers_dropped",
        "n_buffers_found", "status", "warnings", "write_keys", "n_recordings",
    ),
}  # fmt: skip
TAKEN["footer"] = TAKEN["buffer"]
_MOST_CHOICES = 256


def _choices(value: Any, where: str) -> dict[int, str]:
    if not isinstance(value, Mapping) or not 0 < len(value) <= _MOST_CHOICES:
        raise fail(where, f"expected raw values and their meanings, found {shortened(value)}")
    return {whole()(key, where): label(meaning, f"{where}.{shortened(key)}") for key, meaning in value.items()}


def _bits(value: Any, where: str) -> tuple[int, int]:
    first, last = list_of(whole(0, 31), "two bit numbers, first and last (0 is the lowest)", 2)(value, where)
    if first > last:
        raise fail(where, f"the first bit ({first}) is above the last ({last})")
    return first, last


_NUMBER = whole(-(2**31), 2**32 - 1)
FIELD = Schema({
    "word": whole(), "byte": whole(), "type": one_of(*TYPE_SIZES), "bits": _bits, "description": text, "units": text,
    "scale": positive, "minimum": _NUMBER, "maximum": _NUMBER, "none": _NUMBER, "choices": _choices,
    "otherwise": either(text, whole()), "default": whole(), "used": flag, "trusted": flag, "noise": whole(),
})  # fmt: skip


def _field(name: str, value: Any, where: str, limit: int) -> Field:
    """One field: a bare word number (as mio writes it) or a mapping."""
    if not isinstance(value, Mapping):
        return Field(name, 4 * whole(0, limit // 4 - 1)(value, where))
    given = FIELD(value, where)
    if ("word" in given) == ("byte" in given):
        raise fail(where, "give either word: (number of the uint32) or byte: (byte offset)")
    kind = given.get("type", "uint32")
    size = TYPE_SIZES[kind]
    if "word" in given:
        offset = 4 * whole(0, limit // 4 - 1)(given.pop("word"), f"{where}.word")
    else:
        offset = whole(0, limit - size)(given.pop("byte"), f"{where}.byte")
    if offset % size:
        raise fail(f"{where}.byte", f"{offset} is not a multiple of the size of {kind}")
    if "bits" in given and size != 4:
        raise fail(f"{where}.bits", f"bits are those of a whole word; give type: uint32 or int32, not {kind}")
    item = Field(name, offset, **given)
    if item.none is not None and item.signed and item.none >= 1 << item.width - 1:
        raise fail(f"{where}.none", f"{item.none} does not fit into {item.width} bits with a sign")
    if item.limits[0] > item.limits[1]:
        raise fail(f"{where}.maximum", f"lies below the minimum {item.limits[0]}")
    if item.choices and isinstance(item.otherwise, int) and item.otherwise not in item.choices:
        said = f"{item.otherwise} is none of the choices; name one, or say in words what happens"
        raise fail(f"{where}.otherwise", said)
    return item


def _overlap(one: Field, other: Field) -> int | None:
    """First byte two fields both claim, if any."""
    bits = [set(range(8 * f.offset + (f.bits or (0, 0))[0], 8 * f.offset + (f.bits or (0, 8 * f.size - 1))[1] + 1))
            for f in (one, other)]  # fmt: skip
    both = bits[0] & bits[1]
    return min(both) // 8 if both else None


def _fields(value: Any, where: str, part: str, limit: int) -> dict[str, Field | None]:
    """A struct's fields; None (mio: field absent in this build) is handed on."""
    result: dict[str, Field | None] = {}
    for name, item in mapping(value, where).items():
        if not name.isidentifier() or name.startswith("_"):
            raise fail(f"{where}.{name}", _NAME)
        if name in TAKEN.get(part, ()):
            raise fail(f"{where}.{name}", "every dataset has something of this name already; take another")
        result[name] = None if item is None else _field(name, item, f"{where}.{name}", limit)
    return result


def _check_places(fields: Mapping[str, Field], where: str) -> None:
    """No field may lie over another."""
    places: dict[int, list[Field]] = {}
    for name, item in fields.items():
        for other in places.get(item.word, []):
            byte = _overlap(item, other)
            if byte is not None:
                raise fail(f"{where}.{name}", f"byte {byte} already belongs to {other.name!r}")
            if (item.bits is None) != (other.bits is None):
                raise fail(f"{where}.{name}", f"shares a word with {other.name!r}: give both as bits of it")
        places.setdefault(item.word, []).append(item)


def _checked(fields: Mapping[str, Field | None], where: str, part: str) -> dict[str, Field]:
    """The fields that are there: none over another, none missing that the reader needs."""
    result = {name: item for name, item in fields.items() if item is not None}
    _check_places(result, where)
    for name in NEEDED.get(part, ()):
        if name not in result:
            raise fail(f"{where}.{name}", f"missing; a layout must say where it is{did_you_mean(name, result)}")
        if part in ("buffer", "footer") and (result[name].type, result[name].bits) != ("uint32", None):
            raise fail(f"{where}.{name}", "the reader needs this field as uint32")
    for name, item in result.items():
        if part == "header" and item.offset < 16:
            raise fail(f"{where}.{name}", f"byte {item.offset} belongs to the write keys (bytes 0-15)")
    return result


_LIMITS = {"header": SECTOR, "config": SECTOR, "buffer": 256, "footer": 16}


def _part(part: str, value: Any, where: str) -> dict[str, Field]:
    return _checked(_fields(value, where, part, _LIMITS[part]), where, part)


def _size(value: Any, where: str) -> None:
    if value != SECTOR or isinstance(value, bool):
        raise fail(where, f"a sector is {SECTOR} bytes on every SD card, found {shortened(value)}; leave size out")


_SECTOR = whole(0, 1 << 32)
SECTORS = Schema(
    {"header": _SECTOR, "config": _SECTOR, "data": _SECTOR, "size": _size},
    dict.fromkeys(("header", "data"), "missing; give its sector number"),
)


def _sectors(value: Any, where: str) -> Sectors:
    numbers = SECTORS(value, where)
    numbers.pop("size", None)
    for first, second in (("header", "config"), ("header", "data"), ("config", "data")):
        if first in numbers and numbers.get(second, -1) == numbers[first]:
            raise fail(f"{where}.{second}", f"is the same sector as {first} ({numbers[first]})")
    if max(numbers["header"], numbers.get("config", 0)) > numbers["data"]:
        raise fail(f"{where}.data", "must lie behind the header and config sectors: the recording grows upward")
    return Sectors(**numbers)


_SIDE = whole(1, 1 << 14)
_FRAME = Schema({"width": _SIDE, "height": _SIDE}, dict.fromkeys(("width", "height"), "missing or zero"))


def _frame(value: Any, where: str) -> tuple[int, int]:
    given = _FRAME(value, where)
    return given["width"], given["height"]


def _range(least: int, most: int, value: Any, where: str) -> tuple[int, int]:
    low, high = list_of(whole(least, most), "two numbers, least and most", 2)(value, where)
    if low > high:
        raise fail(where, f"the least ({low}) is above the most ({high})")
    return low, high


_milliseconds = partial(_range, 0, 100_000)


def _driver_timeout(value: Any, where: str) -> tuple[int, int]:
    """A time, or the least and the most it may be."""
    return _milliseconds([value, value] if isinstance(value, int) else value, where)


_COUNT = whole(0, 1 << 20)
BUILD = Schema({
    "firmware": label, "description": text, "width": _SIDE, "height": _SIDE,
    "header_words": whole(0, 64), "buffer_sectors": whole(0, 2048), "frame_sectors": _COUNT,
    "buffers_a_frame": whole(0, 64), "whole_buffers": flag, "preamble": whole(),
    "ring": whole(0, 1 << 10), "drop_step": _COUNT, "overflow": one_of("lap", "pool"),
    "leftovers": one_of("ring", "frame"), "write_waits": whole(0, 64), "driver_timeout": _driver_timeout,
    "failed_writes": whole(1, 4096), "remote_edge": _milliseconds,
    "fs": positive, "ticks_per_ms": list_of(positive, "clock ticks in a ms"),
    "clock": one_of("recording", "power-on"), "write_clock": partial(_range, -1000, 1000),
    "config_written": list_of(one_of("power-on", "stop", "timed stop"), "moments"), "config_frame": _frame,
    "stale_config": flag, "restarts": flag, "sizes": list_of(list_of(_SIDE, "width and height", 2), "frame sizes"),
    "repeats": list_of(text, "buffer fields"), "unsupported": text,
    "header": partial(_fields, part="header", limit=_LIMITS["header"]),
    "buffer": partial(_fields, part="buffer", limit=_LIMITS["buffer"]),
}, dict.fromkeys(("width", "height"), "missing or zero"))  # fmt: skip


def _build(value: Any, where: str) -> Build:
    given = BUILD(value, where)
    build = Build(given.pop("firmware", ""), **given)
    if build.header_words and 4 * build.header_words >= build.buffer_sectors * SECTOR:
        words = build.header_words
        raise fail(f"{where}.buffer_sectors", f"{build.buffer_sectors} sectors hold no data behind {words} words")
    return build


def _record(value: Any, where: str) -> Record:
    given = RECORD(value, where)
    where = f"{where}.fields"
    fields = _checked(_fields(given["fields"], where, "record", given["length"]), where, "record")
    return Record(given["field"], given["length"], given["start"], given["total"], fields)


RECORD = Schema(
    {"field": text, "length": whole(2, 256), "start": whole(0, 255), "total": whole(0, 255), "fields": mapping},
    dict.fromkeys(("field", "length", "start", "total", "fields"), "missing"),
)


def _word_size(value: Any, where: str) -> None:
    if value != 4 or isinstance(value, bool):
        raise fail(where, "only words of 4 bytes are known")


_LENGTHS = list_of(whole(1, 64), "header lengths")
LAYOUT = Schema({
    "id": text, "description": text, "source": text, "aliases": list_of(label, "names"), "rank": whole(0, 1000),
    "sectors": _sectors, "write_keys": list_of(whole(), "four numbers", 4), "word_size": _word_size,
    "header_words": _LENGTHS, "frame": _frame, "height_overwritten": flag,
    "header": partial(_part, "header"), "config": partial(_part, "config"), "buffer": partial(_part, "buffer"),
    "footer": partial(_part, "footer"), "builds": list_of(_build, "builds"), "record": _record,
    **{f"write_key{i}": whole() for i in range(4)},
    # mio's own files carry these; they say nothing about the card
    **dict.fromkeys(("mio_model", "mio_version", "version"), lambda value, where: None),
}, dict.fromkeys(("sectors", "header"), "missing"))  # fmt: skip


def parse_layout(data: Mapping[str, Any], where: str) -> Layout:
    """Validate a layout given as a mapping; ``where`` names it in errors."""
    given = LAYOUT(data, where)
    if ("buffer" in given) == ("footer" in given):
        raise fail(f"{where}.buffer", "give either buffer (frames in buffers) or footer (whole frames)")
    has_sector = given["sectors"].config is not None
    if "buffer" in given and (has_sector != ("config" in given) or not (has_sector or given.get("builds"))):
        said = "the config sector and its fields, or neither and a build that says the frame size"
        raise fail(f"{where}.config", f"missing; a layout with buffers needs {said}")
    if "buffer" in given and not has_sector:  # as if its counts were always another recording's
        given["builds"] = [replace(build, stale_config=True, config_written=()) for build in given["builds"]]
    keys = tuple(given.pop(f"write_key{i}", WRITE_KEY) for i in range(4))
    given.setdefault("write_keys", keys)
    for foreign in ("mio_model", "mio_version", "version", "word_size"):
        given.pop(foreign, None)
    given.setdefault("id", where)
    layout = Layout(**given)
    for count in layout.header_words:
        if layout.buffer and count < layout.min_words:
            raise fail(f"{where}.header_words", f"{count} words cannot hold the fields a reader needs")
    _agree(layout, where)
    return layout


def _agree(layout: Layout, where: str) -> None:
    """Check what builds say against the family: their fields must make a layout of their own."""
    for i, build in enumerate(layout.builds):
        here = f"{where}.builds[{i}]"
        own = layout.of(build)
        if layout.buffer:
            _checked(own.buffer, f"{here}.buffer", "buffer")
            if layout.header_words and build.header_words and build.header_words not in layout.header_words:
                raise fail(f"{here}.header_words", f"{build.header_words} is not in header_words of the layout")
        _checked(own.header, f"{here}.header", "header")
        for name in build.repeats:
            if name not in own.buffer or name not in own.header:
                raise fail(f"{here}.repeats", f"{shortened(name)} is not both a setting and a buffer field")
    record = layout.record
    if record is not None and not any(record.field in layout.of(b).buffer for b in (None, *layout.builds)):
        raise fail(f"{where}.record.field", f"no buffer field is called {shortened(record.field)}")
