"""Run the programs that users open our files with, each in an environment of its own, and write docs/readers.md.

    python tests/readers/run.py            # all of them
    python tests/readers/run.py minian     # one

Needs the network (or an index) to install them once, about 2 GB in ``.readers/``; minian needs ffmpeg on the PATH. This
is not part of the default test command: the programs take minutes to install and clash with each other.
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

SUITE2P = ["natsort", "tifffile", "numpy", "numba", "matplotlib", "scipy", "scikit-learn", "h5py", "importlib-metadata",
           "scanimage-tiff-reader", "opencv-python-headless", "pynwb", "tqdm"]  # fmt: skip
INSTALL: dict[str, list[list[str]]] = {
    "files": [["tifffile", "h5py", "zarr", "netCDF4", "av", "numpy"]],
    "neuroconv": [["neuroconv[miniscope]", "roiextractors", "pynwb", "nwbinspector"]],
    "minian": [["minian", "xarray<2025.9"]],  # newer xarray does not open stores with zarr 2, which minian brings
    "suite2p": [["--no-deps", "suite2p"], SUITE2P],
    "caiman": [],
}
"""pip's arguments for each environment. CaImAn: conda only, so it runs where it is importable (CAIMAN_PYTHON)."""


def make_card(folder: Path) -> xr.Dataset:
    """Simulate a recording with lost frames, longer than one file of a Miniscope-DAQ folder."""
    from miniscope_xr.tools.simulate import Stall, calcium_scene, simulate

    camera = calcium_scene(304, 304)
    scene = np.stack([camera(k) for k in range(100)])
    card = simulate(frames=1100, camera=scene, period_ms=50.6, events=[Stall(5000, 900), Stall(30000, 2000)])
    return xr.open_dataset(card.write(folder / "card.img"), engine="miniscope")


def export_all(folder: Path) -> None:
    """Write every format, and what a reader must find."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with make_card(folder) as ds:
        for name, codec in (("grey.avi", "GREY"), ("ffv1.avi", "FFV1"), ("matroska.mkv", "FFV1")):
            ds.miniscope.to_video(folder / name, codec=codec)
        for name in ("a.zarr", "a.nc", "a.h5", "a.tif", "a.nwb"):
            ds.miniscope.export(folder / name)
        ds.miniscope.export(folder / "minian", to="minian")
        ds.miniscope.export(folder / "daq", to="miniscope-daq", animal="m1")
        from miniscope_xr.tools.timing import frame_rate

        np.savez(
            folder / "truth.npz", video=ds["video"].values, time=ds["timestamp"].values / 1000,
            frame_num=ds["frame_num"].values, fps=frame_rate(ds),
        )  # fmt: skip


def environment(name: str) -> Path:
    """Make an environment once; return its Python."""
    if name == "caiman":
        return Path(os.environ.get("CAIMAN_PYTHON", sys.executable))
    place = WORK / name
    python = place / ("Scripts" if os.name == "nt" else "bin") / "python"
    done = place / "installed"
    if not done.exists():
        venv.create(place, with_pip=True, clear=True)
        for arguments in INSTALL[name]:
            subprocess.run([str(python), "-m", "pip", "install", "-q", *arguments], check=True)
        done.touch()
    return python


def run(name: str, folder: Path) -> list[dict[str, Any]]:
    """Run one reader script; return what it found."""
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
        absent = line["package"] == "caiman" and "No module named 'caiman'" in line["said"]
        result = "not run: not installed here" if absent else ("" if line["good"] else "**fails**: ") + line["said"]
        rows.append(f"| {line['package']} {'' if absent else line['version']} | {line['what']} | {result} |")
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
        "CaImAn is not on PyPI (the package of that name there is something else); to include it, install it from",
        "conda-forge and set `CAIMAN_PYTHON` to that environment's Python. suite2p runs with stand-ins for torch and",
        "cellpose, which have no part in reading files.",
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
    return 0 if all(line["good"] or line["package"] == "caiman" for line in found) else 1


if __name__ == "__main__":
    raise SystemExit(main())
