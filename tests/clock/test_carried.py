"""What an alignment brings into every export: one zero, one clock, the behaviour camera beside the recording."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from miniscope_xr.errors import OptionError
from miniscope_xr.tools.cli import main
from miniscope_xr.tools.simulate import Stall, simulate

BEGAN = 1_780_000_000.0  # unix seconds when the card's clock shows 0
RATE = 1.00008
START = "2026-03-14T15:09:26+00:00"


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(frames=60, width=64, height=64, events=[Stall(1200, 500)]).write(
        tmp_path_factory.mktemp("card") / "card.img"
    )


@pytest.fixture
def aligned(card: Path) -> Iterator[xr.Dataset]:
    with xr.open_dataset(card, engine="miniscope") as ds:
        yield ds.miniscope.align(pairs=[(t, BEGAN + RATE * t) for t in (0.0, 1.0, 2.0, 3.0)])


def truth(ds: xr.Dataset) -> np.ndarray:
    """Unix seconds of every frame."""
    return BEGAN + RATE * ds.time.values.astype("timedelta64[ms]").astype(float) / 1000


@pytest.mark.slow
def test_zarr_and_netcdf_hold_every_coordinate(aligned: xr.Dataset, tmp_path: Path) -> None:
    for name, module, options in (("a.zarr", "zarr", {"engine": "zarr"}), ("a.nc", "h5netcdf", {"engine": "h5netcdf"})):
        pytest.importorskip(module)
        aligned.miniscope.export(tmp_path / name)
        with xr.open_dataset(tmp_path / name, decode_timedelta=True, **options) as again:
            np.testing.assert_array_equal(again.wall_time, aligned.wall_time)
            np.testing.assert_allclose(again.clock_time, truth(aligned), atol=1e-5)
            assert again.attrs["clock_drift_ppm"] == pytest.approx(80, abs=0.5)


def test_hdf5_and_tiff_hold_seconds_and_dates(aligned: xr.Dataset, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    pytest.importorskip("tifffile")
    aligned.miniscope.export(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_allclose(file["headers/wall_time"], truth(aligned), atol=1e-5)
        np.testing.assert_allclose(file["headers/time"], aligned.time.values.astype(float) / 1e3, atol=1e-9)
    aligned.miniscope.export(tmp_path / "a.tif")
    with (tmp_path / "a_headers.csv").open() as text:
        rows = list(csv.DictReader(text))
    assert float(rows[-1]["clock_time"]) == pytest.approx(truth(aligned)[-1], abs=1e-5)
    assert np.datetime64(rows[-1]["wall_time"]) == aligned.wall_time.values[-1].astype("datetime64[us]")


@pytest.mark.slow
def test_minian_has_unix_seconds(aligned: xr.Dataset, tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    aligned.miniscope.export(tmp_path / "m", to="minian")
    with (tmp_path / "m" / "timestamps.csv").open() as text:
        rows = list(csv.DictReader(text))
    np.testing.assert_allclose([float(row["unix_time"]) for row in rows], truth(aligned), atol=0.0011)
    later = np.array([float(row["timestamp_last"]) - float(row["timestamp_first"]) for row in rows])
    assert (later >= 0).all()


def test_a_start_beside_an_alignment_is_refused(aligned: xr.Dataset, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="leave start out"):
        aligned.miniscope.export(tmp_path / "a.nc", start=START)


def test_a_camera_needs_an_alignment(card: Path, tmp_path: Path) -> None:
    with xr.open_dataset(card, engine="miniscope") as ds, pytest.raises(OptionError, match="align it first"):
        ds.miniscope.export(tmp_path / "days", to="miniscope-daq", camera=tmp_path)


@pytest.fixture
def camera(tmp_path: Path) -> Path:
    """A camera's folder as Miniscope-DAQ writes it: two videos, begun 0.4 s before the recording's first frame."""
    cv2 = pytest.importorskip("cv2", exc_type=ImportError)
    folder = tmp_path / "their" / "My_WebCam"
    folder.mkdir(parents=True)
    for name, count in (("0.avi", 50), ("1.avi", 30)):
        film = cv2.VideoWriter(str(folder / name), cv2.VideoWriter_fourcc(*"MJPG"), 30, (64, 48))
        for k in range(count):
            film.write(np.full((48, 64, 3), k, np.uint8))
        film.release()
    rows = "".join(f"{k},{round(40 + k * 1000 / 30)},0\n" for k in range(80))
    (folder / "timeStamps.csv").write_text("Frame Number,Time Stamp (ms),Buffer Index\n" + rows)
    (folder / "metaData.json").write_text(json.dumps({"deviceType": "WebCam", "framesPerFile": 1000}))
    began = {"recordingStartTime": {"msecSinceEpoch": int(1000 * (BEGAN - 0.4))}}
    (folder.parent / "metaData.json").write_text(json.dumps(began))
    return folder


@pytest.mark.slow
def test_the_daq_folder_has_both_cameras_on_one_clock(aligned: xr.Dataset, camera: Path, tmp_path: Path) -> None:
    made = aligned.miniscope.export(tmp_path / "days", to="miniscope-daq", camera=camera)
    said = json.loads((made / "metaData.json").read_text())
    assert said["cameras"] == ["BehavCam"]
    began = said["recordingStartTime"]["msecSinceEpoch"] / 1000
    assert began == pytest.approx(BEGAN - 0.36, abs=0.001)  # the camera's first frame: 40 ms after its start
    times = {}
    for device in ("Miniscope", "BehavCam"):
        with (made / device / "timeStamps.csv").open() as text:
            times[device] = np.array([float(row["Time Stamp (ms)"]) for row in csv.DictReader(text)]) / 1000
    np.testing.assert_allclose(began + times["Miniscope"], truth(aligned), atol=0.0015)
    np.testing.assert_allclose(began + times["BehavCam"], BEGAN - 0.36 + np.arange(80) / 30, atol=0.0025)
    assert sorted(path.name for path in (made / "BehavCam").glob("*.avi")) == ["0.avi", "1.avi"]
    assert (made / "BehavCam" / "1.avi").read_bytes() == (camera / "1.avi").read_bytes()
    device = json.loads((made / "BehavCam" / "metaData.json").read_text())
    assert device["deviceType"] == "WebCam"
    assert device["framesPerFile"] == 50
    assert (device["ROI"]["width"], device["ROI"]["height"]) == (64, 48)  # neuroconv cannot do without
    for name, frames in (("Miniscope", aligned.sizes["frame"]), ("BehavCam", 80)):
        _as_element_miniscope_reads(made / name, frames)


def _as_element_miniscope_reads(folder: Path, frames: int) -> None:
    """DataJoint's element-miniscope: size and a whole number as rate from metaData.json, stamps from *every* table."""
    device = json.loads((folder / "metaData.json").read_text())
    assert all(isinstance(device["ROI"][side], int) for side in ("width", "height"))
    assert int(device["frameRate"].replace("FPS", "")) > 0
    tables = sorted(folder.glob("*.csv"))
    rows = [row for table in tables for row in list(csv.reader(table.read_text().splitlines()))[1:]]
    assert np.array(rows, float).shape[0] == frames


