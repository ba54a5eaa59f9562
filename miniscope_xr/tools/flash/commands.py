"""The commands of the command line that prepare and check cards: ``register`` adds them to a parser."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from miniscope_xr.errors import MiniscopeError, at_the_shell, message_of, plain
from miniscope_xr.tools.flash import arguments, backups, interrupts, qualifying, verbs
from miniscope_xr.tools.flash.errors import DONE, FAILED, InterruptedWriteError, exit_code
from miniscope_xr.tools.flash.operation import Progress
from miniscope_xr.tools.flash.progress import bars
from miniscope_xr.tools.flash.steps import Said
from miniscope_xr.tools.stream.arguments import Asked, anywhere, taken

Command = Callable[[Asked, Said, Progress | None], int]
Namespace = argparse.Namespace


def guarded(kind: type[Asked], command: Command[Asked]) -> Callable[[Namespace], int]:
    """Run a command: errors become one message and an exit code, ``--json`` one object."""

    def run(args: Namespace) -> int:
        report: Said = {"exit": DONE, "phase": "look", "card_changed": False, "backup": None, "device": None}
        with interrupts.caught():
            try:
                with bars(args.json) as progress:
                    report["exit"] = command(taken(kind, args), report, progress)
            except KeyboardInterrupt:  # while a card is written it ends as an InterruptedWriteError
                report.update(exit=FAILED, error="interrupted; the card was not changed")
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

    return run


def _last_words(args: Namespace, report: Said) -> None:
    if args.json:
        print(json.dumps(report, indent=1))
    if "error" in report:
        said = at_the_shell(str(report["error"]), lambda name: hasattr(args, name))
        print(plain(f"miniscope-xr {args.command}: {said}"), file=sys.stderr)


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "device", metavar="CARD", help="device of the card (see `list`) or, with --image, an image file"
    )
    parser.add_argument("--layout", help="id or file of the card's layout, where the card does not tell it")
    parser.add_argument("--card", metavar="ID", help="card id that must be in this device")
    parser.add_argument("--image", action="store_true", help="allow an image file or a loop device")
    parser.add_argument("--dry-run", action="store_true", help="open read-only, show what would be written")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--backup-dir", metavar="DIR", help="folder for backups and journals")


def _writing(parser: argparse.ArgumentParser) -> None:
    _common(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask; needs --card")
    parser.add_argument(
        "--expect-size", metavar="SIZE", help="allow a card of this size (for example 512G) above 256 GB"
    )
    parser.add_argument("--discard-recording", metavar="ID", help="allow to lose the recording with this id")


def _settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "settings",
        nargs="*",
        metavar="NAME=VALUE",
        help="for example gain=2x record_length=1h30m (also 5400, 90min, 1:30:00); what you do not name stays as it is",
    )
    parser.add_argument("--preset", metavar="NAME", help="settings kept by `preset save`; those typed here count more")
    parser.add_argument(
        "--no-stamp", action="store_true", help="leave the session id and checksum out of bytes 128-511"
    )
    anywhere(parser, "settings")


def _add(
    subparsers: Any, name: str, kind: type[Asked], command: Command[Asked], text: str,
    *parts: Callable[[argparse.ArgumentParser], None],
) -> Any:  # fmt: skip
    """Add one command, which takes the options of some ``parts``; returns its parser, for its own."""
    parser = subparsers.add_parser(name, help=text, description=text, allow_abbrev=False)
    for part in parts:
        part(parser)
    parser.set_defaults(func=guarded(kind, command), command=name)
    return parser


def register(subparsers: Any) -> None:
    """Add the commands to an argparse subparsers object; each sets ``func``, which returns the exit code."""
    add = partial(_add, subparsers)
    parser = add("list", arguments.Listing, verbs.list_cards, "show the cards in this computer's readers")
    parser.add_argument("--all", action="store_true", help="every disk, and why it is not a card")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser = add(
        "prepare",
        arguments.Preparing,
        verbs.prepare_card,
        "wipe old data and write the settings of the next recording",
        _writing,
        _settings,
    )
    parser.add_argument(
        "--keep",
        action="store_true",
        help="keep the data but for its first sector; save a list of it, so that a reader tells old from new",
    )
    parser.add_argument(
        "--wipe-minutes", type=float, metavar="M", help="wipe room for M minutes instead of record_length"
    )
    add("set", arguments.Setting, verbs.set_card, "change settings only", _writing, _settings)
    parser = add(
        "wipe", arguments.Wiping, verbs.wipe_card, "zero the recording and its counts; the settings stay", _writing
    )
    parser.add_argument("--whole", action="store_true", help="to the end of the card, not only the recording")
    text = "remove a partition table or file system in front of the settings"
    add("blank-table", arguments.Writing, verbs.blank_table, text, _writing)
    text = "save the settings and first sectors on this computer"
    add("backup", arguments.Looking, backups.backup_card, text, _common)
    for parser in (
        add("restore", arguments.Recovering, backups.restore_card, "put back what an operation changed", _writing),
        add("resume", arguments.Recovering, backups.resume_card, "finish an interrupted operation", _writing),
    ):
        parser.add_argument("--backup", metavar="PATH", help="folder of the backup; else the newest of this card")
    text = "will this (empty) card drop frames, is its capacity real"
    parser = add("qualify", arguments.Qualifying, qualifying.qualify_card, text, _writing)
    parser.add_argument("--seconds", type=float, default=60, help="how long to write as the Miniscope does (60)")
    parser.add_argument("--full", action="store_true", help="write as long as the planned recording")
    parser.add_argument("--plot", metavar="FILE", help="picture of the write latencies (needs matplotlib)")
