"""Everything that makes us refuse to write, each with its message and its one override, if it has one."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from miniscope_xr.source.words import detach_command, empty_image_command, unmount_command
from miniscope_xr.tools.flash.disks.base import Disk
from miniscope_xr.tools.flash.errors import BusyError, RefusedError, SettingsError

MAX_SIZE = 2 * 10**12
LARGE = 256 * 10**9 * 1.08  # a 256 GB card may be sold as 256 GiB
_SYSTEM = ("/", "/boot", "/boot/efi", "/efi", "/home", "/usr", "/var", "/System", "/System/Volumes/Data")
_WHOLE = {"sd", "usb", "loop", "image"}


@dataclass(frozen=True)
class Reason:
    """Why not; ``override`` is the option that allows it, empty if nothing does."""

    message: str
    override: str = ""
    busy: bool = False


def parse_size(text: str) -> int:
    """Read ``512G``, ``512GB`` or a number of bytes."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)\s*([kmgt]?)(i?)b?", text.strip().lower(), re.ASCII)
    if match is None:
        raise SettingsError(f"--expect-size {text[:40]}: write the size as 512G or in bytes")
    unit = 1024 if match[3] else 1000
    return int(float(match[1]) * unit ** " kmgt".index(match[2] or " "))


def _mounted(disk: Disk) -> Iterator[Reason]:
    for device, where in disk.mounts:
        if where in _SYSTEM:
            yield Reason(f"{device} holds {where} of this computer: this is a system disk, never a card")
    for swap in disk.swaps:
        yield Reason(f"{swap} is swap space of this computer: this is a system disk, never a card")
    for device, where in disk.mounts:
        if where not in _SYSTEM:
            yield Reason(
                f"{device} is mounted at {where}; unmount it yourself (`{unmount_command(disk.path, where)}`), "
                "after a look at what is on it",
                busy=True,
            )


def _is_node(path: str) -> bool:
    """Tell whether a loop device's backing is a device: its node may be anywhere, and a file in ``/dev/shm``."""
    try:
        mode = Path(path).stat().st_mode
    except OSError:  # gone, or another computer's
        return path.startswith("/dev/")
    return not stat.S_ISREG(mode)


def _stacked(disk: Disk) -> Iterator[Reason]:
    if disk.holders:
        yield Reason(f"{', '.join(disk.holders)} (RAID, LVM or encryption) is built on it: not a card")
    if disk.slaves:
        yield Reason(f"it is built on {', '.join(disk.slaves)}: not a card")
    if disk.stacked:
        loops = ", ".join(disk.stacked)
        yield Reason(
            f"the loop device {loops} is stacked on it; detach that first (`{detach_command(disk.stacked[0])}`)"
        )
    if disk.bus == "loop" and disk.backing and _is_node(disk.backing):
        yield Reason(f"this loop device is stacked on {disk.backing}; give that device itself")


def _sizes(disk: Disk, expect_size: int | None) -> Iterator[Reason]:
    if disk.sector_size != 512:
        yield Reason(f"it has sectors of {disk.sector_size} bytes; the Miniscope needs cards with 512-byte sectors")
    if disk.size <= 0 and disk.bus == "image":
        yield Reason(
            f"the file has not one sector; an image to begin with is made by `{empty_image_command(64 * 10**9)}`"
        )
    elif disk.size <= 0:
        yield Reason("there is no card in this reader (size 0); insert it")
    elif disk.size > MAX_SIZE:
        yield Reason(f"{disk.size / 1e12:.2f} TB is larger than any SD card (2 TB)")
    elif disk.size > LARGE and (expect_size is None or abs(disk.size - expect_size) > 0.08 * disk.size):
        said = "" if expect_size is None else f", not {expect_size / 1e9:.0f} GB"
        yield Reason(
            f"it has {disk.size / 1e9:.0f} GB{said}; a card for a Miniscope is rarely larger than 256 GB. "
            f"If it is the card: --expect-size {disk.size / 1e9:.0f}G",
            "--expect-size",
        )


def reasons(disk: Disk, *, image: bool = False, expect_size: int | None = None) -> list[Reason]:
    """Return every reason not to write to ``disk``, the ones nothing overrides first."""
    found: list[Reason] = []
    if disk.kind == "partition":
        found.append(Reason("it is a partition; give the whole disk"))
    elif disk.kind == "boot area":
        found.append(Reason("it is the boot area of an eMMC chip, never a card"))
    if disk.bus not in _WHOLE:
        found.append(Reason(f"it is attached as {disk.bus}, which a memory card never is"))
    found += _mounted(disk)
    found += _stacked(disk)
    if disk.read_only:
        found.append(Reason("it is read-only; move the card's lock switch up, or make the image file writable"))
    found += _sizes(disk, expect_size)
    if disk.bus in ("loop", "image") and not image:
        what = "an image file" if disk.bus == "image" else f"a loop device on {disk.backing or 'a file'}"
        found.append(Reason(f"it is {what}, not a card; if that is meant: --image", "--image"))
    if disk.bus == "usb" and disk.kind == "disk" and not disk.removable:
        found.append(Reason("it is a fixed USB disk, not a card reader"))
    return sorted(found, key=lambda r: bool(r.override))


def check(disk: Disk, *, image: bool = False, expect_size: int | None = None) -> None:
    """Raise if anything speaks against writing to ``disk``."""
    found = reasons(disk, image=image, expect_size=expect_size)
    if not found:
        return
    message = f"{disk.path}: " + "; also: ".join(r.message for r in found)
    if all(r.busy for r in found):
        raise BusyError(message)
    raise RefusedError(message, overrides=[r.override for r in found if r.override])
