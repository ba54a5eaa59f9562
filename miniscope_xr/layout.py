"""Layouts: where on a card the words are, read from YAML and validated.

A layout is the one place that knows addresses. :mod:`miniscope_xr.words` turns it into ``construct``
structs and, from those, into numpy dtypes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from miniscope_xr.errors import LayoutError, did_you_mean

WRITE_KEY = 0x0D7CBA17
_TYPE_SIZES = {"uint32": 4, "uint16": 2, "uint8": 1}
_MAX_LAYOUT_BYTES = 1 << 20
# Fields the reader cannot do without; everything else in a layout is the user's to add.
_NEEDED = {
    "buffer": (
        "length", "frame_num", "buffer_count", "frame_buffer_count",
        "write_buffer_count", "dropped_buffer_count", "timestamp", "data_length",
    ),
    "footer": ("timestamp", "frame_num"),
    "config": ("width", "height", "buffer_size", "n_buffers_recorded"),
}  # fmt: skip


@dataclass(frozen=True)
class Field:
    """One number in a header sector, config sector, buffer header or footer.

    ``offset`` is in bytes from the start of its struct. ``scale`` turns the raw number into ``units``.
    ``choices`` maps the raw values the firmware understands to what they mean.
    """

    name: str
    offset: int
    type: str = "uint32"
    description: str = ""
    units: str | None = None
    scale: float | None = None
    minimum: int | None = None
    maximum: int | None = None
    choices: Mapping[int, str] | None = None
    default: int | None = None
    used: bool = True

    @property
    def size(self) -> int:
        """Size in bytes."""
        return _TYPE_SIZES[self.type]

    @property
    def word(self) -> int:
        """Index of the uint32 word that holds the field."""
        return self.offset // 4


@dataclass(frozen=True)
class Sectors:
    """Sector numbers of the card's parts; ``config`` is None where the firmware writes none."""

    header: int
    data: int
    config: int | None = None
    size: int = 512


@dataclass(frozen=True)
class Build:
    """One firmware build of the family: the numbers that are not on the card."""

    firmware: str
    width: int
    height: int
    header_words: int = 0
    buffer_sectors: int = 0
    ring: int = 0
    drop_step: int = 0
    frame_sectors: int = 0


Fields = Mapping[str, Field]


@dataclass(frozen=True)
class Layout:
    """A validated layout. Get one with :func:`load_layout`.

    ``header``, ``config``, ``buffer`` and ``footer`` map field names to :class:`Field`; a layout has either
    ``buffer`` (frames split into buffers) or ``footer`` (whole frames).
    """

    id: str
    sectors: Sectors
    header: Fields
    config: Fields = field(default_factory=dict)
    buffer: Fields = field(default_factory=dict)
    footer: Fields = field(default_factory=dict)
    builds: tuple[Build, ...] = ()
    header_words: tuple[int, ...] = ()
    write_keys: tuple[int, ...] = (WRITE_KEY,) * 4
    description: str = ""
    source: str = ""
    aliases: tuple[str, ...] = ()
    frame: tuple[int, int] | None = None
    height_overwritten: bool = False

    @property
    def min_words(self) -> int:
        """Words a buffer header must have to hold the fields the reader needs."""
        return 1 + max(self.buffer[name].word for name in _NEEDED["buffer"])

    @cached_property
    def max_words(self) -> int:
        """Longest buffer header this layout knows fields for (in words)."""
        return max([*self.header_words, *(f.word + 1 for f in self.buffer.values())], default=0)

    def fields_for(self, words: int) -> dict[str, Field]:
        """Buffer header fields that a header of ``words`` words has room for."""
        return {name: f for name, f in self.buffer.items() if f.word < words}

    def builds_for(self, words: int, buffer_bytes: int) -> list[Build]:
        """Known firmware builds with this header length and buffer size (bytes)."""
        size = self.sectors.size
        return [b for b in self.builds if b.header_words == words and b.buffer_sectors * size == buffer_bytes]

    def __hash__(self) -> int:
        return hash((self.id, self.sectors))


def _fail(where: str, what: str) -> LayoutError:
    return LayoutError(f"layout {where}: {what}")


