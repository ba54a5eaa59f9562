"""Firmwares nobody here knows, described by a layout file of their user's alone."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from miniscope_xr.layout import SECTOR
from miniscope_xr.tools.simulate import PowerLoss, SimulatedCard, Stall, simulate

PLAIN: dict[str, Any] = {
    "id": "our-scope",
    "sectors": {"header": 1022, "config": 1023, "data": 1024},
    "header": {"gain": 4, "record_length": 7, "fs": {"word": 8, "choices": {20: 20}, "default": 20}},
    "config": {"width": 0, "height": 1, "fs": 2, "buffer_size": 3, "n_buffers_recorded": 4, "n_buffers_dropped": 5},
    "buffer": {
        "length": 0, "linked_list": 1, "frame_num": 2, "buffer_count": 3, "frame_buffer_count": 4,
        "write_buffer_count": 5, "dropped_buffer_count": 6, "timestamp": 7, "data_length": 8, "write_timestamp": 9,
    },
    "builds": [
        {"firmware": "ours", "width": 304, "height": 304, "header_words": 12, "buffer_sectors": 40, "ring": 8,
         "drop_step": 19},
    ],
}  # fmt: skip


def layout(build: dict[str, Any] | None = None, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """The plain layout with another build, and without some parts (``buffer.linked_list``)."""
    own = deepcopy(PLAIN)
    own["builds"][0].update(build or {})
    for path in without:
        *parts, last = path.split(".")
        place = own
        for part in parts:
            place = place[part]
        del place[last]
    return own


LAYOUTS = {
    "plain": layout(),
    "a preamble in front": layout({"preamble": 0x12345678}),
    "no count of drops": layout(without=("buffer.dropped_buffer_count",)),
    "no ring slot, no time of the write": layout(without=("buffer.linked_list", "buffer.write_timestamp")),
    "no config sector": layout(without=("sectors.config", "config")),
    "config says the size of the sensor": layout({"config_frame": {"width": 608, "height": 608}}),
}
ENDS = {
    "finished": {"settings": {"record_length": 2}, "seconds": 2},
    "a drop": {"settings": {"record_length": 3}, "seconds": 3, "events": [Stall(300, 250)]},
    "interrupted": {"frames": 30, "events": [PowerLoss(buffer=72)]},
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("kind", LAYOUTS)
def test_what_a_layout_file_leaves_out_costs_no_frame(kind: str, end: str, tmp_path: Path, open_card: Any) -> None:
    own = LAYOUTS[kind]
    old = simulate(own, frames=40, seed=9) if end == "interrupted" else None
    card = simulate(own, seed=8, start_offset_ms=61, under=old, **ENDS[end])
    path = card.write(tmp_path / "card.img")
    frame_num, video, present = card.expected()
    for index in ("bisect", "scan"):
        ds = open_card(path, layout=own, index=index)
        np.testing.assert_array_equal(ds.frame_num, frame_num)
        np.testing.assert_array_equal(ds.buffers_present, present)
        np.testing.assert_array_equal(ds.video, video)
        if end == "finished":
            assert "warnings" not in ds.attrs
            assert ds.status == "finished"


@pytest.mark.parametrize("said", [(608, 608), (400, 400)])
def test_a_frame_size_that_the_build_takes_for_wrong_is_the_frames_where_they_have_it(
    said: tuple[int, int], tmp_path: Path, open_card: Any
) -> None:
    own = layout({"config_frame": {"width": said[0], "height": said[1]}})
    card = simulate(PLAIN, width=said[0], height=said[1], frames=8, seed=8)
    ds = open_card(card.write(tmp_path / "card.img"), layout=own)
    np.testing.assert_array_equal(ds.video, card.expected()[1])
    assert "warnings" not in ds.attrs


def test_frames_of_no_known_size_are_said_to_be(tmp_path: Path, open_card: Any) -> None:
    own = layout({"config_frame": {"width": 608, "height": 608}})
    card = simulate(PLAIN, width=200, height=200, frames=8, seed=8)
    ds = open_card(card.write(tmp_path / "card.img"), layout=own)
    assert any("no known frame size has the 40000 bytes" in said for said in ds.warnings)


@pytest.mark.parametrize("ticks", [0.1, 32.768])
def test_a_clock_counts_as_many_ticks_in_a_ms_as_the_layout_says(ticks: float, tmp_path: Path, open_card: Any) -> None:
    card = simulate(PLAIN, frames=20, seed=8)
    data = bytearray(card.data)
    for buffer in card.buffers:
        words = np.frombuffer(data, "<u4", 12, buffer.sector * SECTOR)
        words[[7, 9]] = (words[[7, 9]] * ticks).astype("<u4")
    path = tmp_path / "card.img"
    path.write_bytes(data)
    ds = open_card(path, layout=layout({"ticks_per_ms": [ticks]}))
    first = [buffer.words[7] for buffer in card.buffers if not buffer.index]
    times = ds.time.values.astype("timedelta64[ms]").astype(int)
    assert np.abs(times - first).max() <= max(1, 1 / ticks)
    np.testing.assert_array_equal(ds.video, card.expected()[1])
    assert "warnings" not in ds.attrs


def without_last_parts(card: SimulatedCard) -> bytes:
    """A card of a firmware that writes the full buffers of each frame only."""
    size, out = 40 * SECTOR, bytearray(card.data[: 1024 * SECTOR])
    kept = [b for b in card.buffers if b.length == card.spec.payload]
    for n, buffer in enumerate(kept):
        whole = bytearray(card.data[buffer.sector * SECTOR : buffer.sector * SECTOR + size])
        words = np.frombuffer(whole, "<u4").copy()
        words[[1, 3, 5]] = n % 8, n, n
        out += words.tobytes()
    return bytes(out)


def test_of_frames_that_are_never_whole_the_clock_tells_what_is_older(tmp_path: Path, open_card: Any) -> None:
    own = layout({"buffers_a_frame": 4, "config_written": []})
    old, new = (
        without_last_parts(simulate(PLAIN, frames=n, seed=n, start_offset_ms=ms)) for n, ms in ((20, 42), (9, 61))
    )
    path = tmp_path / "card.img"
    path.write_bytes(new[: 1023 * SECTOR] + bytes(SECTOR) + new[1024 * SECTOR :] + old[len(new) :])
    data = bytearray(path.read_bytes())
    np.frombuffer(data, "<u4", 4, 1023 * SECTOR)[:] = 304, 304, 20, 20480
    path.write_bytes(data)
    ds = open_card(path, layout=own)
    assert ds.sizes["frame"] == 9
    assert any("an older recording lies behind this one" in said for said in ds.warnings)
