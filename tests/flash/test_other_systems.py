"""macOS and Windows, on recorded outputs of their tools."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import plistlib
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from miniscope_xr.errors import CardNotFoundError, CardReadError, NotACardError
from miniscope_xr.source import macos
from miniscope_xr.source import windows as windows_calls
from miniscope_xr.source.windows import device_name
from miniscope_xr.source.windows_volumes import extents, volume_name
from miniscope_xr.tools.flash import refuse
from miniscope_xr.tools.flash.disks import find as disks
from miniscope_xr.tools.flash.disks import windows as disks_windows
from miniscope_xr.tools.flash.disks.base import Disk, image_file
from miniscope_xr.tools.flash.disks.linux import LinuxDisks
from miniscope_xr.tools.flash.disks.macos import MacDisks
from miniscope_xr.tools.flash.disks.windows import WindowsDisks
from miniscope_xr.tools.flash.errors import BusyError, CardWriteError, RefusedError
from miniscope_xr.tools.flash.target import other as target_other
from miniscope_xr.tools.flash.target import volumes
from miniscope_xr.tools.flash.target.volumes import DISMOUNT, LOCK, VolumeLocks

# As `diskutil info -plist` and `diskutil list -plist` print it, shortened.
MAC_CARD = {
    "BusProtocol": "Secure Digital", "DeviceBlockSize": 512, "DeviceIdentifier": "disk4", "MediaName": "SDXC Reader",
    "IORegistryEntryName": "Apple SDXC Reader Media", "RemovableMedia": True, "Size": 63864569856, "WholeDisk": True,
    "VirtualOrPhysical": "Physical", "WritableMedia": True,
}  # fmt: skip
MAC_PARTS = {
    "DeviceIdentifier": "disk4", "Size": 63864569856, "Content": "FDisk_partition_scheme",
    "Partitions": [{"DeviceIdentifier": "disk4s1", "MountPoint": "/Volumes/NO NAME", "Content": "Windows_FAT_32"}],
}  # fmt: skip


def mac(info, parts):
    def run(words):
        if words[1] == "info":
            return plistlib.dumps(info)
        return plistlib.dumps({"WholeDisks": ["disk0", "disk4"], "AllDisksAndPartitions": [parts]})

    return MacDisks(run)


def test_mac_card():
    empty = {"DeviceIdentifier": "disk4"}
    found = mac(MAC_CARD, empty).identify("/dev/disk4")
    assert (found.path, found.bus, found.size, found.model) == ("/dev/rdisk4", "sd", 63864569856, "SDXC Reader")
    refuse.check(found)
    assert mac(MAC_CARD, empty).names() == ["/dev/disk0", "/dev/disk4"]
    assert mac(MAC_CARD, empty).identify("/dev/rdisk4") == found


@pytest.mark.parametrize(
    ("change", "path", "message"),
    [
        ({"BusProtocol": "PCI-Express", "RemovableMedia": False}, "/dev/disk0", "NVMe"),
        ({"BusProtocol": "Apple Fabric"}, "/dev/disk0", "NVMe"),
        ({"BusProtocol": "SATA"}, "/dev/disk1", "SATA"),
        ({"BusProtocol": "USB", "RemovableMedia": False}, "/dev/disk2", "usb hard disk"),
        ({"BusProtocol": "Disk Image"}, "/dev/disk5", "virtual disk"),
        ({"VirtualOrPhysical": "Virtual"}, "/dev/disk3", "virtual disk"),
        ({"BusProtocol": ""}, "/dev/disk6", "unknown bus"),
        ({"WritableMedia": False}, "/dev/disk4", "read-only"),
        ({"DeviceBlockSize": 4096}, "/dev/disk4", "4096"),
        ({}, "/dev/disk4s1", "partition"),
    ],
)
def test_mac_refusals(change, path, message):
    with pytest.raises(RefusedError, match=message):
        refuse.check(mac({**MAC_CARD, **change}, {"DeviceIdentifier": "disk4"}).identify(path))


def test_mac_mounted():
    with pytest.raises(BusyError, match="/Volumes/NO NAME"):
        refuse.check(mac(MAC_CARD, MAC_PARTS).identify("/dev/disk4"))
    system = {"DeviceIdentifier": "disk4", "APFSVolumes": [{"DeviceIdentifier": "disk4s1", "MountPoint": "/"}]}
    with pytest.raises(RefusedError, match="system disk"):
        refuse.check(mac(MAC_CARD, system).identify("/dev/disk4"))


def test_mac_errors():
    def broken(words):
        raise subprocess.CalledProcessError(1, words)

    with pytest.raises(NotACardError, match="diskutil list"):
        MacDisks(broken).identify("/dev/disk4")
    with pytest.raises(NotACardError, match="/dev/diskN"):
        mac(MAC_CARD, MAC_PARTS).identify("/dev/null")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", "Invalid file"),
        (b"<plist><dict>", "no element found"),
        (plistlib.dumps([1]), "failed: "),
        (subprocess.TimeoutExpired("diskutil", 30), "timed out after 30 seconds"),
        (FileNotFoundError(2, "No such file or directory", "diskutil"), "No such file"),
        (
            subprocess.CalledProcessError(
                1, "diskutil", plistlib.dumps({"Error": True, "ErrorMessage": "Datenträger nicht gefunden: disk9"})
            ),
            "failed: Datenträger nicht gefunden: disk9; check the path with `diskutil list`",
        ),
    ],
)
def test_a_diskutil_that_fails(answer, message):
    """No property list, half of one, something else, nothing in time, no diskutil, an error in the user's language."""

    def run(words):
        if isinstance(answer, Exception):
            raise answer
        return answer

    with pytest.raises(NotACardError, match=message):
        MacDisks(run).identify("/dev/disk9")


