"""The front of a card: its sectors, each read once, and what is known of a card that was looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property

from miniscope_xr.index.filesystem import FileSystem
from miniscope_xr.index.framing import Framing, framing_of
from miniscope_xr.index.recording import Recording
from miniscope_xr.layout import SECTOR, Build, Layout
from miniscope_xr.layout.stamp import recorded_with
from miniscope_xr.layout.tell import fits_first
from miniscope_xr.layout.words import settings_of
from miniscope_xr.source.base import ByteSource


class State(StrEnum):
    """What a card holds as one layout sees it, from what says least for the layout to what says most."""

    EMPTY = "empty"
    NOTEBOOK = "notebook"  # prepared without write keys
    PREPARED = "prepared"
    BOOTED = "booted"  # the firmware wrote the config sector, and no recording
    HEADERS_ONLY = "headers only"  # buffers, but no config sector
    RECORDED = "recorded"

    @property
    def begun(self) -> bool:
        """Whether there are buffers or frames."""
        return self in (State.HEADERS_ONLY, State.RECORDED)

    @property
    def blank(self) -> bool:
        """Whether this is a card of ours on which nothing is."""
        return not self.begun and self is not State.EMPTY

    @property
    def weight(self) -> int:
        """How much speaks for the layout: 0 is nothing."""
        return list(State).index(self)


@dataclass(frozen=True)
class Card:
    """What is known of a card once it was looked at."""

    layout: Layout
    """As the build that wrote the card has it, where the build is known."""
    settings: Mapping[str, int]
    """Header sector in the layout's names, raw values: those the recording was made with."""
    config: Mapping[str, int] | None
    """Config sector in the layout's names; None where the layout has none or the firmware never wrote it."""
    keyed: bool
    """The four write keys are there."""
    state: State
    words: int = 0
    """Length of the buffer headers (words); 0 for whole frames with footers."""
    payload: int = 0
    """Data bytes of a full buffer; 0 for whole frames."""
    build: Build | None = None
    """The firmware build these numbers belong to, where known."""
    fits: bool = False
    """Nothing in the first buffer header contradicts that build."""
    notes: tuple[str, ...] = field(default=())
    """What has to be said about the sectors."""
    start: int | None = None
    """Sector of the first buffer (of whole frames: of frame 0), where it was found by the buffers themselves and not by
    the layout."""
    first_frame: int = 0
    """Of whole frames: number of the first one that is left."""
    own: tuple[int, ...] = ()
    """Sectors of its settings and counts among those in which buffers were found (a counterfeit's, that wrapped)."""
    counts_gone: bool = False
    """Something else is where the firmware keeps its counts: whether it wrote them cannot be told."""
    file_systems: tuple[FileSystem, ...] = ()
    """Those that the card was formatted with after it was recorded."""
    recordings: tuple[Recording, ...] = ()
    """Once they were looked for (:func:`miniscope_xr.index.build.build_index`)."""

    @cached_property
    def framing(self) -> Framing:
        """How its buffers are framed."""
        return framing_of(self.layout.of(self.build), self.words, self.payload)


class Front:
    """The front of a card, each place read once, however many layouts look."""

    def __init__(self, source: ByteSource) -> None:
        self.source = source
        self._known: dict[tuple[int, int], bytes] = {}

    def read(self, sector: int, length: int = SECTOR) -> bytes:
        """Return the bytes from the start of a sector; fewer only at the end of the card."""
        if (sector, length) not in self._known:
            self._known[sector, length] = self.source.read(sector * SECTOR, length)
        return self._known[sector, length]

    def made_with(self, layout: Layout) -> bytes | None:
        """Return the header sector as it was when the recording was made; None where that cannot be known any more.

        `set` changes the settings of the next recording and keeps those of the one on the card.
        """
        return recorded_with(self.read(layout.sectors.header), self.read(layout.sectors.data))

    def fits(self, layout: Layout, build: Build) -> bool:
        """Tell whether nothing in the first buffer header contradicts a build."""
        made = self.made_with(layout) if build.repeats else None
        settings = None if made is None else settings_of(layout, made)
        return fits_first(layout, build, self.read(layout.sectors.data), settings)


def with_settings(front: Front, card: Card) -> Card:
    """A card that was looked at, with its settings: those its recording was made with."""
    layout = card.layout
    made = front.made_with(layout) if card.state.begun else front.read(layout.sectors.header)
    if made is not None:
        return replace(card, settings=settings_of(layout, made))
    note = (
        f"the settings in sector {layout.sectors.header} were changed after this recording, and what kept the old "
        "ones is damaged: what it was made with is not known"
    )
    return replace(card, notes=(*card.notes, note))


def looks_prepared(layout: Layout, sector: bytes) -> bool:
    """Whether a header sector without write keys holds settings all the same (the lab notebook writes no keys)."""
    settings = settings_of(layout, sector)
    if not any(settings.values()) or any(sector[256:]):
        return False
    for name, item in layout.header.items():
        top = item.maximum if item.maximum is not None else 1 << 20
        if item.type == "uint32" and settings[name] > max(top, *(item.choices or {0: ""})):
            return False
    return not any(sector[:16])
