"""Which disk is this? The system's own backend describes it, and the card its own id."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import replace

from miniscope_xr.errors import CardNotFoundError, CardPermissionError, MiniscopeError, NotACardError
from miniscope_xr.source import macos
from miniscope_xr.source.windows import device_name, real_path
from miniscope_xr.source.windows_volumes import no_volume
from miniscope_xr.tools.flash.disks.base import CARD_BUSES, Disk, Disks, image_file
from miniscope_xr.tools.flash.disks.own_id import read_own_id


def backend() -> Disks:
    """Return the backend of this computer's system."""
    if sys.platform == "darwin":
        from miniscope_xr.tools.flash.disks.macos import MacDisks  # the others' calls are not here

        return MacDisks()
    if sys.platform == "win32":
        from miniscope_xr.tools.flash.disks.windows import WindowsDisks  # the others' calls are not here

        return WindowsDisks()
    from miniscope_xr.tools.flash.disks.linux import LinuxDisks  # the others' calls are not here

    return LinuxDisks()


def present() -> Iterator[Disk]:
    """Describe every disk of this computer that can be described: not one pulled meanwhile, or without a node."""
    disks = backend()
    for name in disks.names():
        with contextlib.suppress(MiniscopeError):
            yield identify(name, disks)


def identify(path: str, disks: Disks | None = None) -> Disk:
    """Describe the disk or image file at ``path``.

    Raises
    ------
    CardNotFoundError
        There is nothing at this path.
    NotACardError
        It is neither a disk nor a file.
    """
    disk = _described(path, disks or backend())
    if disk.bus not in CARD_BUSES or not disk.size or disk.cid:
        return disk
    own_id, unique = read_own_id(disk)
    return replace(disk, own_id=own_id, own_id_unique=unique)


def _described(path: str, disks: Disks) -> Disk:
    if sys.platform == "win32" and (device := device_name(path)):
        return disks.identify(device)
    if sys.platform == "win32" and (said := no_volume(path)):
        raise NotACardError(said)
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - for pathlib an empty name is this folder
    except FileNotFoundError as error:
        raise CardNotFoundError(
            error.errno, "there is no file or device here; `list` shows the candidates", path
        ) from error
    except (OSError, ValueError) as error:  # a name too long, a file where a folder should be, no permission
        code = getattr(error, "errno", None) or errno.EINVAL
        kind = CardPermissionError if isinstance(error, PermissionError) else CardNotFoundError
        text = getattr(error, "strerror", None) or str(error)
        raise kind(code, f"cannot be looked at: {text}; `list` shows the candidates", path) from error
    if stat.S_ISREG(mode):
        return image_file(path, disks.loops_on(real_path(path)))
    if macos.is_disk(mode) if sys.platform == "darwin" else stat.S_ISBLK(mode):
        return disks.identify(real_path(path))
    what = "a directory" if stat.S_ISDIR(mode) else "neither a disk nor an image file"
    raise NotACardError(f"{path} is {what}; give the card's device or an image file")
