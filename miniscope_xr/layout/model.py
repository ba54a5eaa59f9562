"""What a layout is: sectors, fields, firmware builds, and a version record spread over buffers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

from miniscope_xr.source.base import SECTOR

WRITE_KEY = 0x0D7CBA17
TYPE_SIZES = {"uint32": 4, "uint16": 2, "uint8": 1, "int32": 4, "int16": 2, "int8": 1}
# Fields the reader cannot do without; everything else in a layout is the user's to add.
NEEDED = {
    "buffer": (
        "length", "frame_num", "buffer_count", "frame_buffer_count",
        "write_buffer_count", "timestamp", "data_length",
    ),
    "footer": ("timestamp", "frame_num"),
    "config": ("width", "height", "buffer_size", "n_buffers_recorded"),
}  # fmt: skip


@dataclass(frozen=True)
class Field:
    """One number in a header sector, config sector, buffer header, footer or version record.

    ``offset`` is in bytes from the start of its struct. ``bits`` (first, last; both included, 0 is the lowest) takes
    a part of the word only, so that several fields can share one. ``scale`` turns the number into ``units``; ``none``
    is the number that says "not measured". ``minimum`` and ``maximum`` are what the firmware can write (settings: what
    it can use). ``choices`` maps the codes the firmware understands to what they mean, ``otherwise`` is the code it
    takes any other for, or words for what it does then. ``trusted`` is False for a word that may be wrong on cards.
    ``noise`` is by how much a measurement (the battery) may rise by itself; more is another recording's.
    """

    name: str
    offset: int
    type: str = "uint32"
    bits: tuple[int, int] | None = None
    description: str = ""
    units: str | None = None
    scale: float | None = None
    minimum: int | None = None
    maximum: int | None = None
    none: int | None = None
    choices: Mapping[int, str] | None = None
    otherwise: int | str | None = None
    default: int | None = None
    used: bool = True
    trusted: bool = True
    noise: int = 2

    @property
    def size(self) -> int:
        """Size in bytes of the number that holds the field."""
        return TYPE_SIZES[self.type]

    @cached_property
    def word(self) -> int:
        """Index of the uint32 word that holds the field."""
        return self.offset // 4

    @property
    def signed(self) -> bool:
        """Whether the highest bit is a sign."""
        return self.type.startswith("int")

    @property
    def width(self) -> int:
        """Bits of the field."""
        return 8 * self.size if self.bits is None else self.bits[1] - self.bits[0] + 1

    @cached_property
    def shift(self) -> int:
        """Bits of its word below the field."""
        return 8 * (self.offset % 4) + (0 if self.bits is None else self.bits[0])

    @cached_property
    def mask(self) -> int:
        """As many ones as the field has bits."""
        return (1 << self.width) - 1

    @cached_property
    def sign(self) -> int:
        """The field's highest bit where that is a sign, else 0: a number n of so many bits means (n ^ sign) - sign."""
        return 1 << self.width - 1 if self.signed else 0

    @cached_property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest value that can be meant; ``none`` may lie outside."""
        lowest = -(1 << self.width - 1) if self.signed else 0
        highest = lowest + (1 << self.width) - 1
        low = lowest if self.minimum is None else max(self.minimum, lowest)
        high = highest if self.maximum is None else min(self.maximum, highest)
        return low, high

    def plausible(self, value: int) -> bool:
        """Whether the firmware can have written ``value`` here."""
        low, high = self.limits
        return not self.trusted or low <= value <= high or value == self.none

    def means(self, raw: int) -> str:
        """What the firmware makes of a code: its meaning, or what it does with one it does not know."""
        choices = self.choices or {}
        if raw in choices or self.otherwise is None or not choices:
            return choices.get(raw, str(raw))
        return choices.get(self.otherwise, str(self.otherwise)) if isinstance(self.otherwise, int) else self.otherwise


@dataclass(frozen=True)
class Sectors:
    """Sector numbers of the card's parts; ``config`` is None where the firmware writes none."""

    header: int
    data: int
    config: int | None = None


def lengths_of(frame_bytes: int, payload: int) -> tuple[int, ...]:
    """Data bytes of the buffers of a frame, in order: full ones, and what is left in a last one.

    >>> lengths_of(608 * 608, 95_984)
    (95984, 95984, 95984, 81712)
    """
    full, rest = divmod(frame_bytes, payload)
    return (payload,) * full + ((rest,) if rest else ())


