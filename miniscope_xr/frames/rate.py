"""How long a frame takes by the recording's own clock."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from miniscope_xr.layout.arrays import Ints

_PAIRS = 48

RowClock = Callable[[Ints], tuple[Ints, Ints]]
"""Times in ms (negative: none) and frame numbers of some rows."""


def clock_step(count: int, look: RowClock) -> float | None:
    """Return ms from one frame to the next, or None where fewer than two frames have a time.

    The median step between neighbours says about how long a frame takes. Over pairs of frames eight times further
    apart, and again up to half a recording, it says how many frames passed, and they say the step ever more exactly.
    So neither lost frames move it, counted by the device or not (a v3 numbers what it writes), nor a late frame, nor
    the clock's whole ms. Looks at some hundred frames.

    Parameters
    ----------
    count
        Frames of the recording.
    look
        Reads the times and the numbers of some rows.
    """
    step: float | None = None
    span = 1
    while count > 1:
        early = np.unique(np.linspace(0, count - span - 1, min(count - span, _PAIRS)).astype(np.int64))
        times, numbers = (values.reshape(2, -1) for values in look(np.concatenate([early, early + span])))
        good = (times >= 0).all(axis=0) & (times[1] > times[0]) & (numbers[1] > numbers[0])
        passed, counted = (times[1] - times[0])[good], (numbers[1] - numbers[0])[good]
        if len(passed):
            frames = counted if step is None else np.maximum(counted, np.rint(passed / step))
            step = float(np.median(passed / frames))
        if span >= count // 2:
            break
        span = min(8 * span, count // 2)
    return step
