"""The clock of one run, held against times in hand: which of its buffers are an older recording's.

What is as expected costs no read; only where times differ are the headers around read, and excursions of the clock told
(``excursions.py``).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

import numpy as np

from miniscope_xr.index.clock import Model, learn
from miniscope_xr.index.excursions import Behind, excursions, out_of_order
from miniscope_xr.index.framing import Stamps
from miniscope_xr.index.runs import Run
from miniscope_xr.layout import Build
from miniscope_xr.layout.arrays import Bools, Floats, Ints

Look = Callable[[Ints], Stamps]

_CHUNK = 16  # frames judged at once
_AROUND = 12  # frames looked at on each side of them
_KEPT = 256  # chunks
_LEARN = 64  # frames that show the clock of a run
_WITHIN, _BETWEEN = 2.0, 2.5  # ms by which buffers of a frame, and frames, may be off each other before it is looked at


class RunClock:
    """Tells buffers of a run that stand where this recording's were to be written, but are an older one's.

    Two steps: :meth:`suspects` compares times in hand with the clock; only where they differ :meth:`odd` reads the
    headers around, and decides. A card whose times are as expected costs no read.

    ``look`` reads the times of some buffers of the run: NaN where a header does not vouch for its buffer.

    Parameters
    ----------
    run : Run
    model : Model or None
        The clock of its recording; None: nothing is suspect.
    ticks : float
        Units of the timestamp per ms.
    end : Behind
        What is behind the run: as for :func:`excursions`.
    build : Build
        As for :func:`excursions`.
    """

    def __init__(
        self, run: Run, model: Model | None, ticks: float, end: Behind, build: Build | type[Build] = Build
    ) -> None:
        size = len(run.cut)
        self._run, self._size, self._ticks, self._end, self._build = run, size, ticks, end, build
        self._first = (-run.first.index) % size  # first buffer 0
        self._whole = max(run.count - self._first, 0) // size
        self._tells = not run.odd and self._whole >= 3
        self._short = not run.odd and self._whole < 3  # too few frames to show a clock
        self._expect(model if model is not None and len(model.offsets) == size else None)
        self.mute = not self._short and (not self._tells or self._model is None)
        """Nothing is suspect, whatever the times."""
        self._around = max(_AROUND, -(-build.failed_writes // size) + 4)
        self._chunks: dict[int, tuple[int, Bools]] = {}
        self._learnt: Model | None = None
        self._looked = False  # for it
        self._levels: dict[int, float] = {}  # ticks by which the clock is off, by frame
        self._levelled: list[int] = []  # these frames, in order

    def old(self, look: Look, i: Ints, times: Floats) -> Bools:
        """Which buffers ``i`` of the run are an older recording's; ``times`` as they came from ``look``."""
        found = self.suspects(i, times)
        if not found.any():
            return found
        chunks = np.array([self._chunk(k) for k in i.tolist()])
        found = np.isin(chunks, chunks[found])  # all that are judged with them: what a clock is like is told by many
        for k in np.flatnonzero(found).tolist():
            found[k] = self.odd(look, int(i[k]))
        return found

    def suspects(self, i: Ints, times: Floats) -> Bools:
        """Which of some buffers are in a frame that is to be looked at, by their times alone."""
        if self.mute or not len(i):
            return np.zeros(len(i), bool)
        number, index = np.divmod(i + self._run.first.index, self._size)
        if self._model is not None and not self._short and not self._levels:
            off = np.abs(times - self._due[index] - self._model.period * number)
            if np.fmax.reduce(off) <= _WITHIN / 2 * self._ticks:
                return np.zeros(len(i), bool)  # as strange() says then
        frames, row = _rows_of(number)
        table = np.full((len(frames), self._size), np.nan)
        table[row, index] = times
        found: Bools = self.strange(frames, table)[row]
        return found

    def strange(self, frames: Ints, times: Floats) -> Bools:
        """Which frames are to be looked at, by the times of their buffers alone.

        Parameters
        ----------
        frames : int64, shape (n,)
            Frames, counted from that of the run's first buffer.
        times : float64, shape (n, buffers of a frame)
            NaN where a header does not vouch for a buffer of the usual length.
        """
        model = self._model
        if self._short:
            known = times[np.isfinite(times)]
            return np.full(len(frames), bool((np.diff(known) < 0).any()))
        if not self._tells or model is None:
            return np.zeros(len(frames), bool)
        off = times - self._due - model.period * frames[:, None]
        dense = int(frames[-1] - frames[0]) < 2 * len(frames)
        level = self._level((frames[:1] + frames[-1:]) // 2 if dense else frames)
        if np.fmax.reduce(np.abs(off - level[:, None]), axis=None) <= _WITHIN / 2 * self._ticks:
            return np.zeros(len(frames), bool)  # all that are there are on time, as on most cards
        strange = self._astray(off, level)
        if dense and np.count_nonzero(strange) > 2 * self._around:  # lost ticks, or buffers are timed otherwise
            off -= _usual_offsets(off)
            strange = self._astray(off, _levels(off, self._around))
        return strange

    def on_time(self, frame: int, times: Sequence[int]) -> bool:
        """Whether :meth:`strange` cannot say anything of one frame all of whose buffers are there.

        In plain numbers: of the frames that are read one by one, each takes no longer for it.
        """
        if self.mute or self._short or self._model is None:
            return self.mute
        later, most = self._model.period * frame + self._level_at(frame), _WITHIN / 2 * self._ticks
        for time, due in zip(times, self._dues, strict=True):  # noqa: SIM110 a generator takes as long again
            if abs(time - due - later) > most:
                return False
        return True

    def _astray(self, off: Floats, level: Floats) -> Bools:
        """Which frames (rows of ticks by which buffers are off) are not of one piece, or not on their level."""
        high, low = np.fmax.reduce(off, axis=1), np.fmin.reduce(off, axis=1)
        with np.errstate(invalid="ignore"):
            strange: Bools = high - low > _WITHIN * self._ticks
            strange |= np.abs((high + low) / 2 - level) > _BETWEEN * self._ticks
        return strange

    def learnt(self, look: Look) -> Model | None:
        """The clock as the run's first frames show it, looked at once; None where they are too few."""
        if not self._looked:
            i = self._first + np.arange(min(self._whole, _LEARN) * self._size)
            self._learnt = None if self._run.odd else learn(look(i).came.reshape(-1, self._size), self._run.cut.lengths)
            self._looked = True
        return self._learnt

    def even(self, times: Floats) -> bool:
        """Whether all buffers of the run follow the clock of the first ones so closely that none of them can be odd."""
        start, size = self._first, self._size
        rows = times[start : start + min(self._whole, _LEARN) * size].reshape(-1, size)
        model = learn(rows, self._run.cut.lengths) if self._tells else None
        if model is None:
            return False
        number, index = np.divmod(np.arange(len(times)) + self._run.first.index, size)
        left = times - model.offsets[index] - model.period * number
        most = model._replace(stray=0.0).tolerance(self._ticks)
        return bool((np.abs(np.diff(left[np.isfinite(left)])) <= most).all())

    def odd(self, look: Look, i: int) -> bool:
        """Whether buffer ``i`` of the run is an older recording's, by the clock of the buffers around it."""
        if self._short:
            every = np.arange(self._run.count)
            if 0 not in self._chunks:
                self._chunks[0] = 0, out_of_order(look(every).came)
            return bool(self._chunks[0][1][i])
        if not self._tells:
            return False
        chunk = self._chunk(i)
        if chunk not in self._chunks:
            if len(self._chunks) >= _KEPT:
                self._chunks.clear()
            self._chunks[chunk] = self._judged(look, chunk)
        start, odd = self._chunks[chunk]
        return bool(0 <= i - start < len(odd) and odd[i - start])

    def _chunk(self, i: int) -> int:
        """Number of the chunk of frames with which buffer ``i`` is judged."""
        return min(max(i - self._first, 0) // self._size, max(self._whole - 1, 0)) // _CHUNK

    def _judged(self, look: Look, chunk: int) -> tuple[int, Bools]:
        """First of the buffers of a chunk of frames and of those around it, and which of them are odd."""
        frame = max(chunk * _CHUNK - self._around, 0)
        start = self._first + frame * self._size if frame else 0
        stop = min(self._first + ((chunk + 1) * _CHUNK + self._around) * self._size, self._run.count)
        told = self.left(look, start, stop)
        if told is None:
            return start, np.zeros(stop - start, bool)
        stamps, left, model = told
        times = stamps.came
        end = Behind.GOES_ON if self._end == Behind.ENDS and stop < self._run.count else self._end
        unsure = model.unsure / self._size
        odd = excursions(left, model.tolerance(self._ticks), self._ticks, end, self._build, unsure, times)
        if end == Behind.ENDS and odd[-1:].any():
            odd &= ~self._interrupt_lost(left, model, start)
        if self._build.remote_edge[1]:
            odd &= ~self._held_up(stamps, odd)
        if self._model is not None:
            self._expect(self._model._replace(offsets=model.offsets))
            number, index = np.divmod(np.arange(start, stop) + self._run.first.index, self._size)
            kept = (times - self._due[index] - self._model.period * number)[~odd]
            kept = kept[np.isfinite(kept)]
            self._levels[chunk * _CHUNK + _CHUNK // 2] = float(np.median(kept)) if len(kept) else 0.0
            self._levelled = sorted(self._levels)
        return start, odd

    def _interrupt_lost(self, left: Floats, model: Model, start: int) -> Bools:
        """Which of the last frame's buffers, from ``start`` on, are late by one buffer: an interrupt was lost in it."""
        index = (np.arange(start, start + len(left)) + self._run.first.index) % self._size
        late = np.append(np.diff(model.offsets), np.nan)[index]
        last = np.arange(len(left)) >= len(left) - 1 - index[-1]
        with np.errstate(invalid="ignore"):
            found: Bools = last & (np.abs(left - np.nanmedian(left) - late) <= model.tolerance(self._ticks))
        return found

    def _held_up(self, stamps: Stamps, odd: Bools) -> Bools:
        """Which buffers came at once with the one in front, which is not odd: an edge of a remote held interrupts up.

        Each was written when the one in front was. An older one was written when it came.
        """
        came, written = stamps
        found = np.zeros(len(came), bool)
        with np.errstate(invalid="ignore"):
            soon = (np.diff(came) >= 0) & (np.diff(came) <= self._ticks)
            waited = (np.diff(written) > 0) & (written[1:] - came[1:] >= self._ticks)
        for k in np.flatnonzero(odd[1:] & soon & waited).tolist():
            found[k + 1] = not odd[k] or found[k]
        return found

    def left(
        self, look: Look, start: int, stop: int, known: Model | None = None
    ) -> tuple[Stamps, Floats, Model] | None:
        """Times of buffers from the first of a frame on, ticks by which each is off a clock, and that clock.

        It is learnt from these buffers unless ``known``.
        """
        i = np.arange(start, stop)
        stamps = look(i)
        times = stamps.came
        whole = i[(i >= self._first) & (i < self._first + self._whole * self._size)] - start
        rows = times[whole][: len(whole) // self._size * self._size].reshape(-1, self._size)
        model = known or (learn(rows, self._run.cut.lengths) if self._tells else None)
        if model is None:
            return None
        number, index = np.divmod(i + self._run.first.index, self._size)
        return stamps, times - model.offsets[index] - model.period * (number - number[0]), model

    def _expect(self, model: Model | None) -> None:
        """Expect the buffers of the first frame at times of their own, and those of later frames periods later."""
        first = self._run.first
        self._model = model
        self._due = np.zeros(0) if model is None else model.offsets - model.offsets[first.index] + first.time
        self._dues: list[float] = self._due.tolist()

    def _level(self, frames: Ints) -> Floats:
        """Ticks by which the clock is off around some frames, as far as that was looked at."""
        if not self._levels:
            return np.zeros(len(frames))
        looked = np.array(self._levelled)
        behind = np.searchsorted(looked, frames).clip(1, max(len(looked) - 1, 1))
        pair = looked[np.stack([behind - 1, np.minimum(behind, len(looked) - 1)])]
        near = np.where(np.abs(pair[1] - frames) < np.abs(pair[0] - frames), pair[1], pair[0])
        known = np.array([self._levels[k] for k in near.tolist()])
        return np.where(frames < np.abs(near - frames), 0.0, known)

    def _level_at(self, frame: int) -> float:
        """The same of one frame, in plain numbers."""
        if not self._levelled:
            return 0.0
        behind = bisect_left(self._levelled, frame)
        near = min(self._levelled[max(behind - 1, 0) : behind + 1], key=lambda k: abs(k - frame))
        return 0.0 if frame < abs(near - frame) else self._levels[near]


def _usual_offsets(off: Floats) -> Floats:
    """Ticks by which the buffers of a frame (columns) are usually later than its first."""
    behind = (column[np.isfinite(column)] for column in (off - off[:, :1]).T)
    return np.array([float(np.median(known)) if known.size else 0.0 for known in behind])


def _levels(off: Floats, around: int) -> Floats:
    """Ticks by which the frames around each frame (row) are off: the median of ``around`` or more on each side."""
    known = np.flatnonzero(np.isfinite(off).any(axis=1))
    middle = (np.fmax.reduce(off[known], axis=1) + np.fmin.reduce(off[known], axis=1)) / 2
    levels = np.full(len(off), np.nan)
    steps = max(len(known) // around, 1)
    for k in range(steps):
        near = middle[max(k - 1, 0) * around : (k + 2) * around if k + 2 < steps else None]
        levels[known[k * around : (k + 1) * around if k + 1 < steps else None]] = np.median(near)
    return levels


def _rows_of(numbers: Ints) -> tuple[Ints, Ints]:
    """Frame numbers in order, each once, and which of them each of some numbers is."""
    row = numbers - numbers[0]
    if row[-1] < len(row) and not (np.diff(row) >> 1).any():  # one frame after the other, as most often
        return np.arange(numbers[0], numbers[-1] + 1), row
    frames, row = np.unique(numbers, return_inverse=True)
    return frames, row
