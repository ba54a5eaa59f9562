"""A Zarr store on Windows: each chunk takes its name when whoever has the old one open lets it go."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from miniscope_xr.source import replace as replacing
from miniscope_xr.tools.export.patient import patient_store, writable
from tests.source.refusing import Refused, refuse_renames

zarr = pytest.importorskip("zarr")


@pytest.fixture
def refusals(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Windows refuses this many renames."""
    left = [0]
    refuse_renames(monkeypatch, left)
    monkeypatch.setattr(replacing, "is_held", lambda error: isinstance(error, Refused))
    return left


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_chunk_that_is_open_for_a_moment(tmp_path: Path, refusals: list[int], zarr_format: int) -> None:
    store = patient_store()(tmp_path / "a.zarr")
    group = zarr.open_group(store, mode="w", zarr_format=zarr_format)
    array = group.create_array("a", shape=(4,), chunks=(2,), dtype="u1")
    refusals[0] = 2
    array[:] = [1, 2, 3, 4]
    assert refusals[0] < 0
    del group["a"]
    array = group.create_array("a", shape=(2,), chunks=(2,), dtype="u1")
    array[:] = 7
    assert zarr.open_group(str(tmp_path / "a.zarr"), mode="r")["a"][:].tolist() == [7, 7]
    assert not list(tmp_path.rglob("*.partial"))


def test_one_that_stays_open_is_an_error_and_nothing_is_left(tmp_path: Path, refusals: list[int]) -> None:
    group = zarr.open_group(patient_store()(tmp_path / "a.zarr"), mode="w")
    array = group.create_array("a", shape=(2,), chunks=(2,), dtype="u1")
    refusals[0] = 10**6
    with pytest.raises(PermissionError):
        array[:] = 1
    assert not list(tmp_path.rglob("*.partial"))


def test_an_array_of_which_a_chunk_is_open_goes_when_that_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An archive has flags that go once a recording is whole: the last chunk was written a moment ago."""
    group = zarr.open_group(patient_store()(tmp_path / "a.zarr"), mode="w")
    group.create_array("a", shape=(2,), chunks=(1,), dtype="u1")[:] = 1
    left, real = [3], shutil.rmtree

    def refuses(path: Path, *rest: Any, **named: Any) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise Refused(13, "used by another process")
        real(path, *rest, **named)

    monkeypatch.setattr(shutil, "rmtree", refuses)
    monkeypatch.setattr(replacing, "is_held", lambda error: isinstance(error, Refused))
    del group["a"]
    assert left[0] == -1
    assert not (tmp_path / "a.zarr" / "a").exists()


def test_which_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    assert writable("a.zarr") == "a.zarr"
    monkeypatch.setattr(sys, "platform", "win32")
    assert writable("s3://bucket/a.zarr") == "s3://bucket/a.zarr"
    assert type(writable("a.zarr")) is patient_store()
