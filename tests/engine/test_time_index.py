"""time_index=True: the answers of the plain index, for tens of one-sector reads."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from xarray.testing.assertions import _assert_internal_invariants

from miniscope_xr.engine.time_index import TimeIndex
from miniscope_xr.source import local as device
from miniscope_xr.tools.simulate import SimulatedCard, Stall

Open = Callable[..., xr.Dataset]
Make = Callable[..., tuple[Path, SimulatedCard]]


@pytest.fixture
def pair(clean_card: tuple[Path, SimulatedCard], open_card: Open) -> tuple[xr.Dataset, xr.Dataset]:
    """The same card with our index and with the plain one."""
    path, _ = clean_card
    plain = open_card(path).drop_vars("frame").set_xindex("time")
    return open_card(path, time_index=True).drop_vars("frame"), plain


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lengths of the reads of card headers since the list was cleared."""
    seen: list[int] = []
    read, gather = device.Device.read, device.Device.gather

    def counted(self: Any, offset: int, length: int) -> bytes:
        seen.append(length)
        return read(self, offset, length)

    def counted_all(self: Any, offsets: Any, length: int) -> bytes | None:
        seen.extend([length] * len(offsets))
        return gather(self, offsets, length)

    monkeypatch.setattr(device.Device, "read", counted)
    monkeypatch.setattr(device.Device, "gather", counted_all)
    return seen


QUERIES: list[tuple[Any, dict[str, Any]]] = [
    ("1s", {"method": "nearest"}),
    (pd.Timedelta("1.234s"), {"method": "ffill"}),
    (np.timedelta64(1500, "ms"), {"method": "bfill"}),
    ("0s", {"method": "bfill"}),
    ("0s", {"method": "ffill"}),  # before the first
    ("1h", {"method": "nearest"}),
    ("1h", {"method": "bfill"}),  # behind the last
    ("1s", {"method": "nearest", "tolerance": pd.Timedelta("1ms")}),
    ("1s", {"method": "nearest", "tolerance": pd.Timedelta("1s")}),
    ("1s", {}),  # not there
    (["0.5s", "2s", "1s"], {"method": "nearest"}),
    (xr.DataArray(pd.to_timedelta([700, 900], unit="ms"), dims="event"), {"method": "nearest"}),
    (slice("0.5s", "2s"), {}),
    (slice(None, pd.Timedelta("1.2s")), {}),
    (slice("1.2s", None, 3), {}),
    (slice("2s", "1s"), {}),
    (slice("1s", "2s"), {"method": "nearest"}),  # not allowed
    (slice(None), {}),
    ("nonsense", {"method": "nearest"}),
    (7, {"method": "nearest"}),
]


def outcome(ds: xr.Dataset, label: Any, options: dict[str, Any]) -> Any:
    try:
        return ds.sel(time=label, **options)
    except Exception as error:
        return type(error)


def same(ours: Any, plain: Any) -> None:
    """Identical, the indexes too but for their kind."""
    _assert_internal_invariants(ours, check_default_indexes=False)
    assert set(ours.xindexes) == set(plain.xindexes)
    for name, index in ours.xindexes.items():
        assert index.to_pandas_index().equals(plain.xindexes[name].to_pandas_index())
    names = list(plain.xindexes)
    xr.testing.assert_identical(ours.drop_indexes(names), plain.drop_indexes(names))


@pytest.mark.parametrize(("label", "options"), QUERIES, ids=str)
def test_selects_what_the_plain_index_selects(
    pair: tuple[xr.Dataset, xr.Dataset], label: Any, options: dict[str, Any]
) -> None:
    ours, plain = (outcome(ds, label, options) for ds in pair)
    if isinstance(plain, type):
        assert ours is plain
    else:
        same(ours, plain)


def test_every_time_finds_its_frame(pair: tuple[xr.Dataset, xr.Dataset]) -> None:
    ours, plain = pair
    for k, time in enumerate(plain["time"].values):
        assert int(ours["frame_num"].sel(time=time)) == int(plain["frame_num"][k])


def test_int_times(clean_card: tuple[Path, SimulatedCard], open_card: Open) -> None:
    options = {"decode_timedelta": False}
    ours = open_card(clean_card[0], time_index=True, **options).drop_vars("frame")
    plain = open_card(clean_card[0], **options).drop_vars("frame").set_xindex("time")
    for label, how in [(1000, {"method": "nearest"}), (slice(500, 2000), {}), (1500.5, {"method": "ffill"})]:
        same(ours.sel(time=label, **how), plain.sel(time=label, **how))


def test_a_label_that_is_no_time_is_answered_as_a_plain_index_does(pair: tuple[xr.Dataset, xr.Dataset]) -> None:
    for ds in pair:
        with pytest.raises(KeyError):
            ds.sel(time=np.timedelta64("NaT", "ms"))


