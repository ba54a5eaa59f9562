"""Figures of a recording's headers: what was lost, how evenly frames came, battery and focus."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from miniscope_xr.layout.arrays import Array
from miniscope_xr.tools.stream.gaps import DROPPED, lost_frames
from miniscope_xr.tools.stream.libraries import need
from miniscope_xr.tools.stream.timing import BLANK, frame_numbers, milliseconds

_LOST = "#c8432b"
_LINE = "#1f6f8b"
_PARTIAL = "#d9961a"


class _Headers:
    """Header values of a recording against time in s."""

    def __init__(self, ds: xr.Dataset) -> None:
        self.ds = ds
        self.numbers = frame_numbers(ds, slice(None))
        times = milliseconds(ds["time"].values)
        self.seen = ds["buffers_present"].values > 0 if "buffers_present" in ds.variables else times != BLANK
        self.times = times[self.seen] / 1000.0
        places = np.asarray(ds["frame"].values, np.int64)
        self.gaps = lost_frames(self.numbers, places, ~self.seen, DROPPED in ds.variables, lambda rows: times[rows])
        """Frames that never reached the card, of these rows."""
        rows = np.flatnonzero(self.seen)
        self.breaks = np.array([k for k in np.searchsorted(rows, [gap.row for gap in self.gaps]) if k], np.int64)
        """Which of the frames that are on the card have lost ones in front of them."""

    def values(self, name: str) -> Array:
        """Values of one field for the frames that are on the card."""
        values: Array = np.asarray(self.ds[name].values)[self.seen]
        return values

    def line(self, axis: Any, values: Array, **style: Any) -> None:
        """Draw values against time, with a hole where frames were lost."""
        x, y = np.insert(self.times, self.breaks, np.nan), np.insert(values.astype(float), self.breaks, np.nan)
        axis.plot(x, y, **{"color": _LINE, "lw": 1.4, **style})


def _buffers(axis: Any, headers: _Headers) -> None:
    """How many buffers of each frame are there; what never arrived in red."""
    bits = headers.values("buffers_present").astype("<u4").view(np.uint8).reshape(-1, 4)
    there = np.unpackbits(bits, axis=1).sum(axis=1)
    partial = ~headers.values("complete").astype(bool)
    headers.line(axis, there, drawstyle="steps-mid")
    axis.plot(headers.times[partial], there[partial], "o", ms=4, color=_PARTIAL, label=f"{partial.sum()} partial")
    for k in headers.breaks.tolist():
        axis.axvspan(headers.times[k - 1], headers.times[k], color=_LOST, alpha=0.35, lw=0)
    n_lost = sum(gap.count for gap in headers.gaps)
    if n_lost:
        axis.plot([], [], color=_LOST, lw=6, alpha=0.35, label=f"{n_lost} lost")
    axis.set_ylim(0, max(int(there.max(initial=1)), 1) * 1.15)
    axis.set_ylabel("buffers\nper frame")
    if n_lost or partial.any():
        axis.legend(loc="lower right", bbox_to_anchor=(1, 0.97), ncols=2, frameon=False)


def _rate(axis: Any, headers: _Headers) -> None:
    numbers = headers.numbers[headers.seen]
    if len(numbers) < 2:
        return
    interval = np.diff(headers.times) / np.maximum(np.diff(numbers), 1) * 1000
    headers.line(axis, np.concatenate([interval[:1], interval]))
    axis.set_ylabel("frame interval\n(ms)")
    middle = float(np.median(interval))
    axis.set_ylim(0, max(2 * middle, 1))
    axis.axhline(middle, color="0.5", lw=0.8, ls="--")
    axis.annotate(f"{1000 / middle:.2f} frames/s", (0.01, 0.08), xycoords="axes fraction")


def _span(axis: Any, least: float, low: float | None = None) -> None:
    """Show at least so much of the axis (from ``low`` on): noise of one step is not stretched to a mountain."""
    bottom, top = axis.get_ylim()
    if low is not None:
        top = max(top, low + least)
        axis.set_ylim(low - 0.06 * (top - low), top)  # a line along the bottom is seen
    elif top - bottom < least:
        axis.set_ylim((bottom + top - least) / 2, (bottom + top + least) / 2)
    if least >= 1:
        axis.yaxis.get_major_locator().set_params(integer=True)


def _dropped(axis: Any, headers: _Headers) -> None:
    axis.plot(headers.times, headers.values("dropped_buffer_count"), color=_LOST, lw=1.5, drawstyle="steps-post")
    axis.set_ylabel("buffers\ndropped")
    _span(axis, 4, low=0)


def _delay(axis: Any, headers: _Headers) -> None:
    delay = headers.values("write_timestamp").astype(np.int64) - headers.values("timestamp").astype(np.int64)
    headers.line(axis, delay)
    axis.set_ylabel("wait for\nthe card (ms)")
    _span(axis, 10, low=min(float(delay.min(initial=0)), 0))


def _battery(axis: Any, headers: _Headers) -> None:
    volts = headers.values("battery_voltage").astype(float)
    headers.line(axis, np.where(volts > 0, volts, np.nan))
    axis.set_ylabel("battery (V)")
    _span(axis, 0.2)


def _ewl(axis: Any, headers: _Headers) -> None:
    headers.line(axis, headers.values("ewl"), drawstyle="steps-post")
    axis.set_ylabel("focus\n(EWL)")
    _span(axis, 4)


_PANELS: tuple[tuple[tuple[str, ...], Callable[[Any, _Headers], None]], ...] = (
    (("buffers_present", "complete"), _buffers),
    (("frame_num",), _rate),
    (("dropped_buffer_count",), _dropped),
    (("write_timestamp", "timestamp"), _delay),
    (("battery_voltage",), _battery),
    (("ewl",), _ewl),
)


def plot_headers(ds: xr.Dataset) -> Any:
    """Plot counters, drops, rate, battery and focus of a recording against time; those the device has.

    Returns
    -------
    matplotlib Figure
    """
    plt = need("matplotlib.pyplot", "plot", "a plot")
    headers = _Headers(ds)
    panels = [draw for names, draw in _PANELS if all(name in ds.variables for name in names)]
    style = {"font.size": 13, "axes.spines.top": False, "axes.spines.right": False}
    with plt.rc_context(style):
        figure, axes = plt.subplots(
            len(panels), 1, figsize=(10, 1.75 * len(panels) + 0.6), sharex=True, squeeze=False, layout="constrained"
        )
        for axis, draw in zip(axes[:, 0], panels, strict=True):
            draw(axis, headers)
        axes[-1, 0].set_xlabel("time since the start of the recording (s)")
        axes[-1, 0].margins(x=0.01)
        figure.align_ylabels(axes[:, 0])
        name = str(ds.encoding.get("source", "")).replace("\\", "/").rsplit("/", 1)[-1]
        figure.suptitle(f"{name}  {ds.attrs.get('layout', '')}".strip(), fontsize=13, x=0.01, ha="left")
    _let_go(plt, figure)
    return figure


def _let_go(plt: Any, figure: Any) -> None:
    """Close a figure where a notebook would show it twice: as what a cell returns, and as one that pyplot holds open.

    It can still be drawn, saved and shown. Elsewhere pyplot keeps it, for ``plt.show()``.
    """
    if "inline" in str(plt.get_backend()):
        plt.close(figure)
