"""Rescue: what is left of recordings on cards that were formatted, cut, or used again."""

from __future__ import annotations

import contextlib
import shutil
from itertools import pairwise

import numpy as np
import pytest
import xarray as xr

from miniscope_xr import check
from miniscope_xr.errors import NotACardError, OutputError, OutputExistsError
from miniscope_xr.index.find import Finder
from miniscope_xr.layout import builtin_layouts
from miniscope_xr.source import local
from miniscope_xr.source.copy_map import CopyMap
from miniscope_xr.tools.cli import copying, main
from miniscope_xr.tools.copy import rescue as rescuing
from miniscope_xr.tools.copy.part import STEP
from miniscope_xr.tools.copy.rescue import rescue
from miniscope_xr.tools.simulate import PowerLoss, RecordAgain, simulate

from ..conftest import real_names
from ..flash.cli import Tool
from ..small_disk import grow, small_disk

SECTOR = 512


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out.img"


def formatted(path, data, first, last, seed=1):
    """A card over some sectors of which a file system was made: a boot sector, zeros, some tables."""
    card = np.frombuffer(data, np.uint8).copy()
    part = card[first * SECTOR : last * SECTOR]
    part[:] = 0
    rng = np.random.default_rng(seed)
    part[: len(part) // 50] = rng.integers(0, 256, len(part) // 50, np.uint8)
    path.write_bytes(card.tobytes())
    return path


def fat16(data, start):
    """A card formatted with FAT16 from a sector on: boot sector, two tables of 900 sectors, a root directory."""
    card = np.frombuffer(data, np.uint8).copy()
    boot = np.zeros(SECTOR, np.uint8)
    numbers = {11: (SECTOR, 2), 13: (4, 1), 14: (1, 2), 16: (2, 1), 17: (512, 2), 21: (0xF8, 1), 22: (900, 2)}
    for at, (value, size) in {0: (0x903CEB, 3), **numbers, 32: (len(data) // SECTOR, 4), 510: (0xAA55, 2)}.items():
        boot[at : at + size] = np.frombuffer(value.to_bytes(size, "little"), np.uint8)
    if start:  # a partition table with one entry
        card[:SECTOR] = 0
        card[446 + 4] = 6
        card[446 + 8 : 446 + 12] = np.frombuffer(start.to_bytes(4, "little"), np.uint8)
        card[510:512] = boot[510:512]
    system = card[start * SECTOR : (start + 1 + 2 * 900 + 32) * SECTOR]
    system[:] = 0
    system[:SECTOR] = boot
    for table in (1, 901):
        system[table * SECTOR : table * SECTOR + 4] = [0xF8, 0xFF, 0xFF, 0xFF]
    return card.tobytes()


def whole_frames(path):
    """Number -> pixels of the complete frames of an image."""
    with xr.open_dataset(path, engine="miniscope") as ds:
        whole = np.flatnonzero(ds["complete"].values)
        return dict(zip(ds["frame_num"].values[whole].tolist(), ds["video"].values[whole], strict=True))


HOLES = {"behind the start": (2048, 8960), "the whole front": (0, 6912), "macOS": (40, 6375), "late": (8192, 20000)}


@pytest.mark.slow
@pytest.mark.parametrize("hole", HOLES)
@pytest.mark.parametrize("died", [False, True])
def test_a_formatted_card(make_card, tmp_path, out, hole, died):
    """Every frame that is whole on the card comes back exact; none is wrong."""
    first, last = HOLES[hole]
    _, made = make_card(frames=160, events=[PowerLoss(buffer=780)] if died else [])
    card = formatted(tmp_path / "formatted.img", made.data, first, last)
    got = rescue(str(card), out)
    found = whole_frames(out)
    numbers, video, present = made.expected()
    starts = 1024 + 181 * np.arange(len(numbers))
    left = [n for n, s in zip(numbers.tolist(), starts, strict=True) if s + 181 <= first or s >= last]
    complete = set(np.array(numbers)[present == 31].tolist())
    assert set(left) & complete <= set(found)
    for number, pixels in found.items():
        np.testing.assert_array_equal(pixels, video[numbers.tolist().index(number)])
    assert got.found >= 5 * len(set(left) & complete)
    assert got.images[0].frames >= len(set(left) & complete)


@pytest.mark.parametrize("at", [0, 700_001])
def test_an_image_off_the_sectors(make_card, tmp_path, out, at):
    """Bytes are missing at its front, or within a buffer: what is behind stands on no sector."""
    _, made = make_card(frames=12)
    shifted = tmp_path / "shifted.img"
    shifted.write_bytes(made.data[:at] + made.data[at + 100 :])
    rescue(str(shifted), out)
    numbers, video, _ = made.expected()
    found = whole_frames(out)
    hit = {b.frame_num for b in made.buffers if b.sector * SECTOR < at < (b.sector + b.n_sectors) * SECTOR}
    assert set(found) == set(numbers.tolist()) - hit
    assert all((video[number] == pixels).all() for number, pixels in found.items())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["v4-wirefree", "daq-wirefree", "v3-wirefree"])
def test_an_intact_card_comes_back_as_it_is(make_card, out, kind):
    card, _ = make_card(kind, frames=40)
    got = rescue(str(card), out)
    with xr.open_datatree(card, engine="miniscope") as a, xr.open_datatree(out, engine="miniscope") as b:
        assert a.identical(b)
    assert got.left == 0
    assert not out.with_name("out.img.part").exists()


def test_nothing_but_buffers_is_kept(make_card, tmp_path, out):
    """The image is sparse: what is no buffer is left out."""
    path, made = make_card(frames=10)
    card = tmp_path / "large.img"
    noise = np.random.default_rng(1).integers(0, 256, 32 << 20, np.uint8).tobytes()
    card.write_bytes(made.data + noise)
    rescue(str(card), out)
    assert out.stat().st_size < len(made.data) + (1 << 20)
    assert path.exists()


@pytest.mark.parametrize("layout", ["v4-wirefree", "v4-wirefree-2026", "daq-wirefree"])
@pytest.mark.parametrize("content", [b"\xff", b"\0", b"noise"])
def test_a_buffer_in_which_a_hole_begins_is_what_the_reader_takes_it_for(make_card, tmp_path, out, layout, content):
    """By the sector behind it, which is kept: the image says of each frame what the card says."""
    _, made = make_card(layout, frames=16, seed=3)
    data = bytearray(made.data)
    cut = next(b for b in made.buffers if b.frame_num == 7 and b.index == 2)
    hole = range((cut.sector + 9) * SECTOR, (cut.sector + 9 + 2 * cut.n_sectors) * SECTOR)
    random = np.random.default_rng(1).integers(0, 256, len(hole), np.uint8).tobytes()
    data[hole.start : hole.stop] = random if content == b"noise" else content * len(hole)
    card = tmp_path / "hole.img"
    card.write_bytes(data)
    rescue(str(card), out)
    with xr.open_dataset(card, engine="miniscope") as a, xr.open_dataset(out, engine="miniscope") as b:
        for name in ("frame_num", "buffers_present", "complete"):
            np.testing.assert_array_equal(a[name], b[name])
        assert content == b"noise" or not int(a.buffers_present[7]) & 0b100, "it was cut"


@pytest.mark.slow
def test_older_recordings_too(make_card, tmp_path, out):
    """A short recording over a long one: the older one's rest is an image of its own."""
    _, long = make_card(frames=60, seed=1)
    _, short = make_card(frames=20, seed=2)
    card = bytearray(long.data)
    end = short.end_sector() * SECTOR
    card[:end] = short.data[:end]
    path = tmp_path / "used.img"
    path.write_bytes(bytes(card))
    got = rescue(str(path), out)
    assert [image.frames for image in got.images] == [20]
    assert got.left >= 190
    got = rescue(str(path), out, everything=True, force=True)
    assert [image.path.name for image in got.images] == ["out.img", "out-older1.img"]
    old = whole_frames(tmp_path / "out-older1.img")
    numbers, video, _ = long.expected()
    assert len(old) >= 39
    for number, pixels in old.items():
        np.testing.assert_array_equal(pixels, video[numbers.tolist().index(number)])
    assert got.left == 0


def test_two_recordings_of_one_power_cycle_are_one_image(make_card, out):
    card, _ = make_card(frames=12, events=[RecordAgain(frames=9)])
    got = rescue(str(card), out, everything=True)
    assert [[r.frames for r in image.result.recordings] for image in got.images] == [[12, 9]]


@pytest.mark.parametrize("content", [bytes(4 << 20), b"no card" * 700_000])
def test_nothing_to_rescue(tmp_path, out, content):
    card = tmp_path / "c.img"
    card.write_bytes(content)
    with pytest.raises(NotACardError, match="none begins a recording"):
        rescue(str(card), out)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.img"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["v4-wirefree", "v3-wirefree"])
@pytest.mark.parametrize("at", [1, 5])
def test_goes_on_where_it_stopped(make_card, tmp_path, out, kind, at):
    card, _ = make_card(kind, frames=400 if kind == "v4-wirefree" else 300)
    reads = []

    class Watched(local.Device):
        def readv(self, offset, buffers):
            reads.append(offset)
            return super().readv(offset, buffers)

    def stop(name, done, total):
        if done >= at * STEP:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rescue(str(card), out, progress=stop)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rescuing, "open_device", Watched)
        rescue(str(card), out)
    assert reads[0] == (at - 1) * STEP
    assert all(b - a == STEP for a, b in pairwise(reads))
    with xr.open_datatree(card, engine="miniscope") as a, xr.open_datatree(out, engine="miniscope") as b:
        assert a.identical(b)


@pytest.mark.slow
def test_goes_on_after_a_full_disk(make_card, tmp_path):
    card, _ = make_card(frames=200)
    with small_disk(tmp_path / "small", 6 << 20) as disk:
        with pytest.MonkeyPatch.context() as patch:  # somebody else fills it meanwhile
            patch.setattr(rescuing, "room_for", lambda *_: contextlib.nullcontext())
            with pytest.raises(OutputError, match="make room and run it again"):
                rescue(str(card), disk / "out.img")
        assert list(disk.iterdir()) == []  # less than a GB was read: nothing of it is certainly on the disk
        grow(disk, 64 << 20)
        rescue(str(card), disk / "out.img")
        with xr.open_dataset(card, engine="miniscope") as a, xr.open_dataset(disk / "out.img", engine="miniscope") as b:
            xr.testing.assert_identical(a.load(), b.load())


@pytest.fixture
def free(monkeypatch):
    """Have this many bytes free on the disk."""
    usage = shutil.disk_usage("/")

    def left(number):
        monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=number))

    return left


