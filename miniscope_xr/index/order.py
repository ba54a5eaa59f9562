"""What cannot be of one recording, whatever its counters say: time never falls.

Buffers of an older recording that stand where writes failed, or behind the end, may count just as this one's do. Then
the times of their headers may still contradict those around them:

    buffer      10   11   12   13   14   15
    time, ms   100  107  113   92   98  127      13 and 14 came before 12 did, so they are of another recording

Those are believed that agree with the most others, where no more in a row are left out than writes fail in a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from miniscope_xr.layout.arrays import Bools, Floats, Ints

_SHOWS = 8  # buffers in a row that no failed writes in front of them explain
_MOST = 16  # buffers at the front whose writes failed
_MANY = 64  # buffers
_LARGE = 7  # a bit of a time that is worth more


class Ordered(NamedTuple):
    """What some buffers in a row are, by their times."""

    odd: Bools
    """Those that contradict the ones in front and behind, which agree."""
    unsure: Bools
    """Those that contradict one another, and no more speaks for one than for the other."""
    end: int
    """The first of those at the end that contradict all that is in front of them; if there are none, their number."""


@dataclass(frozen=True)
class Times:
    """Times in the headers of some buffers in a row, in ticks; NaN where a buffer, or its time, is not there."""

    came: Floats
    written: Floats
    """When its write began."""
    late: Floats
    """By how much later each came than its number says: frames may be lost, so that this grows, but it never falls."""
    slack: float
    """Ticks by which that strays."""
    waits: bool
    """A write begins only when the next buffer has come."""

    def agree(self, a: Ints, b: Ints) -> Bools:
        """Whether buffers ``a`` can be of one recording with buffers ``b`` behind them."""
        good: Bools = ~(self.came[a] > self.came[b]) & ~(self.written[a] > self.written[b])
        good &= ~(self.late[a] > self.late[b] + self.slack)
        if self.waits:
            good &= ~((b - a == 1) & (self.came[b] > self.written[a]))
        return good

    def rise(self) -> bool:
        """Whether each agrees with the next one that is there."""
        known = np.flatnonzero(np.isfinite(self.came))
        return bool(self.agree(known[:-1], known[1:]).all())


def ordered(times: Times, most: int) -> Ordered | None:
    """Which of a recording's first buffers contradict the others by their times; None where none does.

    Up to ``most`` may be missing in a row. Some in a row at the front are of this recording even where more of an older
    one follow.

    >>> came = np.array([100.0, 107, 113, 92, 98, 127])
    >>> none = np.full(6, np.nan)
    >>> ordered(Times(came, none, none, 0.0, waits=False), 4).odd.tolist()
    [False, False, False, True, True, False]
    """
    known = np.flatnonzero(np.isfinite(times.came))
    agree = times.agree(known[:-1], known[1:])
    if agree.all() or (len(known) > _MANY and 4 * np.count_nonzero(~agree) > len(known)):
        return None  # times that fall everywhere are none
    known = np.delete(known, _flipped(times, known, agree))
    if times.agree(known[:-1], known[1:]).all():
        return None
    before = _longest(times, known, most, 1)
    if before.max(initial=0) < _SHOWS:
        other = _longest(times, known, most, _MOST)
        if other.max(initial=0) > before.max(initial=0):
            reach = max(int(np.flatnonzero(before)[-1]), int(np.argmax(other == 2)))
            unsure = np.zeros(len(times.came), bool)
            unsure[known[: reach + 1]] = True
            return Ordered(np.zeros(len(times.came), bool), unsure, len(times.came))
    best = int(before.max())
    among = (before > 0) & (before + _behind(times, known, most) == best)
    rivals = np.bincount(before[among], minlength=best + 1)
    odd, unsure = np.zeros(len(times.came), bool), np.zeros(len(times.came), bool)
    last = int(np.flatnonzero(among)[-1])
    odd[known[:last][~among[:last]]] = True
    unsure[known[among]] = rivals[before[among]] > 1
    return Ordered(odd, unsure, int(known[last]) + 1 if last + 1 < len(known) else len(times.came))


def _longest(times: Times, known: Ints, most: int, fronts: int) -> Ints:
    """Buffers of the longest row that agrees, begins among the first ``fronts``, and ends with each; 0: none does."""
    found = np.zeros(len(known), np.int64)
    follows, longest = times.agree(known[:-1], known[1:]).tolist(), 0
    for n in range(len(known)):
        if n and longest and follows[n - 1] and found[n - 1] == longest:  # none of those before is of a longer row
            found[n] = longest + 1
        else:
            before = np.arange(max(n - 1 - most, 0), n)
            before = before[(found[before] > 0) & times.agree(known[before], known[n : n + 1])]
            found[n] = 1 + found[before].max() if len(before) else n < fronts
        longest = max(longest, int(found[n]))
    return found


def _behind(times: Times, known: Ints, most: int) -> Ints:
    """Buffers of the longest row that agrees and goes on behind each."""
    found = np.zeros(len(known), np.int64)
    follows, longest = times.agree(known[:-1], known[1:]).tolist(), 0
    for n in range(len(known) - 2, -1, -1):
        if follows[n] and found[n + 1] == longest:
            found[n] = longest = longest + 1
            continue
        behind = np.arange(n + 1, min(n + 2 + most, len(known)))
        behind = behind[times.agree(known[n : n + 1], known[behind])]
        found[n] = 1 + found[behind].max() if len(behind) else 0
        longest = max(longest, int(found[n]))
    return found


def _flipped(times: Times, known: Ints, agree: Bools) -> list[int]:
    """Which of some buffers agree with those around them but for a large bit of one of their times: it flipped."""
    found = []
    apart = np.flatnonzero(~agree)
    for n in np.union1d(apart, apart + 1).tolist():
        near = [k for k in (n - 1, n + 1) if 0 <= k < len(known)]
        for values in (times.came, times.written):
            if not np.isfinite(values[known[n]]):
                continue
            low = values[known[n - 1]] if n else 0.0
            high = values[known[n + 1]] if n + 1 < len(known) else np.inf
            value = int(values[known[n]])
            back = any(low <= value ^ 1 << bit <= high for bit in range(_LARGE, 32))
            other = times.written if values is times.came else times.came
            fits = all(not (other[known[min(k, n)]] > other[known[max(k, n)]]) for k in near)
            if back and fits and not low <= value <= high:
                found.append(n)
                break
    return found
