"""How likely a recording is to lose a buffer on a card of which some minutes of writing were measured.

A buffer is lost when it waits for the card longer than the ring bridges. Where that happened in the test, the estimate
is how often it did. It seldom does; then what the test shows is how the longest waits are spread. All parts are
samples, so that the answer has an interval:

* **What was lost.** So many half seconds of the test with a wait beyond the limit: a rate, with its uncertainty.
* **The tail that was seen,** where none was lost. The longest wait of every half second; the 30 longest of those (of
  a short test: those above the 80th percentile) follow a generalised Pareto distribution (peaks over threshold). Its
  shape and scale are sampled from their posterior; draws by which the test itself should have lost one count less.
* **What was not seen.** A kind of stall that is too rare for the test: a rate with a Gamma prior that experience with
  simulated cards sets, in which the time watched without one counts against it.

``tests/measure/qualify_risk.py`` measures how good the figures are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from miniscope_xr.layout.arrays import Floats

BLOCK = 0.5
"""Seconds of which the longest wait is taken."""
_UNSEEN = 0.03
"""Shape of the Gamma prior of stalls of a kind not seen."""
_SHAPE = (0.0, 0.15)
"""Mean and standard deviation of the prior of the tail's shape; above 0 it is heavier than exponential."""
_TOP = 30
"""Longest waits that make the tail: more would be of the everyday kind, whose spread says nothing of the rare ones."""
_DRAWS = 4000


@dataclass(frozen=True)
class Risk:
    """Chance that a recording of ``seconds`` loses a buffer, and the interval it lies in at 90 %."""

    probability: float
    low: float
    high: float
    seconds: float
    watched: float

    def describe(self) -> str:
        """Say it in one sentence."""
        length = f"{self.seconds / 60:.4g} min" if self.seconds >= 60 else f"{self.seconds:.3g} s"
        return (
            f"chance that a recording of {length} loses a buffer: {percent(self.probability)} "
            f"(90 % interval {percent(self.low)} to {percent(self.high)}), from {self.watched:.4g} s of writing"
        )

    def to_json(self) -> dict[str, Any]:
        """Return it for ``--json``."""
        return {
            "probability": self.probability, "interval_90": [self.low, self.high], "recording_seconds": self.seconds,
        }  # fmt: skip


def percent(p: float) -> str:
    """Write a chance with the digits it has."""
    if p < 0.001:
        return "below 0.1 %"
    return "above 99 %" if p > 0.99 else f"{100 * p:.1f} %" if p < 0.1 else f"{100 * p:.0f} %"


def waits(captured: Floats, latencies: Floats) -> Floats:
    """How long each buffer waits until it is on the card: the writes before it, and its own.

    Parameters
    ----------
    captured : array
        When each buffer was complete (s, ascending).
    latencies : array
        How long the card took for each (s).
    """
    total = np.cumsum(latencies)
    begun = np.maximum.accumulate(captured - (total - latencies))
    return np.asarray(begun + total - captured)


def estimate(captured: Floats, latencies: Floats, limit: float, seconds: float) -> Risk:
    """Estimate the chance that a recording loses a buffer.

    Parameters
    ----------
    captured, latencies : array
        As for :func:`waits`.
    limit : float
        Seconds the ring bridges.
    seconds : float
        Length of the planned recording.
    """
    rng = np.random.default_rng(0)
    ratio = waits(captured, latencies) / limit
    number = np.floor(captured / BLOCK).astype(np.int64)
    starts = np.flatnonzero(np.diff(number, prepend=-1))
    peaks = np.maximum.reduceat(ratio, starts)
    watched = max(float(captured[-1]), BLOCK)
    lost = int(np.count_nonzero(peaks > 1))
    weight = np.ones(_DRAWS)
    if lost:
        expected = rng.gamma(lost + 0.5, 1 / watched, _DRAWS) * seconds
    else:
        threshold = float(np.quantile(peaks, max(0.8, 1 - _TOP / len(peaks)) if len(peaks) > 4 else 0.5))
        over = peaks[peaks > threshold] - threshold
        rate = _seen(over, 1 - threshold, len(over) / watched, rng)
        weight = np.exp(-np.minimum(rate * watched, 700))
        expected = (rate + rng.gamma(_UNSEEN, 1 / watched, _DRAWS)) * seconds
    chance = 1 - np.exp(-np.minimum(expected, 700))
    if not weight.any():
        weight = np.ones(_DRAWS)
    low, high = _quantiles(chance, weight, (0.05, 0.95))
    mean = float(np.clip(np.average(chance, weights=weight), low, high))
    return Risk(mean, low, high, seconds, watched)


def _quantiles(values: Floats, weight: Floats, wanted: tuple[float, float]) -> tuple[float, float]:
    order = np.argsort(values)
    reached = np.cumsum(weight[order]) / weight.sum()
    low, high = (float(values[order[min(int(np.searchsorted(reached, q)), len(order) - 1)]]) for q in wanted)
    return low, high


def _seen(over: Floats, room: float, rate: float, rng: np.random.Generator) -> Floats:
    """Draw how many waits a second exceed the limit, which is ``room`` above the threshold; ``rate`` exceed that."""
    if not len(over):
        return np.zeros(_DRAWS)
    shape, scale = np.meshgrid(np.linspace(-0.6, 1.0, 65), over.mean() * np.geomspace(0.1, 10, 97), indexing="ij")
    z = 1 + shape[..., None] * over / scale[..., None]
    flat = np.abs(shape) < 1e-9
    with np.errstate(divide="ignore", invalid="ignore"):
        density = np.where(
            flat[..., None], over / scale[..., None], (1 + 1 / np.where(flat, 1, shape))[..., None] * np.log(z)
        )
        fit = -len(over) * np.log(scale) - density.sum(-1)
    fit[(z <= 0).any(-1)] = -np.inf
    fit -= (shape - _SHAPE[0]) ** 2 / (2 * _SHAPE[1] ** 2)
    weights = np.exp(fit - fit.max()).ravel()
    drawn = rng.choice(weights.size, _DRAWS, p=weights / weights.sum())
    xi, sigma = shape.ravel()[drawn], scale.ravel()[drawn]
    with np.errstate(divide="ignore", invalid="ignore"):
        beyond = np.where(
            np.abs(xi) < 1e-9, np.exp(-room / sigma),
            np.maximum(1 + xi * room / sigma, 0) ** (-1 / np.where(np.abs(xi) < 1e-9, 1, xi)),
        )  # fmt: skip
    return np.asarray(rng.gamma(len(over), 1 / len(over), _DRAWS) * rate * beyond)
