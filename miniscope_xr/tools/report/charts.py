"""Charts as scalable drawings in the page's colours; thinned, and with every spike kept."""

from __future__ import annotations

import html
from itertools import pairwise

import numpy as np

from miniscope_xr.layout.arrays import Array
from miniscope_xr.tools.check.result import clock
from miniscope_xr.tools.report.collect import LostTime

_W, _H = 1000, 100
_POINTS = 800


def _thinned(times: Array, values: Array) -> tuple[Array, Array]:
    """Keep the lowest and highest value of every stretch, so that no spike is lost on the way to the screen."""
    if len(times) <= _POINTS:
        return times, values
    edges = np.linspace(0, len(times), _POINTS // 2 + 1).astype(int)
    keep = []
    for a, b in pairwise(edges.tolist()):
        part = values[a:b]
        if np.isfinite(part).any():
            keep += sorted({a + int(np.nanargmin(part)), a + int(np.nanargmax(part))})
    return times[keep], values[keep]


def _path(times: Array, values: Array, end: float, low: float, high: float) -> str:
    """SVG path of a line, with a new start after every value that is not there."""
    x = times / end * _W
    y = _H - (values - low) / (high - low) * _H
    steps, pen = [], "M"
    for a, b in zip(x.tolist(), y.tolist(), strict=True):
        if np.isfinite(b):
            steps.append(f"{pen}{a:.1f} {b:.1f}")
            pen = "L"
        else:
            pen = "M"
    return "".join(steps)


def _axis(end: float) -> str:
    ticks = "".join(f"<span>{clock(end * k / 4)}</span>" for k in range(5))
    return f'<div class="ticks">{ticks}</div>'


def _number(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.0f}"


def chart(
    title: str, unit: str, times: Array, values: Array, end: float, span: tuple[float, float] | None = None
) -> str:
    """Draw values against time, with lowest and highest value and the time axis as text."""
    good = np.isfinite(values)
    if good.sum() < 2 or end <= 0:
        return ""
    low, high = span or (float(values[good].min()), float(values[good].max()))
    room = (high - low) * 0.1 or max(abs(high) * 0.05, 1.0)
    if span is None:
        low, high = (max(low - room, 0.0) if low >= 0 else low - room), high + room
    drawn = _path(*_thinned(times, values), end, low, high)
    words = f"{title}, {_number(values[good].min())} to {_number(values[good].max())} {unit}"
    return (
        f'<figure class="chart"><figcaption>{html.escape(title)} <small>{html.escape(unit)}</small></figcaption>'
        f'<div class="plot"><div class="range"><span>{_number(high)}</span><span>{_number(low)}</span></div>'
        f'<svg viewBox="0 0 {_W} {_H}" preserveAspectRatio="none" role="img" aria-label="{html.escape(words)}">'
        f'<path class="line" d="{drawn}"/></svg></div>{_axis(end)}</figure>'
    )


def timeline(lost: list[LostTime], end: float) -> str:
    """Draw the recording as a bar, with a mark for every gap."""
    if end <= 0:
        return ""
    marks = []
    for gap in lost:
        start, width = gap.start / end * _W, max((gap.stop - gap.start) / end * _W, 2.5)
        numbers = f" ({gap.gap.first} to {gap.gap.last})" if gap.gap.counted else ""
        words = f"{clock(gap.start)}: {gap.gap.count} lost{numbers}"
        marks.append(
            f'<rect class="gap" x="{min(start, _W - width):.1f}" y="0" width="{width:.1f}" height="{_H}">'
            f"<title>{words}</title></rect>"
        )
    gaps = f"{len(lost)} gap{'' if len(lost) == 1 else 's'}"
    key = f'<i class="gap"></i>lost: {sum(gap.gap.count for gap in lost):,} frames in {gaps}' if lost else ""
    return (
        f'<figure class="chart timeline"><figcaption>{"When frames are missing" if lost else "From start to end"}'
        "</figcaption>"
        f'<svg viewBox="0 0 {_W} {_H}" preserveAspectRatio="none" role="img" aria-label="{gaps} in the recording">'
        f'<rect class="there" width="{_W}" height="{_H}"/>{"".join(marks)}</svg>{_axis(end)}'
        f'<p class="key"><i class="there"></i>on the card {key}</p></figure>'
    )
