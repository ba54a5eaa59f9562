r"""Where this program's own files are on this computer: backups, journals, lists of old data, presets.

A Python of the Microsoft Store does not write where it is told to: what goes to ``%LOCALAPPDATA%\miniscope-xr`` lands
in ``%LOCALAPPDATA%\Packages\<its package>\LocalCache\Local\miniscope-xr``, and only that Python sees it in the usual
place. So all of these are looked at: a card prepared with one Python is restored, and read, with another.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

NAME = "miniscope-xr"
_STORE = f"Packages/*/LocalCache/Local/{NAME}"


def data_folder() -> Path:
    """Return the folder of this user in which data is kept, as this Python names it."""
    from platformdirs import user_data_path  # costs start-up time, and most cards need none of our files

    return user_data_path(NAME, appauthor=False)


def config_folder() -> Path:
    """Return the folder of this user in which what was chosen is kept; on Windows it is the one of the data."""
    from platformdirs import user_config_path  # costs start-up time

    return user_config_path(NAME, appauthor=False)


def everywhere(usual: Path) -> Iterator[Path]:
    """Yield one of these folders, then those that a Python of the Microsoft Store uses in its place (Windows)."""
    yield usual
    if sys.platform == "win32":
        with contextlib.suppress(OSError):  # of another user's packages, say
            yield from sorted(usual.parent.glob(_STORE))
