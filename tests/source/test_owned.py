"""A card owns its descriptor: however many cards and threads, nobody reads from a closed one or from another card."""

from __future__ import annotations

import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from miniscope_xr.errors import CardChangedError, CardReadError
from miniscope_xr.source import owned
from miniscope_xr.source.local import Device
from miniscope_xr.source.owned import OwnedSource
from miniscope_xr.tools.simulate import SimulatedCard, simulate

SMALL = {"width": 64, "height": 64}


class Counting(Device):
    """A device that knows how many of its kind are open."""

    now, most = 0, 0

    def __init__(self, path: Any) -> None:
        super().__init__(path)
        Counting.now += 1
        Counting.most = max(Counting.most, Counting.now)

    def close(self) -> None:
        if not self.closed:
            Counting.now -= 1
        super().close()


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for one open card, in our own table and in xarray's."""
    monkeypatch.setattr(owned, "MOST_OPEN", 1)


@pytest.mark.slow
@pytest.mark.usefixtures("few")
def test_threads_and_cards_with_room_for_one(make_card: Any, open_card: Any) -> None:
    made = [make_card(frames=12, seed=seed, **SMALL) for seed in range(3)]
    videos = [card.expected()[1] for _, card in made]
    with xr.set_options(file_cache_maxsize=1):
        opened = [open_card(path) for path, _ in made]
        gate = threading.Barrier(4)

        def wrong(worker: int) -> int:
            gate.wait()
            picks = [((worker + k) % 3, (worker * k) % 12) for k in range(150)]
            return sum(not np.array_equal(opened[card].video[frame], videos[card][frame]) for card, frame in picks)

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(wrong, range(4))) == [0, 0, 0, 0]


def test_cards_make_room_for_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(owned, "MOST_OPEN", 3)
    owned.make_room(0)
    path = tmp_path / "a.img"
    path.write_bytes(bytes(1024))
    Counting.now = Counting.most = 0
    sources = [OwnedSource(str(path), Counting) for _ in range(10)]
    for source in sources:
        assert source.read(0, 4) == bytes(4)
    assert (Counting.now, Counting.most) == (3, 4)
    for source in sources:
        source.close()
    assert Counting.now == 0


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX limits")
def test_the_systems_limit_is_lived_with(make_card: Any) -> None:
    import resource

    path, card = make_card(frames=6, **SMALL)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = sum(1 for _ in Path("/proc/self/fd").iterdir()) if Path("/proc/self/fd").exists() else 20
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 20, before[1]))
    try:
        opened = [xr.open_dataset(path, engine="miniscope") for _ in range(60)]
        for ds in opened:
            np.testing.assert_array_equal(ds.video[3], card.expected()[1][3])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for ds in opened:
            ds.close()


def test_closing_waits_for_the_read_under_way(tmp_path: Path) -> None:
    path = tmp_path / "a.img"
    path.write_bytes(b"card" * 256)
    reading, go_on = threading.Event(), threading.Event()

    class Slow(Device):
        def read(self, offset: int, length: int) -> bytes:
            reading.set()
            assert go_on.wait(30)
            return super().read(offset, length)

    source = OwnedSource(str(path), Slow)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(source.read, 0, 4)
        assert reading.wait(30)
        source.close()
        go_on.set()
        assert read.result() == b"card"
    assert "closed" in repr(source)


@pytest.mark.usefixtures("few")
def test_a_card_that_made_room_is_checked_when_it_is_read_again(make_card: Any, open_card: Any) -> None:
    path, _ = make_card(frames=8, seed=1, start_offset_ms=4, **SMALL)
    other, _ = make_card(frames=8, seed=3, **SMALL)
    first, second = open_card(path), open_card(other)
    source = first.video.variable._data.array.array.array.opened.card.source()
    second.video[2].load()
    path.write_bytes(simulate(frames=8, seed=2, start_offset_ms=31, **SMALL).data)
    with pytest.raises(CardChangedError):
        source.read(1 << 20, 512)


def test_an_image_cut_while_it_is_open_is_an_error(make_card: Any, open_card: Any) -> None:
    path, card = make_card(frames=12, **SMALL)
    ds, filled = open_card(path), open_card(path, errors="fill")
    end = card.buffers[-1].sector * 512
    os.truncate(path, end - 20_000)
    said = f"ends at byte {end - 20_000} but had {len(card.data)} bytes when it was opened"
    with pytest.raises(CardReadError, match=said):
        ds.video.load()
    assert not filled.complete.values.all()
    ds.close()
    with pytest.raises(CardChangedError, match="bytes when it was opened"):
        ds.video[11].load()


def test_an_image_overwritten_while_it_is_open_gives_no_black_frames(make_card: Any, open_card: Any) -> None:
    path, card = make_card(frames=12, **SMALL)
    os.utime(path, ns=(0, 0))
    ds = open_card(path)
    np.testing.assert_array_equal(ds.video[3], card.expected()[1][3])
    with path.open("r+b") as file:
        file.seek(card.buffers[5].sector * 512)
        file.write(bytes(8192))
    with pytest.raises(CardChangedError, match="written to since it was opened"):
        ds.video.load()


def test_an_image_that_only_grows_is_read_on(make_card: Any, open_card: Any) -> None:
    path, card = make_card(frames=12, **SMALL)
    ds = open_card(path)
    with path.open("ab") as file:
        file.write(bytes(1 << 20))
    np.testing.assert_array_equal(ds.video, card.expected()[1])


def test_copies_and_pickles_read_for_themselves(clean_card: tuple[Path, SimulatedCard], open_card: Any) -> None:
    path, card = clean_card
    ds = open_card(path)
    copied, pickled = ds.copy(deep=True), pickle.loads(pickle.dumps(ds))
    np.testing.assert_array_equal(copied.video[7], card.expected()[1][7])
    ds.close()
    np.testing.assert_array_equal(pickled.video[7], card.expected()[1][7])
    pickled.close()


def test_a_closed_device_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.img"
    path.write_bytes(bytes(1024))
    device = Device(path)
    device.close()
    device.close()
    for read in (lambda: device.read(0, 4), lambda: device.readv(0, [bytearray(4)])):
        with pytest.raises(CardReadError, match="was closed"):
            read()
