"""Everything that libblkid knows of is refused, wherever its mark lies and whichever layout is named."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from miniscope_xr.tools.flash.signatures import at_start

from .cli import Tool
from .fakes import SECTOR, v4_card

SIZE = 80 << 20
NAMED = {"v4-wirefree": "led=10", "daq-wirefree": "led=10", "v3-wirefree": "led=10"}
SWAP = [page - 10 for page in (4096, 8192, 16384, 32768, 65536)]

# Name in `blkid -k`: every (byte, mark); a negative byte counts from the disk's end.
MARKS: dict[str, list[tuple[int, bytes]]] = {
    "linux_raid_member": [(0, b"\xfc\x4e\x2b\xa9"), (4096, b"\xfc\x4e\x2b\xa9"), (-65536, b"\xfc\x4e\x2b\xa9"),
                          (-65536, b"\xa9\x2b\x4e\xfc"), (-8192, b"\xfc\x4e\x2b\xa9")],
    "ddf_raid_member": [(-512, b"\xde\x11\xde\x11"), (-257 * 512, b"\xde\x11\xde\x11")],
    "isw_raid_member": [(-1024, b"Intel Raid ISM Cfg Sig. ")],
    "lsi_mega_raid_member": [(-512, b"$XIDE$")],
    "via_raid_member": [(-512, b"\x55\xaa\x01" + bytes(47) + b"\x00")],
    "silicon_medley_raid_member": [(-512 + 96, b"\x00\x00\x00\x2f")],
    "nvidia_raid_member": [(-1024, b"NVIDIA")],
    "promise_fasttrack_raid_member": [(-512 * n, b"Promise Technology, Inc.")
                                      for n in (63, 255, 256, 16, 399, 591, 675, 735, 911, 974, 991, 951, 3087)],
    "hpt45x_raid_member": [(-11 * 512, b"\xf3\x16\x78\x5a"), (-11 * 512, b"\xfd\x16\x78\x5a")],
    "hpt37x_raid_member": [(4640, b"\xf0\x16\x78\x5a"), (4640, b"\xfd\x16\x78\x5a")],
    "adaptec_raid_member": [(-512, b"\x37\xfc\x4d\x1e")],
    "jmicron_raid_member": [(-512, b"JM")],
    "bcache": [(4120, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81")],
    "ceph_bluestore": [(0, b"bluestore block device")],
    "drbd": [(-4096 + 60, bytes((0x83, 0x74, 0x02, last))) for last in (0x6B, 0x6C, 0x6D)],
    "drbdmanage_control_volume": [(0, b"$DRBDmgr=q")],
    "drbdproxy_datalog": [(0, b"DRBDdlh*")],
    "LVM2_member": [(at, b"LVM2 001") for at in (24, 536, 1048, 1560)],
    "LVM1_member": [(0, b"HM\x01\x00")],
    "DM_snapshot_cow": [(0, b"SnAp")],
    "DM_verity_hash": [(0, b"verity\0\0")],
    "DM_integrity": [(0, b"integrt\0")],
    "crypto_LUKS": [(0, b"LUKS\xba\xbe"), *((0x4000 << i, b"SKUL\xba\xbe") for i in range(9))],
    "VMFS_volume_member": [(1 << 20, b"\x0d\xd0\x01\xc0")],
    "VMFS": [(2 << 20, b"\x5e\xf1\xab\x2f")],
    "ubi": [(0, b"UBI#")],
    "vdo": [(0, b"dmvdo001")],
    "stratis": [(516, b"!Stra0tis\x86\xff\x02^\x41rh"), (4612, b"!Stra0tis\x86\xff\x02^\x41rh")],
    "BitLocker": [(0, b"\xeb\x58\x90-FVE-FS-"), (0, b"\xeb\x52\x90-FVE-FS-")],
    "vfat": [*((82, mark) for mark in (b"MSWIN", b"FAT32   ")), (510, b"\x55\xaa"),
             *((54, mark) for mark in (b"MSDOS", b"FAT16   ", b"FAT12   "))],
    "swsuspend": [(0, b"\xed\xc3\x02\xe9\x98\x56\xe5\x0c"), *((at, mark) for at in SWAP for mark in
                  (b"S1SUSPEND", b"S2SUSPEND", b"ULSUSPEND", b"LINHIB0001"))],
    "swap": [(at, mark) for at in SWAP for mark in (b"SWAP-SPACE", b"SWAPSPACE2")],
    "xfs": [(0, b"XFSB")],
    "xfs_external_log": [(512 * n, b"\xfe\xed\xba\xbe\0\0\0\1\0\0\0\2") for n in (0, 1, 500)],
    "exfs": [(0, b"EXFS")],
    **{name: [(1080, b"\x53\xef")] for name in ("ext4dev", "ext4", "ext3", "ext2", "jbd")},
    "reiserfs": [(8192 + 52, b"ReIsErFs"), (65588, b"ReIsEr2Fs"), (65588, b"ReIsEr3Fs"), (65588, b"ReIsErFs"),
                 (8212, b"ReIsErFs")],
    "reiser4": [(65536, b"ReIsEr4")],
    "jfs": [(32768, b"JFS1")],
    "udf": [(32769, mark) for mark in (b"BEA01", b"BOOT2", b"CDW02", b"NSR02", b"NSR03", b"TEA01")],
    "iso9660": [(32769, b"CD001"), (32777, b"CDROM")],
    "zfs_member": [(at, mark) for at in (131072, 131072 + 262144, -262144, -131072, -524288 + 131072)
                   for mark in (b"\x0c\xb1\xba\0\0\0\0\0", b"\0\0\0\0\0\xba\xb1\x0c")],
    "hfsplus": [(1024, b"H+\x00\x04"), (1024, b"HX\x00\x05")],
    "hfs": [(1024, b"BD")],
    "ufs": [(1372 + at, number.to_bytes(4, order)) for at in (0, 8192, 65536, 262144) for order in ("little", "big")
            for number in (0x00011954, 0x19540119, 0x00195612, 0x00095014, 0x00612195, 0x05231994)],
    "hpfs": [(8192, b"\x49\xe8\x95\xf9")],
    "sysv": [(at + 1016, mark) for at in (0, 9216, 15360, 18432)
             for mark in (b"\x20\x7e\x18\xfd", b"\xfd\x18\x7e\x20")],
    "xenix": [(2048, b"+UD"), (2048, b"DU+")],
    "ntfs": [(3, b"NTFS    ")],
    "ReFS": [(0, b"\0\0\0ReFS\0")],
    "cramfs": [(0, b"\x45\x3d\xcd\x28"), (0, b"\x28\xcd\x3d\x45")],
    "romfs": [(0, b"-rom1fs-")],
    "minix": [*((1040, mark) for mark in (b"\x7f\x13", b"\x8f\x13", b"\x13\x7f", b"\x13\x8f", b"\x68\x24", b"\x78\x24",
                                          b"\x24\x68", b"\x24\x78")), (1048, b"\x5a\x4d"), (1048, b"\x4d\x5a")],
    "gfs": [(65536, b"\x01\x16\x19\x70")],
    "gfs2": [(65536, b"\x01\x16\x19\x70")],
    "ocfs": [(8192, b"OracleCFS")],
    "ocfs2": [(at, b"OCFSV2") for at in (1024, 2048, 4096, 8192)],
    "oracleasm": [(32, b"ORCLDISK")],
    "vxfs": [(1024, b"\xf5\xfc\x01\xa5"), (8192, b"\xa5\x01\xfc\xf5")],
    "squashfs": [(0, b"hsqs")],
    "squashfs3": [(0, b"sqsh"), (0, b"hsqs")],
    "nss": [(4096, b"SPB5")],
    "btrfs": [(65600, b"_BHRfS_M"), ((64 << 20) + 64, b"_BHRfS_M")],
    "ubifs": [(0, b"\x31\x18\x10\x06")],
    "bfs": [(0, b"\xce\xfa\xad\x1b")],
    "befs": [(at, mark) for at in (32, 544) for mark in (b"BFS1", b"1SFB")],
    "nilfs2": [(1030, b"\x34\x34"), (-4096, b"\x02\0\0\0\0\0\x34\x34")],
    "exfat": [(3, b"EXFAT   ")],
    "f2fs": [(1024, b"\x10\x20\xf5\xf2")],
    "mpool": [(0, b"mpoolDev")],
    "apfs": [(32, b"NXSB")],
    "zonefs": [(0, b"SFOZ")],
    "erofs": [(1024, b"\xe2\xe1\xf5\xe0")],
    # younger than the libblkid of Debian 12
    "bcachefs": [(4120, b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef")],
    # partition tables and labels (libblkid's other chain)
    "dos": [(510, b"\x55\xaa")],
    "gpt": [(512, b"EFI PART"), (-512, b"EFI PART")],
    "mac": [(0, b"ER\x02\x00"), (512, b"PM\0\0")],
    "sgi": [(0, b"\x0b\xe5\xa9\x41")],
    "sun": [(508, b"\xda\xbe")],
    "bsd": [(512, b"\x57\x45\x56\x82"), (64, b"\x57\x45\x56\x82")],
    "amiga": [(512 * n, b"RDSK") for n in (0, 1, 15)],
    "atari": [(454, b"\x01GEM")],
}  # fmt: skip


@pytest.fixture
def tool(capsys, tmp_path):
    return Tool(capsys, tmp_path / "backups")


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """A sparse image, as large as it takes for the marks to lie apart, with settings and nothing else of ours."""
    path = tmp_path_factory.mktemp("disk") / "card.img"
    path.write_bytes(v4_card(buffers=0))
    with open(path, "r+b") as file:
        file.truncate(SIZE)
    return path


def marked(path, at, mark):
    """Put a mark on the image; returns what takes it away again."""
    place = at if at >= 0 else SIZE + at
    with open(path, "r+b") as file:
        file.seek(place)
        before = file.read(len(mark))
        file.seek(place)
        file.write(mark)
    return place, before


@pytest.mark.slow
@pytest.mark.parametrize("name", MARKS)
def test_what_libblkid_knows_is_refused_whichever_layout_is_named(name, disk, tool):
    for at, mark in MARKS[name]:
        place, before = marked(disk, at, mark)
        try:
            for layout, setting in NAMED.items():
                result = tool("prepare", disk, setting, "--layout", layout, "--dry-run")
                assert result.code == 3, (layout, at, mark, result.out, result.err)
                assert "somebody" in result.err or "not a card" in result.err, (layout, at, mark, result.err)
        finally:
            marked(disk, place, before)


def test_without_a_mark_it_is_accepted(disk, tool):
    assert tool("prepare", disk, "led=10", "--layout", "v4-wirefree", "--dry-run").code == 0


@pytest.mark.skipif(not shutil.which("blkid"), reason="blkid, which lists what libblkid knows, is not here")
def test_the_list_is_that_of_libblkid():
    known = set(subprocess.run(["blkid", "-k"], capture_output=True, text=True, check=True).stdout.split())
    missing = known - set(MARKS)
    if missing:  # a younger libblkid than the one this list was made from
        pytest.skip(f"this blkid knows more: {', '.join(sorted(missing))}")
    assert len(known) > 70


FAR = [name for name, marks in MARKS.items() if any(at < 0 or at > 1015 * SECTOR for at, _ in marks)]


@pytest.mark.slow
@pytest.mark.parametrize("name", FAR)
def test_blank_table_clears_it_and_nothing_else(name, disk, tool):
    """Also what lies at the disk's end, or where recordings do."""
    for at, mark in MARKS[name]:
        place, before = marked(disk, at, mark)
        try:
            if place < 1015 * SECTOR:
                continue
            result = tool("blank-table", disk, "--layout", "v4-wirefree")
            assert result.code == 0, (at, mark, result.err)
            assert tool("prepare", disk, "led=10", "--layout", "v4-wirefree", "--dry-run").code == 0, (at, mark)
            with open(disk, "rb") as file:
                assert file.read(1024 * SECTOR) == v4_card(buffers=0)[: 1024 * SECTOR]
        finally:
            marked(disk, place, before)


def test_a_mark_is_named(tmp_path):
    assert at_start(bytes(4120) + MARKS["bcache"][0][1] + bytes(512)) == ["a bcache device"]
