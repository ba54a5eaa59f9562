"""A recording ends where it really ends, whatever lies behind it; ``tests/measure/seams.py`` measures it at length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from miniscope_xr.tools.simulate import PowerLoss, Stall, simulate
from tests.measure import seams


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, 32, 4))
def test_no_older_recording_is_returned_without_a_word(start: int, tmp_path: Path) -> None:
    pairs = [seams.measure(seed, tmp_path) for seed in range(start, start + 4)]
    wrong = [p for p in pairs if p.verdict in (seams.SHORT, seams.MISSED)]
    assert wrong == []


@pytest.mark.slow
def test_scanning_judges_as_bisecting_does(tmp_path: Path) -> None:
    for seed in range(40, 46):
        one, two = (seams.measure(seed, tmp_path, index) for index in ("bisect", "scan"))
        assert (one.found, one.verdict) == (two.found, two.verdict)


@pytest.mark.slow
def test_behind_what_seems_a_hole_but_is_an_older_recording_nothing_is_ours(tmp_path: Path) -> None:
    """A DAQ's older recording that dropped less: its buffers come back to our counters and nearly our clock."""
    pair = seams.measure(435, tmp_path)
    assert (pair.verdict, pair.found) == ("exact", 155)


@pytest.mark.parametrize("behind", [10, 16, 20])
def test_the_power_cut_off_a_recording_soon_after_a_drop_that_the_older_one_had_too(
    behind: int, tmp_path: Path, open_card: Any
) -> None:
    """Counters go on across the seam; the clock does so up to it, and not only up to the drop."""
    stall = Stall(buffer=54, ms=60)
    older = simulate("daq-wirefree", frames=40, seed=51, events=[stall])
    drop = next(i for i, b in enumerate(older.buffers) if b.words[6])
    card = simulate(
        "daq-wirefree", frames=30, seed=1, events=[stall, PowerLoss(buffer=drop + behind)], under=older,
        start_offset_ms=17.0,
    )  # fmt: skip
    ds = open_card(card.write(tmp_path / "card.img"))
    end = max(b.sector + b.n_sectors for b in card.buffers)
    np.testing.assert_array_equal(ds.frame_num, card.expected()[0])
    np.testing.assert_array_equal(ds.buffers_present, card.expected()[2])
    assert [said for said in ds.warnings if "older" in said] == [
        f"an older recording lies behind this one, from sector {end} on, and is not returned"
    ]
