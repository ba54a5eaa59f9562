"""Two cards of one reader are two cards, and one card is one in every reader and after every restart."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from miniscope_xr.layout.stamp import read_stamp
from miniscope_xr.tools.flash.disks.base import Disk
from miniscope_xr.tools.flash.disks.find import identify
from miniscope_xr.tools.flash.disks.linux import LinuxDisks
from miniscope_xr.tools.flash.disks.own_id import id_to_leave, read_own_id

from .cli import Tool
from .fakes import SECTOR, v4_card
from .loops import loop, needs_loops
from .test_commands import HEADER, interrupted, settings, write

SIZE = 16 << 20


def known(path, **named) -> Disk:
    return Disk(str(path), "disk", "usb", SIZE, removable=True, **named)


def test_a_number_of_the_card_comes_first():
    disk = replace(known("/dev/x"), own_id="00" * 8, cid="ab" * 16)
    assert disk.card_id == "ab" * 16
    assert replace(disk, cid="").card_id == "00" * 8


def test_cards_that_differ_have_different_ids(tmp_path):
    """The lab's cards, prepared alike: what was recorded on them tells them apart, also where nothing is counted."""
    one = write(tmp_path / "1", v4_card(), SIZE)
    two = write(tmp_path / "2", v4_card(gain=2), SIZE)
    ids = [read_own_id(known(path)) for path in (one, two)]
    assert ids[0][0] != ids[1][0]
    assert all(unique for _, unique in ids)
    assert read_own_id(known(one)) == ids[0], "the same whenever it is asked"


def test_blank_cards_are_told_apart_by_the_insertion(tmp_path):
    blank = write(tmp_path / "1", b"", SIZE)
    first, again, other = (read_own_id(known(blank, diskseq=seq)) for seq in (5, 5, 6))
    assert first == again != other
    assert first[1]
    assert read_own_id(known(blank))[1] is False, "where insertions are not counted, twins have the same"
    alike = write(tmp_path / "2", v4_card(buffers=0), SIZE)
    assert read_own_id(known(alike, diskseq=5))[1] is False, "another card may be prepared in the same way"


def test_what_is_left_on_a_card():
    assert id_to_leave("", "11" * 8, True) == bytes.fromhex("11" * 8)
    left = [id_to_leave("", "11" * 8, False) for _ in range(2)]
    assert left[0] != left[1], "an id that a twin may have is not written onto both"
    assert id_to_leave("cid", "", False) == id_to_leave("cid", "22" * 8, True)


def test_unreadable_and_too_small(tmp_path):
    small = write(tmp_path / "s", b"", SECTOR)
    for path in (small, tmp_path / "nothing"):
        assert read_own_id(known(path)) == ("", False)
    disk = known("/dev/x")
    assert not disk.has_id
    assert "run as administrator" in disk.describe()


def test_names_cannot_redraw_the_question():
    """A reader may call itself anything; what is shown is shown, not obeyed."""
    disk = Disk("/dev/x", "disk", "usb", 512, model="OK\x1b[2K\rcard", reader="a\nb", serial="\x9b1m", cid="\x07")
    for text in (disk.model, disk.reader, disk.serial, disk.cid, disk.describe()):
        assert text.isprintable(), repr(text)


@pytest.fixture
def tool(capsys, tmp_path):
    return Tool(capsys, tmp_path / "backups")


@needs_loops
def test_prepare_leaves_an_id_that_every_reader_sees(tool, tmp_path):
    image = write(tmp_path / "card.img", v4_card(), SIZE)
    with loop(image) as device:
        first = identify(device).card_id
        assert tool("prepare", device, "record_length=1", "--discard-recording", first).code == 0
        assert identify(device).card_id == first, "it keeps the name it was shown with"
        assert tool("set", device, "gain=4").code == 0
        assert identify(device).card_id == first
    assert read_stamp(image.read_bytes()[HEADER : HEADER + SECTOR]).card == first
    with loop(image) as device:
        assert identify(device).card_id == first
        assert tool("restore", device).code == 0


@pytest.mark.slow
@needs_loops
def test_another_card_in_the_same_reader(tool, tmp_path):
    """As large, prepared by this tool as well: `--card`, `restore` and `resume` do not take it for the first."""
    images = [write(tmp_path / f"{i}.img", v4_card(led=i), SIZE) for i in (1, 2)]
    ids = []
    for image in images:
        with loop(image) as device:
            ids.append(identify(device).card_id)
            assert tool("prepare", device, "record_length=1", "--discard-recording", ids[-1]).code == 0
    with loop(images[1]) as device:
        assert tool("set", device, "gain=4").code == 0
    folder = next((tool.backups / ids[1]).glob("*-set"))
    before = images[0].read_bytes()
    with loop(images[0]) as device:
        words = ("--image", "--backup-dir", tool.backups)
        assert tool.raw("set", device, "gain=2", *words, "--yes", "--card", ids[1]).code == 3
        for verb in ("restore", "resume"):
            result = tool(verb, device, "--backup", folder)
            assert result.code == 3
            assert "the backup is of card" in result.err or "was finished" in result.err
        assert images[0].read_bytes() == before


@pytest.mark.slow
@needs_loops
def test_resume_after_the_computer_died(tool, tmp_path, monkeypatch):
    """Without a number, in another reader: the card's own sectors show which backup is its."""
    image = write(tmp_path / "card.img", v4_card(), SIZE)
    with loop(image) as device:
        assert tool("set", device, "gain=2").code == 0
        assert interrupted(tool, device, monkeypatch, "--discard-recording", identify(device).card_id).code == 6
    with loop(image) as device:
        result = tool("resume", device)
        assert result.code == 0
        assert "finishes prepare" in result.out
        assert settings(image)["gain"] == 4
        assert tool("restore", device).code == 0
        assert settings(image)["gain"] == 2


@pytest.mark.slow
@needs_loops
@pytest.mark.parametrize("verb", ["restore", "resume"])
def test_the_backup_of_one_card_on_somebodys_disk(tool, tmp_path, monkeypatch, verb):
    image = write(tmp_path / "card.img", v4_card(), SIZE)
    with loop(image) as device:
        assert interrupted(tool, device, monkeypatch, "--discard-recording", identify(device).card_id).code == 6
    folder = next(tool.backups.glob("*/*-prepare"))
    disk = bytearray(os.urandom(SIZE))
    disk[510:512] = b"\x55\xaa"
    other = write(tmp_path / "disk.img", bytes(disk), SIZE)
    smaller = write(tmp_path / "small.img", v4_card(), SIZE // 2)
    for stranger, message in ((other, "neither an id, nor a session"), (smaller, f"on a card of {SIZE} bytes")):
        before = stranger.read_bytes()
        with loop(stranger) as device:
            result = tool(verb, device, "--backup", folder)
        assert result.code == 3
        assert message in result.err
        assert stranger.read_bytes() == before


def test_names_from_sysfs_are_clean(tmp_path):
    from .sysfs import Machine

    machine = Machine(tmp_path)
    machine.usb(model="SD\x1b[31m")
    assert LinuxDisks(tmp_path).identify("/dev/sdb").model.isprintable()
