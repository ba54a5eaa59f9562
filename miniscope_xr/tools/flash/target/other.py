"""Writing to raw disks of macOS and Windows. Written from their documentation, not yet run on hardware.

macOS refuses to open a disk for writing while one of its volumes is mounted; Windows refuses writes into a volume it
has mounted, and each volume is locked as well. Raw devices of both are not cached.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from typing import Any

from miniscope_xr.errors import CardReadError
from miniscope_xr.layout import SECTOR
from miniscope_xr.source.local import Device
from miniscope_xr.tools.flash.disks.find import Disk
from miniscope_xr.tools.flash.errors import BusyError, CardWriteError, RefusedError
from miniscope_xr.tools.flash.target.linux import open_error
from miniscope_xr.tools.flash.target.volumes import VolumeLocks

_F_FULLFSYNC = 51  # macOS: fsync alone does not reach the medium
_LOCK_AT = 1 << 42  # a byte that no image of a card has: a lock of Windows keeps others from reading the locked bytes


def lock_image(fd: int, path: str) -> None:
    """Lock an image file against a second writer, until it is closed (Windows).

    Raises
    ------
    BusyError
        There is one.
    """
    import msvcrt

    locks: Any = msvcrt
    os.lseek(fd, _LOCK_AT, os.SEEK_SET)
    try:
        locks.locking(fd, locks.LK_NBLCK, 1)
    except OSError as error:
        raise BusyError(errno.EBUSY, "another copy of this tool writes to it; end that first", path) from error


class RawTarget:
    r"""``/dev/rdiskN`` or ``\\.\PhysicalDriveN``."""

    def __init__(self, disk: Disk, *, write: bool) -> None:
        self.path = disk.path
        self._fd = -1
        self._volumes: VolumeLocks | None = None
        flags = (os.O_RDWR if write else os.O_RDONLY) | getattr(os, "O_BINARY", 0)
        if write:
            flags |= getattr(os, "O_EXLOCK", 0) | getattr(os, "O_NONBLOCK", 0)
        try:
            self.size = self._measure()
            if self.size != disk.size:
                raise RefusedError(f"{self.path} is not the card it was a moment ago; look again with `list`")
            if write:
                self._take_volumes(disk)
            self._fd = os.open(self.path, flags)
            if write:
                self._lock(disk)
        except OSError as error:
            self.close()
            raise open_error(self.path, error) from error

    def _measure(self) -> int:
        with Device(self.path) as device:
            return device.size // SECTOR * SECTOR

    def _lock(self, disk: Disk) -> None:
        """Keep others out: of an image by a lock, of a disk by locks on its volumes (Windows)."""
        if sys.platform != "win32":
            return  # O_EXLOCK did it
        if disk.kind == "image":
            lock_image(self._fd, self.path)

    def _take_volumes(self, disk: Disk) -> None:
        number = re.search(r"PhysicalDrive(\d+)$", disk.path)
        if sys.platform == "win32" and number:
            self._volumes = VolumeLocks(int(number[1]))

    def same(self) -> None:
        """Raise if the size changed since it was opened; these systems count no media changes."""
        try:
            size = self._measure()
        except OSError as error:
            raise CardWriteError(error.errno, "the card does not answer any more", self.path) from error
        if size != self.size:
            raise CardWriteError(
                errno.EIO, "the card was changed or resized meanwhile; nothing more is written", self.path
            )

    def _seek(self, offset: int) -> None:
        os.lseek(self._fd, offset, os.SEEK_SET)

    def read(self, offset: int, length: int) -> bytes:
        """Read whole sectors."""
        try:
            self._seek(offset)
            data = os.read(self._fd, length)
        except OSError as error:
            text = f"sectors from {offset // SECTOR} cannot be read ({error.strerror}); try another reader"
            raise CardReadError(error.errno, text, self.path) from error
        if len(data) < length:
            text = f"only {len(data)} of {length} bytes at sector {offset // SECTOR}; the card ended early"
            raise CardReadError(errno.EIO, text, self.path)
        return data

    def write(self, offset: int, data: bytes) -> None:
        """Write whole sectors with one system call."""
        if offset % SECTOR or len(data) % SECTOR or not 0 <= offset <= offset + len(data) <= self.size:
            raise CardWriteError(
                errno.EINVAL, f"bytes {offset} to {offset + len(data)} are not sectors of the card", self.path
            )
        try:
            self._seek(offset)
            done = os.write(self._fd, data)
        except OSError as error:
            text = f"sector {offset // SECTOR} cannot be written: {error.strerror}"
            raise CardWriteError(error.errno, text, self.path) from error
        if done != len(data):
            raise CardWriteError(errno.EIO, f"only {done} of {len(data)} bytes were written", self.path)

    def flush(self) -> None:
        """Return when everything is on the card."""
        try:
            if sys.platform == "darwin":
                _full_sync(self._fd)
            else:
                os.fsync(self._fd)
        except OSError as error:
            raise CardWriteError(error.errno, f"the card cannot be flushed: {error.strerror}", self.path) from error

    def next_data(self, offset: int) -> int:
        """Holes of sparse images are not looked for here."""
        return offset

    def reread_partitions(self) -> None:
        """Nothing to tell: both systems look at a disk again when it is closed."""

    def close(self) -> None:
        """Close the descriptor and give up the locks."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._volumes is not None:
            self._volumes.close()
            self._volumes = None


def _full_sync(fd: int) -> None:
    """Flush the disk's own cache too; a raw disk may not know that call, and has no cache of the system either."""
    import fcntl

    try:
        fcntl.fcntl(fd, _F_FULLFSYNC)
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.EINVAL, errno.ENOTTY):
            raise
        os.fsync(fd)
