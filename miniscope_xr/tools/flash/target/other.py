"""Writing to raw disks of macOS and Windows. Written from their documentation, not yet run on hardware.

macOS refuses to open a disk for writing while one of its volumes is mounted; Windows refuses writes into a volume it
has mounted, and each volume is locked as well. Raw devices of both are not cached.
"""

from __future__ import annotations

import errno
import os
import sys

from miniscope_xr.errors import CardReadError
from miniscope_xr.source.local import Device
from miniscope_xr.tools.flash.disks.find import Disk
from miniscope_xr.tools.flash.errors import CardWriteError, RefusedError
from miniscope_xr.tools.flash.target.linux import SECTOR, open_error

_F_FULLFSYNC = 51  # macOS: fsync alone does not reach the medium
_FSCTL_LOCK_VOLUME = 0x90018


class RawTarget:
    r"""``/dev/rdiskN`` or ``\\.\PhysicalDriveN``."""

    def __init__(self, disk: Disk, *, write: bool) -> None:
        self.path = disk.path
        self._fd = -1
        flags = (os.O_RDWR if write else os.O_RDONLY) | getattr(os, "O_BINARY", 0)
        if write:
            flags |= getattr(os, "O_EXLOCK", 0) | getattr(os, "O_NONBLOCK", 0)
        try:
            self.size = self._measure()
            if self.size != disk.size:
                raise RefusedError(f"{self.path} is not the card it was a moment ago; look again with `list`")
            self._fd = os.open(self.path, flags)
            if write and sys.platform == "win32":
                self._lock_volume()
        except OSError as error:
            self.close()
            raise open_error(self.path, error) from error

    def _measure(self) -> int:
        with Device(self.path) as device:
            return device.size // SECTOR * SECTOR

    def _lock_volume(self) -> None:
        import ctypes
        import msvcrt

        returned = ctypes.c_uint32()
        handle = msvcrt.get_osfhandle(self._fd)  # type: ignore[attr-defined, unused-ignore]
        locked = ctypes.windll.kernel32.DeviceIoControl(  # type: ignore[attr-defined, unused-ignore]
            handle, _FSCTL_LOCK_VOLUME, None, 0, None, 0, ctypes.byref(returned), None
        )
        if not locked and self._has_volume():
            raise OSError(errno.EBUSY, "a volume of this disk is in use")

    def _has_volume(self) -> bool:
        from miniscope_xr.tools.flash.disks.find import identify

        return bool(identify(self.path).mounts)

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
                import fcntl

                fcntl.fcntl(self._fd, _F_FULLFSYNC)
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
