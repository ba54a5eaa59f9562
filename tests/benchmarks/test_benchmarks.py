"""What reading and exporting cost, beside the least they can cost; see conftest.py for how to run it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from conftest import FRAMES, Versus, away, cooled
from images import FRAME_BYTES, HEIGHT, LAYOUT, SECTOR, WIDTH, EndlessCard
from xarray.backends import BackendArray
from xarray.core import indexing

from miniscope_xr import SDCard
from miniscope_xr.card import OpenCard, OpenRecording
from miniscope_xr.frames.stencil import aligned_empty
from miniscope_xr.index.build import build_index

DATA = LAYOUT.sectors.data * SECTOR


def opened(image: Path, **options: Any) -> xr.Dataset:
    return xr.open_dataset(image, engine="miniscope", **options)


def aligned_read(image: Path) -> Callable[[], None]:
    """One read of the card's data into page-aligned memory: what reading it all can cost at least."""

    def read() -> None:
        out = aligned_empty((FRAMES * FRAME_BYTES,)).data
        fd = os.open(image, os.O_RDONLY)
        try:
            at = 0
            while at < len(out):
                at += os.preadv(fd, [out[at : at + (1 << 30)]], DATA + at)
        finally:
            os.close(fd)

    return read


@pytest.mark.parametrize("counted", [True, False], ids=["finished", "interrupted"])
def test_reads_to_open_64_gb(benchmark: Any, counted: bool) -> None:
    frames = (64 * 10**9 - DATA) // FRAME_BYTES
    card = EndlessCard(frames, counted)

    def opening() -> None:
        card.reads.clear()
        assert build_index(card).recordings[0].n_buffers == 5 * frames

    benchmark.pedantic(opening, rounds=3)
    reads = len(set(card.reads))
    assert not counted or reads <= 24  # a count, not a time: it may fail
    if benchmark.stats is not None:
        kind = "finished" if counted else "interrupted"
        Versus(benchmark, Path()).report(
            work=f"reads to open 64 GB, {kind}", goal="24" if counted else "", value=str(reads)
        )


@pytest.mark.slow
def test_open(versus: Versus, image: Path) -> None:
    versus("open, count frames, close", lambda: opened(image).close(), "", 50, mio="open")


def test_full_load(versus: Versus, image: Path) -> None:
    def load() -> None:
        with opened(image) as ds:
            ds["video"].values

    limit = "aligned read"
    versus("full load", load, ">= 0.90", 7, aligned_read(image), limit, mio="frames", speed=True)


@pytest.mark.parametrize("work", ["everything", "video.load()", "times"])
def test_cold(versus: Versus, image: Path, work: str) -> None:
    if not hasattr(os, "posix_fadvise"):
        pytest.skip("needs a system that can be asked to forget a file (posix_fadvise)")

    def load() -> None:
        with opened(image) as ds:
            {"everything": ds, "video.load()": ds["video"], "times": ds["time"]}[work].load()

    limit = "aligned read, cold"
    versus(f"cold: {work}", load, "", 3, aligned_read(image), limit, speed=True, before=cooled(image))


def test_cursor(versus: Versus, image: Path) -> None:
    def read() -> None:
        with SDCard(image) as card:
            for _ in range(FRAMES):
                card.read()

    versus("SDCard, frame after frame", read, "mio >= 10", 3, aligned_read(image), "aligned read", "frames", True)


def test_last_frame(versus: Versus, image: Path) -> None:
    def frame(k: int) -> Callable[[], None]:
        def read() -> None:
            with SDCard(image) as card:
                card.frame = k
                card.read()

        return read

    versus("last frame, fresh object", frame(FRAMES - 1), "<= 1.5", 50, frame(0), "frame 0, fresh", mio="last")


class _Constant(BackendArray):
    """Frames that cost nothing: what is left is xarray."""

    shape, dtype = (FRAMES, HEIGHT, WIDTH), np.dtype(np.uint8)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        image = np.zeros((HEIGHT, WIDTH), np.uint8)
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, lambda _: image)


def test_one_frame(versus: Versus, image: Path) -> None:
    at = iter(np.random.default_rng(0).integers(0, FRAMES, 100_000).tolist())
    free = xr.DataArray(indexing.LazilyIndexedArray(_Constant()), {"frame": np.arange(FRAMES)}, ("frame", "y", "x"))
    with opened(image) as ds:
        video = ds["video"]
        floor = "xarray, an array that costs nothing and no coordinate but frame"
        versus(
            "one frame through xarray",
            lambda: video[next(at)].values,
            "180 us",
            500,
            lambda: free[next(at)].values,
            floor,
        )


