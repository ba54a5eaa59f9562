"""What ``restore`` and ``resume`` do to a card.

A journal tells what was going to be done; only the card tells what became of it. Between an interruption and the day
somebody types ``resume`` the card may have been recorded on, prepared elsewhere, formatted, or put into a drawer while
another one lies in the reader. So nothing of a journal is carried out before the card was compared with it: every byte
that will be written over has to be as it was before the operation, or as the operation was going to leave it. A power
cut leaves a mixture of both, even within one sector; anything else was put there since, and is not ours to lose.
"""

from __future__ import annotations

from collections.abc import Iterator

from miniscope_xr.index.old_buffers import OldBuffers
from miniscope_xr.layout import SECTOR, builtin_layouts
from miniscope_xr.tools.flash import stale
from miniscope_xr.tools.flash.errors import JournalError, RefusedError
from miniscope_xr.tools.flash.jobs import CardJob
from miniscope_xr.tools.flash.journal import Journal
from miniscope_xr.tools.flash.look import Look, check_content
from miniscope_xr.tools.flash.operation import STEP, Change
from miniscope_xr.tools.flash.prepare import config_change
from miniscope_xr.tools.flash.target.base import Target
from miniscope_xr.tools.flash.whose_backup import changes_of, check_card, explained

_DATA = ("counts", "data", "first data")
"""Changes of what the camera writes; the others are of what only people write."""
_TABLE = ("table", "copy of the table", "end of the volume", "first sector")
"""Changes of what a computer keeps on a disk: removed by `blank-table`, put back by `restore`."""
_FELL_OVER = 2
"""Bytes that a failing card may have got wrong; whoever makes a new table or file system changes more."""
_TORN = 2
"""Sectors that one power cut may leave half written: a card writes to two of its chips at once."""
_TESTS = ("test data", "probe")
"""Changes of `qualify`, whose test data is neither as before nor as it will be."""


def to_restore(journals: Iterator[Journal], target: Target | None = None) -> Journal | None:
    """Choose what ``restore`` undoes: the newest operation that left something, or the newest backup.

    Numbers follow a clock, and backups of two computers may lie in one folder: the settings on the ``target`` tell
    which operation was the last, whichever claims to be newer. Where none left them, another program set them since.
    """
    undone = ("restore", "resume")  # a restored card is as its backup says already; a resumed operation has its own
    newest = None
    for old in journals:
        if old.verb in undone or (old.verb == "qualify" and old.finished):
            continue
        if target is None or _left_settings(target, old):
            return old
        newest = newest or old
    return newest


def _left_settings(target: Target, old: Journal) -> bool:
    """Tell whether the settings on the card are those of before this operation, those of after it, or torn."""
    places = [change.offset for change in changes_of(old) if change.name == "settings"]
    layout = builtin_layouts().get(old.layout)
    place = places[0] if places else layout.sectors.header * SECTOR if layout else None
    return place is None or explained(old, place, target.read(place, SECTOR))


def to_resume(journals: Iterator[Journal]) -> Journal | None:
    """Choose what ``resume`` finishes: the newest operation, if it was not finished."""
    newest = next((j for j in journals if j.verb != "backup"), None)
    return None if newest is None or newest.finished else newest


def restore(target: Target, seen: Look, old: Journal) -> CardJob:
    """Put back what an operation changed; no changes if the card is as it was before.

    Counts come back only if the data they count is still there, and are left alone if the card was used since.

    Raises
    ------
    RefusedError
        The backup is of another card or holds nothing; something of somebody's is on the card, or came there since.
    """
    wanted = _to_put_back(seen, old)
    if not any(old.before(change.offset, change.length) for change in wanted):
        raise RefusedError(f"the backup {old.path} holds nothing that can be put back; choose another with --backup")
    check_card(seen, old)
    check_content(seen, writes_data=False, verb=old.verb)
    kept = all(change.name != "data" for change in wanted)
    intact = kept or old.before(seen.data_start, SECTOR) == target.read(seen.data_start, SECTOR)
    told = [_put_back(target, seen, old, change, intact) for change in wanted]
    changes = [change for change, _ in told if change is not None]
    counts = next((what for _, what in reversed(told) if what), "back")
    if all(target.read(change.offset, change.length) == change.wanted for change in changes):
        changes = []
    return CardJob("restore", seen, changes, save_old=False, about={"of": str(old.path), "counts": counts})


def _put_back(target: Target, seen: Look, old: Journal, change: Change, intact: bool) -> tuple[Change | None, str]:
    """What undoes one change, and what becomes of the counts by it: ``left``, ``zero``, or nothing."""
    before = old.before(change.offset, change.length)
    if change.name in ("counts", "first data") and _used(target, old, change):
        return None, "left"
    if change.name == "counts" and not intact:
        if target.read(change.offset, change.length) == before:
            return None, "left"  # no operation of ours wipes data under counts that stand: they are of other data
        return Change("counts", change.offset, change.length), "zero"
    if before is None:
        return None, ""
    if old.verb == "blank-table" and _used(target, old, change, _FELL_OVER):
        raise RefusedError(
            f"{seen.disk.path} has something new at sector {change.offset // SECTOR} since its table was "
            "removed; putting the old table back would lose it"
        )
    return Change(change.name, change.offset, change.length, before), ""


