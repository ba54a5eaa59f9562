"""Whether a file would be written onto the very disk that is being read.

A card that a computer formatted is a drive like others: who saves what comes back from it under that letter writes over
what has not come back yet.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from miniscope_xr.source import macos, windows, windows_volumes


def lies_on(path: str | os.PathLike[str], card: str | os.PathLike[str]) -> bool:
    """Whether a file or folder of this name is on the disk ``card``, or would be; False where nobody can tell."""
    with contextlib.suppress(OSError, ValueError):
        place = Path(path).absolute()
        folder = next(there for there in (place, *place.parents) if there.exists())
        if sys.platform == "win32":
            device = windows.device_name(os.fspath(card))
            number = int(device[len(r"\\.\PhysicalDrive") :]) if device else None
            return number in windows_volumes.disks_below(str(folder))
        status = Path(card).stat()
        if not (macos.is_disk(status.st_mode) if sys.platform == "darwin" else stat.S_ISBLK(status.st_mode)):
            return False
        found = _of_mac(os.fspath(card)) if sys.platform == "darwin" else _of_linux(status.st_rdev)
        return folder.stat().st_dev in set(found)
    return False


def _of_linux(number: int) -> Iterator[int]:
    """Yield the numbers of a disk and of its partitions."""
    yield number
    for file in Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").glob("*/dev"):
        yield os.makedev(*map(int, file.read_text(encoding="ascii").split(":")))


def _of_mac(card: str, nodes: Path = Path("/dev")) -> Iterator[int]:
    """Yield the numbers of a disk and of its slices."""
    named = macos.disk_name(card)
    if named:
        for node in nodes.glob(f"{named[0]}*"):
            if re.fullmatch(r"(s\d+)*", node.name.removeprefix(named[0])):
                yield node.stat().st_rdev
