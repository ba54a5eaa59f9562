"""Frames none of whose buffers reached the card: some drivers give up a write where the card is busy for long.

The counters go on over them, so they lie within a run, and no row of the dataset is to stand for them.
"""

from __future__ import annotations

import numpy as np

from miniscope_xr.index.headers import HeaderReader, read_rows
from miniscope_xr.index.runs import Run
from miniscope_xr.layout import SECTOR

_EVERY = 4096  # frames of a run up to which every header is looked at


def without_lost(run: Run, headers: HeaderReader) -> list[Run]:
    """Return the parts of a run that have a buffer of every frame on the card."""
    size = len(run.cut)
    if run.odd or run.count > _EVERY * size:
        return [run]
    i = np.arange(run.count)
    rows = read_rows(headers.source, headers.dtype, run.sectors_of(i) * SECTOR)
    there = np.flatnonzero(headers.framing.vouched(rows, run, i))
    frames = (there + run.first.index) // size
    parts = np.split(there, np.flatnonzero(np.diff(frames) > 1) + 1)
    if len(parts) == 1:
        return [run]
    stops = [*(int(part[0]) for part in parts[1:]), run.count]
    return [_part(run, headers, int(part[0]), int(part[-1]) + 1, stop) for part, stop in zip(parts, stops, strict=True)]


def _part(run: Run, headers: HeaderReader, start: int, stop: int, following: int) -> Run:
    """Buffers from ``start`` to the end of the frame that ``stop`` is in; to the end of the run from the last."""
    header = headers.at(run.sector_of(start))
    size = len(run.cut)
    whole = -(-(stop + run.first.index) // size) * size - run.first.index
    count = (run.count if following == run.count else min(whole, following)) - start
    return Run(run.sector_of(start), count, header or run.first, run.cut)
