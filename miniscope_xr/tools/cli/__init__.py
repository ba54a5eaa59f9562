"""The command line, ``miniscope-xr``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

__all__ = ["build_parser", "main"]


def build_parser() -> argparse.ArgumentParser:
    """The parser with every command."""
    # start-up time: see main
    from miniscope_xr.tools.cli.program import build_parser

    return build_parser()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (see :func:`miniscope_xr.tools.cli.program.main`).

    Importing the commands takes a second. Ctrl+C in that second ends with the same one line as later.
    """
    try:
        # start-up time: an interrupt while these are imported is caught here
        from miniscope_xr.tools.cli.program import main as run
    except KeyboardInterrupt:
        if sys.stderr is not None:
            print("miniscope-xr: interrupted; nothing was begun", file=sys.stderr, flush=True)
        os._exit(5)  # half-imported modules are no ground to tidy up on
    return run(argv)
