"""A buffer is captured once: headers that have its number, but not its time, are of two recordings.

A pool that overflows writes a buffer ahead of its turn, and once more when its turn has come; both have one header. In
the place of writes that failed stand an older recording's buffers, which may look like that:

    written   23   24   25   26    ...   40   41   42
    count     23   24   41   42    ...   40   41   42     41 came at 446 ms, or at 449: 25 and 26 are another's
    time     262  265  446  452    ...  443  449  456
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from miniscope_xr.index.clock import FrameClock
from miniscope_xr.index.runs import Header, Run

_MOST = 256  # buffers in a row that stand where writes failed, at most
_NEAR = 16  # runs behind in which they may be found again
_SHOWS = 3  # frames that show a clock
_CLEARLY = 0.5  # ticks by which one of two times is farther off the clock than the other


class Twice(NamedTuple):
    """Ticks by which buffers are off the clock in front of them, and those with their numbers that count on behind."""

    here: float
    behind: float

    @property
    def of_another(self) -> bool:
        """Whether those behind are this recording's."""
        return self.behind < _CLEARLY and self.here > self.behind + _CLEARLY

    @property
    def own(self) -> bool:
        """Whether they are this recording's themselves."""
        return self.behind > self.here + _CLEARLY


def captured_once(runs: list[Run], clock: FrameClock) -> list[Run]:
    """Runs without those whose buffers a later run has too, which goes on as those in front did, on their clock."""
    kept = runs[:1]
    for k, run in enumerate(runs[1:], 1):
        twice = _twice(kept[-1], run, runs[k + 1 : k + 1 + _NEAR], clock)
        if twice is None or not twice.of_another:
            kept.append(run)
    return kept


def captured_twice(runs: list[Run], clock: FrameClock) -> int | None:
    """The first run some buffers of which a later one has too where no clock tells which are this recording's."""
    for k in range(1, len(runs)):
        twice = _twice(runs[k - 1], runs[k], runs[k + 1 : k + 1 + _NEAR], clock)
        if twice is not None and not twice.of_another and not twice.own:
            return k
    return None


def either(kept: list[Run], behind: list[Run]) -> str:
    """What to say of what lies behind some runs, where no clock tells."""
    a, last = min(run.first.frame for run in behind), max(run.last_frame for run in behind)
    return (
        f"behind frame {kept[-1].last_frame} some buffers are there twice, with two times each: which of both are this "
        f"recording's, and which an older one's, is in doubt; frames {a} to {last} are not returned; until={last} "
        "returns them"
    )


def _twice(front: Run, run: Run, behind: Sequence[Run], clock: FrameClock) -> Twice | None:
    """What the clock in front says of buffers that were captured at one time here, and at another behind.

    None where none are. In one time a bit may have flipped.
    """
    if front.odd or front.count < _SHOWS * len(front.cut) or run.count > _MOST:
        return None
    for later in behind:
        if not front.matches(later.first.written - front.first.written, later.first):
            continue
        ahead = run.first.count - later.first.count
        there = range(max(-ahead, 0), min(run.count, later.count - ahead))
        both = [(a, b) for i in there if (a := _header(clock, run, i)) and (b := _header(clock, later, i + ahead))]
        differ = [(a, b) for a, b in both if a.time != b.time]
        if len(differ) > 1 or any((a.time ^ b.time).bit_count() > 1 for a, b in differ):
            strain = [[clock.strain([front], header) for header in pair] for pair in differ]
            return Twice(*(median(off) for off in zip(*strain, strict=True)))
    return None


def _header(clock: FrameClock, run: Run, i: int) -> Header | None:
    header = clock.headers.at(run.sector_of(i))
    return header if run.matches(i, header) else None
