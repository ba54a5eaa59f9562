"""The dataset: names, dims, dtypes, options and attributes of the public contract; lazy, and safe to pass around."""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from miniscope_xr import CardChangedError, MiniscopeError, load_layout
from miniscope_xr.errors import LayoutError, OptionError, RecordingError
from miniscope_xr.tools.simulate import PowerLoss, RecordAgain, SimulatedCard, Stall, simulate

Clean = tuple[Path, SimulatedCard]
HEADER_FIELDS = {
    "length", "linked_list", "buffer_count", "frame_buffer_count", "write_buffer_count", "dropped_buffer_count",
    "timestamp", "data_length", "write_timestamp", "battery_voltage", "ewl",
}  # fmt: skip


def test_names_dims_and_dtypes_are_those_of_the_contract(clean_card: Clean, open_card: Any) -> None:
    ds = open_card(clean_card[0])
    assert set(ds.data_vars) == {"video"}
    assert ds.video.dims == ("frame", "y", "x")
    assert ds.video.shape == (60, 304, 304)
    assert ds.video.dtype == np.uint8
    dtypes = {name: str(ds[name].dtype) for name in ("frame", "frame_num", "time", "time_last", "complete")}
    assert dtypes == {
        "frame": "int64", "frame_num": "int64", "time": "timedelta64[ms]", "time_last": "timedelta64[ms]",
        "complete": "bool",
    }  # fmt: skip
    assert ds.buffers_present.dtype == np.uint32
    assert set(ds.coords) == {
        "frame", "frame_num", "time", "time_last", "buffers_present", "complete", *HEADER_FIELDS,
    }  # fmt: skip
    assert all(ds[name].dims == ("frame",) for name in ds.coords)
    assert list(ds.indexes) == ["frame"]
    np.testing.assert_array_equal(ds.frame, np.arange(60))


def test_header_coordinates_are_those_of_the_frames_first_and_last_buffer(clean_card: Clean, open_card: Any) -> None:
    path, card = clean_card
    ds = open_card(path)
    words = np.array([b.words for b in card.buffers if b.index == 0])
    last = {b.frame_num: b.words[7] for b in card.buffers}
    np.testing.assert_array_equal(ds.time.astype(int), words[:, 7])
    np.testing.assert_array_equal(ds.time_last.astype(int), [last[k] for k in ds.frame_num.values])
    np.testing.assert_array_equal(ds.buffer_count, words[:, 3])
    np.testing.assert_array_equal(ds.ewl, words[:, 11])
    measured = words[:, 10] > 0  # the firmware measures for the first time some frames after it began
    assert not measured.all()
    np.testing.assert_allclose(ds.battery_voltage, np.where(measured, words[:, 10] / 255 * 1.1 * 5, np.nan))
    assert ds.battery_voltage.attrs["units"] == "V"
    raw = open_card(path, mask_and_scale=False)
    np.testing.assert_array_equal(raw.battery_voltage, words[:, 10])
    assert raw.battery_voltage.attrs["scale_factor"] == pytest.approx(1.1 * 5 / 255)


def test_attributes_are_flat_and_complete(clean_card: Clean, open_card: Any) -> None:
    attrs = open_card(clean_card[0]).attrs
    assert all(type(v) in (int, float, str, list) for v in attrs.values())
    assert {**attrs}.items() >= {
        "layout": "v4-wirefree", "fs": 20, "width": 304, "height": 304, "status": "finished",
        "n_buffers_found": attrs["n_buffers_recorded"], "n_buffers_dropped": 0,
    }.items()  # fmt: skip
    assert set(load_layout("v4-wirefree").header) <= set(attrs)
    assert "warnings" not in attrs


def test_open_dataarray_gives_the_video(clean_card: Clean) -> None:
    with xr.open_dataarray(clean_card[0], engine="miniscope") as video:
        assert video.name == "video"
        assert video.shape == (60, 304, 304)


