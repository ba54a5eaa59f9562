"""Disks of macOS, from ``diskutil``. Written from its documentation, not yet run on hardware."""

from __future__ import annotations

import plistlib
import subprocess
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from xml.parsers.expat import ExpatError

from miniscope_xr.errors import NotACardError
from miniscope_xr.source.macos import disk_name
from miniscope_xr.source.words import LIST_DISKS
from miniscope_xr.tools.flash.disks.base import Disk

CommandRunner = Callable[[Sequence[str]], bytes]


def _run(command: Sequence[str]) -> bytes:
    return subprocess.run(command, check=True, capture_output=True, timeout=30).stdout


class MacDisks:
    """Disks as ``diskutil -plist`` tells; ``run`` can be replaced by recorded outputs."""

    def __init__(self, run: CommandRunner = _run) -> None:
        self._run = run

    def _ask(self, *words: str) -> dict[str, Any]:
        try:
            return dict(plistlib.loads(self._run(["diskutil", *words])))
        except (subprocess.SubprocessError, OSError, ExpatError, ValueError, TypeError) as error:
            why = _reason(getattr(error, "stdout", None)) or str(error) or type(error).__name__
            raise NotACardError(
                f"diskutil {' '.join(words)} failed: {why}; check the path with `{LIST_DISKS['darwin']}`"
            ) from error

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
        parts = _parts(name, self._ask("list", "-plist").get("AllDisksAndPartitions", []))
        mounts = [(f"/dev/{p['DeviceIdentifier']}", where) for p in parts for where in _mounted(p)]
        return Disk(
            path=f"/dev/r{name}", kind="partition" if partition else "disk", bus=_bus(info),
            size=int(info.get("Size", info.get("TotalSize", 0))), sector_size=int(info.get("DeviceBlockSize", 512)),
            read_only=not info.get("WritableMedia", True), removable=bool(info.get("RemovableMedia")),
            model=str(info.get("MediaName", "")), reader=str(info.get("IORegistryEntryName", "")),
            serial=str(info.get("DiskUUID", "")), mounts=tuple(mounts),
            partitions=tuple(f"/dev/{p['DeviceIdentifier']}" for p in parts[1:]),
        )  # fmt: skip


def _parts(name: str, disks: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a disk and its partitions. The volumes of an APFS partition are listed as those of a disk of their own."""
    own = [p for d in disks if d.get("DeviceIdentifier") == name for p in (d, *d.get("Partitions", []))]
    here = {p.get("DeviceIdentifier") for p in own}
    for d in disks:
        stores = {store.get("DeviceIdentifier") for store in d.get("APFSPhysicalStores", [])}
        if d.get("DeviceIdentifier") == name or stores & here:
            own += d.get("APFSVolumes", [])
    return own


def _mounted(part: dict[str, Any]) -> Iterator[str]:
    """Yield where a volume is mounted; of the system's own it is a snapshot that is."""
    for place in (part.get("MountPoint"), *(s.get("SnapshotMountPoint") for s in part.get("MountedSnapshots", []))):
        if place:
            yield str(place)


def _reason(answer: bytes | None) -> str:
    """Return what diskutil says in its property list when it fails: ``ErrorMessage``, in the user's language."""
    try:
        return str(plistlib.loads(answer or b"").get("ErrorMessage", "")).strip()
    except (ExpatError, ValueError, AttributeError):
        return ""


def _bus(info: dict[str, Any]) -> str:
    protocol = str(info.get("BusProtocol", ""))
    if info.get("VirtualOrPhysical") == "Virtual" or protocol == "Disk Image":
        return "virtual disk"
    if protocol == "Secure Digital":
        return "sd"
    if protocol == "USB":
        return "usb" if info.get("RemovableMedia") else "usb hard disk"
    return {"PCI-Express": "NVMe", "Apple Fabric": "NVMe"}.get(protocol, protocol or "unknown bus")
