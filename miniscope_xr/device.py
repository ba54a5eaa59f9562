"""Bytes of a card: an image file or a block device, opened for reading only.

Nothing here knows what the bytes mean. A read never returns invented bytes: it is short at the end of the
image, and an unreadable sector is an error unless the caller asks for :meth:`Device.salvage`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import mmap
import os
import stat
import sys
import threading
from collections.abc import Sequence
from itertools import repeat
from typing import Any, Protocol

from miniscope_xr.errors import CardNotFoundError, CardPermissionError, CardReadError, NotACardError
from miniscope_xr.remote import RemoteSource, is_url

SECTOR = 512
_SALVAGE_CHUNK = 64 * 1024
_HAS_PREADV = hasattr(os, "preadv")


class ByteSource(Protocol):
    """What the index and the frame reader need of a card; anything with these three can be read."""

    @property
    def size(self) -> int:
        """Size in bytes."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes; fewer only at the end."""
        ...

    def readv(self, offset: int, buffers: Sequence[Any]) -> int:
        """Fill writable buffers one after another from ``offset``; return the bytes read."""
        ...

    def salvage(self, offset: int, length: int) -> tuple[bytes, list[tuple[int, int]]]:
        """Read around bad sectors: zero-filled bytes, and the (offset, length) spans that are unreadable."""
        ...


def _open_error(path: str, error: OSError) -> Exception:
    if isinstance(error, FileNotFoundError):
        return CardNotFoundError(
            errno.ENOENT, "there is no file or device here; check the path, or plug the card reader in", path
        )
    if isinstance(error, PermissionError):
        hint = "no permission to read it; run as administrator (Linux: sudo, or membership of the group 'disk')"
        return CardPermissionError(error.errno, hint, path)
    return CardReadError(error.errno or errno.EIO, f"cannot be opened: {error.strerror or error}", path)


def _block_size(fd: int, path: str) -> int:
    """Size of a block device in bytes."""
    if sys.platform == "darwin":  # seeking to the end of a macOS disk returns 0
        import fcntl
        import struct

        count = struct.unpack("Q", fcntl.ioctl(fd, 0x40086419, bytes(8)))[0]  # DKIOCGETBLOCKCOUNT
        size = struct.unpack("I", fcntl.ioctl(fd, 0x40046418, bytes(4)))[0]  # DKIOCGETBLOCKSIZE
        return int(count * size)
    if sys.platform == "win32":
        return _windows_size(fd)
    return os.lseek(fd, 0, os.SEEK_END)


