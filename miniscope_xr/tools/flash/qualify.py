"""Will this card drop frames, and is it as large as it says? Measured by writing as the firmware does.

The firmware captures buffers into a ring and writes them one after another; while one write stalls, the ring fills.
A card passes if the stalls it showed here never overrun that ring. The reader on this computer is not the
Miniscope's own, so a pass is evidence, not proof.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from miniscope_xr.errors import CardReadError
from miniscope_xr.libraries import need
from miniscope_xr.tools.flash.errors import CardWriteError, CheckFailedError, RefusedError
from miniscope_xr.tools.flash.operation import Change, Progress
from miniscope_xr.tools.flash.plan import Plan
from miniscope_xr.tools.flash.target.linux import SECTOR, Target

PROBE = 8 * SECTOR
"""Bytes written at each position to find out whether the capacity is real."""


@dataclass(frozen=True)
class Pattern:
    """Writes of one frame: how many sectors, and when after the frame's start each buffer is captured (s)."""

    sectors: tuple[int, ...]
    due: tuple[float, ...]
    period: float
    ring: int

    @property
    def bridge(self) -> float:
        """Seconds the ring can hold what the camera captures while one write does not end."""
        return self.period * (self.ring - 1) / len(self.sectors)


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

    def describe(self) -> list[str]:
        """Say it in figures."""
        ms = 1000 * self.latencies
        p50, p99, p999 = np.percentile(ms, [50, 99, 99.9])
        longest = ", ".join(f"{x:.1f}" for x in np.sort(ms)[::-1][:5])
        return [
            f"{len(ms)} writes, {self.bytes / 1e6:.1f} MB in {self.seconds:.1f} s",
            f"latency: median {p50:.2f} ms, 99 % {p99:.2f} ms, 99.9 % {p999:.2f} ms; longest {longest} ms",
            f"the ring bridges {1000 * self.bridge:.1f} ms; waiting: at most {self.backlog}, dropped {self.dropped}",
        ]


def simulate_ring(pattern: Pattern, latencies: Sequence[float]) -> tuple[int, int]:
    """Replay write latencies against the ring; return the most buffers waiting at once, and how many were dropped."""
    per_frame = len(pattern.sectors)
    free_at: list[float] = []  # when each buffer in the ring is on the card
    now = 0.0
    most = dropped = 0
    for i, latency in enumerate(latencies):
        captured = i // per_frame * pattern.period + pattern.due[i % per_frame]
        free_at = [t for t in free_at if t > captured]
        if len(free_at) >= pattern.ring:
            dropped += 1
            continue
        now = max(now, captured) + latency
        free_at.append(now)
        most = max(most, len(free_at))
    return most, dropped


def measure(
    target: Target,
    plan: Plan,
    seconds: float,
    *,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
    progress: Progress | None = None,
) -> Stalls:
    """Write as the firmware does, at its rate, from the data's start on."""
    pattern = pattern_of(plan)
    block = random.Random(4).randbytes(max(pattern.sectors) * SECTOR)
    latencies: list[float] = []
    at, stop = plan.start, test_end(plan, seconds)
    begin = clock()
    frame = 0
    while at + plan.frame_bytes <= stop:
        for sectors, due in zip(pattern.sectors, pattern.due, strict=True):
            wait = begin + frame * pattern.period + due - clock()
            if wait > 0:
                sleep(wait)
            started = clock()
            target.write(at, block[: sectors * SECTOR])
            latencies.append(clock() - started)
            at += sectors * SECTOR
        frame += 1
        if progress:
            progress("writing as the Miniscope does", at - plan.start, stop - plan.start)
    target.flush()
    most, dropped = simulate_ring(pattern, latencies)
    return Stalls(np.array(latencies), most, dropped, pattern.bridge, at - plan.start, clock() - begin)


