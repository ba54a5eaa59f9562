"""Bytes of a card: an image file or a block device, opened for reading only.

Nothing here knows what the bytes mean. A read never returns invented bytes: it is short at the end of the
image, and an unreadable sector is an error unless the caller asks for :meth:`Device.salvage`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any

from miniscope_xr.errors import CardNotFoundError, CardPermissionError, CardReadError, NotACardError
from miniscope_xr.source import macos, windows, windows_volumes
from miniscope_xr.source.base import SECTOR, Spans, pour
from miniscope_xr.source.salvage import Salvage
from miniscope_xr.source.words import as_administrator

_WINDOW = 4 << 20  # bytes
_NEAR = 64 << 10  # bytes from one small read to the next: a card delivers them in the time it takes to find one
_HAS_PREADV = hasattr(os, "preadv")


def _open_error(path: str, error: OSError) -> Exception:
    if isinstance(error, FileNotFoundError):
        hint = windows.hint_of_length(path, error) if sys.platform == "win32" else ""
        return CardNotFoundError(
            errno.ENOENT, f"there is no file or device here; check the path, or plug the card reader in{hint}", path
        )
    if isinstance(error, PermissionError):
        return CardPermissionError(error.errno, f"no permission to read it; {as_administrator()}", path)
    return CardReadError(error.errno or errno.EIO, f"cannot be opened: {error.strerror or error}", path)


def _block_size(fd: int) -> int:
    """Size of a block device in bytes."""
    if sys.platform == "darwin":
        return macos.disk_size(fd)
    if sys.platform == "win32":
        return windows.disk_size(fd)
    return os.lseek(fd, 0, os.SEEK_END)


def _unit(fd: int) -> int:
    """Bytes of which a raw disk outside Linux moves whole ones only: of a card 512, of a copy on a large disk 4096."""
    return max(SECTOR, macos.sector_size(fd) if sys.platform == "darwin" else windows.sector_size(fd))


def _is_disk(path: str) -> bool:
    """Whether something is a raw disk, no file; looked at before it is opened: a FIFO would wait for a writer.

    Raises
    ------
    NotACardError
        It is neither.
    """
    mode = os.stat(path).st_mode  # noqa: PTH116
    if stat.S_ISDIR(mode):
        raise NotACardError(f"{path} is a directory; give the card's device or an image file in it")
    raw = macos.is_disk(mode) if sys.platform == "darwin" else stat.S_ISBLK(mode)
    if not raw and not stat.S_ISREG(mode):
        raise NotACardError(f"{path} is neither a file nor a disk; give a card's device or image file")
    return raw


class Device:
    r"""An image file or block device, open for reading.

    Parameters
    ----------
    path
        Image file, ``/dev/sdX``, ``/dev/rdiskN`` or ``\\.\PhysicalDriveN``.

    Raises
    ------
    CardNotFoundError, CardPermissionError, NotACardError, CardReadError
    """

    unread: Spans = []  # noqa: RUF012 - what a map says, only a copy with a map has

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._lock = threading.Lock()
        self._fd = -1
        drive = windows.device_name(self.path) if sys.platform == "win32" else None
        self.path = drive or self.path
        if sys.platform == "win32" and (said := windows_volumes.no_volume(self.path)):
            raise NotACardError(said)
        try:
            raw = drive is not None or _is_disk(self.path)
            self._fd = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
            self.is_block = raw
            self._stat = None if raw else os.fstat(self._fd)  # Windows knows none of a raw disk
            self.size = self._stat.st_size if self._stat else _block_size(self._fd)
            # raw devices outside Linux move whole, aligned sectors only
            self._aligned_only = raw and sys.platform != "linux"
            self._unit = _unit(self._fd) if self._aligned_only else SECTOR
        except OSError as error:
            why = windows.told(error) if sys.platform == "win32" else error
            self.close()
            raise _open_error(self.path, why) from error
        except ValueError as error:  # a path with a NUL byte
            if isinstance(error, NotACardError):
                raise
            raise NotACardError(f"{self.path!r} is not a path: {error}") from error
        self._at_any_byte = hasattr(os, "pread") and not self._aligned_only

    def __repr__(self) -> str:
        return f"<Device {self.path!r}, {self.size} bytes{', closed' if self._fd < 0 else ''}>"

    @property
    def closed(self) -> bool:
        """True once :meth:`close` was called."""
        return self._fd < 0

    def close(self) -> None:
        """Close the descriptor; closing twice is fine."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @property
    def changed(self) -> bool:
        """Whether an image was written to since it was opened (one that only grew is still being copied)."""
        if self._stat is None or self._fd < 0:
            return False
        now = os.fstat(self._fd)
        return now.st_mtime_ns != self._stat.st_mtime_ns and now.st_size <= self.size

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    def _error(self, error: OSError, offset: int, length: int) -> CardReadError:
        if self.closed:
            return CardReadError(errno.EBADF, "was closed while it was being read; open it again", self.path)
        if sys.platform == "win32":
            error = windows.told(error)
        first, last = offset // SECTOR, max(offset, offset + length - 1) // SECTOR
        which = f"sector {first}" if first == last else f"sectors {first} to {last}"
        return CardReadError(
            error.errno or errno.EIO,
            f"{which} (byte {offset}) cannot be read: {error.strerror or error}; "
            "check the reader, copy the card with `miniscope-xr image`, or open it with errors='fill'",
            self.path,
        )

    def _cut(self, end: int) -> CardReadError:
        """Say that nothing was there to read from ``end`` on: the file may end before that."""
        end = end if self.is_block else min(end, os.fstat(self._fd).st_size)
        return CardReadError(
            errno.EIO,
            f"it ends at byte {end} but had {self.size} bytes when it was opened: it was cut or is being written anew; "
            "open it again when it is whole",
            self.path,
        )

    def _pread(self, offset: int, length: int) -> bytes:
        if self._at_any_byte:
            return os.pread(self._fd, length, offset)
        start = offset - offset % self._unit
        end = min(-(-(offset + length) // self._unit) * self._unit, self.size)
        with self._lock:
            os.lseek(self._fd, start, os.SEEK_SET)
            data = os.read(self._fd, max(end - start, 0))
        return data[offset - start : offset - start + length]

    def read(self, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes from ``offset``; fewer only at the end the card had when it was opened."""
        length = min(length, self.size - offset)
        pieces = []
        done = 0
        while done < length:
            try:
                piece = self._pread(offset + done, length - done)
            except OSError as error:
                # a buffered read fails for a whole page around one bad sector: only what was asked for counts
                around = self._around(offset + done, length - done, first_only=True)
                if around.bad:
                    raise self._error(error, *around.bad[0]) from error
                piece = around.data
            if len(piece) == length:
                return piece  # all at once, as most often
            if not piece:
                raise self._cut(offset + done)
            pieces.append(piece)
            done += len(piece)
        return b"".join(pieces)

    def readv(self, offset: int, buffers: Sequence[Any]) -> int:
        """Fill ``buffers`` (at most 1024) from consecutive bytes at ``offset``; return the bytes read."""
        if _HAS_PREADV and not self._aligned_only:
            wanted = sum(map(len, buffers))
            try:
                got = os.preadv(self._fd, buffers, offset)
            except OSError as error:
                raise self._error(error, offset, wanted) from error
            if got == wanted or offset + got >= self.size:
                return got
        # without preadv, or after a short count
        return pour(self.read(offset, sum(map(len, buffers))), buffers)

    def gather(self, offsets: Sequence[int], length: int) -> bytes | None:
        """Return ``length`` bytes from each of many offsets, joined; None where one of them cannot be read whole.

        One small read for each where the system holds them in memory already; where not, all that lies between them
        is read as well: a card is far quicker with one large read than with many small ones.
        """
        one_by_one = self._at_any_byte
        parts = []
        at = 0
        while at < len(offsets):
            stop = max(bisect_right(offsets, offsets[at] + _WINDOW, at), at + 1)
            near = offsets[at:stop]
            part = None if one_by_one and self._in_memory(near[-1]) is not False else self._sifted(near, length)
            if part is None and one_by_one:
                with contextlib.suppress(OSError):
                    part = b"".join(map(os.pread, repeat(self._fd), repeat(length), near))
            if part is None or len(part) != length * len(near):
                return None
            parts.append(part)
            at = stop
        return b"".join(parts)

    def at_hand(self, offset: int) -> bool:
        """Whether what stands there is in memory; False where the system does not tell."""
        return self._in_memory(offset) is True

    def _in_memory(self, offset: int) -> bool | None:
        """Whether a read there needs no card; None where the system does not tell."""
        if not hasattr(os, "RWF_NOWAIT"):
            return None
        try:
            os.preadv(self._fd, [bytearray(1)], offset, os.RWF_NOWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return None
        return True

    def _sifted(self, offsets: Sequence[int], length: int) -> bytes | None:
        """The same by one large read, where the offsets are near one another and it goes well."""
        start, stop = offsets[0], offsets[-1] + length
        if not 0 <= stop - start <= len(offsets) * _NEAR or list(offsets) != sorted(offsets):
            return None
        try:
            data = self._pread(start, stop - start)
        except OSError:
            return None
        if len(data) < stop - start:
            return None
        return b"".join([data[at - start : at - start + length] for at in offsets])

    def salvage(self, offset: int, length: int) -> tuple[bytes, Spans]:
        """Read ``length`` bytes around bad sectors.

        Returns
        -------
        data : bytes
            As long as the readable card allows; unreadable sectors are zeros.
        bad : list of (offset, length)
            Unreadable spans in bytes. A raw device is read past the page cache (buffered reads lose
            whole readahead windows around one bad sector), so no more sectors are lost than ddrescue loses.
        """
        found = self._around(offset, length)
        return found.data, found.bad

    def _around(self, offset: int, length: int, first_only: bool = False) -> Salvage:
        """Read around bad sectors, past the page cache where there is one."""
        length = max(min(length, self.size - offset), 0)
        with self._direct() as fd:
            return Salvage(lambda buffer, at: self._read_into(fd, buffer, at), offset, length, first_only)

    def _read_into(self, fd: int, buffer: Any, offset: int) -> int:
        if _HAS_PREADV and self._unit == SECTOR:
            return os.preadv(fd, [buffer], offset)
        return pour(self._pread(offset, len(buffer)), [buffer])

    @contextlib.contextmanager
    def _direct(self) -> Iterator[int]:
        flag = getattr(os, "O_DIRECT", 0)
        fd = self._fd
        if self.is_block and flag:
            # by the descriptor, not by the path: that may name another card by now
            with contextlib.suppress(OSError):
                fd = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | flag)
        try:
            yield fd
        finally:
            if fd != self._fd:
                os.close(fd)