def test_a_disk_without_room_is_told_before_anything_is_written(make_card, tmp_path, out, free):
    """Room for the whole card is enough; with less, what counts is how far recordings reach."""
    _, made = make_card(frames=30)
    card = tmp_path / "large.img"
    card.write_bytes(made.data + bytes(16 << 20))
    with card.open("r+b") as file:  # no hole: of these it is known that they need no room
        file.seek(len(made.data))
        file.write(b"\xa5" * (16 << 20))
    free(1 << 20)
    with pytest.raises(OutputError, match=r"takes up to 0\.00 GB more, and 0\.00 GB are free"):
        rescue(str(card), out)
    assert sorted(tmp_path.glob("out*")) == []
    free(len(made.data) + (4 << 20))
    assert rescue(str(card), out).images[0].frames == 30


@pytest.mark.slow
def test_no_room_for_the_older_ones(make_card, tmp_path, out, free):
    """The newest is there already, and stays; of the others nothing half written."""
    _, long = make_card(frames=60, seed=1)
    _, short = make_card(frames=20, seed=2)
    card = bytearray(long.data)
    card[: short.end_sector() * SECTOR] = short.data[: short.end_sector() * SECTOR]
    path = tmp_path / "used.img"
    path.write_bytes(bytes(card))
    refuse = rescuing.older

    def older(*args):
        free(1000)
        return refuse(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rescuing, "older", older)
        with pytest.raises(
            OutputError, match=r"takes .* are free on this disk; nothing was written: .*out-older1\.img"
        ):
            rescue(str(path), out, everything=True)
    assert len(whole_frames(out)) == 20
    assert sorted(file.name for file in tmp_path.glob("out-*")) == []


