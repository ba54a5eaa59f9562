"""Validation of a layout: every error names the field that is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from miniscope_xr.errors import LayoutError, did_you_mean
from miniscope_xr.layout.model import NEEDED, TYPE_SIZES, WRITE_KEY, Build, Field, Layout, Sectors


def fail(where: str, what: str) -> LayoutError:
    """The error that names the field ``where``."""
    return LayoutError(f"layout {where}: {what}")


def _integer(value: Any, where: str, low: int = 0, high: int = 2**32 - 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise fail(where, f"expected a whole number, found {value!r}")
    if not low <= value <= high:
        raise fail(where, f"{value} is outside {low} to {high}")
    return value


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise fail(where, f"expected a mapping of names to values, found {value!r}")
    for key in value:
        if not isinstance(key, str):
            raise fail(where, f"expected names, found {key!r}")
    return value


def _known(value: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in value:
        if key not in known:
            raise fail(f"{where}.{key}", f"unknown name{did_you_mean(key, known)}; known: {', '.join(known)}")


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise fail(where, f"expected text, found {value!r}")
    return value


_FIELD_KEYS = (
    "word", "byte", "type", "description", "units", "scale", "minimum", "maximum", "choices", "default", "used",
)  # fmt: skip


def _field(name: str, value: Any, where: str, limit: int) -> Field:
    """One field: a bare word number (as mio writes it) or a mapping."""
    if not isinstance(value, Mapping):
        return Field(name, 4 * _integer(value, where, 0, limit // 4 - 1))
    _known(value, _FIELD_KEYS, where)
    if ("word" in value) == ("byte" in value):
        raise fail(where, "give either word: (number of the uint32) or byte: (byte offset)")
    kind = value.get("type", "uint32")
    if kind not in TYPE_SIZES:
        raise fail(f"{where}.type", f"expected one of {', '.join(TYPE_SIZES)}, found {kind!r}")
    if "word" in value:
        offset = 4 * _integer(value["word"], f"{where}.word", 0, limit // 4 - 1)
    else:
        offset = _integer(value["byte"], f"{where}.byte", 0, limit - TYPE_SIZES[kind])
    if offset % TYPE_SIZES[kind]:
        raise fail(f"{where}.byte", f"{offset} is not a multiple of the size of {kind}")
    numbers = {
        key: None if value.get(key) is None else _integer(value[key], f"{where}.{key}")
        for key in ("minimum", "maximum", "default")
    }
    scale = value.get("scale")
    if scale is not None and (isinstance(scale, bool) or not isinstance(scale, int | float) or not scale > 0):
        raise fail(f"{where}.scale", f"expected a positive number, found {scale!r}")
    choices = value.get("choices")
    if choices is not None:
        if not isinstance(choices, Mapping):
            raise fail(f"{where}.choices", f"expected raw values and their meanings, found {choices!r}")
        choices = {_integer(k, f"{where}.choices"): str(v) for k, v in choices.items()}
    used = value.get("used", True)
    if not isinstance(used, bool):
        raise fail(f"{where}.used", f"expected true or false, found {used!r}")
    return Field(
        name, offset, kind,
        description=_text(value.get("description", ""), f"{where}.description"),
        units=None if value.get("units") is None else _text(value["units"], f"{where}.units"),
        scale=None if scale is None else float(scale),
        choices=choices, used=used, **numbers,
    )  # fmt: skip


def _fields(value: Any, where: str, limit: int, needed: tuple[str, ...]) -> dict[str, Field]:
    """A struct's fields; None (mio: field absent in this build) drops one. Overlaps are errors."""
    result: dict[str, Field] = {}
    taken: dict[int, str] = {}
    for name, item in _mapping(value, where).items():
        if not name.isidentifier() or name.startswith("_"):
            raise fail(f"{where}.{name}", "a field name must be a plain word (letters, digits, underscore)")
        if item is None:
            continue
        parsed = _field(name, item, f"{where}.{name}", limit)
        for byte in range(parsed.offset, parsed.offset + parsed.size):
            if byte in taken:
                raise fail(f"{where}.{name}", f"byte {byte} already belongs to {taken[byte]!r}")
            taken[byte] = name
        result[name] = parsed
    for name in needed:
        if name not in result:
            raise fail(f"{where}.{name}", f"missing; a layout must say where it is{did_you_mean(name, result)}")
    for name in needed:
        if where.endswith(("buffer", "footer")) and result[name].type != "uint32":
            raise fail(f"{where}.{name}", "the reader needs this field as uint32")
    return result


def _sectors(value: Any, where: str) -> Sectors:
    known = ("header", "config", "data", "size")
    value = _mapping(value, where)
    _known(value, known, where)
    for key in ("header", "data"):
        if key not in value:
            raise fail(f"{where}.{key}", "missing; give its sector number")
    size = _integer(value.get("size", 512), f"{where}.size", 64, 1 << 20)
    if size & (size - 1):
        raise fail(f"{where}.size", f"{size} is not a power of two")
    numbers = {k: _integer(value[k], f"{where}.{k}", 0, 1 << 32) for k in known[:3] if value.get(k) is not None}
    for first, second in (("header", "config"), ("header", "data"), ("config", "data")):
        if first in numbers and numbers.get(second, -1) == numbers[first]:
            raise fail(f"{where}.{second}", f"is the same sector as {first} ({numbers[first]})")
    if max(numbers.get("header", 0), numbers.get("config", 0)) > numbers["data"]:
        raise fail(f"{where}.data", "must lie behind the header and config sectors: the recording grows upward")
    return Sectors(size=size, **numbers)


