"""Disks of Windows, from PowerShell. Written from its documentation, not yet run on hardware."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from typing import Any

from miniscope_xr.errors import NotACardError
from miniscope_xr.tools.flash.disks.find import Disk

Run = Callable[[str], str]


def _run(script: str) -> str:
    command = ["powershell", "-NoProfile", "-NonInteractive", "-Command", script]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


class WindowsDisks:
    """Disks as ``Get-Disk`` and ``Get-Partition`` tell; ``run`` can be replaced by recorded outputs."""

    def __init__(self, run: Run = _run) -> None:
        self._run = run

    def _ask(self, script: str) -> list[dict[str, Any]]:
        try:
            text = self._run(f"{script} | ConvertTo-Json -Depth 3").strip()
            found = json.loads(text) if text else []
        except (subprocess.SubprocessError, OSError, ValueError) as error:
            raise NotACardError(f"PowerShell `{script}` failed: {error}; run as administrator") from error
        return found if isinstance(found, list) else [found]

    def names(self) -> list[str]:
        r"""Return the paths of every whole disk (``\\.\PhysicalDriveN``)."""
        return [rf"\\.\PhysicalDrive{disk['Number']}" for disk in self._ask("Get-Disk")]

    def loops_on(self, path: str) -> tuple[str, ...]:
        """None is known here: an attached image is a disk of its own, whose bus says so."""
        return ()

    def identify(self, path: str) -> Disk:
        r"""Describe ``\\.\PhysicalDriveN``."""
        match = re.fullmatch(r"\\\\\.\\PhysicalDrive(\d+)", path, re.IGNORECASE)
        if match is None:
            raise NotACardError(rf"{path} is not a whole disk; give \\.\PhysicalDriveN (see Get-Disk)")
        found = self._ask(f"Get-Disk -Number {match[1]}")
        if not found:
            raise NotACardError(f"{path}: Windows knows no such disk; `list` shows the candidates")
        disk = found[0]
        parts = self._ask(f"Get-Partition -DiskNumber {match[1]} -ErrorAction SilentlyContinue")
        drives = self._ask(f"Get-CimInstance Win32_DiskDrive -Filter 'Index={match[1]}'")
        mounts = [(path, f"{p['DriveLetter']}:\\") for p in parts if str(p.get("DriveLetter") or "").strip("\0 ")]
        if disk.get("IsSystem") or disk.get("IsBoot"):
            mounts.append((path, "/"))
        return Disk(
            path=rf"\\.\PhysicalDrive{match[1]}", kind="disk", bus=_bus(disk), size=int(disk.get("Size") or 0),
            sector_size=int(disk.get("LogicalSectorSize") or 512), read_only=bool(disk.get("IsReadOnly")),
            removable=any(d.get("MediaType") == "Removable Media" for d in drives),
            model=str(disk.get("FriendlyName") or "").strip(), serial=str(disk.get("SerialNumber") or "").strip(),
            mounts=tuple(mounts), partitions=tuple(f"{path} partition {p.get('PartitionNumber')}" for p in parts),
        )  # fmt: skip


# MSFT_Disk BusType, as a name or as its number
_BUSES = {
    "SD": "sd", "12": "sd", "USB": "usb", "7": "usb", "NVMe": "NVMe", "17": "NVMe", "SATA": "SATA", "11": "SATA",
    "RAID": "raid", "8": "raid", "MMC": "eMMC", "13": "eMMC", "Virtual": "virtual disk", "14": "virtual disk",
    "File Backed Virtual": "virtual disk", "15": "virtual disk", "Spaces": "raid", "16": "raid",
}  # fmt: skip


def _bus(disk: dict[str, Any]) -> str:
    return _BUSES.get(str(disk.get("BusType")), f"unknown bus ({disk.get('BusType')})")
