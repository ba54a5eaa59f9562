"""Disks of Windows, from PowerShell. Written from its documentation, not yet run on hardware."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

from miniscope_xr.errors import NotACardError
from miniscope_xr.source.windows import device_name
from miniscope_xr.source.words import LIST_DISKS, as_administrator
from miniscope_xr.tools.flash.disks.base import Disk

ScriptRunner = Callable[[str], str]
_BETWEEN = "-----"
"""Stands between the answers of one PowerShell: to begin one takes longer than all that it is asked."""
_DISK = "Number,FriendlyName,SerialNumber,BusType,Size,LogicalSectorSize,IsBoot,IsSystem,IsReadOnly"


def _run(script: str) -> str:
    """Run PowerShell. It writes the console's old code page unless told otherwise: a name with an umlaut is not it.

    Nor may it have our standard input, which it would read to its end: there may be an answer to a question in it.
    """
    script = f"[Console]::OutputEncoding = [Text.Encoding]::UTF8; {script}"
    command = ["powershell", "-NoProfile", "-NonInteractive", "-Command", script]
    found = subprocess.run(command, check=True, capture_output=True, timeout=60, stdin=subprocess.DEVNULL).stdout
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
        found = [json.loads(text) if text.strip() else [] for text in self._run(script).split(_BETWEEN)]
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
        found, parts, drives = self._ask(
            _json(f"Get-Disk -Number {number} {quiet}", _DISK),
            _json(f"Get-Partition -DiskNumber {number} {quiet}", "PartitionNumber,DriveLetter"),
            _json(f"Get-CimInstance Win32_DiskDrive -Filter 'Index={number}'", "MediaType"),
        )
        if not found:
            raise NotACardError(f"{path}: Windows knows no such disk; `list` shows the candidates")
        disk = found[0]
        mounts = [(name, "/")] if disk.get("IsSystem") or disk.get("IsBoot") else []
        return Disk(
            path=name, kind="disk", bus=_bus(disk), size=int(disk.get("Size") or 0),
            sector_size=int(disk.get("LogicalSectorSize") or 512), read_only=bool(disk.get("IsReadOnly")),
            removable=any(d.get("MediaType") == "Removable Media" for d in drives),
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
