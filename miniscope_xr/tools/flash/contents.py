"""What is on a card: which layout, which settings, who prepared it. Reads three sectors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from miniscope_xr.errors import AmbiguousLayoutError, MiniscopeError
from miniscope_xr.index.begun import examine
from miniscope_xr.index.detect import detect, preferred
from miniscope_xr.index.front import Front, State
from miniscope_xr.layout import SECTOR, Layout, builtin_layouts, load_layout
from miniscope_xr.layout.stamp import Stamp, read_stamp
from miniscope_xr.layout.words import has_keys, settings_of
from miniscope_xr.source.base import Readable, Spans, pour
from miniscope_xr.tools.flash.errors import RefusedError
from miniscope_xr.tools.flash.plan import possible_builds


class WholeSectors:
    """A card that is read in whole sectors, as the reader's detection wants to read it: any bytes."""

    path, changed = "", False
    unread: Spans = []  # noqa: RUF012 (nobody adds to it)

    def __init__(self, card: Readable) -> None:
        self._card, self.size = card, card.size

    def read(self, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes; fewer only at the end."""
        stop = min(offset + length, self.size)
        first = offset // SECTOR * SECTOR
        if stop <= offset:
            return b""
        return self._card.read(first, -(-stop // SECTOR) * SECTOR - first)[offset - first : stop - first]

    def readv(self, offset: int, buffers: Sequence[Any]) -> int:
        """Fill writable buffers one after another."""
        return pour(self.read(offset, sum(len(buffer) for buffer in buffers)), buffers)

    def gather(self, offsets: Sequence[int], length: int) -> bytes | None:
        """Have it done one by one."""
        return None

    def at_hand(self, offset: int) -> bool:
        """Leave it unknown."""
        return False

    def salvage(self, offset: int, length: int) -> tuple[bytes, Spans]:
        """Read sector by sector; what cannot be read is zero."""
        pieces, bad = [], []
        for at in range(offset, min(offset + length, self.size), SECTOR):
            try:
                pieces.append(self.read(at, min(SECTOR, offset + length - at)))
            except OSError:
                pieces.append(bytes(min(SECTOR, offset + length - at)))
                bad.append((at, len(pieces[-1])))
        return b"".join(pieces), bad

    def close(self) -> None:
        """Leave the card to whoever opened it."""


@dataclass(frozen=True)
class Contents:
    """The settings and config sector of a card, read with one layout."""

    layout: Layout
    header: bytes
    config: bytes
    first: bytes
    settings: Mapping[str, int]
    counts: Mapping[str, int]
    keys: bool
    stamp: Stamp | None
    state: State

    @property
    def recording(self) -> str:
        """Id of the recording, from its first sector and counts."""
        return hashlib.sha256(self.config + self.first).hexdigest()[:8]

    @property
    def origin(self) -> str:
        """Who prepared the card."""
        if self.stamp:
            return "prepared by this tool" if self.stamp.intact else "prepared by this tool, settings torn or changed"
        if self.keys:
            return "prepared with write keys, by another program"
        if self.prepared:
            return "prepared without write keys, as the lab notebook does"
        return "settings sector holds something unknown" if any(self.header) else "not prepared"

    @property
    def own(self) -> bool:
        """False if the stamp says that the settings sector is another layout's, whose settings mean something else."""
        other = None if self.stamp is None else builtin_layouts().get(self.stamp.layout)
        return other is None or other.sectors == self.layout.sectors

    @property
    def prepared(self) -> bool:
        """True if the settings sector holds settings."""
        return self.stamp is not None or self.keys or (self.state is not State.EMPTY and any(self.header[:64]))


def _sector(card: Readable, sector: int | None) -> bytes:
    return bytes(SECTOR) if sector is None else card.read(sector * SECTOR, SECTOR)


def read_contents(card: Readable, layout: Layout) -> Contents:
    """Read the card's settings with this layout; ``counts`` is empty where the config sector cannot be one.

    Raises
    ------
    RefusedError
        The card is too small to hold a recording of this layout.
    """
    sectors = layout.sectors
    if card.size < (sectors.data + 1) * SECTOR:
        raise RefusedError(
            f"{card.size} bytes are too small for {layout.id}, whose data starts at sector {sectors.data}"
        )
    header, config = _sector(card, sectors.header), _sector(card, sectors.config)
    found = examine(Front(WholeSectors(card)), layout)
    counts = dict(found.config or {})
    builds = [found.build] if found.build else possible_builds(layout, counts)
    if len(builds) == 1:  # the card tells whose words these are
        layout = layout.of(builds[0])
    return Contents(
        layout, header, config, _sector(card, sectors.data), settings_of(layout, header), counts,
        has_keys(layout, header), read_stamp(header), found.state,
    )  # fmt: skip


def _evidence(found: Contents) -> int:
    """Rate how strongly the card speaks for this layout: 0 is not at all."""
    if found.stamp and found.stamp.layout == found.layout.id:
        return len(State)
    return found.state.weight


def _as_read(card: Readable, fitting: list[Contents]) -> list[Contents]:
    """Return what was read with the layout with which the reader reads this card; empty if it reads none."""
    try:
        meant = detect(WholeSectors(card)).layout.id
    except MiniscopeError:
        return []
    return [contents for contents in fitting if contents.layout.id == meant]


def inspect_card(card: Readable, layout: str | Layout | None = None) -> Contents:
    """Find out which layout a card has, and read its settings.

    Parameters
    ----------
    card
        An open card.
    layout
        Id, path or Layout if the user named one (``--layout``); None to look for evidence on the card.

    Raises
    ------
    AmbiguousLayoutError
        The card does not say which layout it is; one layout's header sector is another's config sector.
    """
    if layout is not None:
        return read_contents(card, load_layout(layout))
    known = builtin_layouts()
    least = min((each.sectors.data + 1) * SECTOR for each in known.values())
    if card.size < least:
        raise RefusedError(f"{card.size} bytes are too small for a card of a Miniscope; it needs at least {least}")
    found = []
    for candidate in known.values():
        if card.size >= (candidate.sectors.data + 1) * SECTOR:
            contents = read_contents(card, candidate)
            found.append((_evidence(contents), contents))
    best = max(score for score, _ in found)
    alike = [contents for score, contents in found if score == best]
    fitting = preferred(alike)
    # layouts that share sectors are told apart by the buffers, and found by them where the front is gone
    read = _as_read(card, alike) if fitting[0].state.begun or best == 0 else []
    fitting = read or fitting
    if not (best or read) or len(fitting) > 1:
        why = "nothing on the card says" if best == 0 else "the card does not tell for certain"
        raise AmbiguousLayoutError(
            f"{why} which Miniscope it is for; name it: --layout {' or --layout '.join(c.layout.id for c in fitting)}"
        )
    return fitting[0]
