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
from typing import Any

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
        first = ds["time"].values.astype("timedelta64[ms]").astype(int) / 1000
        last = ds["time_last"].values.astype("timedelta64[ms]").astype(int) / 1000
        np.testing.assert_allclose([float(r["timestamp_first"]) for r in rows], first)
        np.testing.assert_allclose([float(r["timestamp_last"]) for r in rows], last)
        began = datetime.fromisoformat("2026-03-14T15:09:26+00:00").timestamp()
        np.testing.assert_allclose([float(r["unix_time"]) for r in rows], began + first)


class TestNetcdf:
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
            assert file.attrs["led"] == 17
            gaps = [k for _, first, last in file["gaps"][...] for k in range(first, last + 1)]
        assert gaps == lost


class TestTiff:
    def test_is_a_big_stack_with_a_page_a_frame(self, ds: xr.Dataset, tmp_path: Path, lost: list[int]) -> None:
        have("tiff")
        import tifffile

        export(ds, tmp_path / "a.tif")
        with tifffile.TiffFile(tmp_path / "a.tif") as file:
            assert file.is_bigtiff
            assert len(file.pages) == ds.sizes["frame"]
            assert file.series[0].axes == "TYX"
            np.testing.assert_array_equal(file.asarray(), ds["video"].values)
            about = json.loads(file.pages[0].description)
        assert about["settings"]["led"] == 17
        assert [k for gap in about["gaps"] for k in range(gap["first"], gap["last"] + 1)] == lost

    def test_blank_frames_are_gaps_too(self, card: Any, tmp_path: Path, lost: list[int]) -> None:
        have("tiff")
        import tifffile

        with xr.open_dataset(card[0], engine="miniscope", gaps="fill") as filled:
            export(filled, tmp_path / "a.tif")
        with tifffile.TiffFile(tmp_path / "a.tif") as file:
            about = json.loads(file.pages[0].description)
        assert [k for gap in about["gaps"] for k in range(gap["first"], gap["last"] + 1)] == lost

    def test_headers_lie_beside_it(self, ds: xr.Dataset, tmp_path: Path) -> None:
        have("tiff")
        export(ds, tmp_path / "a.tif")
        with (tmp_path / "a_headers.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [int(r["frame_num"]) for r in rows] == ds["frame_num"].values.tolist()
        assert [int(r["time"]) for r in rows] == ds["timestamp"].values.tolist()
        assert [int(r["buffers_present"]) for r in rows] == ds["buffers_present"].values.tolist()


class TestNwb:
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
        found = [k for _, g in gaps.iterrows() for k in range(int(g.first_frame_num), int(g.last_frame_num) + 1)]
        assert found == lost
        assert pynwb.validate(path=tmp_path / "a.nwb") == []


class TestMiniscopeDaq:
    @pytest.fixture
    def session(self, ds: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        have("miniscope-daq")
        from miniscope_xr.tools.export import daq_folder

        monkeypatch.setattr(daq_folder, "FRAMES_PER_FILE", 16)
        return export(ds, tmp_path / "out", to="miniscope-daq", start="2026-03-14T15:09:26", animal="m1", codec="GREY")

    def test_lies_where_the_program_puts_it(self, session: Path, ds: xr.Dataset, tmp_path: Path) -> None:
        assert session == tmp_path / "out" / "2026_03_14" / "15_09_26"
        files = {str(p.relative_to(session)) for p in session.rglob("*") if p.is_file()}
        videos = {f"Miniscope/{k}.avi" for k in range(-(-ds.sizes["frame"] // 16))}
        others = {"metaData.json", "notes.csv", "Miniscope/metaData.json", "Miniscope/timeStamps.csv"}
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
        device = json.loads((session / "Miniscope" / "metaData.json").read_text())
        assert device["ROI"] == {"leftEdge": 0, "topEdge": 0, "width": 304, "height": 304}
        assert device["frameRate"] == "20FPS"
        assert device["led0"] == 17
        assert device["framesPerFile"] == 16
        meta = json.loads((session / "metaData.json").read_text())
        assert meta["animalName"] == "m1"
        assert meta["recordingStartTime"]["hour"] == 15
        notes = (session / "notes.csv").read_text().splitlines()
        assert notes[0] == "Time Stamp (ms),Note"
        assert any(str(lost[0]) in note for note in notes[2:])

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
    def test_an_existing_output_is_kept_unless_forced(self, ds: xr.Dataset, tmp_path: Path, to: str) -> None:
        have(to)
        options: dict[str, Any] = {"frames": slice(0, 4), "start": "2026-03-14T15:09:26"}
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

    def test_python(self, tmp_path: Path) -> None:
        names: dict[str, Any] = {}
        for block in blocks("python"):
            exec(block, names)
        import matplotlib.pyplot as plt

        plt.close("all")
        names["ds"].close()
        assert {"film.avi", "part.avi", "movie.h5", "minian_data", "movie.nc"} <= {p.name for p in tmp_path.iterdir()}

    def test_commands(self, tmp_path: Path) -> None:
        from miniscope_xr.tools.cli import main

        for block in blocks("bash"):
            for line in block.splitlines():
                words = shlex.split(line.replace("100:200", "10:20"), comments=True)
                assert words[0] == "miniscope-xr"
                target = Path(words[3])
                shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
                for beside in tmp_path.glob(f"{target.stem}_timeStamps.csv"):
                    beside.unlink()
                assert main([*words[1:], "--quiet"]) == 0
                assert target.exists()
        assert (tmp_path / "recordings" / "2026_03_14" / "15_09_26" / "Miniscope" / "0.avi").exists()
