"""A robust line through pairs of times: what another clock shows when the card's shows something, and how sure that is.

Two quartz clocks differ by an offset and a rate of tens of millionths. Pairs of one event seen by both scatter by how
finely each was seen; some are of two different events and lie far off; and a clock that was set in between jumps.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from miniscope_xr.errors import OptionError
from miniscope_xr.layout.arrays import Array

MOST_DRIFT = 2e-3
"""Of two clocks against each other: 7 s an hour. No quartz is that far off; a unit that was mistaken is further."""

_USUAL_DRIFT = 1e-4  # standard deviation of two quartz clocks' drift, generously
_REACH = 4.0  # standard deviations behind which a pair is of two different events
_FEW = 3  # pairs of which none can be told to be wrong
_SAMPLE = 400  # pairs for a first guess by all slopes between two
_LEAST_JUMP = 8.0  # standard deviations of the mean on either side
_MOST_JUMPS = 8
_SIDE = 4  # pairs that a stretch between two jumps has at least
_FLOOR = 1e-6  # s: no clock of ours is finer


class ClockError(OptionError):
    """Two clocks cannot be brought together by what was given; the message says what is missing or in doubt."""


@dataclass(frozen=True)
class ClockFit:
    """How another clock goes against the card's: ``other = offset + (1 + drift) * (card - middle)``, jumps added."""

    middle: float
    """Mean of the card's times that were used, in s: there the line is surest."""
    offset: float
    """What the other clock shows then, in s."""
    drift: float | None
    """Rate of the other clock against the card's, less 1; None where it is not known."""
    card: Array
    other: Array
    """All pairs, in s."""
    used: Array
    """Which of them the line goes through; the others are of two different events."""
    spread: float
    """Standard deviation of what these lie off the line, in s."""
    jumps: tuple[tuple[float, float], ...] = ()
    """(card time in s, size in s) of each time that the other clock was set."""
    cover: Array = field(default_factory=lambda: np.zeros((2, 2)))
    """Its errors: covariance of offset, drift and jumps, in s."""
    quantile: float = 1.96
    """What a standard error is multiplied by to be 95 % sure."""
    bound: float = 0.0
    """In s, added to every error: what is known of the events themselves, such as how long a video's frame is."""

    def at(self, card: Array) -> Array:
        """What the other clock shows at times of the card's, in s."""
        shown = self.offset + (1 + (self.drift or 0.0)) * (np.asarray(card, float) - self.middle)
        for when, size in self.jumps:
            shown = shown + size * (card >= when)
        return shown

    def error(self, card: Array) -> Array:
        """How far off that may be: half of the interval that holds the true time in 95 of 100 cases, in s.

        NaN where it is not known: of one pair at all other times, and of two about which nothing else is known.
        """
        card = np.asarray(card, float)
        if self.drift is None:
            return np.where(np.abs(card - self.middle) < _FLOOR, self.bound, np.nan)
        design = _design(card, self.middle, [when for when, _ in self.jumps])
        variance = np.einsum("ni,ij,nj->n", design, self.cover, design)
        errors: Array = self.quantile * np.sqrt(np.maximum(variance, 0)) + self.bound
        for when, size in self.jumps:  # between the last pair before a jump and the first behind it either may be true
            known = self.card[self.used]
            near = (card > known[known < when].max(initial=-np.inf)) & (card < known[known >= when].min(initial=np.inf))
            errors = np.where(near, errors + abs(size), errors)
        return errors

    @property
    def residuals(self) -> Array:
        """What every pair lies off the line, in s."""
        return self.other - self.at(self.card)

    @property
    def ppm(self) -> float | None:
        """The drift in millionths; positive where the other clock is fast."""
        return None if self.drift is None else 1e6 * self.drift


def _design(card: Array, middle: float, jumps: list[float]) -> Array:
    return np.stack([np.ones_like(card), card - middle, *((card >= when) * 1.0 for when in jumps)], axis=1)


def fit_clocks(card: Any, other: Any, bound: float = 0.0) -> ClockFit:
    """Fit the line through pairs of times.

    Parameters
    ----------
    card, other
        Times in s of the same events by the card's clock and by the other one, in any order; pairs with a NaN are left
        out, and one that is there again counts once.
    bound
        What the events themselves may be off, in s; 0: it is not known. It is the whole error where there are only two
        pairs, which fit any line: with 0 theirs is NaN.

    Raises
    ------
    ClockError
        There is no pair, or the clocks go apart by more than a clock does.
    """
    card, other = np.asarray(card, float).reshape(-1), np.asarray(other, float).reshape(-1)
    if card.shape != other.shape:
        raise ClockError(f"{len(card)} times of the card and {len(other)} of the other clock: pairs are expected")
    known = np.isfinite(card) & np.isfinite(other)
    card, other = np.unique(np.stack([card[known], other[known]]), axis=1)  # a pair told twice says no more than once
    if not len(card):
        raise ClockError("no pair of times: give at least one event that both clocks have seen")
    if len(np.unique(card)) == 1:
        one = np.ones(len(card), bool)
        return ClockFit(float(card[0]), float(np.median(other)), None, card, other, one, 0.0, bound=bound)
    if len(card) < _FEW:
        return _through_two(card, other, bound)
    used, jumps = _robust(card, other)
    return _least_squares(card, other, used, jumps, bound)


def _checked(drift: float) -> float:
    if abs(drift) > MOST_DRIFT:
        raise ClockError(
            f"the clocks go apart by {abs(drift):.2%} of the time, which no clock does: are both times in seconds, and "
            "of the same events? Was a clock set meanwhile, as for daylight saving time?"
        )
    return drift