def _windows_size(fd: int) -> int:
    r"""Size of ``\\.\PhysicalDriveN`` in bytes (IOCTL_DISK_GET_LENGTH_INFO)."""
    import ctypes
    import msvcrt

    length, returned = ctypes.c_int64(), ctypes.c_uint32()
    handle = msvcrt.get_osfhandle(fd)  # type: ignore[attr-defined]
    done = ctypes.windll.kernel32.DeviceIoControl(  # type: ignore[attr-defined]
        handle, 0x7405C, None, 0, ctypes.byref(length), 8, ctypes.byref(returned), None
    )
    if not done:
        raise OSError(errno.EIO, "the size of the disk cannot be read")
    return length.value


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

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._lock = threading.Lock()
        self._fd = -1
        raw_windows = sys.platform == "win32" and self.path.startswith("\\\\.\\")
        try:
            # stat first: opening a FIFO would wait for a writer
            mode = stat.S_IFBLK if raw_windows else os.stat(self.path).st_mode  # noqa: PTH116
            if stat.S_ISDIR(mode):
                raise NotACardError(f"{self.path} is a directory; give the card's device or an image file in it")
            raw = stat.S_ISBLK(mode) or (sys.platform == "darwin" and stat.S_ISCHR(mode))
            if not raw and not stat.S_ISREG(mode):
                raise NotACardError(f"{self.path} is neither a file nor a disk; give a card's device or image file")
            self._fd = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
            self.is_block = raw
            self.size = _block_size(self._fd, self.path) if raw else os.fstat(self._fd).st_size
        except OSError as error:
            self.close()
            raise _open_error(self.path, error) from error
        except ValueError as error:  # a path with a NUL byte
            if isinstance(error, NotACardError):
                raise
            raise NotACardError(f"{self.path!r} is not a path: {error}") from error
        # raw devices outside Linux move whole, aligned sectors only
        self._aligned_only = self.is_block and sys.platform != "linux"

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

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    def _error(self, error: OSError, offset: int, length: int) -> CardReadError:
        first, last = offset // SECTOR, max(offset, offset + length - 1) // SECTOR
        which = f"sector {first}" if first == last else f"sectors {first} to {last}"
        return CardReadError(
            error.errno or errno.EIO,
            f"{which} (byte {offset}) cannot be read: {error.strerror or error}; "
            "check the reader, copy the card with ddrescue, or open it with errors='fill'",
            self.path,
        )

    def _pread(self, offset: int, length: int) -> bytes:
        if hasattr(os, "pread") and not self._aligned_only:
            return os.pread(self._fd, length, offset)
        start = offset - offset % SECTOR
        end = min(-(-(offset + length) // SECTOR) * SECTOR, self.size)
        with self._lock:
            os.lseek(self._fd, start, os.SEEK_SET)
            data = os.read(self._fd, max(end - start, 0))
        return data[offset - start : offset - start + length]

    def read(self, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes from ``offset``; fewer only at the end of the card."""
        length = max(0, min(length, self.size - offset))
        pieces = []
        done = 0
        while done < length:
            try:
                piece = self._pread(offset + done, length - done)
            except OSError as error:
                # a buffered read fails for a whole page around one bad sector: only what was asked for counts
                piece, bad = self._rescue(offset + done, length - done, first_only=True)
                if bad:
                    raise self._error(error, *bad[0]) from error
            if not piece:
                break
            pieces.append(piece)
            done += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

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
        return self._readv_copying(offset, buffers)

    def gather(self, offsets: Sequence[int], length: int) -> bytes | None:
        """Return ``length`` bytes from each of many offsets, joined; None where one of them cannot be read whole."""
        if not hasattr(os, "pread") or self._aligned_only:
            return None
        try:
            data = b"".join(map(os.pread, repeat(self._fd), repeat(length), offsets))
        except OSError:
            return None
        return data if len(data) == length * len(offsets) else None

    def send(self, out: int, offset: int, length: int) -> int | None:
        """Copy bytes into the file ``out`` without a detour through this process; None where the system cannot."""
        if sys.platform != "linux":
            return None
        try:
            return os.sendfile(out, self._fd, offset, length)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                return None
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise  # the output's, not the card's
            raise self._error(error, offset, length) from error

    def _readv_copying(self, offset: int, buffers: Sequence[Any]) -> int:
        """Do the same without preadv, or after a short count: one contiguous read, then copies."""
        wanted = sum(len(b) for b in buffers)
        data = memoryview(self.read(offset, wanted))
        at = 0
        for buffer in buffers:
            piece = data[at : at + len(buffer)]
            memoryview(buffer)[: len(piece)] = piece
            at += len(buffer)
        return len(data)

    def salvage(self, offset: int, length: int) -> tuple[bytes, list[tuple[int, int]]]:
        """Read ``length`` bytes around bad sectors.

        Returns
        -------
        data : bytes
            As long as the readable card allows; unreadable sectors are zeros.
        bad : list of (offset, length)
            Unreadable spans in bytes. A raw device is read past the page cache (buffered reads lose
            whole readahead windows around one bad sector), so no more sectors are lost than ddrescue loses.
        """
        return self._rescue(offset, length)

    def _rescue(self, offset: int, length: int, first_only: bool = False) -> tuple[bytes, list[tuple[int, int]]]:
        """Read past the page cache and around bad sectors; ``first_only``: give up behind the first one."""
        end = min(offset + length, self.size)
        start = offset - offset % SECTOR
        data = bytearray(max(end - start, 0))
        bad: list[tuple[int, int]] = []
        with self._direct() as fd:
            at = start
            while at < end and not (bad and first_only):
                step = min(_SALVAGE_CHUNK, end - at)
                self._salvage_span(fd, at, step, data, start, bad, first_only)
                at += step
        return bytes(data[offset - start :]), bad

    @contextlib.contextmanager
    def _direct(self) -> Any:
        flag = getattr(os, "O_DIRECT", 0)
        fd = self._fd
        if self.is_block and flag:
            with contextlib.suppress(OSError):
                fd = os.open(self.path, os.O_RDONLY | flag)
        try:
            yield fd
        finally:
            if fd != self._fd:
                os.close(fd)

    def _salvage_span(
        self,
        fd: int,
        offset: int,
        length: int,
        out: bytearray,
        base: int,
        bad: list[tuple[int, int]],
        first_only: bool,
    ) -> None:
        try:
            with mmap.mmap(-1, max(-(-length // SECTOR) * SECTOR, SECTOR)) as aligned:  # O_DIRECT wants alignment
                if _HAS_PREADV:
                    got = os.preadv(fd, [aligned], offset)
                else:
                    piece = self._pread(offset, length)
                    aligned[: len(piece)] = piece
                    got = len(piece)
                if got < length:
                    raise OSError(errno.EIO, "short read")
                out[offset - base : offset - base + length] = aligned[:length]
        except OSError:
            if length <= SECTOR:
                if bad and sum(bad[-1]) == offset:
                    bad[-1] = (bad[-1][0], bad[-1][1] + length)
                else:
                    bad.append((offset, length))
                return
            half = -(-length // SECTOR) // 2 * SECTOR
            self._salvage_span(fd, offset, half, out, base, bad, first_only)
            if not (bad and first_only):
                self._salvage_span(fd, offset + half, length - half, out, base, bad, first_only)


def is_gone(source: ByteSource) -> bool:
    """Whether nothing of a card can be read any more (a reader pulled out), rather than some of its sectors."""
    last = max(source.size - 1, 0) // SECTOR
    return all(source.salvage(sector * SECTOR, SECTOR)[1] for sector in (0, last // 2, last))


class Tolerant:
    """A source that reads unreadable sectors as zeros, unless the whole card is gone."""

    def __init__(self, source: ByteSource) -> None:
        self.source = source
        self.size = source.size
        self.readv = source.readv
        self.salvage = source.salvage

    def read(self, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes; fewer only at the end."""
        try:
            return self.source.read(offset, length)
        except CardReadError:
            if is_gone(self.source):
                raise
            return self.source.salvage(offset, length)[0]

    def gather(self, offsets: Sequence[int], length: int) -> bytes | None:
        """Return ``length`` bytes from each of many offsets, joined, where the source can do that."""
        gather = getattr(self.source, "gather", None)
        found: bytes | None = None if gather is None else gather(offsets, length)
        return found


def open_device(path: str | os.PathLike[str], mode: str = "r") -> Any:
    """Open a card or the URL of an image for reading (``mode`` is there for file managers and must be ``"r"``)."""
    if mode != "r":
        raise ValueError(f"cards are opened for reading only, not mode {mode!r}")
    if is_url(path):
        return RemoteSource(str(path))
    return Device(path)


def fingerprint(source: ByteSource, sectors: Sequence[int], sector_size: int = SECTOR) -> str:
    """Hash of the card's size and of the given sectors: tells one card from another in the same reader."""
    digest = hashlib.sha256(str(source.size).encode())
    for sector in sectors:
        digest.update(source.read(sector * sector_size, sector_size))
    return digest.hexdigest()
