"""macOS as a raw disk meets it, on Linux: its device nodes, the kernel's calls on them, and ``diskutil``.

From Apple's headers and manual pages (``disk.h``, ``fcntl(2)``, ``open(2)``, ``diskutil(8)``): a disk is a block device
``/dev/diskN`` and a character device ``/dev/rdiskN``, which moves whole sectors only; it is not opened for writing
while one of its volumes is mounted; its end is asked for, not sought; it knows no F_FULLFSYNC. A disk is a file here,
and everything that is no disk is Linux' own.
"""

from __future__ import annotations

import errno
import os
import plistlib
import re
import stat
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

fcntl = pytest.importorskip("fcntl", reason="macOS is simulated above POSIX' own calls")

SECTOR = 512
EXLOCK = 0x20
_NODE = re.compile(r"/dev/(r?)(disk\d+)(s\d+)?")


@dataclass
class MacDisk:
    """A card in a reader.

    ``mounted`` names where its first partition is mounted, ``remounts`` that it is again when whoever wrote it closes
    it; ``dissenter`` is a program that does not let ``diskutil unmountDisk`` have it, ``checked`` for how many more
    openings another one has it (``fsck_msdos`` looks at a card that was put in). Without ``rights`` Terminal may not
    open it. ``knows`` are the flushes that the disk has, and ``broken`` one that fails.
    """

    file: str
    mounted: str = ""
    remounts: bool = False
    dissenter: str = ""
    checked: int = 0
    rights: bool = True
    sector: int = SECTOR
    knows: tuple[str, ...] = ("synchronized",)
    broken: str = ""
    pulled: bool = False
    protected: bool = False
    protocol: str = "USB"
    name: str = "STORAGE DEVICE"
    log: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        return os.path.getsize(self.file)  # noqa: PTH202 - os.stat is replaced


