"""Disks that are not cards, as folders of a pretended /sys: none is accepted, and each message says why."""

from __future__ import annotations

from dataclasses import replace

import pytest

from miniscope_xr.tools.flash import refuse, signatures
from miniscope_xr.tools.flash.disks.base import image_file
from miniscope_xr.tools.flash.disks.linux import LinuxDisks
from miniscope_xr.tools.flash.errors import BUSY, REFUSED, BusyError, RefusedError, SettingsError

from .sysfs import CID, PCI, Machine

SCSI = "host0/target0:0:0/0:0:0:0"
# Name of the case: (how to build it, path to give, word the message must have)
CASES = {}


def case(path, word, bus=None):
    def keep(build):
        CASES[build.__name__] = (build, path, word)
        return build

    return keep


def simple(name, place, path, word, **files):
    CASES[name] = (lambda m: m.disk(path.removeprefix("/dev/"), place, **files), path, word)


# Attached as something a card never is
simple("sata disk", f"{PCI}/ata1/{SCSI}", "/dev/sda", "SATA", removable="0")
simple("sata disk that says removable", f"{PCI}/ata1/{SCSI}", "/dev/sda", "SATA", removable="1")
simple("esata small disk", f"{PCI}/ata7/{SCSI}", "/dev/sdc", "SATA", removable="1")
simple("nvme", f"{PCI}/0000:01:00.0/nvme/nvme0", "/dev/nvme0n1", "NVMe", removable="0")
simple("nvme second namespace", f"{PCI}/0000:01:00.0/nvme/nvme0", "/dev/nvme0n2", "NVMe")
simple(
    "nvme in a thunderbolt case", f"{PCI}/0000:05:00.0/0000:06:00.0/nvme/nvme1", "/dev/nvme1n1", "NVMe", removable="1"
)
simple("sas behind a raid controller", f"{PCI}/0000:03:00.0/{SCSI}", "/dev/sdd", "unknown bus", removable="0")
simple("fibre channel", f"{PCI}/0000:04:00.0/rport-1:0-0/{SCSI}", "/dev/sde", "unknown bus", removable="1")
simple("iscsi", f"sys/devices/platform/session1/{SCSI}", "/dev/sdf", "unknown bus", removable="1")
simple("firewire", f"{PCI}/fw0/fw1/{SCSI}", "/dev/sdg", "unknown bus", removable="1")
simple("virtio", f"{PCI}/virtio1", "/dev/vda", "virtual disk")
simple("virtio scsi", f"{PCI}/virtio2/{SCSI}", "/dev/sda", "virtual disk", removable="1")
simple("hyper-v", f"sys/devices/LNXSYSTM:00/VMBUS:00/vmbus_1/{SCSI}", "/dev/sda", "virtual disk", removable="1")
simple("xen", "sys/devices/vbd-51712", "/dev/xvda", "virtual disk")
simple("zram", "sys/devices/virtual/block-z", "/dev/zram0", "virtual disk")
simple("ram disk", "sys/devices/virtual/block-r", "/dev/ram0", "virtual disk")
simple("network block device", "sys/devices/virtual/block-n", "/dev/nbd0", "network")
simple("drbd", "sys/devices/virtual/block-d", "/dev/drbd0", "virtual disk")
simple("ceph", "sys/devices/virtual/block-c", "/dev/rbd0", "virtual disk")
simple("zfs volume", "sys/devices/virtual/block-v", "/dev/zd0", "virtual disk")
simple("bcache", "sys/devices/virtual/block-b", "/dev/bcache0", "virtual disk")
simple("persistent memory", "sys/devices/virtual/block-p", "/dev/pmem0", "virtual disk")
simple("multipath", "sys/devices/virtual/block-m", "/dev/dm-4", "device mapper")
simple("memory stick", "sys/devices/platform/memstick/memstick0", "/dev/mspblk0", "unknown bus")
simple("optical drive on usb", f"{PCI}/usb1/1-2/1-2:1.0/{SCSI}", "/dev/sr0", "optical")
simple("usb hard disk", f"{PCI}/usb2/2-3/2-3:1.0/{SCSI}", "/dev/sdb", "usb hard disk", removable="0")
simple(
    "usb ssd of card size",
    f"{PCI}/usb2/2-3/2-3:1.0/{SCSI}",
    "/dev/sdb",
    "usb hard disk",
    removable="0",
    size="125000000",
)


