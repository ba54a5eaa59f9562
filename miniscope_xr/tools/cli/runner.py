"""Where every command begins and ends: one line for a person instead of a traceback, and the exit code.

Whatever goes wrong, the shell sees one sentence on stderr without Python in it. ``MINISCOPE_XR_TRACEBACK=1`` in the
environment shows where an error came from.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import traceback
import warnings
from typing import Any

from miniscope_xr.errors import MiniscopeError, at_the_shell, message_of, plain
from miniscope_xr.tools.cli.next_step import next_step
from miniscope_xr.tools.flash.errors import FAILED, exit_code

EXIT_CODES = {
    0: "done",
    2: "a wrong option, value or name",
    3: "refused: this could hurt something, or is no card",
    4: "busy, or no permission",
    5: "failed; the card was not changed",
    6: "failed; the card was changed, `resume` or `restore` goes on from there",
    7: "done, and the check found problems",
}
TRACEBACK = "MINISCOPE_XR_TRACEBACK"


def say_line(text: str) -> None:
    """Print a line on stderr, if there is one and it takes it."""
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr)


def prepare_streams() -> None:
    """Let names that a terminal's encoding lacks be printed, escaped, instead of ending a command."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure: Any = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def say_warnings(command: str) -> None:
    """Have what this package or a library warns of said in one line, without a place in a program and its line.

    What is for programmers (a feature that will go, an invalid value in a division) is not said.
    """

    def note(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        if issubclass(category, UserWarning):
            say_line(plain(f"miniscope-xr {command}: note: {' '.join(str(message).split())}"))

    warnings.showwarning = note


def _print_error(error: Exception, args: argparse.Namespace) -> None:
    """Print an error as the one JSON object of a command; a closed pipe takes none."""
    with contextlib.suppress(OSError, ValueError):
        print(json.dumps({"error": type(error).__name__, "message": _sentence(error, args)}, indent=1), flush=True)


def run(args: argparse.Namespace) -> int:
    """Run the command of parsed arguments; returns its exit code."""
    try:
        code = int(args.func(args))
        if sys.stdout is not None:
            sys.stdout.flush()
        _drop_broken()
        return code
    except KeyboardInterrupt:
        say_line(f"miniscope-xr {args.command}: interrupted")
        return FAILED
    except BrokenPipeError:  # `miniscope-xr info card | head`
        _drop(sys.stdout)
        return 0
    except Exception as error:
        if os.environ.get(TRACEBACK):
            traceback.print_exc()
        _drop_broken()
        if getattr(args, "json", False):  # who reads the output reads JSON, also of a card that cannot be opened
            _print_error(error, args)
        say_line(plain(f"miniscope-xr {args.command}: {_sentence(error, args)}"))
        _drop_broken()
        return exit_code(error)


def _sentence(error: Exception, args: argparse.Namespace) -> str:
    """One line about an error: ours in its own words, the system's in the system's, a fault of ours as one."""
    if isinstance(error, MiniscopeError):
        said = at_the_shell(message_of(error), lambda name: hasattr(args, name))
        then = next_step(error, str(getattr(args, "card", "")))
        return f"{said}. {then}" if then else said
    if isinstance(error, MemoryError):
        return "this computer has not enough memory for it"
    if isinstance(error, OSError):
        return message_of(error)
    where = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"a fault of miniscope-xr ({type(error).__name__} in {os.path.basename(where.filename)}, "  # noqa: PTH119
        f"line {where.lineno}), not of your card; please report it with what {TRACEBACK}=1 miniscope-xr "
        f"{args.command} ... prints"
    )


def _drop(stream: Any) -> None:
    """Send what is left for a closed or full stream nowhere, so that the interpreter's end is silent, its code ours."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _drop_broken() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            _drop(stream)
