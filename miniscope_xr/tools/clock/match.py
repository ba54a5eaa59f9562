"""Which pulse of one list is which of another, by the times between them: no pulse has a name.

A pulse train seen twice has the same gaps but for jitter, some of them missing and some false. A pair of gaps of the
same length says which offset the clocks would have; true ones agree on a line of small drift, the others on nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from miniscope_xr.layout.arrays import Array
from miniscope_xr.tools.clock.fit import ClockError

_AHEAD = 4  # pulses between the two that make a gap: as many may be missing in a row
_DRIFT = 5e-4  # that is looked for: 500 millionths
_MOST = 400_000  # pairs of gaps that are looked at
_BESIDE = 30  # times the jitter: further off lies another line
_RIVAL = 0.7  # of the best offset's pulses: another offset with so many is as good


def match_pulses(card: Any, other: Any, jitter: float) -> tuple[Array, Array]:
    """Find which pulses are the same.

    Parameters
    ----------
    card, other
        Times of pulses in s, each by its own clock.
    jitter
        How far a pulse may be seen off its time, in s: the length of a frame, where frames show it.

    Returns
    -------
    rows of ``card`` and of ``other`` that belong together, int64, in order.

    Raises
    ------
    ClockError
        There are fewer than four in common, or two offsets fit as well (pulses at even intervals).
    """
    card, other = np.sort(np.asarray(card, float)), np.sort(np.asarray(other, float))
    if min(len(card), len(other)) < 4:
        raise ClockError(
            f"{len(card)} pulses by the card's clock and {len(other)} by the other: four and more are needed to tell "
            "by their intervals which is which; give pairs"
        )
    at, offset = _candidates(card, other, 2 * jitter)
    if not len(at):
        raise ClockError(
            "no two pulses of one clock are as far apart as two of the other: they are not of the same events"
        )
    lines = _lines(at, offset, card, other, jitter)
    best = lines[0]
    if len(best[0]) < 4 or len(best[0]) < 0.3 * min(len(card), len(other)):
        raise ClockError(
            f"at most {len(best[0])} of {len(card)} and {len(other)} pulses fit each other: they are not of the same "
            "events, or a clock jumped between them"
        )
    together = set(zip(*(rows.tolist() for rows in best), strict=True))
    rivals = [
        line
        for line in lines[1:]
        if len(line[0]) > _RIVAL * len(best[0])
        and sum(pair in together for pair in zip(*(rows.tolist() for rows in line), strict=True)) < len(best[0]) / 2
    ]
    offsets = [float(np.median(other[theirs] - card[rows])) for rows, theirs in (best, *rivals[:1])]
    apart = abs(offsets[1] - offsets[0]) if rivals else _echo(card, other, best, jitter)
    if apart:
        raise ClockError(
            f"the pulses fit twice, {apart:.2f} s apart: they come at even intervals, or one clock has each of them "
            "twice; say when one of them was on both clocks (pairs)"
        )
    return best


def _echo(card: Array, other: Array, best: tuple[Array, Array], jitter: float) -> float:
    """How far from a line nearly as many pulses are together as on it, as where a switch bounces; 0: nowhere.

    Only near the line: others further off are lines of their own.
    """
    rows, theirs = best
    rate, at = np.polyfit(card[rows] - card[0], other[theirs] - card[rows], 1)
    shown = card + at + rate * (card - card[0])
    low, high = (np.searchsorted(other, shown + side * _BESIDE * jitter) for side in (-1, 1))
    which = np.repeat(np.arange(len(card)), high - low)
    within = np.arange(len(which)) - np.repeat(np.cumsum(high - low) - (high - low), high - low)
    apart = np.sort(other[low[which] + within] - shown[which])
    apart = apart[np.abs(apart) > 3 * jitter]
    together = np.searchsorted(apart, apart + 2 * jitter, side="right") - np.arange(len(apart))
    if not len(apart) or together.max() <= _RIVAL * len(rows):
        return 0.0
    first = int(np.argmax(together))
    return abs(float(np.median(apart[first : first + together[first]])))


def _gaps(times: Array) -> tuple[Array, Array]:
    """Time of the first pulse and length of every gap to one of the next ones."""
    starts, lengths = [], []
    for ahead in range(1, _AHEAD + 1):
        starts.append(times[:-ahead])
        lengths.append(times[ahead:] - times[:-ahead])
    return np.concatenate(starts), np.concatenate(lengths)


def _candidates(card: Array, other: Array, tolerance: float) -> tuple[Array, Array]:
    """Offsets that equal gaps speak for: time by the card, and the other clock's less it."""
    at, gap = _gaps(card)
    there, length = _gaps(other)
    order = np.argsort(length)
    there, length = there[order], length[order]
    wide = tolerance + _DRIFT * gap
    low, high = np.searchsorted(length, gap - wide), np.searchsorted(length, gap + wide, side="right")
    counts = high - low
    keep = np.argsort(counts, kind="stable")  # a gap that few others are like says most
    keep = keep[np.cumsum(counts[keep]) <= _MOST]
    which = np.repeat(keep, counts[keep])
    within = np.arange(len(which)) - np.repeat(np.cumsum(counts[keep]) - counts[keep], counts[keep])
    found = there[low[which] + within]
    return at[which], found - at[which]