def test_the_engine_is_guessed_for_a_card(clean_card: Clean) -> None:
    with xr.open_dataset(clean_card[0]) as ds:
        assert ds.video.shape == (60, 304, 304)


def test_the_buffer_table_has_a_row_for_every_written_buffer(clean_card: Clean, open_card: Any) -> None:
    path, card = clean_card
    table = open_card(path, group="buffers", mask_and_scale=False)
    assert table.sizes == {"buffer": len(card.buffers)}
    names = list(load_layout("v4-wirefree").buffer)
    np.testing.assert_array_equal(np.stack([table[n] for n in names], 1), [b.words for b in card.buffers])
    np.testing.assert_array_equal(table.sector, [b.sector for b in card.buffers])


def test_opening_and_looking_reads_no_header_table(
    clean_card: Clean, open_card: Any, reads: list[tuple[int, int]]
) -> None:
    ds = open_card(clean_card[0])
    opened = len(reads)
    assert opened <= 24
    repr(ds)
    ds._repr_html_()
    assert len(reads) == opened


def test_one_frame_costs_one_frame(clean_card: Clean, open_card: Any, reads: list[tuple[int, int]]) -> None:
    ds = open_card(clean_card[0])
    reads.clear()
    ds.video.variable[37].load()
    assert sum(length for _, length in reads) <= 181 * 512 + 3 * 512


def test_loading_a_recording_reads_its_headers_with_its_pixels(
    clean_card: Clean, open_card: Any, reads: list[tuple[int, int]]
) -> None:
    ds = open_card(clean_card[0])
    reads.clear()
    ds.load()
    data = clean_card[1].buffers[0].sector * 512
    rows = [(offset, offset + length) for offset, length in reads if offset + length > data + 512]
    slack = 181 * 512 - 5 * 48 - 304 * 304  # behind the last buffer's data
    assert sum(b - a for a, b in rows) == 60 * 181 * 512 - len(rows) * slack
    assert all(before[1] <= after[0] for before, after in pairwise(sorted(rows))), "a byte was read twice"


def test_a_frame_taken_out_can_be_changed_and_keeps_the_change(clean_card: Clean, open_card: Any) -> None:
    ds, image = open_card(clean_card[0]), clean_card[1].expected()[1][3]
    for frame in (ds.video[3], ds.isel(frame=np.uint8(3)).video, ds.video[np.int64(-57)], ds.video.variable[3]):
        frame[0, 0] = image[0, 0] ^ 1
        frame.values[0, 1] ^= 1
        np.testing.assert_array_equal(np.argwhere(frame.values != image), [[0, 0], [0, 1]])
        np.testing.assert_array_equal(ds.video[3], image)
    number = ds.frame_num[3]
    number[()] = 7
    assert number == 7
    assert ds.frame_num[3] == 3


@pytest.mark.parametrize("cache", [True, False])
def test_a_frame_taken_out_does_not_share_the_fate_of_the_recording(
    cache: bool, clean_card: Clean, open_card: Any
) -> None:
    ds, image = open_card(clean_card[0], cache=cache), clean_card[1].expected()[1][3]
    before, after = ds.isel(frame=3), ds.isel(frame=3)
    ds.video[3] = 0
    np.testing.assert_array_equal(before.video, image)
    ds.load()
    after.video[:] = 7
    assert (after.video == 7).all()
    assert (ds.video[3] == 0).all()


def test_attributes_of_a_frame_are_its_own(clean_card: Clean, open_card: Any) -> None:
    for ds in (open_card(clean_card[0]), open_card(clean_card[0]).drop_attrs().drop_encoding()):
        frame = ds.isel(frame=3)
        for name in ("video", "time"):
            frame[name].attrs["mine"] = frame[name].encoding["mine"] = 1
            ds[name].attrs["theirs"] = ds[name].encoding["theirs"] = 1
            assert "mine" not in {**ds[name].attrs, **ds[name].encoding}
            assert "theirs" not in {**frame[name].attrs, **frame[name].encoding}