def test_header_table(versus: Versus, image: Path) -> None:
    def table() -> None:
        with opened(image, group="buffers") as ds:
            ds.load()

    fd = os.open(image, os.O_RDONLY)
    offsets = [DATA + k * FRAME_BYTES + b * 40 * SECTOR for k in range(FRAMES) for b in range(5)]
    try:
        preads = lambda: [os.pread(fd, 48, at) for at in offsets]  # noqa: E731
        versus("header table", table, "mio >= 200", 7, preads, "one pread a header", "headers", True)
    finally:
        os.close(fd)


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["GREY", "FFV1"])
def test_video(versus: Versus, image: Path, tmp_path: Path, codec: str) -> None:
    cv2 = pytest.importorskip("cv2", reason="needs OpenCV: pip install 'miniscope-xr[video]'")
    some = min(FRAMES, {"GREY": 20_000, "FFV1": 2_000}[codec])
    with opened(image) as ds:
        frames = ds["video"][:some].values

        theirs, mine = tmp_path / "cv2.avi", tmp_path / "ours.avi"

        def alone() -> None:
            writer = cv2.VideoWriter(str(theirs), cv2.VideoWriter_fourcc(*codec), 20.0, (WIDTH, HEIGHT), False)
            for frame in frames:
                writer.write(frame)
            writer.release()

        from miniscope_xr.tools.video.write import dataset_to_video

        def ours() -> None:
            dataset_to_video(ds, mine, codec=codec, frames=slice(some), force=True, progress=False)

        goal = {"GREY": ">= 0.95", "FFV1": ">= 2.0"}[codec]
        fresh = away(theirs, mine)
        versus(f"{codec} video of {some} frames", ours, goal, 7, alone, "cv2 alone", speed=True, before=fresh)


def test_trimmed_image(versus: Versus, image: Path, tmp_path: Path) -> None:
    from miniscope_xr.tools.copy.ends import end_byte
    from miniscope_xr.tools.copy.image import trim

    card = OpenCard(image)
    try:
        store = OpenRecording(card, card.recording(None))
        assert end_byte(store) == DATA + FRAMES * FRAME_BYTES

        trimmed, plain = tmp_path / "trimmed.img", tmp_path / "copy.img"

        def ours() -> None:
            trim(store, trimmed, force=True, progress=False)

        def copy() -> None:
            shutil.copyfile(image, plain)

        fresh = away(trimmed, plain)
        versus("trimmed image", ours, ">= 1.0", 7, copy, "shutil.copyfile", speed=True, before=fresh)
    finally:
        card.close()


def _fresh(code: str, *arguments: object, **environment: str) -> float:
    """Run code in a fresh interpreter; it prints a number."""
    run = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code), *map(str, arguments)]
    done = subprocess.run(run, capture_output=True, text=True, check=True, env={**os.environ, **environment})
    return float(done.stdout.strip().splitlines()[-1])


_EXPORT = """
    import sys, tempfile
    import cv2, miniscope_xr.backend, xarray as xr
    from miniscope_xr.tools.video.write import dataset_to_video
    def peak():  # not ru_maxrss: that begins with the size of the process that started this one
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1000
    ds = xr.open_dataset(sys.argv[1], engine="miniscope")
    before = peak()
    with tempfile.TemporaryDirectory() as folder:
        dataset_to_video(ds, folder + "/a.avi", codec="GREY", frames=slice(int(sys.argv[2])), progress=False)
    print(peak() - before)
"""


@pytest.mark.slow
def test_peak_memory(benchmark: Any, image: Path) -> None:
    pytest.importorskip("cv2", reason="needs OpenCV: pip install 'miniscope-xr[video]'")
    if not Path("/proc/self/status").exists():
        pytest.skip("peak memory is read from /proc/self/status, which this system lacks")
    found = {n: _fresh(_EXPORT, image, n) for n in (FRAMES // 4, FRAMES)}
    benchmark.pedantic(lambda: None)
    if benchmark.stats is not None:
        for n, peak in found.items():
            value = f"{peak:.0f} MB"
            Versus(benchmark, image).report(work=f"peak memory, {n} frames to GREY", goal="<= 40 MB", value=value)


_IMPORT = """
    import time, xarray, xarray.backends, numpy
    start = time.perf_counter()
    import miniscope_xr, miniscope_xr.backend
    print(time.perf_counter() - start)
"""


@pytest.mark.slow
def test_import(benchmark: Any, tmp_path: Path) -> None:
    # compiled, as an installed package is; a checkout may forbid that
    compiled = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path)}
    _fresh(_IMPORT, **compiled)
    seconds = sorted(_fresh(_IMPORT, **compiled) for _ in range(1 if benchmark.disabled else 9))
    benchmark.pedantic(lambda: None)
    if benchmark.stats is not None:
        row = {"work": "import over xarray's own", "goal": "<= 0.1 s", "seconds": seconds[len(seconds) // 2]}
        Versus(benchmark, Path()).report(**row)


def test_quality(versus: Versus, image: Path) -> None:
    """The speed of a 90 MB/s reader is 970 frames of 304x304 a second."""

    def measure() -> None:
        with opened(image) as ds:
            ds.miniscope.quality(progress=False)

    goal = f"{FRAMES / 970:.2f} s (970 frames/s)"
    versus("quality, every frame", measure, goal, 3, aligned_read(image), "aligned read")