@case("/dev/sdb", "usb hard disk")
def usb_disk_on_uas(m):
    node = m.usb()
    driver = m.root / "sys/bus/usb/drivers/uas"
    driver.mkdir(parents=True)
    (node.resolve().parents[4] / "driver").symlink_to(driver)


@case("/dev/mmcblk0", "eMMC")
def emmc(m):
    m.sd(kind="MMC")


@case("/dev/mmcblk0", "eMMC")
def emmc_that_says_removable(m):
    m.sd(kind="MMC", removable="1")


@case("/dev/mmcblk0", "mmc (SDIO)")
def sdio(m):
    m.sd(kind="SDIO")


@case("/dev/mmcblk0", "mmc (unknown)")
def mmc_without_a_type(m):
    m.disk("mmcblk0", "sys/devices/platform/sdhci/mmc_host/mmc1/mmc1:0001")


@case("/dev/mmcblk0boot0", "boot area")
def emmc_boot_area(m):
    m.sd(name="mmcblk0boot0", kind="MMC")


@case("/dev/mmcblk0boot1", "boot area")
def boot_area_that_says_sd(m):
    m.sd(name="mmcblk0boot1")


@case("/dev/mmcblk0gp0", "boot area")
def emmc_general_purpose(m):
    m.sd(name="mmcblk0gp0", kind="MMC")


# Not the whole disk
@case("/dev/sdb1", "partition")
def partition_of_a_card(m):
    m.part(m.usb())


@case("/dev/mmcblk0p1", "partition")
def partition_of_an_sd_card(m):
    m.part(m.sd(), sep="p")


@case("/dev/nvme0n1p3", "partition")
def partition_of_an_nvme(m):
    m.part(m.disk("nvme0n1", f"{PCI}/nvme/nvme0"), 3, "p")


# In use by this computer
@case("/dev/sdb", "holds / of")
def system_on_a_usb_stick(m):
    m.mount(m.part(m.usb(), 2), "/")


@case("/dev/mmcblk0", "holds / of")
def raspberry_pi(m):
    m.mount(m.part(m.sd(), 2, "p"), "/")


@case("/dev/mmcblk0", "holds /boot of")
def boot_partition_on_sd(m):
    m.mount(m.part(m.sd(), 1, "p"), "/boot")


@case("/dev/sdb", "holds /boot/efi of")
def efi_on_usb(m):
    m.mount(m.part(m.usb()), "/boot/efi")


@case("/dev/sdb", "holds /home of")
def home_on_usb(m):
    m.mount(m.part(m.usb()), "/home")


@case("/dev/sdb", "holds /home of")
def home_on_the_whole_disk(m):
    m.mount(m.usb(), "/home")


@case("/dev/sdb", "holds / of")
def root_named_by_source_only(m):
    m.part(m.usb(), 2)
    m.mount_anonymous("/dev/sdb2", "/")


@case("/dev/sdb", "holds /home of")
def home_in_lvm_on_luks(m):
    crypt = m.on_top("dm-0", m.part(m.usb()), dm__name="crypt", dev="253:0")
    m.mount(m.on_top("dm-1", crypt, dm__name="vg-home", dev="253:1"), "/home")


@case("/dev/sdb", "holds / of")
def root_on_raid(m):
    m.mount(m.on_top("md0", m.part(m.usb()), dev="9:0"), "/")


