"""The commands ``backup``, ``restore`` and ``resume``."""

from __future__ import annotations

from pathlib import Path

from miniscope_xr.tools.flash import ask, jobs, recover, whose_backup
from miniscope_xr.tools.flash import journal as journals
from miniscope_xr.tools.flash.arguments import Looking, Recovering
from miniscope_xr.tools.flash.disks.base import Disk
from miniscope_xr.tools.flash.disks.find import identify
from miniscope_xr.tools.flash.errors import DONE
from miniscope_xr.tools.flash.journal import Journal, load
from miniscope_xr.tools.flash.look import Look, look
from miniscope_xr.tools.flash.operation import Progress
from miniscope_xr.tools.flash.steps import Said, backup_dir, card_to_write, carry_out, say, shown
from miniscope_xr.tools.flash.target.base import Target
from miniscope_xr.tools.flash.target.open import open_target

_Choice = tuple[Journal, Look]


def backup_card(args: Looking, report: Said, progress: Progress | None) -> int:
    """Save settings and first sectors."""
    disk = identify(args.device)
    report["device"] = disk.to_json()
    ask.check_card_option(args.card, False, disk.card_id)
    with open_target(disk, write=False) as target:
        seen = look(target, disk, args.layout, whole=False)
        shown(args, seen, report)
        if args.dry_run:
            report["phase"] = "dry run"
            return DONE
        journal = jobs.backup(seen, backup_dir(args), target, "backup")
    journal.write("done")
    report.update(phase="done", backup=str(journal.folder))
    say([f"settings, counts and first sectors saved in {journal.folder}"], args)
    return DONE


def _look_again(args: Recovering, target: Target, disk: Disk, report: Said, progress: Progress | None) -> _Choice:
    """Find the backup, and look at the card with the layout it knows: in mid-operation a card may not show its own."""
    resume = args.command == "resume"
    if args.backup:
        old = load(Path(args.backup))
    else:
        found = journals.find(backup_dir(args))
        say(found.told(), args)
        mine = whose_backup.own(target, disk, found, args.layout)
        chosen = recover.to_resume(mine) if resume else recover.to_restore(mine, target)
        if chosen is None:
            what = "unfinished operation" if resume else "backup"
            raise whose_backup.none_found(what, disk, backup_dir(args), found)
        old = chosen
    seen = look(target, disk, args.layout or old.layout, progress, whole=resume)
    shown(args, seen, report)
    return old, seen


def restore_card(args: Recovering, report: Said, progress: Progress | None) -> int:
    """Put back what an operation changed."""
    disk = card_to_write(args, report)
    with open_target(disk, write=False) as target:
        old, seen = _look_again(args, target, disk, report, progress)
        say([f"from the backup {old.folder} ({old.verb})"], args)
        job = recover.restore(target, seen, old)
    notes = {
        "zero": ["note: the data the counts describe is gone, so the counts stay zero"],
        "left": ["note: the card was used since, so its counts are left as they are"],
    }
    say(notes.get(job.about["counts"], []), args)
    if not job.changes:
        say([f"the card is as it was before {old.verb} already: nothing is written"], args)
        report.update(phase="done", changes=[], backup=str(old.folder))
        return DONE
    carry_out(args, job, report, progress)
    return DONE


def resume_card(args: Recovering, report: Said, progress: Progress | None) -> int:
    """Finish an interrupted operation."""
    disk = card_to_write(args, report)
    with open_target(disk, write=False) as target:
        old, seen = _look_again(args, target, disk, report, progress)
        job = recover.resume(target, seen, old, discard=args.discard_recording)
    say([f"finishes {old.verb} of {old.folder.name}, which ended at {old.phase}"], args)
    carry_out(args, job, report, progress)
    return DONE
