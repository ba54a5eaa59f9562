"""Exports hold some batches of frames, however long the recording is."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from miniscope_xr.tools.export import FORMATS

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from images import HEIGHT, WIDTH, write_image

NEEDS = {"miniscope-daq": "cv2", "hdf5": "h5py", "tiff": "tifffile", "netcdf": "h5netcdf", "nwb": "ndx_miniscope"}
FRAMES = 600
ALL_MB = FRAMES * HEIGHT * WIDTH / 1e6
MOST_MB = 40  # at most 27 were measured
EXPORT = """
    import sys
    import xarray as xr
    from miniscope_xr.tools.export import export
    image, folder, to, suffix = sys.argv[1:]
    def peak():
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1000
    with xr.open_dataset(image, engine="miniscope") as ds:
        export(ds, folder + "/first" + suffix, to=to, frames=slice(2), progress=False)  # everything is imported now
        before = peak()
        export(ds, folder + "/all" + suffix, to=to, progress=False)
        print(peak() - before)
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image(tmp_path_factory.mktemp("long") / "long.img", FRAMES)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc/self/status")
@pytest.mark.parametrize("to", FORMATS)
def test_an_export_never_holds_the_recording(image: Path, tmp_path: Path, to: str) -> None:
    pytest.importorskip(NEEDS.get(to, "zarr"), exc_type=ImportError)
    suffix = next(iter(FORMATS[to].suffixes), "")
    run = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(EXPORT)]
    # one heap, not one a thread: what is measured does not depend on the number of cores
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(
        [*run, str(image), str(tmp_path), to, suffix],
        capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    assert float(done.stdout) < MOST_MB < ALL_MB, f"{done.stdout.strip()} MB"
