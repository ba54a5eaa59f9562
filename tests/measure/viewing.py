"""Measure `view` in a browser: from the command to the first picture, random frames, play, memory.

    python tests/measure/viewing.py                          # 64 GB of 304x304, as a sparse image
    python tests/measure/viewing.py --layout daq-wirefree    # and of 608x608
    sudo python tests/measure/viewing.py --loop              # the same image as a loop device
    python tests/measure/viewing.py --beside ENV/bin/python  # and napari, of an environment with it and this package
    python tests/measure/viewing.py card.img                 # one's own

The card is a file with holes: what the measurement reads of it is there, pixels and headers as a firmware writes them.
Everything is asked by the page's own modules in headless Chromium, which runs already; a run is repeated, and medians
of the runs are told, beside the load of the machine: on two busy cores the browser waits for its turn. CPU times hardly
depend on that: what they leave of a frame's time is what an idle machine has to spare.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from miniscope_xr import card as card_module
from miniscope_xr.card import OpenCard, OpenRecording
from miniscope_xr.source.local import Device
from miniscope_xr.tools.view import findings, line
from miniscope_xr.tools.view.shelf import Shelf
from tests.flash.loops import loop
from tests.synthetic import SyntheticCard
from tests.view.browser import browser

PLAYED = 3000  # frames from the start, of which some are played
SECONDS = 8.0  # of play


def rows_asked(count: int, asked: int) -> list[int]:
    return random.Random(0).choices(range(count), k=asked)


class Growing(Device):
    """A file with holes in which what is read is written first."""

    truth: SyntheticCard
    made: set[int]
    _BLOCK = 4096

    def _grow(self, offset: int, length: int) -> None:
        first, last = offset // self._BLOCK, (offset + length - 1) // self._BLOCK
        with open(self.path, "r+b") as file:
            for block in range(first, last + 1):
                if block not in self.made:
                    self.made.add(block)
                    file.seek(block * self._BLOCK)
                    file.write(self.truth.read(block * self._BLOCK, min(self._BLOCK, self.size - block * self._BLOCK)))

    @property
    def changed(self) -> bool:
        return False

    def _pread(self, offset: int, length: int) -> bytes:
        self._grow(offset, length)
        return super()._pread(offset, length)

    def readv(self, offset: int, buffers: Sequence[Any]) -> int:
        self._grow(offset, sum(map(len, buffers)))
        return super().readv(offset, buffers)

    def gather(self, offsets: Sequence[int], length: int) -> bytes | None:
        for offset in offsets:
            self._grow(offset, length)
        return super().gather(offsets, length)


def make_card(path: Path, layout: str, size: int, asked: int) -> None:
    """Write what will be read of a card of this size: all that opening, the line, the check and the page look at."""
    Growing.truth, Growing.made = SyntheticCard(layout, size=size), set()
    with open(path, "wb") as file:
        file.truncate(size)
    whole = card_module.open_device
    card_module.open_device = Growing
    try:
        shelf = Shelf()
        shelf.open(str(path))
        seen = shelf.seen(0, 0)
        line.line(seen)
        seen.fps
        findings.findings(str(path))
        batch = max(2_000_000 // (seen.height * seen.width), 1)
        for row in rows_asked(seen.count, asked):
            seen.pixels(np.array([row]))
        for start in range(0, PLAYED + 4 * batch, batch):
            seen.pixels(np.arange(start, start + batch))
        shelf.close()
    finally:
        card_module.open_device = whole


def made(folder: Path, layout: str, gigabytes: float, asked: int) -> str:
    """A card of a size in a folder; says how much of it is no hole."""
    card = folder / "card.img"
    make_card(card, layout, round(gigabytes * 1e9) // 512 * 512, asked)
    known = card.stat()
    print(f"{layout}: {known.st_size / 1e9:.1f} GB, of which {known.st_blocks * 512 / 1e9:.2f} GB are no hole")
    return str(card)


def memory(pid: int) -> float:
    """Largest memory of a process in MB (Linux)."""
    for text in Path(f"/proc/{pid}/status").read_text().splitlines():
        if text.startswith("VmHWM"):
            return int(text.split()[1]) / 1000
    return float("nan")


def cpu(pid: int) -> float:
    """CPU time that a process and its descendants have used, in s (Linux)."""
    used, parents = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            words = stat.read_text().rpartition(")")[2].split()
            number = int(stat.parent.name)
            parents[number], used[number] = int(words[1]), int(words[11]) + int(words[12])
    family = {pid}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(used.get(number, 0) for number in family) / os.sysconf("SC_CLK_TCK")


@contextmanager
def served(card: str) -> Iterator[tuple[str, int, float]]:
    """The command, its modules compiled as those of an installed package: address, process, and when it was begun."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env["PYTHONPYCACHEPREFIX"] = str(Path(tempfile.gettempdir()) / "miniscope-xr-measured")
    began = time.perf_counter()
    command = [sys.executable, "-m", "miniscope_xr", "view", card, "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), process.pid, began
        finally:
            process.kill()


_FRAMES = """
const [rows, done] = arguments;
const { Server } = await import("./server.js");
const server = new Server();
const times = [];
for (const row of rows) {
  const began = performance.now();
  await server.frames({ card: 0, recording: 0, start: row, count: 1 });
  times.push(performance.now() - began);
}
done(times);
"""
_SHOWN = """
const [rows, done] = arguments;
const panel = document.querySelector(".panel");
const [field, where] = [panel.querySelector(".row"), panel.querySelector(".where")];
const times = [];
for (const row of rows) {
  const began = performance.now();
  const shown = new Promise((on) => {
    const watch = new MutationObserver(() => {
      if (!where.textContent.includes(`frame ${row} of`)) return;
      watch.disconnect();
      on();
    });
    watch.observe(where, { childList: true });
  });
  if (where.textContent.includes(`frame ${row} of`)) continue;
  field.value = row;
  field.dispatchEvent(new Event("change"));
  await shown;
  times.push(performance.now() - began);
}
done(times);
"""
_PLAY = """
const [seconds, done] = arguments;
const panel = document.querySelector(".panel");
let shown = 0;
new MutationObserver(() => shown++).observe(panel.querySelector(".where"), { childList: true });
panel.querySelector(".speed").value = "5";
panel.querySelector(".play").click();
const began = performance.now();
setTimeout(() => {
  const rate = shown / ((performance.now() - began) / 1000);
  panel.querySelector(".play").click();
  done(rate);
}, 1000 * seconds);
"""


def asynchronously(driver: Any, script: str, *given: Any) -> Any:
    return driver.execute_async_script(f"(async (...arguments) => {{ {script} }})(...arguments)", *given)


def of_a_run(driver: Any, card: str, asked: int) -> dict[str, float]:
    """Figures of one run of the command."""
    with served(card) as (url, pid, began):
        driver.get(url)
        while not driver.execute_script("return document.querySelector('.where')?.textContent"):
            time.sleep(0.005)
        first, spent = time.perf_counter() - began, cpu(pid)
        about = driver.execute_script("return document.querySelector('.panel .facts').textContent")
        driver.set_script_timeout(300)
        while "looking" in driver.execute_script("return document.querySelector('.findings').textContent"):
            time.sleep(0.1)
        rows = rows_asked(int(about.split(" frames of ")[0].split()[-1]), asked)
        before = cpu(pid)
        times = asynchronously(driver, _FRAMES, rows)
        each = 1000 * (cpu(pid) - before) / asked
        shown = asynchronously(driver, _SHOWN, rows[: asked // 4])
        driver.execute_script(
            "const r = document.querySelector('.row'); r.value = 0; r.dispatchEvent(new Event('change'))"
        )
        time.sleep(1)
        both = [pid, driver.service.process.pid]
        before = sum(map(cpu, both))
        rate = asynchronously(driver, _PLAY, SECONDS)
        played = 1000 * (sum(map(cpu, both)) - before) / max(rate * SECONDS, 1)
        return {
            "first picture, s": first, "CPU of the server until then, s": spent,
            **percentiles("a random frame through the page's requests", times),
            "CPU of the server for one of them, ms": each,
            **percentiles("the same until it is drawn", shown), "frames/s of play": rate,
            "CPU of server and browser for one of these, ms": played,
            "memory of the server, MB": memory(pid), "load": os.getloadavg()[0],
        }  # fmt: skip


def percentiles(what: str, times: Sequence[float]) -> dict[str, float]:
    return {
        f"{what}, ms, median": statistics.median(times),
        f"{what}, ms, 99 %": statistics.quantiles(times, n=100)[98],
    }


_NAPARI = """
import json, sys, time
began = float(sys.argv[1])
import napari
from napari.qt import get_qapp
app = get_qapp()
viewer = napari.Viewer(show=True)
viewer.open(sys.argv[2], plugin="miniscope-xr")
app.processEvents()
viewer.screenshot(canvas_only=True, flash=False)
first = time.time() - began
times = []
for row in json.loads(sys.argv[3]):
    start = time.perf_counter()
    viewer.dims.set_current_step(0, row)
    app.processEvents()
    viewer.screenshot(canvas_only=True, flash=False)
    times.append(1000 * (time.perf_counter() - start))
peak = next(int(x.split()[1]) / 1000 for x in open("/proc/self/status") if x.startswith("VmHWM"))
print("FIGURES", json.dumps([first, times, peak]))
"""


def of_napari(python: str, card: str, rows: list[int]) -> dict[str, float]:
    """The same of napari in an environment of its own, on a screen that nobody sees (Xvfb, Mesa)."""
    given = ["xvfb-run", "-a", "-s", "-screen 0 1280x1000x24", python, "-c", _NAPARI, str(time.time()), card]
    said = subprocess.run([*given, json.dumps(rows)], capture_output=True, text=True)
    found = [text for text in said.stdout.splitlines() if text.startswith("FIGURES")]
    if not found:
        raise SystemExit(f"napari did not run: {said.stderr[-2000:]}")
    first, times, peak = json.loads(found[0][8:])
    return {
        "napari: first picture, s": first, **percentiles("napari: a random frame until it is drawn", times),
        "napari: memory, MB": peak,
    }  # fmt: skip


def frames_of(card: str) -> int:
    with closing(OpenCard(card)) as opened:
        return OpenRecording(opened, opened.recording(None)).frames.count


def medians(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    return {what: statistics.median(run[what] for run in runs) for what in runs[0]}


def measure(card: str, runs: int, asked: int, napari: str | None, say: Callable[[str], None] = print) -> None:
    with ExitStack() as stack:
        driver = stack.enter_context(browser(Path(stack.enter_context(tempfile.TemporaryDirectory()))))
        driver.set_window_size(1280, 1000)
        with served(card):
            pass  # compiles
        found = []
        for number in range(runs):
            found.append(of_a_run(driver, card, asked))
            say(f"run {number + 1}: {json.dumps({what: round(value, 2) for what, value in found[-1].items()})}")
        if napari:
            driver.get("about:blank")  # both at the same time would share the cores
            beside = [
                of_napari(napari, card, rows_asked(frames_of(card), asked)[: asked // 10]) for _ in range(min(runs, 3))
            ]
            say(json.dumps({what: round(value, 2) for what, value in medians(beside).items()}))
    for what, value in medians(found).items():
        say(f"{what}: {value:.2f}")


def main() -> None:
    """Measure a card, or one made for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("card", nargs="?")
    parser.add_argument("--layout", default="v4-wirefree")
    parser.add_argument("--gigabytes", type=float, default=64)
    parser.add_argument("--asked", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--loop", action="store_true", help="as a loop device (root)")
    parser.add_argument("--beside", metavar="PYTHON", help="an environment with napari and this package")
    parser.add_argument("--folder", help="where the card is made (it takes about 0.5 GB)")
    given = parser.parse_args()
    with ExitStack() as stack:
        card = given.card
        if card is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=given.folder)))
            card = made(folder, given.layout, given.gigabytes, given.asked)
        if given.loop:
            card = stack.enter_context(loop("-r", card))
        measure(card, given.runs, given.asked, given.beside)


if __name__ == "__main__":
    main()
