"""The command line, ``miniscope-xr``: its parser and its entry point."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from miniscope_xr._version import __version__
from miniscope_xr.tools.cli import runner

_WRITING = ("list", "prepare", "set", "wipe", "blank-table", "backup", "restore", "resume", "qualify")
COMMANDS = {
    "cli.read": ("info", "check", "layouts", "simulate"), "cli.view": ("view",),
    "cli.write": ("video", "export", "report"), "cli.align": ("align",), "cli.collect": ("collect",),
    "cli.presets": ("preset",), "export.archive": ("archive",), "flash.commands": _WRITING,
    "cli.copying": ("image", "rescue"), "cli.demo": ("demo",),
}  # fmt: skip
"""The modules of ``tools`` that register commands, and which ones, in the order of the help."""


class _Formatter(argparse.HelpFormatter):
    """Help whose last paragraph, a table, keeps its lines."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" in text:
            return textwrap.indent(text, indent)
        return super()._fill_text(text, width, indent)


class Parser(argparse.ArgumentParser):
    """A parser of ours: every command's help ends with the exit codes, and options are never abbreviated.

    With abbreviations ``--ye`` would mean ``--yes``, and what a script writes today could mean another option
    tomorrow.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        codes = "\n".join(f"  {code}  {text}" for code, text in runner.EXIT_CODES.items())
        given = {"epilog": f"exit codes:\n{codes}", "formatter_class": _Formatter, "allow_abbrev": False, **options}
        super().__init__(*args, **given)

    def error(self, message: str) -> Any:
        """End with exit code 2, in words of the shell."""
        for python, plain in _PLAIN.items():
            message = message.replace(python, plain)
        super().error(message)


_PLAIN = {"invalid int value: ": "not a whole number: ", "invalid float value: ": "not a number: "}


def registering(argv: Sequence[str] | None = None) -> list[Any]:
    """Import the modules that register what was typed: all of them, or that of the one command that it begins with.

    Start-up time: half of the commands need xarray, whose import takes longer than the work of the others.
    """
    typed = sys.argv[1:2] if argv is None else argv[:1]
    homes = [home for home, names in COMMANDS.items() if {*typed} & {*names}] or COMMANDS
    return [import_module(f"miniscope_xr.tools.{home}") for home in homes]


def build_parser(argv: Sequence[str] | None = ()) -> argparse.ArgumentParser:
    """The parser with every command, or with those that :func:`registering` finds for what was typed."""
    parser = Parser(
        prog="miniscope-xr",
        description="Read, prepare and check the SD cards of wire-free UCLA Miniscopes. "
        "`miniscope-xr COMMAND --help` explains a command.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in registering(argv):
        module.register(commands)
    return parser


def parsed(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse what was typed; argparse leaves with exit code 2 where it is none of our commands."""
    runner.prepare_streams()
    return build_parser(argv).parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (2 is argparse's own way to leave).

    0 done, 2 bad value or usage, 3 refused, 4 busy or no permission, 5 failed with the card unchanged, 6 failed with
    the card changed, 7 the check found problems.
    """
    return runner.run(parsed(argv))
