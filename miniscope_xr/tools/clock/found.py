"""Another clock against the card's, once it is found: in words, and as coordinates of the recording."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from miniscope_xr.tools.clock.card_clock import card_clock
from miniscope_xr.tools.clock.fit import ClockFit
from miniscope_xr.tools.stream.timing import ERROR, SHOWN, WALL

PAIR = "clock_pair"


@dataclass(frozen=True)
class Clock:
    """Another clock against the card's."""

    fit: ClockFit
    """The line between the two."""
    dated: bool
    """Whether ``zero`` added to the other clock's seconds gives seconds since 1970."""
    zero: float
    """What is added to the other clock's seconds, in s."""
    source: str
    """What the times come from, as a sentence."""
    video: str = ""
    """The behaviour video among them; empty for none."""

    def __str__(self) -> str:
        fit = self.fit
        if fit.ppm is None:
            return self.source
        error = float(fit.error(fit.card[fit.used]).max())
        said = [
            f"{self.source}: the other clock is {abs(fit.ppm):.1f} millionths {'fast' if fit.ppm > 0 else 'slow'}",
            f"{int(fit.used.sum())} of {len(fit.card)} pairs fit, within {1000 * fit.spread:.1f} ms",
            f"between the first and the last a frame's time is known to {1000 * error:.1f} ms (95 %)"
            if np.isfinite(error)
            else "how far off a frame's time may be is not known: two pairs fit any line, give a third",
            *(f"the other clock was set by {size:+.3f} s at {when:.1f} s of the card's" for when, size in fit.jumps),
        ]
        return "; ".join(said)


def with_clock(ds: xr.Dataset, clock: Clock) -> xr.Dataset:
    """Return the recording with another clock's time of every frame, as ``align`` does."""
    fit, times = clock.fit, card_clock(ds).times
    shown, error = fit.at(times) + clock.zero, fit.error(times)
    coords: dict[str, Any] = {
        SHOWN: ("frame", shown, {"long_name": "time by the other clock, in s"}),
        ERROR: (
            "frame",
            error,
            {"long_name": "error of clock_time in s: half of an interval that holds it in 95 %"},
        ),
        "clock_pair_card": (PAIR, fit.card, {"long_name": "time of an event by the card's clock, in s"}),
        "clock_pair_other": (PAIR, fit.other + clock.zero, {"long_name": "its time by the other clock, in s"}),
        "clock_pair_used": (PAIR, fit.used, {"long_name": "whether the two are of one event"}),
    }
    if clock.dated:
        dates = np.rint(shown * 1e6).astype("datetime64[us]").astype("datetime64[ns]")
        coords[WALL] = ("frame", dates, {"long_name": "date and time of the frame (UTC)"})
    attrs: dict[str, Any] = {
        "clock_source": clock.source,
        "clock_zero": clock.zero,
        "clock_pairs": len(fit.card),
        "clock_pairs_used": int(fit.used.sum()),
        "clock_spread": fit.spread,
        "clock_drift_ppm": "not known" if fit.ppm is None else fit.ppm,
    }
    if np.isfinite(error).all():
        attrs["clock_error"] = float(error.max())
    if fit.jumps:
        attrs["clock_jumps"] = [f"{size:+.4f} s at {when:.3f} s of the card's clock" for when, size in fit.jumps]
    if clock.video:
        attrs["clock_video"] = clock.video
    old = [PAIR] if PAIR in ds.dims else []
    return ds.drop_dims(old).assign_coords(coords).assign_attrs(attrs)