def test_end(plan: Plan, seconds: float) -> int:
    """Return the first byte behind the stretch that is written."""
    frames = max(1, round(seconds * plan.fps))
    return min(plan.start + frames * plan.frame_bytes, plan.size // SECTOR * SECTOR)


def positions(plan: Plan, count: int = 64) -> list[int]:
    """Choose spread places: evenly, and at every power of two, where fake cards wrap around; the last is the end."""
    last = (plan.size - PROBE) // PROBE * PROBE
    evenly = [plan.start + (last - plan.start) * i // (count - 1) for i in range(count)]
    powers = [p for i in range(20, plan.size.bit_length()) if plan.start < (p := 1 << i) <= last]
    powers += [p + plan.start for p in powers if p + plan.start <= last]
    return sorted({-(-p // PROBE) * PROBE for p in [*evenly, *powers]} - {last + PROBE} | {last})


def probe(target: Target, places: Sequence[int], seed: int) -> list[int]:
    """Write distinct data everywhere, then read it all back past the caches; return the places that differ."""
    for place in places:
        target.write(place, _distinct(place, seed))
    target.flush()
    wrong = []
    for place in places:
        try:
            if target.read(place, PROBE) != _distinct(place, seed):
                wrong.append(place)
        except CardReadError:
            wrong.append(place)
    return wrong


def _distinct(place: int, seed: int) -> bytes:
    return random.Random(place ^ seed).randbytes(PROBE)


def changes_for(plan: Plan, seconds: float) -> list[Change]:
    """List the test's own places: they have to be zero before, and are made zero again after."""
    end = test_end(plan, seconds)
    outside = [p for p in positions(plan) if p + PROBE > end]
    return [Change("test data", plan.start, end - plan.start), *(Change("probe", p, PROBE) for p in outside)]


def check_empty(target: Target, changes: Sequence[Change], progress: Progress | None = None) -> None:
    """Refuse a card with anything where the test would write.

    Raises
    ------
    RefusedError
        There is data.
    """
    for change in changes:
        for at, zeros in change.pieces():
            if target.read(at, len(zeros)) != zeros:
                raise RefusedError(
                    f"sector {at // SECTOR} and on hold data, which the test would overwrite; qualify needs an empty "
                    "card: copy what matters with `image`, then `wipe CARD --whole` or `prepare` it"
                )
            if progress:
                progress("checking that it is empty", at - change.offset, change.length)


def clean(target: Target, changes: Sequence[Change], saved: tuple[int, bytes], start: bytes) -> None:
    """Zero the test's places; a fake card may have written them over the settings: put those back, too."""
    failed: Exception | None = None
    for change in changes:
        try:
            for at, zeros in change.pieces():
                target.write(at, zeros)
        except CardWriteError as error:
            failed = error
    for offset, before in (saved, (0, start)):
        if target.read(offset, len(before)) != before:
            target.write(offset, before)
    target.flush()
    if target.read(saved[0], len(saved[1])) != saved[1]:
        raise CardWriteError(5, "the settings could not be put back after the test; `restore` does it")
    if failed:
        raise failed


def verdict(stalls: Stalls, wrong: Sequence[int], size: int) -> list[str]:
    """List the reasons to fail the card; none if it passes."""
    found = []
    if wrong:
        found.append(
            f"the capacity is fake or the card is broken: data at {len(wrong)} places, the first at "
            f"{wrong[0] / 1e9:.3f} GB of {size / 1e9:.3f} GB, did not come back; throw it away"
        )
    if stalls.dropped:
        longest, bridge = 1000 * stalls.latencies.max(), 1000 * stalls.bridge
        found.append(
            f"it stalled up to {longest:.0f} ms where the ring bridges {bridge:.0f} ms: {stalls.dropped} of "
            f"{len(stalls.latencies)} buffers would have been dropped; use a faster card"
        )
    return found


def complain(found: Sequence[str]) -> None:
    """Raise if the card did not pass.

    Raises
    ------
    CheckFailedError
        With every reason.
    """
    if found:
        raise CheckFailedError("fail: " + "; ".join(found))


def histogram(stalls: Stalls, width: int = 50) -> list[str]:
    """Draw the latencies as text, on a scale of powers of two."""
    ms = np.maximum(1000 * stalls.latencies, 1e-3)
    edges = 2.0 ** np.arange(np.floor(np.log2(ms.min())), np.ceil(np.log2(max(ms.max(), 1000 * stalls.bridge))) + 1)
    counts, _ = np.histogram(ms, edges)
    lines = []
    for count, low, high in zip(counts, edges, edges[1:], strict=False):
        bar = "#" * (int(np.ceil(width * np.log1p(count) / np.log1p(counts.max()))) if count else 0)
        ring = "  <- the ring bridges this" if low <= 1000 * stalls.bridge < high else ""
        lines.append(f"{low:8.3g} - {high:<8.3g} ms {count:7d} {bar}{ring}")
    return lines


def draw(stalls: Stalls, path: Path) -> None:
    """Draw the latencies into a picture file (needs matplotlib).

    Raises
    ------
    MissingDependencyError
        matplotlib is not installed.
    """
    figure = need("matplotlib.figure", "plot", "the picture").Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(1000 * stalls.latencies, ".", markersize=2)
    axes.axhline(1000 * stalls.bridge, color="red", label=f"the ring bridges {1000 * stalls.bridge:.0f} ms")
    axes.set(xlabel="write", ylabel="latency (ms)", yscale="log", title=f"{stalls.dropped} buffers would be dropped")
    axes.legend()
    figure.savefig(path)