# As `diskutil list -plist` lists APFS: the container is a disk of its own, on a partition of the one it lies on; of the
# system's volume a snapshot is mounted.
MAC_APFS = [
    {"DeviceIdentifier": "disk4", "Content": "GUID_partition_scheme", "Partitions": [
        {"DeviceIdentifier": "disk4s1", "Content": "EFI"}, {"DeviceIdentifier": "disk4s2", "Content": "Apple_APFS"}]},
    {"DeviceIdentifier": "disk5", "APFSPhysicalStores": [{"DeviceIdentifier": "disk4s2"}], "Partitions": [],
     "APFSVolumes": [{"DeviceIdentifier": "disk5s1", "MountPoint": "/Volumes/Films"}, {"DeviceIdentifier": "disk5s2"}]},
    {"DeviceIdentifier": "disk1", "APFSPhysicalStores": [{"DeviceIdentifier": "disk0s2"}], "APFSVolumes": [
        {"DeviceIdentifier": "disk1s1", "MountedSnapshots": [{"SnapshotMountPoint": "/"}]},
        {"DeviceIdentifier": "disk1s5", "MountPoint": "/System/Volumes/Data"}]},
    {"DeviceIdentifier": "disk40", "Partitions": [{"DeviceIdentifier": "disk40s1", "MountPoint": "/Volumes/Other"}]},
]  # fmt: skip


def test_apfs():
    """Its volumes are mounted under another disk's name, and that disk is none."""
    disk = MacDisks(
        lambda words: plistlib.dumps(MAC_CARD if words[1] == "info" else {"AllDisksAndPartitions": MAC_APFS})
    )
    card = disk.identify("/dev/disk4")
    assert card.mounts == (("/dev/disk5s1", "/Volumes/Films"),)
    assert card.partitions == ("/dev/disk4s1", "/dev/disk4s2", "/dev/disk5s1", "/dev/disk5s2")
    with pytest.raises(BusyError, match=r"/Volumes/Films.*`diskutil unmountDisk /dev/disk4`"):
        refuse.check(card)
    with pytest.raises(RefusedError, match="holds / of this computer"):
        refuse.check(disk.identify("/dev/disk1"))
    assert disk.identify("/dev/disk40").mounts == (("/dev/disk40s1", "/Volumes/Other"),)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/dev/disk10", ("disk10", False)), ("/dev/rdisk10", ("disk10", False)), ("/dev/rdisk10s1", ("disk10", True)),
        ("/dev/disk3s1s1", ("disk3", True)), ("/dev/disk", None), ("/dev/disk4x", None), ("disk4", None),
        ("/Volumes/NO NAME", None), ("/dev/disk\u0664", None),
    ],
)  # fmt: skip
def test_names_of_disks_on_macos(path, name):
    assert macos.disk_name(path) == name


