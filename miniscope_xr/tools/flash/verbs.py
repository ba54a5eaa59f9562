"""What each command does: look, show, ask, carry out."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from miniscope_xr.errors import OptionError, plain
from miniscope_xr.index.old_buffers import lists_dir
from miniscope_xr.layout import Layout, builtin_layouts, load_layout
from miniscope_xr.tools.flash import ask, jobs, prepare, presets, refuse
from miniscope_xr.tools.flash.arguments import Listing, Looking, Preparing, Setting, Wiping, Writing
from miniscope_xr.tools.flash.disks.base import Disk
from miniscope_xr.tools.flash.disks.find import identify, present
from miniscope_xr.tools.flash.errors import DONE
from miniscope_xr.tools.flash.files import refuse_strangers
from miniscope_xr.tools.flash.journal import default_dir
from miniscope_xr.tools.flash.look import Look, check_content, look, loss
from miniscope_xr.tools.flash.operation import Progress
from miniscope_xr.tools.flash.plan import Plan, make_plan, possible_builds
from miniscope_xr.tools.flash.progress import clear
from miniscope_xr.tools.flash.settings import Settings, check_words, parse_settings
from miniscope_xr.tools.flash.target.linux import open_target

Said = dict[str, Any]
Set = TypeVar("Set", bound=Setting)


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


def _check_minutes(args: Preparing) -> None:
    minutes = args.wipe_minutes
    if minutes is not None and not 0 < minutes < math.inf:
        raise OptionError(
            f"--wipe-minutes {minutes:g}: expected more than 0; `wipe --whole` clears a card to its end, `prepare "
            "--keep` wipes nothing"
        )
    if minutes is not None and args.keep:
        raise OptionError("--keep wipes nothing, so --wipe-minutes has no meaning with it; leave one of them out")


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


def rivals(seen: Look, named: str | None) -> list[Layout]:
    """Return what else may run in the Miniscope this card is for: other builds, and layouts with the same sectors.

    The card tells its build where something was recorded; the user tells the layout where one is named.
    """
    layout = seen.layout
    if layout.build is not None:
        return []
    builds = possible_builds(layout, seen.contents.counts)
    found = [layout.of(build) for build in builds[1:] if not build.unsupported]
    if named is None:
        same = [known for known in builtin_layouts().values() if known.sectors == layout.sectors]
        found += [known.of(build) for known in same if known.id != layout.id for build in known.builds]
    return found


def _plan(args: Setting, seen: Look, values: Mapping[str, int]) -> Plan:
    asked = any(word.startswith(("record_length=", "fs=", "ewl_scan")) for word in args.settings)
    return make_plan(
        seen.layout, values, seen.contents.counts, seen.disk.size, must_fit=asked or seen.disk.kind != "image"
    )


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


@dataclass(frozen=True)
class Prepared:
    """What `prepare` is going to do, before anything is written: the settings, the recording planned, the changes."""

    settings: Settings
    plan: Plan
    end: int
    """Byte behind what is wiped."""
    job: jobs.CardJob

    def said(self) -> list[str]:
        """What comes before the changes."""
        if self.job.prove is None:
            return []
        real = self.job.prove[1] / 1e6
        return [f"first proves that the card is real up to {real:.0f} MB: marks, which are put back"]


def to_prepare(args: Preparing, seen: Look) -> Prepared:
    """Work out what `prepare` would do to a card that was looked at.

    Raises
    ------
    SettingsError
        A setting that the firmware would not understand.
    RefusedError
        The planned recording does not fit.
    """
    settings = parse_settings(seen.layout, args.settings, prepare.current_settings(seen), rivals(seen, args.layout))
    plan = _plan(args, seen, settings.values)
    wiped = plan if args.wipe_minutes is None else replace(plan, seconds=max(1, round(args.wipe_minutes * 60)))
    job = prepare.prepare(seen, settings, wiped, keep=args.keep, stamp=not args.no_stamp)
    if not args.keep:
        job = replace(job, prove=prepare.region_to_prove(seen, plan))
    return Prepared(settings, plan, wiped.end, job)


def with_preset(args: Set) -> Set:
    """Return what was asked for with the settings of ``--preset`` filled in; what was typed counts more.

    Raises
    ------
    OptionError
        There is no such preset.
    """
    if args.preset is None:
        return args
    kept = presets.settings_preset(args.preset)
    typed = {word.partition("=")[0] for word in args.settings}
    words = [word for word in kept.words if word.partition("=")[0] not in typed]
    return replace(args, layout=args.layout or kept.layout or None, settings=[*words, *args.settings])


def prepare_card(args: Preparing, report: Said, progress: Progress | None) -> int:
    """Wipe old data, then write the settings."""
    args = with_preset(args)
    check_values(args, args.settings)
    _check_minutes(args)
    disk = card_to_write(args, report)
    seen = look_at(args, disk, progress, writes_data=not args.keep)
    ready = to_prepare(args, seen)
    shown(args, seen, report, ready.settings)
    plan = ready.plan
    report["plan"] = {"rate": plan.rate, "seconds": plan.seconds, "fits_seconds": plan.fits_seconds, "end": ready.end}
    say([plan.describe(), *ready.said()], args)
    carry_out(args, ready.job, report, progress)
    return DONE


def set_card(args: Setting, report: Said, progress: Progress | None) -> int:
    """Change settings only."""
    args = with_preset(args)
    check_values(args, args.settings)
    disk = card_to_write(args, report)
    seen = look_at(args, disk, progress, writes_data=False)
    current = prepare.current_settings(seen)
    settings = parse_settings(
        seen.layout, args.settings, seen.contents.settings if current is None else current, rivals(seen, args.layout)
    )
    plan = _plan(args, seen, settings.values)
    if seen.has_recording and args.no_stamp:
        lost = "--no-stamp: what the recording on the card was made with is not kept, it will be read with the new"
        settings = replace(settings, notes=(*settings.notes, lost))
    shown(args, seen, report, settings)
    say([plan.describe()], args)
    if not args.settings:
        place = seen.layout.sectors.header
        say([f"nothing to set: name it as NAME=VALUE, for example gain=2x; sector {place} stays as it is"], args)
        return DONE
    given_up = loss(seen, args.discard_recording, args.command) is None
    job = prepare.change_settings(seen, settings, stamp=not args.no_stamp, may_lose=given_up)
    carry_out(args, job, report, progress)
    return DONE


def wipe_card(args: Wiping, report: Said, progress: Progress | None) -> int:
    """Zero the recording and its counts."""
    check_values(args)
    disk = card_to_write(args, report)
    seen = look_at(args, disk, progress, writes_data=True)
    shown(args, seen, report)
    end = disk.size if args.whole else seen.data_end
    carry_out(args, prepare.wipe(seen, end), report, progress)
    return DONE


def blank_table(args: Writing, report: Said, progress: Progress | None) -> int:
    """Remove a partition table or file system."""
    check_values(args)
    disk = card_to_write(args, report)
    seen = look_at(args, disk, progress, writes_data=False, whole=False)
    shown(args, seen, report)
    found = seen.signatures
    say(
        [f"lost: {' and '.join(found)}, with every file in it" if found else "no partition table or file system found"],
        args,
    )
    carry_out(args, prepare.blank_table(seen), report, progress)
    return DONE


def list_cards(args: Listing, report: Said, progress: Progress | None) -> int:
    """Show the cards in the readers."""
    rows = []
    for disk in present():
        why = refuse.reasons(disk, expect_size=disk.size)
        if (why and not args.all) or not disk.size:
            continue
        rows.append({**disk.to_json(), "refused": [r.message for r in why]})
        say([disk.describe(), *(["    no: " + "; ".join(r.message for r in why)] if why else [])], args)
    if not rows:
        say(["no card found; insert one (`list --all` shows why each disk is not one)"], args)
    report.pop("device")
    report.update(phase="done", devices=rows)
    return DONE
