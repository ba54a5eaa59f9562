"""One command at work on a copy: two that write under one name at the same time never mix in one file.

The lock is a file beside the copy, which the system lets go of when its process ends, however that ends; the file that
a kill leaves is taken over by the next run. Two commands on different cards work side by side in one folder.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from miniscope_xr.source.replace import patiently
from miniscope_xr.tools.flash.errors import BusyError
from miniscope_xr.tools.stream.outputs import output_errors

_TEMPORARY = getattr(os, "O_TEMPORARY", 0)  # Windows removes the file with its last descriptor
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
"""What some network disks answer: there one takes care oneself."""


@contextlib.contextmanager
def alone(image: Path) -> Iterator[None]:
    """Within the block nobody else makes a copy under this name.

    Raises
    ------
    BusyError
        Somebody else is at it.
    """
    path = image.with_name(f".{image.name}.lock")
    with output_errors(image):
        fd = _taken(path)
    if fd is None:
        raise BusyError(f"another command is at work on {image}: wait until it has ended")
    try:
        yield
    finally:
        if not _TEMPORARY:
            with contextlib.suppress(OSError):
                path.unlink()  # while it is locked, so that nobody else's goes
        os.close(fd)


def _taken(path: Path) -> int | None:
    """Open and lock the file; None where another process has it."""
    while True:
        flags = os.O_RDWR | os.O_CREAT | _TEMPORARY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
        fd = patiently(partial(os.open, path, flags, 0o666))  # Windows may still be about to remove it
        try:
            locked = _lock(fd)
            if locked and (_TEMPORARY or _is_still(fd, path)):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        if not locked:
            return None


def _lock(fd: int) -> bool:
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True


def _is_still(fd: int, path: Path) -> bool:
    """Whether the file of that name is the one that was opened: who had it before may have removed it meanwhile."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False
