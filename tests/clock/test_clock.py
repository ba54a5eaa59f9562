"""One clock: on simulated truth every frame is within half a frame, and the stated error is true."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from miniscope_xr.errors import OptionError
from miniscope_xr.tools.clock.align import align, find_clock, with_clock
from miniscope_xr.tools.clock.fit import ClockError, fit_clocks, student
from miniscope_xr.tools.clock.match import match_pulses
from miniscope_xr.tools.clock.saved import read_clock, to_text
from miniscope_xr.tools.clock.tables import read_pairs, read_pulses
from miniscope_xr.tools.stream.camera import camera_times

FRAME = 0.05
HOUR = 3600.0


class Truth:
    """An hour with 100 millionths of drift, pulses every 5 to 15 s, seen with jitter, some missing and some false."""

    def __init__(self, seed: int, missing: float = 0.10, false: float = 0.05, jitter: float = 0.008) -> None:
        rng = np.random.default_rng(seed)
        times = np.cumsum(rng.uniform(5, 15, 500))
        self.pulses = times[times < HOUR]
        self.offset, self.drift = float(rng.uniform(-5000, 5000)), float(rng.choice([-1e-4, 1e-4]))
        self.frames = np.arange(0, HOUR, FRAME)

        def seen(true: np.ndarray) -> np.ndarray:
            there = true[rng.random(len(true)) > missing]
            there = there + (rng.normal(0, jitter, len(there)) if seed % 2 else rng.uniform(-2, 2, len(there)) * jitter)
            return np.sort(np.append(there, rng.uniform(there[0], there[-1], int(false * len(there)))))

        self.card, self.other = seen(self.pulses), seen(self.at(self.pulses))

    def at(self, card: Any) -> Any:
        return self.offset + (1 + self.drift) * np.asarray(card)


@pytest.mark.slow
def test_every_frame_is_within_half_a_frame_and_the_stated_error_is_true() -> None:
    """Which pulse is which is not known; tests/measure/clock.py does the same for 1,000 hours."""
    covered, worst = [], 0.0
    for seed in range(60):
        truth = Truth(seed)
        mine, theirs = match_pulses(truth.card, truth.other, FRAME / 2)
        fit = fit_clocks(truth.card[mine], truth.other[theirs])
        off = np.abs(fit.at(truth.frames) - truth.at(truth.frames))
        covered.append(float((off <= fit.error(truth.frames)).mean()))
        worst = max(worst, float(off.max()))
        assert fit.jumps == ()
    assert worst < FRAME / 2
    assert 0.93 <= np.mean(covered) <= 0.97


class TestFit:
    def test_wrong_pairs_are_left_out_and_named(self) -> None:
        rng = np.random.default_rng(1)
        card = np.sort(rng.uniform(0, HOUR, 60))
        other = 100 + 1.00004 * card + rng.normal(0, 0.005, 60)
        wrong = rng.choice(60, 12, replace=False)
        other[wrong] += rng.choice([-1, 1], 12) * rng.uniform(0.2, 300, 12)
        fit = fit_clocks(card, other)
        assert sorted(np.flatnonzero(~fit.used)) == sorted(wrong)
        assert fit.ppm == pytest.approx(40, abs=2)
        assert fit.spread == pytest.approx(0.005, rel=0.3)

    @pytest.mark.parametrize("size", [0.15, -1.0, 3600.0])
    def test_a_jump_of_the_other_clock_is_found(self, size: float) -> None:
        """Its times are not dragged along, and between the two pairs around it either may be true."""
        rng = np.random.default_rng(2)
        card = np.sort(rng.uniform(0, HOUR, 200))
        true = 5 + (1 - 3e-5) * card + size * (card > 1500)
        fit = fit_clocks(card, true + rng.normal(0, 0.006, 200))
        assert len(fit.jumps) == 1
        when, found = fit.jumps[0]
        assert found == pytest.approx(size, abs=0.005)
        before, after = card[card <= 1500].max(), card[card > 1500].min()
        assert before < when <= after
        at = np.array([0.0, 1400.0, 1600.0, HOUR])
        np.testing.assert_allclose(fit.at(at), 5 + (1 - 3e-5) * at + size * (at > 1500), atol=0.005)
        assert fit.error(np.array([(before + after) / 2]))[0] > abs(size)
        assert fit.used.all()

    def test_order_and_what_is_there_again_do_not_matter(self) -> None:
        """A pair that a table has twenty times makes nothing surer, and a row without a time is none."""
        rng = np.random.default_rng(5)
        card = np.sort(rng.uniform(0, HOUR, 40))
        other = 3 + 1.00003 * card + rng.normal(0, 0.004, 40)
        once = fit_clocks(card, other)
        rows = rng.permutation(np.append(np.arange(40), np.repeat([3, 17], 20)))
        again = fit_clocks([*card[rows], np.nan, 5.0], [*other[rows], 7.0, np.nan])
        for name in ("card", "other", "used", "cover"):
            np.testing.assert_array_equal(getattr(again, name), getattr(once, name))
        assert (again.offset, again.drift, again.spread) == (once.offset, once.drift, once.spread)

    @pytest.mark.slow
    def test_the_error_holds_with_gaps_in_the_table(self) -> None:
        held = []
        at = np.linspace(0, HOUR, 50)
        for seed in range(400):
            rng = np.random.default_rng(seed)
            card = rng.uniform(0, HOUR, 40)
            other = 3 + 1.00003 * card + rng.normal(0, 0.004, 40)
            card[::5] = np.nan
            rows = rng.permutation(np.repeat(np.arange(40), rng.integers(1, 5, 40)))
            fit = fit_clocks(card[rows], other[rows])
            held.append((np.abs(fit.at(at) - (3 + 1.00003 * at)) <= fit.error(at)).mean())
        assert 0.93 <= np.mean(held) <= 0.97

    def test_a_steady_clock_has_no_jump(self) -> None:
        for seed in range(20):
            rng = np.random.default_rng(seed)
            card = np.sort(rng.uniform(0, HOUR, 100))
            assert fit_clocks(card, 3 + card + rng.normal(0, 0.01, 100)).jumps == ()

    def test_a_rate_that_wanders_widens_the_error(self) -> None:
        rng = np.random.default_rng(4)
        card = np.linspace(0, HOUR, 300)
        noise = rng.normal(0, 0.003, 300)
        wander = 0.02 * np.sin(card / 300)
        assert (
            fit_clocks(card, card + noise + wander).error(card).mean()
            > 3 * fit_clocks(card, card + noise).error(card).mean()
        )

    def test_two_pairs_are_as_sure_as_their_events(self) -> None:
        """Seen to 30 ms ten minutes apart they tell the drift; seconds apart they do not: it is any quartz's."""
        fit = fit_clocks([10, 610], [1010, 1610.06], bound=0.03)
        assert fit.ppm == pytest.approx(100, abs=15)
        assert 0.03 <= fit.error(np.array([10.0]))[0] <= 0.045
        assert fit.error(np.array([3000.0]))[0] > 0.1
        two = fit_clocks([10, 610], [1010, 1610.06])  # of nobody knows what
        assert two.ppm == pytest.approx(100)
        assert np.isnan(two.error(np.array([10.0, 300.0]))).all()
        close = fit_clocks([10, 20], [1010, 1020.04], bound=0.03)
        assert abs(close.ppm or 0) < 20  # of the 4,000 that were seen
        assert close.error(np.array([610.0]))[0] > 0.1

    def test_one_pair_is_an_offset_and_no_drift(self) -> None:
        fit = fit_clocks([10.0], [500.0])
        assert fit.drift is None
        assert fit.at(np.array([12.0]))[0] == 502
        assert np.isnan(fit.error(np.array([12.0]))).all()

    @pytest.mark.parametrize(
        ("card", "other", "said"),
        [
            ([], [], "no pair of times"),
            ([np.nan], [1.0], "no pair of times"),
            ([1, 2, 3], [1000, 2000, 3000], "which no clock does"),
            ([1, 2], [1.0], "pairs are expected"),
        ],
    )
    def test_what_cannot_be_is_refused(self, card: list[float], other: list[float], said: str) -> None:
        with pytest.raises(ClockError, match=said):
            fit_clocks(card, other)

    def test_student(self) -> None:
        for free, value in ((1, 12.706), (10, 2.228), (11, 2.201), (30, 2.042), (1000, 1.962)):
            assert student(free) == pytest.approx(value, abs=0.001)


