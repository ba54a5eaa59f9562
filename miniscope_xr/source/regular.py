"""A small file of ours or of a user's, read whole: what has its name may be a pipe, a device, or far too large."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def read_regular(path: Path, most: int) -> bytes:
    """Read a regular file of at most ``most`` bytes.

    A pipe is not waited for, and ``/dev/zero`` is not read to its end. What the file is when it is opened counts, not
    what it was a moment before.

    Raises
    ------
    ValueError
        It is no regular file, or larger.
    OSError
        It cannot be read.
    """
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is no regular file")
        with open(fd, "rb", closefd=False) as file:
            content = file.read(most + 1)
    finally:
        os.close(fd)
    if len(content) > most:
        raise ValueError(f"it is too large, {max(status.st_size, len(content)) / 1e6:.1f} MB long")
    return content
