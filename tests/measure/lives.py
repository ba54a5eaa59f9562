"""Measure what comes out of cards with a past: recorded, stalled, used again, cut off, formatted.

    python tests/measure/lives.py --lives 1000 --jobs 2

Each life is random (tests.lives) and its truth is known exactly. Counted, over all of them:

- wrong: a frame called complete whose pixels are not the card's truth
- missing: a frame, or a buffer of one, that is on the card and is not returned, without a word
- extra: a frame, or a buffer of one, that is not this recording's and is returned, without a word
- unnamed: a frame that is missing or extra where a word is said, but of other frames (tests/measure/named.py)
- caveat: a frame that is missing or extra, where is said that nothing tells whether an older recording is among these:
  neither an error nor called a doubt
- undecidable: an extra frame whose old buffers say, word by word, what the recording's own would have said there, where
  leftovers tell nothing either (tests/measure/undecidable.py proves it from the truth): no reader can tell; no error
- alike: frames that are extra, named or not, whose old buffers differ from what the recording's own would have said
  there by no more than 2 ms in their times, and in readings of battery and temperature: an error all the same
- false: a statement that is not true ("nothing was recorded", a wrong end of the recording, a wrong status that is not
  said to be in doubt)
- doubt: a card on which something is said to be in doubt (no error, but there should be few)

In front of them: lives with an error and no word at all, and lives with an error, the unnamed ones included.

A word is a warning of the recording that says a doubt or names what is missing. Buffers an accident hit, and those the
headers of a 2026 firmware leave in doubt, may be there or not. A DAQ's recordings begin at any ms after power-on, as a
person's button is pressed; with --together all begin at the same.

Most real recordings are too long to look at every header when the card is opened, and lives are short. With ``--hours``
they are read as recordings of hours are: a few frames are looked at, and all buffers around those that seem odd.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from miniscope_xr.card import OpenCard, OpenRecording
from miniscope_xr.errors import MiniscopeError
from miniscope_xr.index import gave_up, headers, seam
from miniscope_xr.index.recording import Recording
from tests.lives import DEVICES, Life, live
from tests.measure.named import A_WORD, CAVEAT, DOUBT, names
from tests.measure.undecidable import survivor_of, undecidable

_HURT = ("torn", "truncated", "mixed_content", "wrong_content")
ERRORS = ("wrong", "missing", "extra", "unnamed", "false", "refused")
COLUMNS = (*ERRORS, "caveat", "undecidable", "alike", "doubt")
_ALIKE = 2  # ms


@dataclass
class Verdict:
    """What a reader made of one life."""

    seed: int
    device: str
    accident: str
    counts: Counter[str] = field(default_factory=Counter)
    said: list[str] = field(default_factory=list)

    @property
    def silent(self) -> bool:
        """Whether nothing is wrong, or a word is said."""
        return not any(self.counts[k] for k in ERRORS if k != "unnamed")

    @property
    def right(self) -> bool:
        """Whether nothing is wrong, or what is was named."""
        return not any(self.counts[k] for k in ERRORS)


@dataclass
class _Truth:
    """Frames of one recording: pixels, which buffers must be there, which may be."""

    video: dict[int, np.ndarray]  # type: ignore[type-arg]
    must: dict[int, int]
    may: dict[int, int]


def _truth(life: Life, number: int) -> _Truth:
    card = life.card
    numbers, video, present = card.expected(number)
    hit: Counter[int] = Counter()
    for recording, frame, index in life.optional:
        if recording == number:
            hit[frame] |= 1 << index
    for b in card.buffers:  # torn: part of it may be told, or not
        if b.recording == number and (b.status in _HURT or b.doubtful):
            hit[b.frame_num] |= 1 << b.index
    must = {int(f): int(p) & ~hit[int(f)] for f, p in zip(numbers, present, strict=True)}
    may = {**dict.fromkeys(hit, 0), **{int(f): int(p) for f, p in zip(numbers, present, strict=True)}}
    may = {f: p | hit[f] for f, p in may.items()}
    return _Truth(dict(zip(map(int, numbers), video, strict=True)), must, may)


def _judge_recording(
    life: Life, store: OpenCard, recording: Recording, verdict: Verdict, survivor: Callable[[], Life]
) -> None:
    truth = _truth(life, recording.number)
    rows = OpenRecording(store, recording)
    every = np.arange(rows.frames.count)
    described = rows.describe(every)
    said = [s for s in recording.warnings if A_WORD.search(s)]
    verdict.said += list(recording.warnings)
    verdict.counts["doubt"] = int(bool(verdict.counts["doubt"] or any(DOUBT.search(s) for s in said)))
    got = {int(f): k for k, f in enumerate(described.frame_num) if described.present[k]}
    missing = [f for f, must in truth.must.items() if must & ~(int(described.present[got[f]]) if f in got else 0)]
    extra = [f for f, k in got.items() if int(described.present[k]) & ~truth.may.get(f, 0)]
    bits = {f: int(described.present[got[f]]) & ~truth.may.get(f, 0) for f in extra}
    lost = survivor() if bits else life
    twins, alike = (undecidable(life, lost, recording.number, bits, ms) for ms in (0, _ALIKE))
    verdict.counts["undecidable"] += len(twins)
    verdict.counts["alike"] += len(alike - twins)
    doubts = [s for s in said if not CAVEAT.search(s)]
    for kind, frames in (("missing", missing), ("extra", [f for f in extra if f not in twins])):
        verdict.counts[kind if not said else "unnamed"] += sum(not names(f, said) for f in frames)
        verdict.counts["caveat"] += sum(names(f, said) and not names(f, doubts) for f in frames)
    for frame, k in got.items():
        must = truth.must.get(frame, 0)
        if described.complete[k] and must == truth.may.get(frame) and must == int(described.present[k]):
            verdict.counts["wrong"] += not np.array_equal(rows.image(k), truth.video[frame])
    _judge_words(life, recording, verdict)


def _judge_words(life: Life, recording: Recording, verdict: Verdict) -> None:
    """Statements that can be held against the truth."""
    landed = [b for b in life.card.buffers if b.recording == recording.number and b.status != "write_failed"]
    end = max((b.sector + b.n_sectors for b in landed), default=0)
    for said in recording.warnings:
        found = re.search(r"older recording lies behind this one, from sector (\d+) on", said)
        if found and int(found[1]) < end and not life.accident:
            verdict.counts["false"] += 1
    last = recording.number == life.card.n_recordings - 1
    if last and not life.accident and recording.status == "truncated":
        verdict.counts["false"] += 1
    sure = not any("in doubt" in said for said in recording.warnings)
    if last and life.counted and not life.accident and recording.status != "finished" and sure:
        verdict.counts["false"] += 1


def measure(
    seed: int, folder: str | os.PathLike[str], index: str = "bisect", layout: str | None = None, together: bool = False
) -> Verdict:
    """Make a life and read its card."""
    life = live(seed, layout, together=together)
    card = life.card
    verdict = Verdict(seed, f"{card.layout.id} {card.build.firmware}", life.accident)
    path = card.write(Path(folder) / f"life-{os.getpid()}.img")
    try:
        _judge(life, path, index, verdict, lambda: survivor_of(seed, layout, together))
    finally:
        path.unlink()
    return verdict


def _judge(life: Life, path: Path, index: str, verdict: Verdict, survivor: Callable[[], Life]) -> None:
    card = life.card
    try:
        store = OpenCard(path, index=index)
    except MiniscopeError as error:
        verdict.counts["refused"] += any(any(_truth(life, k).must.values()) for k in range(card.n_recordings))
        verdict.said.append(f"{type(error).__name__}: {error}")
        return
    try:
        found = store.index.recordings
        for recording in found[: card.n_recordings]:
            _judge_recording(life, store, recording, verdict, survivor)
        said = any(A_WORD.search(s) for r in found for s in r.warnings)
        if len(found) > card.n_recordings and not said:
            verdict.counts["extra"] += sum(r.n_buffers for r in found[card.n_recordings :])
        for number in range(len(found), card.n_recordings):
            verdict.counts["missing"] += 0 if said else len(_truth(life, number).must)
    finally:
        store.close()


def table(verdicts: Sequence[Verdict]) -> str:
    """Lives by device and by accident, as Markdown."""
    lines = [f"| | lives | no word | not right | {' | '.join(COLUMNS)} |", "| --- |" + " ---: |" * (len(COLUMNS) + 3)]
    groups: dict[str, list[Verdict]] = {}
    for v in verdicts:
        groups.setdefault(v.device, []).append(v)
    for v in verdicts:
        groups.setdefault(v.accident or "no accident", []).append(v)
    groups["**all**"] = list(verdicts)
    for name, group in groups.items():
        count = sum((v.counts for v in group), Counter[str]())
        mute, wrong = sum(not v.silent for v in group), sum(not v.right for v in group)
        lines.append(f"| {name} | {len(group)} | {mute} | {wrong} | {' | '.join(str(count[c]) for c in COLUMNS)} |")
    return "\n".join(lines)


def as_hours(put: Callable[[object, str, int], None] = setattr, frames: int = 8) -> None:
    """From now on read recordings of more than a few frames as those of hours, by ``put(module, name, value)``."""
    for module, name, value in (
        (headers, "_FRAMES", frames),
        (gave_up, "_EVERY", frames),
        (seam, "_CLOSE", 5 * frames),
        (seam, "_SAMPLES", frames),
        (seam, "_NEAR", 4 * frames),
    ):
        put(module, name, value)


def _some(
    first: int, count: int, folder: str, index: str, layout: str | None, together: bool, hours: bool
) -> list[Verdict]:
    if hours:
        as_hours()
    return [measure(seed, folder, index, layout, together) for seed in range(first, first + count)]


def run(
    lives: int,
    first: int,
    jobs: int,
    index: str,
    layout: str | None = None,
    together: bool = False,
    hours: bool = False,
) -> Iterator[Verdict]:
    """Verdicts on lives ``first`` to ``first + lives - 1``."""
    blocks = [(at, min(20, first + lives - at)) for at in range(first, first + lives, 20)]
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as folder, ProcessPoolExecutor(jobs) as pool:
        same = ([value] * len(blocks) for value in (folder, index, layout, together, hours))
        for part in pool.map(_some, *zip(*blocks, strict=True), *same):
            yield from part


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lives", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="number of the first life (to repeat one)")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--index", choices=["bisect", "scan"], default="bisect")
    parser.add_argument("--layout", choices=sorted({d[0] for d in DEVICES}), help="only devices of this layout")
    parser.add_argument("--together", action="store_true", help="a DAQ's recordings all begin at the same ms")
    parser.add_argument("--hours", action="store_true", help="read as recordings of hours: few frames are looked at")
    options = parser.parse_args()
    verdicts, started = [], time.monotonic()
    for verdict in run(
        options.lives, options.first, options.jobs, options.index, options.layout, options.together, options.hours
    ):
        verdicts.append(verdict)
        if not verdict.right:
            print(f"{verdict.seed} {verdict.device}: {dict(verdict.counts)}", file=sys.stderr)
            for line in (*live(verdict.seed, options.layout, together=options.together).story, *verdict.said):
                print(f"    {line[:300]}", file=sys.stderr, flush=True)
    print(table(verdicts))
    print(f"\n{len(verdicts)} lives, {time.monotonic() - started:.0f} s, index={options.index}")
    return int(any(not v.right for v in verdicts))


if __name__ == "__main__":
    sys.exit(main())
