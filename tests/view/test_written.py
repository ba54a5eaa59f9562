"""A file made from the page is the file that the command makes; ended or refused work leaves nothing."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from miniscope_xr.tools.cli import main
from miniscope_xr.tools.simulate import Stall
from miniscope_xr.tools.view import Viewer, written
from miniscope_xr.tools.view.shelf import Shelf
from tests.view.conftest import Asker

CARD = {"card": 0, "recording": 0}
ALL = {"start": 0, "stop": 60}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name", "command"),
    [
        ("GREY", "a.avi", ["video"]),
        ("FFV1", "a.avi", ["video", "--codec", "FFV1"]),
        ("zarr", "a.zarr", ["export"]),
        ("hdf5", "a.h5", ["export"]),
        ("tiff", "a.tif", ["export"]),
        ("report", "a.html", ["report"]),
    ],
)
def test_a_file_is_the_one_of_the_command(viewing, clean_card, tmp_path, kind, name, command):
    if kind in ("GREY", "FFV1"):
        pytest.importorskip("cv2")
    parts = viewing(clean_card[0]).post("write", **CARD, **ALL, kind=kind, path=name).lines
    assert parts[-1]["written"] == str(tmp_path / name)
    (tmp_path / "command").mkdir()
    assert main([command[0], str(clean_card[0]), str(tmp_path / "command" / name), *command[1:], "--quiet"]) == 0
    made, expected = tmp_path / name, tmp_path / "command" / name
    if kind == "zarr":
        xr.testing.assert_identical(xr.open_zarr(made).load(), xr.open_zarr(expected).load())
    elif kind == "hdf5":
        h5py = pytest.importorskip("h5py")
        with h5py.File(made) as one, h5py.File(expected) as other:
            np.testing.assert_array_equal(one["mov"][:], other["mov"][:])
    elif kind == "tiff":  # it says when it was made
        tifffile = pytest.importorskip("tifffile")
        np.testing.assert_array_equal(tifffile.imread(made), tifffile.imread(expected))
    else:
        assert made.read_bytes() == expected.read_bytes()


@pytest.mark.slow
def test_some_rows_of_one_recording(viewing, make_card, open_card, tmp_path):
    path, _ = make_card(frames=40, events=[Stall(600, 300)])
    answer = viewing(path).post("write", **CARD, start=3, stop=20, kind="netcdf", path="part.nc")
    assert answer.lines[-1]["written"] == str(tmp_path / "part.nc")
    with xr.open_dataset(tmp_path / "part.nc") as part:
        np.testing.assert_array_equal(part.video.values, open_card(path).video[3:20].values)


@pytest.mark.slow
def test_the_animal_goes_where_it_can(viewing, clean_card, tmp_path):
    asker = viewing(clean_card[0])
    asker.post("write", **CARD, **ALL, kind="report", path="a.html", animal="mouse 7")
    assert "mouse 7" in (tmp_path / "a.html").read_text(encoding="utf-8")
    refused = asker.post("write", **CARD, **ALL, kind="zarr", path="a.zarr", animal="mouse 7")
    assert refused.status == 422
    assert "leave it out" in refused.json["error"]


@pytest.mark.parametrize(
    "given",
    [{"kind": "avi"}, {"start": 60}, {"stop": 0}, {"path": ""}, {"path": 3}, {"animal": [1]}, {"recording": 5}],
    ids=str,
)
def test_what_cannot_be_is_refused(viewing, clean_card, tmp_path, given):
    before = sorted(tmp_path.iterdir())
    asked = {**CARD, **ALL, "kind": "netcdf", "path": "a.nc", **given}
    assert viewing(clean_card[0]).post("write", **asked).status == 422
    assert sorted(tmp_path.iterdir()) == before


def test_a_file_that_is_there_is_kept(viewing, clean_card, tmp_path):
    (tmp_path / "a.nc").write_text("mine")
    parts = viewing(clean_card[0]).post("write", **CARD, **ALL, kind="netcdf", path="a.nc").lines
    assert "exists already" in parts[-1]["error"]
    assert (tmp_path / "a.nc").read_text() == "mine"


def test_the_card_itself_is_kept(viewing, clean_card):
    before = clean_card[0].read_bytes()
    parts = viewing(clean_card[0]).post("write", **CARD, **ALL, kind="report", path=str(clean_card[0])).lines
    assert "error" in parts[-1]
    assert clean_card[0].read_bytes() == before


def test_another_card_in_the_reader_is_not_written(viewing, make_card, tmp_path):
    path, _ = make_card(frames=10)
    asker = viewing(path)
    path.write_bytes(make_card(frames=9)[0].read_bytes())  # a file that is open takes no other one's place on Windows
    answer = asker.post("write", **CARD, start=0, stop=9, kind="netcdf", path="a.nc")
    assert "open it again" in answer.lines[-1]["error"]
    assert not (tmp_path / "a.nc").exists()


def ends(folder: Path) -> None:
    """Wait until nothing of an output is left in a folder."""
    end = time.monotonic() + 30
    while left := [path for path in folder.iterdir() if path.suffix != ".img"]:
        assert time.monotonic() < end, left
        time.sleep(0.05)


def begun(asker: Asker, kind: str, name: str) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    """Have 20 rows written, and go on before they are."""
    connection = http.client.HTTPConnection(asker.host, timeout=30)
    body = json.dumps({**CARD, "start": 0, "stop": 20, "kind": kind, "path": name})
    connection.request("POST", f"{asker.path}write", body, {"Content-Type": "application/json"})
    return connection, connection.getresponse()


@pytest.mark.usefixtures("slowly")
@pytest.mark.parametrize(("kind", "name"), [("FFV1", "a.avi"), ("netcdf", "a.nc"), ("zarr", "a.zarr")])
def test_a_page_that_goes_ends_the_work(viewing, make_card, tmp_path, kind, name):
    path, _ = make_card(frames=20)
    asker = viewing(path)
    connection, response = begun(asker, kind, name)
    assert json.loads(response.readline())["done"] == 0
    with contextlib.suppress(OSError):
        response.close()
    connection.close()
    ends(tmp_path)
    assert asker.get("start").status == 200


@pytest.mark.usefixtures("slowly")
def test_a_viewer_that_is_closed_ends_the_work_and_waits_for_it(make_card, tmp_path):
    path, _ = make_card(frames=20)
    with Viewer(tmp_path) as viewer:
        viewer.open(str(path))
        connection, response = begun(Asker(viewer), "netcdf", "a.nc")
        while json.loads(response.readline())["done"] < 20:
            pass
    assert [found.suffix for found in tmp_path.iterdir()] == [".img"]
    assert [json.loads(line) for line in response.read().splitlines()][-1] == {"error": "the viewer was closed"}
    connection.close()


@pytest.mark.usefixtures("slowly")
def test_closing_the_iterator_ends_the_work(make_card, tmp_path):
    path, _ = make_card(frames=20)
    shelf = Shelf()
    shelf.open(str(path))
    parts = written.write(shelf.seen(0, 0), "netcdf", tmp_path / "a.nc", slice(0, 20), "")
    while next(parts)["done"] < 20:
        pass
    parts.close()
    assert [found.suffix for found in tmp_path.iterdir()] == [".img"]
    shelf.close()


def test_what_has_to_be_installed_is_said(viewing, clean_card, monkeypatch):
    monkeypatch.setattr(written.importlib.util, "find_spec", lambda name: None if name == "h5py" else object())
    kinds = {kind["name"]: kind for kind in viewing(clean_card[0]).get("kinds", **CARD).json["kinds"]}
    assert kinds["hdf5"]["missing"] == 'pip install "miniscope-xr[hdf5]"'
    assert not kinds["zarr"]["missing"]
