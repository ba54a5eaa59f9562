"""Measure the memory of `view` however long one looks: frames all over a card, projections, traces, cards opened anew.

    python tests/measure/long_look.py                    # 64 GB of 304x304, as a sparse image, and 50,000 looks at it
    python tests/measure/long_look.py --asked 200000     # longer

What is asked is what the page asks, by its requests and as fast as they are answered. Memory is that of the server's
process (Linux).
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from miniscope_xr.tools.simulate import Stall, simulate
from tests.measure.viewing import PLAYED, made, memory, rows_asked, served

DIFFERENT = 5000  # frames all over the card that are looked at again and again
SHAPES = [{"x": 150, "y": 100, "r": 8}, {"x0": 20, "y0": 20, "x1": 60, "y1": 60}]


class Page:
    """Asks as the page does, on connections that are kept."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.path = parts.path
        self.server = http.client.HTTPConnection(parts.netloc, timeout=600)

    def get(self, name: str, **given: Any) -> bytes:
        self.server.request("GET", f"{self.path}{name}?{urlencode(given)}")
        return self.answer()

    def post(self, name: str, **given: Any) -> bytes:
        self.server.request("POST", f"{self.path}{name}", json.dumps(given), {"Content-Type": "application/json"})
        return self.answer()

    def answer(self) -> bytes:
        response = self.server.getresponse()
        said = response.read()
        assert response.status == 200, said
        return said


def look(page: Page, others: list[str], asked: int) -> Iterator[str]:
    """Look around, for hours; yields what was done, in ten parts."""
    first = json.loads(page.get("start"))["open"][0]
    recording = json.loads(page.post("open", path=first))["recordings"][0]
    which = {"card": 0, "recording": 0}
    for name in ("rate", "line", "kinds", "findings"):
        page.get(name, **which)
    yield "opened, with its line and findings"
    luck = random.Random(1)
    rows = rows_asked(recording["frames"], DIFFERENT)  # those that are no holes
    for part in range(10):
        for k in range(asked // 10):
            page.get("frames", **which, start=luck.choice(rows), count=1)
            if k % 100 == 0:  # plays a little
                page.get("frames", **which, start=luck.randrange(PLAYED - 21), count=21)
        start = part * PLAYED // 20
        for kind in ("mean", "max", "std", "peak"):
            page.post("projection", **which, kind=kind, start=start, stop=start + PLAYED // 2)
        card = json.loads(page.post("open", path=others[part % len(others)]))["card"]
        page.post("traces", card=card, recording=0, shapes=SHAPES)
        page.get("line", card=card, recording=0)
        page.get("findings", card=card, recording=0)
        yield f"{(part + 1) * asked // 10} frames, {4 * (part + 1)} projections, {2 * (part + 1)} traces"


def main() -> None:
    """Look, and say how much memory it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--asked", type=int, default=50_000)
    parser.add_argument("--gigabytes", type=float, default=64)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        card = made(Path(folder), "v4-wirefree", given.gigabytes, DIFFERENT)
        others = [str(Path(folder) / f"other-{k}.img") for k in range(8)]
        for other in others:
            simulate("v4-wirefree", frames=1500, events=[Stall(20_000, 400)]).write(other)
        began = time.perf_counter()
        with served(card) as (url, pid, _):
            for done in look(Page(url), others, given.asked):
                print(f"{time.perf_counter() - began:.0f} s: {done}: largest memory {memory(pid):.0f} MB", flush=True)


if __name__ == "__main__":
    main()
