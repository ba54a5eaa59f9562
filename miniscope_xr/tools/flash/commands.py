"""The commands of the command line that prepare and check cards: ``register`` adds them to a parser."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from miniscope_xr.errors import MiniscopeError, at_the_shell, message_of, plain
from miniscope_xr.tools.flash import arguments, backups, interrupts, qualifying, verbs
from miniscope_xr.tools.flash.errors import DONE, FAILED, InterruptedWriteError, exit_code
from miniscope_xr.tools.flash.operation import Progress
from miniscope_xr.tools.flash.progress import bars
from miniscope_xr.tools.flash.steps import Said
from miniscope_xr.tools.stream.arguments import Asked, anywhere, declare, taken

Command = Callable[[Asked, Said, Progress | None], int]
Namespace = argparse.Namespace


def guarded(
    parser: argparse.ArgumentParser, kind: type[Asked], command: Command[Asked],
    stopped: str = "the card was not changed",
) -> None:  # fmt: skip
    """Give a command's parser its arguments; errors become one message and an exit code, ``--json`` one object.

    ``stopped`` is what there is to say of a command that was interrupted.
    """

    def run(args: Namespace) -> int:
        report: Said = {"exit": DONE, "phase": "look", "card_changed": False, "backup": None, "device": None}
        with interrupts.caught():
            try:
                with bars(args.json) as progress:
                    report["exit"] = command(taken(kind, args), report, progress)
            except KeyboardInterrupt:  # while a card is written it ends as an InterruptedWriteError
                report.update(exit=FAILED, error=f"interrupted; {stopped}")
            except (MiniscopeError, OSError) as error:
                report.update(exit=exit_code(error), error=message_of(error))
                report.update(getattr(error, "facts", {}))
                if isinstance(error, InterruptedWriteError):
                    report.update(
                        card_changed=error.card_changed, phase=error.phase, backup=str(Path(error.journal).parent)
                    )
            interrupts.hold()
            _last_words(args, report)
        return int(report["exit"])

    declare(parser, kind)
    parser.set_defaults(func=run, command=parser.prog.split()[-1])


def _last_words(args: Namespace, report: Said) -> None:
    if args.json:
        print(json.dumps(report, indent=1))
    if "error" in report:
        said = at_the_shell(str(report["error"]), lambda name: hasattr(args, name))
        print(plain(f"miniscope-xr {args.command}: {said}"), file=sys.stderr)


def register(subparsers: Any) -> None:
    """Add the commands to an argparse subparsers object; each sets ``func``, which returns the exit code."""

    def add(name: str, kind: type[Asked], command: Command[Asked], text: str) -> Any:
        parser = subparsers.add_parser(name, help=text, description=text, allow_abbrev=False)
        guarded(parser, kind, command)
        return parser

    add("list", arguments.Listing, verbs.list_cards, "show the cards in this computer's readers")
    text = "wipe old data and write the settings of the next recording"
    anywhere(add("prepare", arguments.Preparing, verbs.prepare_card, text), "settings")
    anywhere(add("set", arguments.Setting, verbs.set_card, "change settings only"), "settings")
    add("wipe", arguments.Wiping, verbs.wipe_card, "zero the recording and its counts; the settings stay")
    text = "remove a partition table or file system in front of the settings"
    add("blank-table", arguments.Writing, verbs.blank_table, text)
    add("backup", arguments.Looking, backups.backup_card, "save the settings and first sectors on this computer")
    add("restore", arguments.Recovering, backups.restore_card, "put back what an operation changed")
    add("resume", arguments.Recovering, backups.resume_card, "finish an interrupted operation")
    text = "will this (empty) card drop frames, is its capacity real"
    add("qualify", arguments.Qualifying, qualifying.qualify_card, text)
