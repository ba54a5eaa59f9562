"""Which layout a card has, its settings, and where its recording begins."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol, TypeVar

import numpy as np

from miniscope_xr.errors import (
    AmbiguousLayoutError,
    BlankCardError,
    NotACardError,
    UnsupportedCardError,
)
from miniscope_xr.index.framing import Framing
from miniscope_xr.index.guess import guess
from miniscope_xr.index.locate import Located, locate
from miniscope_xr.layout import SECTOR, Build, Layout, builtin_layouts, load_layout
from miniscope_xr.layout.stamp import recorded_with
from miniscope_xr.layout.tell import fits
from miniscope_xr.layout.words import (
    KEY_NAMES,
    buffer_header_dtype,
    config_sector_struct,
    footer_struct,
    header_sector_struct,
    parse,
)
from miniscope_xr.layout.words import values as fields_of
from miniscope_xr.source.base import ByteSource, Readable, Through

_MAX_SIDE = 4096  # px; the largest sensor of the family has 800
_BLANK = ("booted", "prepared", "notebook")  # states of a card on which nothing is, the surest first
_HOLE = 16  # buffers at the start of a recording that may be missing
_MAX_BUFFER = 1 << 20  # bytes; the largest ring buffer of the family has 64,000


@dataclass(frozen=True)
class CardSectors:
    """What the sectors before the data say.

    Attributes
    ----------
    settings : dict
        Header sector in the layout's names, raw values.
    config : dict or None
        Config sector in the layout's names; None where the layout has none or the firmware never wrote it.
    keyed : bool
        The four write keys are there.
    words : int
        Length of the buffer headers (words); 0 for whole frames with footers.
    payload : int
        Data bytes of a full buffer; 0 for whole frames.
    build : Build or None
        The firmware build these numbers belong to, where known.
    state : str
        ``"recorded"``, ``"booted"``, ``"prepared"``, ``"notebook"`` (prepared without write keys), ``"headers only"``
        (buffers, but no config sector) or ``"empty"``.
    notes : tuple of str
        What has to be said about the sectors.
    start : int or None
        Sector of the first buffer (of whole frames: of frame 0), where it was found by the buffers themselves and not
        by the layout.
    first_frame : int
        Of whole frames: number of the first one that is left.
    """

    layout: Layout
    settings: Mapping[str, int]
    config: Mapping[str, int] | None
    keyed: bool
    state: str
    words: int = 0
    payload: int = 0
    build: Build | None = None
    notes: tuple[str, ...] = field(default=())
    start: int | None = None
    first_frame: int = 0

    @cached_property
    def framing(self) -> Framing:
        """How its buffers are framed."""
        return Framing(self.layout.of(self.build), self.words, self.payload)


def _sector(source: Readable, number: int) -> bytes:
    return source.read(number * SECTOR, SECTOR)


def _settings(source: Readable, layout: Layout) -> tuple[dict[str, int], bool, bytes]:
    """Settings, whether all write keys are there, and the sector itself."""
    data = _sector(source, layout.sectors.header)
    if len(data) < SECTOR:
        return {}, False, data
    values = parse(header_sector_struct(layout), data)
    keyed = tuple(values[k] for k in KEY_NAMES) == layout.write_keys
    return {name: int(value) for name, value in fields_of(layout.header, values).items()}, keyed, data


def keyed(source: Readable, layout: Layout) -> bool:
    """Whether the header sector has the four write keys."""
    return _settings(source, layout)[1]


def _config(source: Readable, layout: Layout) -> dict[str, int] | None:
    """The config sector where it can be one, else None."""
    if layout.sectors.config is None:
        return None
    data = _sector(source, layout.sectors.config)
    if len(data) < SECTOR:
        return None
    values = parse(config_sector_struct(layout), data)
    config = {name: int(value) for name, value in fields_of(layout.config, values).items()}
    height_ok = layout.height_overwritten or 8 <= config["height"] <= _MAX_SIDE
    plausible = (
        8 <= config["width"] <= _MAX_SIDE
        and height_ok
        and 0 < config["buffer_size"] <= _MAX_BUFFER
        and config["buffer_size"] % SECTOR == 0
        and config["n_buffers_recorded"] < 1 << 28
    )
    return config if plausible else None


def _header_length(source: Readable, layout: Layout) -> int:
    """Words of the buffer header at the start of the data, 0 where there is none."""
    data = _sector(source, layout.sectors.data)
    if len(data) < 4 * layout.min_words:
        return 0
    words = int(np.frombuffer(data, "<u4", 1)[0])
    known = layout.header_words or range(layout.min_words, 65)
    if words not in known or len(data) < 4 * words:
        return 0
    header = np.frombuffer(data, buffer_header_dtype(layout, words), 1)[0]
    # The first place on the card; the buffer there may be one that lapped the ring, so its own count may be any.
    small = int(header["write_buffer_count"]) < 64 and int(header["frame_buffer_count"]) < 64
    return words if small and 0 < int(header["data_length"]) <= _MAX_BUFFER else 0


def _header_length_behind_hole(source: Readable, layout: Layout, buffer_bytes: int) -> int:
    """Words of the first buffer header behind writes that failed at the very start, 0 where there is none."""
    data = source.read(layout.sectors.data * SECTOR, _HOLE * buffer_bytes)
    words = np.frombuffer(data, "<u4", len(data) // SECTOR * SECTOR // 4).reshape(-1, SECTOR // 4)
    for length in layout.header_words or range(layout.min_words, 65):
        names = layout.buffer
        rows = words[words[:, 0] == length]
        good = (
            (rows[:, names["write_buffer_count"].word] > 0)
            & (rows[:, names["write_buffer_count"].word] <= _HOLE)
            & (rows[:, names["frame_buffer_count"].word] < 64)
            & (rows[:, names["data_length"].word] > 0)
            & (rows[:, names["data_length"].word] <= buffer_bytes - 4 * length)
        )
        if good.any():
            return length
    return 0


def _looks_prepared(layout: Layout, settings: Mapping[str, int], sector: bytes) -> bool:
    """Whether a header sector without write keys holds settings all the same (the lab notebook writes no keys)."""
    if not any(settings.values()) or any(sector[256:]):
        return False
    for name, item in layout.header.items():
        top = item.maximum if item.maximum is not None else 1 << 20
        if item.type == "uint32" and settings[name] > max(top, *(item.choices or {0: ""})):
            return False
    return not any(sector[:16])


def _examine_buffers(source: Readable, layout: Layout, holes: bool) -> CardSectors:
    settings, keyed, sector = _settings(source, layout)
    config = _config(source, layout)
    words = _header_length(source, layout)
    if config is not None and not words and holes:
        words = _header_length_behind_hole(source, layout, config["buffer_size"])
    payload = 0
    notes: tuple[str, ...] = ()
    build = _build(source, layout, words, config, settings) if words else None
    if build is not None and config is None and build.stale_config:
        config = {"width": build.width, "height": build.height, "buffer_size": SECTOR * build.buffer_sectors}
        config["n_buffers_recorded"] = 0
    if words and config is not None:
        config, notes = _sized(source, layout, words, config)
        if build is not None and build.config_frame:
            config = {**config, "width": build.width, "height": build.height}
        payload = config["buffer_size"] - 4 * words
        state = "recorded" if payload > 0 else "empty"
    elif words:
        state = "headers only"
    elif config is not None:
        state = "booted"
    elif keyed:
        state = "prepared"
    elif settings and _looks_prepared(layout, settings, sector):
        state = "notebook"
    else:
        state = "empty"
    layout = layout.of(build)
    return CardSectors(layout, _settings(source, layout)[0], config, keyed, state, words, payload, build, notes)


def _build(
    source: Readable, layout: Layout, words: int, config: Mapping[str, int] | None, settings: Mapping[str, int]
) -> Build | None:
    """The firmware build of a recording: one that the first header does not contradict, by its frame size if known."""
    at = layout.sectors.data
    first = np.frombuffer(_sector(source, at)[: 4 * words], "<u4").reshape(1, -1)
    known = [b for b in layout.builds if b.header_words == words]
    if config is not None:
        known = layout.builds_for(words, config["buffer_size"]) or known
    width = None if config is None else config["width"]

    def by_width(builds: Sequence[Build]) -> list[Build]:  # those of this frame size are asked first
        return sorted(builds, key=lambda b: width not in (b.width, *(b.config_frame or ())))

    fit = next((b for b in by_width(known) if fits(layout, b, first, np.array([at]), settings)), None)
    if fit is not None or config is None:
        return fit
    return next(iter(by_width(layout.builds_for(words, config["buffer_size"]))), None)


def _sized(
    source: Readable, layout: Layout, words: int, config: dict[str, int]
) -> tuple[dict[str, int], tuple[str, ...]]:
    """The config sector with a buffer size the first full buffer agrees with; and what had to be said."""
    sizes = {b.buffer_sectors * SECTOR for b in layout.builds if b.header_words == words}
    header = np.frombuffer(_sector(source, layout.sectors.data), buffer_header_dtype(layout, words), 1)[0]
    found = int(header["data_length"]) + 4 * words
    if config["buffer_size"] in sizes or int(header["length"]) != words or found not in sizes:
        return config, ()
    said = f"the config sector says buffers of {config['buffer_size']} bytes, but the first one has {found}"
    return {**config, "buffer_size": found}, (said,)


def _footer(source: Readable, layout: Layout, build: Build, number: int) -> dict[str, Any] | None:
    end = (layout.sectors.data + (number + 1) * build.frame_sectors) * SECTOR
    data = source.read(end - 16, 16)
    return parse(footer_struct(layout), data) if len(data) == 16 else None


def _examine_footers(source: Readable, layout: Layout) -> CardSectors:
    settings, keyed, sector = _settings(source, layout)
    for build in layout.builds:
        first, second = (_footer(source, layout, build, n) for n in (0, 1))
        if first is None or first["frame_num"] != 0:
            continue
        lines = first.get("line_count", build.height)
        sides = (build.height, build.width)
        follows = second is not None and second["frame_num"] == 1 and second["timestamp"] > first["timestamp"]
        if lines in sides and first["timestamp"] > 0 and (follows or keyed):
            return CardSectors(layout, settings, None, keyed, "recorded", build=build)
    state = "prepared" if keyed else "notebook" if settings and _looks_prepared(layout, settings, sector) else "empty"
    return CardSectors(layout, settings, None, keyed, state)


def examine(source: Readable, layout: Layout, holes: bool = True) -> CardSectors:
    """Read what a card says if it has this layout; never raises for a card that does not.

    ``holes=False`` does not look behind writes that failed at the very start.
    """
    card = _examine_buffers(source, layout, holes) if layout.buffer else _examine_footers(source, layout)
    return _made_with(source, card) if card.state in ("recorded", "headers only") else card


def _made_with(source: Readable, card: CardSectors) -> CardSectors:
    """A card with the settings its recording was made with: `set` changes those of the next one, and keeps the old."""
    layout = card.layout
    header = _sector(source, layout.sectors.header)
    was = recorded_with(header, _sector(source, layout.sectors.data))
    if was == header:
        return card
    if was is None:
        note = (
            f"the settings in sector {layout.sectors.header} were changed after this recording, and what kept the old "
            "ones is damaged: what it was made with is not known"
        )
        return replace(card, settings={}, notes=(*card.notes, note))
    settings = fields_of(layout.header, parse(header_sector_struct(layout), was))
    return replace(card, settings={name: int(value) for name, value in settings.items()})


def _blank(cards: list[CardSectors]) -> BlankCardError:
    card = cards[0]
    layout = card.layout
    ids = " or ".join(c.layout.id for c in cards)
    said = {
        "booted": f"a Miniscope was switched on with this card (config sector {layout.sectors.config} is written) "
        "but no recording was started",
        "prepared": f"the card is prepared (write keys in sector {layout.sectors.header}) but nothing was recorded",
        "notebook": f"the card is prepared without write keys, as the lab notebook does (settings in sector "
        f"{layout.sectors.header}), but nothing was recorded on it",
    }[card.state]
    return BlankCardError(f"blank card, layout {ids}: {said}")


def _nothing(source: Readable, layouts: list[Layout]) -> NotACardError:
    first = min(layout.sectors.header for layout in layouts)
    last = max(layout.sectors.data for layout in layouts)
    if source.size <= first * SECTOR:
        what = "it is empty" if not source.size else f"it has only {source.size} bytes"
        return NotACardError(
            f"not a Miniscope card: {what}, and settings would begin at sector {first} (byte {first * SECTOR}); "
            "give the card's device or a whole image of it"
        )
    data = source.read(first * SECTOR, (last + 1 - first) * SECTOR)
    what = "are all zeros" if not any(data) else "hold neither settings nor a recording of a known firmware"
    return NotACardError(
        f"not a Miniscope card: sectors {first} to {last} {what}; "
        "check that this is the card, or pass layout= with the sectors of your firmware"
    )


def _refuse_unreadable(card: CardSectors) -> None:
    """Refuse recordings that are recognised but cannot be read."""
    layout = card.layout
    if card.state != "headers only":
        return
    if card.words == 9 and not layout.height_overwritten:
        raise UnsupportedCardError(
            f"a v4 recording with 9-word headers and no config sector ({layout.sectors.config} is not one): firmware "
            "08d3fd2 wrote these headers over the pixels, so its frames cannot be restored; update the firmware"
        )
    raise BlankCardError(
        f"config sector {layout.sectors.config} holds no recording, but an older one begins in sector "
        f"{layout.sectors.data}: the card was prepared since and not recorded on. To read what is left of the older "
        f"recording all the same, pass layout={layout.id!r}"
    )


def _by_build(source: ByteSource, card: CardSectors, build: Build, start: int | None, note: str) -> CardSectors:
    """A recording read by the numbers of its firmware build; what the card does not say is absent."""
    layout = card.layout
    size = build.buffer_sectors * SECTOR
    config = card.config or {"width": build.width, "height": build.height, "buffer_size": size, "n_buffers_recorded": 0}
    known = card.keyed or _looks_prepared(layout, card.settings, _sector(source, layout.sectors.header))
    return replace(
        card, settings=card.settings if known else {}, config=config, state="recorded", words=build.header_words,
        payload=config["buffer_size"] - 4 * build.header_words, build=build, notes=(note,), start=start,
    )  # fmt: skip


def _without_config(source: ByteSource, card: CardSectors) -> CardSectors | None:
    """A recording whose config sector is gone."""
    layout = card.layout
    build = next((b for b in layout.builds if b.header_words == card.words), None)
    if build is None or (card.words == 9 and not layout.height_overwritten):
        return None
    note = (
        f"config sector {layout.sectors.config} is not one; frame size {build.width}x{build.height} is that of "
        f"firmware {build.firmware}"
    )
    return _by_build(source, card, build, None, note)


def _by_buffers(source: ByteSource, layouts: Sequence[Layout]) -> CardSectors | None:
    """A recording found by its buffers, whatever became of the sectors before it."""
    found = locate(source, layouts)
    if found is not None and found.header is None:
        return _by_frames(source, found)
    if found is None or found.header is None or (found.build.header_words == 9 and not found.layout.height_overwritten):
        return None
    layout, data = found.layout, found.layout.sectors.data
    shift = found.sector - data
    header, config = layout.sectors.header + shift, (layout.sectors.config or 0) + shift
    moved = replace(layout, sectors=replace(layout.sectors, header=header, config=config, data=found.sector))
    whole = found.header.written == found.header.count == 0
    if shift and whole and header >= 0 and keyed(source, moved):  # only bytes before the card's are gone
        return replace(examine(source, moved), notes=(f"this image begins at sector {-shift} of its card",))
    card = examine(source, layout)
    gone = f", and its first {found.header.written} buffers are gone" if found.header.written else ""
    if card.config is not None:
        said = f"the recording was found by its buffers, from sector {found.sector} on{gone}"
    else:
        said = (
            f"the sectors before the recording are not of a Miniscope card: it was found by its buffers, from sector "
            f"{found.sector} on{gone}; they show firmware {found.build.firmware}, what was set is unknown"
        )
    return _by_build(source, card, found.build, found.sector, said)


def _by_frames(source: ByteSource, found: Located) -> CardSectors:
    """A recording of whole frames, found by their footers."""
    layout = found.layout
    shift = found.sector - layout.sectors.data
    settings, is_keyed, sector = _settings(source, layout)
    gone = f", and its first {found.frame} frames are gone" if found.frame else ""
    if shift and layout.sectors.header + shift >= 0:
        moved = replace(layout, sectors=replace(layout.sectors, header=layout.sectors.header + shift))
        settings, is_keyed, sector = _settings(source, moved)
    known = is_keyed or _looks_prepared(layout, settings, sector)
    said = f"this image begins at sector {-shift} of its card" if shift < 0 else "the recording was found by its frames"
    note = f"{said}{gone}" + ("" if known else "; what was set is unknown")
    return CardSectors(
        layout, settings if known else {}, None, is_keyed, "recorded", build=found.build, notes=(note,),
        start=found.sector, first_frame=found.frame,
    )  # fmt: skip


def detect(
    source: ByteSource, layout: str | os.PathLike[str] | Mapping[str, Any] | Layout | None = None
) -> CardSectors:
    """Find the layout of a card and read its header and config sectors.

    Parameters
    ----------
    source : ByteSource
    layout
        An id, path, mapping or Layout to read the card with; None to detect it.

    Raises
    ------
    BlankCardError
        A card of ours with nothing recorded.
    NotACardError
        Nothing of ours, or not this layout.
    AmbiguousLayoutError
        More than one layout fits.
    UnsupportedCardError
        A recording that cannot be read faithfully.
    """
    chosen = None if layout is None else load_layout(layout)
    front = _Front(source)
    cards = [examine(front, chosen)] if chosen else _told_apart(front, _examine_all(front))
    found = [card for card in cards if card.state == "recorded"]
    found = preferred(found or [card for c in cards if (card := _restored(source, c, chosen is not None)) is not None])
    if len(found) > 1:
        ids = " or ".join(f"layout={card.layout.id!r}" for card in found)
        raise AmbiguousLayoutError(f"more than one layout fits this card; pass {ids}")
    if found:
        return found[0]
    for card in preferred([card for card in cards if card.state == "headers only"]):
        _refuse_unreadable(card)
    counted = any(card.config and card.config["n_buffers_recorded"] for card in cards)
    blank = next((same for s in _BLANK if (same := preferred([card for card in cards if card.state == s]))), None)
    if blank is None or counted:
        restored = _by_buffers(source, [card.layout for card in cards])
        if restored is not None:
            return restored
    if chosen is not None:
        others = [c for c in _examine_all(source) if c.state == "recorded" and c.layout.id != chosen.id]
        if others:
            raise NotACardError(
                f"layout {chosen.id!r} does not fit: no recording begins in sector {chosen.sectors.data}; "
                f"the card looks like layout {others[0].layout.id!r} (leave layout= out to detect it)"
            )
    if chosen is None:
        undescribed = _guessed(source)
        if undescribed is not None:
            return undescribed
    if blank:
        raise _blank(blank)
    raise _nothing(source, [card.layout for card in cards])


def _guessed(source: ByteSource) -> CardSectors | None:
    """A card that no layout fits, read by what its headers show."""
    found = guess(source)
    if found is None:
        return None
    card = examine(source, found.layout)
    if card.state != "recorded":
        restored = _without_config(source, card) if card.state == "headers only" else None
        if restored is None:
            return None
        card = replace(restored, notes=())
    return replace(card, notes=(found.said, *card.notes))


def _restored(source: ByteSource, card: CardSectors, asked: bool) -> CardSectors | None:
    """A recording whose config sector is gone: not one that was zeroed when the card was prepared, unless asked for."""
    if card.state != "headers only":
        return None
    data, bad = source.salvage((card.layout.sectors.config or 0) * SECTOR, SECTOR)
    return _without_config(source, card) if asked or bad or any(data) else None


def prepared(
    source: ByteSource, layout: str | os.PathLike[str] | Mapping[str, Any] | Layout | None
) -> list[CardSectors]:
    """What a card without a recording says, by every layout it can have been prepared for."""
    cards = [examine(source, load_layout(layout))] if layout is not None else _examine_all(source)
    return preferred([card for card in cards if card.state in ("booted", "prepared", "notebook")])


class _Front(Through):
    """A card whose sectors are read once, however many layouts look at them."""

    def __init__(self, source: ByteSource) -> None:
        super().__init__(source)
        self._known: dict[tuple[int, int], bytes] = {}

    def read(self, offset: int, length: int) -> bytes:
        if (offset, length) not in self._known:
            self._known[offset, length] = self.source.read(offset, length)
        return self._known[offset, length]


class _Seen(Protocol):
    """What was read with a layout."""

    @property
    def layout(self) -> Layout: ...

    @property
    def state(self) -> str: ...


T = TypeVar("T", bound=_Seen)


def preferred(found: list[T]) -> list[T]:
    """Of what was read with several layouts that fit alike: only that of the layouts that are meant then."""
    least = min((each.layout.rank for each in found), default=0)
    return [each for each in found if each.layout.rank == least]


def _told_apart(source: Readable, cards: list[CardSectors]) -> list[CardSectors]:
    """Cards without those whose layout the first buffer header contradicts, where another layout fits."""
    with_headers = [card for card in cards if card.words and card.state in ("recorded", "headers only")]
    if len(with_headers) < 2:
        return cards

    def can_be(card: CardSectors) -> bool:
        at = card.layout.sectors.data
        data = _sector(source, at)
        words = np.frombuffer(data[: 4 * card.words], "<u4").reshape(1, -1)
        builds = [b for b in card.layout.builds if b.header_words == card.words]
        builds.sort(key=lambda b: b is not card.build)  # which fitted when it was looked for
        where = np.array([at])
        return any(fits(card.layout, build, words, where, card.settings) for build in builds)

    fit = [card for card in with_headers if can_be(card)]
    return [card for card in cards if not fit or card not in with_headers or card in fit]


def _examine_all(source: Readable) -> list[CardSectors]:
    layouts = builtin_layouts().values()
    cards = [examine(source, layout, holes=False) for layout in layouts]
    if any(card.state in ("recorded", "headers only") for card in cards):
        return cards
    return [examine(source, layout) for layout in layouts]