@pytest.mark.slow
def test_nwb_names_the_behaviour_video(aligned: xr.Dataset, camera: Path, tmp_path: Path) -> None:
    pynwb = pytest.importorskip("pynwb")
    pytest.importorskip("ndx_miniscope")
    aligned.miniscope.export(tmp_path / "a.nwb", camera=camera)
    with pynwb.NWBHDF5IO(tmp_path / "a.nwb", "r") as io:
        file = io.read()
        began = file.session_start_time.timestamp()
        assert began == pytest.approx(BEGAN - 0.36, abs=0.001)
        series, film = file.acquisition["OnePhotonSeries"], file.acquisition["BehaviorVideo"]
        np.testing.assert_allclose(began + series.timestamps[:], truth(aligned), atol=2e-3)
        np.testing.assert_allclose(began + film.timestamps[:], BEGAN - 0.36 + np.arange(80) / 30, atol=2e-3)
        assert list(film.external_file) == ["their/My_WebCam/0.avi", "their/My_WebCam/1.avi"]
        assert list(film.starting_frame) == [0, 50]
        gaps = file.intervals["lost_frames"]
        stop = began + float(gaps["stop_time"][0])
        assert np.abs(truth(aligned) - stop).min() < 2e-3
    inspector = pytest.importorskip("nwbinspector")
    messages = list(inspector.inspect_nwbfile(nwbfile_path=tmp_path / "a.nwb"))
    about = [
        m.message for m in messages if "BehaviorVideo" in str(m.object_name) or "external" in m.check_function_name
    ]
    assert about == []


@pytest.mark.slow
@pytest.mark.parametrize("pairs", [2, 4])
def test_nwb_has_no_column_of_which_nothing_is_known(card: Path, pairs: int, tmp_path: Path) -> None:
    """Two pairs fit any line: how far off it is is not known, and NWB's inspector warns of a column of NaN alone."""
    pynwb = pytest.importorskip("pynwb")
    pytest.importorskip("ndx_miniscope")
    with xr.open_dataset(card, engine="miniscope") as ds:
        aligned = ds.miniscope.align(pairs=[(t, BEGAN + RATE * t) for t in np.linspace(0, 3, pairs).tolist()])
        aligned.miniscope.export(tmp_path / "a.nwb", progress=False)
        with pynwb.NWBHDF5IO(str(tmp_path / "a.nwb"), "r") as io:
            headers = io.read().acquisition["frame_headers"]
            assert ("clock_error" in headers.colnames) == (pairs > 2)
            np.testing.assert_allclose(headers["clock_time"][:], truth(ds), atol=1e-5)
            np.testing.assert_array_equal(headers["frame_num"][:], ds.frame_num)


@pytest.mark.slow
def test_video_and_stamps_that_do_not_fit_are_refused(aligned: xr.Dataset, camera: Path, tmp_path: Path) -> None:
    text = (camera / "timeStamps.csv").read_text().splitlines()
    (camera / "timeStamps.csv").write_text("\n".join(text[:-3]) + "\n")
    with pytest.raises(OptionError, match=r"80 frames, and timeStamps\.csv has 77 times"):
        aligned.miniscope.export(tmp_path / "a.nwb", camera=camera)


def test_a_saved_clock_at_the_command_line(card: Path, tmp_path: Path) -> None:
    pytest.importorskip("h5netcdf")
    (tmp_path / "pairs.csv").write_text("".join(f"{t},{BEGAN + RATE * t}\n" for t in range(4)))
    assert (
        main(["align", str(card), str(tmp_path / "clock.json"), "--pairs", str(tmp_path / "pairs.csv"), "--quiet"]) == 0
    )
    words = ["export", str(card), str(tmp_path / "a.nc"), "--clock", str(tmp_path / "clock.json"), "--quiet"]
    assert main(words) == 0
    with xr.open_dataset(tmp_path / "a.nc", engine="h5netcdf", decode_timedelta=True) as ds:
        np.testing.assert_allclose(ds.clock_time, truth(ds), atol=1e-5)
        first = datetime.fromisoformat(ds.attrs["recording_start"]).astimezone(UTC).timestamp()
        assert first == pytest.approx(truth(ds)[0], abs=1e-5)
