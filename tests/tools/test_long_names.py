"""A laboratory's own folders: long paths, spaces and letters of any language, on every system."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from miniscope_xr.source.windows import real_path
from miniscope_xr.tools.cli import main

MODULES = {".avi": "cv2", ".nc": "h5netcdf", ".nwb": "pynwb", ".tif": "tifffile", ".zarr": "zarr", ".html": "PIL"}
NAME = "FOLDER/Käfig 鼠 \N{MOUSE}"
OUTPUTS = {
    "GREY": ["video", "CARD", f"{NAME}.avi", "--codec", "GREY"],
    "FFV1": ["video", "CARD", f"{NAME}.avi"],
    "mp4": ["video", "CARD", f"{NAME}.mp4", "--codec", "mp4v"],
    **{ending: ["export", "CARD", f"{NAME}{ending}"] for ending in (".nc", ".nwb", ".tif", ".zarr")},
    "report": ["report", "CARD", f"{NAME}.html"],
    "image": ["image", "CARD", f"{NAME}.img"],
    "backup": ["backup", "CARD", "--image", "--backup-dir", NAME],
}


@pytest.fixture
def card(make_card: Any, tmp_path: Path) -> Path:
    """A card whose path has more than the 260 letters that Windows once had for all of it."""
    folder = tmp_path / ("Maus 12 " + "ä" * 80) / ("Ω" * 80) / ("実験" * 40) / "Sitzung 1"
    folder.mkdir(parents=True)
    path = folder / "Karte 鼠 \N{MOUSE}.img"
    make_card(frames=5)[0].rename(path)
    assert len(str(path)) > 260
    return path


def test_it_is_read(card: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["info"], ["check", "--deep"]):
        assert main([words[0], str(card), *words[1:]]) == 0, capsys.readouterr().err
    with xr.open_dataset(card, engine="miniscope") as ds:
        assert ds.video.shape[0] == 5


def test_a_place_that_windows_cannot_tell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unknown(path: str) -> str:
        raise OSError(22, "More data available")

    monkeypatch.setattr("os.path.realpath", unknown)
    assert real_path(f"{tmp_path}/a/../b") == str(tmp_path / "b")


@pytest.mark.parametrize("what", OUTPUTS)
def test_it_is_written_to(what: str, card: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [word.replace("FOLDER", str(card.parent)) if word != "CARD" else str(card) for word in OUTPUTS[what]]
    pytest.importorskip(MODULES.get(Path(words[2]).suffix, "numpy"), exc_type=ImportError)
    if what == ".tif":  # tifffile asks
        try:
            os.path.realpath(card)
        except OSError:
            pytest.skip("Wine does not tell where a file with a long name is")
    assert main(words) == 0, capsys.readouterr().err
    made = Path(words[-1] if what == "backup" else words[2])
    assert made.is_dir() if what in (".zarr", "backup") else made.stat().st_size > 0


def test_it_is_prepared(card: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["prepare", str(card), "--image", "--dry-run", "gain=2x"]
    assert main(words) == 0, capsys.readouterr().err
