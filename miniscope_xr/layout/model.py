"""What a layout is: fields, sectors, firmware builds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

WRITE_KEY = 0x0D7CBA17
TYPE_SIZES = {"uint32": 4, "uint16": 2, "uint8": 1}
# Fields the reader cannot do without; everything else in a layout is the user's to add.
NEEDED = {
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
        return TYPE_SIZES[self.type]

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
        return 1 + max(self.buffer[name].word for name in NEEDED["buffer"])

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
