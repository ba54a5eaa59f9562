r"""Volumes of a disk on Windows: locked and let go before the disk is written, held until it is closed.

Windows writes nothing to a disk behind the first sectors while one of its volumes is mounted, and a lock is one of a
*volume* (``\\?\Volume{...}``), not of the disk. A drive letter says little: nearly every card gets one. A volume that
cannot be locked is in use: that is what stops us. The calls are from Microsoft's documentation; the order is tested,
the calls themselves were only read.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any, Protocol

from miniscope_xr.tools.flash.errors import BusyError

LOCK, DISMOUNT, EXTENTS = 0x90018, 0x90020, 0x560000
"""FSCTL_LOCK_VOLUME, FSCTL_DISMOUNT_VOLUME, IOCTL_VOLUME_GET_VOLUME_DISK_EXTENTS."""


class VolumeCalls(Protocol):
    """What is asked of Windows; tests put a simulated one in its place."""

    def volumes(self) -> Iterator[str]:
        """Name every volume of this computer."""
        ...

    def open(self, volume: str) -> int:
        """Open a volume for reading and writing, shared; raises OSError."""
        ...

    def disks(self, handle: int) -> list[int]:
        """Return the numbers of the disks it lies on; none for a volume that lies on none."""
        ...

    def control(self, handle: int, code: int) -> bool:
        """Send a control code without data; False if it failed."""
        ...

    def close(self, handle: int) -> None:
        """Close a handle; its lock ends."""
        ...


class VolumeLocks:
    """Locks on every volume of disk ``number``.

    Raises
    ------
    BusyError
        A volume is in use, for example by an open file or an Explorer window.
    """

    def __init__(self, number: int, calls: VolumeCalls | None = None) -> None:
        self._calls = calls or WindowsCalls()
        self._handles: list[int] = []
        try:
            for volume in self._calls.volumes():
                self._take(volume, number)
        except BaseException:
            self.close()
            raise

    def _take(self, volume: str, number: int) -> None:
        try:
            handle = self._calls.open(volume)
        except OSError:  # a reader without a card, a volume that just went
            return
        if number not in self._calls.disks(handle):
            return self._calls.close(handle)
        self._handles.append(handle)
        if not self._calls.control(handle, LOCK):
            raise BusyError(
                errno.EBUSY, "a volume on it is in use; close the files and windows that show it (or take its letter "
                "away: `mountvol E: /p`)", volume,
            )  # fmt: skip
        self._calls.control(handle, DISMOUNT)

    def close(self) -> None:
        """Give the volumes back."""
        for handle in self._handles:
            self._calls.close(handle)
        self._handles = []


class WindowsCalls:
    """The calls of kernel32, with the types they have on 64 bits."""

    def __init__(self) -> None:
        import ctypes

        self._c: Any = ctypes
        k: Any = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined, unused-ignore]
        handle, text, dword = ctypes.c_void_p, ctypes.c_wchar_p, ctypes.c_uint32
        k.FindFirstVolumeW.argtypes, k.FindFirstVolumeW.restype = (text, dword), handle
        k.FindNextVolumeW.argtypes, k.FindNextVolumeW.restype = (handle, text, dword), ctypes.c_int
        k.FindVolumeClose.argtypes = (handle,)
        k.CreateFileW.argtypes = (text, dword, dword, ctypes.c_void_p, dword, dword, handle)
        k.CreateFileW.restype = handle
        k.DeviceIoControl.argtypes = (
            handle, dword, ctypes.c_void_p, dword, ctypes.c_void_p, dword, ctypes.POINTER(dword), ctypes.c_void_p,
        )  # fmt: skip
        k.DeviceIoControl.restype = ctypes.c_int
        k.CloseHandle.argtypes = (handle,)
        self._k = k
        self._invalid = ctypes.c_void_p(-1).value

    def volumes(self) -> Iterator[str]:
        r"""Yield ``\\?\Volume{...}`` without the backslash at the end, which would name the root folder."""
        name = self._c.create_unicode_buffer(1024)
        search = self._k.FindFirstVolumeW(name, len(name))
        if search in (None, self._invalid):
            return
        try:
            yield name.value.rstrip("\\")
            while self._k.FindNextVolumeW(search, name, len(name)):
                yield name.value.rstrip("\\")
        finally:
            self._k.FindVolumeClose(search)

    def open(self, volume: str) -> int:
        """Open with GENERIC_READ | GENERIC_WRITE, FILE_SHARE_READ | FILE_SHARE_WRITE, OPEN_EXISTING."""
        handle = self._k.CreateFileW(volume, 0xC0000000, 3, None, 3, 0, None)
        if handle in (None, self._invalid):
            raise self._c.WinError(self._c.get_last_error())
        return int(handle)

    def disks(self, handle: int) -> list[int]:
        """Read a VOLUME_DISK_EXTENTS: a count, then 24 bytes each, of which the first four are the disk's number."""
        answer = self._c.create_string_buffer(8 + 24 * 64)
        got = self._c.c_uint32()
        if not self._k.DeviceIoControl(handle, EXTENTS, None, 0, answer, len(answer), self._c.byref(got), None):
            return []
        return extents(answer.raw[: got.value])

    def control(self, handle: int, code: int) -> bool:
        """Call DeviceIoControl."""
        got = self._c.c_uint32()
        return bool(self._k.DeviceIoControl(handle, code, None, 0, None, 0, self._c.byref(got), None))

    def close(self, handle: int) -> None:
        """Call CloseHandle."""
        self._k.CloseHandle(handle)


def extents(answer: bytes) -> list[int]:
    """Return the disk numbers in a VOLUME_DISK_EXTENTS."""
    count = int.from_bytes(answer[:4], "little")
    return [int.from_bytes(answer[8 + 24 * i : 12 + 24 * i], "little") for i in range(count)]
