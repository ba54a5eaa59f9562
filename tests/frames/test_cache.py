"""Headers that come along with pixels serve whatever coordinates are asked for next, and nothing else."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from miniscope_xr.card import OpenCard, OpenRecording
from miniscope_xr.frames.cache import HeaderTable, HeaderTables
from miniscope_xr.tools.simulate import FailedWrite, Stall, simulate

STRETCH = st.tuples(st.integers(0, 50), st.integers(2, 30)).map(lambda a: np.arange(a[0], a[0] + a[1]))


def table_of(rows: np.ndarray[Any, Any]) -> HeaderTable:
    """Headers that are their frame's row; every third frame is not known."""
    return HeaderTable(np.repeat(rows[:, None], 2, axis=1).astype("<u4"), rows % 3 > 0)


@pytest.mark.slow
@given(st.lists(STRETCH, max_size=8), st.lists(STRETCH, min_size=1, max_size=4), st.integers(1, 100))
def test_a_row_is_known_as_it_was_put_or_not_at_all(kept: list[Any], asked: list[Any], most: int) -> None:
    tables = HeaderTables(most)
    for rows in kept:
        tables.put(rows, table_of(rows))
    for rows in asked:
        found = tables.take(rows)
        if found is not None:
            assert len(found.known) == len(rows)
            np.testing.assert_array_equal(found.words[found.known], np.repeat(rows[found.known, None], 2, axis=1))
            assert not found.known[rows % 3 == 0].any()


@given(STRETCH)
def test_the_newest_stretch_is_kept_however_long(rows: np.ndarray[Any, Any]) -> None:
    tables = HeaderTables(1)
    tables.put(np.arange(9), table_of(np.arange(9)))
    tables.put(rows, table_of(rows))
    found = tables.take(rows)
    assert found is not None
    np.testing.assert_array_equal(found.known, rows % 3 > 0)
    assert tables.take(rows) is None  # once it was asked for, its place is free


def test_rows_that_do_not_follow_one_another_are_not_kept() -> None:
    tables = HeaderTables(100)
    for rows in (np.array([3, 5, 4]), np.array([5, 4, 3]), np.array([3, 3, 5]), np.array([7]), np.array([], np.int64)):
        tables.put(rows, table_of(rows))
        assert tables.take(rows) is None
    assert tables.take(np.arange(9)) is None


@pytest.fixture(scope="module")
def stalled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A card with drops, laps and a hole."""
    path = tmp_path_factory.mktemp("tables") / "stalled.img"
    simulate("v4-wirefree", frames=60, events=[Stall(400, 250), Stall(1500, 90), FailedWrite(190)]).write(path)
    return path


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.booleans(), STRETCH), min_size=1, max_size=8))
def test_pixels_and_coordinates_in_any_order_are_what_a_fresh_reader_says(stalled: Path, work: list[Any]) -> None:
    card = OpenCard(stalled)
    try:
        store = OpenRecording(card, card.recording(None))
        for pixels, rows in work:
            chosen = rows[rows < store.frames.count]
            if not len(chosen):
                continue
            if pixels:
                store.pixels(chosen)
                continue
            fresh = OpenRecording(card, card.recording(None)).describe(chosen)
            assert all(map(np.array_equal, astuple(store.describe(chosen)), astuple(fresh)))
    finally:
        card.close()
