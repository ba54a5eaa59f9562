"""Bad sectors, a reader pulled out, images cut anywhere, and a card swapped under an open dataset."""

from __future__ import annotations

import errno
import importlib.util
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr

from miniscope_xr import CardChangedError, MiniscopeError, SDCard, check
from miniscope_xr.errors import CardReadError
from miniscope_xr.tools.simulate import SimulatedCard, Truncate, simulate
from tests.cards.test_reading import BUILDS, differences
from tests.conftest import SMALL

SECTOR = 512
FRAMES = 12


class BadSectors:
    """Reads of image files that fail where sectors are bad; ``page`` sectors at a time, as buffered reads do."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bad: set[int] = set()
        self.left = float("inf")  # bytes until the reader is pulled out
        real = {name: getattr(os, name) for name in ("pread", "preadv") if hasattr(os, name)}

        def pread(fd: int, n: int, offset: int) -> bytes:
            self.judge(n, offset)
            return real["pread"](fd, n, offset)

        def preadv(fd: int, buffers: list[Any], offset: int, *flags: int) -> int:
            self.judge(sum(len(b) for b in buffers), offset)
            return real["preadv"](fd, buffers, offset, *flags)

        for name, function in (("pread", pread), ("preadv", preadv)):
            if name in real:
                monkeypatch.setattr(os, name, function)

    def judge(self, n: int, offset: int) -> None:
        self.left -= n
        sectors = range(offset // SECTOR, -(-(offset + n) // SECTOR))
        if self.left < 0 or any(sector in sectors for sector in self.bad):
            raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> BadSectors:
    if not hasattr(os, "pread"):
        pytest.skip("bad sectors are made by os.pread, which this system lacks")
    return BadSectors(monkeypatch)


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SimulatedCard]:
    made = simulate(frames=FRAMES, seed=8, **SMALL)
    return made.write(tmp_path_factory.mktemp("damage") / "card.img"), made


def lost(ds: xr.Dataset, made: SimulatedCard, bad: set[int]) -> tuple[int, int]:
    """(pixels that differ from the card's, pixels on bad sectors)."""
    _, video, _ = made.expected()
    on_bad = 0
    for b in made.buffers:
        start = b.sector * SECTOR + made.spec.header_bytes
        for sector in bad:
            on_bad += max(0, min(start + b.length, (sector + 1) * SECTOR) - max(start, sector * SECTOR))
    return int((ds.video.values != video).sum()), on_bad


# -- bad sectors ------------------------------------------------------------------------------------------------


def test_a_cursor_loses_the_unreadable_frame_and_no_other(card: Any, disk: BadSectors) -> None:
    path, made = card
    buffer = made.buffers[17]
    _, video, _ = made.expected()
    lost = []
    with SDCard(path) as cursor:
        disk.bad = {buffer.sector + 11}
        for k in range(FRAMES):
            try:
                np.testing.assert_array_equal(cursor.read(), video[k])
            except CardReadError:
                lost.append(k)
                cursor.skip()
    assert lost == [buffer.frame_num]


def test_an_unreadable_sector_is_named_with_its_frame(card: Any, disk: BadSectors, open_card: Any) -> None:
    path, made = card
    buffer = made.buffers[17]
    disk.bad = {buffer.sector + 11}
    ds = open_card(path)
    with pytest.raises(CardReadError, match=rf"frame {buffer.frame_num}: sector {buffer.sector + 11} ") as caught:
        ds.video.load()
    assert caught.value.errno == errno.EIO
    assert caught.value.filename == str(path)
    _, video, _ = made.expected()
    others = [k for k in range(FRAMES) if k != buffer.frame_num]
    np.testing.assert_array_equal(ds.video[others], video[others])
    with SDCard(path) as cursor:
        cursor.frame = buffer.frame_num
        with pytest.raises(CardReadError, match=f"frame {buffer.frame_num}"):
            cursor.read()


@pytest.mark.parametrize("index", ["bisect", "scan"])
def test_filling_loses_the_pixels_of_bad_sectors_and_no_others(
    card: Any, disk: BadSectors, index: str, open_card: Any
) -> None:
    path, made = card
    first, second = made.buffers[6], made.buffers[29]
    disk.bad = {first.sector + 3, first.sector + 4, second.sector + 20}
    ds = open_card(path, errors="fill", index=index)
    differ, on_bad = lost(ds, made, disk.bad)
    assert 0 < differ <= on_bad == 3 * SECTOR
    _, _, present = made.expected()
    for b in (first, second):
        present[b.frame_num] &= ~np.uint32(1 << b.index)
    np.testing.assert_array_equal(ds.buffers_present, present)
    np.testing.assert_array_equal(ds.complete, present == 0b1111)
    assert not np.isnat(ds.time.values).any()


@pytest.mark.parametrize("index", ["bisect", "scan"])
def test_an_unreadable_header_takes_its_buffer_along_and_no_other(
    card: Any, disk: BadSectors, index: str, open_card: Any
) -> None:
    path, made = card
    buffer = made.buffers[18]
    disk.bad = {buffer.sector}
    ds = open_card(path, errors="fill", index=index)
    _, video, present = made.expected()
    start = buffer.index * made.spec.payload
    video.reshape(FRAMES, -1)[buffer.frame_num, start : start + buffer.length] = 0
    present[buffer.frame_num] &= ~np.uint32(1 << buffer.index)
    np.testing.assert_array_equal(ds.video, video)
    np.testing.assert_array_equal(ds.buffers_present, present)


@pytest.mark.parametrize("sector", [1022, 1024])
def test_settings_and_first_header_may_be_unreadable(card: Any, disk: BadSectors, sector: int, open_card: Any) -> None:
    path, made = card
    disk.bad = {sector}
    with pytest.raises(CardReadError, match=f"sector {sector} "):
        open_card(path)
    ds = open_card(path, errors="fill")
    _, video, _ = made.expected()
    np.testing.assert_array_equal(ds.video[1:], video[1:])
    np.testing.assert_array_equal(ds.video[0], video[0] if sector == 1022 else ds.video[0])
    assert ds.buffers_present[0] == (0b1111 if sector == 1022 else 0b1110)


def test_an_unreadable_config_sector_is_not_taken_for_a_zeroed_one(
    disk: BadSectors, tmp_path: Path, open_card: Any
) -> None:
    made = simulate(frames=4)
    path = made.write(tmp_path / "card.img")
    disk.bad = {1023}
    with pytest.raises(CardReadError, match="sector 1023 "):
        open_card(path)
    ds = open_card(path, errors="fill")
    np.testing.assert_array_equal(ds.video, made.expected()[1])
    assert any("config sector 1023" in said for said in ds.attrs["warnings"])
    assert ds.attrs["fs"] == pytest.approx(20, abs=1)  # as the clock says


def test_check_reports_an_unreadable_sector(card: Any, disk: BadSectors) -> None:
    path, made = card
    disk.bad = {made.buffers[17].sector}
    result = check(path, deep=True)
    assert not result.ok


def test_a_card_with_bad_sectors_pickles_and_goes_through_dask(card: Any, disk: BadSectors, open_card: Any) -> None:
    path, made = card
    disk.bad = {made.buffers[17].sector + 11}
    ds = open_card(path, errors="fill", chunks={})
    wanted = open_card(path, errors="fill").load()
    again = pickle.loads(pickle.dumps(ds))
    xr.testing.assert_identical(again.compute(scheduler="threads"), wanted)
    again.close()


# -- a reader that is pulled out ------------------------------------------------------------------------------------


@pytest.mark.parametrize("errors", ["raise", "fill"])
def test_a_reader_pulled_out_is_an_error_never_blank_frames(
    card: Any, disk: BadSectors, errors: str, open_card: Any
) -> None:
    path, made = card
    _, video, _ = made.expected()
    ds = open_card(path, errors=errors)
    np.testing.assert_array_equal(ds.video[0], video[0])
    for name in ("video", "time"):
        disk.left = 300
        with pytest.raises(CardReadError):
            ds.variables[name].load()
    disk.left = float("inf")
    np.testing.assert_array_equal(ds.video, video)


@pytest.mark.parametrize("errors", ["raise", "fill"])
def test_a_reader_pulled_out_while_opening(card: Any, disk: BadSectors, errors: str, open_card: Any) -> None:
    for left in (0, 600, 2000, 5000):
        disk.left = left
        with pytest.raises(CardReadError):
            open_card(card[0], errors=errors)


# -- the same with the kernel's page cache between ------------------------------------------------------------------


class BadDisk:
    """The process of :mod:`tests.bad_disk` and a loop device over it."""

    def __init__(self, folder: Path, image: Path, loop_device: Callable[..., str]) -> None:
        if sys.platform != "linux" or not Path("/dev/fuse").exists() or not importlib.util.find_spec("mfusepy"):
            pytest.skip("needs /dev/fuse and mfusepy")
        self.mount, self.list = folder / "mnt", folder / "bad"
        self.mount.mkdir()
        self.list.write_text("")
        script = Path(__file__).with_name("bad_disk.py")
        self.process = subprocess.Popen([sys.executable, str(script), str(self.mount), str(image), str(self.list)])
        for _ in range(1000):
            if (self.mount / "disk").exists():
                break
            if self.process.poll() is not None:
                pytest.skip("this system does not let us mount FUSE")
            time.sleep(0.02)
        try:
            self.device = loop_device(self.mount / "disk", "-r")
        except BaseException:
            self.close()
            raise

    def pull(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        subprocess.run(["umount", "-l", str(self.mount)], capture_output=True, check=False)
        self.process.kill()
        self.process.wait()


@pytest.fixture
def bad_disk(card: Any, tmp_path: Path, loop_device: Callable[..., str]) -> Iterator[BadDisk]:
    disk = BadDisk(tmp_path, card[0], loop_device)
    yield disk
    disk.close()


def test_a_block_device_loses_no_more_sectors_than_are_bad(card: Any, bad_disk: BadDisk, open_card: Any) -> None:
    _, made = card
    one, two = made.buffers[6], made.buffers[29]
    # next to headers, so that pages and readahead of the kernel fail around what is needed
    bad = {one.sector + 1, one.sector + 5, two.sector - 1, two.sector + 2}
    bad_disk.list.write_text(" ".join(map(str, bad)))
    ds = open_card(bad_disk.device, errors="fill")
    differ, on_bad = lost(ds, made, bad)
    assert 0 < differ <= on_bad
    buffers = {max((b for b in made.buffers if b.sector <= sector), key=lambda b: b.sector) for sector in bad}
    _, _, present = made.expected()
    for b in buffers:
        present[b.frame_num] &= ~np.uint32(1 << b.index)
    np.testing.assert_array_equal(ds.buffers_present, present)
    assert not np.isnat(ds.time.values).any()
    with pytest.raises(CardReadError, match=rf"frame {one.frame_num}: sector {one.sector + 1} "):
        open_card(bad_disk.device).video.load()


def test_an_unused_bad_sector_beside_the_settings_does_no_harm(card: Any, bad_disk: BadDisk, open_card: Any) -> None:
    bad_disk.list.write_text("1016 1021")
    np.testing.assert_array_equal(open_card(bad_disk.device).video, card[1].expected()[1])


@pytest.mark.parametrize("errors", ["raise", "fill"])
def test_a_block_device_that_goes_away_is_an_error(card: Any, bad_disk: BadDisk, errors: str, open_card: Any) -> None:
    ds = open_card(bad_disk.device, errors=errors)
    np.testing.assert_array_equal(ds.video[0], card[1].expected()[1][0])
    subprocess.run(["blockdev", "--flushbufs", bad_disk.device], check=True)  # what was read ahead would still be there
    bad_disk.pull()
    with pytest.raises(CardReadError):
        ds.video.load()


# -- images cut anywhere --------------------------------------------------------------------------------------------

PLACES = {
    "mid-payload": lambda b, head: b.sector * SECTOR + head + 3001,
    "mid-header": lambda b, head: b.sector * SECTOR + head // 2 + 1,
    "behind the header": lambda b, head: b.sector * SECTOR + head,
    "at a buffer": lambda b, head: b.sector * SECTOR,
    "one byte into a buffer": lambda b, head: b.sector * SECTOR + 1,
    "one byte before a buffer": lambda b, head: b.sector * SECTOR - 1,
    "in the slack": lambda b, head: b.sector * SECTOR + head + b.length,
    "at a sector": lambda b, head: (b.sector + 2) * SECTOR,
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("layout", "build"), [BUILDS[0], *(pytest.param(*each, marks=pytest.mark.slow) for each in BUILDS[1:])]
)
def test_an_image_cut_anywhere_gives_what_is_there(layout: str, build: str, place: str, tmp_path: Path) -> None:
    whole = simulate(layout, build, frames=8, seed=4)
    first = 2 if whole.spec.whole_frames else 2 * sum(b.frame_num == 1 for b in whole.buffers)
    for number in (first, first + 1, first + 2):  # at a frame, and inside it
        byte = PLACES[place](whole.buffers[number], whole.spec.header_bytes)
        cut = simulate(layout, build, frames=8, seed=4, events=[Truncate(byte)])
        for index in ("bisect", "scan"):
            assert differences(cut, tmp_path / "cut.img", index=index) == [], (number, byte)
        with xr.open_dataset(tmp_path / "cut.img", engine="miniscope") as ds:
            # a DAQ or v3 card keeps no count: cut at a buffer, it looks like one whose battery died
            counted = layout == "v4-wirefree"
            assert ds.status in (("truncated",) if counted else ("truncated", "interrupted"))


@pytest.mark.parametrize("byte", [0, 1, 512, 1022 * 512, 1022 * 512 + 7, 1023 * 512 + 9, 1024 * 512, 1024 * 512 + 40])
def test_an_image_cut_before_its_first_buffer_is_refused_with_a_reason(
    card: Any, byte: int, tmp_path: Path, open_card: Any
) -> None:
    path = tmp_path / "cut.img"
    path.write_bytes(card[1].data[:byte])
    with pytest.raises(MiniscopeError, match="card"):
        open_card(path)


# -- a card swapped under an open dataset ---------------------------------------------------------------------


@pytest.fixture
def swapped(card: Any, tmp_path: Path) -> tuple[Path, Callable[[], None]]:
    """A card that can be exchanged for another of the same settings and size."""
    path = tmp_path / "slot.img"
    path.write_bytes(card[1].data)
    other = simulate(frames=FRAMES, seed=9, **SMALL)
    assert len(other.data) == len(card[1].data)

    def swap() -> None:
        with path.open("r+b") as file:  # the same inode and descriptor, as a device node has
            file.write(other.data)

    return path, swap


def test_a_swapped_card_is_noticed_by_every_way_of_reading(swapped: Any, open_card: Any) -> None:
    path, swap = swapped
    ds = open_card(path)
    table = open_card(path, group="buffers")
    with SDCard(path) as cursor:
        cursor.read()
        swap()
        for read in (ds.video.load, ds.time.load, ds.video[3].load, table.timestamp.load, cursor.read):
            with pytest.raises(CardChangedError, match="not the card that was opened"):
                read()


def test_a_swapped_card_is_noticed_when_a_closed_dataset_reopens(swapped: Any) -> None:
    path, swap = swapped
    with xr.open_dataset(path, engine="miniscope") as ds:
        pass
    swap()
    with pytest.raises(CardChangedError):
        ds.video.load()
    ds.close()


@pytest.mark.parametrize("scheduler", ["threads", pytest.param("processes", marks=pytest.mark.slow)])
def test_a_swapped_card_is_noticed_through_dask(swapped: Any, scheduler: str, open_card: Any) -> None:
    path, swap = swapped
    ds = open_card(path, chunks={})
    with dask.config.set(scheduler=scheduler, num_workers=2):
        before = int(ds.video.sum())
        assert before > 0
        swap()
        with pytest.raises(CardChangedError):
            ds.video.sum().compute()
    fresh = open_card(path, chunks={})
    assert fresh.video.data.name != ds.video.data.name


def test_a_swapped_card_is_noticed_when_unpickled(swapped: Any, open_card: Any) -> None:
    path, swap = swapped
    packed = pickle.dumps(open_card(path))
    swap()
    again = pickle.loads(packed)
    with pytest.raises(CardChangedError):
        again.video.load()
    again.close()
