"""Which of the layouts a card has: that one, or why there is none."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, Protocol, TypeVar

from miniscope_xr.errors import AmbiguousLayoutError, BlankCardError, NotACardError, UnsupportedCardError
from miniscope_xr.index.begun import begun, judge
from miniscope_xr.index.front import Card, Front, State, with_settings
from miniscope_xr.index.lost_front import by_buffers, guessed, shown_behind, unsupported, without_config
from miniscope_xr.layout import SECTOR, Layout, builtin_layouts, load_layout
from miniscope_xr.source.base import ByteSource, Readable


def detect(source: ByteSource, layout: str | os.PathLike[str] | Mapping[str, Any] | Layout | None = None) -> Card:
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
    front = Front(source)
    # most cards hold a recording, which is seen at once; what a blank one was prepared for takes longer to say
    seen = _seen(front, [chosen] if chosen else list(builtin_layouts().values()), holes=chosen is not None)
    recorded = [card for card in _told_apart(front, seen) if card.state is State.RECORDED]
    if recorded:
        return _the_one([with_settings(front, card) for card in preferred(recorded)])
    looked = [judge(front, chosen)] if chosen else _look_all(front)
    cards = looked if chosen else _told_apart(front, looked)
    found = _recorded(front, cards, chosen is not None)
    if found is not None:
        return found
    if unreadable := preferred([card for card in cards if card.state is State.HEADERS_ONLY]):
        begun_by_any = [replace(card, state=State.HEADERS_ONLY) for card in looked if card.layout.buffer]
        shown = shown_behind(front, begun_by_any)  # a bit flipped in the first header
        if shown is None:
            raise _unreadable(unreadable[0])
        return with_settings(front, shown)
    blank = _blank_ones(cards)
    counts = any(card.config and card.config["n_buffers_recorded"] for card in cards)
    if not blank or counts or not all(_begins_blank(front, card.layout) for card in blank):
        found = by_buffers(front, [card.layout for card in cards])
    if found is None and chosen is None:
        found = guessed(front, [card.layout for card in cards])
    if found is not None:
        return found
    if chosen is not None:
        _refuse_another(front, chosen)
    if blank and counts:
        raise _counted(source, next(card for card in cards if card.config and card.config["n_buffers_recorded"]))
    raise _blank(blank) if blank else _nothing(source, [card.layout for card in cards])


def shown_otherwise(
    source: ByteSource, layout: str | os.PathLike[str] | Mapping[str, Any] | Layout | None, card: Card
) -> Card | None:
    """The card as the buffers behind the first show it, where they are of another build; None if not.

    Of use where nothing follows the first buffer as its header has it: one flipped bit makes another firmware's of it,
    and some first headers are those of several.
    """
    front = Front(source)
    cards = [judge(front, load_layout(layout))] if layout is not None else _look_all(front)
    shown = shown_behind(front, [each for each in cards if each.layout.buffer])
    return None if shown is None or shown.build == card.build else with_settings(front, shown)


def prepared(source: ByteSource, layout: str | os.PathLike[str] | Mapping[str, Any] | Layout | None) -> list[Card]:
    """What a card without a recording says, by every layout it can have been prepared for."""
    front = Front(source)
    cards = [judge(front, load_layout(layout))] if layout is not None else _look_all(front)
    return [with_settings(front, card) for card in preferred([card for card in cards if card.state.blank])]


class _ReadWith(Protocol):
    """What was read with a layout."""

    @property
    def layout(self) -> Layout: ...


T = TypeVar("T", bound=_ReadWith)


def preferred(found: Sequence[T]) -> list[T]:
    """Of what was read with several layouts that fit alike: only that of the layouts that are meant then."""
    least = min((each.layout.rank for each in found), default=0)
    return [each for each in found if each.layout.rank == least]


def _seen(front: Front, layouts: list[Layout], holes: bool) -> list[Card]:
    """What the layouts see that see a recording; those are not asked that are not meant where one before them fits."""
    seen: list[Card] = []
    for _, alike in groupby(layouts, key=lambda layout: layout.rank):
        seen += [card for layout in alike if (card := begun(front, layout, holes))]
        if any(card.fits and card.state is State.RECORDED for card in seen):
            break
    return seen


def _look_all(front: Front) -> list[Card]:
    layouts = builtin_layouts().values()
    cards = [judge(front, layout, holes=False) for layout in layouts]
    return cards if any(card.state.begun for card in cards) else [judge(front, layout) for layout in layouts]


def _told_apart(front: Front, cards: list[Card]) -> list[Card]:
    """Cards without those whose layout the first buffer header contradicts, where another layout fits."""
    with_headers = [card for card in cards if card.words and card.state.begun]
    if len(with_headers) < 2:
        return cards

    families = builtin_layouts()

    def can_be(card: Card) -> bool:
        family = families[card.layout.id]
        builds = (build for build in family.builds if build.header_words == card.words)
        return card.fits or any(front.fits(family, build) for build in builds)

    cannot = {card.layout.id for card in with_headers if not can_be(card)}
    if len(cannot) < len(with_headers):
        return [card for card in cards if card.layout.id not in cannot]
    shown = shown_behind(front, with_headers)  # a bit flipped in the first header
    return cards if shown is None else [shown]


def _recorded(front: Front, cards: list[Card], asked: bool) -> Card | None:
    """The recording that one layout sees, even if its config sector is gone; None where none does."""
    found = [with_settings(front, card) for card in preferred([c for c in cards if c.state is State.RECORDED])]
    if not found:
        found = preferred([card for c in cards if (card := without_config(front, c, asked)) is not None])
    return _the_one(found) if found else None


def _the_one(found: list[Card]) -> Card:
    """The only one of what was read with several layouts."""
    if len(found) > 1:
        ids = " or ".join(f"layout={card.layout.id!r}" for card in found)
        raise AmbiguousLayoutError(f"more than one layout fits this card; pass {ids}")
    return found[0]


def _blank_ones(cards: list[Card]) -> list[Card]:
    """The cards of the surest of the states in which nothing is recorded, of the layouts that are meant then."""
    best = max((card.state.weight for card in cards if card.state.blank), default=0)
    return preferred([card for card in cards if card.state.blank and card.state.weight == best])


def _begins_blank(front: Front, layout: Layout) -> bool:
    """Whether nothing stands where a recording begins; else what followed was written over it: look for that."""
    return len(set(front.read(layout.sectors.data))) <= 1


# -- why there is none ------------------------------------------------------------------------------------


def _blank(cards: list[Card]) -> BlankCardError:
    card = cards[0]
    layout = card.layout
    ids = " or ".join(c.layout.id for c in cards)
    said = {
        State.BOOTED: f"a Miniscope was switched on with this card (config sector {layout.sectors.config} is written) "
        "but no recording was started",
        State.PREPARED: f"the card is prepared (write keys in sector {layout.sectors.header}) but nothing was recorded",
        State.NOTEBOOK: f"the card is prepared without write keys, as the lab notebook does (settings in sector "
        f"{layout.sectors.header}), but nothing was recorded on it",
    }[card.state]
    return BlankCardError(f"blank card, layout {ids}: {said}")


def _counted(source: Readable, card: Card) -> BlankCardError:
    """Why nothing is found on a card that counts buffers."""
    counted, data = (card.config or {})["n_buffers_recorded"], card.layout.sectors.data
    why = "they were wiped, or something else was written over them"
    if source.size < (data + 1) * SECTOR:
        why = f"the image ends at byte {source.size:,}, before the first of them; copy the card again"
    return BlankCardError(
        f"layout {card.layout.id}: the card's config sector {card.layout.sectors.config} counts {counted:,} buffers, "
        f"but none was found: {why}"
    )


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


def _unreadable(card: Card) -> BlankCardError | UnsupportedCardError:
    """Why a recording that is recognised cannot be read."""
    layout = card.layout
    if why := unsupported(layout, card.words):
        return UnsupportedCardError(f"a {layout.id} recording with headers of {card.words} words: {why}")
    return BlankCardError(
        f"config sector {layout.sectors.config} holds no recording, but an older one begins in sector "
        f"{layout.sectors.data}: the card was prepared since and not recorded on, or that sector was erased. To read "
        f"what is left of the recording all the same, pass layout={layout.id!r}"
    )


def _refuse_another(front: Front, chosen: Layout) -> None:
    """Say so where the card has another layout than the one it was to be read with."""
    others = [c for c in _look_all(front) if c.state is State.RECORDED and c.layout.id != chosen.id]
    if others:
        raise NotACardError(
            f"layout {chosen.id!r} does not fit: no recording begins in sector {chosen.sectors.data}; "
            f"the card looks like layout {others[0].layout.id!r} (leave layout= out to detect it)"
        )
