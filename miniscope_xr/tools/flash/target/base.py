"""What every target has to do, what those with a descriptor share, and why one cannot be opened."""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from typing import Any, Protocol

from miniscope_xr.errors import CardNotFoundError, CardPermissionError, CardReadError
from miniscope_xr.layout import SECTOR
from miniscope_xr.source.words import as_administrator
from miniscope_xr.tools.flash.errors import BusyError, CardWriteError, RefusedError

_ENOMEDIUM = getattr(errno, "ENOMEDIUM", errno.ENODEV)  # Linux has it alone


class Target(Protocol):
    """What the operations need of a card. Offsets and lengths are whole sectors."""

    size: int

    def read(self, offset: int, length: int) -> bytes:
        """Read exactly ``length`` bytes as they are on the card, not in a cache."""
        ...

    def write(self, offset: int, data: bytes) -> None:
        """Write ``data``; a failed or short write is an error."""
        ...

    def flush(self) -> None:
        """Return when everything written is on the card."""
        ...

    def same(self) -> None:
        """Raise if this is not the card any more that was opened."""
        ...

    def next_data(self, offset: int) -> int:
        """Find the next offset from here that can hold anything but zeros, without reading; ``offset`` if unknown."""
        ...

    def reread_partitions(self) -> None:
        """Tell the system that the partition table is another one now."""
        ...


class OpenTarget(ABC):
    """A target with a descriptor: what the system's calls give, or why they failed, with the sector it was about."""

    path: str
    size: int
    _fd = -1
    _mark: Any = None
    """What tells this card from the next one in its reader, as it was opened."""

    @abstractmethod
    def _look(self) -> tuple[int, Any]:
        """Size and mark, as they are now."""

    @abstractmethod
    def _read(self, offset: int, length: int) -> bytes:
        """Read with one system call."""

    @abstractmethod
    def _write(self, offset: int, data: bytes) -> int:
        """Write with one system call; return how many bytes it took."""

    @abstractmethod
    def _flush(self) -> None:
        """Have the system put everything on the card."""

    def _told(self, error: OSError) -> OSError:
        """What an error of the system means."""
        return error

    def same(self) -> None:
        """Raise if the card was swapped or its size changed since it was opened, as far as the system tells."""
        try:
            now = self._look()
        except OSError as error:
            text = f"the card does not answer any more: {self._told(error).strerror}"
            raise CardWriteError(error.errno, text, self.path) from error
        if now != (self.size, self._mark):
            text = "the card was changed or resized meanwhile; nothing more is written"
            raise CardWriteError(errno.ESTALE, text, self.path)

    def read(self, offset: int, length: int) -> bytes:
        """Read whole sectors."""
        sector = offset // SECTOR
        try:
            data = self._read(offset, length)
        except OSError as error:
            why = self._told(error)
            text = f"sectors from {sector} cannot be read ({why.strerror}); try another reader"
            raise CardReadError(why.errno, text, self.path) from error
        if len(data) < length:
            text = f"only {len(data)} of {length} bytes at sector {sector}; the card ended early"
            raise CardReadError(errno.EIO, text, self.path)
        return data

    def write(self, offset: int, data: bytes) -> None:
        """Write whole sectors."""
        sector = offset // SECTOR
        if offset % SECTOR or len(data) % SECTOR or not 0 <= offset <= offset + len(data) <= self.size:
            text = f"bytes {offset} to {offset + len(data)} are not sectors of the card"
            raise CardWriteError(errno.EINVAL, text, self.path)
        try:
            done = self._write(offset, data)
        except BusyError:
            raise
        except OSError as error:
            why = self._told(error)
            raise CardWriteError(why.errno, f"sector {sector} cannot be written: {why.strerror}", self.path) from error
        if done != len(data):
            text = f"only {done} of {len(data)} bytes were written at sector {sector}"
            raise CardWriteError(errno.EIO, text, self.path)

    def flush(self) -> None:
        """Return when everything is on the card."""
        try:
            self._flush()
        except OSError as error:
            why = self._told(error)
            raise CardWriteError(why.errno, f"the card cannot be flushed: {why.strerror}", self.path) from error

    def close(self) -> None:
        """Close the descriptor, and with it give up the locks."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def open_error(path: str, error: OSError) -> Exception:
    """Say why a card could not be opened, and what to do."""
    if isinstance(error, BusyError | RefusedError):
        return error
    if error.errno in (errno.EBUSY, errno.EAGAIN):
        return BusyError(
            error.errno,
            "another program uses it (mounted, also in another session, swap, RAID, or locked by a copy "
            "of this tool); end that, then try again",
            path,
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return CardPermissionError(error.errno, f"no permission to write it; {as_administrator()}", path)
    if error.errno == errno.EROFS:
        return RefusedError(f"{path} is read-only; move the card's lock switch up")
    if error.errno in (errno.ENOENT, errno.ENXIO, errno.ENODEV, _ENOMEDIUM):
        return CardNotFoundError(
            error.errno, "there is no card here any more; insert it, `list` shows the candidates", path
        )
    return CardReadError(error.errno, f"cannot be opened: {error.strerror}", path)
