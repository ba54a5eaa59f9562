"""What macOS does differently with a raw disk: its names, its size, locking it and flushing it.

From Apple's headers (``sys/disk.h``, ``sys/fcntl.h``) and manual pages; run over a simulated kernel
(``tests/flash/fake_mac.py``), not yet on hardware. Nothing here is called on another system.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import struct
import time

_GET_BLOCK_SIZE, _GET_BLOCK_COUNT = 0x40046418, 0x40086419
_SYNCHRONIZE_CACHE = 0x20006416
"""DKIOCGETBLOCKSIZE, DKIOCGETBLOCKCOUNT, DKIOCSYNCHRONIZECACHE."""
_F_FULLFSYNC = 51
_O_NONBLOCK, _O_EXLOCK = 0x4, 0x20
_UNKNOWN = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY, 45, 102)
"""A disk that does not know a call; 45 and 102 are macOS' own numbers of ENOTSUP and EOPNOTSUPP."""
_PATIENCE = 2.0  # seconds
_DISK = re.compile(r"/dev/r?(disk[0-9]+)((?:s[0-9]+)*)")


def disk_name(path: str) -> tuple[str, bool] | None:
    """Return ``diskN`` and whether only a partition of it was meant, for ``/dev/diskN`` and ``/dev/rdiskN``."""
    match = _DISK.fullmatch(path)
    return (match[1], bool(match[2])) if match else None


def is_disk(mode: int) -> bool:
    """Whether a file of this mode may be a disk: ``/dev/rdiskN`` is a character device."""
    return stat.S_ISBLK(mode) or stat.S_ISCHR(mode)


def disk_size(fd: int) -> int:
    """Size of a disk in bytes; seeking to its end returns 0 here."""
    import fcntl

    count = struct.unpack("=Q", fcntl.ioctl(fd, _GET_BLOCK_COUNT, bytes(8)))[0]
    return int(count) * sector_size(fd)


def sector_size(fd: int) -> int:
    """Bytes of a disk's sector."""
    import fcntl

    return int(struct.unpack("=I", fcntl.ioctl(fd, _GET_BLOCK_SIZE, bytes(4)))[0])


def open_to_write(path: str) -> int:
    """Open a disk or image for reading and writing, with a lock that keeps others out.

    A disk that takes no locks is opened without one: macOS itself refuses (EBUSY) while a volume of it is mounted.
    What looks at a card when it is put in (``fsck_msdos``) has the same lock for a moment: that is waited for.
    """
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            return os.open(path, os.O_RDWR | _O_EXLOCK | _O_NONBLOCK)
        except OSError as error:
            if error.errno in _UNKNOWN:
                return os.open(path, os.O_RDWR)
            if error.errno not in (errno.EBUSY, errno.EAGAIN) or time.monotonic() > until:
                raise
        time.sleep(0.1)


def full_sync(fd: int) -> None:
    """Flush to the medium: fsync alone ends in the disk's own cache, and a raw disk may not know F_FULLFSYNC."""
    import fcntl

    try:
        fcntl.fcntl(fd, _F_FULLFSYNC)
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise
    else:
        return
    try:
        fcntl.ioctl(fd, _SYNCHRONIZE_CACHE, 0)
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise
        os.fsync(fd)