# As `Get-Disk | ConvertTo-Json` prints it (numbers or names for BusType, as the PowerShell version likes), shortened.
WIN_CARD = {
    "Number": 2, "FriendlyName": "Generic STORAGE DEVICE ", "SerialNumber": "000000001532", "BusType": "USB",
    "Size": 63864569856, "LogicalSectorSize": 512, "IsBoot": False, "IsSystem": False, "IsReadOnly": False,
    "MediaType": "Removable Media",
}  # fmt: skip


def windows(disk, parts=()):
    def answer(command):
        found = list(parts) if "Get-Partition" in command else disk
        return json.dumps(found[0] if isinstance(found, list) and len(found) == 1 else found) if found else ""

    return WindowsDisks(lambda script: "\n-----\n".join(answer(command) for command in script.split("'-----'")))


@pytest.mark.parametrize("bus", ["USB", "SD", 7, 12])
def test_windows_card(bus):
    found = windows({**WIN_CARD, "BusType": bus}).identify(r"\\.\PhysicalDrive2")
    assert (found.path, found.size, found.model) == (r"\\.\PhysicalDrive2", 63864569856, "Generic STORAGE DEVICE")
    refuse.check(found)
    assert windows([WIN_CARD, {**WIN_CARD, "Number": 3}]).names() == [r"\\.\PhysicalDrive2", r"\\.\PhysicalDrive3"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"MediaType": "External hard disk media"}, "fixed USB disk"),
        ({"BusType": "NVMe"}, "NVMe"), ({"BusType": 17}, "NVMe"), ({"BusType": "SATA"}, "SATA"),
        ({"BusType": "RAID"}, "raid"), ({"BusType": "MMC"}, "eMMC"), ({"BusType": "Virtual"}, "virtual disk"),
        ({"BusType": 15}, "virtual disk"), ({"BusType": "iSCSI"}, "unknown bus"), ({"IsBoot": True}, "system disk"),
        ({"IsSystem": True}, "system disk"), ({"IsReadOnly": True}, "read-only"), ({"LogicalSectorSize": 4096}, "4096"),
        ({"Size": 4 * 10**12}, "2 TB"), ({"Size": 0}, "no card"),
    ],
)  # fmt: skip
def test_windows_refusals(change, message):
    with pytest.raises(RefusedError, match=message):
        refuse.check(windows({**WIN_CARD, **change}).identify(r"\\.\PhysicalDrive2"))


@pytest.mark.parametrize("letter", ["E", "\0", None])
def test_a_letter_alone_does_not_refuse(letter):
    """Windows gives nearly every card a letter; whether a volume is in use shows when it is locked."""
    found = windows(WIN_CARD, [{"PartitionNumber": 1, "DriveLetter": letter}]).identify(r"\\.\PhysicalDrive2")
    refuse.check(found)
    assert found.partitions == (r"\\.\PhysicalDrive2 partition 1" + (" (E:)" if letter == "E" else ""),)


@pytest.mark.parametrize(
    "name",
    [
        r"\\.\PhysicalDrive2",
        r"\\?\PhysicalDrive2",
        "//./PhysicalDrive2",
        "physicaldrive02",
        r"\\.\PhysicalDrive2 ",
        "\\\\.\\PHYSICALDRIVE2\\",
        "PhysicalDrive2.",
        r"\.\PhysicalDrive2",  # what Git Bash makes of the backslashes, in quotes and without
        r"\.PhysicalDrive2",
        "/./PhysicalDrive2",
    ],
)
def test_every_spelling_of_a_device(name):
    assert device_name(name) == r"\\.\PhysicalDrive2"
    assert windows(WIN_CARD).identify(name).path == r"\\.\PhysicalDrive2"


