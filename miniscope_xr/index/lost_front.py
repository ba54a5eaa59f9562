"""A recording whose front is gone: its config sector, or everything before its buffers, or nothing known describes it.

A user meets this where a card was formatted or prepared after recording, where an image begins too late, and with a
firmware nobody described. The buffers themselves then say what the sectors before them would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from miniscope_xr.index.begun import examine
from miniscope_xr.index.front import Card, Front, State, looks_prepared, with_settings
from miniscope_xr.index.guess import guess
from miniscope_xr.index.locate import Located, locate
from miniscope_xr.index.wrapped import before_the_wrap
from miniscope_xr.layout import SECTOR, Build, Layout
from miniscope_xr.layout.words import has_keys, settings_of


def without_config(front: Front, card: Card, asked: bool) -> Card | None:
    """A recording whose config sector is damaged.

    Not one whose config sector is zero, unless its layout was asked for: `prepare` writes that zero, and settings.
    Where there are none either, the front was overwritten.
    """
    if card.state is not State.HEADERS_ONLY:
        return None
    data, bad = front.source.salvage((card.layout.sectors.config or 0) * SECTOR, SECTOR)
    gone = bad or any(data) or not any(front.read(card.layout.sectors.header))
    return _by_its_first_build(front, with_settings(front, card)) if asked or gone else None


def by_buffers(front: Front, layouts: Sequence[Layout]) -> Card | None:
    """A recording found by its buffers, whatever became of the sectors before it."""
    found = locate(front.source, layouts)
    if found is None:
        return None
    found = before_the_wrap(front.source, found)
    if found.header is None:
        return _by_frames(front, found)
    if unsupported(found.layout, found.build.header_words):
        return None
    layout, at = found.layout, found.layout.sectors
    shift = found.sector - at.data
    if shift and found.header.written == found.header.count == 0 and at.header + shift >= 0:
        moved = _moved(layout, shift)
        if has_keys(moved, front.read(moved.sectors.header)):  # only bytes before the card's are gone
            said = f"this image begins at sector {-shift} of its card"
            card = examine(front, moved)
            if card.state is not State.RECORDED:  # its config sector is not one
                card = _by_build(front, card, found.build, None, said)
            return replace(card, notes=(said,))
    card = examine(front, layout)
    gone = f", and its first {found.header.written} buffers are gone" if found.header.written else ""
    if card.config is not None:
        said = f"the recording was found by its buffers, from sector {found.sector} on{gone}"
    elif _has_settings(front, card):
        said = (
            f"the recording was found by its buffers, from sector {found.sector} on{gone}; the card may have been "
            "prepared since, and the settings be those of the next one"
        )
    else:
        said = (
            f"the sectors before the recording are not of a Miniscope card: it was found by its buffers, from sector "
            f"{found.sector} on{gone}; its settings are gone too (its buffers are of firmware {found.build.firmware})"
        )
    own = [at.config] * (card.config is not None) + [at.header] * _has_settings(front, card)
    wrapped = tuple(sector + found.wraps for sector in own if sector is not None)  # behind the front: no pixels
    return replace(_by_build(front, card, found.build, found.sector, said), own=wrapped)


def shown_behind(front: Front, cards: Sequence[Card]) -> Card | None:
    """The card of the layout that the buffers at its start show, where no layout has the very first header.

    A firmware that writes its config sector only at a stop leaves that zero: the buffers are a recording all the same.
    """
    found = locate(front.source, [card.layout for card in cards])
    if found is None or found.header is None:
        return None
    build, layout = found.build, found.layout
    if not 0 <= found.sector - layout.sectors.data <= build.failed_writes * build.buffer_sectors:
        return None
    card = next(card for card in cards if card.layout.id == layout.id)
    unlike = card.config is not None and card.words != build.header_words  # the first header says another length
    if unlike or (card.state is State.HEADERS_ONLY and build.stale_config):
        card = _by_build(front, replace(card, layout=card.layout.of(build)), build, None, "")
    return replace(card, build=build, notes=()) if card.state is State.RECORDED else None


def guessed(front: Front, layouts: Sequence[Layout]) -> Card | None:
    """A card that no layout fits, read by what its headers show; by one of the layouts where those show it."""
    found = guess(front.source)
    if found is None:
        return None
    known = by_buffers(front, layouts)
    if known is not None:
        return known
    card = examine(front, found.layout)
    if card.state is State.HEADERS_ONLY:
        restored = _by_its_first_build(front, card)
        card = replace(restored, notes=()) if restored else card
    return replace(card, notes=(found.said, *card.notes)) if card.state is State.RECORDED else None


def unsupported(layout: Layout, words: int) -> str:
    """Why recordings with headers of so many words cannot be read; empty where they can."""
    return next((build.unsupported for build in layout.builds if build.header_words == words), "")


def _moved(layout: Layout, shift: int) -> Layout:
    """The layout of a card whose sectors all lie elsewhere, as in an image that begins too late."""
    at = layout.sectors
    config = None if at.config is None else at.config + shift
    return replace(layout, sectors=replace(at, header=at.header + shift, config=config, data=at.data + shift))


def _by_its_first_build(front: Front, card: Card) -> Card | None:
    layout = card.layout
    build = next((b for b in layout.builds if b.header_words == card.words), None)
    if build is None or unsupported(layout, card.words):
        return None
    shown = locate(front.source, [layout])
    if shown is not None and shown.sector == layout.sectors.data and shown.build.header_words == card.words:
        build = shown.build
    note = f"config sector {layout.sectors.config} is not one; the buffers are those of firmware {build.firmware}"
    return _by_build(front, card, build, None, note)


def _by_build(front: Front, card: Card, build: Build, start: int | None, note: str) -> Card:
    """A recording read by the numbers of its firmware build; what the card does not say is absent."""
    size = build.buffer_sectors * SECTOR
    config = card.config or {"width": build.width, "height": build.height, "buffer_size": size, "n_buffers_recorded": 0}
    known = _has_settings(front, card)
    gone = start is not None or (card.config is None and _written(front, card.layout.sectors.config))
    return replace(
        card, settings=card.settings if known else {}, config=config, counts_gone=gone, state=State.RECORDED,
        words=build.header_words, payload=config["buffer_size"] - 4 * build.header_words, build=build,
        notes=(note,), start=start,
    )  # fmt: skip


def _written(front: Front, sector: int | None) -> bool:
    """Whether a sector holds anything, or cannot be read."""
    data, bad = front.source.salvage((sector or 0) * SECTOR, SECTOR)
    return any(data) or bool(bad)


def _has_settings(front: Front, card: Card) -> bool:
    """Whether what stands in the header sector are settings."""
    return card.keyed or looks_prepared(card.layout, front.read(card.layout.sectors.header))


def _by_frames(front: Front, found: Located) -> Card:
    """A recording of whole frames, found by their footers."""
    layout = found.layout
    shift = found.sector - layout.sectors.data
    behind = layout if layout.sectors.header + shift < 0 else _moved(layout, shift)
    header = front.read(behind.sectors.header)
    with_frames = behind is not layout and (has_keys(layout, header) or looks_prepared(layout, header))
    apart = shift != 0 and not with_frames
    header = front.read(layout.sectors.header) if apart else header
    keyed = has_keys(layout, header)
    known = keyed or looks_prepared(layout, header)
    said = f"this image begins at sector {-shift} of its card" if shift < 0 else "the recording was found by its frames"
    begins = found.sector + found.frame * found.build.frame_sectors
    # what shifts the frames lies behind settings that do not stand with them, perhaps within the first one found
    hit = begins < 0 or (begins > 0 and apart and (known or len(set(front.read(begins))) == 1))
    # so does an erased stretch over the footer in front of it that goes on behind that
    hit = hit or (found.frame > 0 and begins > 0 and len(set(front.read(begins - 1, 2 * SECTOR))) == 1)
    first = found.frame + 1 if hit else found.frame
    gone = f", and its first {first} frames are gone" if first else ""
    note = f"{said}{gone}" + ("" if known else "; its settings are gone too")
    settings = settings_of(layout, header) if known else {}
    return Card(
        layout, settings, None, keyed, State.RECORDED, build=found.build, notes=(note,), start=found.sector,
        first_frame=first,
    )  # fmt: skip
