"""Frames none of whose buffers reached the card: some drivers give up a write where the card is busy for long.

The counters go on over them, so they lie within a run, and no row of the dataset is to stand for them.
"""

from __future__ import annotations

import numpy as np

from miniscope_xr.index.headers import read_rows
from miniscope_xr.index.runs import Run
from miniscope_xr.index.seam import SeamSearch
from miniscope_xr.layout import SECTOR
from miniscope_xr.layout.arrays import Bools

_EVERY = 4096  # frames of a run up to which every header is looked at


def without_lost(runs: list[Run], search: SeamSearch) -> list[Run]:
    """The parts of runs that have a buffer of every frame on the card; those of an older recording are none."""
    return [part for run in runs for part in _parts(run, search)]


def _parts(run: Run, search: SeamSearch) -> list[Run]:
    size = len(run.cut)
    if run.odd or run.count > _EVERY * size:
        return [run]
    i, headers = np.arange(run.count), search.headers
    rows = read_rows(headers.source, headers.dtype, run.sectors_of(i) * SECTOR)
    old = search.old_among(run)
    there = np.flatnonzero(headers.framing.vouched(rows, run, i) & ~old)
    frames = (there + run.first.index) // size
    parts = np.split(there, np.flatnonzero(np.diff(frames) > 1) + 1)
    if len(parts) == 1:
        return [run]
    stops = [*(int(part[0]) for part in parts[1:]), run.count]
    ends = [_end(run, int(part[-1]) + 1, stop, old) for part, stop in zip(parts, stops, strict=True)]
    starts = [int(part[0]) for part in parts]
    firsts = [headers.at(run.sector_of(start)) or run.first for start in starts]
    return [
        Run(run.sector_of(start), end - start, first, run.cut)
        for start, end, first in zip(starts, ends, firsts, strict=True)
    ]


def _end(run: Run, stop: int, following: int, old: Bools) -> int:
    """The end of the frame that ``stop`` is in, in front of old buffers; of the last part the end of the run."""
    size = len(run.cut)
    whole = -(-(stop + run.first.index) // size) * size - run.first.index
    end = run.count if following == run.count else min(whole, following)
    return stop + int(np.argmax(old[stop:end])) if old[stop:end].any() else end
