"""How good is the chance of losing a buffer that ``qualify`` tells? Over simulated cards, against what then happens.

    python -m tests.measure.qualify_risk [--cards 1000] [--seconds 60] [--minutes 30] [--seed 1]

A card draws how fast it is, how it cleans up (every so many MB, for how long) and whether it has rare long stalls; half
of the cards are of a kind that stalls. Its test is ``--seconds`` of the pattern of a build at a frame rate, as
``qualify`` writes it; then it records for ``--minutes``, and a buffer is lost if it waits longer than the ring bridges.
Printed: the Brier score (mean squared error of the chance; 0 is perfect), that of always saying the base rate, that of
the plain rule "fails if the test lost one", and how often a buffer was lost among cards with a like chance.
"""

from __future__ import annotations

import argparse
from itertools import pairwise

import numpy as np

from miniscope_xr.layout import load_layout
from miniscope_xr.tools.flash.plan import make_plan
from miniscope_xr.tools.flash.ring import pattern_of
from miniscope_xr.tools.flash.risk import estimate, waits


class Card:
    """A card's way of answering writes; every number is drawn."""

    def __init__(self, rng):
        self.rng = rng
        self.base = np.exp(rng.normal(np.log(0.0015), 0.5))  # s for a buffer of 20 kB
        self.spread = rng.uniform(0.05, 0.5)
        self.clean_every = np.exp(rng.uniform(np.log(4), np.log(400)))  # buffers
        self.clean = np.exp(rng.normal(np.log(0.012), 0.8))
        self.clean_spread = rng.uniform(0.05, 0.6)
        self.rare = 1 / np.exp(rng.uniform(np.log(5), np.log(30_000))) if rng.random() < 0.5 else 0.0  # a second
        self.stall = np.exp(rng.normal(np.log(0.05), 0.7))
        self.stall_spread = rng.uniform(0.1, 0.6)

    def latencies(self, kilobytes, captured):
        """Seconds that each of these writes takes."""
        rng, n = self.rng, len(captured)
        found = self.base * kilobytes / 20 * np.exp(rng.normal(0, self.spread, n))
        cleaning = np.cumsum(rng.normal(self.clean_every, 0.1 * self.clean_every, int(n / self.clean_every) + 2))
        at = cleaning[(cleaning >= 0) & (cleaning < n)].astype(int)
        found[at] += self.clean * np.exp(rng.normal(0, self.clean_spread, len(at)))
        rare = rng.random(n) < self.rare * np.diff(captured, append=captured[-1])
        found[rare] += self.stall * np.exp(rng.normal(0, self.stall_spread, int(rare.sum())))
        return found


def captured_times(pattern, seconds):
    """When each buffer of a recording is complete, and its size in kB."""
    frames = max(1, round(seconds / pattern.period))
    times = (np.arange(frames)[:, None] * pattern.period + np.array(pattern.due)).ravel()
    return times, np.tile(np.array(pattern.sectors) * 0.512, frames)


def one_card(seed, seconds, minutes, patterns):
    """Return (chance told, lost in the test, lost in the recording, ends of the interval told)."""
    rng = np.random.default_rng(seed)
    card = Card(rng)
    pattern = patterns[seed % len(patterns)]
    captured, size = captured_times(pattern, seconds)
    test = card.latencies(size, captured)
    told = estimate(captured, test, pattern.bridge, 60 * minutes)
    times, sizes = captured_times(pattern, 60 * minutes)
    lost = waits(times, card.latencies(sizes, times)).max() > pattern.bridge
    return told.probability, waits(captured, test).max() > pattern.bridge, lost, told.low, told.high


def patterns():
    """The builds at their usual rates."""
    found = []
    for name, fs in (("v4-wirefree", 20), ("v4-wirefree", 10), ("daq-wirefree", 0), ("v3-wirefree", 0)):
        layout = load_layout(name)
        values = {key: f.default or 0 for key, f in layout.header.items()} | ({"fs": fs} if fs else {})
        found.append(pattern_of(make_plan(layout, values, {}, 64 * 10**9, must_fit=False)))
    return found


def measure(cards, seconds, minutes, seed):
    """Return the table of all cards."""
    builds = patterns()
    return np.array([one_card(seed * 1_000_003 + i, seconds, minutes, builds) for i in range(cards)], float)


def brier(chance, lost):
    """Mean squared error of a chance."""
    return float(np.mean((chance - lost) ** 2))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("cards", 1000), ("seconds", 60), ("minutes", 30), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    table = measure(args.cards, args.seconds, args.minutes, args.seed)
    told, tested, lost = table[:, 0], table[:, 1], table[:, 2]
    print(f"{args.cards} cards, {args.seconds} s of test, {args.minutes} min recorded; {lost.mean():.1%} lost a buffer")
    print(f"Brier score: {brier(told, lost):.4f}; base rate {brier(lost.mean(), lost):.4f}; ", end="")
    print(f"test alone {brier(tested, lost):.4f}")
    print("chance told      cards   told   lost")
    edges = [0, 0.01, 0.03, 0.1, 0.3, 0.7, 0.9, 1.0001]
    for low, high in pairwise(edges):
        mine = (told >= low) & (told < high)
        if mine.any():
            mean_told, mean_lost = told[mine].mean(), lost[mine].mean()
            print(f"{low:4.0%} to {min(high, 1):4.0%}   {mine.sum():6d}  {mean_told:5.1%}  {mean_lost:5.1%}")


if __name__ == "__main__":
    main()
