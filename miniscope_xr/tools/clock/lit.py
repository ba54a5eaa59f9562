"""How long a status LED is on, and when it may blink besides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from miniscope_xr.layout.arrays import Array
from miniscope_xr.tools.clock.fit import MOST_DRIFT

STAYS = 0.85  # of the time a light can be seen while it is on; else something stands before it
LATE = 0.25  # s: by how much a light may be on longer or shorter than its recording, beside the clocks' drift


@dataclass(frozen=True)
class Lit:
    """How long a status LED is on, in s, and when it may blink besides."""

    length: float
    """Of the recording."""
    early: float = 0.0
    """By how much it may have gone on before the recording; 0: it did not."""
    before: float = 0.0
    after: float = 0.0
    """For how long before and after the recording it may blink."""

    @property
    def lengths(self) -> list[float]:
        """For how long it may have been on."""
        return [self.length + self.early, self.length] if self.early else [self.length]

    def off_by(self, apart: Array) -> Array:
        """How far these lengths in s are from the nearest of its own."""
        nearest: Array = np.min([np.abs(apart - length) for length in self.lengths], axis=0)
        return nearest

    @property
    def late(self) -> float:
        """How far a length may be off."""
        return MOST_DRIFT / 4 * self.length + LATE
