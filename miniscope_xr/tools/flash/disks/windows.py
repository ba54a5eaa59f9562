"""Disks of Windows, from PowerShell. Written from its documentation, not yet run on hardware."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import PureWindowsPath
from typing import Any

from miniscope_xr.errors import NotACardError
from miniscope_xr.source.windows import device_name
from miniscope_xr.source.words import LIST_DISKS, as_administrator
from miniscope_xr.tools.flash.disks.base import Disk

ScriptRunner = Callable[[str], str]
_BETWEEN = "-----"
"""Stands between the answers of one PowerShell: to begin one takes longer than all that it is asked."""
_LINE = re.compile(rf"^{_BETWEEN}\s*$", re.MULTILINE)
_PROGRAM = PureWindowsPath("System32", "WindowsPowerShell", "v1.0", "powershell.exe")
_NO_WINDOW = getattr(subprocess, "CREATE_NO_WINDOW", 0)
_TAKES_MEDIA = 7
"""Capability of a Win32_DiskDrive: "Supports Removable Media"."""
_DISK = "Number,FriendlyName,SerialNumber,BusType,Size,LogicalSectorSize,IsBoot,IsSystem,IsReadOnly"


def _run(script: str) -> str:
    """Run PowerShell. It writes the console's old code page unless told otherwise: a name with an umlaut is not it.

    It has a console of its own for that (without a window), as ours would stay changed. Nor may it have our standard
    input, which it would read to its end: there may be an answer to a question in it. It is named by its whole path: a
    name alone is looked for in the folder a user happens to be in, and this runs as administrator.
    """
    script = f"[Console]::OutputEncoding = [Text.Encoding]::UTF8; {script}"
    program = str(PureWindowsPath(os.environ.get("SYSTEMROOT", r"C:\Windows"), _PROGRAM))
    command = [program, "-NoProfile", "-NonInteractive", "-Command", script]
    found = subprocess.run(
        command, check=True, capture_output=True, timeout=60, stdin=subprocess.DEVNULL, creationflags=_NO_WINDOW
    ).stdout
    return found.decode("utf-8", errors="replace").lstrip("\ufeff")


class WindowsDisks:
    """Disks as ``Get-Disk`` and ``Get-Partition`` tell; ``run`` can be replaced by recorded outputs."""

    def __init__(self, run: ScriptRunner = _run) -> None:
        self._run = run

    def _ask(self, *commands: str) -> list[list[dict[str, Any]]]:
        """Return what each command found. Only if the last one fails PowerShell says that it failed.

        It is asked once more then: Windows begins the service that knows the disks when somebody asks, and now and then
        that is too late for the first question.
        """
        script = f"; '{_BETWEEN}'; ".join(commands)
        try:
            try:
                return self._answers(script, len(commands))
            except (subprocess.CalledProcessError, OSError, ValueError):
                return self._answers(script, len(commands))
        except (subprocess.SubprocessError, OSError, ValueError) as error:
            raise NotACardError(
                f"PowerShell, which tells of the disks, failed: {_why(error)}; {as_administrator()}"
            ) from error

    def _answers(self, script: str, wanted: int) -> list[list[dict[str, Any]]]:
        found = [json.loads(text) if text.strip() else [] for text in _LINE.split(self._run(script))]
        if len(found) != wanted:
            raise ValueError(f"it answered {len(found)} of {wanted} questions")
        return [each if isinstance(each, list) else [each] for each in found]

    def names(self) -> list[str]:
        r"""Return the paths of every whole disk (``\\.\PhysicalDriveN``)."""
        return [rf"\\.\PhysicalDrive{disk['Number']}" for disk in self._ask(_json("Get-Disk", "Number"))[0]]

    def loops_on(self, path: str) -> tuple[str, ...]:
        """None is known here: an attached image is a disk of its own, whose bus says so."""
        return ()

    def identify(self, path: str) -> Disk:
        r"""Describe ``\\.\PhysicalDriveN``."""
        name = device_name(path)
        if name is None:
            raise NotACardError(rf"{path} is not a whole disk; give \\.\PhysicalDriveN (see `{LIST_DISKS['win32']}`)")
        number = name[len(r"\\.\PhysicalDrive") :]
        quiet = "-ErrorAction SilentlyContinue"  # a card without partitions, as this tool makes them, is no error
        # only if the last one fails PowerShell does: it is asked for all disks, as one that is not there is no failure
        parts, drives, found = self._ask(
            _json(f"Get-Partition -DiskNumber {number} {quiet}", "PartitionNumber,DriveLetter"),
            _json(f"Get-CimInstance Win32_DiskDrive -Filter 'Index={number}'", "MediaType,Capabilities"),
            _json("Get-Disk", _DISK),
        )
        if not found:  # not even the one Windows is on: it cannot tell at all
            raise NotACardError(f"{path}: Windows names no disk; `{LIST_DISKS['win32']}` in PowerShell says why")
        disk = next((one for one in found if str(one.get("Number")) == number), None)
        if disk is None:
            raise NotACardError(f"{path}: Windows knows no such disk; `list` shows the candidates")
        mounts = [(name, "/")] if disk.get("IsSystem") or disk.get("IsBoot") else []
        return Disk(
            path=name, kind="disk", bus=_bus(disk), size=int(disk.get("Size") or 0),
            sector_size=int(disk.get("LogicalSectorSize") or 512), read_only=bool(disk.get("IsReadOnly")),
            removable=any(map(_takes_media, drives)),
            model=str(disk.get("FriendlyName") or "").strip(), serial=str(disk.get("SerialNumber") or "").strip(),
            mounts=tuple(mounts), partitions=tuple(_part(name, p) for p in parts),
        )  # fmt: skip


def _why(error: Exception) -> str:
    """What PowerShell said, without the whole of what it was asked."""
    if isinstance(error, subprocess.TimeoutExpired):
        return f"no answer within {error.timeout:.0f} s"
    if isinstance(error, subprocess.CalledProcessError):
        said = (error.stderr or b"").decode("utf-8", errors="replace").split("\n")[0].strip()
        return f"exit status {error.returncode}. {said}".strip(". ")
    return str(error)


def _json(command: str, fields: str) -> str:
    return f"{command} | Select-Object {fields} | ConvertTo-Json -Depth 3"


def _takes_media(drive: dict[str, Any]) -> bool:
    """Whether a drive is one for cards, not a hard disk: by its words, or a number where they are not English."""
    kind, can = str(drive.get("MediaType") or ""), drive.get("Capabilities") or []
    if kind.startswith(("Removable", "Fixed", "External")):
        return kind.startswith("Removable")
    return _TAKES_MEDIA in (can.get("value", []) if isinstance(can, dict) else can)  # PowerShell 5.1 writes some so


def _part(disk: str, part: dict[str, Any]) -> str:
    """Name a partition. Its letter is only told: Windows gives one to nearly every card, whatever is on it."""
    letter = str(part.get("DriveLetter") or "").strip("\0 ")
    return f"{disk} partition {part.get('PartitionNumber')}" + (f" ({letter}:)" if letter else "")


# MSFT_Disk BusType, as a name or as its number
_BUSES = {
    "SD": "sd", "12": "sd", "USB": "usb", "7": "usb", "NVMe": "NVMe", "17": "NVMe", "SATA": "SATA", "11": "SATA",
    "RAID": "raid", "8": "raid", "MMC": "eMMC", "13": "eMMC", "Virtual": "virtual disk", "14": "virtual disk",
    "File Backed Virtual": "virtual disk", "15": "virtual disk", "Spaces": "raid", "16": "raid",
}  # fmt: skip


def _bus(disk: dict[str, Any]) -> str:
    return _BUSES.get(str(disk.get("BusType")), f"unknown bus ({disk.get('BusType')})")
