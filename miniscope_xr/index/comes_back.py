"""Buffers of this recording behind what seems to be the beginning of an older one: writes failed, and then went well.

A card that is busy for long loses many buffers in a row, and twice so where it is busy twice. Those of an older
recording stand in their places, and look like its beginning; some buffers later this recording's clock is back:

    buffers      0-49   50-56   57-59   60-
    clock, ms       0      -4       0    -4      it ended at 59, or at 49 over two older ones
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from miniscope_xr.index.evidence import Evidence
from miniscope_xr.index.runs import Run
from miniscope_xr.layout.arrays import Floats, Ints

_STRETCH = 2  # buffers in a row that show a clock
_BEHIND = 8  # frames behind a seam whose clock is the older recording's
_FAR = 4  # times by which buffers stray: where those between are off by more, one shows it
_MOST = 256  # buffers in front of a place that are compared with those behind it


class ComesBack(Evidence):
    """Looks for this recording's clock behind the place at which an older one seems to begin."""

    def comes_back(self, run: Run, seam: int) -> range | None:
        """Buffers of a run, from a seam on, the last of which keep this recording's clock as those between do not.

        None where the clock is another's for good, or nothing tells. As many are looked at as writes fail in a row.
        """
        if run.odd or not seam:
            return None
        size, most = len(run.cut), self.headers.framing.build.failed_writes
        start = max((seam - _MOST) // size * size + (-run.first.index) % size, 0) if seam > _MOST else 0
        stop = min(seam + most + _MOST, run.count)
        told = self._clock_of(run).left(lambda k: self._stamps(run, k), start, stop)
        if told is None:
            return None
        _, left, model = told
        tolerance, drift = model.tolerance(self.ticks), model.unsure / size
        known = np.flatnonzero(np.isfinite(left))
        values = left[known]
        if not len(known):
            return None
        cuts = np.flatnonzero(np.abs(np.diff(values)) > tolerance + drift * (np.diff(known) - 1)) + 1
        bounds = list(pairwise([0, *cuts.tolist(), len(values)]))
        values = _level(known, values, bounds)
        last, own, unsure, away = start, float("nan"), 0.0, 0.0
        for a, b in bounds:
            i, level = known[a:b] + start, float(np.median(values[a:b]))
            reach = drift * (i[0] - last) + unsure
            strict = self.ticks / 2 + model.stray / 4 + reach  # more where those between were off by several times that
            back = abs(level - own) <= max(strict, min(tolerance, away / 4))
            if a and not back:
                off = b - a >= _STRETCH and abs(level - own) > tolerance + self.ticks + reach
                away = max(away, abs(level - own)) if off else away
                continue
            shown = b - a >= _STRETCH or away > _FAR * tolerance
            if away and i[0] >= seam and shown and i[0] - last <= most + 1:
                return range(seam, int(i[-1]) + 1)
            last, own, unsure, away = int(i[-1]), level, self.ticks / (b - a) / 2, 0.0
        return None

    def without_theirs(self, run: Run, seam: int) -> list[Run]:
        """The parts of a run in front of a seam, without buffers that keep the clock of the older recording behind it.

        Writes failed there. Only where the two clocks are clearly apart, and more buffers keep this recording's.
        """
        whole = replace(run, count=seam)
        size = len(run.cut)
        start = max(seam - _MOST, 0) // size * size + (-run.first.index) % size
        stop = min(seam + _BEHIND * size, run.count)
        told = self._clock_of(run).left(lambda k: self._stamps(run, k), start, stop)
        if told is None or not np.isfinite(told[1][seam - start :]).any():
            return [whole]
        _, left, model = told
        ours, behind = left[: seam - start], left[seam - start :]
        old, tolerance = float(np.nanmedian(behind)), model.tolerance(self.ticks)
        theirs = np.abs(ours - old) <= tolerance
        mine = np.isfinite(ours) & ~theirs
        if not theirs.any() or mine.sum() <= max(theirs.sum(), size):
            return [whole]
        off = np.abs(ours[mine] - np.median(ours[mine]))
        if abs(float(np.median(ours[mine])) - old) <= 2 * tolerance or np.percentile(off, 90) > tolerance:
            return [whole]
        edges = [0, *(np.flatnonzero(np.diff(theirs)) + 1 + start).tolist(), seam]
        parts = [(a, b) for a, b in pairwise(edges) if not (a >= start and theirs[a - start])]
        there = [next((k for k in range(a, b) if self._header(run, k) is not None), b) for a, b in parts]
        found = [(a, b, self.headers.at(run.sector_of(a))) for a, (_, b) in zip(there, parts, strict=True)]
        return [Run(run.sector_of(a), b - a, first, run.cut) for a, b, first in found if first is not None and a < b]

    @staticmethod
    def perhaps_later(run: Run, back: range | None) -> list[str]:
        """What to say of buffers that keep this recording's clock behind a seam."""
        if back is None:
            return []
        a, b = run.frame_of(back[0]), run.frame_of(back[-1])
        return [
            f"whether this recording ended in frame {a} is in doubt: an older one seems to begin there, but buffers up "
            f"to frame {b} keep the clock of this one again; until={b} returns them"
        ]


def _level(i: Ints, values: Floats, bounds: Sequence[tuple[int, int]]) -> Floats:
    """The same without the drift that all parts show: the clocks of one card run alike, steps between them aside."""
    off_i, off = np.zeros(len(i)), np.zeros(len(i))
    for a, b in bounds:
        off_i[a:b], off[a:b] = i[a:b] - np.mean(i[a:b]), values[a:b] - np.mean(values[a:b])
    spread = float(off_i @ off_i)
    level: Floats = values - (float(off_i @ off) / spread if spread else 0.0) * i
    return level
