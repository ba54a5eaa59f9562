"""Benchmarks beside their limits and beside mio, in one run.

    MINISCOPE_BENCH_FRAMES=20000 MINISCOPE_BENCH_MIO=/path/to/python \
        pytest tests/benchmarks --benchmark-enable --benchmark-json=benchmarks.json

Without the first variable the cards are tiny, so that the code is run everywhere; without the second, mio is used
where this interpreter has it. No figure ever fails a test: machines are slow, shared and different. Each limit is
timed right before the round it is compared with, and the table shows medians of such ratios.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from images import write_image

FRAMES = int(os.environ.get("MINISCOPE_BENCH_FRAMES", "60"))
PEER = Path(__file__).with_name("peer.py")
_rows: list[dict[str, Any]] = []


@pytest.fixture(scope="session")
def image(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A clean card of MINISCOPE_BENCH_FRAMES frames, warm in the page cache."""
    folder = os.environ.get("MINISCOPE_BENCH_DIR")
    with tempfile.TemporaryDirectory(dir=folder) as made:
        yield write_image(Path(made) / "bench.img", FRAMES)


@dataclass
class Versus:
    """Rounds of ours, each right behind one of every other, and a row of the table."""

    benchmark: Any
    image: Path

    def __call__(
        self, work: str, ours: Callable[[], object], goal: str, rounds: int = 5,
        limit: Callable[[], object] | None = None, limit_name: str = "", mio: str = "", speed: bool = False,
        before: Callable[[], object] = lambda: None,
    ) -> None:  # fmt: skip
        """Time ``ours``; ``speed`` shows limit / ours (a share of the limit's speed), else ours / limit.

        ``before`` is run before each of them and not timed.
        """
        theirs: list[float] = []

        def setup() -> None:
            before()
            if limit is not None:
                start = time.perf_counter()
                limit()
                theirs.append(time.perf_counter() - start)
                before()

        setup()
        ours()  # both once, warm
        theirs.clear()
        self.benchmark.pedantic(ours, setup=setup, rounds=rounds)
        if self.benchmark.stats is None:  # --benchmark-disable: the code has run, nothing is timed
            return
        times = self.benchmark.stats.stats.data
        row: dict[str, Any] = {"work": work, "goal": goal, "seconds": statistics.median(times)}
        if theirs:
            ratio = statistics.median(b / a if speed else a / b for a, b in zip(times, theirs, strict=True))
            row |= {"limit": limit_name, "limit_seconds": statistics.median(theirs), "ratio_to_limit": ratio}
        if mio and (seconds := peer_seconds(self.image, mio)):
            row |= {"mio_seconds": seconds, "ratio_to_mio": seconds / row["seconds"]}
        self.report(**row)

    def report(self, **row: Any) -> None:
        """Add a row to the table and to the JSON."""
        self.benchmark.extra_info.update(row)
        _rows.append(row)


def away(*made: Path) -> Callable[[], None]:
    """Return what makes both write new files: writing over an old one, or while one is on its way, has a price."""

    def clean() -> None:
        for path in made:
            path.unlink(missing_ok=True)
        if hasattr(os, "sync"):
            os.sync()

    return clean


def cooled(image: Path) -> Callable[[], None]:
    """Return what drops an image from the page cache."""

    def drop() -> None:
        fd = os.open(image, os.O_RDONLY)
        try:
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)

    return drop


@pytest.fixture
def versus(benchmark: Any, image: Path) -> Versus:
    """Compare with limits and with mio."""
    return Versus(benchmark, image)


def peer_python() -> str | None:
    """An interpreter that has mio, or None."""
    asked = os.environ.get("MINISCOPE_BENCH_MIO")
    return asked or (sys.executable if importlib.util.find_spec("mio") else None)


def peer_seconds(image: Path, work: str, rounds: int = 3) -> float | None:
    """Median seconds mio takes for some work, in a process of its own; None where it is not installed."""
    python = peer_python()
    if python is None:
        return None
    run = [python, "-W", "ignore", str(PEER), str(image), work]
    found = []
    for _ in range(1 if FRAMES > 2000 and work != "open" else rounds):
        done = subprocess.run(run, capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout.strip().splitlines()[-1]))
    return statistics.median(found)


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return (
        f"{seconds:.2f} s"
        if seconds >= 1
        else f"{1e3 * seconds:.2f} ms"
        if seconds >= 1e-3
        else f"{1e6 * seconds:.0f} us"
    )


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}x" if value >= 10 else f"{value:.2f}x"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the table of ratios."""
    if not _rows:
        return
    table = [("work", "goal", "ours", "limit", "", "ratio", "mio", "ratio")]
    table += [
        (
            row["work"], row["goal"], row.get("value") or _time(row.get("seconds")), row.get("limit", ""),
            _time(row.get("limit_seconds")), _ratio(row.get("ratio_to_limit")), _time(row.get("mio_seconds")),
            _ratio(row.get("ratio_to_mio")),
        )
        for row in _rows
    ]  # fmt: skip
    widths = [max(len(line[k]) for line in table) for k in range(len(table[0]))]
    table.insert(1, tuple("-" * w for w in widths))
    terminalreporter.section(f"{FRAMES} frames of 304x304, warm cache, medians")
    for line in table:
        terminalreporter.line("| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |")
    if peer_python() is None:
        terminalreporter.line("mio: not installed here; set MINISCOPE_BENCH_MIO to an interpreter that has it")
