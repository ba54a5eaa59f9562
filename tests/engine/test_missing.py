"""What is not on the card: blank frames have the time they were due, lost pixels are 0, NaN or left out."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from miniscope_xr.errors import OptionError
from miniscope_xr.tools.simulate import FailedWrite, PowerLoss, RecordAgain, SimulatedCard, Stall

SMALL = {"width": 64, "height": 1000}
Made = tuple[Path, SimulatedCard]


@pytest.fixture
def stalled(make_card: Any) -> Made:
    """A card of which a stall lost whole frames and left partial ones."""
    made: Made = make_card(frames=40, events=[Stall(500, 400)])
    return made


def test_blank_frames_have_the_time_they_were_due(stalled: Made, open_card: Any) -> None:
    ds, known = open_card(stalled[0], gaps="fill"), open_card(stalled[0])
    rows = np.flatnonzero(ds.buffers_present == 0)
    assert len(rows) > 1
    there = {int(n): t.astype(int) for n, t in zip(known.frame_num.values, known.time.values, strict=True)}
    np.testing.assert_array_equal(ds.time[known.frame_num.values], known.time)
    before, after = int(rows[0]) - 1, int(rows[-1]) + 1
    due = np.interp(rows, [before, after], [there[before], there[after]])
    np.testing.assert_array_equal(ds.time[rows].astype(int), np.floor(due))
    for row in rows:  # one at a time it is the same
        assert ds.time[int(row)] == ds.time.values[row]
        assert ds.time_last[int(row)] == ds.time.values[row]
    even = ds.swap_dims(frame="time").sortby("time")
    assert len(even.mean(("y", "x"), keep_attrs=True).resample(time="1s").mean().time) >= 2


def test_frames_lost_at_the_start_are_due_before_the_first(make_card: Any, open_card: Any) -> None:
    path, _ = make_card(frames=20, events=[FailedWrite(4, 8)], jitter_ms=0, **SMALL)
    ds = open_card(path, gaps="fill")
    assert (ds.buffers_present == 0).sum() >= 2
    np.testing.assert_allclose(ds.time.diff("frame").astype(int), 50, atol=8)
    numbers = open_card(path, gaps="fill", decode_timedelta=False)
    np.testing.assert_array_equal(numbers.time, ds.time.astype(int))


def test_partial_frames_can_be_left_out(stalled: Made, open_card: Any) -> None:
    ds, kept = open_card(stalled[0], partial="drop"), open_card(stalled[0])
    whole = kept.complete.values
    assert 0 < whole.sum() < len(whole)
    assert ds.complete.all()
    np.testing.assert_array_equal(ds.frame, np.arange(whole.sum()))
    np.testing.assert_array_equal(ds.frame_num, kept.frame_num[whole])
    np.testing.assert_array_equal(ds.video, kept.video[whole])
    np.testing.assert_array_equal(ds.video[7], kept.video[whole][7])
    chunked = open_card(stalled[0], partial="drop", chunks={"frame": 5})
    np.testing.assert_array_equal(chunked.video, ds.video)
    timed = open_card(stalled[0], partial="drop", time_index=True)
    assert int(timed.sel(time=ds.time.values[9]).frame_num) == int(ds.frame_num[9])


def test_pixels_that_are_missing_can_be_nan(stalled: Made, open_card: Any) -> None:
    ds, kept = open_card(stalled[0], partial="nan", gaps="fill"), open_card(stalled[0], gaps="fill")
    assert ds.video.dtype == np.float32
    missing = np.isnan(ds.video.values)
    np.testing.assert_array_equal(np.where(missing, 0, ds.video.values), kept.video.values)
    np.testing.assert_array_equal(missing.any(axis=(1, 2)), ~kept.complete)
    bounds = np.minimum(np.arange(6) * 20432, 304 * 304)
    lacking = np.array([
        [missing[row].reshape(-1)[a:b].all() for a, b in pairwise(bounds)] for row in ds.frame
    ])  # fmt: skip
    bits = kept.buffers_present.values[:, None] >> np.arange(5) & 1
    np.testing.assert_array_equal(lacking, bits == 0)
    for row in (0, int(np.flatnonzero(~kept.complete)[0])):
        np.testing.assert_array_equal(ds.video[row], ds.video.values[row])
    np.testing.assert_array_equal(ds.video[5:9, ::40, 7], ds.video.values[5:9, ::40, 7])
    chunked = open_card(stalled[0], partial="nan", gaps="fill", chunks={"frame": 7})
    np.testing.assert_array_equal(chunked.video, ds.video)


def test_the_torn_tail_of_the_last_buffer_is_nan(make_card: Any, open_card: Any) -> None:
    path, card = make_card(frames=20, events=[PowerLoss(buffer=41, torn_sectors=9)])
    ds = open_card(path, partial="nan")
    lacking = np.isnan(ds.video[-1].values).reshape(-1)
    torn = card.buffers[-1]
    start = torn.index * 20432
    assert not lacking[start : start + 8 * 512].any()
    assert lacking[start + 10 * 512 :].all()


def test_filling_and_dropping_contradict_each_other(stalled: Made, open_card: Any) -> None:
    with pytest.raises(OptionError, match="use partial='nan'"):
        open_card(stalled[0], gaps="fill", partial="drop")
    with pytest.raises(OptionError, match="partial='none': expected 'keep', 'drop' or 'nan'"):
        open_card(stalled[0], partial="none")


def test_a_tree_takes_partial_as_well(make_card: Any) -> None:
    path, _ = make_card(frames=30, events=[Stall(300, 300), RecordAgain(24)])
    with xr.open_datatree(path, engine="miniscope", partial="drop") as tree:
        assert all(tree[name].complete.all() for name in tree.children)
    for options in ({"time_index": True}, {"recording": 1}, {"group": "buffers"}):
        with pytest.raises(OptionError, match="always holds the whole card"):
            xr.open_datatree(path, engine="miniscope", **options)
    with xr.open_datatree(path, engine="miniscope", time_index=False) as tree:
        assert len(tree.children) == 2
    with pytest.raises((OptionError, TypeError), match="foo"):
        xr.open_datatree(path, engine="miniscope", foo=None)


@pytest.mark.parametrize("names", [("time", "battery_voltage", "ewl"), ("complete",), ("video", "complete", "time")])
def test_filling_reads_each_sector_once(
    names: tuple[str, ...], make_card: Any, open_card: Any, reads: list[tuple[int, int]]
) -> None:
    path, _ = make_card(frames=60)
    plain, ds = open_card(path), open_card(path, errors="fill")
    reads.clear()
    recording = 60 * 181 * 512
    for name in names:
        ds[name].variable.load()
    assert sum(length for _, length in reads) < (0.05 if "complete" not in names else 1.05) * recording
    for name in names:
        np.testing.assert_array_equal(ds[name], plain[name])


def test_the_frame_coordinate_can_be_left_out(clean_card: Made, open_card: Any) -> None:
    assert "frame" not in open_card(clean_card[0], drop_variables=["frame"]).coords
    assert "buffer" not in open_card(clean_card[0], group="buffers", drop_variables="buffer").coords
