"""The writing commands: what each changes, in which order, and the one way they are carried out."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from miniscope_xr.tools.flash import journal as journals
from miniscope_xr.tools.flash import refuse, sector, stale
from miniscope_xr.tools.flash.contents import read_contents
from miniscope_xr.tools.flash.disks.find import Disk, Disks, identify
from miniscope_xr.tools.flash.errors import RefusedError
from miniscope_xr.tools.flash.journal import Journal
from miniscope_xr.tools.flash.look import TAIL, Look, read_block
from miniscope_xr.tools.flash.operation import Change, Progress, read_twice, run
from miniscope_xr.tools.flash.plan import Plan
from miniscope_xr.tools.flash.settings import Settings
from miniscope_xr.tools.flash.target.linux import SECTOR, Target, open_target


class Opener(Protocol):
    """Opens a disk; tests put a simulated one in its place."""

    def __call__(self, disk: Disk, *, write: bool) -> AbstractContextManager[Target]:
        """Open for reading or exclusively for writing."""
        ...


@dataclass(frozen=True)
class Job:
    """What is going to be done to a card."""

    verb: str
    seen: Look
    changes: Sequence[Change]
    session: bytes | None = None
    save_old: bool = True
    about: dict[str, Any] = field(default_factory=dict)


def _config_change(seen: Look) -> list[Change]:
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
    changes = [*_config_change(seen), *wipe, _header_change(seen, settings, session)]
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
    return Job("wipe", seen, [*_config_change(seen), Change("data", seen.data_start, stop - seen.data_start)])


def blank_table(seen: Look) -> Job:
    """Zero every partition table and file system signature: all in front of the settings, and a GPT's copy.

    The first sector goes last, so that an interrupted card still shows what it was.
    """
    changes = [Change("table", SECTOR, seen.block_offset - SECTOR)]
    if seen.tail[-SECTOR:][:8] == b"EFI PART":
        changes.append(Change("copy of the table", seen.disk.size - TAIL, TAIL))
    return Job("blank-table", seen, [*changes, Change("first sector", 0, SECTOR)], save_old=False)


def restore(seen: Look, old: Journal) -> Job:
    """Put back what an operation changed.

    Counts come back only if the data they count is still there, and are left alone if the card was used since.
    """
    wanted = [Change.from_json(c) for c in old.changes]
    if old.verb in ("backup", "qualify"):
        wanted = _config_change(seen)
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


def backup(seen: Look, backup_dir: Path, target: Target, verb: str, changes: Sequence[Change] = ()) -> Journal:
    """Read what an operation will change, twice, for its journal."""
    saved = {0: seen.start, seen.block_offset: seen.block}
    for change in changes:
        if change.name in ("table", "copy of the table"):
            saved[change.offset] = read_twice(target, change.offset, change.length)
    folder = journals.new_folder(backup_dir, seen.disk.card_id, verb)
    return Journal(folder, verb, seen.disk.to_json(), saved, [c.to_json() for c in changes], layout=seen.layout.id)


def verify_shown(target: Target, seen: Look) -> None:
    """Refuse if the card is not as it was when the user was asked."""
    contents = read_contents(target, seen.layout)
    start = read_twice(target, 0, len(seen.start))
    if (start, *read_block(target, contents.layout)) != (seen.start, seen.block_offset, seen.block):
        raise RefusedError(
            f"{seen.disk.path} changed since it was shown (another card, or another program wrote); look again"
        )


def execute(
    job: Job,
    backup_dir: Path,
    *,
    image: bool = False,
    expect_size: int | None = None,
    disks: Disks | None = None,
    opener: Opener = open_target,
    progress: Progress | None = None,
) -> Journal:
    """Carry out a job under one exclusive descriptor; returns the finished journal."""
    with reopen(job.seen, image=image, expect_size=expect_size, disks=disks, opener=opener) as target:
        return carry_out(job, target, backup_dir, progress)


@contextmanager
def reopen(
    seen: Look,
    *,
    image: bool = False,
    expect_size: int | None = None,
    disks: Disks | None = None,
    opener: Opener = open_target,
) -> Iterator[Target]:
    """Open for writing the card that was shown, and no other.

    Raises
    ------
    RefusedError
        It is another card, or something speaks against it now.
    """
    disk = identify(seen.disk.path, disks)
    refuse.check(disk, image=image, expect_size=expect_size)
    if (disk.card_id, disk.size, disk.diskseq) != (seen.disk.card_id, seen.disk.size, seen.disk.diskseq):
        raise RefusedError(
            f"{seen.disk.path} is another card than the one shown (now {disk.card_id}); look again with `list`"
        )
    with opener(disk, write=True) as target:
        verify_shown(target, seen)
        yield target


def carry_out(job: Job, target: Target, backup_dir: Path, progress: Progress | None = None) -> Journal:
    """Save what will change, then change it."""
    seen = job.seen
    journal = backup(seen, backup_dir, target, job.verb, job.changes)
    journal.session = job.session.hex() if job.session else ""
    journal.about = job.about
    if job.save_old and seen.data_end > seen.data_start:
        old = stale.list_buffers(target, seen.layout, seen.data_end, progress)
        stale.save_list(journal.folder, old, layout=seen.layout.id, session=journal.session, card_id=seen.disk.card_id)
    run(target, job.changes, journal, progress)
    if job.verb == "blank-table" and hasattr(target, "reread_partitions"):
        target.reread_partitions()
    return journal
