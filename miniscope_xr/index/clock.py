"""The frame clock: while a recording goes on, the time of every buffer follows from its number.

    frame       40    41    42    43    44
    buffer 0  2025  2075  2125  2175  2225      a period of 50 ms
    buffer 1  2032  2082  2151  2182  2232      2151 is of a recording that began 19 ms later

Times stray by a ms or so (whole ms, interrupts that come late), by how much is measured on each card. A *step* of the
clock is there to stay: an older recording begins, or interrupts were lost. An *excursion* comes back: in the place of
a few buffers whose writes failed stand those of an older recording.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from miniscope_xr.index.headers import HeaderReader
from miniscope_xr.index.runs import Header, Run
from miniscope_xr.layout import Build

_JITTER = 3.0  # ticks by which a time may be off: whole ms, and interrupts that come late

Ints = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]
Look = Callable[[Ints], Floats]


class FrameClock:
    """Says whether a header keeps the clock of the runs before it.

    Parameters
    ----------
    headers : HeaderReader
    """

    def __init__(self, headers: HeaderReader) -> None:
        self.headers = headers

    def fits(self, runs: Sequence[Run], header: Header) -> bool:
        """Whether a header behind a hole keeps the clock of ``runs``, as far as they tell it.

        Whole periods do not count: a lost interrupt puts two camera frames under one number.
        """
        last = runs[-1]
        end = self.headers.at(last.sector_of(last.count - 1)) or last.first
        if header.time < end.time:
            return False
        known = next((times for run in reversed(runs) if (times := self._ends(run, header)) is not None), None)
        if known is None:
            return True
        (first, early), (frame, late) = known
        period = (late - early) / (frame - first)
        if period <= 0:
            return True
        off = (header.time - late - period * (header.frame - frame)) / period
        tolerance = _JITTER * (1 + (header.frame - frame) / (frame - first)) / period
        return tolerance >= 0.5 or abs(off - round(off)) <= tolerance

    def _ends(self, run: Run, like: Header) -> tuple[tuple[int, int], tuple[int, int]] | None:
        """(frame, time) of the first and the last buffer of a run with the same index as a header."""
        size = len(run.cut)
        if run.odd or like.index >= size or like.length != run.cut.lengths[like.index]:
            return None
        start = (like.index - run.first.index) % size
        last = start + (run.count - 1 - start) // size * size
        found = []
        for i in (start, last):
            header = self.headers.at(run.sector_of(i)) if last > start else None
            if header is None or not run.matches(i, header):
                return None
            found.append((header.frame, header.time))
        return found[0], found[1]


# -- excursions: old buffers among new ones ----------------------------------------------------------------------------

_LEARN = 64  # frames from which period, offsets and noise are learnt
_WIDTH = 4.0  # ticks within which times of one kind lie
_PLACES = 256  # frames from one place where the clock is looked at to the next
_NEAR = 8  # frames looked at there
_CHUNK = 32  # frames judged at once
_AROUND = 24  # frames looked at on each side of them
_SIDE = 20  # buffers on each side whose clock counts
_FEW = 3  # buffers that do not show a clock by themselves
SHORT = 16  # writes in a row that fail
LONG = 100  # the same where the driver gives up on a busy card
_KEPT = 64  # chunks
EDGE = (10, 14)  # ms an edge of a foreign remote takes


def longest_hole(build: Build | None) -> int:
    """Most writes in a row that fail: a few, or all that a driver gives up on while the card is busy."""
    return LONG if build is not None and build.driver_timeout else SHORT


class Model(NamedTuple):
    """The clock of a run: ticks a frame, ticks from a frame's first buffer to each, and by how much times stray."""

    period: float
    offsets: Floats
    stray: float


def learn(times: Floats) -> Model | None:
    """Learn the clock from whole frames in a row: ticks (frames, buffers), NaN where a buffer is not there.

    >>> learn(np.add.outer(50.0 * np.arange(20), [25.0, 32.0])).period
    50.0
    """
    count = len(times)
    if count < 3:
        return None
    period = _usual(np.diff(times, axis=0).reshape(-1))
    offsets = np.array([0.0 if b == 0 else _usual(column - times[:, 0]) for b, column in enumerate(times.T)])
    if not period > 0 or not np.isfinite(offsets).all():
        return None
    left = times - offsets - period * np.arange(count)[:, None]
    steps = np.abs(np.diff(left, axis=0))  # all buffers of a frame stray together
    steps = steps[np.isfinite(steps)]
    return Model(period, offsets, float(np.percentile(steps, 80)) if steps.size else 0.0)


