"""What a person types on each system: every command of the system that a message names is here.

A message that names a command the reader's computer does not have is a riddle: Windows has no ``umount``, no ``sudo``
and no single quotes. What is asked about a disk goes by the disk's name, which belongs to one system only; the rest by
the system this runs on.
"""

from __future__ import annotations

import shlex
import subprocess
import sys

from miniscope_xr.source import macos
from miniscope_xr.source.windows import device_name

_EXAMPLES = {"win32": r"\\.\PhysicalDrive2", "darwin": "/dev/rdisk4"}
LIST_DISKS = {"win32": "Get-Disk", "darwin": "diskutil list", "linux": "lsblk"}
"""What lists all disks of a computer."""


def example_device() -> str:
    """Return a card's device as this system names it."""
    return _EXAMPLES.get(sys.platform, "/dev/sdb")


def as_administrator() -> str:
    """Say how a person gets the rights to use a disk."""
    if sys.platform == "win32":
        return "run as administrator (Start menu, right-click on Terminal or PowerShell, Run as administrator)"
    if sys.platform == "darwin":
        return (
            "run as administrator (`sudo` in front of the command; where that is refused too: System Settings, "
            "Privacy & Security, Full Disk Access, Terminal)"
        )
    return "run as administrator (`sudo` in front of the command, or membership of the group 'disk')"


def unmount_command(disk: str, where: str) -> str:
    """Return what unmounts a volume at ``where`` of a disk.

    Examples
    --------
    >>> unmount_command("/dev/sdb", "/media/my card")
    "umount '/media/my card'"
    """
    if device_name(disk):
        place = where.rstrip("\\")
        return f'mountvol "{place}" /p' if " " in place else f"mountvol {place} /p"
    if macos.disk_name(disk):
        return f"diskutil unmountDisk {disk.replace('/dev/rdisk', '/dev/disk')}"
    return f"umount {shlex.quote(where)}"


def detach_command(loop: str) -> str:
    """Return what detaches a loop device (Linux has them alone)."""
    return f"losetup -d {loop}"


def try_again_command(copy: str) -> str:
    """Return what goes on with a copy that lacks sectors; empty on Windows, which has no ddrescue."""
    if sys.platform == "win32":
        return ""
    return f"ddrescue -d CARD {shlex.quote(copy)} {shlex.quote(copy + '.map')}"


def empty_image_command(size: int) -> str:
    """Return what makes an image of an empty card, without writing all of it."""
    return f"fsutil file createnew NAME {size}" if sys.platform == "win32" else f"truncate -s {size} NAME"


def quoted(path: str) -> str:
    """Quote a path where the shell needs it: double quotes for PowerShell and cmd, which pass single ones on."""
    return subprocess.list2cmdline([path]) if sys.platform == "win32" else shlex.quote(path)


def one_after_the_other(*commands: str) -> str:
    """Join commands of which each is run if those before it went well; Windows PowerShell has no ``&&``."""
    return (", then " if sys.platform == "win32" else " && ").join(commands)