def test_bad_sectors_are_listed(make_card, tmp_path, out, capsys, monkeypatch):
    card, _ = make_card(frames=30)
    bad = 1022, 3000

    class Bad(local.Device):
        def readv(self, offset, buffers):
            n = sum(map(len, buffers))
            if any(offset < (s + 1) * SECTOR and s * SECTOR < offset + n for s in bad):
                raise self._error(OSError(5, "Input/output error"), offset, n)
            return super().readv(offset, buffers)

        def salvage(self, offset, length):
            data = bytearray(self.read(offset, length))
            spans = [(s * SECTOR, SECTOR) for s in bad if offset <= s * SECTOR < offset + length]
            for at, n in spans:
                data[at - offset : at - offset + n] = bytes(n)
            return bytes(data), spans

    monkeypatch.setattr(rescuing, "open_device", Bad)
    result = Tool(capsys, tmp_path).raw("rescue", card, out, "--json")
    assert result.code == 7
    assert result.json["bad_sectors"] == 2
    assert CopyMap.parse((tmp_path / "out.img.map").read_text()).bad == [(s * SECTOR, SECTOR) for s in bad]
    assert result.json["images"][0]["recordings"][0]["frames"] >= 29


FORMATS = {"v4-wirefree": {"frames": 60}, "v3-wirefree": {"frames": 60}, "daq-wirefree": {"frames": 20}}


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("start", [0, 2048])
def test_what_a_file_system_wrote_is_no_frame(layout, start, tmp_path, out, capsys):
    """Pixels within a file system's tables, behind a whole header or before a whole footer, are nobody's frame."""
    card = simulate(layout, seed=4, **FORMATS[layout])
    path = tmp_path / "card.img"
    path.write_bytes(fat16(card.data, start))
    result = Tool(capsys, tmp_path).raw("rescue", path, out)
    # a header in front was overwritten itself, where the tables reach it; a v3 frame's footer is behind them
    assert ("partly overwritten since, and left out" in result.out) is (start > 0)
    assert ("in no recording in it: 1" in result.out) is (start == 0 and layout == "v3-wirefree")
    truth = dict(zip(*card.expected()[:2], strict=True))
    for image in (path, out):
        back = whole_frames(image)
        assert len(back) > len(truth) // 2
        for number, picture in back.items():
            np.testing.assert_array_equal(picture, truth[number])


