"""New files and folders; a file that was made takes the name of the one before, and what is not needed any more goes.

Windows refuses both while anybody has the file open, and somebody often has for a moment: a virus scanner, the search,
another command that reads a journal. It is tried again for a while; who keeps it open is told of.

Where nobody may write, a new name is refused at once. ``tempfile`` would not end there: to it every refusal of Windows
means that this name is taken, and it tries two thousand million others.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
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
    patiently(lambda: os.replace(made, final))  # noqa: PTH105


def new_name(place: Path, begins: str, ends: str = "") -> Path:
    """Return a name that nobody has, in a folder."""
    return place / f"{begins}{secrets.token_hex(4)}{ends}"


def new_folder(place: Path, begins: str, ends: str = "") -> Path:
    """Make a folder that only this user looks into, under a name that nobody has.

    Raises
    ------
    OSError
        It cannot be made there.
    """
    folder = new_name(place, begins, ends)
    folder.mkdir(mode=0o700)
    return folder


def write_whole(path: Path, data: bytes | memoryview, part: Path | None = None, *, on_disk: bool = True) -> None:
    """Write a small file so that it is there whole, or as it was.

    Parameters
    ----------
    path
        The file.
    data
        All of it.
    part
        What it is called until it is whole; by default ``path`` and ``.tmp``. Whatever lies there, as a kill leaves it,
        is removed first, and a link of that name is not written through.
    on_disk
        Have it on the disk before it takes its name, so that this holds over a power cut, too.

    Raises
    ------
    OSError
        It cannot be written; nothing is left of it.
    """
    part = part or path.with_name(path.name + ".tmp")
    remove(part)
    file = open(part, "xb")  # noqa: SIM115 (what is removed below is what was made here)
    try:
        with file:
            file.write(data)
            if on_disk:
                file.flush()
                os.fsync(file.fileno())
        replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):  # why it failed is what is told
            remove(part)
        raise


def settle(folder: Path) -> None:
    """Have the names in a folder on the disk, too.

    Raises
    ------
    OSError
        The disk failed.
    """
    with contextlib.suppress(PermissionError):  # a folder cannot be opened on Windows
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def remove(path: Path) -> None:
    """Remove a file, or a link itself, if it is there.

    Raises
    ------
    OSError
        As ``os.unlink``; on Windows after some seconds, where the file is open in another program.
    """
    patiently(lambda: path.unlink(missing_ok=True))


def remove_tree(folder: Path) -> None:
    """Remove a folder with all that is in it, as far as that is possible: nobody waits for what is left of it."""
    with contextlib.suppress(OSError):
        patiently(lambda: shutil.rmtree(folder))


@contextlib.contextmanager
def folder_for_now(place: Path | None = None) -> Iterator[Path]:
    """Yield a new folder, in ``place`` or where the system has such, of which nothing is left."""
    folder = new_folder(place or Path(tempfile.gettempdir()), ".miniscope-xr-")
    try:
        yield folder
    finally:
        remove_tree(folder)


def patiently(act: Callable[[], T]) -> T:
    """Do it; again for a while, where Windows says that somebody has the file open.

    Raises
    ------
    OSError
        As ``act``.
    """
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            return act()
        except PermissionError as error:
            if not is_held(error) or time.monotonic() > until:
                raise
        time.sleep(0.05)


def is_held(error: OSError) -> bool:
    """Whether Windows refused because a file may be open in another program (or is write-protected)."""
    return sys.platform == "win32" and getattr(error, "winerror", None) in _HELD
