"""Raw disks of macOS, ``/dev/rdiskN``: a card's life, and what macOS refuses, over a simulated kernel and diskutil."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys

import pytest
import xarray as xr

from miniscope_xr.errors import CardPermissionError, CardReadError
from miniscope_xr.source import macos
from miniscope_xr.source.local import Device
from miniscope_xr.tools.cli import hardware
from miniscope_xr.tools.flash import journal
from miniscope_xr.tools.flash.disks.find import identify
from miniscope_xr.tools.flash.errors import BUSY, BusyError, CardWriteError
from miniscope_xr.tools.flash.target.open import open_target

from . import life
from .cli import Tool, card_id
from .fake_mac import Mac, MacDisk
from .test_commands import settings

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="simulates macOS on Linux")
DRIVE = "/dev/rdisk4"


@pytest.fixture
def image(tmp_path):
    return life.recorded(tmp_path / "card.img")


@pytest.fixture
def disk(image):
    made = MacDisk(str(image))
    with Mac(disk4=made):
        yield made


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Nobody waits for a program that has the disk, but where that is tested."""
    monkeypatch.setattr(macos, "_PATIENCE", 0)


@pytest.fixture
def tool(capsys, tmp_path):
    return Tool(capsys, tmp_path / "backups")


@pytest.mark.slow
def test_a_whole_life(disk, image, tool, tmp_path, monkeypatch):
    life.whole_life(tool, DRIVE, image, tmp_path, monkeypatch)
    assert "synchronized" in disk.log, "flushed to the medium, though the disk knows no F_FULLFSYNC"
    assert "fsync" not in disk.log


@pytest.mark.slow
def test_resume_after_a_kill(disk, image, tool):
    before = f"from tests.flash.fake_mac import Mac, MacDisk; Mac(disk4=MacDisk({str(image)!r})).__enter__()"
    life.is_finished_after_a_kill(tool, DRIVE, image, before)


def test_both_names_are_one_disk(disk, tool, image):
    assert identify("/dev/disk4") == identify(DRIVE)
    assert tool("set", "/dev/disk4", "gain=2").code == 0
    assert settings(image)["gain"] == 2
    with xr.open_dataset("/dev/disk4", engine="miniscope") as ds:
        assert ds.sizes["frame"] == life.FRAMES


def test_the_simulated_kernel_refuses(disk):
    """The rules that the life above was lived under."""
    fd = os.open(DRIVE, os.O_RDONLY)
    try:
        assert os.lseek(fd, 0, os.SEEK_END) == 0
        with pytest.raises(OSError, match="Invalid argument"):
            os.read(fd, 100)
        with pytest.raises(OSError, match="Invalid argument"):
            os.pread(fd, 512, 100)
        assert len(os.pread(fd, 512, 512)) == 512
    finally:
        os.close(fd)
    disk.mounted = "/Volumes/NO NAME"
    with pytest.raises(OSError, match="Resource busy"):
        os.open(DRIVE, os.O_RDWR)


def test_a_mounted_volume(disk, tool, image):
    """It is refused by what diskutil says; one that is mounted a moment later, by the kernel."""
    before, seen = image.read_bytes(), identify(DRIVE)
    disk.mounted = "/Volumes/NO NAME"
    result = tool("set", DRIVE, "gain=2")
    assert result.code == BUSY
    assert "`diskutil unmountDisk /dev/disk4`" in result.err
    with pytest.raises(BusyError, match="another program uses it"), open_target(seen, write=True):
        pass
    assert image.read_bytes() == before


def unmount(said: str, *, force: bool = False):
    """Do what a message says."""
    command = shlex.split(re.search("`(diskutil unmountDisk [^`]*)`", said)[1])
    if force:
        command.insert(2, "force")
    return subprocess.run(command, capture_output=True)


def test_a_mounted_volume_is_unmounted_as_the_message_says(disk, tool, image):
    """And once more for the next command, as macOS mounts what it knows when a disk was written and closed."""
    disk.mounted, disk.remounts = "/Volumes/NO NAME", True
    for gain in ("2", "4"):
        said = tool("set", DRIVE, f"gain={gain}").err
        assert unmount(said).returncode == 0
        assert tool("set", DRIVE, f"gain={gain}").code == 0
        assert settings(image)["gain"] == int(gain)


def test_a_volume_that_spotlight_has(disk, tool, image):
    """The unmounting is dissented: the command ends as before, until it is let go of, or forced away."""
    disk.mounted, disk.dissenter = "/Volumes/NO NAME", "/System/Library/Frameworks/CoreServices.framework/mds_stores"
    before = image.read_bytes()
    said = tool("set", DRIVE, "gain=2").err
    dissent = unmount(said)
    assert (dissent.returncode, b"dissented by PID" in dissent.stderr) == (1, True)
    again = tool("set", DRIVE, "gain=2")
    assert (again.code, again.err) == (BUSY, said)
    assert image.read_bytes() == before
    assert unmount(said, force=True).returncode == 0
    assert tool("set", DRIVE, "gain=2").code == 0