@pytest.mark.slow
def test_behaves_as_a_plain_index(pair: tuple[xr.Dataset, xr.Dataset]) -> None:
    changes: list[Callable[[xr.Dataset], Any]] = [
        lambda ds: ds.isel(frame=slice(5, 40, 2)),
        lambda ds: ds.isel(frame=[7, 3, 9]),
        lambda ds: ds.isel(frame=xr.DataArray([7, 3], dims="event")),
        lambda ds: ds.isel(frame=5),
        lambda ds: xr.concat([ds.isel(frame=slice(9)), ds.isel(frame=slice(20, 25))], "frame"),
        lambda ds: ds.roll(frame=3, roll_coords=True),
        lambda ds: ds.rename(time="t").sel(t="1s", method="nearest"),
        lambda ds: ds.rename(frame="f"),
        lambda ds: xr.align(ds.isel(frame=slice(30)), ds.isel(frame=slice(20, 50)), join="inner")[1],
        lambda ds: xr.align(ds.isel(frame=slice(30)), ds.isel(frame=slice(20, 50)), join="outer")[0]["ewl"],
        lambda ds: ds["ewl"] + ds["ewl"].isel(frame=slice(10, 20)),
        lambda ds: ds.isel(frame=slice(9)).reindex_like(ds.isel(frame=slice(20)))["ewl"],
        lambda ds: ds.sel(time=slice("1s", "2s")).sel(time="1.5s", method="nearest"),
        lambda ds: ds.copy(deep=True),
        lambda ds: pickle.loads(pickle.dumps(ds)),
        lambda ds: ds.drop_indexes("time"),
        lambda ds: ds.xindexes["time"].to_pandas_index().to_series(),
        lambda ds: ds.chunk(frame=7).sel(time=slice("1s", "2s")).compute(),
    ]
    for change in changes:
        for data in pair:
            changed, expected = change(data), change(pair[1])
            if isinstance(changed, pd.Series):
                assert changed.equals(expected)
                continue
            same(changed, expected)


def test_equality_and_alignment(clean_card: tuple[Path, SimulatedCard], make_card: Make, open_card: Open) -> None:
    path, _ = clean_card
    other, _ = make_card(frames=60, start_offset_ms=3.0)
    a, b, c = (open_card(p, time_index=True).drop_vars("frame") for p in (path, path, other))
    assert a.xindexes["time"].equals(b.xindexes["time"])
    assert not a.xindexes["time"].equals(c.xindexes["time"])
    assert not a.xindexes["time"].equals(a.isel(frame=slice(9)).xindexes["time"])
    xr.align(a, b, join="exact")
    with pytest.raises(ValueError, match="exact"):
        xr.align(a, c, join="exact")


def test_few_reads(make_card: Make, open_card: Open, reads: list[int]) -> None:
    path, _ = make_card(frames=1500, width=64, height=16)
    ds = open_card(path, time_index=True)
    frames = ds.sizes["frame"]
    repr(ds)
    ds._repr_html_()
    for label, how in [("40s", {"method": "nearest"}), (slice("20s", "60s"), {}), ("0s", {"method": "bfill"})]:
        reads.clear()
        ds.sel(time=label, **how)
        assert 0 < len(reads) <= 2 * frames.bit_length() + 8, (label, len(reads))
        assert max(reads) <= 2048
    reads.clear()
    other = open_card(path, time_index=True)
    reads.clear()
    assert ds.xindexes["time"].equals(other.xindexes["time"])
    ds.isel(frame=slice(100, 900))
    assert not reads


@pytest.mark.slow
def test_drops_and_blank_frames(make_card: Make, open_card: Open) -> None:
    path, _ = make_card(frames=120, events=[Stall(buffer=100, ms=900)])
    ours = open_card(path, time_index=True, gaps="fill").drop_vars("frame")
    times = ours["time"].values
    blank = ours["buffers_present"].values == 0
    assert blank.any()
    assert (np.diff(times) > np.timedelta64(0, "ms")).all()
    plain = open_card(path, gaps="fill").drop_vars("frame").set_xindex("time")
    labels = [(time, {}) for time in times] + [
        ("3.1s", {"method": "nearest"}), (times + np.timedelta64(1, "ms"), {"method": "ffill"}),
        (slice(times[10], times[-5]), {}), (times[blank][0] + np.timedelta64(3, "ms"), {"method": "nearest"}),
    ]  # fmt: skip
    for label, how in labels:
        same(ours.sel(time=label, **how), plain.sel(time=label, **how))


@pytest.mark.parametrize("order", [[0, 2, 1, 3, 4], [0, 1, 1, 1, 2], [4, 3, 2, 1, 0]], ids=["back", "twice", "falling"])
def test_times_out_of_order(pair: tuple[xr.Dataset, xr.Dataset], order: list[int]) -> None:
    ours, plain = (ds.isel(frame=[k * 10 for k in order]) for ds in pair)
    assert isinstance(ours.xindexes["time"], TimeIndex)
    times = plain["time"].values
    for label, how in [(times[1], {}), (times[2], {}), (slice(times[0], times[4]), {}), ("1s", {"method": "nearest"})]:
        mine, wanted = outcome(ours, label, how), outcome(plain, label, how)
        if isinstance(wanted, type):
            assert mine is wanted
        else:
            same(mine, wanted)


def test_zarr_holds_plain_times(clean_card: tuple[Path, SimulatedCard], open_card: Open, tmp_path: Path) -> None:
    pytest.importorskip("zarr", reason="needs zarr")
    ds = open_card(clean_card[0], time_index=True)
    ds.to_zarr(tmp_path / "a.zarr", consolidated=False)
    with xr.open_zarr(tmp_path / "a.zarr", consolidated=False, chunks=None) as back:
        xr.testing.assert_identical(back["time"].load(), open_card(clean_card[0])["time"].load())
        assert "time" not in back.xindexes


def test_dropped_time(clean_card: tuple[Path, SimulatedCard], open_card: Open) -> None:
    assert "time" not in open_card(clean_card[0], time_index=True, drop_variables="time").coords
