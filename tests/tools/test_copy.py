"""Copies of cards: trimmed, sparse, around bad sectors, and on from where they stopped."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys

import pytest
import xarray as xr

from miniscope_xr import SDCard
from miniscope_xr.errors import CardReadError, OptionError, OutputError, OutputExistsError
from miniscope_xr.source import local as device
from miniscope_xr.source.copy_map import CopyMap, card_marks, same_card
from miniscope_xr.source.open import open_device
from miniscope_xr.tools.copy import image
from miniscope_xr.tools.copy.lock import alone
from miniscope_xr.tools.flash.errors import CheckFailedError, RefusedError
from tests import needs

from ..flash.cli import Tool
from ..flash.fakes import SECTOR, v4_card
from ..flash.test_commands import write
from ..small_disk import grow, small_disk

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


@pytest.mark.slow
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


@pytest.mark.slow
def test_sparse(tmp_path, out):
    card = write(tmp_path / "c.img", v4_card(SIZE, buffers=8), SIZE)
    image.copy_image(str(card), out)
    copied = out.read_bytes()
    assert copied == card.read_bytes()[: len(copied)]
    if hasattr(out.stat(), "st_blocks"):
        assert out.stat().st_blocks * 512 < out.stat().st_size / 2


@pytest.mark.slow
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
    monkeypatch.setattr(image, "open_device", Bad)
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
    monkeypatch.setattr(image, "open_device", Unplugged)
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


@pytest.mark.slow
def test_another_card_does_not_go_on(card, out, monkeypatch, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        image.copy_image(str(card), out, progress=stop_after(monkeypatch, 4))
    other = write(tmp_path / "other.img", v4_card(SIZE, buffers=400, led=50), SIZE)
    with pytest.raises(RefusedError, match=r"of another card.*--force"):
        image.copy_image(str(other), out)
    image.copy_image(str(other), out, force=True)
    assert same(other, out)


@pytest.mark.slow
@pytest.mark.parametrize("bad", [1022, 1023, 1024, 1025])
def test_a_bad_sector_in_front(card, out, monkeypatch, bad):
    """The sectors that tell cards apart may be bad themselves, also when the copy goes on."""
    monkeypatch.setattr(Bad, "bad", (bad, 5000))
    monkeypatch.setattr(image, "open_device", Bad)
    with pytest.raises(KeyboardInterrupt):
        image.copy_image(str(card), out, layout="v4-wirefree", progress=stop_after(monkeypatch, 4))
    copied = image.copy_image(str(card), out, layout="v4-wirefree")
    assert copied.bad == ((bad * SECTOR, SECTOR), (5000 * SECTOR, SECTOR))


def test_marks_tell_cards_apart(tmp_path):
    sources = [device.Device(write(tmp_path / f"{led}.img", v4_card(SIZE, buffers=8, led=led), SIZE)) for led in (1, 2)]
    try:
        one, other = map(card_marks, sources)
    finally:
        for source in sources:
            source.close()
    assert same_card(one, one)
    assert not same_card(one, other)
    worn = " ".join(mark for mark in other.split() if not mark.startswith("1022:"))
    assert same_card(one, worn)  # what cannot be read does not speak against it
    assert not same_card(one, one.replace(str(SIZE), str(SIZE // 2)))


def test_a_reader_that_is_pulled_in_the_middle_of_a_step(card, out, monkeypatch):
    """What it did not deliver is not called unreadable, so that the next run reads it."""

    class Pulled(Bad):
        gone = False

        def read(self, offset, length):
            if length > 2 << 20 and offset + length > 5 << 20:  # in the copy, not in the search before it
                Pulled.gone = True
            if Pulled.gone:
                raise CardReadError(19, "no such device", self.path)
            return device.Device.read(self, offset, length)

        def salvage(self, offset, length):
            return (bytes(length), [(offset, length)]) if Pulled.gone else super().salvage(offset, length)

    monkeypatch.setattr(image, "open_device", Pulled)
    with pytest.raises(CardReadError, match="no such device"):
        image.copy_image(str(card), out)
    assert "-" not in {line.split()[-1] for line in (out.parent / "out.img.map").read_text().splitlines()}
    monkeypatch.setattr(image, "open_device", open_device)
    assert image.copy_image(str(card), out).bad == ()
    assert same(card, out)


def test_after_a_full_disk_the_copy_goes_on(capsys, card, tmp_path, monkeypatch):
    with small_disk(tmp_path / "small", 5 << 20) as disk:
        out, tool = disk / "out.img", Tool(capsys, tmp_path)
        early = tool.raw("image", card, out)
        assert early.code == 5
        assert "the copy takes 0.01 GB more, and 0.01 GB are free on this disk; make room" in early.err
        assert not list(disk.iterdir())
        with monkeypatch.context() as patch:  # somebody else fills it meanwhile
            patch.setattr(image, "room_for", lambda *_: contextlib.nullcontext())
            result = tool.raw("image", card, out)
        assert result.code == 5
        assert "make room and run it again" in result.err
        found = CopyMap.parse((disk / "out.img.map").read_text())
        assert 0 < (disk / "out.img.part").stat().st_size == found.done < found.end
        assert sorted(p.name for p in disk.iterdir()) == ["out.img.map", "out.img.part"]
        grow(disk, 64 << 20)
        assert tool.raw("image", card, out).code == 0
        assert same(card, out)


def test_a_map_is_never_cut_short(card, out, monkeypatch):
    """The old one stays until the new one is whole: without room for it there is still one to go on by."""
    out.with_name("out.img.map").write_text("the old map")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        image.copy_image(str(card), out)
    monkeypatch.undo()
    assert out.with_name("out.img.map").read_text() == "the old map"
    assert not out.with_name("out.img.map.tmp").exists()


@needs.fifos
def test_only_new_or_regular_files(capsys, card, tmp_path):
    """Whatever is forced: a device node, a pipe or the target of a link is somebody else's."""
    target = tmp_path / "target"
    target.write_text("mine")
    (tmp_path / "link").symlink_to(target)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a.img.part").symlink_to(target)
    (tmp_path / "b.img.map").symlink_to(target)
    for name in ("link", "pipe", "a.img", "b.img"):
        with pytest.raises(OutputExistsError, match=r"is a (link|pipe)"):
            image.copy_image(str(card), tmp_path / name, force=True)
    assert Tool(capsys, tmp_path).raw("image", card, tmp_path / "link", "--force").code == 2
    assert target.read_text() == "mine"
    assert (tmp_path / "link").is_symlink()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(b"\xff\xfe.img", marks=needs.posix_names),
        "記録.img".encode(),
        pytest.param(b"a\nb\\c.img", marks=needs.posix_names),
    ],
)
def test_names_no_terminal_can_print(capsys, card, tmp_path, name):
    out = tmp_path / os.fsdecode(name)
    result = Tool(capsys, tmp_path).raw("image", card, out)
    assert result.code == 0
    assert same(card, out)
    if shutil.which("sha256sum"):
        sums = os.fsencode(out) + b".sha256"
        assert subprocess.run(["sha256sum", "-c", sums], cwd=tmp_path, capture_output=True).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["hole", "front"])
