"""The command line, ``miniscope-xr``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from miniscope_xr.tools.cli.ctrl_c import CtrlC

if TYPE_CHECKING:
    import argparse

__all__ = ["build_parser", "main"]


def build_parser(argv: Sequence[str] | None = ()) -> argparse.ArgumentParser:
    """The parser with every command, or with the one that ``argv`` begins with."""
    # start-up time: see main
    from miniscope_xr.tools.cli.program import build_parser

    return build_parser(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (see :func:`miniscope_xr.tools.cli.program.main`).

    Importing a command takes up to a second. Ctrl+C in that second ends with the same one line as later.
    """
    ctrl_c = CtrlC(own=argv is None)
    ctrl_c.begins()
    try:
        # start-up time: an interrupt while these are imported ends here
        from miniscope_xr.tools.cli.program import parsed
        from miniscope_xr.tools.cli.runner import run, say_warnings

        args = parsed(argv)
        if argv is None:
            say_warnings(args.command)
    except KeyboardInterrupt:
        ctrl_c.end()
    except SystemExit as left:  # argparse's own way to leave
        ctrl_c.runs("")
        ctrl_c.done(int(left.code or 0))
        raise
    ctrl_c.runs(args.command)
    try:
        return ctrl_c.done(run(args))
    except KeyboardInterrupt:
        if argv is not None:
            raise
        ctrl_c.end()
