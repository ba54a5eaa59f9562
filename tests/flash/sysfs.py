"""Folders that look like /sys and /proc of a computer with one disk in question."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

PCI = "sys/devices/pci0000:00/0000:00:14.0"
USB = f"{PCI}/usb2/2-1/2-1:1.0/host6/target6:0:0/6:0:0:0"
MMC = "sys/devices/platform/sdhci/mmc_host/mmc0/mmc0:aaaa"
CID = "035344534236344785e6a8a5b3014a00"


class Machine:
    """Builds the folders; every method adds something and returns the disk's sysfs folder."""

    def __init__(self, root: Path) -> None:
        if sys.platform == "win32":
            pytest.skip("tests Linux' own list of disks, whose names hold colons")
        self.root = root
        self.number = 0
        for folder in ("sys/block", "sys/class/block", "proc/self"):
            (root / folder).mkdir(parents=True)
        self.mountinfo = ["21 1 254:0 / / rw,relatime - ext4 /dev/root rw"]
        self.swaps = ["Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority"]
        self.save()

    def save(self) -> None:
        (self.root / "proc/self/mountinfo").write_text("\n".join(self.mountinfo) + "\n")
        (self.root / "proc/swaps").write_text("\n".join(self.swaps) + "\n")

    def disk(self, name: str, place: str, gb: float = 64, **files: str) -> Path:
        """A disk whose device is at ``place``; ``files`` are written into its folder (``a__b`` is a/b)."""
        node = self.root / place / "block" / name
        node.mkdir(parents=True)
        self.number += 1
        known = {
            "size": str(int(gb * 1e9) // 512), "dev": f"8:{16 * self.number}", "removable": "1", "ro": "0",
            "queue__logical_block_size": "512", "diskseq": str(30 + self.number),
        }  # fmt: skip
        self.files(node, **{**known, **files})
        (node / "device").symlink_to(self.root / place)
        (self.root / "sys/block" / name).symlink_to(node)
        (self.root / "sys/class/block" / name).symlink_to(node)
        return node

    def files(self, node: Path, **files: str) -> None:
        for key, text in files.items():
            file = node / key.replace("__", "/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text + "\n")

    def usb(self, name: str = "sdb", gb: float = 64, model: str = "SD/MMC", **files: str) -> Path:
        """A card in a USB reader."""
        node = self.disk(name, USB, gb, **files)
        self.files(self.root / USB, vendor="Generic-", model=model)
        port = self.root / f"{PCI}/usb2/2-1"
        self.files(
            port, idVendor="0bda", idProduct="0306", product="Card Reader", manufacturer="Realtek", serial="0001"
        )
        return node

    def sd(self, name: str = "mmcblk0", gb: float = 64, kind: str = "SD", **files: str) -> Path:
        """A card in a built-in reader (or, with kind MMC, an eMMC chip)."""
        node = self.disk(name, MMC, gb, **{"removable": "0", **files})
        self.files(self.root / MMC, type=kind, cid=CID, name="SB64G", serial="0x5b3014a0")
        return node

    def part(self, disk: Path, number: int = 1, sep: str = "") -> Path:
        """A partition."""
        node = disk / f"{disk.name}{sep}{number}"
        major, minor = (disk / "dev").read_text().strip().split(":")
        self.files(node, partition=str(number), size="1000000", ro="0", dev=f"{major}:{int(minor) + number}")
        (self.root / "sys/class/block" / node.name).symlink_to(node)
        return node

    def on_top(self, name: str, *below: Path, **files: str) -> Path:
        """A virtual disk (dm, md) built on others."""
        node = self.disk(name, f"sys/devices/virtual/block-{name}", **{"removable": "0", **files})
        for lower in below:
            (lower / "holders").mkdir(exist_ok=True)
            (lower / "holders" / name).symlink_to(node)
            (node / "slaves").mkdir(exist_ok=True)
            (node / "slaves" / lower.name).symlink_to(lower)
        return node

    def mount(self, node: Path, where: str, source: str = "") -> None:
        number = (node / "dev").read_text().strip()
        where = where.replace(" ", "\\040")
        self.mountinfo.append(f"40 21 {number} / {where} rw shared:1 - ext4 {source or '/dev/' + node.name} rw")
        self.save()

    def mount_anonymous(self, source: str, where: str) -> None:
        """Btrfs: the device number of the mount is of no disk."""
        self.mountinfo.append(f"41 21 0:44 / {where} rw shared:1 - btrfs {source} rw")
        self.save()

    def swap(self, path: str) -> None:
        self.swaps.append(f"{path}                               partition\t1000\t0\t-2")
        self.save()

    def loop_on(self, name: str, backing: str, deleted: bool = False) -> Path:
        node = self.disk(name, f"sys/devices/virtual/block-{name}", **{"removable": "0"})
        self.files(node, loop__backing_file=backing + (" (deleted)" if deleted else ""))
        return node