def test_as_much_as_prepare_would_call_lost(tmp_path, out, damage):
    """A file system was made over the recording: what it left is copied, opened or not."""
    data = bytearray(v4_card(SIZE, buffers=400, counted=False))
    first, last = (2048, 9000) if damage == "hole" else (0, 8000)
    data[first * SECTOR : last * SECTOR] = bytes((last - first) * SECTOR)
    card = write(tmp_path / "formatted.img", bytes(data), SIZE)
    end = (1024 + 80 * 181) * SECTOR
    image.copy_image(str(card), out)
    assert out.stat().st_size >= end
    assert out.read_bytes()[:end] == bytes(data[:end])


def spoil(monkeypatch, *sectors):
    """Let the system fail to read some sectors of every card."""

    def failing(real, length_of):
        def read(self, *args):
            offset, length = length_of(*args)
            if any(offset < (s + 1) * SECTOR and s * SECTOR < offset + length for s in sectors):
                raise OSError(5, "Input/output error")
            return real(self, *args)

        return read

    monkeypatch.setattr(device.Device, "_pread", failing(device.Device._pread, lambda at, n: (at, n)))
    monkeypatch.setattr(
        device.Device, "_read_into", failing(device.Device._read_into, lambda fd, buffer, at: (at, len(buffer)))
    )


