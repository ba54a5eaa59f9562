"""What a test of a card says: its verdict, and its latencies as text and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from miniscope_xr.tools.flash.errors import CheckFailedError
from miniscope_xr.tools.flash.ring import Stalls
from miniscope_xr.tools.flash.risk import Risk, percent
from miniscope_xr.tools.stream.libraries import need


def verdict(stalls: Stalls, wrong: Sequence[int], size: int, risk: Risk | None = None) -> list[str]:
    """List the reasons to fail the card; none if it passes."""
    found = []
    if wrong:
        found.append(
            f"the capacity is fake or the card is broken: data at {len(wrong)} places, the first at "
            f"{wrong[0] / 1e9:.3f} GB of {size / 1e9:.3f} GB, did not come back; throw it away"
        )
    if stalls.dropped or stalls.overwritten:
        longest, bridge = 1000 * stalls.latencies.max(), 1000 * stalls.bridge
        slow = f"stalled up to {longest:.0f} ms"
        if longest <= bridge:  # many writes that are a little too long
            slow = (
                f"was up to {1000 * stalls.behind:.0f} ms behind the camera (no write took more than {longest:.0f} ms)"
            )
        found.append(
            f"it {slow} where the ring bridges {bridge:.0f} ms: {stalls.dropped} of {len(stalls.latencies)} buffers "
            f"would have been dropped and {stalls.overwritten} overwritten by the camera while they waited; use a "
            "faster card"
        )
    elif risk is not None and risk.probability > 0.5:
        found.append(
            f"it lost nothing here, but waits so close to what the ring bridges came that the planned recording will "
            f"probably lose a buffer ({percent(risk.probability)}); use a faster card, or see with --full"
        )
    return found


def complain(found: Sequence[str]) -> None:
    """Raise if the card did not pass.

    Raises
    ------
    CheckFailedError
        With every reason.
    """
    if found:
        raise CheckFailedError("fail: " + "; ".join(found))


def histogram(stalls: Stalls, width: int = 50) -> list[str]:
    """Draw the latencies as text, on a scale of powers of two."""
    ms = np.maximum(1000 * stalls.latencies, 1e-3)
    edges = 2.0 ** np.arange(np.floor(np.log2(ms.min())), np.ceil(np.log2(max(ms.max(), 1000 * stalls.bridge))) + 1)
    counts, _ = np.histogram(ms, edges)
    lines = []
    for count, low, high in zip(counts, edges, edges[1:], strict=False):
        bar = "#" * (int(np.ceil(width * np.log1p(count) / np.log1p(counts.max()))) if count else 0)
        ring = "  <- the ring bridges this" if low <= 1000 * stalls.bridge < high else ""
        lines.append(f"{low:8.3g} - {high:<8.3g} ms {count:7d} {bar}{ring}")
    return lines


def draw(stalls: Stalls, path: Path) -> None:
    """Draw the latencies into a picture file (needs matplotlib).

    Raises
    ------
    MissingDependencyError
        matplotlib is not installed.
    """
    figure = need("matplotlib.figure", "plot", "the picture").Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(1000 * stalls.latencies, ".", markersize=2)
    axes.axhline(1000 * stalls.bridge, color="red", label=f"the ring bridges {1000 * stalls.bridge:.0f} ms")
    axes.set(xlabel="write", ylabel="latency (ms)", yscale="log", title=f"{stalls.dropped} buffers would be dropped")
    axes.legend()
    figure.savefig(path)
