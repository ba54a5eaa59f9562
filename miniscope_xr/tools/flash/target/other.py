"""Writing to raw disks of macOS and Windows. Run on simulated disks, not yet on hardware.

macOS refuses to open a disk for writing while one of its volumes is mounted; Windows refuses writes into a volume it
has mounted, and each volume is locked as well. Raw devices of both are not cached.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from typing import Any

from miniscope_xr.layout import SECTOR
from miniscope_xr.source import macos, windows
from miniscope_xr.source.local import Device
from miniscope_xr.tools.flash.disks.base import Disk
from miniscope_xr.tools.flash.errors import BusyError, RefusedError
from miniscope_xr.tools.flash.target.base import OpenTarget, open_error
from miniscope_xr.tools.flash.target.volumes import Claim, VolumeLocks

_LOCK_AT = 1 << 42  # a byte that no image of a card has: a lock of Windows keeps others from reading the locked bytes


def lock_image(fd: int, path: str) -> None:
    """Lock an image file against a second writer, until it is closed (Windows).

    Raises
    ------
    BusyError
        There is one.
    OSError
        The folder takes no locks (some shares and RAM disks), so that nobody could be kept out.
    """
    import msvcrt

    locks: Any = msvcrt
    os.lseek(fd, _LOCK_AT, os.SEEK_SET)
    try:
        locks.locking(fd, locks.LK_NBLCK, 1)
    except OSError as error:
        if error.errno == errno.EINVAL:  # what the C runtime makes of a function that is not there, or not supported
            raise
        raise BusyError(errno.EBUSY, "another copy of this tool writes to it; end that first", path) from error


class RawTarget(OpenTarget):
    r"""``/dev/rdiskN`` or ``\\.\PhysicalDriveN``."""

    def __init__(self, disk: Disk, *, write: bool) -> None:
        self.path = disk.path
        self._claim: Claim | None = None
        self._volumes: VolumeLocks | None = None
        try:
            self.size = self._measure()
            if self.size != disk.size:
                raise RefusedError(f"{self.path} is not the card it was a moment ago; look again with `list`")
            if write:
                self._take_volumes()
            self._fd = self._open(write)
            if write and sys.platform == "win32" and disk.kind == "image":
                lock_image(self._fd, self.path)
            self._mark = self._media_changes()
        except OSError as error:
            why = self._told(error)
            self.close()
            raise open_error(self.path, why) from error

    def _measure(self) -> int:
        with Device(self.path) as device:
            return device.size // SECTOR * SECTOR

    def _open(self, write: bool) -> int:
        if write and sys.platform == "darwin":
            return macos.open_to_write(self.path)
        return os.open(self.path, (os.O_RDWR if write else os.O_RDONLY) | getattr(os, "O_BINARY", 0))

    def _take_volumes(self) -> None:
        """Keep others out of a disk (Windows); of an image a lock does, on macOS the way it is opened."""
        drive = windows.device_name(self.path)
        if sys.platform == "win32" and drive:
            number = int(drive[len(r"\\.\PhysicalDrive") :])
            self._claim = Claim(number)
            self._volumes = VolumeLocks(number)

    def _media_changes(self) -> int | None:
        on_disk = sys.platform == "win32" and windows.device_name(self.path)
        return windows.media_changes(self._fd) if on_disk else None

    def _told(self, error: OSError) -> OSError:
        return windows.told(error) if sys.platform == "win32" else error

    def _look(self) -> tuple[int, int | None]:
        return self._measure(), self._media_changes()

    def _seek(self, offset: int) -> None:
        os.lseek(self._fd, offset, os.SEEK_SET)

    def _read(self, offset: int, length: int) -> bytes:
        self._seek(offset)
        return os.read(self._fd, length)

    def _write(self, offset: int, data: bytes) -> int:
        """Write; once more where Windows refused for a volume that it found after the others were locked."""
        self._seek(offset)
        try:
            return os.write(self._fd, data)
        except OSError as error:
            if self._told(error).errno != errno.EACCES or self._volumes is None or not self._volumes.take_new():
                raise
        self._seek(offset)
        return os.write(self._fd, data)

    def _flush(self) -> None:
        if sys.platform == "darwin":
            macos.full_sync(self._fd)
        elif sys.platform == "win32":
            windows.full_sync(self._fd)
        else:
            os.fsync(self._fd)

    def next_data(self, offset: int) -> int:
        """Holes of sparse images are not looked for here."""
        return offset

    def reread_partitions(self) -> None:
        """Tell Windows that the partition table is another one; macOS looks again when the disk is closed."""
        if sys.platform == "win32" and windows.device_name(self.path):
            with contextlib.suppress(OSError):  # it looks again when the locks are given up, too
                windows.reread_partitions(self._fd)

    def close(self) -> None:
        """Close the descriptor and give up the locks."""
        super().close()
        if self._volumes:
            self._volumes.close()
        if self._claim:
            self._claim.close()
