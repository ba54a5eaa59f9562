"""What lies along a recording: where frames were lost or lack buffers, and its battery, focus and drops by samples."""

from __future__ import annotations

from typing import Any

import numpy as np

from miniscope_xr.tools.view.findings import ONE_AT_A_TIME
from miniscope_xr.tools.view.seen import Seen, plain_numbers

SAMPLES = 300
"""Frames whose headers are read for the curves: a card of any size answers in about a second."""
_CURVES = {"battery_voltage": "battery", "ewl": "focus", "dropped_buffer_count": "drops"}


def line(seen: Seen) -> dict[str, Any]:
    """Return gaps and partial frames as the counters tell them, and curves of up to :data:`SAMPLES` frames.

    Times are in s from the first frame.
    """
    rows = np.unique(np.linspace(0, seen.count - 1, min(SAMPLES, seen.count)).astype(np.int64))
    times = seen.heads(rows).ms / 1000
    curves = {
        said: {"units": seen.ds[name].attrs.get("units", ""), "values": plain_numbers(seen.ds[name].variable[rows])}
        for name, said in _CURVES.items()
        if name in seen.ds.variables
    }
    with ONE_AT_A_TIME:
        lost, partial = [[gap.row, gap.count] for gap in seen.gaps()], seen.partial()
    return {
        "rows": rows.tolist(), "seconds": plain_numbers(times - times[0]), "curves": curves,
        "lost": lost, "partial": partial,
    }  # fmt: skip