def test_dimensions_and_frames_that_are_not_there(clean_card: Clean, open_card: Any) -> None:
    ds = open_card(clean_card[0])
    time = ds.isel(frame=3).time
    assert time.isel(frame=0, missing_dims="ignore").identical(time)
    with pytest.raises(ValueError, match="frame"):
        time.isel(frame=0)
    with pytest.warns(UserWarning, match="frame"):
        time.isel(frame=0, missing_dims="warn")
    for frame in (60, -61):
        with pytest.raises(IndexError):
            ds.video[frame]


def test_threads_look_at_one_frame_at_once(clean_card: Clean, open_card: Any) -> None:
    ds, video = open_card(clean_card[0]), clean_card[1].expected()[1]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            for k in range(60):
                frame = ds.isel(frame=k)
                looks = [pool.submit(lambda f=frame: (f.video.values, int(f.frame_num))) for _ in range(4)]
                for image, number in (look.result() for look in looks):
                    assert number == k
                    np.testing.assert_array_equal(image, video[k])
    finally:
        sys.setswitchinterval(interval)


SELECTIONS = [
    np.s_[:], np.s_[5], np.s_[-1], np.s_[10:20], np.s_[::7], np.s_[::-1], np.s_[50:10:-3], np.s_[[3, 40, 41, 59]],
    np.s_[[59, 3, 3]], np.s_[:, 100], np.s_[:, :, 7:9], np.s_[4, 5, 6], np.s_[2:9:2, ::50, [1, 200]], np.s_[[]],
    np.s_[60:], np.s_[..., 0],
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("selection", SELECTIONS, ids=str)
@pytest.mark.parametrize("chunks", [None, {}, {"frame": 7}])
def test_every_kind_of_selection_is_what_numpy_gives(
    selection: Any, chunks: Any, clean_card: Clean, open_card: Any
) -> None:
    path, card = clean_card
    video = card.expected()[1]
    ds = open_card(path, chunks=chunks)
    key = selection if isinstance(selection, tuple) else (selection,)
    if Ellipsis in key:
        key = (slice(None), slice(None), 0)
    wanted = video
    for axis in reversed(range(len(key))):
        wanted = wanted[(slice(None),) * axis + (key[axis],)]
    np.testing.assert_array_equal(ds.video[selection], wanted)


def test_vectorised_selection_and_boolean_masks(clean_card: Clean, open_card: Any) -> None:
    path, card = clean_card
    video = card.expected()[1]
    ds = open_card(path)
    points = xr.DataArray([3, 50, 7], dims="p"), xr.DataArray([0, 100, 303], dims="p")
    np.testing.assert_array_equal(ds.video.isel(frame=points[0], y=points[1]), video[[3, 50, 7], [0, 100, 303]])
    np.testing.assert_array_equal(ds.video[ds.frame_num.values % 20 == 3], video[3::20])


def test_async_loading(clean_card: Clean, open_card: Any) -> None:
    path, card = clean_card
    ds = open_card(path)
    if not hasattr(ds, "load_async"):
        pytest.skip("this xarray has no load_async")
    loaded = asyncio.run(ds[["video", "time"]].isel(frame=slice(3, 6)).load_async())
    np.testing.assert_array_equal(loaded.video, card.expected()[1][3:6])


def test_a_single_read_returns_memory_of_its_own(clean_card: Clean, open_card: Any) -> None:
    ds = open_card(clean_card[0])
    first = ds.video[3].values
    first[:] = 0
    assert ds.video[3].values.any()


@pytest.mark.slow
def test_pickled_datasets_read_in_other_processes(clean_card: Clean, open_card: Any) -> None:
    path, card = clean_card
    ds = open_card(path)
    again = pickle.loads(pickle.dumps(ds))
    np.testing.assert_array_equal(again.video[10], card.expected()[1][10])
    again.close()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(_sum, ds, 12).result() == int(card.expected()[1][12].sum())


def _sum(ds: xr.Dataset, frame: int) -> int:
    total = int(ds.video[frame].sum())
    ds.close()
    return total


def test_threads_read_at_once(clean_card: Clean, open_card: Any) -> None:
    path, card = clean_card
    video = card.expected()[1]
    ds = open_card(path)
    gate = threading.Barrier(4)

    def read(start: int) -> bool:
        gate.wait()
        return all(np.array_equal(ds.video[k], video[k]) for k in range(start, 60, 4))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(4)))


