"""A card nobody described: opened by what its headers show, and a layout file drafted from it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml

from miniscope_xr.errors import NotACardError
from miniscope_xr.index.draft import _config
from miniscope_xr.index.guess import guess
from miniscope_xr.layout import builtin_layouts, load_layout
from miniscope_xr.source.local import Device
from miniscope_xr.tools.cli import main
from miniscope_xr.tools.simulate import Stall, simulate
from tests.conftest import real_names

# a firmware of nobody: other sectors, other words, a header of 16 words
OURS = {
    "id": "nobody", "sectors": {"header": 300, "config": 301, "data": 400}, "header_words": [16],
    "header": {"gain": 4},
    "config": {"width": 2, "height": 3, "fs": 4, "buffer_size": 5, "n_buffers_recorded": 6, "n_buffers_dropped": 7},
    "buffer": {
        "length": 0, "timestamp": 2, "frame_buffer_count": 3, "frame_num": 4, "data_length": 6, "buffer_count": 8,
        "write_buffer_count": 10, "dropped_buffer_count": 11, "linked_list": 13, "write_timestamp": 15,
    },
    "builds": [{"firmware": "x", "width": 96, "height": 120, "header_words": 16, "buffer_sectors": 8, "ring": 6,
                "drop_step": 3}],
}  # fmt: skip


def guessed(path: Path) -> Any:
    source = Device(path)
    try:
        return guess(source)
    finally:
        source.close()


def test_a_card_nobody_described_opens_and_says_so(make_card: Any, open_card: Any) -> None:
    path, card = make_card(OURS, frames=20, seed=3)
    ds = open_card(path)
    frame_num, video, present = card.expected()
    np.testing.assert_array_equal(ds.frame_num, frame_num)
    np.testing.assert_array_equal(ds.video, video)
    np.testing.assert_array_equal(ds.buffers_present, present)
    assert any("no known layout fits" in said for said in ds.attrs["warnings"])


def invented(seed: int) -> dict[str, Any]:
    """A layout nobody has: other sectors, words in another order, some left out, 1 to 24 buffers a frame."""
    rng = np.random.default_rng(seed)
    words, sectors, buffers = int(rng.integers(10, 24)), int(rng.choice([4, 8, 16, 20])), int(rng.choice([1, 2, 5, 24]))
    more = [name for name in ("linked_list", "write_timestamp") if rng.random() < 0.6]
    names = ["timestamp", "frame_buffer_count", "frame_num", "data_length", "buffer_count", "write_buffer_count"]
    names += ["dropped_buffer_count", *more]
    places = rng.permutation(np.arange(1, words))[: len(names)].tolist()
    pixels = buffers * (sectors * 512 - 4 * words) * rng.uniform(0.9, 1)
    width = int(pixels**0.5 * rng.uniform(0.6, 1.5)) // 8 * 8
    height = int(pixels) // width
    header = int(rng.integers(10, 3000))
    sizes = ["width", "height", "fs", "buffer_size", "n_buffers_recorded", "n_buffers_dropped"]
    config = dict(zip(rng.permutation(sizes).tolist(), range(6), strict=True))
    return {
        "id": "invented",
        "sectors": {"header": header, "config": header + 1, "data": header + int(rng.integers(2, 30))},
        "header_words": [words], "header": {"gain": 4}, "config": config,
        "buffer": {"length": 0, **dict(zip(names, places, strict=True))},
        "builds": [{"firmware": "x", "width": width, "height": height, "header_words": words,
                    "buffer_sectors": sectors, "ring": int(rng.integers(4, 11)), "drop_step": 3}],
    }  # fmt: skip


def smooth(build: dict[str, Any]) -> Callable[[int], np.ndarray[Any, Any]]:
    """A camera whose neighbouring rows are alike, as those of a microscope are."""
    row, column = np.mgrid[: build["height"], : build["width"]]

    def take(number: int) -> np.ndarray[Any, Any]:
        noise = np.random.default_rng(number).integers(0, 16, row.shape)
        return ((7 * number + 3 * row + column + noise) % 256).astype(np.uint8)

    return take


@pytest.mark.parametrize("seed", range(16))
def test_an_invented_firmware_is_read_and_its_draft_reads_the_same(
    seed: int, tmp_path: Path, open_card: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = invented(seed)
    card = simulate(layout, frames=24, seed=seed, camera=smooth(layout["builds"][0]))
    path, draft = card.write(tmp_path / "card.img"), tmp_path / "draft.yaml"
    frame_num, video, present = card.expected()
    assert main(["layouts", "--draft", str(path), "--out", str(draft)]) == 0
    for options in ({}, {"layout": draft}):
        ds = open_card(path, **options)
        np.testing.assert_array_equal(ds.frame_num, frame_num)
        np.testing.assert_array_equal(ds.buffers_present, present)
        np.testing.assert_array_equal(ds.video, video)
    assert any("no known layout fits" in said for said in open_card(path).attrs["warnings"])


def test_its_words_are_found(make_card: Any) -> None:
    found = guessed(make_card(OURS, frames=20, events=[Stall(420, 100)])[0])
    assert found.described["buffer"] == OURS["buffer"]
    assert found.described["sectors"] == OURS["sectors"]
    build = found.layout.builds[0]
    assert (build.width, build.height, build.header_words, build.buffer_sectors, build.ring) == (96, 120, 16, 8, 6)


@pytest.mark.parametrize("name", real_names())
def test_the_words_of_real_cards_are_found_without_their_layout(name: str, real_image: Callable[[str], Path]) -> None:
    found = guessed(real_image(name))
    if found is None:
        assert name.startswith(("j", "l", "e2", "g1", "i", "t")), "v3, or too few buffers in a row"
        return
    build, words = found.layout.builds[0], found.described["buffer"]
    known = [b for lay in builtin_layouts().values() for b in lay.builds]
    assert (build.header_words, build.buffer_sectors) in {(b.header_words, b.buffer_sectors) for b in known}
    v4 = load_layout("v4-wirefree").buffer
    for field in ("frame_num", "frame_buffer_count", "timestamp", "data_length", "buffer_count", "write_buffer_count"):
        assert words[field] == v4[field].word, field


def test_a_draft_is_a_file_to_start_from(make_card: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, card = make_card(OURS, frames=12, seed=4)
    assert main(["layouts", "--draft", str(path)]) == 0
    draft = tmp_path / "draft.yaml"
    draft.write_text(capsys.readouterr().out)
    assert yaml.safe_load(draft.read_text())["buffer"]["data_length"] == 6
    with xr.open_dataset(path, engine="miniscope", layout=draft) as ds:
        np.testing.assert_array_equal(ds.video, card.expected()[1])
    out = tmp_path / "written.yaml"
    assert main(["layouts", "--draft", str(path), "--out", str(out)]) == 0
    assert load_layout(out) == load_layout(draft)
    assert main(["layouts", "--draft", str(path), "--out", str(out)]) != 0, "an existing file is kept"


@pytest.mark.parametrize("fill", ["zeros", "noise", "text"])
def test_where_nothing_counts_nothing_is_guessed(fill: str, tmp_path: Path) -> None:
    path = tmp_path / "card.img"
    size = 17 << 20
    noise = np.random.default_rng(1).bytes(size)
    path.write_bytes({"zeros": bytes(size), "noise": noise, "text": b"what is it then\n" * (size // 16)}[fill])
    assert guessed(path) is None
    with pytest.raises(NotACardError):
        xr.open_dataset(path, engine="miniscope")


def test_a_simulated_card_of_every_build_is_understood(tmp_path: Path) -> None:
    for layout in builtin_layouts().values():
        for build in layout.builds:
            if not layout.buffer or build.unsupported:
                continue
            path = simulate(layout, build.firmware, frames=12, width=160, height=640).write(tmp_path / "card.img")
            found = guessed(path)
            if build.ring < 4:
                continue  # every buffer of a ring of two is lapped
            assert found is not None, (layout.id, build.firmware)
            own = found.layout.builds[0]
            assert (own.header_words, own.whole_buffers) == (build.header_words, build.whole_buffers)


def test_a_buffer_size_at_the_end_of_a_sector_is_no_config() -> None:
    front = np.zeros((3, 128), np.uint32)
    front[1, 3:6] = 64, 64, 0
    front[1, 15] = 2048
    assert _config(front, 64 * 64, 2048) == (None, {})
    front[2, :4] = 64, 64, 20, 2048
    assert _config(front, 64 * 64, 2048) == (2, {"width": 0, "height": 1, "buffer_size": 3, "n_buffers_recorded": 4})


def test_a_frame_number_with_a_flipped_bit_costs_no_memory(make_card: Any) -> None:
    """Its highest bit: as many frames as that number says would fill gigabytes."""
    path, card = make_card(OURS, frames=20, seed=3)
    whole = guessed(path).described
    at = card.buffers[37].sector * 512 + 4 * 4  # the word of frame_num
    with path.open("r+b") as file:
        file.seek(at + 3)
        file.write(b"\x80")
    tracemalloc.start()
    try:
        found = guessed(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.described == whole
    assert peak < 64 << 20