@pytest.mark.parametrize(
    "name",
    [
        "E:",
        "/dev/sda",
        r"\\.\E:",
        "PhysicalDrive",
        "CON",
        r"x\PhysicalDrive2",
        "PhysicalDrive\u0662",
        "PhysicalDrive2a",
        "PhysicalDrive" + 30 * "9",
    ],
)
def test_what_is_no_device_of_windows(name):
    assert device_name(name) is None


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("E:", "E:"), ("e:\\", "e:"), (r"\\.\E:", "E:"), ("//?/E:/", "E:"), ("//?/Volume{0a-1B}/", "Volume{0a-1B}"),
        (r"E:\card.img", None), ("EE:", None), ("E", None), ("/dev/sdb", None), (r"\\nas\lab", None), ("", None),
    ],
)  # fmt: skip
def test_a_letter_is_no_card(path, name):
    assert volume_name(path) == name


def test_what_powershell_answers(monkeypatch):
    """UTF-8 that is asked for, and what is not UTF-8 all the same; a card without partitions is no error."""
    asked = []

    def run(command, **named):
        asked.append(command[-1])
        assert command[0] == r"D:\Windows\System32\WindowsPowerShell\v1.0\powershell.exe", "not the folder's"
        disk = b'{"Number": 2, "FriendlyName": "K\x81rt-----chen", "BusType": "USB", "Size": 1024}\r\n'
        drive = b'\xef\xbb\xbf-----\r\n{\r\n"MediaType":  "Removable Media"\r\n}\r\n-----\r\n'
        return subprocess.CompletedProcess(command, 0, drive + disk, b"")

    monkeypatch.setenv("SYSTEMROOT", r"D:\Windows")
    monkeypatch.setattr(disks_windows.subprocess, "run", run)
    found = WindowsDisks().identify(r"\\.\PhysicalDrive2")
    assert found.model == "K\ufffdrt-----chen"
    assert found.removable
    assert len(asked) == 1, "it takes half a second to begin"
    assert re.findall(r"Get-\w+|UTF8", asked[0]) == ["UTF8", "Get-Partition", "Get-CimInstance", "Get-Disk"]


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (
            subprocess.CompletedProcess([], 1, b"", b"Get-Disk : no access\r\nat line 1"),
            "status 1. Get-Disk : no access;",
        ),
        (subprocess.CompletedProcess([], 0, b"{", b""), "failed: "),
        (subprocess.CompletedProcess([], 0, b"", b""), "1 of 3 questions"),
        (OSError(2, "no such program"), "no such program"),
        (subprocess.TimeoutExpired([], 60), "failed: no answer within 60 s; "),
        (subprocess.CompletedProcess([], 5, b"", b""), "failed: exit status 5; "),
    ],
)
def test_a_powershell_that_fails(monkeypatch, end, message):
    """It is said in a sentence, which has nothing of the script."""

    def run(command, **named):
        if isinstance(end, Exception):
            raise end
        assert named["check"]
        end.args = command
        end.check_returncode()
        return end

    monkeypatch.setattr(disks_windows.subprocess, "run", run)
    with pytest.raises(NotACardError, match=re.escape(message)) as raised:
        WindowsDisks().identify(r"\\.\PhysicalDrive2")
    assert "ConvertTo-Json" not in str(raised.value)


