"""The frame clock: what strays from it and comes back is not of this recording, what stays is."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml

from miniscope_xr.index.clock import FrameClock, Model, clock_of, learn
from miniscope_xr.index.excursions import Behind, excursions
from miniscope_xr.index.framing import Stamps
from miniscope_xr.index.run_clock import RunClock
from miniscope_xr.index.runs import Cut, Header, Run
from miniscope_xr.layout import Build
from miniscope_xr.tools.simulate import PowerLoss, simulate

OFFSETS = np.array([25.0, 32, 39, 47, 51])
CUT = Cut((20432,) * 4 + (10688,), 48)


def times(frames: int, seed: int = 0, jitter: float = 0.0) -> np.ndarray:
    """Times of whole frames of five buffers, in whole ms."""
    noise = np.random.default_rng(seed).uniform(-jitter, jitter, (frames, 1))
    return np.floor(np.add.outer(50.003 * np.arange(frames), OFFSETS) + noise + 0.4)


def read(table: np.ndarray) -> tuple[np.ndarray, RunClock, list[int]]:
    """Which buffers of a run with these times are odd, its clock, and how many times were looked at for it."""
    run = Run(1024, table.size, Header(12, 0, 0, 0, 0, 0, 0, int(table[0, 0]), 20432, 26, 190, 0), CUT)
    clock = RunClock(run, Model(50.003, OFFSETS - OFFSETS[0], 0.0), 1.0, Behind.ENDS)
    looked: list[int] = []

    def look(i: np.ndarray) -> Stamps:
        looked.append(len(i))
        return Stamps(table.reshape(-1)[i], np.full(len(i), np.nan))

    return clock.old(look, np.arange(table.size), table.reshape(-1)), clock, looked


@pytest.mark.parametrize("jitter", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("off", [-19.0, 7.0, 24.0])
@pytest.mark.parametrize("where", [slice(37, 38), slice(52, 55), slice(100, 105), slice(3, 7)])
def test_old_buffers_in_the_place_of_failed_writes_are_told(where: slice, off: float, jitter: float) -> None:
    for frames in (22, 150, 700):
        table = times(frames, frames, jitter)
        table.reshape(-1)[where] += off
        odd, _, looked = read(table)
        assert np.flatnonzero(odd).tolist() == list(range(where.start, where.stop))
        assert sum(looked) <= 600


@pytest.mark.parametrize("jitter", [0.0, 0.3, 1.0])
def test_no_buffer_of_a_healthy_recording_is_odd(jitter: float) -> None:
    for seed in range(20):
        table = times(300, seed, jitter)
        odd, _, looked = read(table)
        assert not odd.any()
        assert jitter or not looked


@pytest.mark.parametrize("edges", [[60], [31, 33, 47], [12, 13, 40, 41, 44], [2], [97]])
def test_ticks_lost_to_a_foreign_remote_are_no_old_buffers(edges: list[int]) -> None:
    table = times(20, 1, 0.3)
    for edge in edges:
        table.reshape(-1)[edge:] -= 12
    assert not read(table)[0].any()


@pytest.mark.parametrize("jitter", [0.0, 0.3])
@pytest.mark.parametrize("where", [slice(1500, 1503), slice(3, 7), slice(3480, 3484)])
def test_a_clock_that_nobody_expects_is_learnt_from_the_times_in_hand(where: slice, jitter: float) -> None:
    table = np.add(times(700, 3, jitter), [0, 4, -4, 9, 0])  # a firmware that times its buffers otherwise
    table[300:] -= 12  # and ticks that were lost
    table.reshape(-1)[where] += 19
    odd, _, looked = read(table)
    assert np.flatnonzero(odd).tolist() == list(range(where.start, where.stop))
    assert sum(looked) <= 1200  # of 3,500


def test_a_step_that_stays_is_no_excursion() -> None:
    left = np.concatenate([np.zeros(40), np.full(40, 9.0)])
    assert not excursions(left, 2.0, 1.0, Behind.GOES_ON).any()
    left[20:24] = -17
    assert np.flatnonzero(excursions(left, 2.0, 1.0, Behind.GOES_ON)).tolist() == [20, 21, 22, 23]


def test_a_layout_says_how_many_writes_fail_in_a_row_and_what_an_edge_of_a_remote_costs() -> None:
    left = np.zeros(80)
    left[30:38] = -17
    left[78:] = -22
    build = Build("mine", 304, 304, failed_writes=6, remote_edge=(20, 24))
    assert np.flatnonzero(excursions(left, 2.0, 1.0, Behind.ENDS)).tolist() == [*range(30, 38), 78, 79]
    assert not excursions(left, 2.0, 1.0, Behind.ENDS, build).any()


@pytest.mark.parametrize(("noise", "kept"), [(2, 13), (30, 20)])
def test_a_layout_says_by_how_much_the_battery_strays(noise: int, kept: int, tmp_path: Path, open_card: Any) -> None:
    card = simulate(frames=20, seed=5, battery=190, events=[PowerLoss(buffer=99)])
    data = bytearray(card.data)
    for buffer in card.buffers[65:]:  # of another measurement, 12 counts higher
        data[buffer.sector * 512 + 40] += 12
    (tmp_path / "card.img").write_bytes(data)
    mine = yaml.safe_load((resources.files("miniscope_xr") / "layouts" / "v4-wirefree.yaml").read_text())
    mine["buffer"]["battery_voltage"]["noise"] = noise
    mine["builds"][0]["leftovers"] = "frame"  # which tell nothing: the battery alone does
    assert open_card(tmp_path / "card.img", layout=mine).sizes["frame"] == kept


def test_where_an_older_recording_may_begin_only_a_clock_that_comes_back_tells() -> None:
    left = np.concatenate([np.zeros(30), np.full(2, -12.0), np.full(30, 9.0)])  # an edge, and two buffers on the end
    assert not excursions(left, 2.0, 1.0, Behind.UNKNOWN).any()
    assert np.flatnonzero(excursions(left, 2.0, 1.0, Behind.GOES_ON)).tolist() == [30, 31]
    left[32:] = 0
    assert np.flatnonzero(excursions(left, 2.0, 1.0, Behind.UNKNOWN)).tolist() == [30, 31]


def test_where_time_goes_back_fewer_buffers_show_that_the_clock_comes_back() -> None:
    left = np.concatenate([np.zeros(15), np.full(2, -35.0), np.zeros(3), np.full(30, -35.0)])
    rising = np.maximum.accumulate(left + 10.0 * np.arange(50))
    assert not excursions(
        left, 2.0, 1.0, Behind.UNKNOWN, times=rising
    ).any()  # an older recording may begin at any of them
    told = excursions(left, 2.0, 1.0, Behind.UNKNOWN, times=left + 10.0 * np.arange(50))
    assert np.flatnonzero(told).tolist() == [15, 16]
    left[17:] = np.nan  # behind them a hole: a recording that goes on has no such tail
    assert np.flatnonzero(excursions(left, 2.0, 1.0, Behind.GOES_ON, times=left + 10.0 * np.arange(50))).tolist() == [
        15,
        16,
    ]


def test_over_a_hole_a_clock_may_run_off_by_what_its_period_is_unsure_by() -> None:
    left = np.concatenate([np.zeros(13), np.full(10, np.nan), np.full(4, 3.0), [-1.0]])  # and an edge of a remote
    assert np.flatnonzero(excursions(left, 2.0, 1.0, Behind.GOES_ON)).tolist() == [23, 24, 25, 26]
    assert not excursions(left, 2.0, 1.0, Behind.GOES_ON, unsure=0.2).any()


def test_a_clock_of_few_frames_is_not_learnt_halfway_to_a_step() -> None:
    table = times(6)
    table[1, :4] -= 8  # four old buffers
    table[4:, 3:] -= 8
    model = learn(table, CUT.lengths)
    assert model is not None
    assert model.stray <= 2


def test_a_clock_is_learnt_whatever_stands_between() -> None:
    table = times(30)
    table[7:9] += 19
    table[20:] -= 12
    table[3, 2] = np.nan
    model = learn(table, CUT.lengths)
    assert model is not None
    assert model.period == pytest.approx(50, abs=0.05)
    assert model.offsets == pytest.approx(OFFSETS - OFFSETS[0], abs=0.6)
    assert learn(times(2), CUT.lengths) is None
    assert learn(np.full((9, 5), np.nan), CUT.lengths) is None


def test_of_as_many_times_those_in_proportion_to_the_bytes_are_believed() -> None:
    table = times(3)
    table[1, 4], table[2, 0] = table[1, 4] - 38, table[2, 0] - 36  # old ones in the places of two failed writes
    model = learn(table, CUT.lengths)
    assert model is not None
    assert model.offsets == pytest.approx(OFFSETS - OFFSETS[0], abs=0.6)


@pytest.mark.parametrize("ticks", [1, 10])
@pytest.mark.parametrize("said", [[1, 10], [10], None])
def test_a_build_says_what_its_clock_may_count(ticks: int, said: list[int] | None, tmp_path: Path) -> None:
    """Early builds for the DAQ counted 0.1 ms; which one wrote a card shows how long its frames take."""
    card = simulate("daq-wirefree", frames=12, seed=3)
    path = card.write(tmp_path / "card.img")
    with xr.open_dataset(path, engine="miniscope", group="buffers") as table:
        places = table.sector.values * 512
        rows = table.timestamp.values
    data = bytearray(path.read_bytes())
    for place, time in zip(places.tolist(), rows.tolist(), strict=True):
        data[place + 28 : place + 32] = (ticks * time).to_bytes(4, "little")
    path.write_bytes(data)
    layout: Any = "daq-wirefree"
    if said is not None:
        layout = yaml.safe_load((resources.files("miniscope_xr") / "layouts" / "daq-wirefree.yaml").read_text())
        for build in layout["builds"]:
            build["ticks_per_ms"] = said
    with xr.open_dataset(path, engine="miniscope", layout=layout) as ds:
        step = float(np.median(np.diff(ds.time.values) / np.timedelta64(1, "us"))) / 1000
    right = said is None or ticks in said
    assert abs(step - 50 * (1 if right else ticks / said[0])) < 0.6  # a build that says [10] is believed


def test_nothing_is_read_in_front_of_a_run_of_less_than_a_frame() -> None:
    """It may be in front of the card, too: an image that begins with the last buffers of a recording."""
    first = Header(12, 3, 7, 38, 3, 38, 0, 390, 20432, 391, 190, 0)
    run = Run(2, 1, first, CUT)

    class Headers:
        def at(self, sector: int) -> Header:
            assert sector == run.sector
            return first

    later = first._replace(frame=8, count=43, written=43, time=440)
    assert FrameClock(Headers()).fits([run], later), "nothing tells"  # type: ignore[arg-type]


def test_buffers_without_data_show_no_clock() -> None:
    run = Run(1024, 30, Header(12, 0, 0, 0, 0, 0, 0, 25, 20432, 26, 190, 0), Cut((20432, 0, 0), 48))
    headers = {
        run.sector_of(i): run.first._replace(
            frame=run.frame_of(i), index=run.index_of(i), count=i, written=i, time=25 + 50 * run.frame_of(i)
        )
        for i in range(30)
    }
    assert clock_of([run], SimpleNamespace(at=headers.get)) is None  # type: ignore[arg-type]
