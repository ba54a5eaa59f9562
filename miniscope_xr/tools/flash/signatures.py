"""What a disk that is somebody's looks like: partition tables, file systems and volumes, at its start and its end.

The start needs no list: in front of the settings nothing of ours lies, so whatever is there is refused. The list gives
it its name. At the end only what is listed is known, since a full card's recording reaches that far.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from miniscope_xr.layout import SECTOR

SIGNATURE_BYTES = 264 * 1024
"""Bytes from the start in which the listed signatures lie."""
END_BYTES = 2 << 20
"""Bytes before the end in which signatures are looked for."""

_SWAP = tuple(
    (page - 10, magic, "swap space")
    for page in (4096, 8192, 16384, 32768, 65536)
    for magic in (b"SWAPSPACE2", b"SWAP-SPACE", b"S1SUSPEND", b"S2SUSPEND", b"ULSUSPEND", b"LINHIB0001")
)
_UDF = tuple(
    (32769 + at, magic, "a UDF file system")
    for at in range(0, 12288, 2048)
    for magic in (b"NSR02", b"NSR03", b"BEA01", b"TEA01", b"BOOT2", b"CDW02")
)
_UFS = tuple(
    (1372 + at, number.to_bytes(4, order), "a UFS file system")
    for at in (0, 8192, 65536, 262144)
    for number in (0x00011954, 0x19540119, 0x00195612, 0x00095014, 0x00612195, 0x05231994)
    for order in ("little", "big")
)
_SYSV = tuple(
    (1016 + at, magic, "a System V file system")
    for at in (0, 9216, 15360, 18432)
    for magic in (b"\x20\x7e\x18\xfd", b"\xfd\x18\x7e\x20")
)
_BCACHE = b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"
_BCACHEFS = b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef"
_ZFS = b"\x0c\xb1\xba\0\0\0\0\0", b"\0\0\0\0\0\xba\xb1\x0c"

_SIGNED = "a partition table or FAT boot sector"
_BOOTED = {"a FAT file system", "an exFAT file system", "an NTFS file system", "a BitLocker volume"}

# Where a table, file system or volume is known by at the start: (byte, magic, name).
START: tuple[tuple[int, bytes, str], ...] = (
    (510, b"\x55\xaa", _SIGNED),
    (512, b"EFI PART", "a GPT partition table"),
    (3, b"NTFS    ", "an NTFS file system"),
    (3, b"EXFAT   ", "an exFAT file system"),
    (3, b"ReFS\0\0\0\0", "a ReFS file system"),
    (3, b"-FVE-FS-", "a BitLocker volume"),
    (0, b"ER\x02\x00", "an Apple partition map"),
    (0, b"RDSK", "an Amiga partition table"),
    (512, b"RDSK", "an Amiga partition table"),
    (0, b"\x0b\xe5\xa9\x41", "an SGI disk label"),
    (508, b"\xda\xbe", "a Sun disk label"),
    (0, b"\x57\x45\x56\x82", "a BSD disk label"),
    (64, b"\x57\x45\x56\x82", "a BSD disk label"),
    (512, b"\x57\x45\x56\x82", "a BSD disk label"),
    (32, b"NXSB", "an APFS container"),
    (0, b"LUKS\xba\xbe", "a LUKS encrypted volume"),
    (0, b"SKUL\xba\xbe", "a LUKS encrypted volume"),
    (0, b"XFSB", "an XFS file system"),
    (0, b"hsqs", "a SquashFS file system"),
    (0, b"sqsh", "a SquashFS file system"),
    (0, b"-rom1fs-", "a ROMFS file system"),
    (0, b"\x45\x3d\xcd\x28", "a cramfs file system"),
    (0, b"\xce\xfa\xad\x1b", "a BFS file system"),
    (0, b"UBI#", "a UBI volume"),
    (0, b"\x31\x18\x10\x06", "a UBIFS file system"),
    (0, b"SFOZ", "a zonefs file system"),
    (0, b"SnAp", "an LVM snapshot"),
    (0, b"dmvdo001", "a VDO volume"),
    (0, b"HM\x01\0", "an LVM1 volume"),
    (0, b"\xfc\x4e\x2b\xa9", "a Linux RAID member"),
    (0, b"LABELONE", "an LVM volume"),
    (512, b"LABELONE", "an LVM volume"),
    (1024, b"LABELONE", "an LVM volume"),
    (1536, b"LABELONE", "an LVM volume"),
    (512, b"!Stra0tis\x86\xff\x02^\x41rh", "a Stratis volume"),
    (544, b"1SFB", "a BeFS file system"),
    (544, b"BFS1", "a BeFS file system"),
    (1024, b"H+\x00\x04", "an HFS+ file system"),
    (1024, b"HX\x00\x05", "an HFS+ file system"),
    (1024, b"BD", "an HFS file system"),
    (1024, b"\x10\x20\xf5\xf2", "an F2FS file system"),
    (1024, b"\xe2\xe1\xf5\xe0", "an EROFS file system"),
    (1024, b"\xf5\xfc\x01\xa5", "a VxFS file system"),
    (1024, b"OCFSV2", "an OCFS2 file system"),
    (2048, b"OCFSV2", "an OCFS2 file system"),
    (4096, b"OCFSV2", "an OCFS2 file system"),
    (8192, b"OCFSV2", "an OCFS2 file system"),
    (1030, b"\x34\x34", "a NILFS2 file system"),
    (1040, b"\x7f\x13", "a Minix file system"),
    (1040, b"\x8f\x13", "a Minix file system"),
    (1040, b"\x68\x24", "a Minix file system"),
    (1040, b"\x78\x24", "a Minix file system"),
    (1048, b"\x5a\x4d", "a Minix file system"),
    (1080, b"\x53\xef", "an ext2, ext3 or ext4 file system"),
    (4096, b"\xfc\x4e\x2b\xa9", "a Linux RAID member"),
    (4120, _BCACHE, "a bcache device"),
    (4120, _BCACHEFS, "a bcachefs file system"),
    (4640, b"\xf0\x16\x78\x5a", "a HighPoint RAID member"),
    (4640, b"\xfd\x16\x78\x5a", "a HighPoint RAID member"),
    (8192, b"\x49\xe8\x95\xf9", "an HPFS file system"),
    (8244, b"ReIsErFs", "a ReiserFS file system"),
    (32768, b"JFS1", "a JFS file system"),
    (32769, b"CD001", "an ISO 9660 file system"),
    (65536, b"ReIsEr4", "a Reiser4 file system"),
    (65536, b"\x01\x16\x19\x70", "a GFS2 file system"),
    (65588, b"ReIsErFs", "a ReiserFS file system"),
    (65588, b"ReIsEr2Fs", "a ReiserFS file system"),
    (65588, b"ReIsEr3Fs", "a ReiserFS file system"),
    (65600, b"_BHRfS_M", "a btrfs file system"),
    (131072, _ZFS[0], "a ZFS pool member"),
    (131072, _ZFS[1], "a ZFS pool member"),
    (0, b"\xed\xc3\x02\xe9\x98\x56\xe5\x0c", "swap space"),
    (0, b"integrt\0", "a dm-integrity volume"),
    (0, b"verity\0\0", "a dm-verity hash volume"),
    (0, b"bluestore block device", "a Ceph volume"),
    (0, b"$DRBDmgr=q", "a DRBD control volume"),
    (0, b"DRBDdlh*", "a DRBD log"),
    (0, b"EXFS", "an XFS file system"),
    (0, b"mpoolDev", "an mpool volume"),
    (32, b"ORCLDISK", "an Oracle ASM disk"),
    (32, b"BFS1", "a BeFS file system"),
    (32, b"1SFB", "a BeFS file system"),
    (4096, b"SPB5", "a NetWare volume"),
    (8192, b"OracleCFS", "an OCFS file system"),
    (4612, b"!Stra0tis\x86\xff\x02^\x41rh", "a Stratis volume"),
    (8192, b"\xa5\x01\xfc\xf5", "a VxFS file system"),
    (2048, b"+UD", "a Xenix file system"),
    (2048, b"DU+", "a Xenix file system"),
    (8212, b"ReIsErFs", "a ReiserFS file system"),
    (32777, b"CDROM", "an ISO 9660 file system"),
    (54, b"FAT1", "a FAT file system"),
    (54, b"MSDOS", "a FAT file system"),
    (82, b"FAT32   ", "a FAT file system"),
    (82, b"MSWIN", "a FAT file system"),
    *((24 + at, b"LVM2 001", "an LVM volume") for at in (0, 512, 1024, 1536)),
    *((1040, magic, "a Minix file system") for magic in (b"\x13\x7f", b"\x13\x8f", b"\x24\x68", b"\x24\x78")),
    (1048, b"\x4d\x5a", "a Minix file system"),
    *((0x4000 << i, b"SKUL\xba\xbe", "a LUKS encrypted volume") for i in range(5)),
    *_SWAP,
    *_UDF,
    *_UFS,
    *_SYSV,
)


# What can be left where the data of a recording lies, after something else wiped the start: (byte, magic, name).
DEEP: tuple[tuple[int, bytes, str], ...] = (
    *((0x80000 << i, b"SKUL\xba\xbe", "a LUKS encrypted volume") for i in range(4)),
    (1 << 20, b"\x0d\xd0\x01\xc0", "a VMFS volume"),
    (2 << 20, b"\x5e\xf1\xab\x2f", "a VMFS file system"),
    ((64 << 20) + 64, b"_BHRfS_M", "a btrfs file system"),
)


@dataclass(frozen=True)
class AtEnd:
    """Something that lies at the end of a disk, or amid it: its name, and the bytes that clear it."""

    name: str
    offset: int
    length: int


# Looked for in every sector of the last MiB, so only what cannot be there by chance: (byte in the sector, magic, name).
_ANYWHERE = (
    (0, b"Intel Raid ISM Cfg Sig. ", "an Intel RAID member"),
    (0, b"Promise Technology, Inc.", "a Promise RAID member"),
    (24, _BCACHEFS, "a bcachefs file system"),
    (0, _ZFS[0], "a ZFS pool member"),
    (0, _ZFS[1], "a ZFS pool member"),
    (0, b"\x02\0\0\0\0\0\x34\x34", "a NILFS2 file system"),
)
# (bytes from the end to the sector, byte in the sector, magic, name)
_EXACT = (
    (1, 0, b"\xde\x11\xde\x11", "a DDF RAID member"),
    (257, 0, b"\xde\x11\xde\x11", "a DDF RAID member"),
    (2, 0, b"NVIDIA", "an NVIDIA RAID member"),
    (1, 0, b"$XIDE$", "an LSI RAID member"),
    (1, 0, b"JM", "a JMicron RAID member"),
    (1, 96, b"\0\0\0\x2f", "a Silicon Image RAID member"),
    (1, 0, b"\x37\xfc\x4d\x1e", "an Adaptec RAID member"),
    (11, 0, b"\xf3\x16\x78\x5a", "a HighPoint RAID member"),
    (11, 0, b"\xfd\x16\x78\x5a", "a HighPoint RAID member"),
)
_MD = (b"\xfc\x4e\x2b\xa9", b"\xa9\x2b\x4e\xfc")
_DRBD = (b"\x83\x74\x02\x67", b"\x83\x74\x02\x6b", b"\x83\x74\x02\x6c", b"\x83\x74\x02\x6d")
_DRBD_AT = 60
_GPT_SECTORS = 34


def at_start(start: bytes) -> list[str]:
    """Name what lies at the start of a disk, where it is known."""
    names = dict.fromkeys(name for at, magic, name in START if start[at : at + len(magic)] == magic)
    if not _BOOTED.isdisjoint(names):  # whose own first sector it is
        names.pop(_SIGNED, None)
    return list(names)


def amid(read: Callable[[int, int], bytes], size: int) -> list[AtEnd]:
    """Find what lies where a recording's data begins; ``read`` gives whole sectors."""
    found = []
    for at, magic, name in DEEP:
        sector, begin = at // SECTOR * SECTOR, at % SECTOR
        if sector + SECTOR <= size and read(sector, SECTOR)[begin : begin + len(magic)] == magic:
            found.append(AtEnd(name, sector, SECTOR))
    return found