@pytest.mark.parametrize("scheduler", ["threads", pytest.param("processes", marks=pytest.mark.slow), "synchronous"])
def test_dask_computes_what_is_on_the_card(scheduler: str, clean_card: Clean, open_card: Any) -> None:
    path, card = clean_card
    ds = open_card(path, chunks={"frame": 20})
    mean = ds.video.astype("float64").mean("frame").compute(scheduler=scheduler)
    np.testing.assert_allclose(mean, card.expected()[1].mean(0))


def test_preferred_chunks_are_about_24_mb(clean_card: Clean, open_card: Any) -> None:
    ds = open_card(clean_card[0], chunks={})
    assert ds.chunks["frame"] == (60,)
    assert ds.video.encoding["preferred_chunks"] == {"frame": 259, "y": 304, "x": 304}
    assert "chunks" not in ds.video.encoding


@pytest.mark.parametrize("engine", ["netcdf4", "h5netcdf"])
def test_netcdf_round_trip(engine: Any, clean_card: Clean, open_card: Any, tmp_path: Path) -> None:
    ds = open_card(clean_card[0])
    ds.to_netcdf(tmp_path / "card.nc", engine=engine)
    with xr.open_dataset(tmp_path / "card.nc", engine=engine) as again:
        xr.testing.assert_equal(again.load(), ds.load())
        assert again.attrs["layout"] == "v4-wirefree"


@pytest.mark.slow
def test_zarr_round_trip(clean_card: Clean, open_card: Any, tmp_path: Path) -> None:
    ds = open_card(clean_card[0], chunks={"frame": 16})
    ds.to_zarr(tmp_path / "card.zarr", consolidated=False)
    with xr.open_zarr(tmp_path / "card.zarr", consolidated=False) as again:
        xr.testing.assert_equal(again.load(), ds.load())


def test_warnings_and_blank_times_survive_a_file(make_card: Any, open_card: Any, tmp_path: Path) -> None:
    path, _ = make_card(frames=30, events=[Stall(300, 400), PowerLoss(buffer=90, torn_sectors=5)])
    ds = open_card(path, gaps="fill")
    assert ds.attrs["status"] == "interrupted"
    assert isinstance(ds.attrs["warnings"], list)
    ds.to_netcdf(tmp_path / "card.nc")
    with xr.open_dataset(tmp_path / "card.nc") as again:
        np.testing.assert_array_equal(again.time, ds.time)
        assert (again.buffers_present == 0).any()


def test_gaps_can_be_filled_with_blank_frames(make_card: Any, open_card: Any) -> None:
    path, card = make_card(frames=40, events=[Stall(500, 400)])
    frame_num, video, present = card.expected()
    assert len(frame_num) < frame_num[-1] + 1, "the stall should lose frames"
    ds = open_card(path, gaps="fill")
    np.testing.assert_array_equal(ds.frame_num, np.arange(frame_num[-1] + 1))
    lost = np.setdiff1d(ds.frame_num, frame_num)
    assert not ds.video[lost].any()
    np.testing.assert_allclose(ds.time.astype(int), 50 * ds.frame_num, atol=60)
    assert (ds.time.diff("frame").astype(int) > 0).all()
    np.testing.assert_array_equal(ds.time_last[lost], ds.time[lost])
    assert np.isnan(ds.battery_voltage[lost]).all()
    assert not ds.buffers_present[lost].any()
    assert not ds.complete[lost].any()
    np.testing.assert_array_equal(ds.video[frame_num], video)
    np.testing.assert_array_equal(ds.buffers_present[frame_num], present)


