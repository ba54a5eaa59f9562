"""Runs one writing command on a faulty disk and judges what is left of the card."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from miniscope_xr.errors import MiniscopeError
from miniscope_xr.index.old_buffers import OldBuffers
from miniscope_xr.tools.flash import jobs, journal_format, prepare, recover, stale, whose_backup
from miniscope_xr.tools.flash import journal as journals
from miniscope_xr.tools.flash.errors import InterruptedWriteError, RefusedError
from miniscope_xr.tools.flash.journal import Journal
from miniscope_xr.tools.flash.look import look
from miniscope_xr.tools.flash.plan import make_plan
from miniscope_xr.tools.flash.settings import parse_settings

from .fakes import DISK, SECTOR, V4, Fault, FaultDisk, Killed, v4_card, with_table

HEADER, COUNTS, DATA = 1022 * SECTOR, 1023 * SECTOR, 1024 * SECTOR
NEW = ("gain=2", "led=10", "record_length=1s", "fs=5")


def seen_on(media: bytes, layout: str = "v4-wirefree"):
    return look(FaultDisk(media), replace(DISK, size=len(media)), layout)


def chosen(backups: Path, media: bytes, choose) -> Journal:
    """The journal that `restore` or `resume` finds by itself."""
    disk = replace(DISK, size=len(media))
    found = choose(whose_backup.own(FaultDisk(media), disk, journals.find(backups), "v4-wirefree"))
    assert found is not None
    return found


def list_of(backups: Path, card: str) -> OldBuffers | None:
    """The newest list saved for a card, by its session id or its own."""
    mine = (j for j in journals.journals(backups) if card in (j.session, j.card.get("card_id")))
    return next((stale.load_list(j.folder) for j in mine if (j.folder / stale.NAME).exists()), None)


def job_for(verb: str, media: bytes, backups: Path) -> jobs.CardJob:
    """What the command would do to this card."""
    disk, seen = FaultDisk(media), seen_on(media)
    if verb == "prepare":
        settings = parse_settings(V4, NEW, seen.contents.settings)
        return prepare.prepare(seen, settings, make_plan(V4, settings.values, seen.contents.counts, len(media)))
    if verb == "set":
        return prepare.change_settings(seen, parse_settings(V4, NEW, seen.contents.settings))
    if verb == "wipe":
        return prepare.wipe(seen, 0)
    if verb == "blank-table":
        return prepare.blank_table(seen)
    if verb == "restore":
        return recover.restore(disk, seen, chosen(backups, media, recover.to_restore))
    assert verb == "resume"
    return recover.resume(disk, seen, chosen(backups, media, recover.to_resume))


def fresh(job: jobs.CardJob, backups: Path) -> jobs.CardJob:
    """The same job; where it goes on in an older journal, in a copy of that below ``backups``."""
    if job.continues is None:
        return job
    old = job.continues.folder
    copy = shutil.copytree(old, backups / "c" / old.name, dirs_exist_ok=True)
    return replace(job, continues=journals.load(copy))


def starting_point(verb: str, backups: Path) -> bytes:
    """A card on which this command makes sense, and the backups that belong to it."""
    card = with_table(v4_card(), gpt=True) if verb == "blank-table" else v4_card()
    if verb == "restore":
        disk = FaultDisk(card)
        jobs.carry_out(job_for("set", card, backups), disk, backups)
        return disk.view()
    if verb == "resume":
        disk = FaultDisk(card)
        job = job_for("prepare", card, backups)
        clean = FaultDisk(card)
        with tempfile.TemporaryDirectory() as elsewhere:
            jobs.carry_out(job, clean, Path(elsewhere))
        writes = [i for i, (kind, _, _) in enumerate(clean.log) if kind == "write"]
        disk.fault = Fault(writes[len(writes) // 2], "killed before", power="all")
        with contextlib.suppress(Killed):
            jobs.carry_out(job, disk, backups)
        return bytes(disk.media)
    return card


def allowed(job: jobs.CardJob) -> Callable[[int], bool]:
    return lambda at: any(c.offset <= at < c.offset + c.length for c in job.changes)


@dataclass
class Scene:
    """A command, the card it starts from and the card it must end with."""

    verb: str
    start: bytes
    job: jobs.CardJob
    backups: Path
    end: bytes = b""
    log: tuple = ()
    judged: dict = field(default_factory=dict)

    @classmethod
    def make(cls, verb: str, folder: Path) -> Scene:
        backups = folder / "before"
        backups.mkdir()
        start = starting_point(verb, backups)
        scene = cls(verb, start, job_for(verb, start, backups), backups)
        disk = FaultDisk(start)
        jobs.verify_shown(disk, scene.job.seen)
        with tempfile.TemporaryDirectory() as elsewhere:
            jobs.carry_out(fresh(scene.job, Path(elsewhere)), disk, Path(elsewhere))
        scene.end, scene.log = disk.view(), tuple(disk.log)
        return scene


def judge(scene: Scene, fault: Fault, backups: Path, job: jobs.CardJob | None = None) -> list[str]:
    """Run the command with a fault; everything that is not as promised, in words."""
    job = fresh(job or scene.job, backups)
    disk = FaultDisk(scene.start, fault)
    code: int | None
    try:
        jobs.verify_shown(disk, job.seen)
        jobs.carry_out(job, disk, backups)
        code = 0
    except Killed:
        code = None
    except InterruptedWriteError as error:
        code = error.exit_code
        if not Path(error.journal).exists() and error.card_changed:
            return ["card changed, but the journal that is named is not there"]
    except (MiniscopeError, OSError, KeyboardInterrupt):
        code = 5
    left = bytes(disk.media) if code is None else disk.view()
    return verdict(scene, job, code, left, disk.gone, backups)


def verdict(scene: Scene, job: jobs.CardJob, code: int | None, left: bytes, gone: bool, backups: Path) -> list[str]:
    """Judge what is left of the card; ``code`` is None if the process was killed."""
    found = next(journals.journals(backups), None)
    key = (code, left, gone, found and journal_format.digest(found.backup))
    if key not in scene.judged:  # many faults leave the same card
        scene.judged[key] = [
            *_promises(scene, job, code, left, gone),
            *_recovery(scene, code, left, found, backups),
        ]
    return scene.judged[key]


def _promises(scene: Scene, job: jobs.CardJob, code: int | None, left: bytes, gone: bool) -> list[str]:
    wrong = []
    if code == 0 and left != scene.end:
        wrong.append("says done and verified, but is not")
    if code == 5 and left != scene.start:
        wrong.append("says unchanged, but the card is changed")
    if code == 6 and left == scene.start and not gone:
        wrong.append("says changed, but the card is as it was")
    now, before = (np.frombuffer(card, "<u8").reshape(-1, SECTOR // 8) for card in (left, scene.start))
    if not all(allowed(job)(at * SECTOR) for at in np.flatnonzero((now != before).any(axis=1)).tolist()):
        wrong.append("bytes outside the announced sectors are changed")
    header, counts, data = left[HEADER : HEADER + SECTOR], left[COUNTS : COUNTS + SECTOR], left[DATA:]
    old, new = scene.start[HEADER : HEADER + SECTOR], scene.end[HEADER : HEADER + SECTOR]
    if scene.verb in ("prepare", "resume") and header == new != old and (any(counts) or data != scene.end[DATA:]):
        wrong.append("new settings over old counts or old data")
    if (
        scene.verb != "blank-table"
        and any(counts[16:20])
        and counts == scene.start[COUNTS : COUNTS + SECTOR]
        and data != scene.start[DATA:]
    ):
        wrong.append("the counts describe data that is gone")
    if code == 0 and scene.verb == "prepare" and header != new:
        wrong.append("old settings after done")
    return wrong


def _recovery(scene: Scene, code: int | None, left: bytes, found: Journal | None, backups: Path) -> list[str]:
    """Whatever was left, the old card's settings come back, or the command can be finished."""
    if left in (scene.start, scene.end) and code is not None:
        return []
    if found is None:
        return [] if left == scene.start else ["the card is changed and there is no backup"]
    if found.before(HEADER, SECTOR) != scene.start[HEADER : HEADER + SECTOR]:
        return ["the backup does not hold the old settings"]
    if left == scene.start:
        return []
    wrong = []
    try:
        disk = FaultDisk(left)
        seen = seen_on(left)
        again = fresh(recover.resume(disk, seen, found), backups / "again")
        jobs.carry_out(again, disk, backups / "again")
        if disk.view() != scene.end:
            wrong.append("resume does not finish the card")
    except RefusedError:  # neither old nor new counts: resume leaves the choice to the user
        pass
    disk = FaultDisk(left)
    jobs.carry_out(recover.restore(disk, seen_on(left), found), disk, backups / "again")
    if disk.view()[HEADER : HEADER + SECTOR] != scene.start[HEADER : HEADER + SECTOR]:
        wrong.append("restore does not bring the old settings back")
    if scene.verb == "blank-table" and disk.view() != scene.start:
        wrong.append("restore does not bring the table back")
    return wrong
