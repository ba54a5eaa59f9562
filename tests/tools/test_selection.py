"""Which part of a recording is written: time, crop and binning, the same for every output; and dF/F."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from miniscope_xr.errors import OptionError
from miniscope_xr.tools.cli import main
from miniscope_xr.tools.simulate import Stall, calcium_scene, simulate
from miniscope_xr.tools.stream.footage import Footage
from miniscope_xr.tools.stream.selection import Picture, chosen, picture_of, rows_of, seconds_span


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    camera = calcium_scene(96, 64)
    made = simulate(frames=100, width=96, height=64, camera=camera, events=[Stall(2000, 600)])
    return made.write(tmp_path_factory.mktemp("card") / "card.img")


@pytest.fixture(params=["skip", "fill"])
def ds(card: Path, request: pytest.FixtureRequest) -> Iterator[xr.Dataset]:
    with xr.open_dataset(card, engine="miniscope", gaps=request.param) as found:
        yield found


class TestTime:
    @pytest.mark.parametrize(
        ("span", "ends"),
        [
            ("5s:60s", (5, 60)), ("1.5min:", (90, np.inf)), (":500ms", (0, 0.5)), ("2:3", (2, 3)),
            ("1h:2h", (3600, 7200)),
            (slice(5, None), (5, np.inf)), ((1, 2.5), (1, 2.5)), (":", (0, np.inf)),
        ],
    )  # fmt: skip
    def test_words(self, span: Any, ends: tuple[float, float]) -> None:
        assert seconds_span(span) == ends

    @pytest.mark.parametrize(
        "span", ["5s", "60s:5s", "a:b", "1:2:3", slice(0, 5, 2), "-1:5", (1,), "5:5", (True, 2), ""]
    )
    def test_what_is_none_is_refused(self, span: Any) -> None:
        with pytest.raises(OptionError, match="time="):
            seconds_span(span)

    @pytest.mark.parametrize("span", ["1s:2s", "1.9s:2.9s", ":0.3s", "3s:", "0.05s:0.1s"])
    def test_rows_are_those_whose_time_lies_within(self, ds: xr.Dataset, span: str) -> None:
        rows = rows_of(ds, span)
        first, last = seconds_span(span)
        times = Footage(ds)
        list(times.batches())
        since = (times.times - times.times[0]) / 1000
        there = ~times.blank
        expected = np.flatnonzero((since >= first) & (since < last) & there)
        taken = np.arange(ds.sizes["frame"])[rows]
        np.testing.assert_array_equal(taken[there[taken]], expected)

    def test_few_headers_are_read(self, card: Path) -> None:
        with xr.open_dataset(card, engine="miniscope") as ds:
            rows_of(ds, "1s:2s")
            assert not ds["time"].variable._in_memory

    def test_a_stretch_without_frames_says_how_long_they_last(self, ds: xr.Dataset) -> None:
        with pytest.raises(OptionError, match=r"selects none of the \d+ frames, the last of which is at 4\.9\d? s"):
            rows_of(ds, "20s:30s")


class TestPicture:
    def test_crop_and_bin(self, ds: xr.Dataset) -> None:
        part = chosen(ds, {"frames": slice(0, 20), "crop": (8, 4, 62, 50), "bin": 4})
        footage = Footage(part, (), picture=picture_of(part))
        images = np.concatenate(list(footage.batches()))
        assert (footage.height, footage.width) == images.shape[1:] == (12, 15)
        raw = ds.video[:20, 4:52, 8:68].values.reshape(20, 12, 4, 15, 4).mean(axis=(2, 4))
        np.testing.assert_array_equal(images, np.floor(raw + 0.5))
        assert part.attrs["crop"] == [8, 4, 62, 50]
        assert part.attrs["binning"] == 4

    def test_nothing_asked_for_is_nothing_done(self, ds: xr.Dataset) -> None:
        assert picture_of(chosen(ds, {})) is None
        assert "crop" not in chosen(ds, {}).attrs

    def test_binning_does_not_overflow(self) -> None:
        bright = np.full((2, 32, 32), 255, np.uint8)
        assert (Picture(16)(bright) == 255).all()

    def test_dff_is_the_change_above_the_resting_picture(self) -> None:
        resting = np.full((4, 4), 100.0)
        images = np.stack([np.full((4, 4), value, np.uint8) for value in (90, 100, 120, 150, 80)])
        made = Picture(1, resting)(images)
        np.testing.assert_allclose(made[:, 0, 0], [0, 42, 127, 255, 0], atol=1)

    def test_dff_of_a_recording_rests_dark(self, ds: xr.Dataset) -> None:
        part = chosen(ds, {"time": "0:1.5s"})
        images = np.concatenate(list(Footage(part, (), picture=picture_of(part, dff=True)).batches()))
        assert 42 <= np.median(images) < 90

    @pytest.mark.parametrize(
        "options",
        [
            {"crop": (0, 0, 97, 10)}, {"crop": (0, 0, 0, 10)}, {"crop": "a,b,c,d"}, {"crop": (1, 2)},
            {"crop": (-1, 0, 5, 5)},
            {"bin": 0}, {"bin": 17}, {"bin": 2.5}, {"bin": True}, {"frames": slice(0, 5), "time": "0:1"},
        ],
    )  # fmt: skip
    def test_what_cannot_be_is_refused(self, ds: xr.Dataset, options: dict[str, Any]) -> None:
        with pytest.raises(OptionError):
            chosen(ds, options)


SIZED = {
    "a.nc": "h5netcdf",
    "a.h5": "h5py",
    "a.tif": "tifffile",
    "a.zarr": "zarr",
    "a.nwb": "pynwb",
    "m": "zarr",
    "days": "cv2",
}
TO = {"m": "minian", "days": "miniscope-daq"}


def pixels(path: Path) -> np.ndarray:
    """Frames of an export."""
    if path.name == "a.nc":
        return xr.open_dataset(path, engine="h5netcdf").video.values
    if path.suffix == ".h5":
        import h5py

        return h5py.File(path)["mov"][:]
    if path.suffix == ".tif":
        import tifffile

        return tifffile.imread(path)
    if path.suffix == ".nwb":
        import h5py

        return h5py.File(path)["acquisition/OnePhotonSeries/data"][:].transpose(0, 2, 1)
    import zarr

    return zarr.open_array(str(path / ("varr.zarr/varr" if path.name == "m" else "video")), mode="r")[:]


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZED)
def test_every_export_holds_the_part(name: str, card: Path, tmp_path: Path) -> None:
    pytest.importorskip(SIZED[name], exc_type=ImportError)
    with xr.open_dataset(card, engine="miniscope") as ds:
        part = {"time": "0.5s:1.5s", "crop": (8, 4, 64, 48), "bin": 2}
        made = ds.miniscope.export(tmp_path / name, TO.get(name), **part)
        taken = chosen(ds, part)
        wanted = Picture(2)(taken.video.values)
    if name == "days":
        import cv2

        film = cv2.VideoCapture(str(made / "Miniscope" / "0.avi"))
        found = np.stack([film.read()[1][..., 0] for _ in range(len(wanted))])
    else:
        found = pixels(made)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.nc", "a.h5", "a.tif"])
def test_compression_is_smaller_and_exact(name: str, card: Path, tmp_path: Path) -> None:
    pytest.importorskip(SIZED[name])
    with xr.open_dataset(card, engine="miniscope") as ds:
        plain = ds.miniscope.export(tmp_path / "plain" / name)
        small = ds.miniscope.export(tmp_path / "small" / name, compression=6)
        np.testing.assert_array_equal(pixels(small), ds.video)
        assert small.stat().st_size < 0.85 * plain.stat().st_size
        with pytest.raises(OptionError, match="0 \\(none\\) to 9"):
            ds.miniscope.export(tmp_path / name, compression=11)
        with pytest.raises(OptionError, match="cannot hold it"):
            ds.miniscope.export(tmp_path / "a.zarr", compression=3)


@pytest.mark.slow
def test_the_command_line(card: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cv2 = pytest.importorskip("cv2", exc_type=ImportError)
    out = tmp_path / "film.avi"
    assert main(["video", str(card), str(out), "--time", ".5:1.5", "--crop", "8,4,64,48", "--bin", "2", "--dff"]) == 0
    film = cv2.VideoCapture(str(out))
    assert (film.get(cv2.CAP_PROP_FRAME_WIDTH), film.get(cv2.CAP_PROP_FRAME_HEIGHT)) == (32, 24)
    assert film.get(cv2.CAP_PROP_FRAME_COUNT) == 20
    assert main(["video", str(card), str(tmp_path / "b.avi"), "--time", "1:2", "--frames", "0:5"]) == 2
    assert "give one of them" in capsys.readouterr().err
    assert main(["video", str(card), str(tmp_path / "b.avi"), "--crop", "0,0,200,200"]) == 2
    assert "96 px wide and 64 px high" in capsys.readouterr().err
