"""Will this card drop frames, and is it as large as it says? Measured by writing as the firmware does.

The firmware captures buffers into a ring and writes them one after another; while one write stalls, the ring fills.
From the moment the camera has gone round the ring, it writes over the buffer that is still on its way to the card, and
one buffer later the firmware drops. A card passes if no write came so far here. The reader on this computer is not the
Miniscope's own, so a pass is evidence, not proof. Whether the capacity is real is asked by
:mod:`miniscope_xr.tools.flash.probe`, and what the waits mean for a longer recording by
:mod:`miniscope_xr.tools.flash.risk`.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from miniscope_xr.layout import SECTOR
from miniscope_xr.tools.flash import interrupts
from miniscope_xr.tools.flash.errors import CardWriteError, CheckFailedError, RefusedError, SettingsError
from miniscope_xr.tools.flash.operation import Change, Progress
from miniscope_xr.tools.flash.plan import Plan
from miniscope_xr.tools.flash.probe import PROBE, block_of, places_in, probe
from miniscope_xr.tools.flash.risk import Risk, estimate, percent, waits
from miniscope_xr.tools.flash.target.linux import Target
from miniscope_xr.tools.stream.libraries import need

__all__ = [
    "PROBE", "Pattern", "Stalls", "changes_for", "check_empty", "check_seconds", "clean", "complain", "draw",
    "histogram", "measure", "pattern_of", "positions", "probe", "risk_of", "simulate_ring", "test_end", "verdict",
]  # fmt: skip


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
    most, dropped, overwritten = simulate_ring(pattern, latencies)
    took = np.array(latencies)
    behind = float(waits(pattern.captured(len(took)), took).max())
    return Stalls(took, most, dropped, pattern.bridge, at - plan.start, clock() - begin, overwritten, behind)


def risk_of(stalls: Stalls, plan: Plan) -> Risk:
    """How likely the planned recording is to lose a buffer (one that runs until stopped: as long as the card lasts)."""
    captured = pattern_of(plan).captured(len(stalls.latencies))
    return estimate(captured, stalls.latencies, stalls.bridge, plan.seconds or plan.fits_seconds)


def check_seconds(seconds: float) -> float:
    """Refuse a length that is none.

    Raises
    ------
    SettingsError
        It is not a number of seconds above 0.
    """
    if not (math.isfinite(seconds) and seconds > 0):
        raise SettingsError(f"--seconds {seconds:g}: expected how long to write, a number of seconds above 0")
    return seconds


def test_end(plan: Plan, seconds: float) -> int:
    """Return the first byte behind the stretch that is written.

    Raises
    ------
    RefusedError
        Not one frame fits.
    """
    frames = max(1, round(seconds * plan.fps))
    end = min(plan.start + frames * plan.frame_bytes, plan.size // SECTOR * SECTOR)
    if end - plan.start < plan.frame_bytes:
        raise RefusedError(
            f"the card has {plan.size} bytes, and one frame needs {plan.frame_bytes} from byte {plan.start} on: too "
            "small for a recording"
        )
    return end


def positions(plan: Plan) -> list[int]:
    """Where the capacity is probed: over the whole card behind the settings; the last is its end."""
    return places_in(plan.start, plan.size)


def changes_for(plan: Plan, seconds: float) -> list[Change]:
    """List the test's own places: they have to be zero before, and are made zero again after."""
    end, places = test_end(plan, seconds), positions(plan)
    first, length = block_of(places[0], places[-1] + PROBE)
    outside = [Change("probe", p, PROBE) for p in places if p + PROBE > end and p < first]
    behind = max(first, end)
    if behind < first + length:
        outside.append(Change("probe", behind, first + length - behind))
    return [Change("test data", plan.start, end - plan.start), *outside]


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


def clean(
    target: Target, changes: Sequence[Change], saved: tuple[int, bytes], start: bytes,
    between: Callable[[], None] = interrupts.check,
) -> None:  # fmt: skip
    """Zero the test's places; a fake card may have written them over the settings: put those back, too.

    Parameters
    ----------
    target
        The card.
    changes
        Places of the test that are to be zero again.
    saved
        Offset of the settings and what stood there.
    start
        What stood at the card's start.
    between
        Called between two writes; what it raises ends the cleaning, which `resume` finishes.

    Raises
    ------
    CardWriteError
        A place could not be written, or the settings not be put back.
    """
    failed: Exception | None = None
    for change in changes:
        try:
            for at, zeros in change.pieces():
                between()
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


def verdict(stalls: Stalls, wrong: Sequence[int], size: int, risk: Risk | None = None) -> list[str]:
    """List the reasons to fail the card; none if it passes."""
    found = []
    if wrong:
        found.append(
            f"the capacity is fake or the card is broken: data at {len(wrong)} places, the first at "
            f"{wrong[0] / 1e9:.3f} GB of {size / 1e9:.3f} GB, did not come back; throw it away"
        )
    if stalls.dropped or stalls.overwritten:
        longest, bridge = 1000 * stalls.latencies.max(), 1000 * stalls.bridge
        slow = f"stalled up to {longest:.0f} ms"
        if longest <= bridge:  # many writes that are a little too long
            slow = (
                f"was up to {1000 * stalls.behind:.0f} ms behind the camera (no write took more than {longest:.0f} ms)"
            )
        found.append(
            f"it {slow} where the ring bridges {bridge:.0f} ms: {stalls.dropped} of {len(stalls.latencies)} buffers "
            f"would have been dropped and {stalls.overwritten} overwritten by the camera while they waited; use a "
            "faster card"
        )
    elif risk is not None and risk.probability > 0.5:
        found.append(
            f"it lost nothing here, but waits so close to what the ring bridges came that the planned recording will "
            f"probably lose a buffer ({percent(risk.probability)}); use a faster card, or see with --full"
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