@dataclass(frozen=True)
class Build:
    """One firmware build of the family: what is not on the card, and where its words differ from the layout's.

    Each key is explained in docs/layouts.md. ``header`` and ``buffer`` hold the fields that differ (None: the build
    has no such field); :meth:`Layout.of` puts them in.
    """

    firmware: str
    width: int
    height: int
    header_words: int = 0
    buffer_sectors: int = 0
    ring: int = 0
    drop_step: int | None = None
    frame_sectors: int = 0
    description: str = ""
    # how a frame lies on the card
    buffers_a_frame: int = 0
    whole_buffers: bool = False
    preamble: int | None = None
    # what happens when the ring is full
    overflow: str = "lap"
    leftovers: str = "ring"
    write_waits: int = 0
    driver_timeout: tuple[int, int] = (0, 0)
    failed_writes: int = 16
    # the clocks
    fs: float | None = None
    ticks_per_ms: tuple[float, ...] = (1,)
    clock: str = "recording"
    write_clock: tuple[int, int] = (0, 0)
    remote_edge: tuple[int, int] = (10, 14)
    # what the config sector is worth
    config_written: tuple[str, ...] = ("power-on", "stop", "timed stop")
    config_frame: tuple[int, int] | None = None
    stale_config: bool = False
    restarts: bool = False
    sizes: tuple[tuple[int, int], ...] = ()
    repeats: tuple[str, ...] = ()
    unsupported: str = ""
    header: Mapping[str, Field | None] = field(default_factory=dict)
    buffer: Mapping[str, Field | None] = field(default_factory=dict)

    @property
    def marker(self) -> int:
        """What the first word of a buffer header holds: its length in words, or the preamble."""
        return self.header_words if self.preamble is None else self.preamble

    @property
    def payload(self) -> int:
        """Data bytes of a full buffer."""
        return self.buffer_sectors * SECTOR - 4 * self.header_words

    @property
    def pool(self) -> bool:
        """Whether capture goes on when the ring is full: slots are filled again before they were written."""
        return self.overflow == "pool"

    def sectors_for(self, length: int) -> int:
        """Sectors a buffer with ``length`` data bytes takes on the card."""
        return self.buffer_sectors if self.whole_buffers else -(-(length + 4 * self.header_words) // SECTOR)

    def lengths(self, width: int | None = None, height: int | None = None) -> tuple[int, ...]:
        """Data bytes of the buffers of one frame, in order; of another frame size if given."""
        size = (width or self.width) * (height or self.height)
        cut, rest = lengths_of(size, self.payload), size % self.payload
        if not self.buffers_a_frame or (width, height) != (None, None):
            return cut
        return (self.payload,) * (self.buffers_a_frame - 1) + (min(self.payload, rest or self.payload),)

    def __hash__(self) -> int:
        return hash((self.firmware, self.width, self.header_words))


Fields = Mapping[str, Field]


@dataclass(frozen=True)
class Record:
    """A version record that the firmware spreads over buffers, one byte each (SAMD-Framework, 13 words and more).

    Byte ``buffer_count % length`` of it stands in buffer field ``field``. Byte 0 is ``start``, and all bytes add up to
    ``total`` modulo 256. ``fields`` says what the bytes mean.
    """

    field: str
    length: int
    start: int
    total: int
    fields: Fields


@dataclass(frozen=True)
class Layout:
    """A validated layout. Get one with :func:`load_layout`.

    ``header``, ``config``, ``buffer`` and ``footer`` map field names to :class:`Field`; a layout has either
    ``buffer`` (frames split into buffers) or ``footer`` (whole frames). Where a build's words differ, ask
    :meth:`of` for the layout of that build.
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
    rank: int = 0
    record: Record | None = None
    build: Build | None = None
    """The build whose words these are (:meth:`of`); None for the family."""

    @cached_property
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
        return [b for b in self.builds if b.header_words == words and b.buffer_sectors * SECTOR == buffer_bytes]

    def of(self, build: Build | None) -> Layout:
        """The layout as one build writes it: its own words in place of the family's."""
        if build is None or self.build is build:
            return self
        return _of(self, build)

    def __hash__(self) -> int:
        build = self.build  # by what is quick to hash: layouts are looked up thousands of times
        return hash((self.id, build and (build.firmware, build.width, build.header_words)))


@lru_cache(maxsize=256)
def _of(layout: Layout, build: Build) -> Layout:
    header = {name: f for name, f in {**layout.header, **build.header}.items() if f is not None}
    buffer = {name: f for name, f in {**layout.buffer, **build.buffer}.items() if f is not None}
    return replace(layout, build=build, header=header, buffer=buffer)
