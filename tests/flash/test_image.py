"""Copies of cards: trimmed, sparse, around bad sectors, and on from where they stopped."""

from __future__ import annotations

import hashlib
import os

import pytest
import xarray as xr

from miniscope_xr.errors import CardReadError, OptionError, OutputError, OutputExistsError
from miniscope_xr.source import local as device
from miniscope_xr.tools.flash import image
from miniscope_xr.tools.flash.errors import CheckFailedError, RefusedError

from ..small_disk import grow, small_disk
from .cli import Tool
from .fakes import SECTOR, v4_card
from .test_commands import write

SIZE = 64 << 20


@pytest.fixture
def card(tmp_path):
    return write(tmp_path / "card.img", v4_card(SIZE, buffers=400), SIZE)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out.img"


def same(card, out) -> bool:
    with xr.open_datatree(card, engine="miniscope") as a, xr.open_datatree(out, engine="miniscope") as b:
        return a.identical(b)


@pytest.mark.parametrize("counted", [True, False])
def test_the_copy_opens_like_the_card(tmp_path, out, counted):
    card = write(tmp_path / "c.img", v4_card(SIZE, buffers=403, counted=counted), SIZE)
    copied = image.copy_image(str(card), out)
    assert same(card, out)
    assert copied.size == out.stat().st_size < 10 << 20
    data = out.read_bytes()
    assert card.read_bytes()[: len(data)] == data
    assert copied.sha256 == hashlib.sha256(data).hexdigest()
    assert (out.parent / "out.img.sha256").read_text() == f"{copied.sha256}  out.img\n"
    assert not (out.parent / "out.img.part").exists()
    assert copied.bad == ()


def test_sparse(tmp_path, out):
    card = write(tmp_path / "c.img", v4_card(SIZE, buffers=8), SIZE)
    image.copy_image(str(card), out)
    assert out.stat().st_blocks * 512 < out.stat().st_size / 2


@pytest.mark.parametrize("frames", [1, 7, 79, 80, 200])
def test_the_first_frames(card, out, frames):
    image.copy_image(str(card), out, frames=frames)
    with xr.open_dataset(card, engine="miniscope") as a, xr.open_dataset(out, engine="miniscope") as b:
        n = min(frames, 80)
        assert b.sizes["frame"] == n
        assert (a.video[:n].values == b.video.values).all()


def test_no_frames(card, out):
    with pytest.raises(OptionError, match="--frames 0"):
        image.copy_image(str(card), out, frames=0)


def test_what_is_there_is_kept(card, out):
    out.write_text("mine")
    with pytest.raises(OutputExistsError, match="--force"):
        image.copy_image(str(card), out)
    assert out.read_text() == "mine"
    image.copy_image(str(card), out, force=True)
    assert same(card, out)
    with pytest.raises(RefusedError, match="is the card itself"):
        image.copy_image(str(card), card, force=True)


class Bad(device.Device):
    """A card with unreadable sectors."""

    bad = (2000, 2001, 5000)

    def read(self, offset, length):
        if any(offset < (s + 1) * SECTOR and s * SECTOR < offset + length for s in self.bad):
            raise CardReadError(5, "bad sector", self.path)
        return super().read(offset, length)

    def salvage(self, offset, length):
        data, spans = bytearray(device.Device.read(self, offset, length)), []
        for s in self.bad:
            at = s * SECTOR - offset
            if 0 <= at < len(data):
                data[at : at + SECTOR] = bytes(SECTOR)
                if spans and sum(spans[-1]) == s * SECTOR:
                    spans[-1] = (spans[-1][0], spans[-1][1] + SECTOR)
                else:
                    spans.append((s * SECTOR, SECTOR))
        return bytes(data), spans


def test_bad_sectors(card, out, monkeypatch):
    monkeypatch.setattr(image, "Device", Bad)
    copied = image.copy_image(str(card), out)
    assert copied.bad_sectors == 3
    expected = bytearray(card.read_bytes()[: copied.size])
    for s in Bad.bad:
        expected[s * SECTOR : (s + 1) * SECTOR] = bytes(SECTOR)
    assert out.read_bytes() == expected
    with pytest.raises(CheckFailedError, match="3 unreadable sectors") as caught:
        image.complain(copied)
    assert f"{out}.map" in str(caught.value)
    lines = [line.split() for line in (out.parent / "out.img.map").read_text().splitlines() if line[0] != "#"][1:]
    assert lines == [
        [f"0x{0:08X}", f"0x{2000 * 512:08X}", "+"], [f"0x{2000 * 512:08X}", f"0x{1024:08X}", "-"],
        [f"0x{2002 * 512:08X}", f"0x{2998 * 512:08X}", "+"], [f"0x{5000 * 512:08X}", f"0x{512:08X}", "-"],
        [f"0x{5001 * 512:08X}", f"0x{copied.size - 5001 * 512:08X}", "+"],
    ]  # fmt: skip