class Mac:
    """A computer with these disks; ``with Mac(disk4=MacDisk(file)):`` makes this process run on it."""

    def __init__(self, **disks: MacDisk) -> None:
        self.disks = disks
        self._fds: dict[int, tuple[MacDisk, bool]] = {}
        self._real: list[tuple[Any, str, Any]] = []

    def __enter__(self) -> Mac:
        for module, name in (
            (os, "open"), (os, "close"), (os, "stat"), (os, "read"), (os, "write"), (os, "lseek"), (os, "fsync"),
            (os, "pread"), (os, "preadv"), (os, "access"), (fcntl, "ioctl"), (fcntl, "fcntl"), (subprocess, "run"),
        ):  # fmt: skip
            self._real.append((module, name, getattr(module, name)))
            setattr(module, name, getattr(self, f"{module.__name__}_{name}"))
        self._real += [(sys, "platform", sys.platform), (os, "O_DIRECT", os.O_DIRECT)]
        os.O_DIRECT = 0  # macOS has none
        sys.platform = "darwin"
        self._os = {name: real for _, name, real in self._real}
        return self

    def __exit__(self, *exc: object) -> None:
        while self._real:
            module, name, real = self._real.pop()
            setattr(module, name, real)

    def _node(self, path: Any) -> tuple[MacDisk, bool] | None:
        match = _NODE.fullmatch(os.fspath(path)) if isinstance(path, str | os.PathLike) else None
        if match is None:
            return None
        disk = self.disks.get(match[2])
        if disk is None or disk.pulled:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", os.fspath(path))
        return disk, bool(match[1])

    def _disk(self, fd: int) -> tuple[MacDisk, bool] | None:
        found = self._fds.get(fd)
        if found and found[0].pulled:
            raise OSError(errno.ENXIO, "Device not configured")
        return found

    # -- the kernel ---------------------------------------------------------------------------------------

    def os_stat(self, path: Any, **named: Any) -> os.stat_result:
        if (node := self._node(path)) is None:
            return self._os["stat"](path, **named)
        facts = list(self._os["stat"](node[0].file))
        facts[0], facts[6] = (stat.S_IFCHR if node[1] else stat.S_IFBLK) | 0o640, 0
        return os.stat_result(facts)

    def os_access(self, path: Any, *rest: Any, **named: Any) -> bool:
        return self._os["access"](node[0].file if (node := self._node(path)) else path, *rest, **named)

    def _opened(self, disk: MacDisk, flags: int) -> int:
        writes = flags & (os.O_RDWR | os.O_WRONLY)
        if not disk.rights:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        if writes and disk.checked:
            disk.checked -= 1
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        if writes and disk.mounted:
            raise OSError(errno.EBUSY, "Resource busy")
        if writes and disk.protected:
            raise PermissionError(errno.EACCES, "Permission denied")
        fd = self._os["open"](disk.file, flags & (os.O_RDWR | os.O_WRONLY) | os.O_CLOEXEC)
        if flags & EXLOCK:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                self._os["close"](fd)
                raise
        return fd

    def os_open(self, path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if (node := self._node(path)) is None:
            return self._os["open"](path, flags & ~EXLOCK, *rest, **named)
        fd = self._opened(node[0], flags)
        self._fds[fd] = node
        return fd

    def os_close(self, fd: int) -> None:
        node = self._fds.pop(fd, None)
        if node and node[0].remounts and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_RDWR:
            node[0].mounted = "/Volumes/NO NAME"
        self._os["close"](fd)

    def _aligned(self, fd: int, at: int, length: int) -> None:
        """A character device moves whole sectors."""
        disk = self._disk(fd)
        if disk and disk[1] and (at % disk[0].sector or length % disk[0].sector):
            raise OSError(errno.EINVAL, "Invalid argument")

    def os_read(self, fd: int, length: int) -> bytes:
        if fd in self._fds:
            self._aligned(fd, self._os["lseek"](fd, 0, os.SEEK_CUR), length)
        return self._os["read"](fd, length)

    def os_write(self, fd: int, data: Any) -> int:
        if fd in self._fds:
            at = self._os["lseek"](fd, 0, os.SEEK_CUR)
            self._aligned(fd, at, len(data))
            disk = self._fds[fd][0]
            if at + len(data) > disk.size:
                raise OSError(errno.ENXIO, "Device not configured")
            disk.log.append("write")
        return self._os["write"](fd, data)

    def os_pread(self, fd: int, length: int, offset: int) -> bytes:
        self._aligned(fd, offset, length)
        return self._os["pread"](fd, length, offset)

    def os_preadv(self, fd: int, buffers: Any, offset: int, *flags: int) -> int:
        self._aligned(fd, offset, sum(map(len, buffers)))
        return self._os["preadv"](fd, buffers, offset, *flags)

    def os_lseek(self, fd: int, offset: int, how: int) -> int:
        disk = self._disk(fd)
        return 0 if disk and how == os.SEEK_END else self._os["lseek"](fd, offset, how)

    def os_fsync(self, fd: int) -> None:
        if disk := self._disk(fd):
            disk[0].log.append("fsync")
        self._os["fsync"](fd)

    def _flush(self, disk: MacDisk, how: str) -> int:
        disk.log.append(how)
        if how == disk.broken:
            raise OSError(errno.EIO, "Input/output error")
        if how not in disk.knows:
            raise OSError(errno.ENOTTY, "Inappropriate ioctl for device")
        return 0

    def fcntl_fcntl(self, fd: int, command: int, *rest: Any) -> Any:
        if (disk := self._disk(fd)) and command == 51:
            return self._flush(disk[0], "F_FULLFSYNC")
        return self._os["fcntl"](fd, command, *rest)

    def fcntl_ioctl(self, fd: int, request: int, *rest: Any) -> Any:
        if (disk := self._disk(fd)) is None:
            return self._os["ioctl"](fd, request, *rest)
        if request == 0x40086419:  # DKIOCGETBLOCKCOUNT
            return struct.pack("=Q", disk[0].size // disk[0].sector)
        if request == 0x40046418:  # DKIOCGETBLOCKSIZE
            return struct.pack("=I", disk[0].sector)
        if request == 0x20006416:  # DKIOCSYNCHRONIZECACHE
            return self._flush(disk[0], "synchronized")
        raise OSError(errno.ENOTTY, "Inappropriate ioctl for device")

    # -- diskutil -----------------------------------------------------------------------------------------

    def subprocess_run(self, command: Sequence[str], **named: Any) -> Any:
        if command[0] != "diskutil":
            return self._os["run"](command, **named)
        there = {name: disk for name, disk in self.disks.items() if not disk.pulled}
        if command[1] == "unmountDisk":
            return self._unmount(command)
        verb, plist, *of = command[1:]
        assert plist == "-plist"
        if of and of[0] not in there:
            raise subprocess.CalledProcessError(1, command, b"", b"Could not find disk")
        answer = self._info(of[0]) if verb == "info" else self._list(of or list(there))
        return subprocess.CompletedProcess(command, 0, plistlib.dumps(answer), b"")

    def _unmount(self, command: Sequence[str]) -> Any:
        name = os.path.basename(command[-1])  # noqa: PTH119 - pathlib would ask for the node
        disk = self.disks[name]
        if disk.dissenter and "force" not in command:
            said = f"Unmount of {name} failed: at least one volume could not be unmounted\n"
            said += f"Unmount was dissented by PID 512 ({disk.dissenter})\n"
            return subprocess.CompletedProcess(command, 1, b"", said.encode())
        disk.mounted = ""
        return subprocess.CompletedProcess(
            command, 0, f"Unmount of all volumes on {name} was successful\n".encode(), b""
        )

    def _info(self, name: str) -> dict[str, Any]:
        disk = self.disks[name]
        return {
            "BusProtocol": disk.protocol, "DeviceBlockSize": disk.sector, "DeviceIdentifier": name,
            "MediaName": disk.name, "IORegistryEntryName": f"Generic {disk.name} Media", "RemovableMedia": True,
            "Size": disk.size, "VirtualOrPhysical": "Physical", "WholeDisk": True, "WritableMedia": not disk.protected,
        }  # fmt: skip

    def _list(self, names: Sequence[str]) -> dict[str, Any]:
        rows = []
        for name in names:
            row: dict[str, Any] = {"DeviceIdentifier": name, "Size": self.disks[name].size, "Content": ""}
            if mounted := self.disks[name].mounted:
                row["Partitions"] = [{"DeviceIdentifier": f"{name}s1", "MountPoint": mounted}]
            rows.append(row)
        return {"AllDisksAndPartitions": rows, "WholeDisks": list(names)}