class Calls:
    """Volumes of a simulated Windows: name -> (disks, in use)."""

    def __init__(self, volumes):
        self.known, self.log, self.held = volumes, [], {}

    def volumes(self):
        yield from self.known

    def open(self, volume, write):
        if self.known[volume] is None:
            raise OSError(21, "The device is not ready")
        if write and self.known[volume][1] == "exclusively":
            raise OSError(errno.EBUSY, "The process cannot access the file")
        self.held[len(self.log) + 1] = volume
        self.log.append(("open" if write else "ask", volume))
        return len(self.log)

    def disks(self, handle):
        return self.known[self.held[handle]][0]

    def places(self, volume):
        return [f"{volume}:\\"]

    def control(self, handle, code):
        name = {LOCK: "lock", DISMOUNT: "dismount"}[code]
        self.log.append((name, self.held[handle]))
        how = self.known[self.held[handle]][1]
        if name == "dismount" and isinstance(how, OSError):
            raise how
        if name == "lock" and how is True:
            raise OSError(errno.EACCES, "Access is denied")

    def close(self, handle):
        self.log.append(("close", self.held.pop(handle)))


def test_volumes_are_locked_and_let_go():
    """Of this disk alone, in this order; a reader without a card is passed over."""
    calls = Calls({"C": ([0], False), "E": ([2], False), "gone": None, "F": ([1, 2], False)})
    locks = VolumeLocks(2, calls)
    assert sorted(calls.held.values()) == ["E", "F"]
    assert [step for step in calls.log if step[1] == "E"] == [
        ("ask", "E"), ("close", "E"), ("open", "E"), ("lock", "E"), ("dismount", "E"),
    ]  # fmt: skip
    assert ("lock", "C") not in calls.log
    locks.close()
    assert calls.held == {}


@pytest.mark.parametrize("how", [True, "exclusively"])
def test_a_volume_in_use_refuses(how, monkeypatch):
    monkeypatch.setattr(volumes, "_PATIENCE", 0)
    calls = Calls({"E": ([2], False), "F": ([2], how)})
    with pytest.raises(BusyError, match=r"close the files .*\(or take its letter away: `mountvol F: /p`\)"):
        VolumeLocks(2, calls)
    assert calls.held == {}, "what was locked is given back"
    assert ("dismount", "F") not in calls.log


def test_a_volume_that_is_not_let_go_of_refuses(monkeypatch):
    """Locked, but not dismounted: its file system would write what it holds in memory behind ours."""
    monkeypatch.setattr(volumes, "_PATIENCE", 0)
    calls = Calls({"E": ([2], OSError(22, "The parameter is incorrect"))})
    said = r"is in use, or Windows does not let go of it \(The parameter is incorrect\); close the files"
    with pytest.raises(BusyError, match=said):
        VolumeLocks(2, calls)
    assert calls.held == {}
    unknown = OSError(22, "Incorrect function")
    unknown.winerror = 1  # there is no file system to let go of
    calls = Calls({"E": ([2], unknown)})
    VolumeLocks(2, calls).close()
    assert ("dismount", "E") in calls.log


def test_a_folder_with_a_space_is_named_as_a_shell_takes_it(monkeypatch):
    monkeypatch.setattr(volumes, "_PATIENCE", 0)
    calls = Calls({"C:\\my cards": ([2], True)})
    with pytest.raises(BusyError, match=r'take its place away: `mountvol "C:\\my cards:" /p`'):
        VolumeLocks(2, calls)


def test_who_looks_at_a_card_for_a_moment_is_waited_for():
    calls = Calls({"E": ([2], True)})
    control = calls.control

    def busy_twice(handle, code):
        try:
            control(handle, code)
        finally:
            calls.known["E"] = ([2], sum(step == ("lock", "E") for step in calls.log) < 2)

    calls.control = busy_twice
    locks = VolumeLocks(2, calls)
    assert [step for step, _ in calls.log].count("lock") == 3
    assert list(calls.held.values()) == ["E"], "what could not be locked was closed"
    locks.close()


def test_a_volume_that_comes_later():
    """Windows finds the volumes of a new card one by one: those that came are locked when a write is refused."""
    calls = Calls({"E": ([2], False), "C": ([0], False)})
    locks = VolumeLocks(2, calls)
    assert not locks.take_new()
    calls.known["F"] = ([2], False)
    assert locks.take_new()
    assert sorted(calls.held.values()) == ["E", "F"]
    locks.close()
    assert calls.held == {}


