"""A file that was made takes the name of the one before.

Windows refuses that while anybody has the old one open, and somebody often has for a moment: a virus scanner, the
search, another command that reads a journal. It is tried again for a while; who keeps it open is told of.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

_PATIENCE = 3.0  # seconds
_HELD = (5, 32, 33)
"""ERROR_ACCESS_DENIED (what a rename makes of a file that is open), ERROR_SHARING_VIOLATION, ERROR_LOCK_VIOLATION."""


def replace(made: Path, final: Path) -> None:
    """Give ``made`` the name ``final``, whatever had it.

    Raises
    ------
    OSError
        As ``os.replace``; on Windows after some seconds, where the old file is open in another program.
    """
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            return os.replace(made, final)  # noqa: PTH105
        except PermissionError as error:
            if not is_held(error) or time.monotonic() > until:
                raise
        time.sleep(0.05)


def is_held(error: OSError) -> bool:
    """Whether Windows refused because a file may be open in another program (or is write-protected)."""
    return sys.platform == "win32" and getattr(error, "winerror", None) in _HELD