@case("/dev/sdb", "swap")
def swap_partition(m):
    m.part(m.usb(), 5)
    m.swap("/dev/sdb5")


@case("/dev/sdb", "swap")
def swap_on_the_whole_disk(m):
    m.usb()
    m.swap("/dev/sdb")


@case("/dev/sdb", "swap")
def swap_in_lvm(m):
    m.on_top("dm-2", m.part(m.usb()), dev="253:2")
    m.swap("/dev/dm-2")


@case("/dev/sdb", "mounted at /media/me/CARD")
def mounted_partition(m):
    m.mount(m.part(m.usb()), "/media/me/CARD")


@case("/dev/sdb", "mounted at /media/my card")
def mounted_with_a_space(m):
    m.mount(m.part(m.usb()), "/media/my card")


@case("/dev/mmcblk0", "mounted at /mnt")
def mounted_whole_disk(m):
    m.mount(m.sd(), "/mnt")


@case("/dev/sdb", "mounted at /mnt/pool")
def btrfs_member(m):
    m.part(m.usb(), 1)
    m.mount_anonymous("/dev/sdb1", "/mnt/pool")


# Something is built on it
@case("/dev/sdb", "/dev/dm-0")
def luks(m):
    m.on_top("dm-0", m.part(m.usb()), dev="253:0")


@case("/dev/sdb", "/dev/dm-3")
def lvm_on_the_whole_disk(m):
    m.on_top("dm-3", m.usb(), dev="253:3")


@case("/dev/sdb", "/dev/md127")
def raid_member(m):
    m.on_top("md127", m.part(m.usb()), dev="9:127")


@case("/dev/md127", "raid")
def raid_itself(m):
    m.on_top("md127", m.part(m.usb()), dev="9:127")


@case("/dev/dm-0", "device mapper")
def open_luks(m):
    m.on_top("dm-0", m.part(m.usb()), dev="253:0")


@case("/dev/sdb", "/dev/loop3")
def loop_stacked_on_the_card(m):
    m.usb()
    m.loop_on("loop3", "/dev/sdb")


@case("/dev/sdb", "/dev/loop4")
def loop_stacked_on_a_partition(m):
    m.part(m.usb())
    m.loop_on("loop4", "/dev/sdb1")


@case("/dev/loop3", "stacked on /dev/sdb")
def loop_that_is_stacked(m):
    m.usb()
    m.loop_on("loop3", "/dev/sdb")


@case("/dev/loop5", "--image")
def loop_on_a_file(m):
    m.loop_on("loop5", "/tmp/card.img")


@case("/dev/loop5", "--image")
def loop_on_a_deleted_file(m):
    m.loop_on("loop5", "/tmp/card.img", deleted=True)


# Sizes and switches
@case("/dev/sdb", "read-only")
def lock_switch(m):
    m.usb(ro="1")


@case("/dev/sdb", "4096")
def large_sectors(m):
    m.usb(queue__logical_block_size="4096")


@case("/dev/sdb", "2 TB")
def too_large(m):
    m.usb(gb=4000)


@case("/dev/sdb", "--expect-size 512G")
def large_card(m):
    m.usb(gb=512)


@case("/dev/sdb", "no card in this reader")
def empty_reader(m):
    m.usb(gb=0)


@case("/dev/mmcblk0", "--expect-size 1000G")
def large_sd(m):
    m.sd(gb=1000)


def test_there_are_enough_cases():
    assert len(CASES) >= 60


@pytest.mark.parametrize("name", CASES)
def test_refused_with_the_reason(name, tmp_path):
    build, path, word = CASES[name]
    machine = Machine(tmp_path)
    build(machine)
    disk = LinuxDisks(tmp_path).identify(path)
    with pytest.raises((RefusedError, BusyError)) as caught:
        refuse.check(disk)
    assert word in str(caught.value)
    assert caught.value.exit_code == (BUSY if isinstance(caught.value, BusyError) else REFUSED)


