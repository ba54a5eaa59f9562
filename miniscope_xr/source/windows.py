r"""What Windows does differently with a raw disk: its names, its size, and how it says what went wrong.

From Microsoft's documentation; run under Wine below a simulated disk (``tests/windows``), not yet on hardware. Nothing
here is called on another system.
"""

from __future__ import annotations

import errno
import os
import re
import struct
from functools import cache
from pathlib import PureWindowsPath
from typing import Any

from miniscope_xr.errors import plain

_DEVICE = re.compile(r"(?:[\\/]{1,2}[.?][\\/]?)?PhysicalDrive([0-9]{1,9})[\\/. ]*", re.IGNORECASE | re.ASCII)
_OWN = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³]) *(?:[.:]|$)", re.IGNORECASE)
_FORBIDDEN = re.compile(r'[\x00-\x1f<>:"|?*]')
_TOO_LONG, _MOST = 206, 259
"""ERROR_FILENAME_EXCED_RANGE; letters of a path where long ones are switched off."""
_GET_LENGTH_INFO, _GET_GEOMETRY, _CHECK_VERIFY, _UPDATE_PROPERTIES = 0x7405C, 0x70000, 0x2D4800, 0x70140
"""IOCTL_DISK_GET_LENGTH_INFO, ..._GET_DRIVE_GEOMETRY, IOCTL_STORAGE_CHECK_VERIFY, IOCTL_DISK_UPDATE_PROPERTIES."""
INVALID_HANDLE = (1 << 8 * struct.calcsize("P")) - 1
_NO_CACHE = (1, 50)
"""ERROR_INVALID_FUNCTION, ERROR_NOT_SUPPORTED: of a driver without a flush, which Microsoft leaves it free to be."""
_CLOUD = (362, 363, 388, 389, 393, 395, 398, 404, 426)
"""ERROR_CLOUD_FILE_*: a file of OneDrive or its like is only a name here, and what is in it does not come."""
_MEANING = {
    5: errno.EACCES,  # ERROR_ACCESS_DENIED, of which a write makes "bad file descriptor"
    19: errno.EROFS,  # ERROR_WRITE_PROTECT
    21: errno.ENODEV,  # ERROR_NOT_READY: a reader without a card
    32: errno.EBUSY, 33: errno.EBUSY,  # ERROR_SHARING_VIOLATION, ERROR_LOCK_VIOLATION
    433: errno.ENODEV, 1110: errno.ENODEV, 1112: errno.ENODEV, 1167: errno.ENODEV,  # gone, changed, no medium, pulled
    **dict.fromkeys(_CLOUD, errno.EIO),
    **dict.fromkeys([23, 27, 29, 30, 31, 121, 483, 1117], errno.EIO),  # bad sectors, and devices that do not answer
}  # fmt: skip


def device_name(path: str) -> str | None:
    r"""Return Windows' ``\\.\PhysicalDriveN`` for each way of writing it; None for anything else.

    What Windows drops at the end of a name (dots, spaces) or a shell puts there (a backslash) is no other name, nor are
    backslashes that a shell took away: Git Bash makes ``\.PhysicalDrive2`` of it, and ``\.\PhysicalDrive2`` in quotes.
    """
    match = _DEVICE.fullmatch(path)
    return rf"\\.\PhysicalDrive{int(match[1])}" if match else None


def is_device(name: str) -> bool:
    """Whether Windows, or an older one, takes a name for a device of its own, with whatever ending: ``aux.csv``."""
    return _OWN.match(name) is not None


def unusable(path: str) -> str:
    r"""Say why Windows would not make the file or folder of this name, but something else; empty where it would.

    A film called ``mouse 12:30.avi`` becomes a stream of a file ``mouse 12`` that no folder shows; ``aux.csv`` goes to
    a device; ``day 3.`` is made as ``day 3``, and ``sub. /film.avi`` is not found.
    """
    place = PureWindowsPath(path)
    if place.drive.startswith("\\\\.\\"):
        return "this is a device; give the name of a file"
    for name in place.parts[1:] if place.anchor else place.parts:
        if found := _FORBIDDEN.search(name):
            return f"Windows takes no {plain(found[0])!r} in a name ({plain(name)!r}); leave it out"
        if is_device(name):
            return f"{plain(name)!r} is the name of a device to Windows; give another name"
        if name != ".." and name.endswith((".", " ")):
            return f"Windows drops dots and spaces at the end of a name ({plain(name)!r}); leave them out"
    return ""


def hint_of_length(path: str | os.PathLike[str], error: OSError, most: int = _MOST) -> str:
    """Say that a path may be too long: long ones are off, it was not found, and has more than so many letters.

    Parameters
    ----------
    path, error
        What was tried, and what Windows said.
    most
        Letters; of an output fewer, as files with longer names are made beside it.
    """
    whole = os.path.abspath(path)  # noqa: PTH100
    unknown = error.errno in (errno.ENOENT, errno.EINVAL) or getattr(error, "winerror", None) == _TOO_LONG
    if not unknown or len(whole) <= most or whole.startswith("\\\\?\\") or _long_paths():
        return ""
    return (
        f" (its path has {len(whole)} letters; long paths are switched off on this computer, so that it takes up to "
        f"{_MOST}, for what is made beside a file too: take a folder nearer to C:\\)"
    )


def _long_paths() -> bool:
    """Whether this Windows takes longer paths."""
    import winreg  # of Windows alone

    known: Any = winreg
    try:
        with known.OpenKey(known.HKEY_LOCAL_MACHINE, r"SYSTEM\CurrentControlSet\Control\FileSystem") as key:
            return bool(known.QueryValueEx(key, "LongPathsEnabled")[0])
    except OSError:
        return False


