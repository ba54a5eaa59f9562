"""Lost frames are counted in one place: every tool tells the same of one card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from miniscope_xr import check
from miniscope_xr.card import OpenCard, OpenRecording
from miniscope_xr.tools.simulate import Stall
from miniscope_xr.tools.stream.footage import Footage
from miniscope_xr.tools.stream.gaps import Gap, clock_gaps, recording_gaps
from miniscope_xr.tools.view.line import line
from miniscope_xr.tools.view.shelf import Shelf

STALLS = [Stall(500, 300), Stall(1500, 400)]


def _told(path: Path) -> dict[str, int]:
    """Frames lost on a card, by each who tells."""
    report = check(path).recordings[0]
    shelf = Shelf()
    try:
        shelf.open(str(path))
        seen = line(shelf.seen(0, 0))["lost"]
    finally:
        shelf.close()
    with xr.open_dataset(path, engine="miniscope") as ds:
        footage = Footage(ds)
        for _ in footage.batches():
            pass
        return {
            "check": report.frames_lost,
            "the gaps of check": sum(gap.count for gap in report.gaps),
            "deep": check(path, deep=True).recordings[0].frames_lost,
            "video and exports": sum(gap.count for gap in footage.gaps),
            "view": sum(count for _, count in seen),
        }


@pytest.mark.parametrize("layout", ["v4-wirefree", "daq-wirefree", "v3-wirefree"])
def test_every_tool_counts_the_same(layout: str, make_card: Any) -> None:
    path, card = make_card(layout, frames=60, events=STALLS)
    numbers = card.expected()[0]
    with xr.open_dataset(path, engine="miniscope") as ds:
        times = ds["time"].values.astype("timedelta64[ms]").astype(int)
    # a v3 numbers what it writes; it took a frame every 50 ms
    taken = round((times[-1] - times[0]) / 50) + 1 if layout == "v3-wirefree" else int(numbers[-1]) + 1
    told = _told(path)
    assert set(told.values()) == {taken - len(numbers)}, told
    assert taken > len(numbers)


def test_a_v3_says_that_its_clock_shows_it(make_card: Any) -> None:
    path, _ = make_card("v3-wirefree", frames=60, events=STALLS)
    result = check(path)
    report = result.recordings[0]
    assert report.frames_per_second == pytest.approx(20, rel=0.002)
    assert "its clock shows it" in str(result)
    assert all(not gap.counted for gap in report.gaps)
    assert [gap["row"] for gap in result.to_dict()["recordings"][0]["gaps"]] == [gap.row for gap in report.gaps]


@pytest.mark.slow
def test_the_report_and_the_plot_show_the_gaps_of_a_v3(make_card: Any, tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    plt = pytest.importorskip("matplotlib.pyplot")
    from miniscope_xr.tools.report import write_report

    path, _ = make_card("v3-wirefree", frames=60, events=STALLS)
    gaps = check(path).recordings[0].gaps
    lost = sum(gap.count for gap in gaps)
    write_report(path, tmp_path / "a.html", progress=False)
    page = (tmp_path / "a.html").read_text()
    assert f"{lost} of {60 + lost} frames are missing" in page
    assert page.count('<rect class="gap"') == len(gaps) == page.count("not numbered by this device")
    with xr.open_dataset(path, engine="miniscope") as ds:
        figure = ds.miniscope.plot_headers()
        legend = figure.axes[0].get_legend()
        assert f"{lost} lost" in [text.get_text() for text in legend.get_texts()]
        plt.close(figure)


def test_frames_lost_before_the_first_one_count_too(make_card: Any) -> None:
    path, _ = make_card(frames=40, events=[Stall(0, 700)])
    with xr.open_dataset(path, engine="miniscope") as ds:
        ds = ds.isel(frame=slice(None)) if int(ds.frame_num[0]) else ds
        first = int(ds.frame_num[0])
    assert len(set(_told(path).values())) == 1
    if first:
        assert check(path).recordings[0].gaps[0] == Gap(0, first, 0, first - 1)


class TestClock:
    """Times every 50 ms, with frames taken out and a late one after each stall."""

    @staticmethod
    def times(count: int, lost: dict[int, int], drift: float = 0.0, noise: int = 0) -> np.ndarray[Any, Any]:
        steps = np.full(count - 1, 50.0 * (1 + drift))
        for row, frames in lost.items():
            steps[row - 1] += 50 * frames
        times = 1000 + np.concatenate([[0], np.cumsum(steps)])
        for row in lost:  # stamped when the write began: late, and the next one close behind
            times[row] += 30
        return np.rint(times + np.random.default_rng(1).integers(-noise, noise + 1, count)).astype(np.int64)

    @pytest.mark.parametrize(
        "lost", [{}, {1: 3}, {2: 1}, {5: 4}, {500: 1}, {1500: 2, 1502: 3, 2900: 7}, {2998: 1}, {2999: 2}]
    )
    @pytest.mark.parametrize(("drift", "noise"), [(0, 0), (3e-5, 1)])
    def test_finds_what_was_lost(self, lost: dict[int, int], drift: float, noise: int) -> None:
        times = self.times(3000, lost, drift, noise)
        gaps = clock_gaps(len(times), lambda rows: times[rows])
        assert sum(gap.count for gap in gaps) == sum(lost.values())
        assert [min(lost, key=lambda row, gap=gap: abs(row - gap.row)) for gap in gaps] == [gap.row for gap in gaps]

    def test_looks_at_few_of_many(self) -> None:
        times = self.times(50_000, {30_000: 2, 31_000: 1})
        seen: set[int] = set()

        def look(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            seen.update(rows.tolist())
            taken: np.ndarray[Any, Any] = times[rows]
            return taken

        assert clock_gaps(len(times), look) == [Gap(30_000, 2), Gap(31_000, 1)]
        assert len(seen) < 4000

    def test_frames_without_a_time_are_passed_over(self) -> None:
        times = self.times(3000, {700: 3, 2000: 1})
        times[[0, 5, 699, 1024, 1999, 2000, 2999]] = np.iinfo(np.int64).min
        gaps = clock_gaps(len(times), lambda rows: times[rows])
        assert [gap.count for gap in gaps] == [3, 1]


def test_a_device_that_counts_is_not_read_for_its_gaps(make_card: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = make_card(frames=60, events=STALLS)
    card = OpenCard(path)
    try:
        store = OpenRecording(card, card.index.recordings[0])
        monkeypatch.setattr(store, "describe", None)
        assert recording_gaps(store)
    finally:
        card.close()
