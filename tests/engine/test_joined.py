"""Several cards as one Dataset: all of their frames, or an error that says how; never some of them without a word."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from miniscope_xr.errors import OptionError
from miniscope_xr.tools.simulate import PowerLoss, Stall, simulate

pytest.importorskip("dask")

PAIRS = {
    "equal": ({"frames": 40}, {"frames": 40}),
    "unequal": ({"frames": 40}, {"frames": 25}),
    "the shorter first": ({"frames": 25}, {"frames": 40}),
    "with lost frames": ({"frames": 60, "events": [Stall(200, 900)]}, {"frames": 60}),
    "interrupted": ({"frames": 40, "events": [PowerLoss(at_ms=1000)]}, {"frames": 40}),
}


@pytest.fixture(params=PAIRS)
def cards(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    return [
        str(simulate(width=64, height=64, **how).write(tmp_path / f"{k}.img"))
        for k, how in enumerate(PAIRS[request.param])
    ]


def separate(cards: list[str], **options: Any) -> Iterator[xr.Dataset]:
    for card in cards:
        with xr.open_dataset(card, engine="miniscope", **options) as ds:
            yield ds.load()


@pytest.mark.parametrize("options", [{}, {"time_index": True}, {"chunks": {"frame": 7}}, {"parallel": True}], ids=str)
def test_the_default_call_is_refused_and_says_how(cards: list[str], options: dict[str, Any]) -> None:
    dask = pytest.importorskip("dask")
    one_by_one = dask.config.set(
        scheduler="synchronous"
    )  # with threads the second card may be open when the first says no
    with one_by_one, pytest.raises(OptionError, match=r"2 cards at once.*combine='nested', concat_dim='frame'"):
        xr.open_mfdataset(cards, engine="miniscope", **options)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"time_index": True}, {"parallel": True}, {"gaps": "fill"}], ids=str)
def test_nested_gives_every_frame_of_both(cards: list[str], options: dict[str, Any]) -> None:
    own = {name: value for name, value in options.items() if name == "gaps"}
    first, second = separate(cards, **own)
    with xr.open_mfdataset(cards, engine="miniscope", combine="nested", concat_dim="frame", **options) as both:
        for name in ("video", "frame_num", "time", "buffers_present", "complete"):
            np.testing.assert_array_equal(both[name].values, np.concatenate([first[name].values, second[name].values]))


def test_one_card_needs_no_word(cards: list[str]) -> None:
    with xr.open_mfdataset(cards[:1], engine="miniscope") as one, xr.open_dataset(cards[0], engine="miniscope") as same:
        assert one.sizes == same.sizes


def test_coordinates_of_one_s_own_join_them(cards: list[str]) -> None:
    """``preprocess`` can make ``frame`` count on from card to card: then xarray's default is right."""
    counts = {str(card): ds.sizes["frame"] for card, ds in zip(cards, separate(cards), strict=True)}

    def on(ds: xr.Dataset) -> xr.Dataset:
        return ds.assign_coords(frame=ds["frame"] + (counts[cards[0]] if ds.encoding["source"] == cards[1] else 0))

    with xr.open_mfdataset(cards, engine="miniscope", preprocess=on) as both:
        assert both.sizes["frame"] == sum(counts.values())


@pytest.mark.slow
@pytest.mark.parametrize("errors", ["raise", "fill"])
def test_cards_of_a_time_index_are_joined_as_those_of_a_plain_one(cards: list[str], errors: str) -> None:
    """Their clocks both begin at 0: a time may mean a frame of each card, and pandas says what becomes of that."""
    with contextlib.ExitStack() as opened:
        lazy = [
            opened.enter_context(xr.open_dataset(c, engine="miniscope", time_index=True, errors=errors)) for c in cards
        ]
        plain = [ds.set_xindex("time") for ds in separate(cards, errors=errors)]
        both, same = xr.concat(lazy, "frame"), xr.concat(plain, "frame")
        xr.testing.assert_equal(both.drop_indexes("time"), same.drop_indexes("time"))
        times = np.unique(same["time"].values)
        for label in (times[3], times[-1]):
            assert outcome(both, label) == outcome(same, label)


def outcome(ds: xr.Dataset, label: Any) -> Any:
    try:
        return ds.sel(time=label)["frame_num"].values.tolist()
    except Exception as error:
        return type(error)
