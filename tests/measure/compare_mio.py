"""What mio and this package make of every kind of card; writes docs/damaged-cards.md.

    python tests/measure/compare_mio.py --mio-python VENV/bin/python

VENV is an environment of its own with ``pip install mio==0.12.1`` (it is run, never imported here); without it that
column stays empty. Cards of the real firmware are read where ``../shared/cards`` is present.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 120  # s for one card
MIO_LAYOUTS = ("wirefree-sd-layout", "wirefree-sd-layout-battery")  # all that mio ships


def digest(pixels: Any) -> str:
    """Hash of a frame's bytes in raster order: mio shapes frames (width, height), which is not held against it."""
    return hashlib.sha1(pixels.tobytes()).hexdigest()


# -- the side that runs in mio's environment ----------------------------------------------------------------------


def peer() -> None:
    """Read every card named on stdin (image, layout) with mio as its own ``to_video`` does; answer in JSON lines."""
    import logging
    import signal
    import warnings

    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    from mio.devices.sdcard.device import SDCardDevice

    def late(*_: Any) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, late)
    for line in sys.stdin:
        image, layout = json.loads(line)
        found: dict[str, Any] = {"count": None, "frames": [], "error": ""}
        signal.alarm(TIMEOUT)
        try:
            card = SDCardDevice(image, layout=layout)
            try:
                found["count"] = card.frame_count
            except Exception as error:
                found["count"] = type(error).__name__
            with card:
                while len(found["frames"]) < 2000:
                    frame = card.read(return_header=True)
                    found["frames"].append([int(frame.headers[0].frame_num), digest(frame.frame)])
        except Exception as error:
            found["error"] = type(error).__name__
        signal.alarm(0)
        print("mio " + json.dumps(found), flush=True)


# -- cards ----------------------------------------------------------------------------------------------------------


@dataclass
class Card:
    """A card and its frames: (frame number, hash) of every frame with a buffer on it, by recording."""

    kind: str
    data: bytes
    frames: list[tuple[int, str]] = field(default_factory=list)


def simulated() -> Iterator[Card]:
    """One card of every kind, of several builds where the kind is not one build's."""
    from miniscope_xr.layout import builtin_layouts
    from miniscope_xr.tools.simulate import (
        FailedWrite,
        IRStop,
        LostInterrupt,
        Padding,
        PowerLoss,
        RecordAgain,
        SimulatedCard,
        Stall,
        Truncate,
        blank,
        simulate,
    )
    from tests.lives import live

    def card(kind: str, made: SimulatedCard) -> Card:
        frames = []
        for recording in range(made.n_recordings):
            numbers, video, _ = made.expected(recording)
            frames += [(int(n), digest(image)) for n, image in zip(numbers, video, strict=True)]
        return Card(kind, made.data, frames)

    def power_loss(layout: str) -> PowerLoss:
        return PowerLoss(buffer=16 if layout == "v3-wirefree" else 70)

    for layout in builtin_layouts().values():
        for build in layout.builds:
            if not build.unsupported and not layout.rank:
                length = {"seconds": 1} if layout.footer else {"frames": 20}  # v3 stops by time only
                yield card(f"clean, {layout.id} {build.firmware}", simulate(layout, build.firmware, seed=1, **length))
    some = [("v4-wirefree", "HEAD"), ("v4-wirefree", "battery"), ("v4-wirefree", "f70f880"), ("daq-wirefree", "HEAD"),
            ("v3-wirefree", "97dc62d")]  # fmt: skip
    kinds: dict[str, Callable[[str], list[Any]]] = {
        "drops (a slow card)": lambda layout: [Stall(300, 250), Stall(900, 400)],
        "a lap of the ring buffer": lambda layout: [Stall(310, 160)],
        "failed writes": lambda layout: [FailedWrite(7, 2)],
        "two camera frames under one number": lambda layout: [LostInterrupt(6)],
        "a buffer missing": lambda layout: [LostInterrupt(6, "buffer")],
        "power loss": lambda layout: [power_loss(layout)],
        "power loss, last buffer torn": lambda layout: [PowerLoss(buffer=power_loss(layout).buffer, torn_sectors=9)],
        "two recordings": lambda layout: [RecordAgain(12)],
        "restarted during a recording": lambda layout: [RecordAgain(12, finalise_first=False)],
        "image cut off": lambda layout: [Truncate(1_600_001)],
    }
    for kind, events in kinds.items():
        for layout_id, firmware in some:
            planned = events(layout_id)
            if layout_id == "v3-wirefree" and any(isinstance(e, LostInterrupt | RecordAgain) for e in planned):
                continue
            made = simulate(layout_id, firmware, frames=30, events=planned, seed=2)
            yield card(kind, made)
    for layout_id, firmware in some:
        older = simulate(layout_id, firmware, frames=40, seed=3)
        options: dict[str, Any] = {"frames": 25, "seed": 4, "start_offset_ms": 26.0, "under": older}
        yield card("over an older recording", simulate(layout_id, firmware, **options))
        loss = [power_loss(layout_id)]
        yield card("power loss over an older recording", simulate(layout_id, firmware, events=loss, **options))
    yield card("stopped by remote (DAQ)", simulate("daq-wirefree", frames=30, events=[IRStop(700)], seed=5))
    yield card("padding behind the end (aa04ec3)", simulate(build="aa04ec3", frames=20, events=[Padding(3)], seed=6))
    for seed in range(20):
        yield card("lives: several recordings, troubles, accidents", live(seed).card)
    yield Card("prepared, nothing recorded", blank().data)
    yield Card("switched on, nothing recorded", blank(booted=True).data)


