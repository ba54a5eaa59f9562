"""Ctrl+C and polite kills while a card is written: noticed between two steps, so that the last words are true.

A signal that raised wherever the program happens to be could hit between the write and the note that something was
written, or in the middle of saying how the card is now; a second one always could. So from before the first write to
after the last word signals are only noted (:func:`held`), and the operation asks for them where it can stop
(:func:`check`). A signal that arrives after everything is done changes nothing any more: what is done is done.
"""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Iterator
from types import FrameType

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
_SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))
"""Ctrl+C, a polite kill, a terminal that was closed (or a connection that broke); Windows' Ctrl+Break, its polite kill.
"""


_INSISTED = 0.5  # seconds from the first signal; a key that is held down repeats itself sooner


class _State:
    """Signals are a thing of the whole process, so there is one of these."""

    held = 0
    pending = False
    arrived = ""
    since = math.inf
    insisted = False
    told = False


def _note(number: int, frame: FrameType | None) -> None:
    """Interrupt at once, but only once, and not while a card is written."""
    first, _State.pending = not _State.pending, True
    _State.arrived = _State.arrived or signal.Signals(number).name
    _State.since = min(_State.since, time.monotonic())
    _State.insisted = _State.insisted or time.monotonic() - _State.since > _INSISTED
    if first and not _State.held:
        raise KeyboardInterrupt


@contextlib.contextmanager
def caught() -> Iterator[None]:
    """Make the other signals interrupts too; of several signals only the first raises, so that its handling is whole.

    One that is ignored stays so: `nohup`, or a script that runs this in the background, wants it to go on.
    """
    previous = {}
    if not _State.held:
        _State.pending = _State.told = False
    try:
        for number in _SIGNALS:
            before = signal.getsignal(number)
            if before is None or before is signal.SIG_IGN:
                continue
            previous[number] = signal.signal(number, _note)
            if before is not _note:
                _State.arrived, _State.since, _State.insisted = "", math.inf, False
    except ValueError:  # not the main thread: signals never arrive here
        pass
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Let no signal raise inside, except where :func:`check` is called."""
    with caught():
        _State.held += 1
        try:
            yield
        finally:
            _State.pending = _State.pending or _State.held == 1  # only the last words are left: none raises any more
            _State.held -= 1


def hold() -> None:
    """Let no signal raise any more until the enclosing :func:`caught` ends: the command's last words are said."""
    _State.pending = _State.told = True


def told() -> bool:
    """Whether a command has begun to say its last words: an interrupt makes nothing of them untrue any more."""
    return _State.told


def arrived() -> str:
    """Return the name of the first signal that asked the command to end, also where it was told of it; else empty."""
    return _State.arrived


def insisted() -> bool:
    """Whether somebody pressed Ctrl+C again after a moment: then they do not want to wait for what is put back."""
    return _State.insisted


def ask() -> bool:
    """Stop what is being written, as a signal would: between two steps, with true last words. From any thread.

    Returns
    -------
    bool
        False where nothing is being written.
    """
    if _State.held:
        _State.pending = True
    return bool(_State.held)


def check() -> None:
    """Raise if a signal arrived meanwhile; called between two steps of writing.

    Raises
    ------
    KeyboardInterrupt
        One did. It is told once.
    """
    if _State.held and _State.pending:
        _State.pending = False
        raise KeyboardInterrupt


def again() -> None:
    """Let a signal raise again after :func:`held`, where there is other work than its last words."""
    if not _State.held:
        _State.pending = False
