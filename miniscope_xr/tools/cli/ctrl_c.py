"""Ctrl+C from the first moment of a command to its last: one line, an exit code of ours, and never a lie.

While a card is written, and for its last words, :mod:`miniscope_xr.tools.flash.interrupts` has the signal instead.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from typing import Any, NoReturn

from miniscope_xr.tools.flash import interrupts

_INTERRUPTED = 5  # as in tools/flash/errors.py, whose import takes a moment in which nobody would listen
_INSISTED = 0.5  # seconds; a key that is held down repeats itself sooner


class CtrlC:
    """What Ctrl+C does to the command of this process.

    - While it begins, it ends the process: half-imported modules are no ground to tidy up on.
    - While it runs, it raises KeyboardInterrupt, once: tidying up is not interrupted by the same key. Pressed again
      after half a second, it ends the process as a kill would.
    - Once it is done, nothing: what is done is done, and the exit code says so.

    Parameters
    ----------
    own
        Whether the process is the command's own; else the signal is given back once the command has begun.
    """

    def __init__(self, own: bool) -> None:
        self._before: Any = signal.getsignal(signal.SIGINT)
        here = threading.current_thread() is threading.main_thread()
        self._heard = here and self._before is signal.default_int_handler
        self._own = own and self._heard
        self._command = ""
        self._since = 0.0
        self._raised = self._done = False

    def begins(self) -> None:
        """Take the signal over, where nobody else listens to it."""
        if self._heard:
            signal.signal(signal.SIGINT, self._came)

    def runs(self, command: str) -> None:
        """From here on there is something to tidy up."""
        if self._own:
            sys.unraisablehook = self._swallowed
            self._command = command
        elif self._heard:
            signal.signal(signal.SIGINT, self._before)

    def done(self, code: int) -> int:
        """From here on nothing is left but to leave; returns the exit code.

        After an interrupt the process ends here: to take every module apart would keep a person waiting for a second.
        """
        self._done = True
        if not self._own:
            return code
        if self._raised or interrupts.arrived():
            _flush()
            os._exit(code)
        if not at_work():  # the interpreter forgets a handler of ours on its way out, and would die by the signal then
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        return code

    def end(self) -> NoReturn:
        """Say that it was interrupted, and leave."""
        _flush()
        _leave(f"miniscope-xr {self._command}: interrupted" if self._command else _NOT_BEGUN)

    def _came(self, number: int, frame: object) -> None:
        if not self._command:
            _leave(_NOT_BEGUN)
        if self._done or interrupts.told():
            if at_work():
                os._exit(_INTERRUPTED)
            return
        first, self._raised = not self._raised, True
        if first:
            self._since = time.monotonic()
            raise KeyboardInterrupt
        if time.monotonic() - self._since > _INSISTED:
            _leave(f"miniscope-xr {self._command}: interrupted")

    def _swallowed(self, lost: Any) -> None:
        """Raise again what was raised while an object was thrown away, where Python can only report it."""
        if isinstance(lost.exc_value, KeyboardInterrupt):
            self._raised = False
            signal.raise_signal(signal.SIGINT)
        else:
            sys.__unraisablehook__(lost)


_NOT_BEGUN = "miniscope-xr: interrupted; nothing was begun"


def at_work() -> bool:
    """Whether a thread is left that the interpreter would wait for, such as one that a reader does not answer."""
    me = threading.current_thread()
    return any(thread is not me and not thread.daemon for thread in threading.enumerate())


def _leave(line: str) -> NoReturn:
    """Say a line, also where another word on the same stream is being said, and end the process."""
    with contextlib.suppress(OSError):
        over = "\r" if os.isatty(2) else ""  # the bar that stands there
        os.write(2, f"{over}{line:{79 if over else 0}}\n".encode())
    os._exit(_INTERRUPTED)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