def real_path(path: str) -> str:
    """Follow links, as ``os.path.realpath``; where Windows cannot tell (some RAM disks and shares), leave them."""
    try:
        return os.path.realpath(path)
    except OSError:
        return os.path.abspath(path)  # noqa: PTH100


@cache
def kernel32() -> Any:
    """The calls we use, with the types they have on 64 bits (a handle is a pointer)."""
    import ctypes

    k: Any = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined, unused-ignore]
    handle, text, dword, pointer = ctypes.c_void_p, ctypes.c_wchar_p, ctypes.c_uint32, ctypes.c_void_p
    types = {
        "FindFirstVolumeW": ((text, dword), handle),
        "FindNextVolumeW": ((handle, text, dword), ctypes.c_int),
        "FindVolumeClose": ((handle,), ctypes.c_int),
        "GetVolumePathNamesForVolumeNameW": ((text, pointer, dword, ctypes.POINTER(dword)), ctypes.c_int),
        "GetVolumePathNameW": ((text, text, dword), ctypes.c_int),
        "GetVolumeNameForVolumeMountPointW": ((text, text, dword), ctypes.c_int),
        "CreateFileW": ((text, dword, dword, pointer, dword, dword, handle), handle),
        "CreateMutexW": ((pointer, ctypes.c_int, text), handle),
        "DeviceIoControl": (
            (handle, dword, pointer, dword, pointer, dword, ctypes.POINTER(dword), pointer), ctypes.c_int,
        ),
        "FlushFileBuffers": ((handle,), ctypes.c_int),
        "CloseHandle": ((handle,), ctypes.c_int),
        "GetConsoleMode": ((handle, ctypes.POINTER(dword)), ctypes.c_int),
    }  # fmt: skip
    for name, (arguments, result) in types.items():
        call = getattr(k, name)
        call.argtypes, call.restype = arguments, result
    return k


def control(handle: int, code: int, room: int = 0) -> bytes:
    """Send a control code; return the answer, of at most ``room`` bytes.

    Raises
    ------
    OSError
        With Windows' own message.
    """
    import ctypes

    answer = ctypes.create_string_buffer(max(room, 1))
    got = ctypes.c_uint32()
    if not kernel32().DeviceIoControl(handle, code, None, 0, answer if room else None, room, ctypes.byref(got), None):
        raise last_error()
    return answer.raw[: got.value]


def _handle(fd: int) -> int:
    import msvcrt

    return int(msvcrt.get_osfhandle(fd))  # type: ignore[attr-defined, unused-ignore]


def is_nul(stream: Any) -> bool:
    """Whether a stream that calls itself a terminal is none: a console has a mode, ``NUL`` has not."""
    import ctypes

    mode = ctypes.c_uint32()
    try:
        return not kernel32().GetConsoleMode(_handle(stream.fileno()), ctypes.byref(mode))
    except (OSError, ValueError, AttributeError):  # no stream of the system's
        return False


def disk_size(fd: int) -> int:
    r"""Size of ``\\.\PhysicalDriveN`` in bytes."""
    return int.from_bytes(control(_handle(fd), _GET_LENGTH_INFO, 8), "little", signed=True)


def sector_size(fd: int) -> int:
    """Bytes of a disk's sector, the last number of a DISK_GEOMETRY; 0 where Windows does not tell."""
    try:
        answer = control(_handle(fd), _GET_GEOMETRY, 24)
    except OSError:
        return 0
    return int.from_bytes(answer[20:24], "little")


def media_changes(fd: int) -> int | None:
    """How often the card in a reader was changed; None where the reader does not count."""
    try:
        answer = control(_handle(fd), _CHECK_VERIFY, 4)
    except OSError as error:
        if error.errno == errno.ENODEV:
            raise
        return None
    return int.from_bytes(answer, "little") if len(answer) == 4 else None


def full_sync(fd: int) -> None:
    """Have the disk write out its own cache; one that says that it has no such function has none."""
    if not kernel32().FlushFileBuffers(_handle(fd)):  # os.fsync makes EBADF of all that Windows says
        error = last_error()
        if getattr(error, "winerror", None) not in _NO_CACHE:
            raise error


def reread_partitions(fd: int) -> None:
    """Tell Windows that the partition table is another one now."""
    control(_handle(fd), _UPDATE_PROPERTIES)


def plainly(code: int) -> OSError:
    """Return an error of Windows as the error every system knows, with Windows' own words."""
    import ctypes

    known: Any = ctypes
    error: OSError = known.WinError(code)
    if code not in _MEANING:
        return error
    text = str(error.strerror).strip().rstrip(".")
    if code in _CLOUD:
        text += " (it lies in a cloud folder, and not on this computer: let it be kept on this device, or copy it)"
    return OSError(_MEANING[code], text)


def last_error() -> Any:
    """The error of the last call of :func:`kernel32` in this thread."""
    import ctypes

    known: Any = ctypes
    return plainly(known.get_last_error())


def forget_error() -> None:
    """Let :func:`last_error` tell of the next call alone."""
    import ctypes

    known: Any = ctypes
    known.set_last_error(0)


def told(error: OSError) -> OSError:
    """Return what Windows said, where the C runtime made something else of it.

    To it no card, a write-protected one and a bad sector are all "permission denied", a pulled one "invalid argument".
    """
    if error.errno not in (errno.EACCES, errno.EINVAL, errno.EBADF) or getattr(error, "winerror", None):
        return error
    import ctypes

    code = ctypes.c_ulong()
    ctypes.CDLL("ucrtbase")._get_doserrno(ctypes.byref(code))
    return plainly(code.value) if code.value in _MEANING else error