@pytest.mark.slow
def test_to_img_around_bad_sectors_and_with_its_doubts(tmp_path, out, monkeypatch):
    """An interrupted recording over an older one: the copy doubts what the card doubts."""
    new, old = v4_card(SIZE, buffers=200, counted=False), v4_card(SIZE, buffers=400, counted=False)
    stop = (1024 + 40 * 181) * SECTOR
    card = write(tmp_path / "c.img", new[:stop] + old[stop:], SIZE)
    SDCard(card).to_img(out, progress=False)
    with xr.open_dataset(card, engine="miniscope") as a, xr.open_dataset(out, engine="miniscope") as b:
        assert b.attrs["status"] == a.attrs["status"]
        assert b.attrs.get("warnings") == a.attrs.get("warnings")
    spoil(monkeypatch, 2000)
    with pytest.warns(UserWarning, match="1 unreadable sectors"):
        SDCard(card).to_img(out, force=True, progress=False)
    assert CopyMap.parse((tmp_path / "out.img.map").read_text()).bad == [(2000 * SECTOR, SECTOR)]


def test_a_map_that_ddrescue_went_on_with():
    text = "# Mapfile. Created by GNU ddrescue version 1.27\n0x00000000 ? 1\n" + "\n".join(
        ["0x0 0x200 +", "0x200 0x400 /", "0x600 0x200 *", "0x800 0x800 +", ""]
    )
    found = CopyMap.parse(text)
    assert (found.end, found.done, found.bad) == (4096, 4096, [(512, 1024), (1536, 512)])
    assert found.unread == found.bad


def test_a_map_that_is_none(card, out):
    (out.parent / "out.img.part").write_bytes(b"")
    (out.parent / "out.img.map").write_text("hello")
    with pytest.raises(OutputError, match="not a map of a copy of ours"):
        image.copy_image(str(card), out)


def test_a_map_round_trip():
    for copy in (
        CopyMap(10240, "ab12"), CopyMap(10240, "ab12", 10240),
        CopyMap(10240, "ab12", 5120, [(512, 1024)]),
        CopyMap(10240, "ab12", 5120, [(0, 512), (4608, 512)]), CopyMap(1024, "ab12", 1024, [(512, 512)]),
    ):  # fmt: skip
        assert CopyMap.parse(copy.text(), None) == copy


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
    monkeypatch.setattr(image, "open_device", Bad)
    result = tool.raw("image", card, out, "--force", "--frames", "60", "--layout", "v4-wirefree")
    assert result.code == 7
    assert ("another card reader" if sys.platform == "win32" else "ddrescue -d") in result.err


@pytest.mark.parametrize("verb", ["image", "rescue"])
@pytest.mark.parametrize("force", [[], ["--force"]])
def test_two_commands_never_mix_in_one_copy(card, out, capsys, tmp_path, verb, force):
    """The second, of whichever card, waits for the first; what a kill left is in nobody's way."""
    tool = Tool(capsys, tmp_path / "b")
    with alone(out):
        second = tool.raw(verb, card, out, *force)
        assert second.code == 4
        assert f"another command is at work on {out}: wait until it has ended" in second.err
        assert [path.name for path in tmp_path.glob("*out*")] == [".out.img.lock"]
    (tmp_path / ".out.img.lock").touch()  # as a kill leaves it
    assert tool.raw(verb, card, out, *force).code == 0
    assert not (tmp_path / ".out.img.lock").exists()
    assert same(card, out)
