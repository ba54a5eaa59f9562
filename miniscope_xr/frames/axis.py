"""The frame axis of a recording: the frames it has, also blank ones (``gaps="fill"``), and what carries each."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from enum import IntEnum
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from miniscope_xr.errors import OptionError
from miniscope_xr.index.runs import Run
from miniscope_xr.layout.arrays import Ints

_MAX_BLANKS = 1 << 24  # frames that gaps="fill" may insert


class NoRun(IntEnum):
    """What stands in the place of a run's number, for frames that no run carries whole."""

    PIECES = -1  # buffers of one run or several, of which some may be missing
    BLANK = -2  # none: ``gaps="fill"`` inserted it


class Piece(NamedTuple):
    """Buffers ``start`` to ``stop`` (exclusive) of run number ``run`` that carry one frame number."""

    run: int
    start: int
    stop: int


class Span(NamedTuple):
    """``size`` wanted rows from position ``at`` that follow one another in run number ``run`` from ``frame`` on."""

    at: int
    size: int
    run: int
    frame: int


class FrameAxis:
    """The frame axis as segments: (first frame number, frames, run or :class:`NoRun`).

    Parameters
    ----------
    runs : tuple of Run
    fill : bool
        Insert blank frames for missing frame numbers.
    until : int or None
        Last frame number.
    """

    def __init__(self, runs: tuple[Run, ...], fill: bool = False, until: int | None = None) -> None:
        self._runs = runs
        self._pieces: dict[int, list[Piece]] = {}
        spans: list[tuple[int, int, int]] = []  # whole frames [start, stop) of a run
        for number, run in enumerate(runs):
            spans += self._split(number, run)
        segments = self._resolve(sorted(spans))
        segments += [(frame, 1, NoRun.PIECES) for frame in self._pieces]
        segments.sort()
        if until is not None:
            segments = [(f, min(n, until - f + 1), r) for f, n, r in segments if f <= until]
        if fill:
            segments = self._filled(segments)
        self._start = np.array([s[0] for s in segments], np.int64)
        self._count = np.array([s[1] for s in segments], np.int64)
        self._run = [s[2] for s in segments]
        self._run_of = np.array(self._run, np.int64)
        self._row = np.concatenate(([0], np.cumsum(self._count))).astype(np.int64)
        self._rows: list[int] = self._row.tolist()
        self._starts: list[int] = self._start.tolist()

    def __len__(self) -> int:
        return self._rows[-1]

    # -- building ---------------------------------------------------------------------------------------

    def _split(self, number: int, run: Run) -> Iterator[tuple[int, int, int]]:
        """Put the partial frames of a run aside as pieces; yield its whole frames."""
        if run.odd:
            self._pieces.setdefault(run.first.frame, []).append(Piece(number, 0, 1))
            return
        size = len(run.cut)
        start = (-run.first.index) % size  # first buffer 0
        if start:
            self._pieces.setdefault(run.first.frame, []).append(Piece(number, 0, min(start, run.count)))
        if start >= run.count:
            return
        whole = (run.count - start) // size
        if whole:
            yield run.frame_of(start), run.frame_of(start) + whole, number
        rest = start + whole * size
        if rest < run.count:
            self._pieces.setdefault(run.frame_of(rest), []).append(Piece(number, rest, run.count))

    def _resolve(self, spans: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
        """Cut out of the spans every frame that several runs carry: it becomes a frame of pieces."""
        shared = set(self._pieces)
        for (_, stop, _), (start, end, _) in pairwise(spans):
            shared.update(range(start, min(stop, end)))
        segments = []
        marks = sorted(shared)
        for start, stop, number in spans:
            at = start
            run = self._runs[number]
            size = len(run.cut)
            first = (-run.first.index) % size
            for frame in marks[np.searchsorted(marks, start) : np.searchsorted(marks, stop)]:
                if frame > at:
                    segments.append((at, frame - at, number))
                begin = first + (frame - run.frame_of(first)) * size
                self._pieces.setdefault(frame, []).append(Piece(number, begin, begin + size))
                at = frame + 1
            if at < stop:
                segments.append((at, stop - at, number))
        for pieces in self._pieces.values():
            pieces.sort()
        return segments

    @staticmethod
    def _filled(segments: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
        """Insert blank frames where numbers are missing."""
        filled: list[tuple[int, int, int]] = []
        at = 0
        for start, count, run in segments:
            if start > at:
                filled.append((at, start - at, NoRun.BLANK))
            filled.append((start, count, run))
            at = start + count
        blanks = sum(n for _, n, r in filled if r == NoRun.BLANK)
        if blanks > _MAX_BLANKS:
            raise OptionError(
                f"gaps='fill' would insert {blanks} blank frames; frame numbers on this card jump too far, use 'skip'"
            )
        return filled

    # -- asking -----------------------------------------------------------------------------------------

    def _at(self, row: int) -> tuple[int, int]:
        """Segment and frame number of a row."""
        k = bisect_right(self._rows, row) - 1
        return k, self._starts[k] + row - self._rows[k]

    def frame_num(self, rows: Ints) -> Ints:
        """Frame numbers of some rows."""
        segment = np.searchsorted(self._row, rows, side="right") - 1
        return self._start[segment] + rows - self._row[segment]

    def skip_blank(self, row: int, step: int) -> int:
        """The nearest row from ``row`` on, forwards (1) or backwards (-1), that is not blank; past the end if none."""
        while 0 <= row < len(self):
            k, _ = self._at(row)
            if self._run[k] != NoRun.BLANK:
                return row
            row = self._rows[k + 1] if step > 0 else self._rows[k] - 1
        return row

    def partial_rows(self, slots: int) -> list[int]:
        """Rows that lack some of ``slots`` buffers by arithmetic (holes inside a run are not seen here)."""
        rows = []
        for row in (self._rows[k] for k, run in enumerate(self._run) if run == NoRun.PIECES):
            have = {self._runs[p.run].index_of(i) for p in self.pieces(row) for i in range(p.start, p.stop)}
            if not set(range(slots)) <= have:
                rows.append(row)
        return rows

    def pieces(self, row: int) -> list[Piece]:
        """Return the buffers of one row, in card order; none for a blank frame."""
        k, frame = self._at(row)
        number = self._run[k]
        if number == NoRun.BLANK:
            return []
        if number == NoRun.PIECES:
            return self._pieces[frame]
        start = self.first_buffer(number, frame)
        return [Piece(number, start, start + len(self._runs[number].cut))]

    def first_buffer(self, number: int, frame: int) -> int:
        """Buffer in run ``number`` that begins a frame."""
        run = self._runs[number]
        return (frame - run.first.frame) * len(run.cut) - run.first.index

    def by_run(self, rows: Ints) -> Iterator[tuple[int, Ints]]:
        """Run (or :class:`NoRun`), and which of some rows it carries, for each run that carries one of them."""
        numbers = self._run_of[np.searchsorted(self._row, rows, side="right") - 1]
        order = np.argsort(numbers, kind="stable")
        for at in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1):
            if len(at):
                yield int(numbers[at[0]]), at

    def spans(self, rows: Ints) -> Iterator[Span]:
        """Stretches of consecutive wanted rows that lie in one segment."""
        if len(rows) == 1:
            row = int(rows[0])
            k, frame = self._at(row)
            yield Span(0, 1, self._run[k], frame)
            return
        at = 0
        for stop in [*(np.flatnonzero(rows[1:] - rows[:-1] != 1) + 1).tolist(), len(rows)]:
            while at < stop:
                row = int(rows[at])
                k, frame = self._at(row)
                count = min(stop - at, self._rows[k + 1] - row)
                yield Span(at, count, self._run[k], frame)
                at += count