def at_end(end: bytes, size: int = 0) -> list[AtEnd]:
    """Find what lies at the end of a disk of ``size`` bytes, of which ``end`` are the last."""
    size = size or len(end)
    base = size - len(end)
    found: list[AtEnd] = []

    def has(offset: int, magic: bytes) -> bool:
        return offset >= base and end[offset - base : offset - base + len(magic)] == magic

    if has(size - SECTOR, b"EFI PART"):
        length = min(_GPT_SECTORS * SECTOR, len(end))
        found.append(AtEnd("the copy of a GPT partition table", size - length, length))
    md_90, md_10 = (size // 65536 - 1) * 65536, (size // SECTOR - 16) // 8 * 8 * SECTOR
    found += [AtEnd("a Linux RAID member", at, 4096) for at in (md_90, md_10) if any(has(at, m) for m in _MD)]
    for drbd in {size // 4096 * 4096 - 4096, size - 4096}:  # the kernel's place and libblkid's
        found += [AtEnd("a DRBD device", drbd, 4096) for magic in _DRBD if has(drbd + _DRBD_AT, magic)]
    for sectors, at, magic, name in _EXACT:
        place = (size // SECTOR - sectors) * SECTOR
        if has(place + at, magic):
            found.append(AtEnd(name, place, SECTOR))
    last = end[-SECTOR:]
    if len(last) == SECTOR and last[:2] == b"\x55\xaa" and last[2] <= 2 and sum(last[:50]) % 256 == last[50]:
        found.append(AtEnd("a VIA RAID member", size - SECTOR, SECTOR))
    first = -base % SECTOR
    grid = np.frombuffer(end, np.uint8, max(0, len(end) - first) // SECTOR * SECTOR, first).reshape(-1, SECTOR)
    for at, magic, name in _ANYWHERE:
        hits = (grid[:, at : at + len(magic)] == np.frombuffer(magic, np.uint8)).all(axis=1)
        found += [AtEnd(name, base + first + SECTOR * i, SECTOR) for i in np.flatnonzero(hits).tolist()]
    return found