def test_the_extents_of_a_volume():
    """Recorded layout: count, four bytes of padding, then number, padding, start and length of each extent."""
    one = (2).to_bytes(4, "little") + bytes(4) + (1 << 20).to_bytes(8, "little") + (1 << 30).to_bytes(8, "little")
    assert extents((1).to_bytes(4, "little") + bytes(4) + one) == [2]
    assert extents((2).to_bytes(4, "little") + bytes(4) + one + one) == [2, 2]
    assert extents(bytes(8)) == []


def test_an_image_has_one_writer_on_windows(tmp_path, monkeypatch):
    class Msvcrt:
        LK_NBLCK = 2
        held, takes_locks = False, True

        def locking(self, fd, mode, count):
            assert os.lseek(fd, 0, os.SEEK_CUR) > 2 * 10**12, "behind every image: the locked byte cannot be read"
            if not self.takes_locks:
                raise OSError(errno.EINVAL, "Invalid argument")
            if self.held:
                raise OSError(errno.EACCES, "Permission denied")
            self.held = True

    library = Msvcrt()
    monkeypatch.setitem(sys.modules, "msvcrt", library)
    file = tmp_path / "a.img"
    file.write_bytes(bytes(512))
    with open(file, "r+b") as opened:
        target_other.lock_image(opened.fileno(), str(file))
        with pytest.raises(BusyError, match="another copy of this tool"):
            target_other.lock_image(opened.fileno(), str(file))
        library.takes_locks = False  # a share or RAM disk: nobody writes to it, but nobody else can be kept out
        with pytest.raises(OSError, match="Invalid argument") as raised:
            target_other.lock_image(opened.fileno(), str(file))
        assert not isinstance(raised.value, BusyError)


def test_a_disk_of_windows_without_a_cache(monkeypatch):
    """Microsoft leaves a driver free to have no function for it; what else goes wrong is an error."""
    monkeypatch.setattr(windows_calls, "_handle", lambda fd: 70)
    monkeypatch.setattr(windows_calls, "kernel32", lambda: SimpleNamespace(FlushFileBuffers=lambda handle: 0))
    for code, is_error in ((1, False), (50, False), (1117, True), (19, True)):
        error = OSError(errno.EINVAL, "what Windows says")
        error.winerror = code
        monkeypatch.setattr(windows_calls, "last_error", lambda error=error: error)
        with pytest.raises(OSError, match="what Windows says") if is_error else contextlib.nullcontext():
            windows_calls.full_sync(5)


def test_full_sync_where_the_disk_does_not_know_it(monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    synced = []

    def call(number):
        def fails(fd, code):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "fcntl", fails)
        monkeypatch.setattr(fcntl, "ioctl", lambda fd, code, argument: fails(fd, code))
        macos.full_sync(5)

    monkeypatch.setattr(macos.os, "fsync", synced.append)
    call(errno.ENOTSUP)
    assert synced == [5]
    with pytest.raises(OSError, match="Input/output"):
        call(errno.EIO)


def test_an_error_number_that_a_system_lacks(monkeypatch):
    """Only Linux has ENOMEDIUM: naming it elsewhere made every open error an AttributeError."""
    code = (
        "import errno; vars(errno).pop('ENOMEDIUM', None)\n"
        "from miniscope_xr.tools.flash.target.base import open_error\n"
        "print(type(open_error('x', OSError(5, 'x'))).__name__, type(open_error('x', OSError(19, 'x'))).__name__)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout.split() == ["CardReadError", "CardNotFoundError"], found.stderr


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000])
def test_a_name_that_no_file_can_have(name):
    with pytest.raises(CardNotFoundError, match=r"cannot be looked at|no file or device here"):
        disks.identify(name)


def test_windows_errors():
    with pytest.raises(NotACardError, match="run as administrator"):
        WindowsDisks(lambda script: "not json").identify(r"\\.\PhysicalDrive2")
    with pytest.raises(NotACardError, match="PhysicalDriveN"):
        windows(WIN_CARD).identify("E:")
    with pytest.raises(NotACardError, match="Windows knows no such disk"):
        windows([WIN_CARD]).identify(r"\\.\PhysicalDrive9")
    with pytest.raises(NotACardError, match="Windows names no disk; `Get-Disk` in PowerShell says why"):
        windows([]).identify(r"\\.\PhysicalDrive2")


