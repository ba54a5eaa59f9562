"""Excursions of the frame clock: old buffers among new ones.

In the place of a few buffers whose writes failed stand those of an older recording, whose counters may fit. They do not
keep the clock of what is before and behind them, which is one clock.
"""

from __future__ import annotations

from enum import Enum
from itertools import pairwise

import numpy as np

from miniscope_xr.index.clock import edges_in
from miniscope_xr.layout import Build
from miniscope_xr.layout.arrays import Bools, Floats, Ints

_SIDE = 20  # buffers on each side whose clock counts
_NEAR = 8  # the same where nothing else tells
_FEW = 3  # buffers that do not show a clock by themselves
_MANY = 16  # buffers in a row: of more the clock behind them has to be the same as before
_EDGES = 3  # of a remote, whose time may be lost between two frames; of less than a frame one; whole ms are one off


class Behind(Enum):
    """What is behind the buffers that are held against a clock: their recording ends, or goes on, or nobody knows."""

    ENDS = "the recording ends"
    GOES_ON = "the recording goes on"
    UNKNOWN = "not known"


def excursions(
    left: Floats,
    tolerance: float,
    ticks: float,
    end: Behind,
    build: Build | type[Build] = Build,
    unsure: float = 0.0,
    times: Floats | None = None,
) -> Bools:
    """Which of some buffers in a row are off a clock that the buffers before and behind them keep.

    Parameters
    ----------
    left
        Ticks by which each is off (NaN: it is not there).
    tolerance
        Ticks by which one may be off.
    ticks
        Units of the timestamp per ms.
    end
        What is behind them: ``"recording ends"``, ``"recording goes on"``, or ``"unknown"``: an older recording may
        begin in them, so that only those count behind which the clock is the same as before.
    build
        Its ``failed_writes`` is the most buffers in a row that may be odd; of many the clock behind them has to be the
        same as before. ``remote_edge`` are ms that this recording itself may lose.
    unsure
        Ticks a buffer by which the clock may run off over a hole.
    times
        When each came: where time goes back, fewer buffers on both sides show that the clock is the same.

    Returns
    -------
    bool, shape (n,)
    """
    found = np.zeros(len(left), bool)
    known = np.flatnonzero(np.isfinite(left))
    if len(known) < 4:
        return found
    values = left[known]
    cuts = np.flatnonzero(np.abs(np.diff(values)) > tolerance + unsure * (np.diff(known) - 1)) + 1
    bounds = [0, *cuts.tolist(), len(values)]
    own = np.ones(len(values), bool)
    for n, (start, stop) in enumerate(pairwise(bounds)):
        if not len(cuts) or stop - start > build.failed_writes:
            continue
        before = values[:start][own[:start]][-_SIDE:]  # without the old ones found so far
        following = bounds[n + 2] if n + 2 < len(bounds) else stop
        last = np.flatnonzero(own[:start])[-1:]  # of this recording, in front of them
        back_to = times is not None and bool((times[known[start]] < times[known[last]]).any())
        back_from = times is not None and stop < len(known) and bool(times[known[stop]] < times[known[stop - 1]])
        returns = back_to or back_from
        level, size = float(np.median(values[start:stop])), stop - start
        wide, near = values[stop : stop + _SIDE], values[stop : min(following, stop + _SIDE)]
        sides = [near if len(near) > _FEW else wide, *([near] if returns and 1 < len(near) <= _FEW else [])]
        odd = (
            _strays(before, behind, level, size, tolerance, ticks, end, build.remote_edge, returns) for behind in sides
        )
        goes_on = back_to and not len(wide) and end == Behind.GOES_ON and len(before) > 2 * size
        own[start:stop] = not (goes_on or any(odd))
    found[known[~own]] = True
    return found


def _strays(
    before: Floats,
    behind: Floats,
    level: float,
    size: int,
    tolerance: float,
    ticks: float,
    end: Behind,
    edge_ms: tuple[int, int],
    returns: bool,
) -> bool:
    """Whether a stretch of buffers is off the clock of both sides, and not between them.

    ``returns``: time goes back to it, or from it.
    """
    if not len(before):
        return False  # a few buffers of this recording, and behind them an older one
    early = float(np.median(before))
    if not len(behind):
        lost, edges = (early - level) / ticks, _EDGES if size > 2 else 1
        edge = edges_in(lost, edge_ms, edges, spread=1) > 0
        latest = float(before[-1])  # ticks go on being lost: the one before is behind already
        edge |= edge_ms[1] > 0 and early - latest > tolerance and 0 <= (latest - level) / ticks <= 2 * edge_ms[1]
        last = end == Behind.ENDS and len(before) > 2 * size
        return bool(last and abs(level - early) > tolerance and not edge)
    late = float(np.median(behind))
    alike = abs(early - late) <= tolerance
    if end == Behind.UNKNOWN:  # of two older recordings the second may have nearly the same phase
        apart = abs(float(np.median(before[-_NEAR:]) - np.median(behind[:_NEAR])))
        alike = apart <= (tolerance if returns else tolerance / 2)
    enough = len(behind) > 1 and len(before) + len(behind) > _FEW if returns else len(before) > 1 and len(behind) > _FEW
    back = alike and enough
    if (size > _MANY or end == Behind.UNKNOWN) and not back:
        return False
    if returns and back:
        return True  # of one recording, time never goes back
    if edge_ms[1] and len(behind) <= _FEW and not alike and not returns:
        return False  # so few behind an edge of a remote may have been held up, or lack an interrupt
    return not min(early, late) - tolerance <= level <= max(early, late) + tolerance


def out_of_order(times: Floats) -> Bools:
    """Which of a few buffers in a row have a time that cannot be, as times never go back: those without which all rise.

    >>> out_of_order(np.array([36.0, 43, 50, 56, 41, 85])).tolist()
    [False, False, False, False, True, False]
    """
    known = np.flatnonzero(np.isfinite(times))
    rising, falling = _longest(times[known]), _longest(-times[known][::-1])[::-1]
    found = np.zeros(len(times), bool)
    found[known] = rising + falling - 1 < rising.max(initial=0)
    return found


def _longest(values: Floats) -> Ints:
    """Most values of a row that never fall and end with each."""
    ends = np.ones(len(values), np.int64)
    for k in range(1, len(values)):
        ends[k] = 1 + ends[:k][values[:k] <= values[k]].max(initial=0)
    return ends
