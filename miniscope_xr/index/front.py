"""What the sectors in front of a recording say, read with one layout: settings, counts, the first buffer's header."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from struct import unpack_from

import numpy as np

from miniscope_xr.index.framing import Framing
from miniscope_xr.index.recording import Recording
from miniscope_xr.layout import SECTOR, Build, Layout
from miniscope_xr.layout.stamp import recorded_with
from miniscope_xr.layout.tell import fits_first
from miniscope_xr.layout.words import (
    buffer_header_dtype,
    has_keys,
    settings_of,
    take,
)
from miniscope_xr.source.base import ByteSource

_MAX_SIDE = 4096  # px; the largest sensor of the family has 800
_MAX_BUFFER = 1 << 20  # bytes; the largest ring buffer of the family has 64,000


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
    """What is known of a card once it was looked at.

    Attributes
    ----------
    layout : Layout
        As the build that wrote the card has it, where the build is known.
    settings : dict
        Header sector in the layout's names, raw values: those the recording was made with.
    config : dict or None
        Config sector in the layout's names; None where the layout has none or the firmware never wrote it.
    keyed : bool
        The four write keys are there.
    state : State
    words : int
        Length of the buffer headers (words); 0 for whole frames with footers.
    payload : int
        Data bytes of a full buffer; 0 for whole frames.
    build : Build or None
        The firmware build these numbers belong to, where known.
    notes : tuple of str
        What has to be said about the sectors.
    start : int or None
        Sector of the first buffer (of whole frames: of frame 0), where it was found by the buffers themselves and not
        by the layout.
    first_frame : int
        Of whole frames: number of the first one that is left.
    recordings : tuple of Recording
        Once they were looked for (:func:`miniscope_xr.index.build.build_index`).
    """

    layout: Layout
    settings: Mapping[str, int]
    config: Mapping[str, int] | None
    keyed: bool
    state: State
    words: int = 0
    payload: int = 0
    build: Build | None = None
    notes: tuple[str, ...] = field(default=())
    start: int | None = None
    first_frame: int = 0
    recordings: tuple[Recording, ...] = ()

    @cached_property
    def framing(self) -> Framing:
        """How its buffers are framed."""
        return Framing(self.layout.of(self.build), self.words, self.payload)


class Front:
    """The front of a card, each place read once and each build held against it once, however many layouts look."""

    def __init__(self, source: ByteSource) -> None:
        self.source = source
        self._known: dict[tuple[int, int], bytes] = {}
        self._fits: dict[tuple[Layout, Build], bool] = {}

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
        known = self._fits.get((layout, build))
        if known is None:
            made = self.made_with(layout) if build.repeats else None
            settings = None if made is None else settings_of(layout, made)
            known = fits_first(layout, build, self.read(layout.sectors.data), settings)
            self._fits[layout, build] = known
        return known


def examine(front: Front, layout: Layout, holes: bool = True) -> Card:
    """Read what a card says if it has this layout; never raises for a card that does not.

    ``holes=False`` does not look behind writes that failed at the very start.
    """
    return with_settings(front, judge(front, layout, holes))


def judge(front: Front, layout: Layout, holes: bool = True) -> Card:
    """The same without the settings: all that telling layouts apart asks for."""
    return _buffers(front, layout, holes) if layout.buffer else _whole_frames(front, layout)


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


def _unrecorded(front: Front, layout: Layout, config: Mapping[str, int] | None = None) -> Card:
    """A card on which this layout sees no recording."""
    header = front.read(layout.sectors.header)
    keyed = has_keys(layout, header)
    if config is not None:
        state = State.BOOTED
    elif keyed:
        state = State.PREPARED
    else:
        state = State.NOTEBOOK if looks_prepared(layout, header) else State.EMPTY
    return Card(layout, {}, config, keyed, state)


# -- frames split into buffers ----------------------------------------------------------------------------


def _buffers(front: Front, layout: Layout, holes: bool) -> Card:
    config = _config(front, layout)
    words = _header_length(front, layout)
    if config is not None and not words and holes:
        words = _header_length_behind_hole(front, layout, config["buffer_size"])
    if not words:
        return _unrecorded(front, layout, config)
    build = _build(front, layout, words, config)
    keyed = has_keys(layout, front.read(layout.sectors.header))
    if build is not None and config is None and build.stale_config:
        config = {"width": build.width, "height": build.height, "buffer_size": SECTOR * build.buffer_sectors}
        config["n_buffers_recorded"] = 0
    if config is None:
        return Card(layout.of(build), {}, None, keyed, State.HEADERS_ONLY, words, build=build)
    config, notes = _sized(front, layout, words, config)
    if build is not None and build.config_frame:
        config = {**config, "width": build.width, "height": build.height}
    payload = config["buffer_size"] - 4 * words
    state = State.RECORDED if payload > 0 else State.EMPTY
    return Card(layout.of(build), {}, config, keyed, state, words, payload, build, notes)


def _config(front: Front, layout: Layout) -> dict[str, int] | None:
    """The config sector where it can be one, else None."""
    if layout.sectors.config is None:
        return None
    data = front.read(layout.sectors.config)
    if len(data) < SECTOR:
        return None
    config = take(layout.config, data)
    plausible = (
        8 <= config["width"] <= _MAX_SIDE
        and (layout.height_overwritten or 8 <= config["height"] <= _MAX_SIDE)
        and 0 < config["buffer_size"] <= _MAX_BUFFER
        and config["buffer_size"] % SECTOR == 0
        and config["n_buffers_recorded"] < 1 << 28
    )
    return config if plausible else None


def _header_length(front: Front, layout: Layout) -> int:
    """Words of the buffer header at the start of the data, 0 where there is none."""
    data = front.read(layout.sectors.data)
    if len(data) < 4 * layout.min_words:
        return 0
    words = int.from_bytes(data[:4], "little")
    known = layout.header_words or range(layout.min_words, 65)
    if words not in known or len(data) < 4 * words:
        return 0
    first, names = unpack_from(f"<{words}I", data), layout.buffer
    place, index, length = (first[names[n].word] for n in ("write_buffer_count", "frame_buffer_count", "data_length"))
    # The first place on the card; the buffer there may be one that lapped the ring, so its own count may be any.
    return words if place < 64 and index < 64 and 0 < length <= _MAX_BUFFER else 0


def _header_length_behind_hole(front: Front, layout: Layout, buffer_bytes: int) -> int:
    """Words of the first buffer header behind writes that failed at the very start, 0 where there is none."""
    longest = Build.failed_writes  # of most builds: what lies further in may be any layout's
    data = front.read(layout.sectors.data, longest * buffer_bytes)
    words = np.frombuffer(data, "<u4", len(data) // SECTOR * SECTOR // 4).reshape(-1, SECTOR // 4)
    for length in layout.header_words or range(layout.min_words, 65):
        names = layout.buffer
        rows = words[words[:, 0] == length]
        good = (
            (rows[:, names["write_buffer_count"].word] > 0)
            & (rows[:, names["write_buffer_count"].word] <= longest)
            & (rows[:, names["frame_buffer_count"].word] < 64)
            & (rows[:, names["data_length"].word] > 0)
            & (rows[:, names["data_length"].word] <= buffer_bytes - 4 * length)
        )
        if good.any():
            return length
    return 0


def _build(front: Front, layout: Layout, words: int, config: Mapping[str, int] | None) -> Build | None:
    """The firmware build of a recording: one that the first header does not contradict, by its frame size if known."""
    known = [b for b in layout.builds if b.header_words == words]
    sized = [] if config is None else layout.builds_for(words, config["buffer_size"])
    width = None if config is None else config["width"]

    def by_width(builds: Sequence[Build]) -> list[Build]:  # those of this frame size are asked first
        return sorted(builds, key=lambda b: width not in (b.width, *(b.config_frame or ())))

    fit = next((b for b in by_width(sized or known) if front.fits(layout, b)), None)
    return fit or next(iter(by_width(sized)), None)


def _sized(front: Front, layout: Layout, words: int, config: dict[str, int]) -> tuple[dict[str, int], tuple[str, ...]]:
    """The config sector with a buffer size the first full buffer agrees with; and what had to be said."""
    sizes = {b.buffer_sectors * SECTOR for b in layout.builds if b.header_words == words}
    if config["buffer_size"] in sizes:
        return config, ()
    header = np.frombuffer(front.read(layout.sectors.data), buffer_header_dtype(layout, words), 1)[0]
    found = int(header["data_length"]) + 4 * words
    if int(header["length"]) != words or found not in sizes:
        return config, ()
    said = f"the config sector says buffers of {config['buffer_size']} bytes, but the first one has {found}"
    return {**config, "buffer_size": found}, (said,)


# -- whole frames with footers ----------------------------------------------------------------------------


def _footer(front: Front, layout: Layout, build: Build, number: int) -> dict[str, int] | None:
    last = front.read(layout.sectors.data + (number + 1) * build.frame_sectors - 1)
    return take(layout.footer, last[-16:]) if len(last) == SECTOR else None


Footer = dict[str, int] | None


def _begins(build: Build, number: int, first: Footer, second: Footer, alone: bool = False) -> bool:
    """Whether a frame has a footer, and the next one a later one (unless it may be ``alone``)."""
    if first is None or first["frame_num"] != number or first["timestamp"] <= 0:
        return False
    follows = second is not None and second["frame_num"] == number + 1 and second["timestamp"] > first["timestamp"]
    return first.get("line_count", build.height) in (build.height, build.width) and (follows or alone)


def _hurt(end: bytes, own: Footer, following: Footer) -> bool:
    """Whether the first frame, which ends with these bytes, has a footer in which bits flipped.

    ``prepare`` would have left none.
    """
    if own is None or following is None or len(set(end)) < 2:
        return False
    alike = [name for name in ("dma_complete", "line_count") if name in following]
    off = [name for name in alike if own[name] != following[name]]
    early = 0 < own["timestamp"] < following["timestamp"]
    return len(off) + (own["frame_num"] != 0) + (not early) == 1


def _whole_frames(front: Front, layout: Layout) -> Card:
    keyed = has_keys(layout, front.read(layout.sectors.header))
    for build in layout.builds:
        first, second = (_footer(front, layout, build, n) for n in (0, 1))
        end = front.read(layout.sectors.data + build.frame_sectors - 1)
        if _begins(build, 0, first, second, keyed) or (
            _hurt(end, first, second) and _begins(build, 1, second, _footer(front, layout, build, 2))
        ):
            return Card(layout, {}, None, keyed, State.RECORDED, build=build)
    return _unrecorded(front, layout)
