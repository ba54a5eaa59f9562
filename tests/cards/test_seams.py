"""A recording ends where it really ends, whatever lies behind it; ``tests/measure/seams.py`` measures it at length."""

from __future__ import annotations

from pathlib import Path

import pytest

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
