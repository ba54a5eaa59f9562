"""How exact an alignment is, over many simulated hours: the figures of docs/clock.md.

python -m tests.measure.clock 600
"""

from __future__ import annotations

import sys

import numpy as np

from miniscope_xr.tools.clock.fit import fit_clocks
from miniscope_xr.tools.clock.match import match_pulses
from tests.clock.test_clock import FRAME, Truth


def main(hours: int) -> None:
    """Align that many hours and print the worst frame and how often the stated error is true."""
    covered, worst = [], 0.0
    for seed in range(hours):
        truth = Truth(seed)
        mine, theirs = match_pulses(truth.card, truth.other, FRAME / 2)
        fit = fit_clocks(truth.card[mine], truth.other[theirs])
        off = np.abs(fit.at(truth.frames) - truth.at(truth.frames))
        covered.append(float((off <= fit.error(truth.frames)).mean()))
        worst = max(worst, float(off.max()))
    print(f"{hours} hours: worst frame {1000 * worst:.1f} ms off, 95 % intervals hold {np.mean(covered):.1%}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
