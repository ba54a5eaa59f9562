"""Disks of Linux, from sysfs and procfs. ``root`` can be any folder, so a fixture is a folder."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from miniscope_xr.errors import NotACardError
from miniscope_xr.tools.flash.disks.base import Disk, read_text

_BOOT = re.compile(r"mmcblk\d+(boot\d+|gp\d+|rpmb)")
_VIRTUAL = (
    "loop",
    "md",
    "dm-",
    "zram",
    "ram",
    "nbd",
    "zd",
    "drbd",
    "rbd",
    "bcache",
    "pmem",
    "vd",
    "xvd",
    "ublkb",
    "nullb",
)
_NAMES = {"md": "raid", "nbd": "network"}


class LinuxDisks:
    """Disks as ``/sys`` and ``/proc`` below ``root`` show them."""

    def __init__(self, root: str | Path = "/") -> None:
        self.root = Path(root)

    def names(self) -> list[str]:
        """Return the paths of every whole disk."""
        folder = self.root / "sys/block"
        return [f"/dev/{entry.name}" for entry in sorted(folder.iterdir())] if folder.is_dir() else []

    def loops_on(self, path: str) -> tuple[str, ...]:
        """Find the loop devices whose backing file is ``path``."""
        found = []
        for file in sorted((self.root / "sys/block").glob("loop*/loop/backing_file")):
            backing = read_text(file).removesuffix(" (deleted)")
            if backing and (backing == path or os.path.realpath(backing) == path or self._is(backing, path)):
                found.append(f"/dev/{file.parts[-3]}")
        return tuple(found)

    def _is(self, one: str, other: str) -> bool:
        """Tell whether two names are of one file or device: a node can be made anywhere, a file linked."""
        if self.root != Path("/"):
            return False
        try:
            first, second = Path(one).stat(), Path(other).stat()
        except OSError:
            return False
        if stat.S_ISBLK(first.st_mode) and stat.S_ISBLK(second.st_mode):
            return first.st_rdev == second.st_rdev
        return os.path.samestat(first, second)

    def identify(self, path: str) -> Disk:
        """Describe the block device at ``path``."""
        name, node = self._node(path)
        whole = node.parent if (node / "partition").exists() else node
        kind, bus = _kind(name, node), _bus(whole)
        parts = [p for p in sorted(whole.iterdir()) if (p / "partition").exists()]
        family = [whole, *parts, *self._above(whole, parts)]
        device = whole / "device"
        reader, serial = _usb(device.resolve()) if bus in ("usb", "usb hard disk") else ("", "")
        names = {p.name for p in family}
        return Disk(
            path=f"/dev/{name}", kind=kind, bus=bus, size=512 * _number(node / "size"),
            sector_size=_number(whole / "queue/logical_block_size", 512), read_only=_number(node / "ro") == 1,
            removable=_number(whole / "removable") == 1,
            model=_model(device),
            reader=reader, serial=serial or read_text(device / "serial"), cid=read_text(device / "cid"),
            diskseq=_number(whole / "diskseq") or None,
            partitions=tuple(f"/dev/{p.name}" for p in parts),
            mounts=tuple(self._mounts(family)), swaps=tuple(s for s in self._swaps() if Path(s).name in names),
            holders=tuple(f"/dev/{p.name}" for p in family[1 + len(parts):]),
            slaves=tuple(f"/dev/{p.name}" for p in _entries(whole / "slaves")),
            stacked=tuple(loop for p in [whole, *parts] for loop in self.loops_on(f"/dev/{p.name}")),
            backing=read_text(whole / "loop/backing_file"),
        )  # fmt: skip

    def _node(self, path: str) -> tuple[str, Path]:
        """Find the sysfs folder of a device node by its number: the node may have any name."""
        name = Path(path).name
        if self.root == Path("/"):
            number = Path(path).stat().st_rdev
            link = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
        else:
            link = self.root / "sys/class/block" / name
        if not link.exists():
            raise NotACardError(f"{path}: the kernel knows no such disk; `list` shows the candidates")
        return link.resolve().name, link.resolve()

    def _above(self, whole: Path, parts: list[Path]) -> list[Path]:
        """Find everything built on the disk: RAID, LVM, LUKS, and what is built on those."""
        found: list[Path] = []
        todo = [whole, *parts]
        while todo:
            for holder in _entries(todo.pop() / "holders"):
                node = (self.root / "sys/class/block" / holder.name).resolve()
                if node not in found and node.is_dir():
                    found.append(node)
                    todo.append(node)
        return found

    def _mounts(self, family: list[Path]) -> Iterator[tuple[str, str]]:
        numbers = {read_text(p / "dev"): p.name for p in family}
        names = {p.name for p in family} | {read_text(p / "dm/name") for p in family} - {""}
        for line in read_text(self.root / "proc/self/mountinfo").splitlines():
            fields = line.split(" ")
            source = fields[fields.index("-") + 2] if "-" in fields[:-2] else ""
            if fields[2] in numbers or (source.startswith("/dev/") and Path(source).name in names):
                where = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), fields[4])
                yield f"/dev/{numbers.get(fields[2], Path(source).name)}", where

    def _swaps(self) -> list[str]:
        lines = read_text(self.root / "proc/swaps").splitlines()[1:]
        return [line.split()[0] for line in lines if line]


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _number(path: Path, default: int = 0) -> int:
    text = read_text(path)
    return int(text) if text.isdigit() else default


def _model(device: Path) -> str:
    """What a disk is called by its maker; some vendors are a number."""
    words = read_text(device / "vendor"), read_text(device / "model") or read_text(device / "name")
    return " ".join(word for word in words if word and not word.startswith("0x"))


def _kind(name: str, node: Path) -> str:
    if _BOOT.fullmatch(name):
        return "boot area"
    if (node / "partition").exists():
        return "partition"
    return "loop" if name.startswith("loop") else "disk"


_PLACES = {"/nvme": "NVMe", "/virtio": "virtual disk", "/vmbus": "virtual disk", "/xen": "virtual disk"}


def _bus(whole: Path) -> str:
    """Tell how the disk is attached. Only ``sd``, ``usb`` and ``loop`` can be a card."""
    name, place = whole.name, whole.as_posix()
    if name.startswith("loop"):
        return "loop"
    if "/virtual/" in place or name.startswith(_VIRTUAL):
        family = next((v for v in _VIRTUAL if name.startswith(v)), "")
        return "device mapper" if family == "dm-" else _NAMES.get(family, "virtual disk")
    if "/mmc_host/" in place:
        kind = read_text(whole / "device/type")
        return {"SD": "sd", "MMC": "eMMC"}.get(kind, f"mmc ({kind or 'unknown'})")
    for part, bus in _PLACES.items():
        if part in place:
            return bus
    if name.startswith("sr"):
        return "optical drive"
    if "/usb" in place:
        removable = _number(whole / "removable") == 1
        return "usb" if removable and "uas" not in _drivers(whole / "device") else "usb hard disk"
    return "SATA" if "/ata" in place else "unknown bus"


def _parents(device: Path) -> Iterator[Path]:
    place = device.resolve()
    yield place
    for parent in place.parents:
        if parent.name == "sys":
            return
        yield parent


def _drivers(device: Path) -> set[str]:
    return {(p / "driver").resolve().name for p in _parents(device) if (p / "driver").exists()}


def _usb(device: Path) -> tuple[str, str]:
    """Return product name and serial number of the USB reader."""
    for parent in _parents(device):
        if (parent / "idVendor").exists():
            words = (read_text(parent / "manufacturer"), read_text(parent / "product"))
            name = (
                " ".join(w for w in words if w) or f"{read_text(parent / 'idVendor')}:{read_text(parent / 'idProduct')}"
            )
            return name, read_text(parent / "serial")
    return "", ""
