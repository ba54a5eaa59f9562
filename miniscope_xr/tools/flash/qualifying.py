"""The command ``qualify``: look at the card, write to it as a Miniscope does, leave it as it was, say how it did."""

from __future__ import annotations

import errno
import time
from pathlib import Path

from miniscope_xr.errors import MiniscopeError, OptionError, OutputError
from miniscope_xr.tools.flash import ask, history, interrupts, jobs, prepare, probe, qualify, ring, verdict
from miniscope_xr.tools.flash.arguments import Qualifying
from miniscope_xr.tools.flash.errors import DONE, InterruptedWriteError, RefusedError
from miniscope_xr.tools.flash.journal import Journal
from miniscope_xr.tools.flash.look import Look
from miniscope_xr.tools.flash.operation import Change, Progress
from miniscope_xr.tools.flash.plan import Plan, make_plan
from miniscope_xr.tools.flash.steps import (
    Said,
    backup_dir,
    card_to_write,
    check_values,
    expected_size,
    look_at,
    say,
    shown,
)
from miniscope_xr.tools.flash.target.base import Target
from miniscope_xr.tools.stream.libraries import need
from miniscope_xr.tools.stream.outputs import output_errors, refuse_existing

_PATIENCE = 0.5
"""Seconds that an interrupted test may take to leave the card as it was."""


def qualify_card(args: Qualifying, report: Said, progress: Progress | None) -> int:
    """Measure whether the card keeps up with the recording, and whether its capacity is real."""
    qualify.check_seconds(args.seconds)
    check_values(args)
    if args.plot:
        _check_picture(Path(args.plot))
    disk = card_to_write(args, report)
    seen = look_at(args, disk, progress, writes_data=False)
    _refuse_recorded(args, seen)
    values = {name: f.default or 0 for name, f in seen.layout.header.items()}
    if seen.contents.prepared:
        values = dict(seen.contents.settings)
    plan = make_plan(seen.layout, values, seen.contents.counts, disk.size)
    seconds = float(plan.seconds or plan.fits_seconds) if args.full else args.seconds
    shown(args, seen, report)
    say([plan.describe()], args)
    changes = qualify.changes_for(plan, seconds)
    report["changes"] = [*ask.describe_changes(changes[:1]), f"{len(changes) - 1} probes up to the card's end"]
    say(
        [
            *report["changes"],
            f"takes about {seconds:.0f} s, and up to two minutes to probe the capacity; all of it is zero again after",
        ],
        args,
    )
    if args.dry_run:
        report["phase"] = "dry run"
        say(["dry run: nothing is written"], args)
        return DONE
    ask.confirm(disk.card_id, args.yes)
    with jobs.reopen(seen, image=args.image, expect_size=expected_size(args)) as target:
        qualify.check_empty(target, changes, progress)
        journal = jobs.backup(seen, backup_dir(args), target, "qualify", changes)
        journal.write("intent")
        report["backup"] = str(journal.folder)
        with interrupts.held():
            stalls, wrong = _test_and_clean(target, plan, seconds, changes, seen, journal, progress)
            journal.write("done")
    return _report(args, report, stalls, wrong, plan, journal)


def _refuse_recorded(args: Qualifying, seen: Look) -> None:
    if not seen.has_recording:
        return
    refused = RefusedError(
        f"{seen.disk.path} holds a {seen.lost()}; qualify needs an empty card: copy it with `image`, then `prepare` it",
        recording=seen.recorded.recording,
    )
    if not args.dry_run:
        raise refused
    say([f"without --dry-run this is refused: {refused}"], args)


def _test_and_clean(
    target: Target, plan: Plan, seconds: float, changes: list[Change], seen: Look, journal: Journal,
    progress: Progress | None,
) -> tuple[ring.Stalls, list[int]]:  # fmt: skip
    written = qualify.Written(target)
    try:
        stalls, wrong = _test(written, plan, seconds, progress)
        qualify.clean(target, changes, (seen.block_offset, seen.block), seen.start)
    except (Exception, KeyboardInterrupt) as error:
        what = "interrupted" if isinstance(error, KeyboardInterrupt) else getattr(error, "strerror", None) or str(error)
        if isinstance(error, KeyboardInterrupt) and _clean_after(target, written.places(), seen):
            journal.write("done")
            raise InterruptedWriteError(
                f"{what}. The test data was taken off again: the card is as it was.",
                card_changed=False, journal=str(journal.path), phase="qualify",
            ) from error  # fmt: skip
        raise InterruptedWriteError(
            f"{what}. Test data may be left on the card: `resume` removes it (journal {journal.path})",
            card_changed=True, journal=str(journal.path), phase="qualify",
        ) from error  # fmt: skip
    return stalls, wrong


def _test(target: Target, plan: Plan, seconds: float, progress: Progress | None) -> tuple[ring.Stalls, list[int]]:
    def step(name: str, done: int, total: int) -> None:
        interrupts.check()
        if progress:
            progress(name, done, total)

    seed = int.from_bytes(prepare.new_session()[:4], "big")
    wrong = probe.probe(target, qualify.positions(plan), seed, step)
    return qualify.measure(target, plan, seconds, progress=step), wrong


def _clean_after(target: Target, written: list[Change], seen: Look) -> bool:
    """After an interrupt the card still answers: leave it as it was, if that does not keep the user waiting.

    Returns
    -------
    bool
        Whether everything written is zero again. Where that takes longer than `_PATIENCE`, the rest is left to
        `resume`: who pressed Ctrl+C wants the terminal back, or the card out.
    """
    until = time.monotonic() + _PATIENCE

    def between(*_: object) -> None:
        if time.monotonic() > until:
            raise TimeoutError

    try:
        qualify.clean(target, written, (seen.block_offset, seen.block), seen.start, between)
        qualify.check_empty(target, written, between)
    except (MiniscopeError, OSError):
        return False
    return True


def _check_picture(path: Path) -> None:
    """Refuse a picture that could not be made, before a minute of writing and not after it."""
    kinds = need("matplotlib.figure", "plot", "the picture").Figure().canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in kinds:
        raise OptionError(f"--plot {path.name}: the name of a picture ends in .{', .'.join(sorted(kinds))}")
    refuse_existing(path, False)
    if not path.parent.is_dir():
        raise OutputError(errno.ENOENT, "there is no such folder; give another name for the picture", str(path.parent))


def _report(args: Qualifying, report: Said, stalls: ring.Stalls, wrong: list[int], plan: Plan, journal: Journal) -> int:
    risk = qualify.risk_of(stalls, plan)
    say([*stalls.describe(), *verdict.histogram(stalls), risk.describe()], args)
    found = verdict.verdict(stalls, wrong, plan.size, risk)
    run = history.QualifyRun.of(stalls, plan, wrong, risk, passed=not found)
    slower = history.compare(run, history.earlier(journal.folder))
    run.keep(journal.folder)
    report.update(
        phase="done", passed=not found, reasons=found, writes=len(stalls.latencies), dropped=stalls.dropped,
        overwritten=stalls.overwritten, longest_ms=float(1000 * stalls.latencies.max()), bridge_ms=1000 * stalls.bridge,
        fake_at=wrong[:1], risk=risk.to_json(), slower=slower,
    )  # fmt: skip
    say([f"slower than before: {text}" for text in slower], args)
    if args.plot:
        with output_errors(Path(args.plot)):
            verdict.draw(stalls, Path(args.plot))
    verdict.complain(found)
    say(["pass: it kept up with the recording, and its capacity is real"], args)
    return DONE
