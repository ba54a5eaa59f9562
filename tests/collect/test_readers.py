"""``--all``: what is in the readers, whatever is the matter with it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from miniscope_xr.errors import CardReadError
from miniscope_xr.source.local import Device
from miniscope_xr.tools.collect import plan, record
from miniscope_xr.tools.collect.record import Sidecar
from miniscope_xr.tools.flash.disks.find import identify
from miniscope_xr.tools.simulate import blank

from .test_collect import TOLD


@pytest.fixture
def readers(monkeypatch):
    """Put disks into the readers."""

    def put(*disks):
        monkeypatch.setattr(plan, "present", lambda: list(disks))

    return put


def test_which_are_collected(day, tool, tmp_path, readers, monkeypatch):
    """A lock switch keeps nobody from copying; what cannot be read is told, what is no card is not."""
    good, locked, bad = (identify(str(card)) for card in day(3))
    stick = tmp_path / "stick.img"
    stick.write_bytes(b"\xeb\x58\x90holiday" + bytes(2 << 20))
    readers(
        good, replace(locked, read_only=True), bad, identify(str(stick)), replace(good, path="/dev/sr9", size=0),
        replace(good, path="/dev/sda", mounts=(("/dev/sda1", "/"),)), replace(good, path="/dev/nvme0n1", bus="nvme"),
    )  # fmt: skip
    real = Device.__init__

    def unreadable(self, path, *rest, **named):
        if str(path) == bad.path:
            raise CardReadError(5, "Input/output error", bad.path)
        real(self, path, *rest, **named)

    monkeypatch.setattr(Device, "__init__", unreadable)
    done = tool("collect", "--all", "--image", tmp_path / "lab", *TOLD)
    assert done.code == 5, done.err
    assert "2 of 3 cards collected" in done.out
    assert f"{bad.path}: failed" in done.out
    assert "stick" not in done.out + done.err
    assert "sda" not in done.out + done.err


def test_a_clone_is_copied_once(day, tool, tmp_path):
    (card,), clone = day(1), tmp_path / "clone.img"
    clone.write_bytes(card.read_bytes())
    done = tool("collect", card, clone, tmp_path / "lab", *TOLD)
    assert done.code == 2
    assert "1 of 2 cards collected" in done.out
    assert f"{clone} holds the same recording as {card}" in done.out
    assert len(list((tmp_path / "lab").rglob("*.img"))) == 1


def test_the_folder_is_walked_once_a_run(tool, tmp_path, monkeypatch):
    cards = [blank("v4-wirefree").write(tmp_path / f"{name}.img") for name in "abc"]
    walks: list[object] = []
    (tmp_path / "lab").mkdir()
    real = record.os.walk
    monkeypatch.setattr(record.os, "walk", lambda folder: walks.append(folder) or real(folder))
    assert tool("collect", *cards, tmp_path / "lab", *TOLD).code == 7
    assert walks == [tmp_path / "lab"]


def test_settings_alone_do_not_tell_a_card():
    """They are those of a lab's other cards too: where no data could be read, the id has to say it."""
    of = Sidecar(None, card={"marks": "99 1022:aa 1023:bb 1024:cc 1025:dd", "id": "ab"})
    assert of.is_of("99 1022:aa 1023:bb 1024:cc 1025:dd", "another reader's")
    assert of.is_of("99 1025:dd", "another reader's")
    assert not of.is_of("99 1022:aa 1023:bb 1024:cc 1025:ee", "ab")
    assert not of.is_of("99 1022:aa", "cd")
    assert not of.is_of("99", "cd")
    assert of.is_of("99 1022:aa", "ab")
    assert not of.is_of("98 1025:dd", "ab")
