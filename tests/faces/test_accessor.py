"""``ds.miniscope``: there once a card is open, cheap to import, right in its numbers and pictures."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from miniscope_xr.errors import MissingDependencyError, OptionError
from miniscope_xr.tools.simulate import PowerLoss, SimulatedCard, Stall, simulate

Open = Callable[..., xr.Dataset]


@pytest.fixture
def ds(clean_card: tuple[Path, SimulatedCard], open_card: Open) -> xr.Dataset:
    return open_card(clean_card[0])


@pytest.fixture(scope="module")
def gap_card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(frames=40, events=[Stall(400, 500)]).write(tmp_path_factory.mktemp("card") / "gap.img")


def fresh(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


class TestBeingThere:
    @pytest.mark.slow
    def test_opening_a_card_is_enough(self, clean_card: tuple[Path, SimulatedCard]) -> None:
        code = f"import xarray as xr; print(xr.open_dataset({str(clean_card[0])!r}, engine='miniscope').miniscope)"
        assert "to_video" in fresh(code)

    @pytest.mark.slow
    def test_heavy_libraries_stay_out(self) -> None:
        code = (
            "import sys, miniscope_xr.accessor, miniscope_xr.backend, miniscope_xr.engine.opening\n"
            "import miniscope_xr.tools.cli.write\n"
            "heavy = {'cv2', 'matplotlib', 'PIL', 'dask', 'zarr', 'h5py', 'pynwb', 'tifffile', 'IPython'}\n"
            "print(sorted(heavy & set(sys.modules)))"
        )
        assert fresh(code) == "[]"


class TestSummary:
    def true(self, ds: xr.Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        video = ds["video"].values[ds["complete"].values]
        return video.mean(axis=0), video.max(axis=0), video.std(axis=0)

    @pytest.mark.parametrize("chunks", [None, 16])
    def test_is_of_the_whole_frames(self, gap_card: Path, open_card: Open, chunks: int | None) -> None:
        ds = open_card(gap_card)
        assert not ds["complete"].values.all()
        if chunks:
            pytest.importorskip("dask")
        found = (ds.chunk(frame=chunks) if chunks else ds).miniscope.summary()
        mean, most, std = self.true(ds)
        np.testing.assert_allclose(found["mean"], mean, rtol=1e-12)
        np.testing.assert_array_equal(found["max"], most)
        np.testing.assert_allclose(found["std"], std, rtol=1e-9)
        assert found.attrs["frames_used"] == int(ds["complete"].sum())
        assert found["mean"].dims == ("y", "x")

    def test_reads_every_pixel_once(self, ds: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        from miniscope_xr.engine.arrays import Pixels

        read: list[int] = []
        real = Pixels.read

        def counting(self: Pixels, rows: np.ndarray, rest: Any) -> np.ndarray:
            read.extend(rows.tolist())
            return real(self, rows, rest)

        monkeypatch.setattr(Pixels, "read", counting)
        ds.miniscope.summary()
        assert sorted(read) == list(range(60))

    def test_without_a_whole_frame_says_so(self, ds: xr.Dataset) -> None:
        broken = ds.assign_coords(complete=("frame", np.zeros(60, bool)))
        with pytest.raises(OptionError, match="no frame has all its buffers"):
            broken.miniscope.summary()

    def test_of_extreme_pixels_is_exact(self) -> None:
        video = np.full((1000, 2, 2), 255, np.uint8)
        video[:, 0, 0] = 0
        found = xr.Dataset({"video": (("frame", "y", "x"), video)}).assign_coords(frame=np.arange(1000))
        import miniscope_xr.accessor  # noqa: F401

        summary = found.miniscope.summary()
        assert summary["mean"].values.tolist() == [[0, 255], [255, 255]]
        assert summary["std"].values.tolist() == [[0, 0], [0, 0]]


class TestPlots:
    @pytest.fixture(autouse=True)
    def no_screen(self) -> Iterator[None]:
        matplotlib = pytest.importorskip("matplotlib", reason="needs matplotlib")
        matplotlib.use("Agg")
        yield
        matplotlib.pyplot.close("all")

    def test_has_a_panel_for_everything_the_device_tells(self, gap_card: Path, open_card: Open) -> None:
        figure = open_card(gap_card).miniscope.plot_headers()
        labels = " ".join(axis.get_ylabel() for axis in figure.axes).replace("\n", " ")
        for word in ("buffers per frame", "frame interval (ms)", "dropped", "(ms)", "battery (V)", "focus"):
            assert word in labels
        assert "(s)" in figure.axes[-1].get_xlabel()

    def test_shows_what_was_lost(self, gap_card: Path, open_card: Open) -> None:
        ds = open_card(gap_card)
        n_lost = int(ds["frame_num"][-1]) + 1 - ds.sizes["frame"]
        figure = ds.miniscope.plot_headers()
        texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        assert f"{n_lost} lost" in texts
        assert f"{int((~ds['complete']).sum())} partial" in texts

    def test_draws_with_the_right_values(self, ds: xr.Dataset) -> None:
        figure = ds.miniscope.plot_headers()
        battery = next(a for a in figure.axes if "battery" in a.get_ylabel())
        drawn = battery.lines[0].get_ydata()
        volts = ds["battery_voltage"].values
        np.testing.assert_array_equal(drawn[volts > 0], volts[volts > 0])

    @pytest.mark.slow
    def test_what_does_not_change_is_a_line_in_an_axis_of_whole_numbers(self, ds: xr.Dataset) -> None:
        figure = ds.miniscope.plot_headers()
        figure.canvas.draw()
        for word in ("dropped", "wait for"):
            axis = next(a for a in figure.axes if word in a.get_ylabel())
            low, high = axis.get_ylim()
            assert low < axis.lines[0].get_ydata().min() < high
            assert high - low >= 4
            assert all(
                float(text.get_text().replace("\N{MINUS SIGN}", "-")).is_integer() for text in axis.get_yticklabels()
            )

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["daq-wirefree", "v3-wirefree"])
    def test_other_devices_have_fewer_panels(self, name: str, tmp_path: Path, open_card: Open) -> None:
        path = simulate(name, frames=5).write(tmp_path / "a.img")
        figure = open_card(path).miniscope.plot_headers()
        assert len(figure.axes) >= 2
        figure.canvas.draw()

    @pytest.mark.slow
    def test_a_filled_recording(self, gap_card: Path, open_card: Open) -> None:
        open_card(gap_card, gaps="fill").miniscope.plot_headers().canvas.draw()


class TestOthers:
    def test_to_video_and_export_go_to_their_writers(self, ds: xr.Dataset, tmp_path: Path) -> None:
        pytest.importorskip("cv2")
        ds.miniscope.to_video(tmp_path / "a.avi", frames=slice(0, 3))
        assert (tmp_path / "a.avi").exists()
        pytest.importorskip("h5py")
        assert ds.miniscope.export(tmp_path / "a.h5", frames=slice(0, 3)) == tmp_path / "a.h5"

    def test_an_option_that_is_none_is_pythons_own_error(self, ds: xr.Dataset, tmp_path: Path) -> None:
        with pytest.raises(TypeError, match=r"to_video\(\) has no option 'colour' \(did you mean 'color'\?\)"):
            ds.miniscope.to_video(tmp_path / "a.avi", "FFV1", colour=True)
        with pytest.raises(TypeError, match=r"export\(\) has no option 'frame' \(did you mean 'frames'\?\)"):
            ds.miniscope.export(tmp_path / "a.h5", frame=slice(3))
        assert not list(tmp_path.glob("a.*"))

    def test_check_is_of_this_card(self, ds: xr.Dataset, tmp_path: Path, open_card: Open) -> None:
        result = ds.miniscope.check()
        assert result.ok
        assert "no problem found" in result._repr_html_()  # what a notebook shows
        path = simulate(frames=12, events=[PowerLoss(at_ms=400)]).write(tmp_path / "a.img")
        assert not open_card(path).miniscope.check().ok
        with pytest.raises(OptionError, match=r"check\(path\)"):
            xr.Dataset(attrs=ds.attrs).miniscope.check()

    @pytest.mark.slow
    def test_play_is_one_piece_of_html(self, ds: xr.Dataset) -> None:
        pytest.importorskip("PIL")
        player = ds.miniscope.play(frames=slice(10, 20))
        assert player.fragment.count("data:image/webp;base64,") == 11  # ten and the one shown first
        assert "frame 10" in player.fragment
        assert "frame 19" in player.fragment
        assert player._repr_html_().startswith("<iframe srcdoc=")
        assert "http" not in player.fragment

    @pytest.mark.parametrize("most", [0, 1001, 10**9])
    def test_play_keeps_no_whole_recording_in_a_notebook(self, ds: xr.Dataset, most: int) -> None:
        with pytest.raises(OptionError, match=r"view\(\)"):
            ds.miniscope.play(slice(None), most=most)

    def test_play_keeps_long_selections_small(self, ds: xr.Dataset) -> None:
        pytest.importorskip("PIL")
        assert len(re.findall(r'"frame \d+"', ds.miniscope.play(frames=slice(None), most=7).fragment)) == 7

    @pytest.mark.slow
    def test_missing_libraries_are_named(self, ds: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in ("matplotlib", "matplotlib.pyplot", "PIL"):
            monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(MissingDependencyError, match=r"miniscope-xr\[plot\]"):
            ds.miniscope.plot_headers()
        with pytest.raises(MissingDependencyError, match=r"miniscope-xr\[report\]"):
            ds.miniscope.play()


class TestPlot:
    @pytest.mark.parametrize("what", [7, "mean", "own"])
    def test_is_the_right_way_up_with_labels(self, ds: xr.Dataset, what: Any) -> None:
        plt = pytest.importorskip("matplotlib.pyplot", reason="needs matplotlib")
        own = ds.video[:5].max("frame")
        axes = ds.miniscope.plot(own if what == "own" else what)
        try:
            wanted = {7: ds.video[7], "mean": ds.video.mean("frame"), "own": own}[what]
            np.testing.assert_allclose(np.asarray(axes.images[0].get_array()), wanted, rtol=1e-4)
            low, high = axes.get_ylim()
            assert low > high, "row 0 is on top"
            assert (axes.get_xlabel(), axes.get_ylabel()) == ("x (px)", "y (px)")
            assert "grey value" in axes.images[0].colorbar.ax.get_ylabel()
        finally:
            plt.close(axes.figure)

    def test_what_is_no_image(self, ds: xr.Dataset) -> None:
        pytest.importorskip("matplotlib.pyplot", reason="needs matplotlib")
        with pytest.raises(OptionError, match="no projection"):
            ds.miniscope.plot("median")
        with pytest.raises(OptionError, match="dimensions"):
            ds.miniscope.plot(ds.video)
