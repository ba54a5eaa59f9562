"""What ``check`` finds on a card, with the rows that each sentence is about."""

from __future__ import annotations

import threading
from typing import Any

from miniscope_xr.tools.check.check import check

ONE_AT_A_TIME = threading.Lock()
"""Each look over a whole recording takes some 40 MB for the half million frames of a full card."""


def findings(path: str, layout: str | None = None) -> list[dict[str, Any]]:
    """What ``check`` says of a card, each sentence with the rows of the recording that it is about."""
    with ONE_AT_A_TIME:
        result = check(path, layout=layout)
    found: list[dict[str, Any]] = [{"recording": None, "sentence": p.sentence, "rows": []} for p in result.problems]
    for report in result.recordings:
        for problem in report.problems:
            rows = list(problem.numbers.get("rows", []))
            found.append({"recording": report.number, "sentence": problem.sentence, "rows": rows[:100]})
        found += [{"recording": report.number, "sentence": note, "rows": []} for note in report.notes]
    return found
