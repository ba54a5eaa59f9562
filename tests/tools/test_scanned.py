"""Every output, on a computer where another program opens each new file for a moment, as a virus scanner does.

Windows neither renames nor removes a file that somebody has open without sharing that. Nobody's command fails for it,
and nothing half made is left. On other systems the same program disturbs nobody.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from miniscope_xr.source import replace as replacing
from miniscope_xr.tools.cli import main
from miniscope_xr.tools.flash.disks.find import identify

HELD = 0.2  # seconds
IMAGE = ["--image", "--yes", "--backup-dir", "backups"]


class Scanner(threading.Thread):
    """Opens every file below a folder when it is there or has changed, and keeps it open for a while."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self.opened = folder, set[str]()
        self._open: list[tuple[float, Any]] = []
        self._seen: set[tuple[str, int]] = set()
        self._over = threading.Event()

    def run(self) -> None:
        over = False
        while not over:
            over = self._over.is_set()  # then it looks once more: a computer may be too busy for it before
            for place, _, names in os.walk(self.folder):
                for name in names:
                    self._look(Path(place, name))
                    self._let_go(time.monotonic() - HELD)  # however long the whole walk takes on a slow computer
            self._let_go(time.monotonic() - HELD)
            time.sleep(0.002)
        self._let_go(float("inf"))

    def _look(self, path: Path) -> None:
        with contextlib.suppress(OSError):
            now = (str(path), path.stat().st_mtime_ns)
            if now not in self._seen:
                self._seen.add(now)
                self._open.append((time.monotonic(), path.open("rb")))
                self.opened.add(path.name)

    def _let_go(self, before: float) -> None:
        while self._open and self._open[0][0] < before:
            self._open.pop(0)[1].close()

    def end(self) -> None:
        self._over.set()
        self.join()


@pytest.fixture
def scanner(tmp_path: Path, make_card: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scanner]:
    make_card(frames=40)[0].rename(tmp_path / "card.img")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(replacing, "_PATIENCE", 60)  # beside a busy computer's scanner, too
    for name in ("HOME", "XDG_DATA_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path))
    made = Scanner(tmp_path)
    made.start()
    yield made
    made.end()


def card() -> str:
    return identify("card.img").card_id


START = ["--start", "2026-03-14T15:09:26"]
COMMANDS = {
    "video": (["video", "card.img", "a.avi", "--codec", "FFV1"], "cv2"),
    "mp4": (["video", "card.img", "a.mp4", "--codec", "mp4v"], "cv2"),
    "image": (["image", "card.img", "copy.img"], ""),
    "rescue": (["rescue", "card.img", "rescued.img"], ""),
    "report": (["report", "card.img", "a.html"], "PIL"),
    "simulate": (["simulate", "new.img", "--frames", "5"], ""),
    "archive": (["archive", "card.img", "a.zarr", "--workers", "1"], "zarr"),
    "demo": (["demo", "demo"], "cv2"),
    "align": (["align", "card.img", "a.json", *START], ""),
    "backup": (["backup", "card.img", "--image", "--backup-dir", "backups"], ""),
    "set": (["set", "card.img", "gain=2", *IMAGE], ""),
    "collect": (["collect", "card.img", "into", "lab", "--name", "{card}"], ""),
    "miniscope-daq": (["export", "card.img", "new", "--to", "miniscope-daq"], "cv2"),
    "minian": (["export", "card.img", "new", "--to", "minian"], "zarr"),
    "zarr": (["export", "card.img", "new.zarr"], "zarr"),
    "netcdf": (["export", "card.img", "new.nc", "--to", "netcdf"], "netCDF4"),
    "hdf5": (["export", "card.img", "new.h5", "--to", "hdf5"], "h5py"),
    "tiff": (["export", "card.img", "new.tif"], "tifffile"),
    "nwb": (["export", "card.img", "new.nwb", *START], "pynwb"),
}
"""Every kind of output, and the library it needs."""


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_program_that_opens_new_files(name: str, scanner: Scanner, capsys: Any) -> None:
    words, library = COMMANDS[name]
    pytest.importorskip(library or "numpy", exc_type=ImportError)
    words = [*words, "--card", card()] if name == "set" else words
    assert main(words) == 0, capsys.readouterr().err
    with contextlib.suppress(SystemExit):  # a command that has no --force says so
        assert main([*words, "--force"]) == 0, capsys.readouterr().err
    scanner.end()
    assert scanner.opened > {"card.img"}
    left = [path for path in scanner.folder.rglob("*") if path.suffix == ".tmp" or ".part" in path.name]
    assert left + list(scanner.folder.glob(".miniscope-xr-*")) == []


@pytest.mark.skipif(sys.platform != "win32", reason="only Windows refuses to remove an open file")
def test_it_is_in_the_way(scanner: Scanner) -> None:
    """What the commands above run beside: without patience a new file can be neither renamed nor removed."""
    Path("new").write_bytes(b"x")
    while "new" not in scanner.opened:
        time.sleep(0.001)
    with pytest.raises(PermissionError):
        Path("new").unlink()
