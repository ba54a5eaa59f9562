"""Raw disks of macOS, ``/dev/rdiskN``: a card's life, and what macOS refuses, over a simulated kernel and diskutil."""

from __future__ import annotations

import os
import sys

import pytest
import xarray as xr

from miniscope_xr.errors import CardReadError
from miniscope_xr.tools.cli import hardware
from miniscope_xr.tools.flash import journal
from miniscope_xr.tools.flash.disks.find import identify
from miniscope_xr.tools.flash.errors import BUSY, BusyError
from miniscope_xr.tools.flash.target.linux import open_target

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