def test_until_ends_a_recording_early(clean_card: Clean, open_card: Any) -> None:
    ds = open_card(clean_card[0], until=41)
    np.testing.assert_array_equal(ds.frame_num, np.arange(42))


def test_several_recordings_are_named_and_opened(make_card: Any, open_card: Any) -> None:
    path, card = make_card(frames=20, events=[RecordAgain(12)])
    with pytest.raises(RecordingError, match=r"2 recordings.*recording= one of: 0 \(.*1 \("):
        open_card(path)
    for number in (0, 1):
        frame_num, video, _ = card.expected(number)
        for ds in (open_card(path, recording=number), open_card(path, group=f"recording_{number}")):
            np.testing.assert_array_equal(ds.frame_num, frame_num)
            np.testing.assert_array_equal(ds.video, video)
        table = open_card(path, group=f"recording_{number}/buffers")
        assert table.sizes["buffer"] == sum(b.recording == number for b in card.buffers)
    with xr.open_datatree(path, engine="miniscope") as tree:
        assert list(tree.groups) == [
            "/", "/recording_0", "/recording_1", "/recording_0/buffers", "/recording_1/buffers",
        ]  # fmt: skip
        assert tree.attrs["n_recordings"] == 2
        np.testing.assert_array_equal(tree["recording_1"].video, card.expected(1)[1])


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"gaps": "full"}, OptionError, "gaps='full': expected 'skip' or 'fill'"),
        ({"index": "fast"}, OptionError, "index='fast': expected 'bisect' or 'scan'"),
        ({"errors": "ignore"}, OptionError, "errors='ignore': expected 'raise' or 'fill'"),
        ({"until": -1}, OptionError, "until=-1: expected the number of the last frame"),
        ({"until": "9"}, OptionError, "until='9'"),
        ({"recording": 1}, RecordingError, "recording=1: this card holds 0"),
        ({"recording": "first"}, OptionError, "recording='first': expected a number"),
        ({"group": "bufers"}, RecordingError, "did you mean 'buffers'?"),
        ({"group": "recording_0", "recording": 1}, OptionError, "disagree"),
        ({"layout": "v4"}, LayoutError, "layout 'v4'"),
    ],
)
def test_a_wrong_option_says_what_is_right(
    options: dict[str, Any], kind: type[Exception], said: str, clean_card: Clean, open_card: Any
) -> None:
    with pytest.raises(kind) as error:
        open_card(clean_card[0], **options)
    assert said in str(error.value)
    assert isinstance(error.value, MiniscopeError)
    assert isinstance(error.value, ValueError)


def test_variables_can_be_dropped(clean_card: Clean, open_card: Any) -> None:
    ds = open_card(clean_card[0], drop_variables=["time_last", "ewl"])
    assert not {"time_last", "ewl"} & set(ds.coords)


def test_times_can_stay_numbers(clean_card: Clean, open_card: Any) -> None:
    ds = open_card(clean_card[0], decode_timedelta=False)
    assert ds.time.dtype == np.int64
    assert ds.time.attrs["units"] == "milliseconds"


@pytest.mark.parametrize("layout", ["v4-wirefree", "wirefree-sd-layout", "wirefree-sd-layout-battery"])
def test_a_layout_can_be_named(layout: str, clean_card: Clean, open_card: Any) -> None:
    path, card = clean_card
    np.testing.assert_array_equal(open_card(path, layout=layout).video[7], card.expected()[1][7])


