"""A buffer is captured once: headers that have its number, but not its time, are of two recordings.

A pool that overflows writes a buffer ahead of its turn, and once more when its turn has come; both have one header. In
the place of writes that failed stand an older recording's buffers, which may look like that:

    written   23   24   25   26    ...   40   41   42
    count     23   24   41   42    ...   40   41   42     41 came at 446 ms, or at 449: 25 and 26 are another's
    time     262  265  446  452    ...  443  449  456
"""

from __future__ import annotations

from collections.abc import Sequence

from miniscope_xr.index.clock import FrameClock
from miniscope_xr.index.runs import Header, Run

_MOST = 256  # buffers in a row that stand where writes failed, at most
_NEAR = 16  # runs behind in which they may be found again
_SHOWS = 3  # frames that show a clock
_APART = 1  # ticks by which two times are not the same
_CLEARLY = 0.5  # ticks by which one of them is on the clock, and the other is farther off than that


def captured_once(runs: list[Run], clock: FrameClock) -> list[Run]:
    """Runs without those whose buffers a later run has too, which goes on as those in front did, on their clock."""
    kept = runs[:1]
    for k, run in enumerate(runs[1:], 1):
        if run.count > _MOST or not _of_another(kept[-1], run, runs[k + 1 : k + 1 + _NEAR], clock):
            kept.append(run)
    return kept


def _of_another(front: Run, run: Run, behind: Sequence[Run], clock: FrameClock) -> bool:
    """Whether some buffers are another recording's, as those behind have the number of one and this one's clock."""
    if front.odd or front.count < _SHOWS * len(front.cut):
        return False
    for later in behind:
        if not front.matches(later.first.written - front.first.written, later.first):
            continue
        ahead = run.first.count - later.first.count
        for i in range(max(-ahead, 0), min(run.count, later.count - ahead)):
            here, there = _header(clock, run, i), _header(clock, later, i + ahead)
            if here is not None and there is not None and _differ(here.time, there.time):
                kept = clock.strain([front], there)
                return kept < _CLEARLY and clock.strain([front], here) > kept + _CLEARLY
    return False


def _header(clock: FrameClock, run: Run, i: int) -> Header | None:
    header = clock.headers.at(run.sector_of(i))
    return header if run.matches(i, header) else None


def _differ(a: int, b: int) -> bool:
    """Whether two times are not one, in which a bit has flipped at most."""
    return abs(a - b) > _APART and (a ^ b).bit_count() > 1
