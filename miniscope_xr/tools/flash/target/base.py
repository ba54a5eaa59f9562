"""What every target has to do, and why one cannot be opened."""

from __future__ import annotations

import errno
from typing import Protocol

from miniscope_xr.errors import CardNotFoundError, CardPermissionError, CardReadError
from miniscope_xr.source.words import as_administrator
from miniscope_xr.tools.flash.errors import BusyError, RefusedError

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
