"""How bytes get onto a card and back, past every cache, while nobody else can touch it."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import stat
import struct
import time

from miniscope_xr.layout import SECTOR
from miniscope_xr.tools.flash.disks.base import Disk
from miniscope_xr.tools.flash.errors import RefusedError
from miniscope_xr.tools.flash.target.base import OpenTarget, open_error

_BLKGETSIZE64, _BLKSSZGET, _BLKROGET, _BLKRRPART = 0x80081272, 0x1268, 0x125E, 0x125F
_BLKFLSBUF, _BLKGETDISKSEQ = 0x1261, 0x80081280
_LOCK_PATIENCE = 2.0  # udev holds a shared lock for a moment when a card is inserted


class FileTarget(OpenTarget):
    """A Linux block device or an image file.

    A device is opened with O_EXCL (so nobody can mount it meanwhile), O_DIRECT (so that one sector is one sector
    and read-back comes from the card) and an flock. An image file has only the flock and the page cache, which is
    dropped before reading.
    """

    def __init__(self, disk: Disk, *, write: bool) -> None:
        self.path = disk.path
        self._image = disk.kind == "image"
        flags = (os.O_RDWR if write else os.O_RDONLY) | getattr(os, "O_CLOEXEC", 0)
        if not self._image:
            flags |= getattr(os, "O_DIRECT", 0) | (os.O_EXCL if write else 0)
        try:
            self._fd = os.open(self.path, flags)
            if not self._is_still(disk):  # a link, and it leads somewhere else by now
                raise RefusedError(f"{self.path} is not what it was a moment ago; look again with `list`")
            if write:
                self._lock()
            self.size = disk.size if self._image else self._ask(_BLKGETSIZE64, 8)
            if not self._image:
                self._check_device(write)
            self._mark = self._diskseq()
            if self.size != disk.size or self._mark != disk.diskseq:
                raise RefusedError(f"{self.path} is not the card it was a moment ago; look again with `list`")
        except OSError as error:
            self.close()
            raise open_error(self.path, error) from error
        except BaseException:
            self.close()
            raise

    def _is_still(self, disk: Disk) -> bool:
        found = os.fstat(self._fd)
        same = not self._image or disk.inode in ("", f"{found.st_dev}:{found.st_ino}")
        return same and stat.S_ISREG(found.st_mode) == self._image

    def _lock(self) -> None:
        import fcntl

        until = time.monotonic() + _LOCK_PATIENCE
        while True:
            try:
                return fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)

    def _ask(self, request: int, size: int) -> int:
        import fcntl

        answer = fcntl.ioctl(self._fd, request, bytes(size))
        return int(struct.unpack("=Q" if size == 8 else "=I", answer)[0])

    def _check_device(self, write: bool) -> None:
        if write and self._ask(_BLKROGET, 4):
            raise RefusedError(f"{self.path} is read-only; move the card's lock switch up")
        if (sector := self._ask(_BLKSSZGET, 4)) != SECTOR:
            raise RefusedError(f"{self.path} has sectors of {sector} bytes; the Miniscope needs 512-byte sectors")

    def _diskseq(self) -> int | None:
        if self._image:
            return None
        try:
            return self._ask(_BLKGETDISKSEQ, 8) or None
        except OSError:  # Linux before 5.15
            return None

    def _look(self) -> tuple[int, int | None]:
        size = os.fstat(self._fd).st_size // SECTOR * SECTOR if self._image else self._ask(_BLKGETSIZE64, 8)
        return size, self._diskseq()

    def _read(self, offset: int, length: int) -> bytes:
        """Read past the page cache."""
        if self._image:
            with contextlib.suppress(OSError, AttributeError):
                os.posix_fadvise(self._fd, offset, length, os.POSIX_FADV_DONTNEED)
        with mmap.mmap(-1, length) as aligned:  # O_DIRECT wants page-aligned memory
            return aligned[: os.preadv(self._fd, [aligned], offset)]

    def _write(self, offset: int, data: bytes) -> int:
        with mmap.mmap(-1, len(data)) as aligned:
            aligned[:] = data
            return os.pwritev(self._fd, [aligned], offset)

    def _flush(self) -> None:
        """Fsync, and drop the kernel's cache of the device."""
        import fcntl

        os.fsync(self._fd)
        if not self._image:
            fcntl.ioctl(self._fd, _BLKFLSBUF, 0)

    def next_data(self, offset: int) -> int:
        """Find the next offset that can hold anything but zeros: the holes of a sparse image are skipped."""
        if not self._image or not hasattr(os, "SEEK_DATA"):
            return offset
        try:
            return min(os.lseek(self._fd, offset, os.SEEK_DATA) // SECTOR * SECTOR, self.size)
        except OSError as error:
            return self.size if error.errno == errno.ENXIO else offset

    def reread_partitions(self) -> None:
        """Tell the kernel that the partition table is gone."""
        import fcntl

        if not self._image:
            with contextlib.suppress(OSError):  # a loop device without partition scan
                fcntl.ioctl(self._fd, _BLKRRPART, 0)
