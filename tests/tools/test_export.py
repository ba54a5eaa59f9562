"""Exports: what other programs find in them is what is on the card, pixels, times, settings and gaps."""

from __future__ import annotations

import builtins
import csv
import errno
import json
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import xarray as xr

from miniscope_xr.errors import MissingDependencyError, OptionError, OutputError, OutputExistsError
from miniscope_xr.tools.export import FORMATS, export
from miniscope_xr.tools.simulate import SimulatedCard, Stall, simulate
from miniscope_xr.tools.stream.footage import Footage
from miniscope_xr.tools.stream.outputs import whole_file

NEEDS = {
    "miniscope-daq": ["cv2"],
    "minian": ["zarr"],
    "zarr": ["zarr"],
    "netcdf": ["h5netcdf"],
    "hdf5": ["h5py"],
    "tiff": ["tifffile"],
    "nwb": ["pynwb", "ndx_miniscope"],
}
NAMES = {"zarr": "a.zarr", "netcdf": "a.nc", "hdf5": "a.h5", "tiff": "a.tif", "nwb": "a.nwb"}
GAP = Stall(400, 500)


def have(to: str) -> None:
    for module in NEEDS[to]:
        pytest.importorskip(module, reason=f"needs {module}", exc_type=ImportError)


def target(folder: Path, to: str) -> Path:
    return folder / NAMES.get(to, "out")


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SimulatedCard]:
    """A card that lost frames: full size, since a small one loses none."""
    made = simulate(frames=40, events=[GAP], settings={"led": 17, "gain": 2})
    return made.write(tmp_path_factory.mktemp("card") / "gap.img"), made


@pytest.fixture
def ds(card: tuple[Path, SimulatedCard]) -> Iterator[xr.Dataset]:
    with xr.open_dataset(card[0], engine="miniscope") as ds:
        yield ds


@pytest.fixture
def lost(card: tuple[Path, SimulatedCard]) -> list[int]:
    """Frame numbers that are not on the card."""
    numbers = card[1].expected()[0]
    found = sorted(set(range(int(numbers[-1]) + 1)) - set(numbers.tolist()))
    assert found
    return found


class TestZarr:
    def test_gives_back_the_dataset(self, ds: xr.Dataset, tmp_path: Path) -> None:
        have("zarr")
        export(ds, tmp_path / "a.zarr")
        with xr.open_zarr(tmp_path / "a.zarr", chunks=None) as back:
            xr.testing.assert_identical(back.load(), ds.load())

    @pytest.mark.slow
    def test_minian_gets_format_2_with_its_own_names(self, ds: xr.Dataset, tmp_path: Path) -> None:
        have("minian")
        export(ds, tmp_path / "out", to="minian", start="2026-03-14T15:09:26+00:00")
        assert (tmp_path / "out" / "varr.zarr" / ".zgroup").exists()
        with xr.open_zarr(tmp_path / "out" / "varr.zarr", chunks=None) as back:
            varr = back["varr"]
            assert varr.dims == ("frame", "height", "width")
            assert varr.dtype == np.uint8
            np.testing.assert_array_equal(varr.values, ds["video"].values)
            np.testing.assert_array_equal(back["frame_num"].values, ds["frame_num"].values)
        with (tmp_path / "out" / "timestamps.csv").open() as file:
            rows = list(csv.DictReader(file))
        began = datetime.fromisoformat("2026-03-14T15:09:26+00:00").timestamp()
        first = began + ds["time"].values.astype("timedelta64[ms]").astype(int) / 1000
        last = began + ds["time_last"].values.astype("timedelta64[ms]").astype(int) / 1000
        for name, times in (("timestamp_first", first), ("timestamp_last", last), ("unix_time", first)):
            np.testing.assert_allclose([float(r[name]) for r in rows], times, rtol=0, atol=1e-3)

    def test_a_name_that_promises_ome_keeps_it(self, ds: xr.Dataset, tmp_path: Path) -> None:
        have("zarr")
        import zarr

        export(ds, tmp_path / "a.ome.zarr")
        group = zarr.open_group(tmp_path / "a.ome.zarr", mode="r")
        (image,) = group.attrs["ome"]["multiscales"]
        assert [axis["name"] for axis in image["axes"]] == ["t", "y", "x"]
        video = group[image["datasets"][0]["path"]]
        assert list(video.metadata.dimension_names) == ["t", "y", "x"]
        assert image["datasets"][0]["coordinateTransformations"][0]["scale"] == pytest.approx([0.05, 1, 1], rel=0.01)
        np.testing.assert_array_equal(video[:], ds["video"].values)


