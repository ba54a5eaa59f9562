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
_FAR = 12.0  # times that: farther away nothing tells more
_WIDTH = 3.0  # ticks within which times of one clock lie before its drift is known
_APART = 2.0  # ticks by which two clocks are apart, at least
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
    off = _off_the_first(i, levels, size)
    near = off[(np.abs(i - seam) <= 2 * size) & (np.abs(off) > _APART)]
    if not len(near):
        return None
    apart = float(np.median(near))
    width = min(abs(apart) / 2, _WIDTH)
    states = np.where(np.abs(off) <= width, OWN, np.where(np.abs(off - apart) <= width, OTHER, NONE))
    stray = _stray(i, levels, size)
    costs = np.zeros((len(i), 3))
    for _ in range(_ROUNDS):
        fitted = _fit(i, levels, states)
        if fitted is None or abs(fitted[1]) < _APART:
            return None
        costs = _costs(*fitted, size, stray)
        last, states = states, _likeliest(costs)
        if (last == states).all():
            break
    around = states[np.abs(i - seam) <= size]
    kept = states[states != NONE]
    if not len(kept) or kept[0] != OWN or not (around == OTHER).any():
        return None  # what begins there is something else
    edges = [0, *(np.flatnonzero(np.diff(states)) + 1).tolist(), len(i)]
    parts, other = ([(a, b) for a, b in pairwise(edges) if states[a] == state] for state in (OWN, OTHER))
    back = [
        Stretch(int(i[a]), int(i[b - 1]), float((costs[a:b, OTHER] - costs[a:b, OWN]).sum()),
                _exact(i, levels, edges, parts[0], (a, b), size, stray))
        for a, b in parts[1:]
    ]  # fmt: skip
    return TwoClocks(int(i[parts[0][1] - 1]), back, [(int(i[a]), int(i[b - 1])) for a, b in other])


def _off_the_first(i: Ints, levels: Floats, size: int) -> Floats:
    """Ticks by which buffers are off the first one, without a drift; in one that is on no clock a bit has flipped."""
    steps, between = levels[size:] - levels[:-size], i[size:] - i[:-size]
    usual = np.abs(steps) <= _WIDTH
    level: Floats = levels - (float(np.median(steps[usual] / between[usual])) * i if usual.any() else 0.0)
    alike = (np.abs(level[: 2 * size, None] - level[: 4 * size]) <= _WIDTH).sum(axis=1) > 1
    return level - level[int(np.argmax(alike))]


def _stray(i: Ints, levels: Floats, size: int) -> float:
    """Ticks by which a frame strays: of most neighbours, as some are of two clocks."""
    frames = i // size
    means = np.array([levels[frames == k].mean() for k in np.unique(frames)])
    steps = np.abs(np.diff(means))
    near = steps[steps <= _WIDTH]
    return max(float(np.median(near)) / 0.95, _LEAST_STRAY) if len(near) else _WIDTH / 2


def _fit(i: Ints, levels: Floats, states: Ints) -> tuple[Floats, float] | None:
    """Levels without the first clock and the drift that both have, and ticks to the other; None: one has no buffer."""
    own, other = states == OWN, states == OTHER
    if not own.any() or not other.any():
        return None
    table = np.stack([np.ones(len(i)), i, other], axis=1)
    level, drift, apart = np.linalg.lstsq(table[own | other], levels[own | other], rcond=None)[0].tolist()
    return levels - level - drift * i, apart


def _costs(left: Floats, apart: float, size: int, stray: float) -> Floats:
    """Nats by which each buffer speaks against each state: a frame counts as one."""
    off = np.stack([left, left - apart], axis=1)
    costs = np.minimum(np.square(off), (_FAR * stray) ** 2) / (2 * stray**2 * size)
    return np.concatenate([costs, np.full((len(left), 1), _NEITHER / size)], axis=1)


def _likeliest(costs: Floats) -> Ints:
    """The states of the likeliest way to part the buffers; the first one is not of the other clock."""
    total, came = np.array([0.0, np.inf, 0.0]), np.zeros(costs.shape, np.int64)
    for k, cost in enumerate(costs):
        ways = total[None, :] + _SWITCH * (1 - np.eye(3))
        came[k] = ways.argmin(axis=1)
        total = ways.min(axis=1) + cost
    states = np.zeros(len(costs), np.int64)
    state = int(total.argmin())
    for k in range(len(costs) - 1, -1, -1):
        states[k] = state
        state = int(came[k, state])
    return states


def _exact(
    i: Ints, levels: Floats, edges: list[int], front: tuple[int, int], back: tuple[int, int], size: int, stray: float
) -> bool:
    """Whether two stretches are on one clock, with the drift that all show."""
    at, off = np.zeros(len(i)), np.zeros(len(i))
    for a, b in pairwise(edges):
        at[a:b], off[a:b] = i[a:b] - i[a:b].mean(), levels[a:b] - levels[a:b].mean()
    spread = float(at @ at)
    drift = float(at @ off) / spread if spread else 0.0
    (a, b), (c, d) = front, back
    reach = float(i[c:d].mean() - i[a:b].mean())
    step = float(levels[c:d].mean() - levels[a:b].mean()) - drift * reach
    unsure = size / (b - a) + size / (d - c) + reach**2 * size / spread if spread else np.inf
    return bool(abs(step) <= _EXACT * stray * np.sqrt(unsure))
