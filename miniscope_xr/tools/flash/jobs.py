"""How a job is carried out: look again at the card that was shown, save what will change, change it."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from miniscope_xr.errors import CardReadError
from miniscope_xr.source.same_disk import lies_on
from miniscope_xr.tools.flash import interrupts, probe, refuse, stale
from miniscope_xr.tools.flash import journal as journals
from miniscope_xr.tools.flash.contents import read_contents
from miniscope_xr.tools.flash.disks.find import identify
from miniscope_xr.tools.flash.errors import CheckFailedError, InterruptedWriteError, JournalError, RefusedError
from miniscope_xr.tools.flash.journal import Journal
from miniscope_xr.tools.flash.look import Look, read_block
from miniscope_xr.tools.flash.operation import Change, Progress, read_twice, run
from miniscope_xr.tools.flash.target.base import Target
from miniscope_xr.tools.flash.target.open import open_target


@dataclass(frozen=True)
class CardJob:
    """What is going to be done to a card."""

    verb: str
    seen: Look
    changes: Sequence[Change]
    session: bytes | None = None
    save_old: bool = True
    about: dict[str, Any] = field(default_factory=dict)
    prove: tuple[int, int] | None = None
    """Bytes of the card to be proven real first: a counterfeit is smaller than it says. They are wiped afterwards."""
    continues: Journal | None = None
    """The journal of an interrupted operation that this one finishes: it keeps the backup, and gets the last word."""


def backup(seen: Look, backup_dir: Path, target: Target, verb: str, changes: Sequence[Change] = ()) -> Journal:
    """Read what an operation will change, twice, for its journal."""
    if lies_on(backup_dir, seen.disk.path):
        raise JournalError(
            errno.EINVAL, "the backup folder lies on the card itself; give --backup-dir", str(backup_dir)
        )
    saved = {0: seen.start, seen.block_offset: seen.block}
    for change in changes:
        if change.name in ("table", "copy of the table", "end of the volume"):
            saved[change.offset] = read_twice(target, change.offset, change.length)
    folder = journals.new_folder(backup_dir, seen.disk.card_id, verb)
    return Journal(
        folder, verb, seen.disk.to_json(), saved, [c.to_json() for c in changes], layout=seen.layout.id,
        number=journals.number_of(folder),
    )  # fmt: skip


def verify_shown(target: Target, seen: Look) -> None:
    """Refuse if the card is not as it was when the user was asked."""
    contents = read_contents(target, seen.layout)
    start = read_twice(target, 0, len(seen.start))
    if (start, *read_block(target, contents.layout)) != (seen.start, seen.block_offset, seen.block):  # and first data
        raise RefusedError(
            f"{seen.disk.path} changed since it was shown (another card, or another program wrote); look again"
        )


def execute(
    job: CardJob,
    backup_dir: Path,
    *,
    image: bool = False,
    expect_size: int | None = None,
    progress: Progress | None = None,
) -> Journal:
    """Carry out a job under one exclusive descriptor; returns the finished journal."""
    with reopen(job.seen, image=image, expect_size=expect_size) as target:
        return carry_out(job, target, backup_dir, progress)


@contextmanager
def reopen(seen: Look, *, image: bool = False, expect_size: int | None = None) -> Iterator[Target]:
    """Open for writing the card that was shown, and no other.

    Raises
    ------
    RefusedError
        It is another card, or something speaks against it now.
    CardReadError
        It is gone.
    """
    disk = identify(seen.disk.path)
    refuse.check(disk, image=image, expect_size=expect_size)
    if seen.disk.has_id and not disk.has_id:
        raise CardReadError(errno.EIO, "does not answer any more: the card was pulled out, or its reader", disk.path)
    if (disk.card_id, disk.size, disk.diskseq) != (seen.disk.card_id, seen.disk.size, seen.disk.diskseq):
        raise RefusedError(
            f"{seen.disk.path} is another card than the one shown (now {disk.card_id}); look again with `list`"
        )
    with open_target(disk, write=True) as target:
        verify_shown(target, seen)
        yield target


def carry_out(job: CardJob, target: Target, backup_dir: Path, progress: Progress | None = None) -> Journal:
    """Save what will change, then change it; an interrupted operation goes on in its own journal."""
    seen, journal = job.seen, job.continues
    if journal is None:
        journal = backup(seen, backup_dir, target, job.verb, job.changes)
        journal.session = job.session.hex() if job.session else ""
        journal.about = job.about
    known: dict[tuple[int, int], bytes] = {}
    if job.save_old and seen.data_end > seen.data_start:
        also = [found.layout for found in seen.found if found.layout.id != seen.layout.id]
        old = stale.list_buffers(target, seen.layout, seen.data_end, progress, also=also, known=known)
        stale.save_list(journal.folder, old, layout=seen.layout.id, session=journal.session, card_id=seen.disk.card_id)
        if all(change.name != "data" for change in job.changes):  # it stays, and a reader has to tell it from new data
            place = stale.hand_to_reader(journal.folder, backup_dir, journal.session)
            journal.about = {**journal.about, "list": str(place or "")}
    with interrupts.held():  # one for both: a signal during the proof ends the operation before it wipes anything
        if job.prove is not None:
            _prove(target, job.prove, journal, progress)
        run(target, job.changes, journal, progress, resumed=job.continues is not None, known=known)
    if any(change.offset == 0 for change in job.changes):  # where a partition table is
        target.reread_partitions()
    return journal


def _prove(target: Target, region: tuple[int, int], journal: Journal, progress: Progress | None) -> None:
    """Refuse a counterfeit: write marks into the region, read them back, put back what was there.

    Raises
    ------
    CheckFailedError
        Something else came back than was written.
    InterruptedWriteError
        It failed or was interrupted; says whether everything was put back.
    """
    journal.write("intent")  # killed in here, marks are left where `resume` wipes
    try:
        wrong = probe.prove(target, *region, progress)
    except KeyboardInterrupt as error:  # nothing went wrong in putting it back
        raise InterruptedWriteError(
            "interrupted. The marks of the proof were taken back: the card was not changed.",
            card_changed=False, journal=str(journal.path), phase=journal.phase,
        ) from error  # fmt: skip
    except Exception as error:
        raise InterruptedWriteError(
            f"{getattr(error, 'strerror', None) or error}. Marks of the proof may be left on the card: `resume` wipes "
            f"them and finishes it, `restore` brings the settings back (journal {journal.path}).",
            card_changed=True, journal=str(journal.path), phase=journal.phase,
        ) from error  # fmt: skip
    if wrong:
        journal.write("done")
        raise CheckFailedError(
            f"the card is a counterfeit or failing: {len(wrong)} of the marks written up to byte {region[1]} came back "
            f"wrong, the first at byte {min(wrong)}. What was there was put back; do not record on it (`qualify` tells "
            "more)"
        )