def test_the_tail_behind_a_hole_that_the_reader_leaps_over(tmp_path, out, capsys):
    """The reader looks at places all over a card; `rescue` at every sector, and its image opens by what it found."""
    card = simulate(frames=110, seed=4)
    hole, end = 17_640 * SECTOR, 18_680 * SECTOR  # between two of the places looked at
    path = tmp_path / "card.img"
    path.write_bytes(card.data[: 1024 * SECTOR] + bytes(hole - 1024 * SECTOR) + card.data[hole:end])
    with path.open("r+b") as file:
        file.truncate(1 << 30)
    assert main(["info", str(path)]) == 0
    said = capsys.readouterr().out
    assert "counts 550 buffers, but none was found" in said
    assert "miniscope-xr rescue" in said
    assert "It is ready" not in said
    Tool(capsys, tmp_path).raw("rescue", path, out)
    back = whole_frames(out)
    assert len(back) >= 4
    truth = dict(zip(*card.expected()[:2], strict=True))
    for number, picture in back.items():
        np.testing.assert_array_equal(picture, truth[number])


@pytest.mark.parametrize("start", [0, 2048])
def test_a_file_system_that_was_there_before_the_recording_took_nothing(start, tmp_path, out, capsys):
    card = simulate(frames=60, seed=4)
    before = fat16(bytes(len(card.data)), start)
    path = tmp_path / "card.img"
    path.write_bytes(before[: 1022 * SECTOR] + card.data[1022 * SECTOR :])
    assert check(path, deep=True).ok
    result = Tool(capsys, tmp_path).raw("rescue", path, out)
    assert "300 buffers found, all of them are in it" in result.out
    assert len(whole_frames(out)) == 60


def test_the_command(make_card, capsys, tmp_path, out):
    card, _ = make_card(frames=12)
    tool = Tool(capsys, tmp_path)
    result = tool.raw("rescue", card, out)
    assert result.code == 0
    assert "recording 0 (finished): 12 frames" in result.out
    assert "60 buffers found, all of them are in it" in result.out
    assert tool.raw("rescue", card, out).code == 2
    again = tool.raw("rescue", card, out, "--force", "--layout", "v4-wirefree", "--all", "--json")
    assert again.json["buffers_found"] == 60
    with pytest.raises(OutputExistsError):
        rescue(str(card), out)


@pytest.mark.parametrize(("command", "where"), [("rescue", "rescue"), ("image", "copy_image")])
def test_one_that_was_interrupted_says_that_it_goes_on(command, where, make_card, out, tmp_path, capsys, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    path, _ = make_card(frames=12)
    monkeypatch.setattr(copying if command == "image" else rescuing, where, stop)
    result = Tool(capsys, tmp_path).raw(command, path, out)
    assert result.code == 5
    assert "interrupted; run the same command again" in result.err


@pytest.mark.slow
@pytest.mark.parametrize("name", real_names())
def test_every_real_card(real_image, out, name):
    """What the reader finds on a card is what it finds in the image made of it."""
    card = real_image(name)
    try:
        with xr.open_datatree(card, engine="miniscope") as tree:
            groups = [g for g in tree.groups if g.count("/") == 1 and "recording" in g]
            before = {g: tree[g]["video"].values for g in groups}
    except NotACardError as error:
        pytest.skip(f"the reader does not open the card itself: {error}")
    rescue(str(card), out)
    with xr.open_datatree(out, engine="miniscope") as tree:
        for group, video in before.items():
            np.testing.assert_array_equal(tree[group]["video"].values, video)


def test_the_search_finds_every_buffer(make_card):
    find = Finder(list(builtin_layouts().values()))
    for kind in ("v4-wirefree", "daq-wirefree", "v3-wirefree"):
        _, made = make_card(kind, frames=5)
        data = made.data[: len(made.data) // SECTOR * SECTOR]
        found = find(np.frombuffer(data, "<u4").reshape(-1, 128), at=100)
        assert set(found.told - 100) >= {b.sector + (199 if kind[1] == "3" else 0) for b in made.buffers}
        noise = np.random.default_rng(1).integers(0, 2**32, (20_000, 128), np.uint32)
        assert not len(find(noise).first)
