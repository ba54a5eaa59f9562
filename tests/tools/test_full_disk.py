"""A disk that gets full during a command: one sentence, exit code 5, nothing left, and the next run works."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from miniscope_xr.tools.cli import main
from miniscope_xr.tools.export import FORMATS
from miniscope_xr.tools.simulate import noise_camera, simulate

from ..small_disk import grow, small_disk

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a small disk is mounted on Linux only")

NEEDS = {"miniscope-daq": "cv2", "hdf5": "h5py", "tiff": "tifffile", "netcdf": "h5netcdf", "nwb": "ndx_miniscope"}
COMMANDS = {
    **{codec: ["video", "CARD", "a.avi", "--codec", codec] for codec in ("GREY", "FFV1", "MJPG", "XVID", "mp4v")},
    **{f"{codec} mkv": ["video", "CARD", "a.mkv", "--codec", codec] for codec in ("GREY", "FFV1")},
    **{
        to: ["export", "CARD", f"new/folder/a{''.join(known.suffixes[:1])}", "--to", to]
        for to, known in FORMATS.items()
    },
    "report": ["report", "CARD", "a.html"],
    "simulate": ["simulate", "a.img", "--frames", "60"],
}
GOES_ON = {"image": ["image", "CARD", "a.img"], "archive": ["archive", "CARD", "a.zarr"]}
"""Commands that keep what they have, and go on from there."""


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = simulate(frames=120, width=304, height=304, camera=noise_camera(304, 304))
    return made.write(tmp_path_factory.mktemp("card") / "card.img")


def need(name: str) -> None:
    command = COMMANDS.get(name, GOES_ON.get(name, [""]))[0]
    module = {"video": "cv2", "report": "PIL", "archive": "zarr"}.get(command, NEEDS.get(name, "zarr"))
    if command not in ("simulate", "image"):
        pytest.importorskip(module, exc_type=ImportError)


def words(arguments: list[str], card: Path) -> list[str]:
    return [str(card) if word == "CARD" else word for word in arguments]


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_is_left_and_the_next_run_works(
    name: str, card: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    need(name)
    arguments = words(COMMANDS[name], card)
    with small_disk(tmp_path / "small", 300_000) as disk, contextlib.chdir(disk):
        if arguments[0] == "export" or name.startswith("GREY"):  # what is known to be too large is not even begun
            module = "video.write" if name.startswith("GREY") else "export.run"
            monkeypatch.setattr(f"miniscope_xr.tools.{module}.refuse_too_large", lambda *_: None)
        assert main(arguments) == 5
        said = capfd.readouterr().err
        assert said.startswith(f"miniscope-xr {arguments[0]}: "), said
        assert len(said.splitlines()) == 1, said
        assert "No space left" in said or "is the disk full?" in said
        assert files(disk) == []
        grow(disk, 64 << 20)
        assert main(arguments) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", GOES_ON)
def test_what_can_go_on_does(name: str, card: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    need(name)
    arguments = words(GOES_ON[name], card)
    with small_disk(tmp_path / "small", 2 << 20) as disk, contextlib.chdir(disk):
        assert main(arguments) == 5
        said = capfd.readouterr().err
        assert len(said.splitlines()) == 1, said
        assert "run it again" in said
        grow(disk, 64 << 20)
        assert main(arguments) == 0


@pytest.mark.slow
@pytest.mark.parametrize("to", ["netcdf", "hdf5", "nwb"])
def test_the_interpreter_ends_well_after_hdf5_met_a_full_disk(to: str, card: Path, tmp_path: Path) -> None:
    need(to)
    program = "import sys; from miniscope_xr.tools.cli import main; from miniscope_xr.tools.export import run; "
    program += "run.refuse_too_large = lambda *_: None; sys.exit(main(sys.argv[1:]))"
    with small_disk(tmp_path / "small", 300_000) as disk:
        done = subprocess.run(
            [sys.executable, "-c", program, *words(COMMANDS[to], card)],
            cwd=disk, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONFAULTHANDLER": "1"},
        )  # fmt: skip
        assert (done.returncode, len(done.stderr.splitlines())) == (5, 1), done.stderr
        assert files(disk) == []
