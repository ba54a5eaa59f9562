"""The ring of a firmware: the buffers that wait for the card, and what slow writes make of them.

The firmware captures buffers into a ring and writes them one after another; while one write stalls, the ring fills.
From the moment the camera has gone round the ring, it writes over the buffer that is still on its way to the card, and
one buffer later the firmware drops.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from miniscope_xr.layout import SECTOR
from miniscope_xr.tools.flash.plan import Plan


@dataclass(frozen=True)
class Pattern:
    """Writes of one frame: how many sectors, and when after the frame's start each buffer is captured (s)."""

    sectors: tuple[int, ...]
    due: tuple[float, ...]
    period: float
    ring: int

    @property
    def bridge(self) -> float:
        """Seconds a buffer may wait for the card: then the camera has gone round the ring and is in its slot again."""
        return self.period * (self.ring - 1) / len(self.sectors)

    def captured(self, writes: int) -> NDArray[np.float64]:
        """When each of so many buffers is complete (s)."""
        frame, index = np.divmod(np.arange(writes), len(self.sectors))
        return np.asarray(frame * self.period + np.array(self.due)[index])


def pattern_of(plan: Plan) -> Pattern:
    """Make the writing pattern of a recording; whole frames (v3) are double-buffered."""
    total, build = plan.frame_bytes // SECTOR, plan.build
    size = build.frame_sectors or build.buffer_sectors
    full, rest = divmod(total, size)
    sectors = (size,) * full + ((rest,) if rest else ())
    period = 1 / plan.fps
    due = tuple(period * (i + 1) / len(sectors) for i in range(len(sectors)))
    return Pattern(sectors, due, period, build.ring if build.header_words else 2)


@dataclass(frozen=True)
class Stalls:
    """How long each write took, and what the ring made of it."""

    latencies: NDArray[np.float64]
    backlog: int
    dropped: int
    bridge: float
    bytes: int
    seconds: float
    overwritten: int = 0
    behind: float = 0.0
    """Seconds that the card was behind the camera at its worst: one long write, or many that are a little too long."""

    def describe(self) -> list[str]:
        """Say it in figures."""
        ms = 1000 * self.latencies
        p50, p99, p999 = np.percentile(ms, [50, 99, 99.9])
        longest = ", ".join(f"{x:.1f}" for x in np.sort(ms)[::-1][:5])
        return [
            f"{len(ms)} writes, {self.bytes / 1e6:.1f} MB in {self.seconds:.1f} s",
            f"latency: median {p50:.2f} ms, 99 % {p99:.2f} ms, 99.9 % {p999:.2f} ms; longest {longest} ms",
            f"the ring bridges {1000 * self.bridge:.1f} ms; waiting: at most {self.backlog}, dropped {self.dropped}, "
            f"overwritten while they waited {self.overwritten}",
        ]


def simulate_ring(pattern: Pattern, latencies: Sequence[float]) -> tuple[int, int, int]:
    """Replay write latencies against the ring.

    Returns
    -------
    most, dropped, overwritten : int
        The most buffers waiting at once; how many the firmware drops; and how many of the others were not yet on the
        card when the camera came to their slot again.
    """
    per_frame = len(pattern.sectors)
    free_at: list[float] = []  # when each buffer in the ring is on the card
    now = 0.0
    most = dropped = overwritten = 0
    for i, latency in enumerate(latencies):
        captured = i // per_frame * pattern.period + pattern.due[i % per_frame]
        free_at = [t for t in free_at if t > captured]
        if len(free_at) >= pattern.ring:
            dropped += 1
            continue
        now = max(now, captured) + latency
        free_at.append(now)
        most = max(most, len(free_at))
        overwritten += now - captured > pattern.bridge * (1 + 1e-9)
    return most, dropped, overwritten