OTHER_WORDS = {
    "a card in German": ({"MediaType": "Wechselmedien", "Capabilities": [3, 4, 7]}, True),
    "as PowerShell 5.1 writes it": ({"MediaType": "", "Capabilities": {"value": [3, 4, 7], "Count": 3}}, True),
    "as the documentation writes it": ({"MediaType": "Removable media other than floppy"}, True),
    "a hard disk in German": ({"MediaType": "Externe Festplatte", "Capabilities": [3, 4]}, False),
    "a hard disk": ({"MediaType": "External hard disk media", "Capabilities": [3, 4, 7]}, False),
    "nothing": ({"MediaType": None, "Capabilities": None}, False),
}


@pytest.mark.parametrize("what", OTHER_WORDS)
def test_a_drive_for_cards_is_known_in_every_language(what):
    words, removable = OTHER_WORDS[what]
    found = windows({**WIN_CARD, "MediaType": None, **words}).identify(r"\\.\PhysicalDrive2")
    assert found.removable == removable


@pytest.mark.parametrize(
    ("platform", "name"), [("darwin", "MacDisks"), ("win32", "WindowsDisks"), ("linux", "LinuxDisks")]
)
def test_each_system_has_its_backend(monkeypatch, platform, name):
    monkeypatch.setattr(disks.sys, "platform", platform)
    assert type(disks.backend()).__name__ == name


@pytest.fixture
def raw(tmp_path):
    file = tmp_path / "raw.img"
    file.write_bytes(bytes(range(256)) * 8)
    target = target_other.RawTarget(image_file(str(file)), write=True)
    yield target
    target.close()


def test_raw_target(raw, tmp_path):
    assert raw.read(512, 512) == bytes(range(256)) * 2
    raw.write(512, b"\x01" * 512)
    raw.flush()
    raw.same()
    assert raw.read(512, 512) == b"\x01" * 512
    with pytest.raises(CardWriteError, match="not sectors"):
        raw.write(4, bytes(512))
    with pytest.raises(CardReadError, match="ended early"):
        raw.read(2048, 512)
    os.truncate(raw.path, 512)
    with pytest.raises(CardWriteError, match="resized"):
        raw.same()
    raw.path += " gone"
    with pytest.raises(CardWriteError, match="does not answer"):
        raw.same()
    os.close(raw._fd)
    for act in (lambda: raw.read(0, 512), lambda: raw.write(0, bytes(512)), raw.flush):
        with pytest.raises((CardReadError, CardWriteError), match="cannot be"):
            act()
    raw._fd = -1


def test_raw_target_of_another_size(tmp_path):
    file = tmp_path / "raw.img"
    file.write_bytes(bytes(512))
    with pytest.raises(RefusedError, match="not the card it was"):
        target_other.RawTarget(Disk(str(file), "disk", "usb", 1024), write=False)


