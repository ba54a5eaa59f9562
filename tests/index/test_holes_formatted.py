"""Cards that a computer formatted after recording: what was not overwritten comes back, and the rest is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from miniscope_xr.index.filesystem import find_file_systems, seems_formatted
from miniscope_xr.source.open import open_device
from miniscope_xr.tools.simulate import PowerLoss, SimulatedCard, simulate
from tests.lives import SYSTEMS, file_system
from tests.measure.formatted import SECTOR, WAYS, Way, format_card, installed, judge, write_card

KINDS: dict[str, dict[str, Any]] = {
    "v4": {"frames": 100},
    "v4, battery died": {"frames": 100, "events": [PowerLoss(buffer=490)]},
    "DAQ": {"layout": "daq-wirefree", "frames": 30},
    "v3": {"layout": "v3-wirefree", "frames": 90},
}
NAMES = {"exFAT": "exFAT", "FAT32": "FAT32", "NTFS": "NTFS", "ext4": "ext4", "EFI": "FAT32", "FAT16": "FAT16"}
SMALL = {name: way for name, way in WAYS.items() if "8192" not in name and "32768" not in name}


def needs(way: Way) -> None:
    if not installed(way):
        pytest.skip(f"{way.command[0]} or sfdisk is not installed")


@pytest.fixture(scope="module")
def made() -> Callable[[str], SimulatedCard]:
    cards: dict[str, SimulatedCard] = {}

    def make(kind: str) -> SimulatedCard:
        if kind not in cards:
            cards[kind] = simulate(seed=4, **KINDS[kind])
        return cards[kind]

    return make


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("kind", KINDS)
def test_every_frame_that_is_left_comes_back(
    kind: str, name: str, made: Callable[[str], SimulatedCard], tmp_path: Path
) -> None:
    way = SMALL[name]
    needs(way)
    card, path = made(kind), tmp_path / "card.img"
    write_card(card.data, path, way.sectors)
    format_card(path, way, len(card.data))
    found = judge(card, path)
    if found.intact:
        assert set(found.back.values()) == {found.intact}
    assert set(found.wrong.values()) == {0}
    if 0 < found.intact < len(set(card.expected()[0])):
        assert any(f"{NAMES[name.split()[0]]} file system from sector {way.start}" in said for said in found.warnings)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_the_sectors_a_file_system_wrote_are_known(name: str, tmp_path: Path) -> None:
    """Against the card before: nothing was written that is not known, and nothing is called written that was not."""
    way = SMALL[name]
    needs(way)
    path = tmp_path / "card.img"
    before = np.random.default_rng(1).integers(1, 255, 12 << 20, np.uint8)
    write_card(before.tobytes(), path, way.sectors)
    format_card(path, way, len(before))
    with path.open("rb") as file:
        now = np.fromfile(file, np.uint8, len(before))
    changed = (now != before).reshape(-1, SECTOR).any(axis=1)
    known = np.zeros(len(changed), bool)
    source = open_device(path)
    for system in find_file_systems(source, whole=True):
        assert system.sector == way.start
        for first, stop in system.written:
            known[first:stop] = True
    source.close()
    front = 34 if way.kind == 0xEE else 1 if way.start else 0  # the partition table
    np.testing.assert_array_equal(known[front:], changed[front:])


def test_a_damaged_superblock_is_no_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    path = tmp_path / "card.img"
    for magic, at in ((b"EXFAT   ", 3), (b"NTFS    ", 3), (b"\x53\xef", 1080), (b"\xeb\x58\x90", 0)):
        for _ in range(50):
            data = bytearray(rng.integers(0, 256, 16384, np.uint8).tobytes())
            data[510:512] = b"\x55\xaa"
            data[at : at + len(magic)] = magic
            path.write_bytes(data)
            source = open_device(path)
            for system in find_file_systems(source, whole=True):
                assert all(first < stop for first, stop in system.written)
            source.close()


@pytest.mark.parametrize("kind", [*(kind for kind in SYSTEMS if kind != "ext4"), "MBR", None])
def test_a_table_or_a_boot_sector_is_seen_in_the_first_sector(kind: str | None, tmp_path: Path) -> None:
    path = tmp_path / "card.img"
    path.write_bytes(bytes(8192) if kind is None else file_system(kind, 8192).tobytes())
    with open_device(path) as source:
        assert seems_formatted(source) is (kind is not None)
