"""Optional libraries: the one way to need one, imported where it is used."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from miniscope_xr.errors import MissingDependencyError

_HINTS = {
    "cv2": "With an opencv-python that lacks a system library: install that library (Debian: libgl1 libglib2.0-0).",
}


@contextlib.contextmanager
def _interrupts_kept() -> Iterator[None]:
    """Tell of Ctrl+C also where a library caught it while it was imported and went on, as some do."""
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, FrameType | None]] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append((number, frame))
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            before(*came[0])


def need(module: str, extra: str, what: str = "this") -> Any:
    """Import a module of an optional library and return it.

    Parameters
    ----------
    module
        Its full name, such as ``"matplotlib.figure"``.
    extra
        The extra of this package that brings it.
    what
        What the user wanted, in the plural or not: the message begins with it.

    Raises
    ------
    MissingDependencyError
        It is not there, or does not load; the message says which extra brings it.
    """
    try:
        with contextlib.nullcontext() if module in sys.modules else _interrupts_kept():
            __import__(module)
    except ImportError as error:
        hint = _HINTS.get(module)
        raise MissingDependencyError(
            f'{what} cannot be made without {module} ({error}); install it with: pip install "miniscope-xr[{extra}]"'
            + (f". {hint}" if hint else "")
        ) from error
    return sys.modules[module]