def _lines(at: Array, offset: Array, card: Array, other: Array, jitter: float) -> list[tuple[Array, Array]]:
    """The pulses that belong together for each offset that many gaps speak for, the best first."""
    length = max(float(card[-1] - card[0]), 1.0)
    middle = float(card.mean())
    wide = 6 * jitter
    step = wide / length
    rates = np.arange(-_DRIFT, _DRIFT + step, max(step, 2 * _DRIFT / 400))
    seen: list[tuple[int, float, float]] = []
    for rate in rates.tolist():
        levels = np.floor((offset - rate * (at - middle)) / wide).astype(np.int64)
        values, counts = np.unique(levels, return_counts=True)
        for k in np.argsort(counts)[-6:].tolist():
            seen.append((int(counts[k]), (values[k] + 0.5) * wide, rate))
    seen.sort(reverse=True)
    found: list[tuple[Array, Array]] = []
    levels_seen: list[float] = []
    for _, level, rate in seen:
        if any(abs(level - known) < 4 * wide for known in levels_seen):
            continue
        levels_seen.append(level)
        found.append(_assigned(card, other, level, rate, middle, jitter))
        if len(found) == 6:
            break
    return sorted(found, key=lambda pair: -len(pair[0]))


def _assigned(
    card: Array, other: Array, level: float, rate: float, middle: float, jitter: float
) -> tuple[Array, Array]:
    """Pulses nearest to each other under a line, the line through them, and so on until nothing changes."""
    reach = 4 * jitter
    rows, theirs = np.zeros(0, np.int64), np.zeros(0, np.int64)
    for turn in range(12):
        rows, theirs = _nearest(card + level + rate * (card - middle), other, reach)
        if len(rows) < 2:
            break
        x, y = card[rows] - middle, other[theirs] - card[rows]
        keep = np.ones(len(x), bool)
        if len(x) > 3:
            guess = y - level - rate * x
            spread = 1.4826 * float(np.median(np.abs(guess - np.median(guess)))) + 1e-6
            keep = np.abs(guess - np.median(guess)) < 4 * spread
        if keep.sum() < 2 or np.ptp(x[keep]) == 0:
            break
        slope, at = np.polyfit(x[keep], y[keep], 1)
        moved = abs(at - level) + abs(slope - rate) * float(np.abs(x).max())
        level, rate = float(at), float(np.clip(slope, -2 * _DRIFT, 2 * _DRIFT))
        if moved < 1e-6 and turn:
            break
        reach = max(2.5 * jitter, reach * 0.8)
    return rows, theirs


def _nearest(shown: Array, other: Array, reach: float) -> tuple[Array, Array]:
    """Pairs of which each is the other's nearest, within reach."""
    right = np.clip(np.searchsorted(other, shown), 1, len(other) - 1)
    nearest = np.where(shown - other[right - 1] < other[right] - shown, right - 1, right)
    back = np.clip(np.searchsorted(shown, other), 1, len(shown) - 1)
    nearest_back = np.where(other - shown[back - 1] < shown[back] - other, back - 1, back)
    rows = np.arange(len(shown))
    good = (nearest_back[nearest] == rows) & (np.abs(other[nearest] - shown) <= reach)
    return rows[good].astype(np.int64), nearest[good].astype(np.int64)