def real() -> Iterator[Card]:
    """Cards that the real firmware code wrote."""
    from tests.conftest import real_cards

    cards = real_cards()
    for name in cards.names() if cards else []:
        truth = cards.truth(name)
        frames = []
        if truth["frames"]:
            numbers, video, _ = cards.expected(name)
            frames = [(int(n), digest(image)) for n, image in zip(numbers, video, strict=True)]
        yield Card(f"`{name}`", cards.image(name), frames)


# -- reading, and judging ---------------------------------------------------------------------------------------------


@dataclass
class Result:
    """What a reader made of a card: frames exact, wrong (pixels, or not of this recording), missing; and its words."""

    exact: int = 0
    wrong: int = 0
    missing: int = 0
    words: Counter[str] = field(default_factory=Counter)

    def __iadd__(self, other: Result) -> Result:
        self.exact += other.exact
        self.wrong += other.wrong
        self.missing += other.missing
        self.words += other.words
        return self

    def cells(self) -> str:
        """Cells of a Markdown row."""
        words = ", ".join(f"{word}{f' ({n})' if n > 1 else ''}" for word, n in self.words.most_common())
        return f"{self.exact} | {self.wrong} | {self.missing} | {words}"


def judge(card: Card, frames: list[tuple[int, str]], words: list[str]) -> Result:
    """Compare what was read with what is there; every frame counts once."""
    left = Counter(card.frames)
    result = Result(words=Counter(words))
    for frame in frames:
        if left[frame] > 0:
            left[frame] -= 1
            result.exact += 1
        else:
            result.wrong += 1
    result.missing = max(len(card.frames) - result.exact - result.wrong, 0)
    return result