def _through_two(card: Array, other: Array, bound: float) -> ClockFit:
    """The line through two pairs: nothing is left over that would tell how sure they are, so ``bound`` has to.

    Pairs that are close together say less of the drift than that both are quartz clocks, so both count by how sure they
    are. What delays one event (a light's driver, an exposure) delays the other: the offset is no surer than one. Where
    nobody says how sure the events are (a table's), neither is the error known: one of them may be wrong by a second.
    """
    span = float(card[1] - card[0])
    half = bound / 1.96
    seen, sure = float((other[1] - other[0]) / span) - 1, np.sqrt(2) * half / span
    _checked(float(np.sign(seen)) * max(abs(seen) - 3 * sure, 0.0))
    weight = _USUAL_DRIFT**2 / (_USUAL_DRIFT**2 + sure**2)
    cover = np.diag([half**2, weight * sure**2] if bound else [np.nan, np.nan])
    both = np.ones(2, bool)
    return ClockFit(
        float(card.mean()), float(other.mean()), float(weight * seen), card, other, both, 0.0, cover=cover
    )  # fmt: skip


def _robust(card: Array, other: Array) -> tuple[Array, list[float]]:
    """Which pairs are true, and when the other clock jumped."""
    gone = other - card
    rate = _rate(card, gone)
    jumps: list[float] = []
    used = np.ones(len(card), bool)
    for _ in range(_MOST_JUMPS + 1):
        left, used = _left(card, gone, used, jumps, rate)
        if len(jumps) == _MOST_JUMPS:
            break
        found = _jump(card[used], left[used], jumps)
        if found is None:
            break
        jumps = sorted([*jumps, found])
        used = np.ones(len(card), bool)
    return used, jumps


def _rate(card: Array, gone: Array) -> float:
    """Median of the slopes between pairs a good way apart: neither wrong pairs nor one jump moves it far."""
    some = np.unique(np.linspace(0, len(card) - 1, min(len(card), _SAMPLE)).astype(int))
    first, second = np.triu_indices(len(some), 1)
    x, y = card[some], gone[some]
    apart = x[second] - x[first]
    good = apart > 0.05 * (x[-1] - x[0])
    return float(np.median((y[second] - y[first])[good] / apart[good]))


def _left(card: Array, gone: Array, used: Array, jumps: list[float], rate: float) -> tuple[Array, Array]:
    """What pairs lie off the best line so far, and which of them belong to it."""
    segment = np.searchsorted(jumps, card, side="right")
    left = gone - rate * (card - card.mean())
    for k in range(len(jumps) + 1):
        left[segment == k] -= np.median(left[segment == k])
    for _ in range(20):
        spread = max(1.4826 * float(np.median(np.abs(left[used]))), _FLOOR)
        now = np.abs(left) <= _REACH * spread
        if now.sum() < _FEW:
            break
        design = _design(card, float(card.mean()), jumps)
        found = np.linalg.lstsq(design[now], gone[now], rcond=None)[0]
        left = gone - design @ found
        if (now == used).all():
            break
        used = now
    return left, used


def _jump(card: Array, left: Array, jumps: list[float]) -> float | None:
    """Where the residuals of one stretch have two levels, that of the greatest difference; None where they have one."""
    edges = [-np.inf, *jumps, np.inf]
    best: tuple[float, float] | None = None
    for low, high in pairwise(edges):
        inside = (card >= low) & (card < high)
        x, y = card[inside], left[inside]
        n = len(y)
        if n < 3 * _SIDE:
            continue
        basis = np.stack([np.ones(n), x - x.mean()], axis=1)
        for k in range(_SIDE, n - _SIDE):
            step = (np.arange(n) >= k) * 1.0
            step -= basis @ np.linalg.lstsq(basis, step, rcond=None)[0]
            size = float(step @ y) / float(step @ step)
            rest = y - basis @ np.linalg.lstsq(basis, y, rcond=None)[0] - size * step
            noise = max(float(np.sqrt((rest**2).sum() / max(n - 3, 1))), _FLOOR)
            score = abs(size) * np.sqrt(float(step @ step)) / noise
            if score > _LEAST_JUMP and abs(size) > 3 * noise and (best is None or score > best[0]):
                best = score, float((x[k - 1] + x[k]) / 2)
    return None if best is None else best[1]


def _least_squares(card: Array, other: Array, used: Array, jumps: list[float], bound: float) -> ClockFit:
    middle = float(card[used].mean())
    design = _design(card, middle, jumps)[used]
    found, *_ = np.linalg.lstsq(design, (other - card)[used], rcond=None)
    left = (other - card)[used] - design @ found
    free = max(len(left) - design.shape[1], 1)
    spread = float(np.sqrt((left**2).sum() / free))
    cover = np.linalg.pinv(design.T @ design) * spread**2 * _correlated(left)
    drift = _checked(float(found[1]))
    sizes = tuple(zip(jumps, map(float, found[2:]), strict=True))
    return ClockFit(
        middle, middle + float(found[0]), drift, card, other, used, spread, sizes, cover, student(free), bound
    )  # fmt: skip


def _correlated(left: Array) -> float:
    """How much wider errors are where what is left over goes along with its neighbour: a clock whose rate wanders."""
    if len(left) < 20:
        return 1.0
    along = float((left[1:] * left[:-1]).sum() / max((left**2).sum(), 1e-30))
    return (1 + along) / (1 - along) if 2 / np.sqrt(len(left)) < along < 0.95 else 1.0


def student(free: int) -> float:
    """Student's 97.5 % quantile for so many degrees of freedom (within half a thousandth)."""
    few = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
    if free <= len(few):
        return few[free - 1]
    z = 1.959964
    terms = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return float(z + sum(term / free ** (k + 1) for k, term in enumerate(terms)))
