"""Two clocks among the buffers of one run: which of them keep that of the first ones, which another.

Where writes failed over an older recording, its buffers stand among this one's own. Each keeps a clock of its own, some
ms apart, and one buffer strays by as much as that at times; many of them together do not:

    buffers      0-20   21-34   39-54   55-69   70-74
    clock, ms      -1      +2      -1     -19      -1    21 to 34 are an older recording's, 55 to 69 of a third

Of all ways to part the buffers into stretches of the one clock, of the other and of none of them, the likeliest is
taken: a frame that is so many deviations off a clock costs half their square in nats, a change of the clock some more.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from miniscope_xr.layout.arrays import Floats, Ints

OWN, OTHER, NONE = range(3)
_SWITCH = 4.0  # nats that a change of the clock costs
_NEITHER = 12.0  # nats that a frame costs which keeps neither
_LEAST_STRAY = 0.5  # ticks by which frames stray from a clock, at least: times are whole ms
_ALONE = 2.5  # buffers of a frame that count as one where frames do not stray: each is off by its own whole ms
_FAR = 12.0  # times that: farther away nothing tells more
_WIDTH = 3.0  # ticks within which times of one clock lie before its drift is known
_APART = 2.0  # ticks by which two clocks are apart, at least
_DRIFT = 0.1  # ticks a frame by which the clock that levels are of may run off
_NO_STEP = 1.5  # ticks from one frame to the next that are no step
_EXACT = 2.0  # deviations within which two stretches are on one clock
_ROUNDS = 4


class Stretch(NamedTuple):
    """Buffers in a row that keep the first clock behind others that do not."""

    first: int
    last: int
    gain: float
    """Nats by which that is likelier than that they keep the other one."""
    exact: bool
    """They are on the clock of those in front as exactly as times tell: else it is a third one, perhaps."""


class TwoClocks(NamedTuple):
    """What two clocks among some buffers tell."""

    front: int
    """The last buffer that keeps the first clock without a break."""
    back: list[Stretch]
    """Where that clock comes back."""
    other: list[tuple[int, int]]
    """The first and the last one of those in a row that keep the other clock."""
    strange: list[tuple[int, int]]
    """The same of those that keep neither, with some on the first clock before and behind them."""

    @property
    def again(self) -> bool:
        """Whether the other clock is there again behind the last place where the first one comes back."""
        return bool(self.back) and self.other[-1][0] > self.back[-1].last


def two_clocks(i: Ints, levels: Floats, seam: int, size: int) -> TwoClocks | None:
    """Part buffers into those of two clocks; None where no second one begins around a place.

    Parameters
    ----------
    i : array of int
        Numbers of the buffers in their run, rising.
    levels : array of float
        Ticks by which each is off one clock.
    seam
        The buffer at which the other clock seems to begin.
    size
        Buffers of a frame: they stray together, and count as one.

    Examples
    --------
    >>> i = np.arange(60)
    >>> levels = np.where((i >= 21) & (i < 35), 4.0, 0.0)
    >>> told = two_clocks(i, levels, 21, 5)
    >>> told.front, told.back[0].first, told.back[0].exact, told.again
    (20, 35, True, False)
    """
    if len(i) < 3 * size:
        return None
    stray = _stray(i, levels, size)
    ways = [_parted(i, levels, drift, seam, size, stray) for drift in (_drift(i, levels, size), 0.0)]
    told = min((way for way in ways if way is not None), key=lambda way: way.cost, default=None)
    if told is None:
        return None
    _, costs, states = told
    around = states[np.abs(i - seam) <= size]
    kept = states[states != NONE]
    if not len(kept) or kept[0] != OWN or not (around == OTHER).any():
        return None  # what begins there is something else
    edges = _edges(states)
    parts, other, none = ([(a, b) for a, b in pairwise(edges) if states[a] == state] for state in (OWN, OTHER, NONE))
    back = [
        Stretch(int(i[a]), int(i[b - 1]), float((costs[a:b, OTHER] - costs[a:b, OWN]).sum()),
                _exact(i, levels, edges, parts[0], (a, b), size, stray))
        for a, b in parts[1:]
    ]  # fmt: skip
    between = [(a, b) for a, b in none if parts[0][0] < a < parts[-1][0]]
    others, strange = ([(int(i[a]), int(i[b - 1])) for a, b in some] for some in (other, between))
    return TwoClocks(int(i[parts[0][1] - 1]), back, others, strange)


class _Way(NamedTuple):
    """One way to part buffers: the nats it costs, those of each buffer and state, and the state of each."""

    cost: float
    costs: Floats
    states: Ints


def _parted(i: Ints, levels: Floats, drift: float, seam: int, size: int, stray: float) -> _Way | None:
    """The likeliest way, looked for from where the clocks are if both run off by so many ticks a buffer."""
    level = levels - drift * i
    off = level - _first(level, size)
    near = off[(np.abs(i - seam) <= 2 * size) & (np.abs(off) > _APART)]
    if not len(near):
        return None
    apart = float(np.median(near))
    width = min(abs(apart) / 2, _WIDTH)
    states = np.where(np.abs(off) <= width, OWN, np.where(np.abs(off - apart) <= width, OTHER, NONE))
    way = None
    for _ in range(_ROUNDS):
        fitted = _fit(i, levels, states)
        if fitted is None or abs(fitted[1]) < _APART:
            return None
        costs = _costs(*fitted[:2], size, stray)
        nats, likeliest = _likeliest(costs)
        way = _Way(nats + (fitted[2] * size / _DRIFT) ** 2 / 2, costs, likeliest)
        if (way.states == states).all():
            break
        states = way.states
    return way


def _drift(i: Ints, levels: Floats, size: int) -> float:
    """Ticks a buffer by which the clock runs off: from frame to frame, without the steps from one clock to another."""
    steps = (levels[size:] - levels[:-size]) / (i[size:] - i[:-size])
    usual = np.sort(steps)[(len(steps) - 1) // 2]
    return float(steps[np.abs(steps - usual) * size <= _NO_STEP].mean())


def _slope(i: Ints, levels: Floats, edges: list[int]) -> tuple[float, float]:
    """The same as all stretches between some edges show it, and how much they can show."""
    at, off = np.zeros(len(i)), np.zeros(len(i))
    for a, b in pairwise(edges):
        at[a:b], off[a:b] = i[a:b] - i[a:b].mean(), levels[a:b] - levels[a:b].mean()
    spread = float(at @ at)
    return (float(at @ off) / spread if spread else 0.0), spread


def _edges(states: Ints) -> list[int]:
    return [0, *(np.flatnonzero(np.diff(states)) + 1).tolist(), len(states)]


def _first(level: Floats, size: int) -> float:
    """The level of the first buffer that is on a clock: in one alone a bit has flipped."""
    alike = (np.abs(level[: 2 * size, None] - level[: 4 * size]) <= _WIDTH).sum(axis=1) > 1
    return float(level[int(np.argmax(alike))])


def _stray(i: Ints, levels: Floats, size: int) -> float:
    """Ticks by which a frame strays from the one before it: most do, as some are of two clocks.

    The buffers of a frame, or their mean, which is that of two clocks in some: the less of both.
    """
    frames = i // size
    means = np.array([levels[frames == k].mean() for k in np.unique(frames)])
    each = (levels[size:] - levels[:-size])[i[size:] - i[:-size] == size]
    near = [steps[steps <= _WIDTH] for steps in (np.abs(np.diff(means)), np.abs(each))]
    found = [float(np.median(steps)) / 0.95 for steps in near if len(steps)]
    return max(min(found), _LEAST_STRAY) if found else _WIDTH / 2


def _fit(i: Ints, levels: Floats, states: Ints) -> tuple[Floats, float, float] | None:
    """Ticks by which buffers are off the first clock, those to the other one, and a buffer; None: one has no buffer."""
    drift, _ = _slope(i, levels, _edges(states))
    level = levels - drift * i
    own, other = level[states == OWN], level[states == OTHER]
    return (level - own.mean(), float(other.mean() - own.mean()), drift) if len(own) and len(other) else None


def _costs(left: Floats, apart: float, size: int, stray: float) -> Floats:
    """Nats by which each buffer speaks against each state: a frame counts as one."""
    off = np.stack([left, left - apart], axis=1)
    alike = size if stray > _LEAST_STRAY else min(size, _ALONE)
    costs = np.minimum(np.square(off), (_FAR * stray) ** 2) / (2 * stray**2 * alike)
    return np.concatenate([costs, np.full((len(left), 1), _NEITHER / alike)], axis=1)


def _likeliest(costs: Floats) -> tuple[float, Ints]:
    """Nats and states of the likeliest way to part buffers of such costs; the first is not of the other clock."""
    total, came = [0.0, np.inf, 0.0], list[list[int]]()
    for cost in costs.tolist():  # in plain numbers: three at a time are too few for arrays
        best = min(range(3), key=total.__getitem__)
        most = total[best] + _SWITCH
        came.append([state if total[state] <= most else best for state in range(3)])
        total = [min(total[state], most) + cost[state] for state in range(3)]
    state = min(range(3), key=total.__getitem__)
    least, states = total[state], np.zeros(len(costs), np.int64)
    for k in range(len(costs) - 1, -1, -1):
        states[k] = state
        state = came[k][state]
    return least, states


def _exact(
    i: Ints, levels: Floats, edges: list[int], front: tuple[int, int], back: tuple[int, int], size: int, stray: float
) -> bool:
    """Whether two stretches are on one clock, with the drift that all show."""
    drift, spread = _slope(i, levels, edges)
    (a, b), (c, d) = front, back
    reach = float(i[c:d].mean() - i[a:b].mean())
    step = float(levels[c:d].mean() - levels[a:b].mean()) - drift * reach
    unsure = size / (b - a) + size / (d - c) + reach**2 * size / spread if spread else np.inf
    return bool(abs(step) <= _EXACT * stray * np.sqrt(unsure))
