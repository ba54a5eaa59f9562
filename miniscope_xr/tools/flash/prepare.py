"""The writing commands: what each changes, and in which order."""

from __future__ import annotations

import os
import time

from miniscope_xr.tools.flash import sector
from miniscope_xr.tools.flash.jobs import Job
from miniscope_xr.tools.flash.look import TAIL, Look
from miniscope_xr.tools.flash.operation import Change
from miniscope_xr.tools.flash.plan import Plan
from miniscope_xr.tools.flash.settings import Settings
from miniscope_xr.tools.flash.target.linux import SECTOR


def config_change(seen: Look) -> list[Change]:
    """Zero the counts of a layout that has them."""
    place = seen.layout.sectors.config
    return [] if place is None else [Change("counts", place * SECTOR, SECTOR)]


def _header_change(seen: Look, settings: Settings, session: bytes | None) -> Change:
    data = sector.build(seen.layout, settings.values, seen.contents.header, session, int(time.time()))
    return Change("settings", seen.layout.sectors.header * SECTOR, SECTOR, data)


def new_session() -> bytes:
    """Make a fresh session id."""
    return os.urandom(16)


def prepare(seen: Look, settings: Settings, plan: Plan, *, keep: bool = False, stamp: bool = True) -> Job:
    """Zero the counts, wipe what could be mistaken for the new recording, write the settings last."""
    session = new_session() if stamp else None
    wipe = (
        []
        if keep
        else [Change("data", seen.data_start, max(seen.data_end, plan.end) // SECTOR * SECTOR - seen.data_start)]
    )
    changes = [*config_change(seen), *wipe, _header_change(seen, settings, session)]
    return Job("prepare", seen, changes, session, about={"keep": keep, "settings": dict(settings.values)})


def change_settings(seen: Look, settings: Settings, *, stamp: bool = True) -> Job:
    """Write the settings only."""
    session = new_session() if stamp else None
    return Job(
        "set", seen, [_header_change(seen, settings, session)], session, about={"settings": dict(settings.values)}
    )


def wipe(seen: Look, end: int) -> Job:
    """Zero the counts, then the data up to ``end``; the settings stay."""
    stop = max(seen.data_end, end) // SECTOR * SECTOR
    return Job("wipe", seen, [*config_change(seen), Change("data", seen.data_start, stop - seen.data_start)])


def blank_table(seen: Look) -> Job:
    """Zero every partition table and file system signature: all in front of the settings, and a GPT's copy.

    The first sector goes last, so that an interrupted card still shows what it was.
    """
    changes = [Change("table", SECTOR, seen.block_offset - SECTOR)]
    if seen.tail[-SECTOR:][:8] == b"EFI PART":
        changes.append(Change("copy of the table", seen.disk.size - TAIL, TAIL))
    return Job("blank-table", seen, [*changes, Change("first sector", 0, SECTOR)], save_old=False)
