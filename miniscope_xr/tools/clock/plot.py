"""The residuals of an alignment: whether the line fits, which pairs were left out, and how sure it is along the way."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from miniscope_xr.tools.clock.fit import ClockError
from miniscope_xr.tools.stream.libraries import need
from miniscope_xr.tools.stream.timing import ERROR, SHOWN, milliseconds

_LINE, _LEFT_OUT = "#1f6f8b", "#c8432b"


def plot_clock(ds: xr.Dataset, ax: Any = None) -> Any:
    """Draw what every pair lies off the line, with the stated error; returns matplotlib Axes.

    Parameters
    ----------
    ds
        A recording that was aligned.
    ax
        matplotlib Axes to draw into; None makes a figure.
    """
    if SHOWN not in ds.coords or "clock_pair_card" not in ds.coords:
        raise ClockError("this recording was not aligned: call ds.miniscope.align(...) first, and plot what it returns")
    plt = need("matplotlib.pyplot", "plot", "a plot")
    axes = plt.subplots(figsize=(9, 3.5), layout="constrained")[1] if ax is None else ax
    frames = milliseconds(ds["time"].values) / 1000.0
    shown, error = ds[SHOWN].values, 1000 * ds[ERROR].values
    card, other, used = (ds[f"clock_pair_{name}"].values for name in ("card", "other", "used"))
    line = np.poly1d(np.polyfit(frames - frames[0], shown - shown[0], 1)) if len(frames) > 1 else None
    at = np.interp(card, frames, shown)
    beyond = (card < frames[0]) | (card > frames[-1])
    if line is not None and beyond.any():
        at[beyond] = shown[0] + line(card[beyond] - frames[0])
    off = 1000 * (other - at)
    axes.fill_between(frames, -error, error, color=_LINE, alpha=0.2, lw=0, label="error stated (95 %)")
    axes.plot(card[used], off[used], "o", ms=4, color=_LINE, label=f"{int(used.sum())} pairs")
    limit = 1.3 * max(float(np.abs(off[used]).max(initial=0)), float(np.nanmax(error, initial=0)), 0.1)
    if (~used).any():
        axes.plot(
            card[~used], np.clip(off[~used], -limit, limit), "x", color=_LEFT_OUT,
            label=f"{int((~used).sum())} left out (shown at the edge where further off)",
        )  # fmt: skip
    axes.axhline(0, color="0.5", lw=1)
    axes.set(xlabel="time by the card's clock (s)", ylabel="off the line (ms)", ylim=(-1.1 * limit, 1.1 * limit))
    axes.legend(frameon=False, fontsize="small")
    return axes