@pytest.mark.parametrize("name", [n for n, (_, _, word) in CASES.items() if "--" not in word])
def test_no_override_lets_it_pass(name, tmp_path):
    build, path, _ = CASES[name]
    build(Machine(tmp_path))
    disk = LinuxDisks(tmp_path).identify(path)
    with pytest.raises((RefusedError, BusyError)):
        refuse.check(disk, image=True, expect_size=disk.size)


@pytest.mark.parametrize(("gb", "option"), [(512, "512G"), (1000, "1T"), (512, "512GB"), (550, "512GiB")])
def test_expect_size_allows_a_large_card_of_that_size_only(gb, option, tmp_path):
    Machine(tmp_path).usb(gb=gb)
    disk = LinuxDisks(tmp_path).identify("/dev/sdb")
    refuse.check(disk, expect_size=refuse.parse_size(option))
    with pytest.raises(RefusedError, match=r"not 64 GB.*--expect-size"):
        refuse.check(disk, expect_size=refuse.parse_size("64G"))


def test_a_size_that_is_none():
    with pytest.raises(SettingsError, match="512G"):
        refuse.parse_size("large")


def test_cards_are_accepted(tmp_path):
    machine = Machine(tmp_path)
    machine.usb()
    machine.sd()
    disks = LinuxDisks(tmp_path)
    assert disks.names() == ["/dev/mmcblk0", "/dev/sdb"]
    for path in disks.names():
        refuse.check(disks.identify(path))
    assert disks.identify("/dev/mmcblk0").card_id == CID
    usb = disks.identify("/dev/sdb")
    assert (usb.reader, usb.serial) == ("Realtek Card Reader", "0001")
    assert usb.describe().startswith("/dev/sdb: Generic- SD/MMC in Realtek Card Reader, 64.00 GB")


def test_a_256_gib_card_needs_no_option(tmp_path):
    Machine(tmp_path).usb(gb=274.8)
    refuse.check(LinuxDisks(tmp_path).identify("/dev/sdb"))


def test_another_card_in_the_same_reader_has_another_id(tmp_path):
    node = Machine(tmp_path).usb()
    before = LinuxDisks(tmp_path).identify("/dev/sdb")
    (node / "diskseq").write_text("99")
    after = LinuxDisks(tmp_path).identify("/dev/sdb")
    assert before.card_id != after.card_id


def test_an_image_keeps_its_id_when_it_grows(tmp_path):
    file = tmp_path / "a.img"
    file.write_bytes(bytes(512))
    before = image_file(str(file))
    file.write_bytes(bytes(5120))
    assert image_file(str(file)).card_id == before.card_id
    refuse.check(before, image=True)
    with pytest.raises(RefusedError, match="--image"):
        refuse.check(before)
    with pytest.raises(RefusedError, match="loop0"):
        refuse.check(replace(before, stacked=("/dev/loop0",)), image=True)
    file.write_bytes(bytes(511))
    with pytest.raises(RefusedError, match="the file has not one sector; an image to begin with"):
        refuse.check(image_file(str(file)), image=True)


def test_every_reason_is_told_at_once(tmp_path):
    machine = Machine(tmp_path)
    node = machine.usb(ro="1", gb=512)
    machine.mount(machine.part(node), "/media/x")
    found = [r.message for r in refuse.reasons(LinuxDisks(tmp_path).identify("/dev/sdb"))]
    assert len(found) == 3


@pytest.mark.parametrize(("at", "magic", "name"), signatures.START)
def test_signatures(at, magic, name):
    start = bytearray(signatures.SIGNATURE_BYTES)
    assert signatures.at_start(bytes(start)) == []
    start[at : at + len(magic)] = magic
    assert signatures.at_start(bytes(start)) == [name]


def test_a_gpt_whose_first_copy_is_gone():
    (found,) = signatures.at_end(b"EFI PART".ljust(512))
    assert found.name == "the copy of a GPT partition table"