def _integer(value: Any, where: str, low: int = 0, high: int = 2**32 - 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _fail(where, f"expected a whole number, found {value!r}")
    if not low <= value <= high:
        raise _fail(where, f"{value} is outside {low} to {high}")
    return value


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _fail(where, f"expected a mapping of names to values, found {value!r}")
    for key in value:
        if not isinstance(key, str):
            raise _fail(where, f"expected names, found {key!r}")
    return value


def _known(value: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in value:
        if key not in known:
            raise _fail(f"{where}.{key}", f"unknown name{did_you_mean(key, known)}; known: {', '.join(known)}")


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise _fail(where, f"expected text, found {value!r}")
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
        raise _fail(where, "give either word: (number of the uint32) or byte: (byte offset)")
    kind = value.get("type", "uint32")
    if kind not in _TYPE_SIZES:
        raise _fail(f"{where}.type", f"expected one of {', '.join(_TYPE_SIZES)}, found {kind!r}")
    if "word" in value:
        offset = 4 * _integer(value["word"], f"{where}.word", 0, limit // 4 - 1)
    else:
        offset = _integer(value["byte"], f"{where}.byte", 0, limit - _TYPE_SIZES[kind])
    if offset % _TYPE_SIZES[kind]:
        raise _fail(f"{where}.byte", f"{offset} is not a multiple of the size of {kind}")
    numbers = {
        key: None if value.get(key) is None else _integer(value[key], f"{where}.{key}")
        for key in ("minimum", "maximum", "default")
    }
    scale = value.get("scale")
    if scale is not None and (isinstance(scale, bool) or not isinstance(scale, int | float) or not scale > 0):
        raise _fail(f"{where}.scale", f"expected a positive number, found {scale!r}")
    choices = value.get("choices")
    if choices is not None:
        if not isinstance(choices, Mapping):
            raise _fail(f"{where}.choices", f"expected raw values and their meanings, found {choices!r}")
        choices = {_integer(k, f"{where}.choices"): str(v) for k, v in choices.items()}
    used = value.get("used", True)
    if not isinstance(used, bool):
        raise _fail(f"{where}.used", f"expected true or false, found {used!r}")
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
            raise _fail(f"{where}.{name}", "a field name must be a plain word (letters, digits, underscore)")
        if item is None:
            continue
        parsed = _field(name, item, f"{where}.{name}", limit)
        for byte in range(parsed.offset, parsed.offset + parsed.size):
            if byte in taken:
                raise _fail(f"{where}.{name}", f"byte {byte} already belongs to {taken[byte]!r}")
            taken[byte] = name
        result[name] = parsed
    for name in needed:
        if name not in result:
            raise _fail(f"{where}.{name}", f"missing; a layout must say where it is{did_you_mean(name, result)}")
    for name in needed:
        if where.endswith(("buffer", "footer")) and result[name].type != "uint32":
            raise _fail(f"{where}.{name}", "the reader needs this field as uint32")
    return result


def _sectors(value: Any, where: str) -> Sectors:
    known = ("header", "config", "data", "size")
    value = _mapping(value, where)
    _known(value, known, where)
    for key in ("header", "data"):
        if key not in value:
            raise _fail(f"{where}.{key}", "missing; give its sector number")
    size = _integer(value.get("size", 512), f"{where}.size", 64, 1 << 20)
    if size & (size - 1):
        raise _fail(f"{where}.size", f"{size} is not a power of two")
    numbers = {k: _integer(value[k], f"{where}.{k}", 0, 1 << 32) for k in known[:3] if value.get(k) is not None}
    for first, second in (("header", "config"), ("header", "data"), ("config", "data")):
        if first in numbers and numbers.get(second, -1) == numbers[first]:
            raise _fail(f"{where}.{second}", f"is the same sector as {first} ({numbers[first]})")
    if max(numbers.get("header", 0), numbers.get("config", 0)) > numbers["data"]:
        raise _fail(f"{where}.data", "must lie behind the header and config sectors: the recording grows upward")
    return Sectors(size=size, **numbers)


_BUILD_KEYS = (
    "firmware", "width", "height", "header_words", "buffer_sectors", "ring", "drop_step", "frame_sectors",
)  # fmt: skip


def _builds(value: Any, where: str) -> tuple[Build, ...]:
    if not isinstance(value, list):
        raise _fail(where, f"expected a list, found {value!r}")
    builds = []
    for i, item in enumerate(value):
        here = f"{where}[{i}]"
        item = _mapping(item, here)
        _known(item, _BUILD_KEYS, here)
        numbers = {k: _integer(item[k], f"{here}.{k}", 0, 1 << 20) for k in _BUILD_KEYS[1:] if k in item}
        for key in ("width", "height"):
            if not numbers.get(key):
                raise _fail(f"{here}.{key}", "missing or zero")
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
            raise _fail(f"{where}.{key}", "missing")
    if ("buffer" in data) == ("footer" in data):
        raise _fail(f"{where}.buffer", "give either buffer (frames in buffers) or footer (whole frames)")
    sectors = _sectors(data["sectors"], f"{where}.sectors")
    if _integer(data.get("word_size", 4), f"{where}.word_size") != 4:
        raise _fail(f"{where}.word_size", "only words of 4 bytes are known")
    if "write_keys" in data:
        keys = data["write_keys"]
        if not isinstance(keys, list) or len(keys) != 4:
            raise _fail(f"{where}.write_keys", f"expected a list of four numbers, found {keys!r}")
        write_keys = tuple(_integer(k, f"{where}.write_keys") for k in keys)
    else:
        write_keys = tuple(_integer(data.get(f"write_key{i}", WRITE_KEY), f"{where}.write_key{i}") for i in range(4))
    parts: dict[str, dict[str, Field]] = {}
    for part in ("header", "config", "buffer", "footer"):
        if part not in data:
            continue
        limit = {"buffer": 256, "footer": 16}.get(part, sectors.size)
        parts[part] = _fields(data[part], f"{where}.{part}", limit, _NEEDED.get(part, ()))
    if "buffer" in parts and (sectors.config is None or "config" not in parts):
        raise _fail(f"{where}.config", "missing; a layout with buffers needs the config sector and its fields")
    for name, item in parts["header"].items():
        if item.offset < 16:
            raise _fail(f"{where}.header.{name}", f"byte {item.offset} belongs to the write keys (bytes 0-15)")
    words = data.get("header_words", [])
    if not isinstance(words, list):
        raise _fail(f"{where}.header_words", f"expected a list of header lengths, found {words!r}")
    frame = data.get("frame")
    if frame is not None:
        _known(_mapping(frame, f"{where}.frame"), ("width", "height"), f"{where}.frame")
        frame = tuple(_integer(frame.get(k), f"{where}.frame.{k}", 1, 1 << 14) for k in ("width", "height"))
    overwritten = data.get("height_overwritten", False)
    if not isinstance(overwritten, bool):
        raise _fail(f"{where}.height_overwritten", f"expected true or false, found {overwritten!r}")
    aliases = data.get("aliases", [])
    if not isinstance(aliases, list):
        raise _fail(f"{where}.aliases", f"expected a list of names, found {aliases!r}")
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
            raise _fail(f"{where}.header_words", f"{count} words cannot hold the fields a reader needs")
    return layout


def _parse_text(text: str, where: str) -> Layout:
    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _fail(where, f"is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, Mapping):
        raise _fail(where, f"expected a mapping with sectors, header and buffer, found {type(data).__name__}")
    return parse_layout(data, where)


@lru_cache(maxsize=1)
def builtin_layouts() -> dict[str, Layout]:
    """Layouts shipped with the package, by id."""
    found = {}
    for file in sorted((resources.files("miniscope_xr") / "layouts").iterdir(), key=lambda f: f.name):
        if file.name.endswith(".yaml"):
            layout = _parse_text(file.read_text(encoding="utf-8"), file.name)
            found[layout.id] = layout
    return found


def layout_names() -> Iterator[str]:
    """Every id and alias :func:`load_layout` understands."""
    for layout in builtin_layouts().values():
        yield layout.id
        yield from layout.aliases


def _load_file(path: Path) -> Layout:
    try:
        if path.stat().st_size > _MAX_LAYOUT_BYTES:
            raise _fail(str(path), "is too large for a layout file; is this a card image?")
        return _parse_text(path.read_text(encoding="utf-8"), path.name)
    except OSError as error:
        raise _fail(str(path), f"cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise _fail(str(path), "is not a text file") from error


def load_layout(source: str | os.PathLike[str] | Mapping[str, Any] | Layout) -> Layout:
    """Load a layout.

    Parameters
    ----------
    source
        The id of a shipped layout (``v4-wirefree``, ``daq-wirefree``, ``v3-wirefree``, or mio's
        ``wirefree-sd-layout`` and ``wirefree-sd-layout-battery``), the path of a YAML file, a mapping
        with the same content, or a Layout.

    Raises
    ------
    LayoutError
        Names the field that is wrong, or the layouts there are.
    """
    if isinstance(source, Layout):
        return source
    if isinstance(source, Mapping):
        return parse_layout(source, str(source.get("id", "dict")))
    if not isinstance(source, str | os.PathLike):
        raise LayoutError(f"layout: expected an id, a path, a mapping or a Layout, found {source!r}")
    for layout in builtin_layouts().values():
        if source == layout.id or source in layout.aliases:
            return layout
    path = Path(source)
    if path.suffix in (".yaml", ".yml") or path.exists():
        return _load_file(path)
    known = list(layout_names())
    raise LayoutError(
        f"layout {str(source)!r} is neither known nor a file{did_you_mean(str(source), known)}; "
        f"known: {', '.join(known)}"
    )
