"""``ds.miniscope.quality()`` against recordings of which the truth is known: each figure of docs/quality.md, held."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

pytest.importorskip("dask", reason="needs dask: pip install 'miniscope-xr[dask]'")

from miniscope_xr.errors import OptionError
from miniscope_xr.tools.check.quality import quality
from miniscope_xr.tools.check.quality_findings import bleaching, brightness_step, focus_curve
from miniscope_xr.tools.check.quality_pixels import corner_light, neighbours, vignette
from miniscope_xr.tools.simulate import Stall, simulate
from tests.forward import Film, filmed

MOTION = {
    "none": lambda k: (0.0, 0.0),
    "slow": lambda k: (4 * np.sin(k / 9), 3 * np.cos(k / 7)),
    "jumps": lambda k: tuple(np.random.default_rng((9, k)).uniform(-10, 10, 2)),
}


@pytest.mark.slow
class TestShift:
    @pytest.mark.parametrize("motion", MOTION)
    @pytest.mark.parametrize("optics", [{}, {"noise": 0.9, "corner": 0.25}], ids=["bright", "dim corners and noise"])
    def test_is_within_a_fifth_of_a_pixel(self, motion: str, optics: dict[str, float]) -> None:
        """Cells flash, optics and defects stand still: none of it is taken for motion."""
        film = Film(seed=2, motion=MOTION[motion], dead=[(77, 170)], hot=[(150, 150), (100, 200)], **optics)
        found = quality(filmed(film, 60), progress=False)
        truth = np.array([film.motion(k) for k in range(60)])
        off = np.stack([found.shift_y, found.shift_x], axis=1) - truth
        off -= np.median(off, axis=0)  # the reference has a place of its own
        assert np.abs(off).max() < 0.2

    def test_the_first_frame_is_where_the_reference_is_or_as_far_as_it_moved(self) -> None:
        film = Film(seed=4, motion=lambda k: (5.0, -3.0) if k == 59 else (0.0, 0.0))
        found = quality(filmed(film, 60), progress=False)
        assert float(found.shift_y[59] - found.shift_y[0]) == pytest.approx(5, abs=0.2)
        assert float(found.shift_x[59] - found.shift_x[0]) == pytest.approx(-3, abs=0.2)
        assert any("moves by up to 5." in said for said in found.findings)

    def test_a_picture_too_small_has_none(self) -> None:
        small = Film(height=40, width=48)
        assert np.isnan(quality(filmed(small, 30), progress=False).shift_y).all()


class TestBrightness:
    @pytest.mark.slow
    @pytest.mark.parametrize("per_minute", [0.5, 4.0, 20.0, -3.0])
    def test_bleaching_is_within_five_percent(self, per_minute: float) -> None:
        """An hour of means with flashing cells; what the pass itself finds of pictures is below."""
        rng = np.random.default_rng(3)
        seconds = np.arange(72_000) / 20
        flashes = np.convolve(rng.random(len(seconds)) < 0.004, np.exp(-np.arange(60) / 12))[: len(seconds)]
        mean = 70 * (1 - per_minute / 100) ** (seconds / 60) * (1 + 0.03 * flashes) + rng.normal(0, 0.1, len(seconds))
        fit = bleaching(seconds, mean)
        assert fit is not None
        assert fit.per_minute == pytest.approx(per_minute, rel=0.05)
        assert fit.whole == pytest.approx(100 * (1 - (1 - per_minute / 100) ** 60), rel=0.05)

    @pytest.mark.slow
    def test_bleaching_of_pictures(self) -> None:
        film = Film(brightness=lambda k: float(np.exp(-k / 1500)))
        found = quality(filmed(film, 300), progress=False)
        assert found.attrs["bleached_percent"] == pytest.approx(100 * (1 - np.exp(-299 / 1500)), rel=0.05)
        assert any("falls by 18 %" in said for said in found.findings)

    @pytest.mark.slow
    def test_a_step_is_named_with_its_frame(self) -> None:
        film = Film(brightness=lambda k: 1.0 if k < 130 else 0.9)
        found = quality(filmed(film, 240), progress=False)
        (said,) = [text for text in found.findings if "jumps" in text]
        assert said == "the brightness jumps by -10 % at frame 130 (6.5 s)"

    def test_no_step_where_brightness_goes_slowly_or_wavers(self) -> None:
        rng = np.random.default_rng(1)
        k = np.arange(2000)
        for mean in (70 - k / 60, 70 + 4 * np.sin(k / 60), 70 + rng.normal(0, 3, 2000)):
            assert brightness_step(mean) is None

    def test_mean_and_saturation_are_exact(self) -> None:
        images = np.random.default_rng(0).integers(0, 256, (20, 96, 100), np.uint8)
        found = quality(filmed(lambda k: images[k], 20), progress=False)
        np.testing.assert_allclose(found["mean"], images.mean(axis=(1, 2)))
        np.testing.assert_allclose(found["saturated"], (images == 255).mean(axis=(1, 2)))


@pytest.mark.slow
class TestCamera:
    def test_banding_is_within_a_seventh(self) -> None:
        for truth in (0.5, 2.0):
            found = quality(filmed(Film(seed=6, banding=lambda k, size=truth: size), 40), progress=False)
            assert float(found.banding.median()) == pytest.approx(truth, rel=0.15)
            assert float(found.banding.std()) < 0.15 * truth

    def test_rows_without_bands_have_none(self) -> None:
        found = quality(filmed(Film(seed=6), 40), progress=False)
        assert float(found.banding.median()) < 0.2
        assert not any("banded" in said for said in found.findings)

    def test_light_in_the_corners_is_within_five_points(self) -> None:
        for corner in (0.2, 0.5, 0.9):
            film = Film(seed=8, corner=corner)
            mean = np.mean([film(k) for k in range(0, 400, 10)], axis=0)
            truth = corner_light(film.vignette / film.vignette.max())
            assert corner_light(vignette(mean)) == pytest.approx(truth, abs=0.05)

    def test_ten_thousand_frames_give_all_defects_and_no_other(self) -> None:
        """In the corners, at the edges, beside each other, stuck at a middling grey; 64 lights, noise anew."""
        dead = [(0, 0), (303, 17), (150, 151), (150, 153), (20, 280), (222, 40)]
        hot = [(5, 299), (151, 20), (299, 300)]
        film = Film(seed=11, motion=MOTION["slow"], dead=dead, hot=hot)
        lights = [film.light(k) for k in range(0, 640, 10)]
        noise = np.random.default_rng(1).normal(0, 1, 2 * lights[0].size).astype(np.float32)

        def camera(k: int) -> Any:
            light = lights[k % 64]
            start = (k * 7919) % lights[0].size
            spread = np.sqrt(0.2 * light + 0.6) * noise[start : start + light.size].reshape(light.shape)
            frame = np.clip(np.rint(light + spread), 0, 255).astype(np.uint8)
            for y, x in dead:
                frame[y, x] = 0
            for y, x in hot:
                frame[y, x] = min(255, frame[y, x] + 60)
            frame[100, 100] = 57  # about as bright as its neighbours, but always the same
            return frame

        found = quality(filmed(camera, 10_000), progress=False)
        assert sorted(map(tuple, np.argwhere(found.dead.values).tolist())) == sorted([*dead, (100, 100)])
        assert sorted(map(tuple, np.argwhere(found.hot.values).tolist())) == sorted(hot)
        assert (
            found.findings[0]
            == "7 dead pixels, at (y, x) (0, 0), (20, 280), (100, 100), (150, 151), (150, 153) and more"
        )

    def test_neighbours_are_told_by_their_median(self) -> None:
        picture = np.random.default_rng(0).integers(0, 30, (17, 23)).astype(float)
        wide = np.pad(picture, 1, mode="reflect")
        around = [wide[y : y + 17, x : x + 23] for y in range(3) for x in range(3) if (y, x) != (1, 1)]
        np.testing.assert_array_equal(neighbours(picture), np.median(around, axis=0))

    def test_a_black_recording_is_not_all_dead(self) -> None:
        found = quality(filmed(lambda k: np.zeros((64, 64), np.uint8), 50), progress=False)
        assert not found.dead.any()
        assert not found.hot.any()


class TestFocus:
    @pytest.mark.slow
    @pytest.mark.parametrize("best", [-7.3, 0.0, 11.0])
    def test_a_scan_gives_the_sharpest_setting(self, best: float) -> None:
        """Sharpness of a lens that is scanned from -20 to 20 by steps of 5, ten frames each, while the tissue moves."""
        values = np.repeat(np.arange(-20, 21, 5), 10)
        film = Film(seed=5, blur=lambda k: abs(values[k] - best) / 5, motion=MOTION["slow"])
        found = quality(filmed(film, len(values), ewl=("frame", values)), progress=False)
        assert found.attrs["best_ewl"] == pytest.approx(best, abs=1.5)
        assert found.focus_curve.dims == ("ewl_value",)
        assert any(said.startswith("sharpest at EWL") for said in found.findings)

    @pytest.mark.slow
    def test_noise_is_not_taken_for_detail(self) -> None:
        sharp = [float(quality(filmed(Film(seed=5, noise=n), 20), False).sharpness.median()) for n in (0.2, 0.9)]
        assert sharp[1] == pytest.approx(sharp[0], rel=0.05)

    def test_a_focus_beyond_the_scan_is_not_guessed(self) -> None:
        values = np.repeat(np.arange(0.0, 50, 10), 20)
        rising = focus_curve(values, 0.02 + values / 1000)
        assert rising is not None
        assert rising.best is None

    def test_a_flat_curve_has_no_top(self) -> None:
        rng = np.random.default_rng(0)
        flat = focus_curve(np.repeat(np.arange(5.0), 20), 0.05 + rng.normal(0, 0.002, 100))
        assert flat is not None
        assert flat.best is None

    def test_one_setting_is_no_scan(self) -> None:
        assert focus_curve(np.zeros(50), np.ones(50)) is None

    @pytest.mark.slow
    def test_a_loss_of_sharpness_is_told(self) -> None:
        found = quality(filmed(Film(seed=5, blur=lambda k: 0.0 if k < 200 else 1.5), 400), progress=False)
        assert any("less sharp than the start" in said for said in found.findings)


class TestCards:
    @pytest.mark.slow
    def test_frames_that_lack_buffers_are_left_out(self, tmp_path: Path) -> None:
        path = simulate(frames=40, events=[Stall(400, 500)]).write(tmp_path / "card.img")
        with xr.open_dataset(path, engine="miniscope", gaps="fill") as ds:
            found = ds.miniscope.quality(progress=False)
            complete = ds.complete.values
            np.testing.assert_array_equal(np.isnan(found["mean"]), ~complete)
            np.testing.assert_allclose(found["mean"][complete], ds.video[complete].mean(("y", "x")).values)
            assert any("were not measured" in said for said in found.findings)
            assert set(ds.merge(found).data_vars) > {"video", "sharpness", "dead"}

    @pytest.mark.slow
    def test_nothing_whole_is_said(self) -> None:
        ds = filmed(Film(height=64, width=64), 5).assign_coords(complete=("frame", np.zeros(5, bool)))
        with pytest.raises(OptionError, match="no frame has all its buffers"):
            quality(ds)

    def test_tiny_frames_are_refused(self) -> None:
        with pytest.raises(OptionError, match="too small"):
            quality(filmed(lambda k: np.zeros((8, 8), np.uint8), 5))

    @pytest.mark.slow
    def test_what_it_gives_can_be_saved(self, tmp_path: Path) -> None:
        pytest.importorskip("h5netcdf")
        found = quality(filmed(Film(height=64, width=64), 50), progress=False)
        found.to_netcdf(tmp_path / "quality.nc", engine="h5netcdf")
        with xr.open_dataset(tmp_path / "quality.nc") as again:
            xr.testing.assert_equal(again.load(), found)