def test_who_checks_a_card_that_was_put_in_is_waited_for(disk, image, tool, monkeypatch):
    disk.checked = 3
    with pytest.raises(BusyError, match="another program uses it"), open_target(identify(DRIVE), write=True):
        pass
    monkeypatch.setattr(macos, "_PATIENCE", 30)
    assert tool("set", DRIVE, "gain=2").code == 0
    assert disk.checked == 0


def test_without_full_disk_access(disk, tool):
    disk.rights = False
    with pytest.raises(CardPermissionError, match="Full Disk Access"):
        xr.open_dataset(DRIVE, engine="miniscope")
    with pytest.raises(CardPermissionError, match="Full Disk Access"), open_target(identify(DRIVE), write=True):
        pass


@pytest.mark.slow
def test_who_has_no_rights_does_everything_with_an_image(disk, tool, tmp_path, monkeypatch):
    disk.rights = False
    life.life_of_an_image(tool, tmp_path / "mine" / "cage 3.img", tmp_path, monkeypatch)
    assert disk.log == []


FLUSHES = {
    "F_FULLFSYNC": ("F_FULLFSYNC",),  # a disk that knows it
    "synchronized": ("F_FULLFSYNC", "synchronized"),  # a raw disk, as Apple's sources have it
    "fsync": ("F_FULLFSYNC", "synchronized", "fsync"),  # one that knows neither
}


@pytest.mark.parametrize("how", FLUSHES)
def test_a_disk_is_flushed_as_it_can(disk, tool, image, how):
    disk.knows = (how,)
    assert tool("set", DRIVE, "gain=2").code == 0
    flushed = [step for step in disk.log if step != "write"]
    assert tuple(flushed[: len(FLUSHES[how])]) == FLUSHES[how]
    assert flushed[-1] == how
    assert disk.log[-1] != "write", "the last word is a flush"


@pytest.mark.parametrize("how", ["F_FULLFSYNC", "synchronized"])
def test_a_flush_that_fails_is_an_error(disk, tool, image, how):
    """It is not tried in another way: what that one says would not be about what was written before."""
    disk.broken, disk.knows = how, ("F_FULLFSYNC", "synchronized") if how == "F_FULLFSYNC" else ("synchronized",)
    with open_target(identify(DRIVE), write=True) as target:
        target.write(0, bytes(512))
        with pytest.raises(CardWriteError, match="cannot be flushed: Input/output error"):
            target.flush()
    assert "fsync" not in disk.log
    result = tool("set", DRIVE, "gain=2")
    assert result.code == 6, result.err


def test_a_disk_of_larger_sectors(disk, image, tool):
    """A copy on a large disk of 4096 bytes a sector is read; a Miniscope takes no such card."""
    disk.sector = 4096
    with Device(DRIVE) as device:
        assert device.read(100, 1000) == image.read_bytes()[100:1100]
        assert device.read(life.SIZE - 3, 100) == image.read_bytes()[-3:]
        assert device.salvage(511, 2) == (image.read_bytes()[511:513], [])
    with xr.open_dataset(DRIVE, engine="miniscope") as ds:
        assert ds.sizes["frame"] == life.FRAMES
    result = tool("set", DRIVE, "gain=2")
    assert result.code == 3
    assert "sectors of 4096 bytes" in result.err


def test_one_writer(disk):
    with (
        open_target(identify(DRIVE), write=True),
        pytest.raises(BusyError, match="a copy of this tool"),
        open_target(identify(DRIVE), write=True),
    ):
        pass


def test_pulled(disk, image, tool, monkeypatch):
    with xr.open_dataset(DRIVE, engine="miniscope") as ds:
        disk.pulled = True
        with pytest.raises(CardReadError, match="cannot be read"):
            ds.video[3].load()
        disk.pulled = False
    original = journal.Journal.write

    def pull(self, phase):
        original(self, phase)
        disk.pulled = phase == "settings"

    with monkeypatch.context() as patch:
        patch.setattr(journal.Journal, "write", pull)
        result = tool("prepare", DRIVE, "gain=4", "record_length=1", "--discard-recording", card_id(DRIVE))
    assert result.code == 6, result.err
    assert "no card found" in tool.raw("list").out
    disk.pulled = False
    assert tool("resume", DRIVE).code == 0
    assert settings(image)["gain"] == 4


def test_two_readers_of_one_name(image, tmp_path, tool):
    other = life.recorded(tmp_path / "other.img")
    with open(other, "r+b") as file:
        file.seek(life.DATA + 512)
        file.write(b"another recording")
    with Mac(disk4=MacDisk(str(image)), disk5=MacDisk(str(other))):
        rows = tool.raw("list", "--json").json["devices"]
        assert len({row["card_id"] for row in rows}) == 2
        words = ["--image", "--yes", "--backup-dir", str(tool.backups), "--card", rows[0]["card_id"]]
        assert tool.raw("set", "/dev/disk5", "gain=2", *words).code == 3
    assert settings(other)["gain"] == settings(image)["gain"]


def test_write_protected(disk, tool):
    disk.protected = True
    assert "read-only" in tool("set", DRIVE, "gain=2").err


@pytest.mark.slow
def test_the_checklist_for_hardware(disk, tmp_path):
    """Without the killed process: that one would not be on this simulated Mac."""
    life.is_worked_through(hardware, DRIVE, tmp_path / "report.md", kill=False)
