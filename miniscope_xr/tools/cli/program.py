"""The command line, ``miniscope-xr``.

Exit codes: 0 done, 2 bad value or usage, 3 refused, 4 busy or no permission, 5 failed with the card unchanged,
6 failed with the card changed, 7 the check found problems.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence

from miniscope_xr._version import __version__
from miniscope_xr.errors import MiniscopeError
from miniscope_xr.tools import archive
from miniscope_xr.tools.cli import copying, demo, read, write
from miniscope_xr.tools.flash import commands as flash_commands
from miniscope_xr.tools.flash.errors import FAILED, exit_code


def build_parser() -> argparse.ArgumentParser:
    """The parser with every command."""
    parser = argparse.ArgumentParser(
        prog="miniscope-xr",
        description="Read, prepare and check the SD cards of wire-free UCLA Miniscopes.",
        epilog="`miniscope-xr COMMAND --help` explains a command.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in (read, write, archive, flash_commands, copying, demo):
        module.register(commands)
    return parser


def message_of(error: BaseException) -> str:
    """One line for a person: no errno, the path first."""
    path, text = getattr(error, "filename", None), getattr(error, "strerror", None)
    return f"{path}: {text}" if path and text else str(text or error)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    args = build_parser().parse_args(argv)
    try:
        code = int(args.func(args))
        sys.stdout.flush()
        return code
    except MiniscopeError as error:
        print(f"miniscope-xr {args.command}: {message_of(error)}", file=sys.stderr)
        return exit_code(error)
    except KeyboardInterrupt:
        print(f"miniscope-xr {args.command}: interrupted", file=sys.stderr)
        return FAILED
    except BrokenPipeError:  # `miniscope-xr info card | head`
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
