"""A clock as a small file (JSON): found once by ``align``, used by every export of that recording."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from miniscope_xr._version import SOFTWARE
from miniscope_xr.errors import OptionError
from miniscope_xr.tools.clock.fit import ClockFit
from miniscope_xr.tools.clock.found import Clock

_KIND = "miniscope-xr clock"


def to_text(clock: Clock) -> str:
    """Return the clock as JSON."""
    fit = clock.fit
    pairs = zip(fit.card.tolist(), fit.other.tolist(), fit.used.tolist(), strict=True)
    return json.dumps({
        "kind": _KIND, "software": SOFTWARE, "source": clock.source, "video": clock.video, "dated": clock.dated,
        "zero": clock.zero, "middle": fit.middle, "offset": fit.offset, "drift": fit.drift, "spread": fit.spread,
        "jumps": fit.jumps, "cover": fit.cover.tolist(), "quantile": fit.quantile, "bound": fit.bound,
        "pairs": [list(pair) for pair in pairs],
    }, indent=1) + "\n"  # fmt: skip


def read_clock(path: str | os.PathLike[str]) -> Clock:
    """Read a clock that ``align`` wrote.

    Raises
    ------
    OptionError
        The file cannot be read, or holds something else.
    """
    try:
        said: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
        if said["kind"] != _KIND:
            raise ValueError(f"it is a {said['kind']!r}")
        pairs = np.array(said["pairs"], float).reshape(-1, 3)
        fit = ClockFit(
            float(said["middle"]), float(said["offset"]), None if said["drift"] is None else float(said["drift"]),
            pairs[:, 0], pairs[:, 1], pairs[:, 2] > 0, float(said["spread"]),
            tuple((float(when), float(size)) for when, size in said["jumps"]), np.array(said["cover"], float),
            float(said["quantile"]), float(said["bound"]),
        )  # fmt: skip
        return Clock(fit, bool(said["dated"]), float(said["zero"]), str(said["source"]), str(said["video"]))
    except OSError as error:
        raise OptionError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise OptionError(f"{path}: is no clock that `align` wrote ({error})") from error