class Mio:
    """mio in its own process."""

    def __init__(self, python: str) -> None:
        command = [python, "-W", "ignore", str(Path(__file__).resolve()), "--peer"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def _read(self, path: Path, layout: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([str(path), layout]) + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("mio "):
                found: dict[str, Any] = json.loads(line.removeprefix("mio "))
                return found
        raise SystemExit("mio's process ended")

    def read(self, card: Card, path: Path) -> Result:
        """Read with each layout mio has, and take the best."""
        results = []
        for layout in MIO_LAYOUTS:
            found = self._read(path, layout)
            words = [] if found["error"] in ("", "EndOfRecordingException") else [found["error"]]
            if isinstance(found["count"], str):
                words.append(f"frame_count: {found['count']}")
            elif found["count"] is not None and found["count"] != len(card.frames):
                words.append("frame_count wrong")
            results.append(judge(card, [(n, h) for n, h in found["frames"]], list(dict.fromkeys(words))))
        return max(results, key=lambda r: (r.exact, -r.wrong))


def by_us(card: Card, path: Path) -> Result:
    """Read every recording of a card as a Dataset."""
    from miniscope_xr import MiniscopeError
    from miniscope_xr.card import OpenCard, OpenRecording

    try:
        opened = OpenCard(path)
    except MiniscopeError as error:
        return judge(card, [], [type(error).__name__])
    frames, words = [], []
    try:
        import numpy as np

        for recording in opened.index.recordings:
            store = OpenRecording(opened, recording)
            rows = np.arange(store.frames.count)
            described = store.describe(rows)
            there = described.present > 0  # blank rows carry no frame, and say so in buffers_present
            numbers = described.frame_num[there]
            images = store.pixels(rows)[there]
            frames += [(int(n), digest(image)) for n, image in zip(numbers, images, strict=True)]
            doubt = any("doubt" in w or "not excluded" in w or "exclude" in w for w in recording.warnings)
            words.append(recording.status + (", doubt named" if doubt else ""))
    finally:
        opened.close()
    return judge(card, frames, words)


def rows(cards: Iterator[Card], mio: Mio | None, folder: Path) -> dict[str, list[Any]]:
    """Results by kind of card: cards, frames, mio's, ours."""
    found: dict[str, list[Any]] = {}
    for card in cards:
        path = folder / "card.img"
        path.write_bytes(card.data)
        row = found.setdefault(card.kind, [0, 0, Result(), Result()])
        row[0] += 1
        row[1] += len(card.frames)
        if mio:
            row[2] += mio.read(card, path)
        row[3] += by_us(card, path)
        print(card.kind, row[2].cells() if mio else "", "|", row[3].cells(), file=sys.stderr, flush=True)
    return found


HEAD = """# What comes out of damaged cards

If your recording seems to be gone, go to [rescue](rescue.md): it says what to do. Here is what was measured, and what
is not solved.

This page is written by one command (mio 0.12.1 in an environment of its own):

    python tests/measure/compare_mio.py --mio-python VENV/bin/python

Frames are *exact* when every byte is as it is on the card (0 where a buffer never reached it), *wrong* when one is not
or the frame is not of this recording, *missing* when they are on the card and were not returned. mio reads each card
with every layout it ships, until it ends or stops with an error, and its best attempt counts; it knows v4 cards only.
"""
LIMITS = """What stays hidden: a v3 card keeps no count, no battery and no unused bytes. A recording whose battery died,
over one of the same settings that ran its whole length and whose frame clock has the same phase to 3 ms, looks like
one recording that ran its whole length. Wipe v3 cards before each session.
"""
FUZZING = """## Damaged at random

`python tests/measure/fuzz.py --cards 100000` damages cards of every build in seventeen ways (flipped words and bits,
also those of footers, words that drift or stick in all headers, cuts, splices, spans of zeros and 0xFF, erased
blocks, new file systems, swapped sectors and buffers, random headers, shifted sectors), several at once, and reads
each by both indexes and in one more way (dataset, tree, filled gaps, check, info, a cursor, rows in another order,
another layout, a copy, what `rescue` makes of it). Only errors of this package may come out, no card of 8 MB may take
2 s or 200 MB more than its size, a copy holds the same recordings, a frame of which the same buffers are there is the
same whatever is read with it, and every pixel that is not 0 must lie in a buffer whose header names its frame and
place, which is derived from the bytes a second time. A short run is part of the tests.
"""
COLUMNS = (
    "| card | cards | frames | mio: exact | wrong | missing | mio says | ours: exact | wrong | missing | we say |\n"
    "| --- | ---: | ---: | ---: | ---: | ---: | --- | ---: | ---: | ---: | --- |"
)


def table(found: dict[str, list[Any]], mio: Mio | None) -> str:
    """Markdown table with a last row of sums."""
    total = [0, 0, Result(), Result()]
    lines = [COLUMNS]
    for kind, row in found.items():
        theirs = row[2].cells() if mio else " | | | not run"
        lines.append(f"| {kind} | {row[0]} | {row[1]} | {theirs} | {row[3].cells()} |")
        total[0], total[1] = total[0] + row[0], total[1] + row[1]
        for k in (2, 3):
            total[k] += Result(row[k].exact, row[k].wrong, row[k].missing)
    theirs = total[2].cells() if mio else " | | | "
    lines.append(f"| **all** | {total[0]} | {total[1]} | {theirs} | {total[3].cells()} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mio-python", help="interpreter of an environment with mio 0.12.1")
    parser.add_argument("--pairs", type=int, default=600, help="pairs of the seam measurement")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "damaged-cards.md")
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        peer()
        return 0
    sys.path.insert(0, str(ROOT))
    from tests.measure import seams

    parts = [HEAD]
    mio = Mio(options.mio_python) if options.mio_python else None
    with tempfile.TemporaryDirectory() as folder:
        parts.append("## Simulated cards\n\n" + table(rows(simulated(), mio, Path(folder)), mio))
        written = rows(real(), mio, Path(folder))
        if written:
            parts.append("## Cards written by the real firmware code\n\n" + table(written, mio))
        pairs = [seams.measure(seed, folder) for seed in range(options.pairs)]
    if mio:
        mio.process.kill()
        mio.process.communicate()
    said = (seams.__doc__ or "").split("\n\n")
    parts.append(
        f"## Where an interrupted recording ends\n\n{said[2]}\n\n{said[3].strip()}\n\n{options.pairs} pairs "
        f"(`python tests/measure/seams.py --pairs {options.pairs}`):\n\n{seams.table(pairs)}\n\n{LIMITS}"
    )
    parts.append(FUZZING)
    options.out.write_text("\n\n".join(part.strip() for part in parts) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