class TestNetcdf:
    @pytest.mark.slow
    def test_text_is_characters(self, ds: xr.Dataset, tmp_path: Path) -> None:
        """Octave and MATLAB skip NC_STRING, or fail on it."""
        have("netcdf")
        import h5py

        export(ds.assign_attrs(warnings=["one", "two"]), tmp_path / "a.nc", start="2026-03-14T15:09:26+00:00")
        with h5py.File(tmp_path / "a.nc") as file:
            for item in (file, *file.values()):
                for name in item.attrs:
                    assert (
                        not h5py.check_string_dtype(item.attrs.get_id(name).dtype)
                        or item.attrs.get_id(name).dtype.kind == "S"
                    ), name
            assert file.attrs["warnings"] == b"one\ntwo"
            assert file.attrs["recording_start"] == b"2026-03-14T15:09:26+00:00"

    @pytest.mark.slow
    def test_blank_frames_have_times(self, card: Any, tmp_path: Path) -> None:
        have("netcdf")
        with xr.open_dataset(card[0], engine="miniscope", gaps="fill") as filled:
            export(filled, tmp_path / "a.nc")
        with xr.open_dataset(tmp_path / "a.nc", engine="h5netcdf") as back:
            steps = np.diff(back["time"].values.astype("timedelta64[ms]").astype(int))
        assert (steps > 0).all()

    @pytest.mark.parametrize("engine", ["h5netcdf", "netcdf4"])
    def test_gives_back_the_dataset(self, ds: xr.Dataset, tmp_path: Path, engine: str) -> None:
        have("netcdf")
        pytest.importorskip({"netcdf4": "netCDF4"}.get(engine, engine))
        export(ds, tmp_path / "a.nc")
        with xr.open_dataset(tmp_path / "a.nc", engine=engine) as back:
            xr.testing.assert_identical(back.load(), ds.load())


class TestHdf5:
    def test_every_name_leads_to_the_movie(self, ds: xr.Dataset, tmp_path: Path) -> None:
        have("hdf5")
        import h5py

        export(ds, tmp_path / "a.h5")
        with h5py.File(tmp_path / "a.h5") as file:
            for name in ("mov", "data", "1", "images"):
                np.testing.assert_array_equal(file[name][...], ds["video"].values)
            assert file["mov"].attrs["fr"] == pytest.approx(20, rel=0.01)
            assert isinstance(file.get("data", getlink=True), h5py.SoftLink)

    def test_headers_settings_and_gaps_go_along(self, ds: xr.Dataset, tmp_path: Path, lost: list[int]) -> None:
        have("hdf5")
        import h5py

        export(ds, tmp_path / "a.h5")
        with h5py.File(tmp_path / "a.h5") as file:
            np.testing.assert_array_equal(file["headers/frame_num"][...], ds["frame_num"].values)
            np.testing.assert_array_equal(file["headers/battery_voltage"][...], ds["battery_voltage"].values)
            np.testing.assert_allclose(file["headers/time"][...], ds["timestamp"].values / 1000)
            assert file["headers/complete"].dtype == np.uint8  # HDF5's booleans are skipped by MATLAB and Octave
            last = ds["time_last"].values.astype("timedelta64[ms]").astype(int) / 1000
            np.testing.assert_allclose(file["headers/time_last"][...], last)
            assert file["headers/time_last"].attrs["units"] == "s"
            assert file["gap_lengths"][...].sum() == len(lost)
            assert file.attrs["led"] == 17
            gaps = [k for _, first, last in file["gaps"][...] for k in range(first, last + 1)]
        assert gaps == lost


