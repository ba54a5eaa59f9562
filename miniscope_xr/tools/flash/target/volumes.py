r"""Volumes of a disk on Windows: locked and let go before the disk is written, held until it is closed.

Windows writes nothing to a disk behind the first sectors while one of its volumes is mounted, and a lock is one of a
*volume* (``\\?\Volume{...}``), not of the disk. A drive letter says little: nearly every card gets one. A volume that
cannot be locked is in use: that is what stops us. The calls are from Microsoft's documentation; they are run under Wine
on simulated readers (``tests/windows``), not yet on hardware.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from typing import Protocol

from miniscope_xr.source import windows, windows_volumes
from miniscope_xr.source.words import unmount_command
from miniscope_xr.tools.flash.errors import BusyError

LOCK, DISMOUNT = 0x90018, 0x90020
"""FSCTL_LOCK_VOLUME, FSCTL_DISMOUNT_VOLUME."""
_ALREADY_EXISTS = 183
_UNKNOWN = (1, 50)
"""ERROR_INVALID_FUNCTION, ERROR_NOT_SUPPORTED."""
_PATIENCE = 2.0
"""Seconds: a virus scanner, the search or the Explorer look at a card for a moment when it is put in."""


class VolumeCalls(Protocol):
    """What is asked of Windows; tests put a simulated one in its place."""

    def volumes(self) -> Iterator[str]:
        """Name every volume of this computer."""
        ...

    def open(self, volume: str, write: bool) -> int:
        """Open a volume for reading and writing, or only to ask about it; raises OSError."""
        ...

    def disks(self, handle: int) -> list[int]:
        """Return the numbers of the disks it lies on; none for a volume that lies on none."""
        ...

    def places(self, volume: str) -> list[str]:
        """Return where a volume is shown: its letters and folders."""
        ...

    def control(self, handle: int, code: int) -> None:
        """Send a control code without data; raises OSError."""
        ...

    def close(self, handle: int) -> None:
        """Close a handle; its lock ends."""
        ...


def _in_use(volume: str, places: list[str], number: int, why: OSError) -> BusyError:
    disk = rf"\\.\PhysicalDrive{number}"
    away = " and ".join(f"`{unmount_command(disk, place)}`" for place in places)
    text = "a volume on it is in use"
    if why.errno not in (errno.EACCES, errno.EBUSY):  # somebody has a file of it open is what Windows says with these
        text += f", or Windows does not let go of it ({why.strerror})"
    text += "; close the files and windows that show it"
    what = "letter" if all(len(place) <= len("E:\\") for place in places) else "place"
    return BusyError(errno.EBUSY, text + (f" (or take its {what} away: {away})" if away else ""), volume)


class VolumeLocks:
    """Locks on every volume of disk ``number``.

    Raises
    ------
    BusyError
        A volume is in use, for example by an open file or an Explorer window.
    """

    def __init__(self, number: int, calls: VolumeCalls | None = None) -> None:
        self._calls = calls or WindowsCalls()
        self._number, self._held = number, dict[str, int]()
        try:
            self.take_new()
        except BaseException:
            self.close()
            raise

    def take_new(self) -> bool:
        """Lock the volumes that came since (Windows finds those of a new card one by one); whether there were any."""
        new = [name for name in self._calls.volumes() if name not in self._held and self._on(name)]
        for volume in new:
            self._held[volume] = self._let_go(volume)
        return bool(new)

    def _let_go(self, volume: str) -> int:
        """Lock and dismount a volume; who has a file of it open for a moment is waited for.

        A lock without the dismount would let us write, and the file system write its own view of the volume afterwards.
        """
        until = time.monotonic() + _PATIENCE
        while True:
            handle = None
            try:
                handle = self._calls.open(volume, True)
                self._calls.control(handle, LOCK)
                self._dismount(handle)
            except OSError as why:
                if handle is not None:
                    self._calls.close(handle)
                if time.monotonic() > until:
                    raise _in_use(volume, self._calls.places(volume), self._number, why) from why
            else:
                return handle
            time.sleep(0.1)

    def _dismount(self, handle: int) -> None:
        """Let go of a volume, where there is a file system that does."""
        try:
            self._calls.control(handle, DISMOUNT)
        except OSError as error:
            if getattr(error, "winerror", None) not in _UNKNOWN:
                raise

    def _on(self, volume: str) -> bool:
        """Whether a volume lies on the disk, also where it may not be opened for more than this question."""
        try:
            handle = self._calls.open(volume, False)
        except OSError:  # a reader without a card, a volume that just went
            return False
        try:
            return self._number in self._calls.disks(handle)
        finally:
            self._calls.close(handle)

    def close(self) -> None:
        """Give the volumes back."""
        while self._held:
            self._calls.close(self._held.popitem()[1])


class WindowsCalls:
    """The calls of kernel32."""

    def __init__(self) -> None:
        self._k = windows.kernel32()

    def volumes(self) -> Iterator[str]:
        r"""Yield ``\\?\Volume{...}`` without the backslash at the end, which would name the root folder."""
        import ctypes

        name = ctypes.create_unicode_buffer(1024)
        search = self._k.FindFirstVolumeW(name, len(name))
        if search in (None, windows.INVALID_HANDLE):
            return
        try:
            yield name.value.rstrip("\\")
            while self._k.FindNextVolumeW(search, name, len(name)):
                yield name.value.rstrip("\\")
        finally:
            self._k.FindVolumeClose(search)

    def open(self, volume: str, write: bool) -> int:
        """Call CreateFile."""
        return windows_volumes.opened(volume, write)

    def disks(self, handle: int) -> list[int]:
        """Ask for the VOLUME_DISK_EXTENTS."""
        return windows_volumes.disks_of(handle)

    def places(self, volume: str) -> list[str]:
        """Call GetVolumePathNamesForVolumeName: names one after the other, each with a zero behind it."""
        import ctypes

        names, length = ctypes.create_unicode_buffer(1024), ctypes.c_uint32()
        known = self._k.GetVolumePathNamesForVolumeNameW(volume + "\\", names, len(names), ctypes.byref(length))
        return [name for name in ctypes.wstring_at(names, length.value).split("\0") if name] if known else []

    def control(self, handle: int, code: int) -> None:
        """Call DeviceIoControl."""
        windows.control(handle, code)

    def close(self, handle: int) -> None:
        """Call CloseHandle."""
        self._k.CloseHandle(handle)


class Claim:
    """The right to write a disk, of one copy of this tool at a time: a disk without volumes has nothing to lock.

    Raises
    ------
    BusyError
        Another copy writes to it.
    """

    def __init__(self, number: int) -> None:
        self._k = windows.kernel32()
        windows.forget_error()  # of an earlier call: of a mutex that is new Windows need not say that all is well
        self._mutex = self._k.CreateMutexW(None, 0, rf"Global\miniscope-xr PhysicalDrive{number}")
        error = windows.last_error()
        if not self._mutex or error.winerror == _ALREADY_EXISTS:
            self.close()
            text = "another copy of this tool writes to it; end that first"
            raise BusyError(errno.EBUSY, text, rf"\\.\PhysicalDrive{number}")

    def close(self) -> None:
        """Give it up."""
        if self._mutex:
            self._k.CloseHandle(self._mutex)
            self._mutex = None