def _to_put_back(seen: Look, old: Journal) -> list[Change]:
    wanted = config_change(seen) if old.verb in ("backup", "qualify") else changes_of(old)
    if old.verb in ("backup", "qualify", "wipe"):
        wanted.append(Change("settings", seen.layout.sectors.header * SECTOR, SECTOR))
    return wanted


def _used(target: Target, old: Journal, change: Change, but_for: int = 0) -> bool:
    """Tell whether something else stands there now than before the operation, after it, or torn between the two."""
    now = target.read(change.offset, change.length)
    if old.before(change.offset, change.length) is None:
        return now.count(0) != len(now)
    return not explained(old, change.offset, now, but_for)


def resume(target: Target, seen: Look, old: Journal, *, discard: str | None = None) -> CardJob:
    """Finish an interrupted operation: its changes once more; what is done already is not written again.

    Raises
    ------
    RefusedError
        It was finished, or is of another card; or the card was used, set or formatted since.
    """
    if old.finished:
        raise RefusedError(f"{old.verb} of {old.folder.name} was finished; there is nothing left to do")
    if not old.trusted:
        raise RefusedError(
            f"the journal {old.path} is of an older version, without a checksum over what was going to be written; "
            "`restore` brings the settings back, `prepare` begins anew"
        )
    check_card(seen, old)
    changes = changes_of(old)
    table = any(change.name in _TABLE for change in changes)  # half a table is on the card, of this operation itself
    check_content(seen, writes_data=False, verb="blank-table" if table else old.verb)
    for change in changes:
        if change.name not in (*_DATA, *_TESTS) and _used(target, old, change):
            raise RefusedError(
                f"{seen.disk.path}: {change.name} (sector {change.offset // SECTOR}) changed since this operation was "
                f"interrupted; finishing it would lose that. `{old.verb}` begins anew, `restore` goes back"
            )
    used = _recorded_since(target, seen, old, changes)
    if used is not None and discard not in (seen.contents.recording, seen.disk.card_id):
        sector, proven = used
        may, why = "was", f"sector {sector} is new"
        if not proven:
            may, why = (
                "may have been",
                f"{stale.NAME}, which knows sector {sector}, is not beside the journal or damaged",
            )
        raise RefusedError(
            f"{seen.disk.path} {may} used since this operation was interrupted ({why}): finishing it would lose that "
            f"recording. To give it up: --discard-recording {seen.contents.recording}",
            recording=seen.contents.recording,
        )
    session = bytes.fromhex(old.session) if old.session else None
    return CardJob("resume", seen, changes, session, save_old=False, continues=old)


def _recorded_since(target: Target, seen: Look, old: Journal, changes: list[Change]) -> tuple[int, bool] | None:
    """Find a sector of what the camera wrote since, and whether that is proven (else it cannot be told).

    None if all that would be lost was to be lost.
    """
    for change in changes:
        if change.name in _DATA:
            first = Change(change.name, change.offset, SECTOR)  # the backup holds no more of the data
            if _used(target, old, first):
                return change.offset // SECTOR, True
    listed = _listed(old)
    if seen.has_recording:
        for change in changes:
            if change.name in ("data", *_TESTS):
                new = _new_buffer(
                    target, seen, listed, change.offset, min(seen.data_end, change.offset + change.length)
                )
                if new is not None:
                    return new, listed is not None or change.name in _TESTS
    return None


def _new_buffer(target: Target, seen: Look, listed: OldBuffers | None, start: int, stop: int) -> int | None:
    """Find a buffer that is not of the recording that was going to be wiped, by the list made of that one.

    A few sectors may have been torn when the power went: zeros on one side, the old content with its header (in front)
    or footer (behind, v3) on the other. A new recording has another first sector, too, which was looked at before.
    """
    layouts = {seen.layout.id: seen.layout, **builtin_layouts()}.values()
    torn: set[int] = set()
    for at in range(start, stop, STEP):
        if target.next_data(at) >= min(at + STEP, stop):
            continue
        data = target.read(at, min(STEP, stop - at) // SECTOR * SECTOR)
        for i in sorted({int(i) for layout in layouts for i in stale.headers_in(data, layout)}):
            sector, content = at // SECTOR + i, data[i * SECTOR : (i + 1) * SECTOR]
            if listed is None or sector not in listed.sectors:
                return sector
            if not listed.is_old(sector, content):
                torn.add(sector)
                if (content[0] and content[-1]) or len(torn) > _TORN:
                    return sector
    return None


def _listed(old: Journal) -> OldBuffers | None:
    try:
        return stale.load_list(old.folder) if (old.folder / stale.NAME).exists() else None
    except JournalError:  # damaged: then everything counts as new
        return None