class TestTiff:
    @pytest.mark.slow
    def test_is_a_stack_that_imagej_opens_with_its_times(self, ds: xr.Dataset, tmp_path: Path, lost: list[int]) -> None:
        have("tiff")
        import tifffile

        export(ds, tmp_path / "a.tif")
        assert (tmp_path / "a.tif").read_bytes()[2:4] in (b"\x2a\x00", b"\x00\x2a")  # classic: ImageJ has no BigTIFF
        with tifffile.TiffFile(tmp_path / "a.tif") as file:
            assert len(file.pages) == ds.sizes["frame"]
            assert file.series[0].axes == "TYX"
            np.testing.assert_array_equal(file.asarray(), ds["video"].values)
            assert file.pages[0].description.startswith("ImageJ=")
            found = file.imagej_metadata
        assert found["frames"] == ds.sizes["frame"]
        assert found["finterval"] == pytest.approx(0.05, rel=0.01)
        about = json.loads(found["Info"])
        assert about["settings"]["led"] == 17
        assert [k for gap in about["gaps"] for k in range(gap["first"], gap["last"] + 1)] == lost

    def test_blank_frames_are_gaps_too(self, card: Any, tmp_path: Path, lost: list[int]) -> None:
        have("tiff")
        import tifffile

        with xr.open_dataset(card[0], engine="miniscope", gaps="fill") as filled:
            export(filled, tmp_path / "a.tif")
        with tifffile.TiffFile(tmp_path / "a.tif") as file:
            about = json.loads(file.imagej_metadata["Info"])
        assert [k for gap in about["gaps"] for k in range(gap["first"], gap["last"] + 1)] == lost

    def test_from_4_gb_on_it_is_a_big_one(
        self, ds: xr.Dataset, tmp_path: Path, lost: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        have("tiff")
        import tifffile

        from miniscope_xr.tools.export import tiff

        monkeypatch.setattr(tiff, "_CLASSIC", ds["video"].nbytes)
        export(ds, tmp_path / "a.tif")
        with tifffile.TiffFile(tmp_path / "a.tif") as file:
            assert file.is_bigtiff
            assert file.series[0].axes == "TYX"
            np.testing.assert_array_equal(file.asarray(), ds["video"].values)
            about = json.loads(file.pages[0].description)
        assert [k for gap in about["gaps"] for k in range(gap["first"], gap["last"] + 1)] == lost

    def test_a_name_that_promises_ome_keeps_it(self, ds: xr.Dataset, tmp_path: Path) -> None:
        have("tiff")
        import tifffile

        export(ds, tmp_path / "a.ome.tif", start="2026-03-14T15:09:26+01:00")
        with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
            assert file.is_ome
            assert file.series[0].axes == "TYX"
            np.testing.assert_array_equal(file.asarray(), ds["video"].values)
            text = file.ome_metadata
        assert 'TimeIncrement="0.05"' in text
        assert "<AcquisitionDate>2026-03-14T15:09:26+01:00</AcquisitionDate>" in text

    def test_headers_lie_beside_it(self, ds: xr.Dataset, tmp_path: Path) -> None:
        have("tiff")
        export(ds, tmp_path / "a.tif")
        with (tmp_path / "a_headers.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [int(r["frame_num"]) for r in rows] == ds["frame_num"].values.tolist()
        assert [int(r["time"]) for r in rows] == ds["timestamp"].values.tolist()
        assert [int(r["buffers_present"]) for r in rows] == ds["buffers_present"].values.tolist()


def test_tables_end_their_lines_alike_on_every_system(ds: xr.Dataset, tmp_path: Path) -> None:
    """Whoever splits them at line feeds alone finds no carriage return in a last column, also where Windows wrote."""
    have("miniscope-daq")
    have("tiff")
    export(ds, tmp_path / "a.tif")
    export(ds, tmp_path / "out", to="miniscope-daq")
    ds.miniscope.to_video(tmp_path / "a.avi")
    tables = list(tmp_path.rglob("*.csv"))
    assert {"a_headers.csv", "a_timeStamps.csv", "timeStamps.csv", "notes.csv"} == {file.name for file in tables}
    for file in tables:
        assert file.read_bytes().endswith(b"\n"), file
        assert b"\r" not in file.read_bytes(), file


class TestNwb:
    @pytest.mark.slow
    def test_series_has_real_times_and_the_card_is_all_there(
        self, ds: xr.Dataset, tmp_path: Path, lost: list[int]
    ) -> None:
        have("nwb")
        import pynwb

        export(ds, tmp_path / "a.nwb", animal="m1", start="2026-03-14T15:09:26+00:00")
        with pynwb.NWBHDF5IO(tmp_path / "a.nwb", "r") as io:
            file = io.read()
            series = file.acquisition["OnePhotonSeries"]
            np.testing.assert_array_equal(series.data[...].transpose(0, 2, 1), ds["video"].values)
            np.testing.assert_allclose(series.timestamps[...], ds["timestamp"].values / 1000)
            table = file.acquisition["frame_headers"]
            np.testing.assert_array_equal(table["frame_num"][:], ds["frame_num"].values)
            np.testing.assert_array_equal(table["complete"][:], ds["complete"].values)
            gaps = file.intervals["lost_frames"].to_dataframe()
            assert file.devices["Miniscope"].led0 == 17
            assert file.subject.subject_id == "m1"
            assert file.session_start_time == datetime.fromisoformat("2026-03-14T15:09:26+00:00")
            plane = series.imaging_plane
            assert np.isnan(plane.excitation_lambda)
            assert np.isnan(plane.optical_channel[0].emission_lambda)
            assert (plane.location, plane.indicator) == ("not given", "not given")
        found = [k for _, g in gaps.iterrows() for k in range(int(g.first_frame_num), int(g.last_frame_num) + 1)]
        assert found == lost
        assert pynwb.validate(path=tmp_path / "a.nwb") == []

    FACTS: ClassVar[dict[str, Any]] = {
        "animal": "m1", "sex": "M", "age": "P90D", "species": "Mus musculus", "location": "CA1", "indicator": "GCaMP6f",
        "session_id": "day1", "researcher": "Roe, Jane", "institution": "A lab", "keywords": "miniscope, calcium",
        "experiment": "open field", "wavelengths": "475,525", "start": "2026-03-14T15:09:26+01:00",
    }  # fmt: skip

    @pytest.mark.slow
    @pytest.mark.parametrize("gaps", ["skip", "fill"])
    def test_inspectors_have_nothing_to_warn_of(self, tmp_path: Path, gaps: str) -> None:
        have("nwb")
        inspector = pytest.importorskip("nwbinspector")
        card = simulate(frames=330, events=[GAP]).write(tmp_path / "a.img")
        with xr.open_dataset(card, engine="miniscope", gaps=gaps) as ds:
            export(ds, tmp_path / "a.nwb", **self.FACTS)
        said = list(inspector.inspect_nwbfile(nwbfile_path=str(tmp_path / "a.nwb")))
        assert [m for m in said if "SUGGESTION" not in str(m.importance)] == []
        self._validate_as_dandi(tmp_path / "a.nwb")

    @staticmethod
    def _validate_as_dandi(path: Path) -> None:
        try:
            from dandi.files import dandi_file
        except ImportError:
            return
        problems = [p for p in dandi_file(path).get_validation_errors() if p.severity and p.severity.name != "HINT"]
        assert problems == []

    @pytest.mark.slow
    def test_an_even_clock_is_a_rate(self, tmp_path: Path) -> None:
        have("nwb")
        import pynwb

        card = simulate(frames=12, width=64, height=64, period_ms=50).write(tmp_path / "a.img")
        with xr.open_dataset(card, engine="miniscope") as ds:
            assert len(set(np.diff(ds["time"].values))) == 1
            export(ds, tmp_path / "a.nwb")
            first = int(ds["timestamp"][0])
        with pynwb.NWBHDF5IO(tmp_path / "a.nwb", "r") as io:
            series = io.read().acquisition["OnePhotonSeries"]
            assert series.timestamps is None
            assert (series.rate, series.starting_time) == (20, first / 1000)
        assert pynwb.validate(path=tmp_path / "a.nwb") == []

    @pytest.mark.parametrize(
        "wrong",
        [{"sex": "male"}, {"age": "90 days"}, {"species": "mouse"}, {"wavelengths": "525"}, {"wavelengths": "525,475"}],
    )
    def test_what_archives_would_refuse_is_refused_before(
        self, ds: xr.Dataset, tmp_path: Path, wrong: dict[str, str]
    ) -> None:
        with pytest.raises(OptionError, match=f"{next(iter(wrong))}=.*expected"):
            export(ds, tmp_path / "a.nwb", **wrong)
        assert not list(tmp_path.iterdir())


class TestOptions:
    @pytest.mark.parametrize(
        ("name", "options"),
        [
            ("a.zarr", {"start": "2026-03-14T15:09:26"}),
            ("a.zarr", {"animal": "m1"}),
            ("a.zarr", {"fps": 20}),
            ("a.h5", {"start": "2026-03-14T15:09:26"}),
            ("a.h5", {"animal": "m1"}),
            ("a.tif", {"codec": "FFV1"}),
            ("a.nc", {"researcher": "me"}),
            ("a.nwb", {"codec": "GREY"}),
        ],
    )
    def test_what_a_format_cannot_hold_is_refused(
        self, ds: xr.Dataset, tmp_path: Path, name: str, options: dict[str, Any]
    ) -> None:
        with pytest.raises(OptionError, match=r"cannot hold it \(.*can\)"):
            export(ds, tmp_path / name, **options)
        assert not list(tmp_path.iterdir())

    def test_a_name_that_is_none_is_pythons_own_error(self, ds: xr.Dataset, tmp_path: Path) -> None:
        with pytest.raises(TypeError, match="did you mean 'animal'"):
            export(ds, tmp_path / "a.nwb", animl="m1")  # type: ignore[call-arg]


class TestJoined:
    def test_times_that_go_back_are_told(self, ds: xr.Dataset, tmp_path: Path) -> None:
        have("hdf5")
        joined = xr.concat([ds.isel(frame=slice(4)).load(), ds.isel(frame=slice(4)).load()], "frame")
        with pytest.warns(UserWarning, match="times go back from .* before row 4"):
            export(joined, tmp_path / "a.h5")


class TestGapsOfAClock:
    def test_a_v3_loses_frames_that_only_its_clock_shows(self, tmp_path: Path) -> None:
        have("hdf5")
        import h5py

        card = simulate("v3-wirefree", frames=60, events=[Stall(500, 200), Stall(1500, 260)])
        with xr.open_dataset(card.write(tmp_path / "a.img"), engine="miniscope") as ds:
            taken = round(int((ds["time"][-1] - ds["time"][0]).values.astype("timedelta64[ms]").astype(int)) / 50) + 1
            assert ds.attrs["fs"] == 20
            export(ds, tmp_path / "a.h5")
        with h5py.File(tmp_path / "a.h5") as file:
            assert file["mov"].attrs["fr"] == 20
            assert file["gap_lengths"][...].sum() == taken - 60 > 0
            assert (file["gaps"][:, 1:] == -1).all()


class TestMiniscopeDaq:
    @pytest.fixture
    def session(self, ds: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        have("miniscope-daq")
        from miniscope_xr.tools.export import daq_folder

        monkeypatch.setattr(daq_folder, "FRAMES_PER_FILE", 16)
        return export(ds, tmp_path / "out", to="miniscope-daq", start="2026-03-14T15:09:26", animal="m1", codec="GREY")

    def test_lies_where_the_program_puts_it(self, session: Path, ds: xr.Dataset, tmp_path: Path) -> None:
        assert session == tmp_path / "out" / "2026_03_14" / "15_09_26"
        files = {p.relative_to(session).as_posix() for p in session.rglob("*") if p.is_file()}
        videos = {f"Miniscope/{k}.avi" for k in range(-(-ds.sizes["frame"] // 16))}
        others = {
            "metaData.json",
            "userConfig.json",
            "notes.csv",
            "Miniscope/metaData.json",
            "Miniscope/timeStamps.csv",
        }
        assert files == videos | others

    def test_its_files_in_a_row_are_the_movie(self, session: Path, ds: xr.Dataset) -> None:
        import cv2

        found: list[np.ndarray] = []
        for k in range(-(-ds.sizes["frame"] // 16)):
            capture = cv2.VideoCapture(str(session / "Miniscope" / f"{k}.avi"))
            assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(20, rel=0.01)
            while (read := capture.read())[0]:
                found.append(read[1][..., 0])
            capture.release()
        np.testing.assert_array_equal(np.array(found), ds["video"].values)

    def test_time_stamps_and_meta_data(self, session: Path, ds: xr.Dataset, lost: list[int]) -> None:
        with (session / "Miniscope" / "timeStamps.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [int(r["DAQ Frame Number"]) for r in rows] == ds["frame_num"].values.tolist()
        assert [int(r["Time Stamp (ms)"]) for r in rows] == ds["timestamp"].values.tolist()
        complete = [int(r.get("Frame Complete", 1)) for r in rows]
        assert complete == ds["complete"].values.tolist()
        assert 0 in complete
        assert np.isfinite(
            np.array([list(r.values()) for r in rows], float)
        ).all()  # programs read all of it as numbers
        device = json.loads((session / "Miniscope" / "metaData.json").read_text())
        assert device["ROI"] == {"leftEdge": 0, "topEdge": 0, "width": 304, "height": 304}
        assert device["frameRate"] == "20FPS"
        assert device["led0"] == 17
        assert device["framesPerFile"] == 16
        meta = json.loads((session / "metaData.json").read_text())
        assert meta["animalName"] == "m1"
        assert meta["recordingStartTime"]["hour"] == 15
        notes = (session / "notes.csv").read_text().splitlines()
        assert notes[0] == "Time Stamp (ms), Note"
        assert any(str(lost[0]) in note for note in notes[2:])

    def test_the_frame_rate_is_an_integer_as_datajoint_wants_it(self, tmp_path: Path) -> None:
        have("miniscope-daq")
        card = simulate(frames=10, width=64, height=64, period_ms=51.2).write(tmp_path / "a.img")
        with xr.open_dataset(card, engine="miniscope") as ds:
            made = export(ds, tmp_path / "out", to="miniscope-daq")
        device = json.loads((made / "Miniscope" / "metaData.json").read_text())
        assert int(device["frameRate"].replace("FPS", "")) == 20
        assert device["measuredFrameRate"] == pytest.approx(1000 / 51.2, abs=0.2)

    def test_a_start_with_a_zone_is_the_same_folder_on_every_computer(
        self, ds: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        have("miniscope-daq")
        monkeypatch.setenv("TZ", "Asia/Tokyo")
        options: dict[str, Any] = {"to": "miniscope-daq", "start": "2026-03-14T15:09:26-08:00", "frames": slice(2)}
        assert export(ds, tmp_path, **options) == tmp_path / "2026_03_14" / "15_09_26"

    def test_another_recording_has_a_folder_of_its_own(self, ds: xr.Dataset, tmp_path: Path) -> None:
        have("miniscope-daq")
        options: dict[str, Any] = {"to": "miniscope-daq", "start": "2026-03-14T15:09:26", "frames": slice(2)}
        first = export(ds, tmp_path, **options)
        second = export(ds.assign_attrs(recording=1), tmp_path, **options)
        assert (first.name, second.name) == ("15_09_26", "15_09_26_recording_1")

    def test_another_cards_folder_is_kept_even_when_forced(self, ds: xr.Dataset, tmp_path: Path) -> None:
        have("miniscope-daq")
        options: dict[str, Any] = {"to": "miniscope-daq", "start": "2026-03-14T15:09:26", "frames": slice(2)}
        made = export(ds, tmp_path / "out", **options)
        before = (made / "Miniscope" / "0.avi").read_bytes()
        other = simulate(frames=4, width=64, height=64, seed=9).write(tmp_path / "b.img")
        with (
            xr.open_dataset(other, engine="miniscope") as theirs,
            pytest.raises(OutputExistsError, match="another card"),
        ):
            export(theirs, tmp_path / "out", force=True, **options)
        assert (made / "Miniscope" / "0.avi").read_bytes() == before

    def test_only_exact_codecs(self, ds: xr.Dataset, tmp_path: Path) -> None:
        have("miniscope-daq")
        with pytest.raises(OptionError, match="FFV1 or GREY"):
            export(ds, tmp_path / "out", to="miniscope-daq", codec="MJPG")
        assert not list(tmp_path.rglob("*.avi"))


class TestDisks:
    @pytest.mark.parametrize("to", ["netcdf", "hdf5", "tiff"])
    def test_what_does_not_fit_is_refused_before_it_is_begun(
        self, ds: xr.Dataset, tmp_path: Path, to: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        have(to)
        usage = shutil.disk_usage(tmp_path)._replace(free=ds["video"].nbytes - 1)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
        with pytest.raises(OutputError, match=r"takes 0\.00 GB, and 0\.00 GB are free"):
            export(ds, target(tmp_path, to), to=to)
        assert not list(tmp_path.iterdir())

    def test_a_folder_is_no_place_for_a_file(self, ds: xr.Dataset, tmp_path: Path) -> None:
        have("tiff")
        (tmp_path / "a.tif").mkdir()
        with pytest.raises(OutputExistsError, match="folder"):
            export(ds, tmp_path / "a.tif", force=True)

    def test_a_file_that_came_meanwhile_is_kept(self, tmp_path: Path) -> None:
        def both() -> None:
            with whole_file(tmp_path / "a.txt") as part:
                part.write_text("mine")
                (tmp_path / "a.txt").write_text("theirs")

        with pytest.raises(OutputExistsError):
            both()
        assert [path.read_text() for path in tmp_path.iterdir()] == ["theirs"]

    def test_what_the_system_says_is_said_of_the_output(self, tmp_path: Path) -> None:
        with (
            pytest.raises(OutputError, match=r"No space left.*nothing was kept") as caught,
            whole_file(tmp_path / "a.txt"),
        ):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "a.txt"))
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("to", FORMATS)
class TestEveryFormat:
    @pytest.mark.slow
    def test_an_existing_output_is_kept_unless_forced(self, ds: xr.Dataset, tmp_path: Path, to: str) -> None:
        have(to)
        options: dict[str, Any] = {"frames": slice(0, 4)}
        if "start" in FORMATS[to].carries:
            options["start"] = "2026-03-14T15:09:26"
        made = export(ds, target(tmp_path, to), to=to, **options)
        before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
        with pytest.raises(OutputExistsError):
            export(ds, target(tmp_path, to), to=to, **options)
        assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before
        assert export(ds, target(tmp_path, to), to=to, force=True, **options) == made

    @pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError("unplugged")])
    def test_a_failure_leaves_nothing(
        self, ds: xr.Dataset, tmp_path: Path, to: str, stop: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        have(to)

        def parts(self: Footage, *stretch: int | None) -> Iterator[tuple[slice, np.ndarray]]:
            yield slice(0, 1), np.zeros((1, self.height, self.width), np.uint8)
            raise stop

        monkeypatch.setattr(Footage, "_parts", parts)
        with pytest.raises(stop if isinstance(stop, type) else type(stop)):
            export(ds, target(tmp_path, to), to=to)
        assert not [p for p in tmp_path.rglob("*") if p.is_file()]

    def test_a_missing_library_is_named_before_anything_is_read(
        self, ds: xr.Dataset, tmp_path: Path, to: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        absent = NEEDS[to][0]
        real = builtins.__import__

        def no(name: str, *args: Any, **kwargs: Any) -> Any:
            if name == absent:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            return real(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", no)
        with pytest.raises(MissingDependencyError, match=r"pip install \"miniscope-xr\["):
            export(ds, target(tmp_path, to), to=to)
        assert list(tmp_path.iterdir()) == []


class TestWords:
    def test_the_ending_chooses_the_format(self, ds: xr.Dataset, tmp_path: Path) -> None:
        with pytest.raises(OptionError, match="formats are miniscope-daq"):
            export(ds, tmp_path / "a", to="mat")
        with pytest.raises(OptionError, match="did you mean 'netcdf'"):
            export(ds, tmp_path / "a.nc", to="netcdf4")
        with pytest.raises(OptionError, match="names no format"):
            export(ds, tmp_path / "a.xyz")
        with pytest.raises(OptionError, match=r"ends in \.tif"):
            export(ds, tmp_path / "a.nc", to="tiff")

    def test_a_wrong_start_says_what_is_expected(self, ds: xr.Dataset, tmp_path: Path) -> None:
        have("zarr")
        with pytest.raises(OptionError, match="2026-03-14T15:09:26"):
            export(ds, tmp_path / "a.zarr", start="yesterday")

    def test_a_folder_with_other_things_is_never_replaced(self, ds: xr.Dataset, tmp_path: Path) -> None:
        have("minian")
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.txt").write_text("years of work")
        with pytest.raises(OutputError, match="not even force"):
            export(ds, tmp_path / "out", to="minian", force=True)
        assert (tmp_path / "out" / "thesis.txt").read_text() == "years of work"

    def test_blank_frames_of_a_filled_recording_are_gaps(
        self, card: tuple[Path, SimulatedCard], tmp_path: Path, lost: list[int],
        open_card: Callable[..., xr.Dataset],
    ) -> None:  # fmt: skip
        have("hdf5")
        import h5py

        export(open_card(card[0], gaps="fill"), tmp_path / "a.h5")
        with h5py.File(tmp_path / "a.h5") as file:
            assert [k for _, a, b in file["gaps"][...] for k in range(a, b + 1)] == lost
            times = file["headers/time"][...]
        assert (np.diff(times) > 0).all()

    @pytest.mark.parametrize("name", ["daq-wirefree", "v3-wirefree"])
    def test_other_devices(self, name: str, tmp_path: Path, open_card: Callable[..., xr.Dataset]) -> None:
        have("netcdf")
        path = simulate(name, frames=6).write(tmp_path / "card.img")
        ds = open_card(path)
        export(ds, tmp_path / "a.nc")
        with xr.open_dataset(tmp_path / "a.nc", engine="h5netcdf") as back:
            xr.testing.assert_equal(back.load(), ds.load())
            one = {**back.attrs, "warnings": np.atleast_1d(back.attrs["warnings"]).tolist()}  # NetCDF: a list of one
            assert one == ds.attrs


PAGE = Path(__file__).resolve().parents[2] / "docs" / "export.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.skipif(not PAGE.exists(), reason="the docs are not part of a source distribution")
class TestHowTo:
    """What docs/export.md shows does what it says."""

    @pytest.fixture(autouse=True)
    def all_there(self, card: tuple[Path, SimulatedCard], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in ("cv2", "zarr", "h5netcdf", "h5py", "pynwb", "ndx_miniscope", "matplotlib", "PIL"):
            pytest.importorskip(module, exc_type=ImportError)
        import matplotlib

        matplotlib.use("Agg")
        shutil.copy(card[0], tmp_path / "card.img")
        monkeypatch.chdir(tmp_path)

    @pytest.mark.slow
    def test_python(self, tmp_path: Path) -> None:
        names: dict[str, Any] = {}
        for block in blocks("python"):
            exec(block, names)
        import matplotlib.pyplot as plt

        plt.close("all")
        names["ds"].close()
        assert {"film.avi", "part.avi", "movie.h5", "minian_data", "movie.nc"} <= {p.name for p in tmp_path.iterdir()}

    @pytest.mark.slow
    def test_commands(self, tmp_path: Path) -> None:
        from miniscope_xr.tools.cli import main

        for block in blocks("bash"):
            for line in block.splitlines():
                words = shlex.split(line.replace("100:200", "10:20").replace("5s:60s", "0.5s:1s"), comments=True)
                assert words[0] == "miniscope-xr"
                target = Path(words[3])
                shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
                for beside in tmp_path.glob(f"{target.stem}_timeStamps.csv"):
                    beside.unlink()
                assert main([*words[1:], "--quiet"]) == 0
                assert target.exists()
        assert (tmp_path / "recordings" / "2026_03_14" / "15_09_26" / "Miniscope" / "0.avi").exists()
