"""Measure `view`: from the command to the first picture, and frames through the page's own requests.

    python tests/measure/viewing.py --frames 20000      # a card made for it (1.85 GB)
    python tests/measure/viewing.py card.img            # one's own

The first picture is timed from the start of the command to the last byte of frame 0 (no browser is in it). Frames are
asked for one by one, at random, over one connection; then in batches one after another, as the page plays.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.images import write_image

CARD = "card=0&recording=0"


class Connection:
    """One connection that is kept, as a browser keeps it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.path = parts.path
        self.http = http.client.HTTPConnection(parts.netloc, timeout=60)

    def get(self, name: str) -> bytes:
        self.http.request("GET", self.path + name)
        return self.http.getresponse().read()

    def opened(self, card: Path) -> dict[str, object]:
        self.http.request(
            "POST", self.path + "open", json.dumps({"path": str(card)}), {"Content-Type": "application/json"}
        )
        told: dict[str, object] = json.loads(self.http.getresponse().read())["recordings"][0]
        return told


def memory(pid: int) -> float:
    """Largest memory of a process in MB (Linux)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1000
    return float("nan")


def measure(card: Path, asked: int) -> None:
    began = time.perf_counter()
    command = [sys.executable, "-m", "miniscope_xr", "view", str(card), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            page = Connection(process.stdout.readline().strip())
            about = page.opened(card)
            page.get(f"frames?{CARD}&start=0&count=1")
            first = time.perf_counter() - began
            count, size = int(str(about["frames"])), int(str(about["width"])) * int(str(about["height"]))
            rows = random.Random(0).choices(range(count), k=asked)
            times = []
            for row in rows:
                start = time.perf_counter()
                page.get(f"frames?{CARD}&start={row}&count=1")
                times.append(1000 * (time.perf_counter() - start))
            batch = max(2_000_000 // size, 1)
            start = time.perf_counter()
            shown = 0
            for row in range(0, min(count, 4000), batch):
                page.get(f"frames?{CARD}&start={row}&count={batch}")
                shown += min(batch, count - row)
            played = shown / (time.perf_counter() - start)
            most = memory(process.pid)
        finally:
            process.kill()
    ranked = statistics.quantiles(times, n=100)
    print(f"{count:,} frames of {about['width']}x{about['height']}, {card.stat().st_size / 1e9:.2f} GB")
    print(f"first picture after {first:.2f} s")
    print(f"one of {asked} random frames: median {statistics.median(times):.1f} ms, 99 % below {ranked[98]:.1f} ms")
    print(f"one after another: {played:.0f} frames/s; memory of the server at most {most:.0f} MB")


def main() -> None:
    """Measure a card, or one made for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("card", nargs="?", type=Path)
    parser.add_argument("--frames", type=int, default=2000)
    parser.add_argument("--asked", type=int, default=1000)
    given = parser.parse_args()
    if given.card is not None:
        measure(given.card, given.asked)
        return
    with tempfile.TemporaryDirectory() as folder:
        measure(write_image(Path(folder) / "card.img", given.frames), given.asked)


if __name__ == "__main__":
    main()
