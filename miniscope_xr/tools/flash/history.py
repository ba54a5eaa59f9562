"""What earlier runs of ``qualify`` said of a card: cards wear out, and get slower before they fail.

Each run is ``qualify.json`` in its own backup folder, ``BACKUP_DIR/<card id>/<time>-qualify/``.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from miniscope_xr.tools.flash.journal import places, save
from miniscope_xr.tools.flash.plan import Plan
from miniscope_xr.tools.flash.ring import Stalls
from miniscope_xr.tools.flash.risk import Risk

NAME = "qualify.json"
_SLOWER = 1.5
_MATTERS = 0.5  # ms; below that a difference is the computer's


@dataclass(frozen=True)
class QualifyRun:
    """One run: what was written, how long the writes took (ms), and the verdict."""

    time: str
    firmware: str
    fps: int
    seconds: float
    writes: int
    median_ms: float
    p99_ms: float
    longest_ms: float
    bridge_ms: float
    dropped: int
    overwritten: int
    risk: float
    fake_at: list[int]
    passed: bool

    @classmethod
    def of(cls, stalls: Stalls, plan: Plan, wrong: Sequence[int], risk: Risk, *, passed: bool) -> QualifyRun:
        """Sum up a run that has just ended."""
        median, p99, longest = (float(x) for x in np.percentile(1000 * stalls.latencies, [50, 99, 100]))
        return cls(
            time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), plan.build.firmware, plan.fps, stalls.seconds,
            len(stalls.latencies), median, p99, longest, 1000 * stalls.bridge, stalls.dropped, stalls.overwritten,
            risk.probability, list(wrong[:1]), passed,
        )  # fmt: skip

    def keep(self, folder: Path) -> None:
        """Save it in the run's backup folder."""
        save(folder / NAME, json.dumps(asdict(self), indent=1).encode())


def earlier(folder: Path) -> list[QualifyRun]:
    """Return the earlier runs of the card whose run has this folder, oldest first; what is no run is left out."""
    found = []
    card = folder.parent
    for file in (file for place in places(card.parent) for file in (place / card.name).glob(f"*/{NAME}")):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            content = json.loads(file.read_text(encoding="utf-8"))
            if file.parent != folder:
                found.append(_run(content))
    return sorted(found, key=lambda run: run.time)


def _run(content: dict[str, Any]) -> QualifyRun:
    """Read a run; what it is compared by has to be there, and of its kind.

    Raises
    ------
    ValueError
        It is not.
    """
    found = QualifyRun(**{f.name: content[f.name] for f in fields(QualifyRun)})
    named = all(isinstance(value, str) for value in (found.time, found.firmware))
    figures = (found.fps, found.median_ms, found.p99_ms)
    if not named or not all(isinstance(x, int | float) and math.isfinite(x) and x >= 0 for x in figures):
        raise ValueError("this is no run of ours")
    return found


def compare(now: QualifyRun, before: Sequence[QualifyRun]) -> list[str]:
    """Say in what a card got slower since its earlier runs with the same pattern of writes; nothing if it did not."""
    same = [run for run in before if (run.firmware, run.fps) == (now.firmware, now.fps)]
    said = []
    for name, what in (("median_ms", "a write takes"), ("p99_ms", "1 of 100 writes takes more than")):
        then = float(np.median([getattr(run, name) for run in same])) if same else 0.0
        new = float(getattr(now, name))
        if same and new > _SLOWER * then and new - then > _MATTERS:
            said.append(f"{what} {new:.1f} ms, {then:.1f} ms in {len(same)} earlier runs since {same[0].time[:10]}")
    return said