# What real machines answered (macOS 11: a USB stick without a partition table, an SSD in a USB adapter, the system
# disk; Windows: a USB stick), as published in the test data of public disk imaging tools; keys we do not read left out.
RECORDED_MAC = {
    "disk0": {
        "BusProtocol": "PCI-Express", "DeviceBlockSize": 512, "DeviceIdentifier": "disk0", "Size": 512110190592,
        "IORegistryEntryName": "INTEL SSDPEKNW512G8 Media", "MediaName": "INTEL SSDPEKNW512G8",
        "RemovableMedia": False, "VirtualOrPhysical": "Physical", "WritableMedia": True, "MountPoint": "",
    },
    "disk2": {
        "BusProtocol": "USB", "DeviceBlockSize": 512, "DeviceIdentifier": "disk2", "Size": 15682240512,
        "TotalSize": 15665463296, "IORegistryEntryName": "SanDisk' Cruzer Fit Media", "MediaName": "Cruzer Fit",
        "RemovableMedia": True, "VirtualOrPhysical": "Physical", "WritableMedia": True,
        "MountPoint": "/Volumes/NO NAME",
    },
    "adapter": {
        "BusProtocol": "USB", "DeviceBlockSize": 512, "DeviceIdentifier": "disk2", "Size": 128035676160,
        "IORegistryEntryName": "SAMSUNG SSD PM830 mSATA Media", "MediaName": "SSD PM830 mSATA",
        "RemovableMedia": False, "VirtualOrPhysical": "Physical", "WritableMedia": True, "MountPoint": "",
    },
}  # fmt: skip
RECORDED_MAC_LIST = {
    "disk0": {"Content": "GUID_partition_scheme", "DeviceIdentifier": "disk0", "Size": 512110190592, "Partitions": [
        {"Content": "EFI", "DeviceIdentifier": "disk0s1", "Size": 209715200, "VolumeName": "EFI"},
        {"Content": "Apple_APFS", "DeviceIdentifier": "disk0s2", "Size": 511900434432}]},
    "disk2": {"Content": "", "DeviceIdentifier": "disk2", "MountPoint": "/Volumes/NO NAME", "Size": 15682240512},
    "adapter": {"Content": "FDisk_partition_scheme", "DeviceIdentifier": "disk2", "Size": 128035676160},
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("disk0", RefusedError, "NVMe"),
        ("adapter", RefusedError, "usb hard disk"),
        ("disk2", BusyError, "/Volumes/NO NAME"),
    ],
)
def test_what_macs_answered(name, error, message):
    found = mac(RECORDED_MAC[name], RECORDED_MAC_LIST[name]).identify(f"/dev/{RECORDED_MAC[name]['DeviceIdentifier']}")
    assert (found.size, found.model) == (RECORDED_MAC[name]["Size"], RECORDED_MAC[name]["MediaName"])
    with pytest.raises(error, match=message):
        refuse.check(found)


def test_what_windows_answered():
    stick = {
        "Number": 1, "FriendlyName": "SMI USB DISK", "SerialNumber": "UIWtXGCjyg72Pbiw", "BusType": "USB",
        "Size": 31457280000, "IsBoot": False, "IsSystem": False, "IsOffline": False, "IsReadOnly": False,
        "PartitionStyle": "MBR",
    }  # fmt: skip
    found = windows(stick, [{"PartitionNumber": 1, "DriveLetter": "E"}]).identify(r"\\.\PhysicalDrive1")
    assert (found.bus, found.size, found.model, found.sector_size) == ("usb", 31457280000, "SMI USB DISK", 512)
    with pytest.raises((BusyError, RefusedError)):
        refuse.check(found)


def test_a_raw_target_says_what_failed(raw, tmp_path, monkeypatch):
    def fails(*args):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(target_other.os, "write", fails)
        with pytest.raises(CardWriteError, match="sector 1 cannot be written: Input/output error"):
            raw.write(512, bytes(512))
    with monkeypatch.context() as patch:
        patch.setattr(target_other.os, "write", lambda fd, data: 100)
        with pytest.raises(CardWriteError, match="only 100 of 512 bytes were written"):
            raw.write(512, bytes(512))
    with monkeypatch.context() as patch:
        patch.setattr(target_other.os, "fsync", fails)
        patch.setattr(target_other.windows, "full_sync", fails)
        with pytest.raises(CardWriteError, match="the card cannot be flushed: Input/output error"):
            raw.flush()
    shown = image_file(raw.path)
    os.truncate(raw.path, 512)
    with pytest.raises(RefusedError, match="not the card it was a moment ago"):
        target_other.RawTarget(shown, write=True)


def test_a_disk_the_kernel_does_not_know(tmp_path):
    (tmp_path / "sys/class/block").mkdir(parents=True)
    with pytest.raises(NotACardError, match="the kernel knows no such disk; `list` shows the candidates"):
        LinuxDisks(tmp_path).identify("/dev/sdx")
