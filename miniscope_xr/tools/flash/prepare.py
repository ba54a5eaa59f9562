"""The writing commands: what each changes, and in which order."""

from __future__ import annotations

import os
import time

from miniscope_xr.layout import SECTOR, Layout, builtin_layouts
from miniscope_xr.layout.stamp import has_room, recorded_with
from miniscope_xr.tools.flash import sector
from miniscope_xr.tools.flash.contents import Contents
from miniscope_xr.tools.flash.disks.own_id import id_to_leave
from miniscope_xr.tools.flash.errors import RefusedError
from miniscope_xr.tools.flash.jobs import CardJob
from miniscope_xr.tools.flash.look import Look
from miniscope_xr.tools.flash.operation import Change
from miniscope_xr.tools.flash.plan import Plan
from miniscope_xr.tools.flash.sector import Kept
from miniscope_xr.tools.flash.settings import Settings
from miniscope_xr.tools.flash.signatures import at_start


def config_change(seen: Look) -> list[Change]:
    """Zero the counts of a layout that has them."""
    place = seen.layout.sectors.config
    return [] if place is None else [Change("counts", place * SECTOR, SECTOR)]


def _other_settings(seen: Look) -> list[Change]:
    """Zero the settings that another layout keeps where this one has nothing: a card is for one Miniscope at a time."""
    own = seen.layout.sectors
    places = {known.sectors.header for known in builtin_layouts().values()} - {own.header, own.config}
    changes = []
    for place in sorted(place for place in places if place < own.data):
        at = place * SECTOR - seen.block_offset
        old = seen.block[at : at + SECTOR] if 0 <= at < len(seen.block) else b""
        if any(old) and (sector.read_stamp(old) or any(sector.has_keys(known, old) for known in _at(place))):
            changes.append(Change("settings of another layout", place * SECTOR, SECTOR))
    return changes


def _at(place: int) -> list[Layout]:
    return [known for known in builtin_layouts().values() if known.sectors.header == place]


def _kept(seen: Look, first: bytes, *, may_lose: bool) -> Kept | None:
    """Return the settings a recording that stays was made with; ``first`` is its first data sector afterwards.

    Raises
    ------
    RefusedError
        They would be lost, and the recording was not given up.
    """
    if not seen.has_recording or seen.foreign:
        return None
    was = recorded_with(seen.contents.header, seen.contents.first)
    if was is not None and has_room(seen.contents.header, True):
        return Kept(was, first)
    if may_lose:
        return None
    why = "those it was made with can no longer be told: the stamp beside the settings is damaged"
    if was is not None:
        why = "there is no room beside the settings for those it was made with"
    raise RefusedError(
        f"{seen.disk.path} holds a {seen.lost()}. Its settings would be lost, since {why}. Copy it first with `image`; "
        f"to give them up: --discard-recording {seen.recorded.recording}",
        recording=seen.recorded.recording,
    )


def _header_change(seen: Look, settings: Settings, session: bytes | None, kept: Kept | None) -> Change:
    old = seen.contents.header if own_header(seen) else bytes(SECTOR)
    card = id_to_leave(seen.disk.cid, seen.disk.own_id, seen.disk.own_id_unique)
    data = sector.build(seen.layout, settings.values, old, session, int(time.time()), kept, card)
    return Change("settings", seen.layout.sectors.header * SECTOR, SECTOR, data)


def own_header(seen: Look) -> bool:
    """Tell whether the settings sector is this layout's own, and not another's settings or counts."""
    return not seen.foreign and seen.contents.own


def current_settings(seen: Look) -> dict[str, int] | None:
    """Return the raw settings on the card; None if it was never prepared for this layout."""
    card: Contents = seen.contents
    return dict(card.settings) if card.prepared and own_header(seen) else None


def new_session() -> bytes:
    """Make a fresh session id."""
    return os.urandom(16)


def prepare(seen: Look, settings: Settings, plan: Plan, *, keep: bool = False, stamp: bool = True) -> CardJob:
    """Zero the counts, clear what could be mistaken for the new recording, write the settings last.

    ``keep`` clears no more than the first data sector: firmware that never writes counts would else leave the old
    recording standing as if it were the new one. The settings an old recording that is kept was made with are lost
    where there is no room for them.
    """
    session = new_session() if stamp else None
    if keep:
        cleared = Change("first data", seen.data_start, SECTOR)
    else:
        cleared = Change("data", seen.data_start, max(seen.data_end, plan.end) // SECTOR * SECTOR - seen.data_start)
    kept = _kept(seen, bytes(SECTOR), may_lose=True) if keep and stamp else None
    header = _header_change(seen, settings, session, kept)
    changes = [*config_change(seen), *_other_settings(seen), cleared, header]
    about = {"keep": keep, "settings": dict(settings.values)}
    return CardJob("prepare", seen, changes, session, about=about)


def region_to_prove(seen: Look, plan: Plan) -> tuple[int, int] | None:
    """Return the region of the plan; None for an image, and where it is too small to be worth it.

    The first data sector is left out, so that `resume` can tell a card that was recorded on since.
    """
    start, end = plan.start + SECTOR, plan.end // SECTOR * SECTOR
    return None if seen.disk.kind == "image" or end - start < 64 << 10 else (start, end)


def change_settings(seen: Look, settings: Settings, *, stamp: bool = True, may_lose: bool = False) -> CardJob:
    """Write the settings only; a recording on the card keeps those it was made with, in the stamp.

    Without ``stamp`` they cannot be kept.

    Raises
    ------
    RefusedError
        There is a recording, and no room for them; ``may_lose`` gives them up.
    """
    session = new_session() if stamp else None
    kept = None
    if stamp and settings.values != dict(seen.contents.settings):
        kept = _kept(seen, seen.contents.first, may_lose=may_lose)
    changes = [*_other_settings(seen), _header_change(seen, settings, session, kept)]
    return CardJob("set", seen, changes, session, about={"settings": dict(settings.values)})


def wipe(seen: Look, end: int) -> CardJob:
    """Zero the counts, then the data up to ``end``; the settings stay."""
    stop = max(seen.data_end, end) // SECTOR * SECTOR
    return CardJob("wipe", seen, [*config_change(seen), Change("data", seen.data_start, stop - seen.data_start)])


def blank_table(seen: Look) -> CardJob:
    """Zero everything in front of the settings, and what a table, file system or volume keeps at the end.

    The first sector goes last, so that an interrupted card still shows what it was.

    Raises
    ------
    RefusedError
        It lies where the layout that was named has its settings or data.
    """
    if set(at_start(seen.head)) - set(at_start(seen.front)):
        raise RefusedError(
            f"{seen.disk.path} holds {' and '.join(seen.signatures)} where layout {seen.layout.id} has its settings "
            "(--layout): leave --layout out to remove it"
        )
    changes = [Change("table", SECTOR, len(seen.front) - SECTOR)] if len(seen.front) > SECTOR else []
    changes += [Change("table", each.offset, each.length) for each in seen.amid]
    if len({end.name for end in seen.ends}) == 1 and "GPT" in seen.ends[0].name:
        changes.append(Change("copy of the table", seen.ends[0].offset, seen.ends[0].length))
    elif seen.ends:
        first = min(end.offset for end in seen.ends)
        changes.append(Change("end of the volume", first, max(end.offset + end.length for end in seen.ends) - first))
    if seen.front:
        changes.append(Change("first sector", 0, SECTOR))
    return CardJob("blank-table", seen, changes, save_old=False)
