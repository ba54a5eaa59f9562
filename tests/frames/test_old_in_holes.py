"""Buffers of an older recording in the place of failed writes: same counters, another clock. They are left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from miniscope_xr.tools.simulate import FailedWrite, PowerLoss, RemoteEdge, Stall, simulate

BUILDS = [("v4-wirefree", "f70f880"), ("v4-wirefree", "battery"), ("daq-wirefree", "HEAD"), ("v4-wirefree", "aa04ec3")]


def over_old(layout: str, build: str, events: list[Any], frames: int = 14, offset: float = 40.0) -> Any:
    """A recording over a longer one that began at another moment of the camera's clock."""
    old = simulate(layout, build, frames=20, start_offset_ms=11, seed=1)
    return simulate(layout, build, frames=frames, start_offset_ms=offset, under=old, events=events, seed=2)


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "build"), BUILDS)
@pytest.mark.parametrize(("at", "count"), [(17, 1), (20, 3), (24, 1)])
def test_an_old_buffer_in_a_hole_is_left_out(
    layout: str, build: str, at: int, count: int, tmp_path: Path, open_card: Any
) -> None:
    card = over_old(layout, build, [FailedWrite(at, count)])
    frames, video, present = card.expected(0)
    path = card.write(tmp_path / "card.img")
    with open_card(path) as ds:
        np.testing.assert_array_equal(ds.frame_num, frames)
        np.testing.assert_array_equal(ds.buffers_present, present)
        np.testing.assert_array_equal(ds.video, video)
        assert int((~ds.complete).sum()) >= 1
    one_by_one = open_card(path)
    for k in range(len(frames)):
        np.testing.assert_array_equal(one_by_one.video[k], video[k])
        assert int(one_by_one.buffers_present[k]) == present[k]


@pytest.mark.parametrize(("focus", "there"), [(101, True), (37, False)])
def test_a_buffer_of_another_focus_is_left_out_but_for_one_flipped_bit(
    focus: int, there: bool, tmp_path: Path, open_card: Any
) -> None:
    card = simulate("v4-wirefree", "HEAD", frames=10, settings={"ewl": 100}, seed=3)
    data = bytearray(card.data)
    data[card.buffers[22].sector * 512 + 44] = focus  # word 11; its clock and counters fit
    (tmp_path / "card.img").write_bytes(data)
    _, video, _ = card.expected(0)
    ds = open_card(tmp_path / "card.img")
    one_by_one = [ds.video[k].values for k in range(10)]
    assert ds.complete.values.tolist() == [there or k != 4 for k in range(10)]
    assert [bool((image == video[k]).all()) for k, image in enumerate(one_by_one)] == ds.complete.values.tolist()
    np.testing.assert_array_equal(ds.video, one_by_one)


def test_remote_edges_and_stalls_cost_no_buffer(tmp_path: Path, open_card: Any) -> None:
    events = [RemoteEdge(300.0), RemoteEdge(333.0), Stall(200.0, 60.0)]
    card = over_old("v4-wirefree", "f70f880", events, frames=18)
    _, video, present = card.expected(0)
    ds = open_card(card.write(tmp_path / "card.img"))
    np.testing.assert_array_equal(ds.buffers_present, present)
    np.testing.assert_array_equal(ds.video, video)


def test_the_end_of_a_recording_is_no_hole(tmp_path: Path, open_card: Any) -> None:
    card = over_old("v4-wirefree", "HEAD", [PowerLoss(at_ms=613.0)])
    frames, _, present = card.expected(0)
    ds = open_card(card.write(tmp_path / "card.img"))
    np.testing.assert_array_equal(ds.frame_num, frames)
    np.testing.assert_array_equal(ds.buffers_present[:-1], present[:-1])