class TestMatch:
    def test_even_pulses_cannot_be_told_apart(self) -> None:
        with pytest.raises(ClockError, match="come at even intervals"):
            match_pulses(np.arange(0, 600, 10.0), np.arange(3, 603, 10.0), 0.02)

    def test_pulses_of_something_else_are_refused(self) -> None:
        rng = np.random.default_rng(0)
        first, second = (np.sort(rng.uniform(0, 600, 40)) for _ in range(2))
        with pytest.raises(ClockError, match="not of the same events"):
            match_pulses(first, second, 0.02)

    def test_pulses_that_bounce_are_not_guessed_at(self) -> None:
        """One clock has each pulse twice, a moment apart: nobody knows which of both is the other's."""
        truth = Truth(6)
        for lists in ((truth.card, np.append(truth.other, truth.other + 0.2)),
                      (np.append(truth.card, truth.card + 0.2), truth.other)):  # fmt: skip
            with pytest.raises(ClockError, match=r"fit twice, 0\.\d+ s apart"):
                match_pulses(*lists, 0.025)
        mine, theirs = match_pulses(*(np.append(times, times + 0.2) for times in (truth.card, truth.other)), 0.025)
        assert len(mine) > 1.7 * len(truth.pulses) * 0.8
        both = np.sort(np.append(truth.other, truth.other + 0.2))[theirs]
        off = both - truth.at(np.sort(np.append(truth.card, truth.card + 0.2))[mine])
        assert np.median(np.abs(off)) < 0.02

    def test_one_list_may_begin_before_the_other(self) -> None:
        truth = Truth(3)
        later = truth.other[truth.other > truth.at(1800)]
        mine, theirs = match_pulses(truth.card, later, 0.025)
        off = later[theirs] - truth.at(truth.card[mine])
        assert np.median(np.abs(off)) < 0.02
        assert len(mine) > 0.75 * len(later)

    def test_too_few(self) -> None:
        with pytest.raises(ClockError, match="four and more"):
            match_pulses([1, 2, 3], [1, 2, 3], 0.02)


