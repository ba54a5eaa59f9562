"""Nothing is saved onto the card that is being read: somebody formatted it, and takes it for a drive like others."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from miniscope_xr.source import same_disk
from tests.flash import life
from tests.flash.cli import Tool
from tests.flash.loops import loop, needs_loops, run


@pytest.fixture
def tool(capsys, tmp_path):
    return Tool(capsys, tmp_path / "backups")


@needs_loops
@pytest.mark.skipif(not shutil.which("mkfs.ext4"), reason="needs mkfs.ext4")
def test_a_formatted_card(tmp_path, tool):
    card, mnt = life.recorded(tmp_path / "card.img"), tmp_path / "mnt"
    run("mkfs.ext4", "-q", "-F", "-E", "nodiscard", card)
    mnt.mkdir()
    with loop(card) as device:
        run("mount", device, mnt)
        try:
            for words in (["image"], ["rescue"]):
                result = tool.raw(*words, device, mnt / "new" / "a.img")
                assert result.code != 0
                assert "lies on the card itself" in result.err
            result = tool.raw("backup", device, "--image", "--backup-dir", mnt / "new")
            assert "the backup folder lies on the card itself" in result.err
            assert not (mnt / "new").exists()
            assert same_disk.lies_on(mnt, device)
            assert not same_disk.lies_on(tmp_path, device)
            assert not same_disk.lies_on(mnt, card), "a file is no disk"
            assert tool.raw("image", device, tmp_path / "a.img").code == 0
        finally:
            run("umount", mnt)


@pytest.mark.skipif(sys.platform == "win32", reason="files have no device numbers here")
def test_the_numbers_of_a_disk_of_macos(tmp_path):
    """Its own and those of its slices; of disk40 none."""
    for name in ("disk4", "disk4s1", "disk4s1s1", "disk40", "disk40s1", "rdisk4", "disk4.txt"):
        (tmp_path / name).touch()
    asked = []

    class Nodes(type(tmp_path)):
        def stat(self, **named):
            asked.append(self.name)
            return super().stat(**named)

    list(same_disk._of_mac("/dev/rdisk4", Nodes(tmp_path)))
    assert sorted({name for name in asked if "disk4" in name}) == ["disk4", "disk4s1", "disk4s1s1"]
    assert list(same_disk._of_mac("card.img", tmp_path)) == []


@pytest.mark.parametrize("card", ["none", "s3://bucket/card.img", "a\0b", ""])
def test_what_nobody_can_tell(card, tmp_path):
    assert not same_disk.lies_on(tmp_path / "a.avi", card)


@pytest.mark.skipif(sys.platform != "linux", reason="nodes of Linux")
def test_a_node_that_is_no_disk(tmp_path):
    assert not same_disk.lies_on(Path("/dev/shm/a.avi"), "/dev/null")
