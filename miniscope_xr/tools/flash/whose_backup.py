"""Which backups are a card's own: known by an id, a session, or by everything that stands in front of the data.

A card has no name that stays. Its id comes from the reader or the stamp that `prepare` wrote, and a computer that died
in the middle of an operation may have left neither; so what is on the card is compared with what the backup saved.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from miniscope_xr.errors import MiniscopeError
from miniscope_xr.layout import SECTOR
from miniscope_xr.layout.stamp import stamps_in
from miniscope_xr.tools.flash.disks.base import Disk
from miniscope_xr.tools.flash.errors import RefusedError
from miniscope_xr.tools.flash.journal import FoundJournals, Journal
from miniscope_xr.tools.flash.look import Look, look
from miniscope_xr.tools.flash.operation import Change
from miniscope_xr.tools.flash.target.base import Target


def stranger(seen: Look, old: Journal) -> str:
    """Say what proves that a backup is of another card; empty if nothing does."""
    if why := _other_size(seen.disk, old):
        return why
    cid = old.card.get("cid")
    if cid and seen.disk.cid and cid != seen.disk.cid:
        return f"the backup is of card {cid}, this is {seen.disk.cid}"
    card = seen.contents.stamp.card if seen.contents.stamp else ""
    stamped, _ = _stamps(old)
    if card and stamped and card not in stamped:
        return f"the backup is of card {' or '.join(sorted(stamped))}, this is {card}"
    return ""


def _other_size(disk: Disk, old: Journal) -> str:
    size = old.card["size"]
    return "" if size == disk.size else f"the operation was on a card of {size} bytes, this one has {disk.size}"


def akin(seen: Look, old: Journal) -> bool:
    """Tell whether a backup is known to be of this card: by an id, a session, or everything in front of the data."""
    if stranger(seen, old):
        return False
    stamp = seen.contents.stamp
    cards, sessions = _stamps(old)
    if stamp and (stamp.card in cards or stamp.session in sessions):
        return True
    if seen.disk.card_id == old.card.get("card_id") or (seen.disk.cid and seen.disk.cid == old.card.get("cid")):
        return True
    start = old.backup.get(0, b"")[: len(seen.start)]
    return explained(old, 0, seen.start[: len(start)]) and explained(old, *_header(seen))


def _header(seen: Look) -> tuple[int, bytes]:
    return seen.layout.sectors.header * SECTOR, seen.contents.header


def _stamps(old: Journal) -> tuple[set[str], set[str]]:
    """Return the ids of cards and sessions that stood, or were going to stand, in the settings sector."""
    written = [change.data for change in changes_of(old) if change.data]
    stamps = [stamp for data in (*old.backup.values(), *written) for stamp in stamps_in(data)]
    return {s.card for s in stamps} - {""}, {old.session, *(s.session for s in stamps)} - {""}


def changes_of(old: Journal) -> list[Change]:
    """Return what the operation was going to change."""
    return [Change.from_json(change) for change in old.changes]


def explained(old: Journal, offset: int, now: bytes, but_for: int = 0) -> bool:
    """Tell whether every byte (but for so many) is as before the operation or as it was going to be."""
    before = old.before(offset, len(now))
    if before is None:
        return False
    after = bytearray(before)
    for change in changes_of(old):
        start, stop = max(offset, change.offset), min(offset + len(now), change.offset + change.length)
        if start < stop:
            at = start - change.offset
            after[start - offset : stop - offset] = change.data[at : at + stop - start] if change.data else bytes(
                stop - start)  # fmt: skip
    is_now, was, will = (np.frombuffer(x, np.uint8) for x in (now, before, after))
    return int(np.count_nonzero((is_now != was) & (is_now != will))) <= but_for


def own(target: Target, disk: Disk, found: FoundJournals, layout: str | None = None) -> Iterator[Journal]:
    """Yield the card's own journals, newest first.

    In the middle of an operation a card may not show its layout, so each backup looks with the one it knows.
    """
    looks: dict[str, Look | None] = {}
    for old in found.journals:
        name = layout or old.layout
        if name not in looks:
            try:
                looks[name] = look(target, disk, name, whole=False)
            except MiniscopeError:  # the card is too small for it, or it is a file that is not here
                looks[name] = None
        seen = looks[name]
        if seen is not None and akin(seen, old):
            yield old


def check_card(seen: Look, old: Journal) -> None:
    """Refuse a backup of another card.

    Raises
    ------
    RefusedError
        It is of another one; or nothing shows that it is of this one, and the settings here would be lost.
    """
    why = stranger(seen, old)
    if not why and not akin(seen, old) and (seen.contents.prepared or seen.has_recording or seen.signatures):
        why = "nothing on the card shows that the backup is of it: neither an id, nor a session, nor what it holds"
    if why:
        raise RefusedError(
            f"{seen.disk.path}: {why}; insert the other card, or write the settings in {old.path} with `set`"
        )


def none_found(what: str, disk: Disk, backup_dir: Path, found: FoundJournals) -> RefusedError:
    """Say that there is none, why not one that seems to be, and what could not be read."""
    named = [old for old in found.journals if old.card.get("card_id") == disk.card_id]
    why = next((why for old in named if (why := _other_size(disk, old))), "")
    return RefusedError(
        f"no {what} of card {disk.card_id} in {backup_dir}{why and f' ({why})'}; name one with --backup, or where they "
        "are with --backup-dir" + "".join(f"; {said}" for said in found.told())
    )
