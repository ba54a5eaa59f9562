r"""Volumes of Windows: where files are on a disk, shown under a letter or in a folder. A person takes one for the card.

The calls are from Microsoft's documentation; run under Wine on simulated readers (``tests/windows``), not yet on
hardware. Nothing here is called on another system.
"""

from __future__ import annotations

import re

from miniscope_xr.source import windows

_LETTER = re.compile(r"(?:[\\/]{2}[.?][\\/])?([A-Z]:)[\\/. ]*", re.IGNORECASE | re.ASCII)
_VOLUME = re.compile(r"[\\/]{2}[.?][\\/](Volume\{[-0-9A-Z]+\})[\\/. ]*", re.IGNORECASE | re.ASCII)
_EXTENTS, _MORE_DATA = 0x560000, 234
"""IOCTL_VOLUME_GET_VOLUME_DISK_EXTENTS, and what it says of too little room."""


def volume_name(path: str) -> str | None:
    r"""Return ``E:`` or ``Volume{...}`` for each way of writing it: the place of files on a disk, which is no card."""
    match = _LETTER.fullmatch(path) or _VOLUME.fullmatch(path)
    return match[1] if match else None


def opened(path: str, write: bool) -> int:
    """Open a volume to read and write it, or only to ask about it, beside whoever else has it open.

    Raises
    ------
    OSError
        With Windows' own message.
    """
    # GENERIC_READ | GENERIC_WRITE; FILE_SHARE_READ | FILE_SHARE_WRITE, OPEN_EXISTING
    handle = windows.kernel32().CreateFileW(path, 0xC0000000 if write else 0, 3, None, 3, 0, None)
    if handle in (None, windows.INVALID_HANDLE):
        raise windows.last_error()
    return int(handle)


def disks_of(handle: int) -> list[int]:
    """Return the numbers of the disks that a volume lies on; none for one that lies on none."""
    for room in (1, 64, 4096):  # a volume of several stretches, on one disk or on many
        try:
            return extents(windows.control(handle, _EXTENTS, 8 + 24 * room))
        except OSError as error:  # if not for the room: a volume on no disk, or of a reader without a card
            if getattr(error, "winerror", None) != _MORE_DATA:
                break
    return []


def extents(answer: bytes) -> list[int]:
    """Return the disk numbers in a VOLUME_DISK_EXTENTS: a count, then 24 bytes each, which begin with a number."""
    count = int.from_bytes(answer[:4], "little")
    return [int.from_bytes(answer[8 + 24 * i : 12 + 24 * i], "little") for i in range(count)]


def _disks_of_name(volume: str) -> set[int]:
    """Return the same of a volume by its name; none where it cannot be asked."""
    try:
        handle = opened(volume, False)
    except OSError:
        return set()
    try:
        return set(disks_of(handle))
    finally:
        windows.kernel32().CloseHandle(handle)


def disks_below(folder: str) -> set[int]:
    """Return the numbers of the disks that a folder lies on; none for one of another computer."""
    import ctypes

    place, name = ctypes.create_unicode_buffer(32768), ctypes.create_unicode_buffer(64)
    if not windows.kernel32().GetVolumePathNameW(folder, place, len(place)):
        return set()
    if letter := volume_name(place.value):
        return _disks_of_name(rf"\\.\{letter}")
    found = windows.kernel32().GetVolumeNameForVolumeMountPointW(place.value, name, len(name))
    return _disks_of_name(name.value.rstrip("\\")) if found else set()


def no_volume(path: str) -> str:
    r"""Say which disk is meant by a drive letter, as the Explorer shows it, or by a volume; empty for another path."""
    name = volume_name(path)
    if name is None:
        return ""
    what = "a drive letter" if name.endswith(":") else "a volume"
    where = " and ".join(rf"\\.\PhysicalDrive{number}" for number in sorted(_disks_of_name(rf"\\.\{name}")))
    return f"{path} is {what}; a card is the whole disk: " + (where or "`list` shows the candidates")
