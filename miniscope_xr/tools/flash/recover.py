"""What ``restore`` and ``resume`` do to a card, and which backup is its own."""

from __future__ import annotations

from pathlib import Path

from miniscope_xr.tools.flash import journal as journals
from miniscope_xr.tools.flash.disks.find import Disk
from miniscope_xr.tools.flash.errors import RefusedError
from miniscope_xr.tools.flash.jobs import Job
from miniscope_xr.tools.flash.journal import Journal
from miniscope_xr.tools.flash.look import Look
from miniscope_xr.tools.flash.operation import Change
from miniscope_xr.tools.flash.prepare import config_change
from miniscope_xr.tools.flash.target.linux import SECTOR


def restore(seen: Look, old: Journal) -> Job:
    """Put back what an operation changed.

    Counts come back only if the data they count is still there, and are left alone if the card was used since.
    """
    wanted = [Change.from_json(c) for c in old.changes]
    if old.verb in ("backup", "qualify"):
        wanted = config_change(seen)
    if old.verb in ("backup", "qualify", "wipe"):
        wanted.append(Change("settings", seen.layout.sectors.header * SECTOR, SECTOR))
    intact = old.before(seen.data_start, SECTOR) == _now(seen, seen.data_start)
    changes, counts = [], "back"
    for change in wanted:
        before = old.before(change.offset, change.length)
        if change.name == "counts" and _used_since(seen, old, change.offset):
            counts = "left"
        elif change.name == "counts" and not intact:
            changes.append(Change("counts", change.offset, change.length))
            counts = "zero"
        elif before is not None:
            changes.append(Change(change.name, change.offset, change.length, before))
    if not changes:
        raise RefusedError(f"the backup {old.path} holds nothing that can be put back; choose another with --backup")
    return Job("restore", seen, changes, save_old=False, about={"of": str(old.path), "counts": counts})


def _now(seen: Look, at: int) -> bytes:
    return seen.block[at - seen.block_offset : at - seen.block_offset + SECTOR]


def _used_since(seen: Look, old: Journal, at: int) -> bool:
    """Tell whether a sector is neither as it was, nor zero, nor torn between the two."""
    before = old.before(at, SECTOR) or bytes(SECTOR)
    return any(now not in (0, was) for now, was in zip(_now(seen, at), before, strict=True))


def resume(seen: Look, old: Journal, *, discard: str | None = None) -> Job:
    """Finish an interrupted operation: its changes once more; what is done already is not written again.

    Raises
    ------
    RefusedError
        The card was used since: its counts or first data are neither as before nor as intended.
    """
    changes = [Change.from_json(c) for c in old.changes]
    places = [c.offset for c in changes if c.name in ("counts", "data")]
    used = [at for at in places if _used_since(seen, old, at)]
    if used and discard not in (seen.contents.recording, seen.disk.card_id):
        raise RefusedError(
            f"{seen.disk.path} was used since this operation was interrupted (sector {used[0] // SECTOR} is new): "
            f"finishing it would lose that recording. To give it up: --discard-recording {seen.contents.recording}",
            recording=seen.contents.recording,
        )
    session = bytes.fromhex(old.session) if old.session else None
    return Job("resume", seen, changes, session, save_old=False, about={"of": str(old.path)})


def find_backup(backup_dir: Path, seen: Look, *, unfinished: bool) -> Journal:
    """Find the newest backup of this card, known by its id or by the session in its settings.

    Raises
    ------
    RefusedError
        There is none (or, ``unfinished``, the newest operation was finished).
    """
    session = seen.contents.stamp.session if seen.contents.stamp else None
    for old in journals.journals(backup_dir):
        ours = old.card.get("card_id") == seen.disk.card_id or (session is not None and old.session == session)
        if ours and unfinished and old.phase == "done" and old.verb != "backup":
            break
        if ours and (not unfinished or old.changes) and (unfinished or old.verb != "restore"):
            return old
    what = "unfinished operation" if unfinished else "backup"
    raise RefusedError(
        f"no {what} of card {seen.disk.card_id} in {backup_dir}; name one with --backup, "
        "or where they are with --backup-dir"
    )


def layout_of_backup(backup_dir: Path, disk: Disk) -> str | None:
    """Return the layout that the newest backup of this card knows."""
    return next((j.layout for j in journals.journals(backup_dir) if j.card.get("card_id") == disk.card_id), None)
