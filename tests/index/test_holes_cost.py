"""What looking costs: few reads, however a card was left."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from miniscope_xr import check
from miniscope_xr.card import OpenCard
from miniscope_xr.errors import CardReadError, NotACardError
from miniscope_xr.index.ahead import Ahead
from miniscope_xr.index.build import build_index
from miniscope_xr.index.front import Card
from miniscope_xr.index.headers import HeaderReader
from miniscope_xr.source.base import Through
from miniscope_xr.source.open import open_device
from miniscope_xr.source.owned import OwnedSource
from miniscope_xr.tools.simulate import PowerLoss, Stall, simulate

SECTOR = 512
INTERRUPTED: dict[str, dict[str, Any]] = {
    "v4": {"frames": 330, "events": [PowerLoss(buffer=1600)]},
    "v4 with a drop": {"frames": 330, "events": [Stall(300, 250), PowerLoss(buffer=1600)]},
    "DAQ": {"layout": "daq-wirefree", "frames": 110, "events": [PowerLoss(buffer=600)]},
    "v3": {"layout": "v3-wirefree", "frames": 330, "settings": {"record_length": 600}},
}
FRONT = {"v4": {"frames": 60}, "DAQ": {"layout": "daq-wirefree", "frames": 30}, "v3": {"layout": "v3-wirefree"}}


class Counted(Through):
    """A card, nothing of which is in memory, that counts its reads; every place of a gathered read counts."""

    def __init__(self, source: Any) -> None:
        super().__init__(source)
        self.reads = 0

    def read(self, offset: int, length: int) -> bytes:
        self.reads += 1
        return self.source.read(offset, length)

    def gather(self, offsets: Any, length: int) -> bytes | None:
        self.reads += len(offsets)
        return self.source.gather(offsets, length)

    def at_hand(self, offset: int) -> bool:
        return False  # as of a card in a reader


def opened(path: Path, **options: Any) -> tuple[Card, int]:
    source = Counted(open_device(path))
    try:
        return build_index(source, **options), source.reads
    finally:
        source.close()


def test_an_intact_card_opens_in_a_handful_of_reads(tmp_path: Path) -> None:
    assert opened(simulate(frames=60, seed=1).write(tmp_path / "card.img"))[1] <= 20


@pytest.mark.parametrize("kind", INTERRUPTED)
def test_an_interrupted_recording_costs_a_read_for_some_megabytes(kind: str, tmp_path: Path) -> None:
    """Every header and every leftover is looked at, as with index="scan"."""
    path = simulate(seed=3, **INTERRUPTED[kind]).write(tmp_path / "card.img")
    found, reads = opened(path)
    assert found.recordings[0].status in ("interrupted", "truncated")
    assert reads <= 100
    assert opened(path, index="scan")[0].recordings == found.recordings


@pytest.mark.slow
def test_an_interrupted_recording_of_1000_frames_opens_in_at_most_200_reads(tmp_path: Path) -> None:
    path = simulate(frames=1010, seed=3, events=[PowerLoss(buffer=5000)]).write(tmp_path / "card.img")
    found, reads = opened(path)
    assert found.recordings[0].n_buffers == 5000
    assert not found.recordings[0].warnings
    assert reads <= 200


@pytest.mark.slow
def test_an_older_recording_underneath_is_found_with_as_few(tmp_path: Path) -> None:
    old = simulate(frames=340, seed=9)
    path = simulate(frames=330, seed=3, events=[PowerLoss(buffer=1600)], under=old).write(tmp_path / "card.img")
    found, reads = opened(path)
    assert found.recordings[0].n_buffers in range(1595, 1601)
    assert any("older recording" in said for said in found.recordings[0].warnings)
    assert reads <= 100


@pytest.mark.parametrize("kind", FRONT)
def test_without_its_front_a_recording_costs_at_most_60_reads_more(kind: str, tmp_path: Path) -> None:
    card = simulate(seed=2, **FRONT[kind])
    whole = opened(card.write(tmp_path / "whole.img"))[1]
    data = np.frombuffer(card.data, np.uint8).copy()
    data[: 4000 * SECTOR] = 0
    data.tofile(tmp_path / "card.img")
    found, reads = opened(tmp_path / "card.img")
    assert reads <= whole + 60
    recording = found.recordings[0]
    assert recording.runs[0].sector >= 4000 - 705
    assert recording.end_sector == card.end_sector()
    assert not found.settings  # absent, not zero
    assert any("settings are gone" in said for said in recording.warnings)


@pytest.mark.parametrize("kind", FRONT)
def test_settings_that_are_gone_are_absent_from_the_dataset(kind: str, tmp_path: Path, open_card: Any) -> None:
    card = simulate(seed=2, **FRONT[kind])
    whole = open_card(card.write(tmp_path / "whole.img"))
    data = np.frombuffer(card.data, np.uint8).copy()
    data[: 1500 * SECTOR] = 0
    data.tofile(tmp_path / "card.img")
    gone = open_card(tmp_path / "card.img")
    settings = set(card.layout.header) & set(whole.attrs) - {"fs"}  # fs is measured on the frames where it is not known
    assert settings
    assert not settings & set(gone.attrs)
    assert gone.sizes["y"], gone.sizes["x"] == (whole.sizes["y"], whole.sizes["x"])


class Noise:
    """A 64 GB card full of noise, made as it is read."""

    path, changed, size = "noise", False, 64 << 30
    unread: tuple[()] = ()

    def __init__(self) -> None:
        self.block = np.random.default_rng(1).integers(0, 256, 24 << 20, np.uint8).tobytes()
        self.bytes = 0

    def read(self, offset: int, length: int) -> bytes:
        self.bytes += length
        assert length <= 16 << 20
        start = offset * 7919 % (4 << 20) // SECTOR * SECTOR
        return self.block[start : start + max(min(length, self.size - offset), 0)]

    def gather(self, offsets: Any, length: int) -> None:
        return None


@pytest.mark.parametrize("index", ["bisect", "scan"])
def test_64_gb_of_noise_are_answered_from_few_megabytes(index: str) -> None:
    noise = Noise()
    with pytest.raises(NotACardError, match="neither settings nor a recording"):
        build_index(noise, index=index)  # type: ignore[arg-type]
    assert noise.bytes < 200 << 20


@pytest.mark.parametrize("ask", [lambda path: build_index(open_device(path)), lambda path: check(path, deep=True)])
def test_64_gb_of_zeros_are_answered_at_once(ask: Callable[[Path], Any], tmp_path: Path) -> None:
    path = tmp_path / "card.img"
    with path.open("wb") as file:
        file.truncate(64 << 30)
    before = time.process_time()
    with pytest.raises(NotACardError, match="are all zeros"):
        ask(path)
    assert time.process_time() - before < 20  # of this process alone; it takes a tenth of a second


class Bad(Through):
    """A card of which one sector is bad."""

    def read(self, offset: int, length: int) -> bytes:
        if offset <= 9 * SECTOR < offset + length:
            raise CardReadError(5, "sector 9 cannot be read", self.path)
        return self.source.read(offset, length)


def test_reading_ahead_keeps_only_what_will_be_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "card.img"
    data = np.random.default_rng(5).integers(0, 256, 64 * SECTOR, np.uint8)
    data.tofile(path)
    places = [(k * SECTOR, 48) for k in range(0, 64, 4)]
    counted = Counted(open_device(path))
    ahead = Ahead(counted)
    ahead.fetch([*places, (63 * SECTOR, 4096)])  # the last one ends behind the card
    ahead.fetch([])
    assert counted.reads == 1
    for at, n in places:
        assert ahead.read(at, n) == data[at : at + n].tobytes()
    assert ahead.gather([at for at, _ in places], 16) == b"".join(data[at : at + 16].tobytes() for at, _ in places)
    assert counted.reads == 1
    assert ahead.read(SECTOR, 48) == data[SECTOR : SECTOR + 48].tobytes()
    assert ahead.read(63 * SECTOR, 4096) == data[63 * SECTOR :].tobytes()
    assert counted.reads == 3
    source = Ahead(Bad(open_device(path)))
    source.fetch([(8 * SECTOR, 48), (9 * SECTOR, 48)])
    assert source.read(8 * SECTOR, 48) == data[8 * SECTOR : 8 * SECTOR + 48].tobytes()
    with pytest.raises(CardReadError):
        source.read(9 * SECTOR, 48)


class InMemory(Counted):
    """An image that is in memory: a small read is as quick as any."""

    def at_hand(self, offset: int) -> bool:
        return True


def test_of_what_is_in_memory_nothing_is_read_ahead(tmp_path: Path) -> None:
    path = tmp_path / "card.img"
    path.write_bytes(bytes(range(256)) * 128)
    counted = InMemory(open_device(path))
    ahead = Ahead(counted)
    ahead.fetch([(k * SECTOR, 48) for k in range(0, 64, 4)])
    assert counted.reads == 0
    assert ahead.read(4 * SECTOR, 48) == bytes(range(48))
    assert counted.reads == 1


def test_opening_holds_the_descriptor_and_asks_for_it_few_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = simulate(frames=60, seed=1).write(tmp_path / "card.img")
    asked: list[str] = []
    acquire = OwnedSource._acquire
    monkeypatch.setattr(OwnedSource, "_acquire", lambda self: asked.append(self.path) or acquire(self))
    OpenCard(path).close()
    assert len(asked) <= 4


@pytest.mark.parametrize("behind", [(90, 60), (60, 90), (60,)])
def test_copies_of_a_few_headers_are_not_followed_from_each_to_the_end(
    behind: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = simulate(frames=60)
    image = bytearray(card.data)
    copied = [image[(at := card.buffers[k].sector * SECTOR) : at + SECTOR] for k in behind]
    start = card.buffers[100].sector
    for sector in range(start, len(image) // SECTOR):  # a worn card: it says the same of sector after sector
        image[sector * SECTOR : (sector + 1) * SECTOR] = copied[sector % len(copied)]
    path = tmp_path / "copies.img"
    path.write_bytes(image)
    looked: list[int] = []
    parse = HeaderReader.parse
    monkeypatch.setattr(HeaderReader, "parse", lambda reader, data: looked.append(1) or parse(reader, data))
    found, _ = opened(path)
    assert found.recordings[0].n_buffers == 100
    assert len(looked) < 5 * (len(image) // SECTOR - start)