def recording(frames: int = 400, ms: float = 50.0, first: float = 40.0) -> xr.Dataset:
    times = (first + np.arange(frames) * ms).astype("timedelta64[ms]")
    video = ("frame", "y", "x"), np.zeros((frames, 8, 8), np.uint8)
    return xr.Dataset({"video": video}, {"frame": np.arange(frames), "time": ("frame", times)})


class TestAlign:
    def test_pairs_give_dates(self, tmp_path: Path) -> None:
        table = tmp_path / "pairs.csv"
        table.write_text("card,behaviour\n0.04,2026-03-14T15:09:26+00:00\n10.04,2026-03-14T15:09:36.001+00:00\n")
        ds = align(recording(), pairs=table)
        assert ds.wall_time.values[0] == np.datetime64("2026-03-14T15:09:26")
        assert ds.wall_time.values[200] == np.datetime64("2026-03-14T15:09:36.001")
        assert ds.attrs["clock_drift_ppm"] == pytest.approx(100, abs=0.1)
        assert ds.wall_time.dims == ds.clock_error.dims == ("frame",)

    def test_seconds_without_a_date_give_no_date(self) -> None:
        ds = align(recording(), pairs=[(0.04, 7.0), (5.04, 12.0), (10.04, 17.0), (15.04, 22.0)])
        assert "wall_time" not in ds.coords
        np.testing.assert_allclose(ds.clock_time[:3], [7, 7.05, 7.1], atol=1e-6)
        dated = align(recording(), pairs=[(0.04, 7.0), (10.04, 17.0)], start="2026-03-14T00:00:00+00:00")
        assert dated.wall_time.values[0] == np.datetime64("2026-03-14T00:00:07")

    def test_a_start_alone_says_that_the_drift_is_not_known(self) -> None:
        ds = align(recording(), start="2026-03-14T15:09:26+01:00")
        assert ds.wall_time.values[0] == np.datetime64("2026-03-14T14:09:26")
        assert ds.attrs["clock_drift_ppm"] == "not known"
        assert "the drift is not" in ds.attrs["clock_source"]
        assert float(ds.clock_error[0]) == 0
        assert np.isnan(ds.clock_error[1:]).all()
        assert "clock_error" not in ds.attrs

    def test_pulses_with_the_card_s_own(self) -> None:
        truth = Truth(5)
        ds = align(recording(72_000, first=0), pulses=truth.other, card=truth.card)
        assert np.abs(ds.clock_time.values - truth.at(np.arange(72_000) * FRAME)).max() < FRAME / 2
        assert "matched by their intervals" in ds.attrs["clock_source"]

    def test_a_ttl_table_of_start_and_end(self, tmp_path: Path) -> None:
        """The LED's driver on a TTL line: other edges are in the table too."""
        ttl = tmp_path / "ttl.csv"
        ttl.write_text("time;level\n3.0;1\n3.5;0\n100.0;1\n100.5;0\n120.001;1\n120.2;0\n200.0;1\n")
        ds = align(recording(), pulses=ttl)  # it begins one frame before the first is complete
        np.testing.assert_allclose(ds.clock_time.values[[0, -1]], [100.05, 120.0], atol=0.002)
        assert 0.04 < ds.attrs["clock_error"] < 0.1

    @pytest.mark.parametrize(("pairs", "after"), [(6, 1), (6, 3), (12, 8), (40, 20)])
    @pytest.mark.parametrize("leap", [1.0, -1.0])
    def test_daylight_saving_time_is_no_jump(self, pairs: int, after: int, leap: float) -> None:
        """Times of a camera without their zone, over the hour at which clocks are put forward or back."""
        card = np.sort(np.random.default_rng(pairs).uniform(0, 18, pairs))
        shown = card + 3600 * leap * (np.arange(pairs) >= pairs - after)
        began = np.datetime64("2026-03-29T01:59:50")
        with pytest.raises(ClockError, match="daylight saving time"):
            align(recording(), pairs=list(zip(card, began + (shown * 1e6).astype("timedelta64[us]"), strict=True)))

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ("2026-03-14T23:59:58.000+01:00", "2026-03-15T00:00:08.000+01:00"),
            ("2026-03-29T01:59:58.000+01:00", "2026-03-29T03:00:08.000+02:00"),
            ("2026-10-25T02:59:58.000+02:00", "2026-10-25T02:00:08.000+01:00"),
        ],
        ids=["midnight", "summer time begins", "summer time ends"],
    )
    def test_times_with_their_zone_run_on(self, before: str, after: str) -> None:
        ds = align(recording(), pairs=[("0", before), ("10", after)])
        since = (ds.wall_time.values - ds.wall_time.values[0]) / np.timedelta64(1, "ms")
        np.testing.assert_allclose(since, np.arange(ds.sizes["frame"]) * 50.0, atol=0.01)
        assert abs(ds.attrs["clock_drift_ppm"]) < 0.1

    def test_a_clock_that_was_set_is_a_jump(self) -> None:
        card = np.arange(0, 19, 0.5)
        ds = align(recording(), pairs=np.stack([card, card + 12.5 * (card > 9)], axis=1))
        assert len(ds.attrs["clock_jumps"]) == 1

    def test_a_table_with_empty_cells(self, tmp_path: Path) -> None:
        (tmp_path / "t.csv").write_text("card,other\n0.5,7.5\n1,\n5,12\n,3\n9,nan\n10,17\n")
        ds = align(recording(), pairs=tmp_path / "t.csv")
        assert ds.clock_pair_card.values.tolist() == [0.5, 5, 10]
        dates = [f"2026-03-14T15:00:{s:02}" for s in (7, 12, 17)]
        ds = align(recording(), pairs=[(0, dates[0]), (2, ""), (5, dates[1]), (3, "NaT"), (10, dates[2])])
        assert ds.sizes["clock_pair"] == 3
        whole = np.array(["2026-03-14T15:00:07", "NaT", "2026-03-14T15:00:27"], "datetime64[ns]")
        assert align(recording(), pulses=whole).sizes["clock_pair"] == 2

    def test_pulses_that_fit_nothing_say_so(self) -> None:
        with pytest.raises(ClockError, match=r"no two pulses are 20\.00 s apart"):
            align(recording(), pulses=[1.0, 5.0, 90.0])
        with pytest.raises(ClockError, match="2 pairs of pulses"):
            align(recording(), pulses=[1.0, 21.0, 100.0, 120.0])

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({}, "nothing brings the clocks together"),
            ({"pairs": [(0, 1)], "pulses": [1]}, "pairs and pulses: give one"),
            ({"pairs": [(0, 1, 2)]}, "rows of two times"),
            ({"pairs": [(0, "noon")]}, "expected seconds or times"),
            ({"pairs": [(0, 1.7e12), (1.9e6, 1.7e12 + 1.9e6)]}, "are both columns in seconds"),
            ({"pairs": [(1.7e9, 0), (1.7e9 + 19, 19)]}, "the card's first"),
            ({"pairs": [(0, 1.7e9), (1, 1.7e9 + 1)], "start": "2026-03-14"}, "leave start out"),
            ({"start": "noon"}, "expected seconds or times"),
        ],
    )
    def test_what_cannot_be_is_refused(self, options: dict[str, Any], said: str) -> None:
        with pytest.raises(ClockError, match=said):
            align(recording(), **options)

    def test_an_unknown_option_is_named(self) -> None:
        with pytest.raises(TypeError, match="did you mean 'pairs'"):
            align(recording(), pair=[(0, 1)])

    def test_it_can_be_done_again(self) -> None:
        once = align(recording(), pairs=[(0, 1), (5, 6), (10, 11)])
        again = align(once, pairs=[(0, 2), (10, 12)])
        assert float(again.clock_time[0]) == pytest.approx(2.04)
        assert again.sizes["clock_pair"] == 2

    def test_a_clock_is_saved_and_read(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        card = np.sort(rng.uniform(0, 20, 50))
        pairs = np.stack([card, 1.7e9 + card + 0.5 * (card > 9) + rng.normal(0, 0.002, 50)], axis=1)
        clock = find_clock(recording(), pairs=pairs)
        (tmp_path / "clock.json").write_text(to_text(clock))
        same = with_clock(recording(), read_clock(tmp_path / "clock.json"))
        xr.testing.assert_identical(same, with_clock(recording(), clock))
        assert len(clock.fit.jumps) == 1
        (tmp_path / "other.json").write_text(json.dumps({"kind": "else"}))
        for name in ("other.json", "missing.json"):
            with pytest.raises(OptionError):
                read_clock(tmp_path / name)


class TestTables:
    def test_pairs_with_and_without_a_heading(self, tmp_path: Path) -> None:
        for text in ("card,other\n1,2\n3,4\n", "1;2\n3;4\n", "# a note\n1\t2\n3\t4\n", "﻿1,2\r\n3,4\r\n"):
            (tmp_path / "t.csv").write_text(text, encoding="utf-8")
            card, other = read_pairs(tmp_path / "t.csv")
            assert (card.tolist(), other.seconds.tolist(), other.dated) == ([1, 3], [2, 4], False)

    def test_only_rising_edges_count(self, tmp_path: Path) -> None:
        (tmp_path / "t.csv").write_text("t,level\n1,1\n1.5,0\n4,1\n4.1,1\n5,0\n")
        assert read_pulses(tmp_path / "t.csv").seconds.tolist() == [1, 4]

    @pytest.mark.parametrize(
        "data",
        [
            "Karte (s);Kamera (s)\r\n1,5;2,25\r\n3,5;4,25\r\n".encode("utf-8-sig"),
            "Zeit\tKamera µs\n1,5\t2,25\n3,5\t4,25\n".encode("utf-16"),
            b'"1,5","2,25"\n"3,5","4,25"\n',
            b"sep=;\r\n\r\nSession of Monday\r\ncard;other\r\n1.5;2.25\r\n3.5;4.25\r\n",
            b"Channel 1;Channel 2\n1,5;2,25\n3,5;4,25\n",
            b"card (ms),camera_ms\n1500,2250\n3500,4250\n",
        ],
        ids=["Excel, German", "Excel, Unicode text", "quoted", "lines above", "a digit in the heading", "ms"],
    )
    def test_pairs_as_spreadsheets_save_them(self, data: bytes, tmp_path: Path) -> None:
        (tmp_path / "t.csv").write_bytes(data)
        card, other = read_pairs(tmp_path / "t.csv")
        assert (card.tolist(), other.seconds.tolist(), other.dated) == ([1.5, 3.5], [2.25, 4.25], False)

    @pytest.mark.parametrize(
        "row",
        ["29.11.2026 15:09:26,500", "29.11.26 15:09:26.5", "11/29/2026 3:09:26.5 PM", "29/11/2026 15:09:26.5",
         "2026/11/29 15:09:26.5", "2026-11-29T15:09:26.500"],
    )  # fmt: skip
    def test_dates_as_countries_write_them(self, row: str, tmp_path: Path) -> None:
        (tmp_path / "t.csv").write_text(f"card;when\n1;{row}\n2;\n", encoding="utf-8")
        _, other = read_pairs(tmp_path / "t.csv")
        assert other.dated
        assert other.seconds[0] == datetime(2026, 11, 29, 15, 9, 26, 500_000).timestamp()
        assert np.isnan(other.seconds[1])

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("1;3/4/2026 12:00\n", "one day in one country"),
            ("1;31.11.2026 12:00\n", "day is out of range"),
            ("card,other\n0,5,12,3\n", "decimal comma"),
        ],
    )
    def test_what_could_be_two_things_is_not_guessed(self, text: str, said: str, tmp_path: Path) -> None:
        (tmp_path / "t.csv").write_text(text)
        with pytest.raises(OptionError, match=said):
            read_pairs(tmp_path / "t.csv")

    @pytest.mark.parametrize(
        "text",
        [
            "Zeit;Pegel\n1,5;1\n2;0\n4,25;1\n5;0\n", "Temps (s)\n1,5\n4,25\n", "1.5,high\n2,low\n4.25,HIGH\n",
            "t,edge\n1.5,rising\n2,falling\n4.25,rising\n", "t (ms),TTL\n1500,True\n2000,False\n4250,True\n",
            "1.5;1,0\n2;0,0\n4.25;1,0\n",
        ],
    )  # fmt: skip
    def test_pulses_in_any_language(self, text: str, tmp_path: Path) -> None:
        (tmp_path / "t.csv").write_text(text)
        assert read_pulses(tmp_path / "t.csv").seconds.tolist() == [1.5, 4.25]

    def test_edges_in_words_that_are_not_known_are_not_guessed(self, tmp_path: Path) -> None:
        (tmp_path / "t.csv").write_text("Zeit;Flanke\n1;steigend\n2;fallend\n4;steigend\n5;fallend\n")
        with pytest.raises(ClockError, match="between 'steigend' and 'fallend': write 1 for a rising"):
            read_pulses(tmp_path / "t.csv")
        (tmp_path / "t.csv").write_text("0,5\n1,7\n")
        with pytest.raises(OptionError, match="decimal comma, or two columns"):
            read_pulses(tmp_path / "t.csv")

    @pytest.mark.parametrize("text", ["", "card,other\n", "a,b\nc,d\n", "1,2\n3\n"])
    def test_what_is_no_table_is_refused(self, text: str, tmp_path: Path) -> None:
        (tmp_path / "t.csv").write_text(text)
        with pytest.raises(OptionError):
            read_pairs(tmp_path / "t.csv")
        with pytest.raises(OptionError):
            read_pairs(tmp_path / "missing.csv")

    def test_a_camera_of_miniscope_daq(self, tmp_path: Path) -> None:
        folder = tmp_path / "BehavCam"
        folder.mkdir()
        (folder / "timeStamps.csv").write_text("Frame Number,Time Stamp (ms),Buffer Index\n0,12,0\n1,45,0\n")
        (tmp_path / "metaData.json").write_text(
            json.dumps({"recordingStartTime": {"msecSinceEpoch": 1_700_000_000_000}})
        )
        times = camera_times(folder)
        assert times.dated
        assert times.seconds.tolist() == [1_700_000_000.012, 1_700_000_000.045]
