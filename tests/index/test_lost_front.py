"""Where sectors before the recording are gone, or are another card's: what its own buffers show counts."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from miniscope_xr.tools.simulate import SimulatedCard, simulate
from tests.index.test_guess import OURS

SECTOR = 512
CONFIG = 1023  # v4


def without(card: SimulatedCard, first: int, stop: int) -> bytearray:
    """The card with some sectors zeroed."""
    data = bytearray(card.data)
    data[first * SECTOR : stop * SECTOR] = bytes((stop - first) * SECTOR)
    return data


@pytest.mark.parametrize("gone", ["front", "config"])
@pytest.mark.parametrize(
    ("layout", "build", "size"),
    [
        ("daq-wirefree", "HEAD 640x560", {}),
        ("samd-framework", "13 words", {"width": 200, "height": 200}),
        ("v4-wirefree", "aa04ec3", {}),
    ],
)
def test_the_frame_size_is_that_of_the_frames(
    layout: str, build: str, size: dict[str, int], gone: str, tmp_path: Path, open_card: Any
) -> None:
    card = simulate(layout, build, frames=8, seed=3, **size)
    config = card.layout.sectors.config
    assert config is not None
    data = without(card, 0 if gone == "front" else config, config + 1)
    data[config * SECTOR : config * SECTOR + 4] = b"gone"
    path = tmp_path / "card.img"
    path.write_bytes(data)
    ds = open_card(path)
    frame_num, video, _ = card.expected()
    assert (ds.height, ds.width) == video.shape[1:]
    np.testing.assert_array_equal(ds.frame_num, frame_num)
    np.testing.assert_array_equal(ds.video, video)
    assert not any("frame size" in said or "counts this card holds" in said for said in ds.warnings)


def test_the_buffers_tell_their_size_against_another_builds_config(tmp_path: Path, open_card: Any) -> None:
    card = simulate(build="3787c5c", frames=6, seed=4)
    data = bytearray(card.data)
    struct.pack_into("<4I", data, CONFIG * SECTOR, 304, 304, 20, 20480)
    path = tmp_path / "card.img"
    path.write_bytes(data)
    ds = open_card(path)
    np.testing.assert_array_equal(ds.video, card.expected()[1])
    assert any("buffers of 20480 bytes, but the first one has 25600" in said for said in ds.warnings)


@pytest.mark.parametrize("first", [1024, 1025, 1025 + 3 * 40])
def test_an_image_that_begins_anywhere_is_read(first: int, tmp_path: Path, open_card: Any) -> None:
    """Also where a later buffer comes to stand where a recording begins."""
    card = simulate(frames=20, seed=5)
    path = tmp_path / "card.img"
    path.write_bytes(card.data[first * SECTOR :])
    ds = open_card(path)
    frame_num, video, present = card.expected()
    lost = -(-(first - 1024) // 40)  # buffers of frame 0
    np.testing.assert_array_equal(ds.frame_num, frame_num)
    np.testing.assert_array_equal(ds.buffers_present[1:], present[1:])
    np.testing.assert_array_equal(ds.video[1:], video[1:])
    assert int(ds.buffers_present[0]) == int(present[0]) & ~((1 << lost) - 1)


def test_what_is_left_of_a_prepared_cards_last_recording_is_read_by_its_layout(tmp_path: Path, open_card: Any) -> None:
    card = simulate(frames=20, seed=6)
    data = without(card, CONFIG, 1025)
    path = tmp_path / "card.img"
    path.write_bytes(data)
    ds = open_card(path)
    assert ds.layout == "v4-wirefree"
    assert any("prepared since" in said for said in ds.warnings)
    np.testing.assert_array_equal(ds.video[1:], card.expected()[1][1:])


@pytest.mark.parametrize("cut", [(0, 2048), (1100, 1130), (782, 2353)])
def test_a_whole_frame_that_a_cut_may_have_hit_is_not_returned(
    cut: tuple[int, int], tmp_path: Path, open_card: Any
) -> None:
    card = simulate("v3-wirefree", frames=20, seed=7)
    data = bytearray(card.data)
    del data[cut[0] * SECTOR : cut[1] * SECTOR]
    path = tmp_path / "card.img"
    path.write_bytes(data)
    ds = open_card(path)
    frame_num, video, _ = card.expected()
    hit = (cut[1] - 1024) // 200  # the last one that lacks sectors
    behind = np.flatnonzero(frame_num > hit)
    np.testing.assert_array_equal(ds.frame_num, frame_num[behind])
    np.testing.assert_array_equal(ds.video, video[behind])


def test_a_firmware_of_ones_own_is_found_by_its_buffers(tmp_path: Path, open_card: Any) -> None:
    """Its words stand elsewhere than those of every layout that is shipped."""
    card = simulate(OURS, frames=20, seed=3)
    start = card.buffers[7].sector + 1
    path = tmp_path / "card.img"
    path.write_bytes(without(card, 0, start))
    ds = open_card(path, layout=OURS)
    frame_num, video, _ = card.expected()
    rows = slice(card.buffers[8].frame_num + 1, None)
    whole = ds.sel(frame=ds.complete.values)
    assert set(frame_num[rows]) <= set(whole.frame_num.values.tolist())
    np.testing.assert_array_equal(whole.video, video[np.isin(frame_num, whole.frame_num)])


@pytest.mark.parametrize("begins", [180, 260])
def test_a_focus_scan_is_no_older_recording_where_the_settings_are_gone(
    begins: int, tmp_path: Path, open_card: Any
) -> None:
    """The focus steps where a hole is, and nothing says any more that it scans."""
    card = simulate(frames=80, seed=8)
    data, hole = without(card, 0, CONFIG + 1), card.buffers[begins].sector
    for b in card.buffers:
        struct.pack_into("<I", data, b.sector * SECTOR + 4 * 11, 20 + 50 * (b.frame_num // 9 % 5))
    data[hole * SECTOR : (hole + 281) * SECTOR] = np.random.default_rng(1).bytes(281 * SECTOR)
    path = tmp_path / "card.img"
    path.write_bytes(data)
    ds = open_card(path)
    hit = {b.frame_num for b in card.buffers if b.sector < hole + 281 and b.sector + b.n_sectors > hole}
    whole = set(ds.frame_num[ds.complete.values].values.tolist())
    assert set(range(80)) - hit <= whole
    assert not any("older recording lies behind" in said for said in ds.warnings)


@pytest.mark.parametrize("gone", [CONFIG - 1, CONFIG + 1], ids=["another's settings", "no settings"])
def test_settings_that_know_of_no_focus_scan_are_not_believed_over_the_headers(
    gone: int, tmp_path: Path, open_card: Any
) -> None:
    """Frames whose focus is not the first one's stay, though it comes back behind them."""
    card = simulate("v4-wirefree-2026", frames=80, seed=8)
    data = without(card, 0, gone)
    for b in card.buffers:
        struct.pack_into("<I", data, b.sector * SECTOR + 4 * 11, 20 + 50 * (b.frame_num // 9 % 5))
    path = tmp_path / "card.img"
    path.write_bytes(data)
    ds = open_card(path)
    np.testing.assert_array_equal(ds.frame_num, np.arange(80))
    assert ds.complete.values.all()


def test_settings_of_a_record_length_that_all_frames_are_behind_are_not_theirs(tmp_path: Path, open_card: Any) -> None:
    """Somebody wrote other settings, and a file over the first frames."""
    card = simulate("v3-wirefree", seconds=2, seed=8)
    data = bytearray(card.data)
    data[1024 * SECTOR : (1024 + 25 * 200) * SECTOR] = b"file" * (25 * 200 * SECTOR // 4)  # the first 1.3 s
    header = card.layout.sectors.header
    struct.pack_into("<I", data, header * SECTOR + 4 * card.layout.header["record_length"].word, 1)
    path = tmp_path / "card.img"
    path.write_bytes(data)
    ds = open_card(path)
    numbers, video, _ = card.expected()
    np.testing.assert_array_equal(ds.frame_num, numbers[25:])
    np.testing.assert_array_equal(ds.video, video[25:])