def _usual(values: Floats, width: float = _WIDTH) -> float:
    """Mean of the values where most of them are; of the larger ones if as many are elsewhere (interrupts cost time)."""
    known = np.sort(values[np.isfinite(values)])
    if not known.size:
        return float("nan")
    stop = np.searchsorted(known, known + width, side="right")
    many = stop - np.arange(len(known))
    start = len(known) - 1 - int(np.argmax(many[::-1]))
    return float(known[start : stop[start]].mean())


def _middle(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else float("nan")


def excursions(
    left: Floats, tolerance: float, ticks: float, ended: bool, late: bool = False, longest: int = SHORT
) -> Bools:
    """Which of some buffers in a row are off a clock that the buffers before and behind them keep.

    Parameters
    ----------
    left
        Ticks by which each is off (NaN: it is not there).
    tolerance
        Ticks by which one may be off.
    ticks
        Units of the timestamp per ms.
    ended
        Whether the recording ends behind them.
    late
        A buffer may be late for other reasons.
    longest
        Most buffers in a row that may be odd; of many the clock behind them has to be the same as before.

    Returns
    -------
    bool, shape (n,)
    """
    found = np.zeros(len(left), bool)
    known = np.flatnonzero(np.isfinite(left))
    if len(known) < 4:
        return found
    values = left[known]
    cuts = np.flatnonzero(np.abs(np.diff(values)) > tolerance) + 1
    bounds = [0, *cuts.tolist(), len(values)]
    own = np.ones(len(values), bool)
    for n, (start, stop) in enumerate(pairwise(bounds)):
        if not len(cuts) or stop - start > longest:
            continue
        before = values[:start][own[:start]][-_SIDE:]  # without the old ones found so far
        following = bounds[n + 2] if n + 2 < len(bounds) else stop
        behind = values[stop : following if following - stop > _FEW else stop + _SIDE]
        level, size = float(np.median(values[start:stop])), stop - start
        if late:
            both = len(before) > 0 and len(behind) > 0
            strays = both and level < float(min(np.median(before), np.median(behind))) - tolerance
        else:
            strays = _strays(before, behind, level, size, tolerance, ticks, ended)
        own[start:stop] = not strays
    found[known[~own]] = True
    return found


def _strays(
    before: Floats, behind: Floats, level: float, size: int, tolerance: float, ticks: float, ended: bool
) -> bool:
    """Whether a stretch of buffers is off the clock of both sides, and not between them."""
    if not len(before):
        return False  # a few buffers of this recording, and behind them an older one
    early = float(np.median(before))
    if not len(behind):
        edge = EDGE[0] <= (early - level) / ticks <= EDGE[1]
        return bool(ended and len(before) > 2 * size and abs(level - early) > tolerance and not edge)
    late = float(np.median(behind))
    if size > SHORT and not (min(len(before), len(behind)) > _FEW and abs(early - late) <= tolerance):
        return False
    return not min(early, late) - tolerance <= level <= max(early, late) + tolerance


class RunClock:
    """Tells buffers of a run apart that stand where this recording's were to be written, but are an older one's.

    Its methods take ``look``, which reads the times of some buffers of the run: NaN where a header does not vouch for
    its buffer.

    Parameters
    ----------
    run : Run
    ticks : float
        Units of the timestamp per ms.
    ended : bool
        The recording ends with this run.
    late : bool
        The times are those of the writes, which a slow card makes late (v3): only a buffer before its time is odd.
    longest : int
        Most buffers in a row that may be odd.
    """

    def __init__(self, run: Run, ticks: float, ended: bool, late: bool = False, longest: int = SHORT) -> None:
        self._run = run
        self._longest = longest
        self._late = late
        self._ticks = ticks
        self._ended = ended
        self._size = len(run.cut)
        self._first = (-run.first.index) % self._size  # first buffer 0
        self._whole = max(run.count - self._first, 0) // self._size
        self._chunks: dict[int, Bools] = {}
        self._levels: dict[int, tuple[float, float]] = {}
        self._model: Model | None = None
        self._tells = not run.odd and self._whole >= 3 and not late

    def odd(self, look: Look, frame: int, times: Floats) -> Bools:
        """Which buffers of whole frames in a row are an older recording's.

        Parameters
        ----------
        frame
            The first of them, counted from the run's first whole frame.
        times : float64, shape (n, buffers)
            Their times.
        """
        found = np.zeros(times.shape, bool)
        for k in np.flatnonzero(self.suspects(look, frame, times)).tolist():
            found[k] = self._chunk(look, (frame + k) // _CHUNK)[(frame + k) % _CHUNK]
        return found

    def is_odd(self, look: Look, i: int) -> bool:
        """Whether buffer ``i`` of the run is an older recording's."""
        if self.learnt(look) is None:
            return False
        frame = min(max(i - self._first, 0) // self._size, self._whole - 1)
        start, odd = self._around(look, frame // _CHUNK)
        return bool(odd[i - start])

    def suspects(self, look: Look, frame: int, times: Floats) -> Bools:
        """Which of some whole frames have a buffer that is to be looked at: a quick test that lets none slip."""
        model = self.learnt(look)
        if model is None:
            return np.zeros(len(times), bool)
        numbers = frame + np.arange(len(times))
        left = times - model.offsets - model.period * numbers[:, None]
        places = range(frame // _PLACES, int(numbers[-1]) // _PLACES + 2)
        at, level = zip(*(self._level(look, model, place) for place in places), strict=True)
        near = np.interp(numbers, at, level)
        with np.errstate(invalid="ignore"):
            suspect: Bools = (np.abs(left - near[:, None]) > 0.7 * self._tolerance(model)).any(axis=1)
        return suspect

    def learnt(self, look: Look) -> Model | None:
        """The run's clock; None where it is too short to tell."""
        if self._tells and self._model is None:
            self._model = learn(self._look_at(look, range(min(_LEARN, self._whole))))
            self._tells = self._model is not None
        return self._model

    def _tolerance(self, model: Model) -> float:
        return self._ticks + 0.6 + model.stray

    def _level(self, look: Look, model: Model, place: int) -> tuple[float, float]:
        """Ticks by which the clock is off at a place (a frame); each place is looked at once."""
        if place not in self._levels:
            start = max(min(place * _PLACES, self._whole - _NEAR), 0)
            frames = np.arange(start, min(start + _NEAR, self._whole))
            left = look(self._first + frames * self._size) - model.offsets[0] - model.period * frames
            self._levels[place] = float(frames.mean()), _middle(left)
        return self._levels[place]

    def _look_at(self, look: Look, frames: range) -> Floats:
        i = self._first + np.arange(frames.start * self._size, frames.stop * self._size)
        return look(i).reshape(-1, self._size)

    def _chunk(self, look: Look, chunk: int) -> Bools:
        """Which buffers of the whole frames of a chunk are odd."""
        start, odd = self._around(look, chunk)
        begin = self._first + chunk * _CHUNK * self._size - start
        part = odd[begin : begin + _CHUNK * self._size]
        return part[: len(part) // self._size * self._size].reshape(-1, self._size)

    def _around(self, look: Look, chunk: int) -> tuple[int, Bools]:
        """First of the buffers of a chunk of frames and of those around it, and which of them are odd."""
        model, last = self._model, self._run.count
        frame = max(chunk * _CHUNK - _AROUND, 0)
        start = self._first + frame * self._size if frame else 0
        if chunk not in self._chunks and model is not None:
            if len(self._chunks) >= _KEPT:
                self._chunks.clear()
            i = np.arange(start, min(self._first + ((chunk + 1) * _CHUNK + _AROUND) * self._size, last))
            number, index = np.divmod(i - self._first, self._size)
            left = look(i) - model.offsets[index] - model.period * number
            ended = self._ended and int(i[-1]) == last - 1
            self._chunks[chunk] = excursions(
                left, self._tolerance(model), self._ticks, ended, self._late, self._longest
            )
        return start, self._chunks[chunk]
