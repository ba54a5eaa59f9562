"""Measure how the end of an interrupted recording is found when an older one lies underneath.

    python tests/measure/seams.py --pairs 600

Each pair is a recording cut by a power loss, at a random place, over an older recording of the same build that was
longer: random start offsets, clock errors, jitter, battery, some with stalls. The counts were never written and the
older recording goes on in the next sector, on the same grid and with the same counters.

``--lives`` takes lives of tests.lives instead: several recordings of any firmware, each with its own troubles.

- exact: the recording ends at its last buffer
- doubtful, cut: only what is certain is returned, and the warning names the frames in doubt
- doubtful, whole: nothing tells the two apart, all is returned, and the warning says which frames may be old
- short: buffers are missing without a word
- missed: buffers of the older recording are returned without a word
"""

from __future__ import annotations

import argparse
import os
import random
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from miniscope_xr.card import OpenCard
from miniscope_xr.index.recording import Recording
from miniscope_xr.layout import builtin_layouts
from miniscope_xr.tools.simulate import Event, PowerLoss, SimulatedCard, Stall, simulate
from tests.lives import live

_DOUBT = re.compile("doubt|exclude|slow card")
EXACT, CUT, WHOLE, SHORT, MISSED = "exact", "doubtful, cut", "doubtful, whole", "short", "missed"
BUILDS = [
    (layout.id, build.firmware)
    for layout in builtin_layouts().values()
    for build in layout.builds
    if not build.unsupported and not layout.rank
]


@dataclass(frozen=True)
class Pair:
    """A new recording over an older one, and what the reader said."""

    seed: int
    layout: str
    build: str
    verdict: str
    found: int
    true: int
    warnings: tuple[str, ...]


def _record(
    rng: random.Random, build: tuple[str, str], frames: int, events: Sequence[Event], under: SimulatedCard | None
) -> SimulatedCard:
    """One recording with a random clock, over another."""
    shape = next(b for b in builtin_layouts()[build[0]].builds if b.firmware == build[1])
    pixels = np.random.default_rng(rng.randrange(1 << 32))
    scene = pixels.integers(0, 256, (11, shape.height, shape.width), np.uint8)
    return simulate(
        *build, frames=frames, events=events, under=under, camera=scene, settings={"record_length": 1800},
        start_offset_ms=rng.uniform(0, 50), clock_ppm=rng.uniform(-80, 80), jitter_ms=rng.choice([0, 0.3, 1]),
        battery=rng.choice([190, 190, 186, 180]), fill=rng.choice([0, 255]),
    )  # fmt: skip


def make(seed: int) -> SimulatedCard:
    """Pair number ``seed``."""
    rng = random.Random(seed)
    build = rng.choice(BUILDS)
    older = rng.randint(20, 60)
    newer = rng.randint(4, older - 4)
    events: list[Event] = []
    if rng.random() < 0.3:
        events = [PowerLoss(at_ms=older * 50 - 20)]
    elif rng.random() < 0.3:
        events = [Stall(rng.uniform(100, older * 50), rng.uniform(50, 500))]
    under = _record(rng, build, older, events, None)
    events = [Stall(rng.uniform(100, newer * 50), rng.uniform(50, 500))] if rng.random() < 0.2 else []
    loss = PowerLoss(at_ms=rng.uniform(max(newer * 50 - 50, 120), newer * 50))
    return _record(rng, build, newer + 5, [*events, loss], under)


def make_life(seed: int) -> SimulatedCard:
    """A life whose last recording was cut by a power loss over an older one."""
    for k in range(1000):
        life = live(1000 * seed + k, accidents=())
        if len(life.story) > 1 and "power lost" in life.story[-1] and life.card.n_recordings == 1:
            return life.card
    raise ValueError(f"no such life from {1000 * seed} on")


def judge(card: SimulatedCard, found: Recording) -> str:
    """Verdict on what the reader returns of a pair."""
    mine = [b for b in card.buffers if b.recording == 0]
    whole = sum(b.status != "torn" for b in mine)
    doubtful = any(_DOUBT.search(said) for said in found.warnings)
    if whole <= found.n_buffers <= len(mine):
        return EXACT
    if found.n_buffers < whole:
        return CUT if doubtful else SHORT
    return WHOLE if doubtful else MISSED


def measure(seed: int, folder: str | os.PathLike[str], index: str = "bisect", lives: bool = False) -> Pair:
    """Make a pair (of a life, if ``lives``) and read it."""
    card = make_life(seed) if lives else make(seed)
    path = card.write(Path(folder) / f"seam-{os.getpid()}.img")
    opened = OpenCard(path, index=index)
    opened.close()
    path.unlink()
    found = opened.index.recordings[0]
    true = sum(b.recording == 0 and b.status != "torn" for b in card.buffers)
    verdict = judge(card, found)
    return Pair(seed, card.layout.id, card.build.firmware, verdict, found.n_buffers, true, found.warnings)


def table(pairs: Sequence[Pair]) -> str:
    """Verdicts by firmware build, as Markdown."""
    verdicts = (EXACT, CUT, WHOLE, SHORT, MISSED)
    lines = [f"| firmware | pairs | {' | '.join(verdicts)} |", "| --- | ---: |" + " ---: |" * len(verdicts)]
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(f"{pair.layout} {pair.build}", []).append(pair)
    for name, group in [*sorted(groups.items()), ("**all**", list(pairs))]:
        count = Counter(p.verdict for p in group)
        lines.append(f"| {name} | {len(group)} | {' | '.join(str(count[v]) for v in verdicts)} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=600)
    parser.add_argument("--first", type=int, default=0, help="number of the first pair (to repeat one)")
    parser.add_argument("--lives", action="store_true", help="cards with a past instead of pairs of one build")
    parser.add_argument("--index", choices=["bisect", "scan"], default="bisect")
    options = parser.parse_args()
    pairs: list[Pair] = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.first, options.first + options.pairs):
            pair = measure(seed, folder, options.index, options.lives)
            pairs.append(pair)
            if pair.verdict != EXACT:
                print(f"{pair}", file=sys.stderr, flush=True)
    print(table(pairs))
    return int(any(p.verdict in (SHORT, MISSED) for p in pairs))


if __name__ == "__main__":
    sys.exit(main())
