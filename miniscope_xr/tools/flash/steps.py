"""The steps that the writing commands share: identify the card, look at it, show it, and, once asked, carry out."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from miniscope_xr.errors import OptionError, plain
from miniscope_xr.index.old_buffers import lists_dir
from miniscope_xr.layout import Layout, builtin_layouts, load_layout
from miniscope_xr.tools.flash import ask, jobs, refuse
from miniscope_xr.tools.flash.arguments import Looking, Writing
from miniscope_xr.tools.flash.disks.base import Disk
from miniscope_xr.tools.flash.disks.find import identify
from miniscope_xr.tools.flash.files import refuse_strangers
from miniscope_xr.tools.flash.journal import default_dir
from miniscope_xr.tools.flash.look import Look, check_content, look, loss
from miniscope_xr.tools.flash.operation import Progress
from miniscope_xr.tools.flash.progress import clear
from miniscope_xr.tools.flash.settings import Settings, check_words
from miniscope_xr.tools.flash.target.open import open_target

Said = dict[str, Any]


class _Json(Protocol):
    """Whether a command is to print one JSON object."""

    @property
    def json(self) -> bool: ...


def say(lines: Iterable[str], args: _Json) -> None:
    """To the terminal; with ``--json`` to stderr, where it does not mix with the result."""
    clear()
    for line in lines:
        print(plain(line), file=sys.stderr if args.json else sys.stdout)


def card_to_write(args: Writing, report: Said) -> Disk:
    """Identify the card and refuse what its identity speaks against."""
    size = expected_size(args)  # a value that would not do for any card is told before the card is looked at
    disk = identify(args.device)
    report["device"] = disk.to_json()
    refuse.check(disk, image=args.image, expect_size=size)
    ask.check_card_option(args.card, args.yes, disk.card_id)
    return disk


def expected_size(args: Writing) -> int | None:
    """Read ``--expect-size``."""
    return refuse.parse_size(args.expect_size) if args.expect_size else None


def check_values(args: Writing, settings: Sequence[str] = ()) -> None:
    """Check everything that was typed before the card is looked at.

    Raises
    ------
    SettingsError, OptionError, LayoutError
        It would not do for any card.
    """
    expected_size(args)
    layouts: Iterable[Layout] = [load_layout(args.layout)] if args.layout else builtin_layouts().values()
    check_words(list(layouts), settings)


def look_to_write(disk: Disk, layout: str | None, progress: Progress | None, *, whole: bool = True) -> Look:
    """Look at what is going to be written to: a card, not a file that is something else."""
    with open_target(disk, write=False) as target:
        seen = look(target, disk, layout, progress, whole=whole)
        refuse_strangers(target, seen)
    return seen


def look_at(args: Writing, disk: Disk, progress: Progress | None, *, writes_data: bool, whole: bool = True) -> Look:
    """Look at the card, and refuse what is on it; ``--dry-run`` says what would be refused for a recording."""
    seen = look_to_write(disk, args.layout, progress, whole=whole)
    check_content(
        seen, discard=args.discard_recording, writes_data=writes_data, verb=args.command, dry_run=args.dry_run
    )
    refused = loss(seen, args.discard_recording, args.command) if writes_data or seen.foreign else None
    if args.dry_run and refused:
        say([f"without --dry-run this is refused: {refused}"], args)
    return seen


def carry_out(args: Writing, job: jobs.CardJob, report: Said, progress: Progress | None) -> None:
    """Show, ask, do."""
    report["changes"] = list(ask.describe_changes(list(job.changes)))
    seconds = max(ask.estimate(job.changes, job.seen.data_end, job.prove), 1)
    say([*report["changes"], f"takes up to about {seconds:.0f} s at 20 MB/s, reading and reading back included"], args)
    if args.dry_run:
        report["phase"] = "dry run"
        say(["dry run: nothing is written"], args)
        return
    ask.confirm(job.seen.disk.card_id, args.yes)
    journal = jobs.execute(job, backup_dir(args), image=args.image, expect_size=expected_size(args), progress=progress)
    report.update(phase="done", card_changed=journal.changed, backup=str(journal.folder))
    listed = journal.about.get("list")
    if listed and Path(listed).parent != lists_dir():
        usual = f"readers look for lists of old data in {lists_dir()}, where nothing can be written"
        say([f"note: {usual}: copy {listed} there"], args)
    say([f"done and verified; backup in {journal.folder}"], args)


def backup_dir(args: Looking) -> Path:
    """Return where backups go."""
    if args.backup_dir and "\0" in args.backup_dir:
        raise OptionError("--backup-dir: no folder can have a null byte in its name")
    return Path(args.backup_dir) if args.backup_dir else default_dir()


def shown(args: Looking, seen: Look, report: Said, settings: Settings | None = None) -> None:
    """Show the card, and its settings old and new."""
    report["layout"] = seen.layout.id
    report["recording"] = seen.recorded.recording if seen.has_recording else None
    say(ask.show_card(seen), args)
    if settings is not None:
        report["settings"] = dict(settings.values)
        report["notes"] = list(settings.notes)
        say(ask.show_settings(seen, settings), args)
        say([f"note: {note}" for note in settings.notes], args)
