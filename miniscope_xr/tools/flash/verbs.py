"""What each command does: look, show, ask, carry out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from miniscope_xr.errors import OptionError
from miniscope_xr.layout import Layout, builtin_layouts
from miniscope_xr.tools.flash import jobs, prepare, presets, refuse
from miniscope_xr.tools.flash.arguments import Listing, Preparing, Setting, Wiping, Writing
from miniscope_xr.tools.flash.disks.find import present
from miniscope_xr.tools.flash.errors import DONE
from miniscope_xr.tools.flash.look import Look, loss
from miniscope_xr.tools.flash.operation import Progress
from miniscope_xr.tools.flash.plan import Plan, make_plan, possible_builds
from miniscope_xr.tools.flash.settings import Settings, parse_settings
from miniscope_xr.tools.flash.steps import Said, card_to_write, carry_out, check_values, look_at, say, shown

Set = TypeVar("Set", bound=Setting)


def _check_minutes(args: Preparing) -> None:
    minutes = args.wipe_minutes
    if minutes is not None and not 0 < minutes < math.inf:
        raise OptionError(
            f"--wipe-minutes {minutes:g}: expected more than 0; `wipe --whole` clears a card to its end, `prepare "
            "--keep` wipes nothing"
        )
    if minutes is not None and args.keep:
        raise OptionError("--keep wipes nothing, so --wipe-minutes has no meaning with it; leave one of them out")


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