def test_a_layout_of_the_users_own(make_card: Any, open_card: Any) -> None:
    own = {
        "id": "ours", "sectors": {"header": 30, "config": 31, "data": 40},
        "header": {"gain": 4, "fs": 8}, "config": {
            "width": 0, "height": 1, "fs": 2, "buffer_size": 3, "n_buffers_recorded": 4, "n_buffers_dropped": 5},
        "buffer": {
            "length": 0, "slot": 1, "frame_num": 2, "buffer_count": 3, "frame_buffer_count": 4, "write_buffer_count": 5,
            "dropped_buffer_count": 6, "timestamp": 7, "data_length": 8, "temperature": {"word": 10, "scale": 0.5}},
    }  # fmt: skip
    card = simulate(frames=10)
    data = bytes(40 * 512) + card.data[1024 * 512 :]
    data = data[: 30 * 512] + card.data[1022 * 512 : 1024 * 512] + data[32 * 512 :]
    path, _ = make_card(frames=1)
    path.write_bytes(data)
    ds = open_card(path, layout=own)
    np.testing.assert_array_equal(ds.video, card.expected()[1])
    np.testing.assert_allclose(ds.temperature, [b.words[10] * 0.5 for b in card.buffers if b.index == 0])


def test_closing_frees_the_card_and_reading_reopens_it(clean_card: Clean) -> None:
    path, card = clean_card
    ds = xr.open_dataset(path, engine="miniscope")
    ds.close()
    np.testing.assert_array_equal(ds.video[5], card.expected()[1][5])
    ds.close()


def test_another_card_in_the_same_place_is_noticed(make_card: Any, open_card: Any) -> None:
    path, first = make_card(frames=20, seed=1, start_offset_ms=4)
    other = simulate(frames=20, seed=2, start_offset_ms=31)
    ds = open_card(path)
    lazy = open_card(path, chunks={"frame": 5})
    np.testing.assert_array_equal(ds.video[3], first.expected()[1][3])
    with path.open("r+b") as file:
        file.write(other.data)
    for read in (ds.video[4].load, ds.time[2:4].load, lazy.video.sum().compute):
        with pytest.raises(CardChangedError, match="not the card that was opened"):
            read()


def test_two_cards_in_one_reader_have_different_dask_keys(make_card: Any, open_card: Any) -> None:
    path, _ = make_card(frames=12, seed=1, start_offset_ms=4)
    keys = []
    for seed in (1, 2):
        path.write_bytes(simulate(frames=12, seed=seed, start_offset_ms=4 + seed).data)
        os.utime(path, (1.6e9, 1.6e9))  # a device node keeps its time too
        keys.append(open_card(path, chunks={}).video.data.name)
    assert keys[0] != keys[1]


def test_reading_a_block_device(clean_card: Clean, loop_device: Callable[..., str], open_card: Any) -> None:
    path, card = clean_card
    device = loop_device(path, "-r")
    ds = open_card(device)
    np.testing.assert_array_equal(ds.video, card.expected()[1])
    lazy = open_card(device, chunks={"frame": 16})
    assert int(lazy.video.sum()) == int(card.expected()[1].sum(dtype=np.int64))


def test_what_xarray_imports_for_every_file_is_small() -> None:
    """Xarray loads all its engines whatever it opens: those who open a NetCDF file do not wait for ours."""
    code = (
        "import sys, miniscope_xr.backend; "
        "ours = sorted(name for name in sys.modules if name.startswith('miniscope_xr')); "
        "assert len(ours) < 12, ours; assert not {'construct', 'yaml', 'miniscope_xr.card'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


@pytest.mark.slow
def test_importing_needs_neither_opencv_nor_dask() -> None:
    code = (
        "import sys, miniscope_xr; assert 'xarray' not in sys.modules; "
        "from miniscope_xr import SDCard, check; import miniscope_xr.backend, miniscope_xr.engine.opening; "
        "heavy = {'cv2', 'matplotlib', 'dask', 'zarr', 'h5py', 'av'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
