"""What lies along a recording: where frames were lost or lack buffers, and its battery, focus and drops by samples."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from miniscope_xr.tools.check.check import check
from miniscope_xr.tools.view.seen import Seen

SAMPLES = 300
"""Frames whose headers are read for the curves: a card of any size answers in about a second."""
_CURVES = {"battery_voltage": "battery", "ewl": "focus", "dropped_buffer_count": "drops"}


def plain_numbers(values: Any) -> list[float | None]:
    """Numbers as JSON can say them; None for what is not a number."""
    return [None if np.isnan(v) else float(v) for v in np.asarray(values, np.float64)]


_ONE_AT_A_TIME = threading.Lock()
"""Each takes some 40 MB for the half million frames of a full card."""


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
    with _ONE_AT_A_TIME:
        lost, partial = [[gap.row, gap.count] for gap in seen.gaps()], seen.partial()
    return {
        "rows": rows.tolist(), "seconds": plain_numbers(times - times[0]), "curves": curves,
        "lost": lost, "partial": partial,
    }  # fmt: skip


def findings(path: str, layout: str | None = None) -> list[dict[str, Any]]:
    """What ``check`` says of a card, each sentence with the rows of the recording that it is about."""
    with _ONE_AT_A_TIME:
        result = check(path, layout=layout)
    found: list[dict[str, Any]] = [{"recording": None, "sentence": p.sentence, "rows": []} for p in result.problems]
    for report in result.recordings:
        for problem in report.problems:
            rows = list(problem.numbers.get("rows", []))
            found.append({"recording": report.number, "sentence": problem.sentence, "rows": rows[:100]})
        found += [{"recording": report.number, "sentence": note, "rows": []} for note in report.notes]
    return found
