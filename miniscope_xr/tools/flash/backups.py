"""The commands ``backup``, ``restore`` and ``resume``."""

from __future__ import annotations

from pathlib import Path

from miniscope_xr.tools.flash import ask, jobs, recover
from miniscope_xr.tools.flash.disks.find import Disk, identify
from miniscope_xr.tools.flash.errors import DONE, RefusedError
from miniscope_xr.tools.flash.journal import Journal, load
from miniscope_xr.tools.flash.look import Look, look
from miniscope_xr.tools.flash.operation import Progress
from miniscope_xr.tools.flash.target.linux import open_target
from miniscope_xr.tools.flash.verbs import Args, Report, backup_dir, card_to_write, carry_out, say, shown


def backup_card(args: Args, report: Report, progress: Progress | None) -> int:
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


def _chosen(args: Args, seen: Look, *, unfinished: bool) -> Journal:
    return (
        load(Path(args.backup)) if args.backup else recover.find_backup(backup_dir(args), seen, unfinished=unfinished)
    )


def _look_again(args: Args, disk: Disk, report: Report) -> Look:
    """Look at a card in the middle of an operation: where it does not show its layout any more, the backup does."""
    if args.layout is None and args.backup:
        args.layout = load(Path(args.backup)).layout
    elif args.layout is None:
        args.layout = recover.layout_of_backup(backup_dir(args), disk)
    with open_target(disk, write=False) as target:
        seen = look(target, disk, args.layout, whole=False)
    shown(args, seen, report)
    return seen


def restore_card(args: Args, report: Report, progress: Progress | None) -> int:
    """Put back what an operation changed."""
    disk = card_to_write(args, report)
    seen = _look_again(args, disk, report)
    old = _chosen(args, seen, unfinished=False)
    say([f"from the backup {old.folder} ({old.verb})"], args)
    job = recover.restore(seen, old)
    notes = {
        "zero": ["note: the data the counts describe is gone, so the counts stay zero"],
        "left": ["note: the card was used since, so its counts are left as they are"],
    }
    say(notes.get(job.about["counts"], []), args)
    carry_out(args, job, report, progress)
    return DONE


def resume_card(args: Args, report: Report, progress: Progress | None) -> int:
    """Finish an interrupted operation."""
    disk = card_to_write(args, report)
    seen = _look_again(args, disk, report)
    old = _chosen(args, seen, unfinished=True)
    if seen.disk.size != old.card["size"]:
        raise RefusedError(
            f"the interrupted operation was on a card of {old.card['size']} bytes, this one has {seen.disk.size}"
        )
    say([f"finishes {old.verb} of {old.folder.name}, which ended at {old.phase}"], args)
    carry_out(args, recover.resume(seen, old, discard=args.discard_recording), report, progress)
    old.write("done")
    return DONE
