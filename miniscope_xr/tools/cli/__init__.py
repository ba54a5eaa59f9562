"""The command line, ``miniscope-xr``."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import NoReturn

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
    try:
        with _ended_by_interrupts():
            # start-up time: an interrupt while these are imported ends here
            from miniscope_xr.tools.cli.program import main as run
            from miniscope_xr.tools.cli.program import registering

            registering(argv)
    except KeyboardInterrupt:
        _nothing_was_begun()
    return run(argv)


@contextlib.contextmanager
def _ended_by_interrupts() -> Iterator[None]:
    """End the process on Ctrl+C at once: raised in the middle of an import, a library may catch it and go on."""
    previous = signal.getsignal(signal.SIGINT)
    ours = threading.current_thread() is threading.main_thread() and previous is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, _nothing_was_begun)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, previous)


def _nothing_was_begun(*_: object) -> NoReturn:
    if sys.stderr is not None:
        print("miniscope-xr: interrupted; nothing was begun", file=sys.stderr, flush=True)
    os._exit(5)  # half-imported modules are no ground to tidy up on