_BUILD_KEYS = (
    "firmware", "width", "height", "header_words", "buffer_sectors", "ring", "drop_step", "frame_sectors",
)  # fmt: skip


def _builds(value: Any, where: str) -> tuple[Build, ...]:
    if not isinstance(value, list):
        raise fail(where, f"expected a list, found {value!r}")
    builds = []
    for i, item in enumerate(value):
        here = f"{where}[{i}]"
        item = _mapping(item, here)
        _known(item, _BUILD_KEYS, here)
        numbers = {k: _integer(item[k], f"{here}.{k}", 0, 1 << 20) for k in _BUILD_KEYS[1:] if k in item}
        for key in ("width", "height"):
            if not numbers.get(key):
                raise fail(f"{here}.{key}", "missing or zero")
        builds.append(Build(str(item.get("firmware", "")), **numbers))
    return tuple(builds)


_TOP = (
    "id", "description", "source", "aliases", "sectors", "write_keys", "word_size", "header_words", "frame",
    "header", "config", "buffer", "footer", "builds", "height_overwritten",
)  # fmt: skip
# mio's own files carry these; they say nothing about the card.
_FOREIGN = ("mio_model", "mio_version", "version", "write_key0", "write_key1", "write_key2", "write_key3")


def parse_layout(data: Mapping[str, Any], where: str) -> Layout:
    """Validate a layout given as a mapping; ``where`` names it in errors."""
    data = _mapping(data, where)
    _known(data, _TOP + _FOREIGN, where)
    for key in ("sectors", "header"):
        if key not in data:
            raise fail(f"{where}.{key}", "missing")
    if ("buffer" in data) == ("footer" in data):
        raise fail(f"{where}.buffer", "give either buffer (frames in buffers) or footer (whole frames)")
    sectors = _sectors(data["sectors"], f"{where}.sectors")
    if _integer(data.get("word_size", 4), f"{where}.word_size") != 4:
        raise fail(f"{where}.word_size", "only words of 4 bytes are known")
    if "write_keys" in data:
        keys = data["write_keys"]
        if not isinstance(keys, list) or len(keys) != 4:
            raise fail(f"{where}.write_keys", f"expected a list of four numbers, found {keys!r}")
        write_keys = tuple(_integer(k, f"{where}.write_keys") for k in keys)
    else:
        write_keys = tuple(_integer(data.get(f"write_key{i}", WRITE_KEY), f"{where}.write_key{i}") for i in range(4))
    parts: dict[str, dict[str, Field]] = {}
    for part in ("header", "config", "buffer", "footer"):
        if part not in data:
            continue
        limit = {"buffer": 256, "footer": 16}.get(part, sectors.size)
        parts[part] = _fields(data[part], f"{where}.{part}", limit, NEEDED.get(part, ()))
    if "buffer" in parts and (sectors.config is None or "config" not in parts):
        raise fail(f"{where}.config", "missing; a layout with buffers needs the config sector and its fields")
    for name, item in parts["header"].items():
        if item.offset < 16:
            raise fail(f"{where}.header.{name}", f"byte {item.offset} belongs to the write keys (bytes 0-15)")
    words = data.get("header_words", [])
    if not isinstance(words, list):
        raise fail(f"{where}.header_words", f"expected a list of header lengths, found {words!r}")
    frame = data.get("frame")
    if frame is not None:
        _known(_mapping(frame, f"{where}.frame"), ("width", "height"), f"{where}.frame")
        frame = tuple(_integer(frame.get(k), f"{where}.frame.{k}", 1, 1 << 14) for k in ("width", "height"))
    overwritten = data.get("height_overwritten", False)
    if not isinstance(overwritten, bool):
        raise fail(f"{where}.height_overwritten", f"expected true or false, found {overwritten!r}")
    aliases = data.get("aliases", [])
    if not isinstance(aliases, list):
        raise fail(f"{where}.aliases", f"expected a list of names, found {aliases!r}")
    layout = Layout(
        id=_text(data.get("id", where), f"{where}.id"),
        sectors=sectors,
        builds=_builds(data.get("builds", []), f"{where}.builds"),
        header_words=tuple(_integer(w, f"{where}.header_words", 1, 64) for w in words),
        write_keys=write_keys,
        description=_text(data.get("description", ""), f"{where}.description"),
        source=_text(data.get("source", ""), f"{where}.source"),
        aliases=tuple(str(a) for a in aliases),
        frame=frame,
        height_overwritten=overwritten,
        **parts,
    )
    for count in layout.header_words:
        if layout.buffer and count < layout.min_words:
            raise fail(f"{where}.header_words", f"{count} words cannot hold the fields a reader needs")
    return layout