class Unplugged(device.Device):
    """A card that is pulled out after 5 MB."""

    def read(self, offset, length):
        if offset + length > 5 << 20:
            raise CardReadError(19, "no such device", self.path)
        return super().read(offset, length)

    def salvage(self, offset, length):
        return bytes(length), [(offset, length)]


def test_a_pulled_reader_is_no_bad_sector(card, out, monkeypatch):
    monkeypatch.setattr(image, "Device", Unplugged)
    with pytest.raises(CardReadError, match="no such device"):
        image.copy_image(str(card), out)
    assert not out.exists()


def stop_after(monkeypatch, megabytes):
    def progress(name, done, total):
        if name == "copying" and done >= megabytes << 20:
            raise KeyboardInterrupt

    return progress


def test_goes_on_where_it_stopped(card, out, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        image.copy_image(str(card), out, progress=stop_after(monkeypatch, 4))
    assert not out.exists()
    map_text = (out.parent / "out.img.map").read_text()
    assert "?" in map_text
    seen = []
    real = device.Device.read

    def read(self, offset, length):
        if length >= 1 << 20:
            seen.append(offset)
        return real(self, offset, length)

    monkeypatch.setattr(device.Device, "read", read)
    image.copy_image(str(card), out)
    assert min(seen) == 4 << 20
    assert same(card, out)


def test_another_card_does_not_go_on(card, out, monkeypatch, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        image.copy_image(str(card), out, progress=stop_after(monkeypatch, 4))
    other = write(tmp_path / "other.img", v4_card(SIZE, buffers=400, led=50), SIZE)
    with pytest.raises(RefusedError, match=r"of another card.*--force"):
        image.copy_image(str(other), out)
    image.copy_image(str(other), out, force=True)
    assert same(other, out)


def test_a_map_that_is_none(card, out):
    (out.parent / "out.img.part").write_bytes(b"")
    (out.parent / "out.img.map").write_text("hello")
    with pytest.raises(OutputError, match="not a map of a copy of ours"):
        image.copy_image(str(card), out)


def test_a_map_round_trip():
    for copy in (
        image.CopyMap(10240, "ab12"), image.CopyMap(10240, "ab12", 10240),
        image.CopyMap(10240, "ab12", 5120, [(512, 1024)]),
        image.CopyMap(10240, "ab12", 5120, [(0, 512), (4608, 512)]), image.CopyMap(1024, "ab12", 1024, [(512, 512)]),
    ):  # fmt: skip
        assert image.CopyMap.parse(copy.text(), None) == copy


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX")
def test_a_folder_that_is_not_there(card, tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        image.copy_image(str(card), tmp_path / "nothing" / "out.img")


def test_the_command(capsys, card, out, tmp_path, monkeypatch):
    tool = Tool(capsys, tmp_path)
    result = tool.raw("image", card, out, "--json")
    assert result.code == 0
    report = result.json
    assert report["bad_sectors"] == 0
    assert report["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert report["size"] == out.stat().st_size
    assert tool.raw("image", card, out).code == 2
    monkeypatch.setattr(image, "Device", Bad)
    result = tool.raw("image", card, out, "--force", "--frames", "60", "--layout", "v4-wirefree")
    assert result.code == 7
    assert "ddrescue -d" in result.err


def test_after_a_full_disk_the_copy_goes_on(card, tmp_path):
    with small_disk(tmp_path / "small", 2 << 20) as disk:
        out = disk / "out.img"
        with pytest.raises(OutputError, match="No space left"):
            image.copy_image(str(card), out)
        found = image.CopyMap.parse((disk / "out.img.map").read_text(), out)
        assert (disk / "out.img.part").stat().st_size == found.done
        assert sorted(p.name for p in disk.iterdir()) == ["out.img.map", "out.img.part"]
        grow(disk, 64 << 20)
        image.copy_image(str(card), out)
        assert same(card, out)


def test_a_map_is_never_cut_short(card, out, monkeypatch):
    """The old one stays until the new one is whole: without room for it there is still one to go on by."""
    out.with_name("out.img.map").write_text("the old map")

    def full(self, *_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(out), "write_text", full)
    with pytest.raises(OutputError, match="No space left"):
        image.copy_image(str(card), out)
    monkeypatch.undo()
    assert out.with_name("out.img.map").read_text() == "the old map"
