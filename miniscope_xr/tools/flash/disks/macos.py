"""Disks of macOS, from ``diskutil``. Written from its documentation, not yet run on hardware."""

from __future__ import annotations

import plistlib
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

from miniscope_xr.errors import NotACardError
from miniscope_xr.source.macos import disk_name
from miniscope_xr.source.words import LIST_DISKS
from miniscope_xr.tools.flash.disks.base import Disk

Runner = Callable[[Sequence[str]], bytes]


def _run(command: Sequence[str]) -> bytes:
    return subprocess.run(command, check=True, capture_output=True, timeout=30).stdout


class MacDisks:
    """Disks as ``diskutil -plist`` tells; ``run`` can be replaced by recorded outputs."""

    def __init__(self, run: Runner = _run) -> None:
        self._run = run

    def _ask(self, *words: str) -> dict[str, Any]:
        try:
            found = plistlib.loads(self._run(["diskutil", *words]))
        except (subprocess.SubprocessError, plistlib.InvalidFileException, OSError) as error:
            raise NotACardError(
                f"diskutil {' '.join(words)} failed: {error}; check the path with `{LIST_DISKS['darwin']}`"
            ) from error
        return dict(found)

    def names(self) -> list[str]:
        """Return the paths of every whole disk."""
        return [f"/dev/{name}" for name in self._ask("list", "-plist").get("WholeDisks", [])]

    def loops_on(self, path: str) -> tuple[str, ...]:
        """None is known here: an attached image is a disk of its own, whose bus says so."""
        return ()

    def identify(self, path: str) -> Disk:
        """Describe ``/dev/diskN`` or ``/dev/rdiskN``."""
        named = disk_name(path)
        if named is None:
            raise NotACardError(f"{path} is not a disk of this computer; give /dev/diskN (see `diskutil list`)")
        name, partition = named
        info = self._ask("info", "-plist", name)
        parts = [
            p
            for d in self._ask("list", "-plist", name).get("AllDisksAndPartitions", [])
            for p in [d, *d.get("Partitions", []), *d.get("APFSVolumes", [])]
        ]
        mounts = [(f"/dev/{p['DeviceIdentifier']}", p["MountPoint"]) for p in parts if p.get("MountPoint")]
        return Disk(
            path=f"/dev/r{name}", kind="partition" if partition else "disk", bus=_bus(info),
            size=int(info.get("Size", info.get("TotalSize", 0))), sector_size=int(info.get("DeviceBlockSize", 512)),
            read_only=not info.get("WritableMedia", True), removable=bool(info.get("RemovableMedia")),
            model=str(info.get("MediaName", "")), reader=str(info.get("IORegistryEntryName", "")),
            serial=str(info.get("DiskUUID", "")), mounts=tuple(mounts),
            partitions=tuple(f"/dev/{p['DeviceIdentifier']}" for p in parts[1:]),
        )  # fmt: skip


def _bus(info: dict[str, Any]) -> str:
    protocol = str(info.get("BusProtocol", ""))
    if info.get("VirtualOrPhysical") == "Virtual" or protocol == "Disk Image":
        return "virtual disk"
    if protocol == "Secure Digital":
        return "sd"
    if protocol == "USB":
        return "usb" if info.get("RemovableMedia") else "usb hard disk"
    return {"PCI-Express": "NVMe", "Apple Fabric": "NVMe"}.get(protocol, protocol or "unknown bus")
