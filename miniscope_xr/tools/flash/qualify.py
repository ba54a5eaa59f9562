"""Will this card drop frames, and is it as large as it says? Measured by writing as the firmware does.

A card passes if no write came so far that the ring (:mod:`miniscope_xr.tools.flash.ring`) overflowed here. The reader
on this computer is not the Miniscope's own, so a pass is evidence, not proof. Whether the capacity is real is asked
by :mod:`miniscope_xr.tools.flash.probe`, and what the waits mean for a longer recording by
:mod:`miniscope_xr.tools.flash.risk`.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence

import numpy as np

from miniscope_xr.layout import SECTOR
from miniscope_xr.tools.flash import interrupts
from miniscope_xr.tools.flash.errors import CardWriteError, RefusedError, SettingsError
from miniscope_xr.tools.flash.operation import Change, Progress
from miniscope_xr.tools.flash.plan import Plan
from miniscope_xr.tools.flash.probe import PROBE, block_of, places_in
from miniscope_xr.tools.flash.ring import Stalls, pattern_of, simulate_ring
from miniscope_xr.tools.flash.risk import Risk, estimate, waits
from miniscope_xr.tools.flash.target.base import Target


class Written:
    """A card, and where it was written to: what an interrupted test leaves behind.

    Writes one behind the other are one stretch: hours of them take no more memory than a second.
    """

    def __init__(self, target: Target) -> None:
        self.size, self._target = target.size, target
        self.read, self.flush, self.same = target.read, target.flush, target.same
        self.next_data, self.reread_partitions = target.next_data, target.reread_partitions
        self._stretches: list[tuple[int, int]] = []

    def write(self, offset: int, data: bytes) -> None:
        """Note where, then write."""
        end = offset + len(data)
        if self._stretches and self._stretches[-1][1] == offset:
            self._stretches[-1] = self._stretches[-1][0], end
        else:
            self._stretches.append((offset, end))
        self._target.write(offset, data)

    def places(self) -> list[Change]:
        """What has to be zero again."""
        joined: list[tuple[int, int]] = []
        for start, end in sorted(self._stretches):
            if joined and start <= joined[-1][1]:
                joined[-1] = joined[-1][0], max(joined[-1][1], end)
            else:
                joined.append((start, end))
        return [Change("test data", start, end - start) for start, end in joined]


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
