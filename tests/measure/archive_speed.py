"""How fast ``archive`` writes on one computer, in processes of its own, and by the workers of a scheduler.

    python -m tests.measure.archive_speed FOLDER [--frames 12000] [--runs 3] [--workers 2]

Pictures are noise in 24 grey levels, as in docs/scaling.md. Of each way the time on the clock and the CPU time of all
processes that did the work are printed; the ways take turns, so that other work on the machine meets all of them.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import distributed
import numpy as np

from miniscope_xr.tools.export.archive import archive
from miniscope_xr.tools.simulate import simulate
from tests.tools.test_cluster import Cluster


def cpu_here() -> float:
    """CPU time of this process and of those of its children that have ended, in s."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def cpu_of(pids: list[int]) -> float:
    """CPU time of processes that run, in s."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / 100


def make(path: Path, frames: int) -> Path:
    """Write a card of noise."""
    rng = np.random.default_rng(1)
    scene = rng.integers(40, 64, (200, 304, 304), np.uint8)
    return simulate(frames=frames, camera=scene).write(path)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--frames", type=int, default=12000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    card = make(args.folder / "card.img", args.frames)
    cluster = Cluster(Path(tempfile.mkdtemp(dir=args.folder)))
    try:
        for k in range(args.workers):
            cluster.worker(f"worker {k}")
        with distributed.Client(cluster.address, set_as_default=False) as client:
            client.wait_for_workers(args.workers, timeout=120)
        pids = [process.pid for process in cluster.processes]
        store = args.folder / "a.zarr"

        def fresh(*words: str) -> Callable[[], None]:
            """The command, as somebody types it."""
            command = [sys.executable, "-m", "miniscope_xr", "archive", str(card), str(store), "--quiet", *words]
            return lambda: subprocess.run(command, check=True)  # type: ignore[return-value]

        ways: dict[str, Callable[[], object]] = {
            "one process": lambda: archive([card], store, workers=1, progress=False),
            f"{args.workers} processes": lambda: archive([card], store, workers=args.workers, progress=False),
            f"{args.workers} workers": lambda: archive([card], store, cluster=cluster.address, progress=False),
            "the command, one process": fresh("--workers", "1"),
            f"the command, {args.workers} processes": fresh("--workers", str(args.workers)),
            f"the command, {args.workers} workers": fresh("--cluster", cluster.address),
        }
        times: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for _ in range(args.runs):
            for way, write in ways.items():
                shutil.rmtree(store, ignore_errors=True)
                used, begun = cpu_here() + cpu_of(pids), time.perf_counter()
                write()
                times[way].append((time.perf_counter() - begun, cpu_here() + cpu_of(pids) - used))
    finally:
        cluster.close()
    for way, found in times.items():
        clock, cpu = (statistics.median(each) for each in zip(*found, strict=True))
        first = found[0][0]
        print(f"{way:30s} {clock:6.1f} s ({args.frames / clock:6.0f} frames/s; first {first:.1f}), CPU {cpu:6.1f} s")


if __name__ == "__main__":
    main()
