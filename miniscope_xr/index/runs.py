"""Runs: maximal stretches of buffers whose place and counters are plain arithmetic.

Buffers follow one another on the card without holes, and while nothing is dropped every counter of
buffer *i* is known from the first one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from miniscope_xr.layout import SECTOR

_SOON = 20  # ticks from one write to the next
MAX_INDEX = 64  # buffers of one frame that can carry a bit of buffers_present and a place


class Header(NamedTuple):
    """The counters of one buffer header; times in the device's units, lengths in bytes."""

    words: int
    slot: int
    frame: int
    count: int  # type: ignore[assignment]  # tuple.count is of no use here
    index: int  # type: ignore[assignment]
    written: int
    dropped: int
    time: int
    length: int
    write_time: int
    battery: int
    ewl: int

    @property
    def ahead(self) -> int:
        """Buffers by which it came later than the one whose turn to be written it was.

        0, or whole rings where the camera overtook a slow card: what stands there was to be written so much later.
        """
        return self.count - self.written - self.dropped

    def written_next(self, before: Header) -> bool:
        """Whether its write began right behind that of the buffer before it: an older one's, hardly ever."""
        return before.write_time >= 0 and 0 <= self.write_time - before.write_time <= _SOON


@dataclass(frozen=True)
class Cut:
    """How one frame is cut into buffers.

    A buffer outside any arithmetic (lapped, torn, lost interrupts) has a cut of its own: one buffer, its index in the
    frame as ``first``, and the sectors it really takes, be they what its length needs or not.
    """

    lengths: tuple[int, ...]
    """Data bytes of the buffers of one frame, in order."""
    head: int
    """Bytes in front of a buffer's data."""
    step: int = 0
    """Sectors that every buffer takes, however short; 0: as many as it needs."""
    first: int = 0
    """Index in the frame of the first of these buffers."""
    taken: int = 0
    """Sectors that an odd buffer takes; 0 for whole frames."""

    @cached_property
    def sectors(self) -> tuple[int, ...]:
        """Sectors of each buffer."""
        return (self.taken,) if self.taken else tuple(self.sectors_for(length) for length in self.lengths)

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Sector of each buffer, counted from that of the frame."""
        return tuple(accumulate(self.sectors, initial=0))[:-1]

    @cached_property
    def arrays(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Data bytes and start sectors of the buffers as arrays: asked for with every frame that is read."""
        return np.array(self.lengths, np.int64), np.array(self.starts, np.int64)

    @cached_property
    def frame_sectors(self) -> int:
        """Sectors of the whole frame."""
        return sum(self.sectors)

    def begins_like(self, other: Cut) -> bool:
        """Whether ``other`` is the beginning of this cut (a recording that ended in its first frame)."""
        return other.lengths == self.lengths[: len(other)]

    def sectors_for(self, length: int) -> int:
        """Sectors a buffer of ``length`` data bytes needs."""
        return self.step or -(-(length + self.head) // SECTOR)

    def __len__(self) -> int:
        return len(self.lengths)


@dataclass(frozen=True)
class Run:
    """A stretch of buffers known by arithmetic from its first header."""

    sector: int
    count: int
    first: Header
    cut: Cut

    @property
    def odd(self) -> bool:
        """Whether this is one buffer outside any arithmetic."""
        return bool(self.cut.taken)

    @property
    def end_sector(self) -> int:
        """First sector behind the run."""
        return self.sector_of(self.count - 1) + self.sector_count(self.count - 1)

    @property
    def end_place(self) -> int:
        """``write_buffer_count`` the next buffer must have."""
        return self.first.written + self.count

    @property
    def last_frame(self) -> int:
        """Frame number of the last buffer."""
        return self.frame_of(self.count - 1)

    @cached_property
    def _skipped(self) -> int:
        """Buffers of its cut that the run's first frame lacks."""
        return self.first.index - self.cut.first

    def frame_of(self, i: int) -> int:
        """Frame number of buffer ``i`` of the run."""
        return self.first.frame + (self._skipped + i) // len(self.cut.lengths)

    def index_of(self, i: int) -> int:
        """Index in its frame of buffer ``i`` of the run."""
        return self.cut.first + (self._skipped + i) % len(self.cut.lengths)

    def sector_of(self, i: int) -> int:
        """Sector of the header of buffer ``i`` of the run."""
        cut, skipped = self.cut, self._skipped
        frame, k = divmod(skipped + i, len(cut.lengths))
        return self.sector - cut.starts[skipped] + frame * cut.frame_sectors + cut.starts[k]

    def sectors_of(self, i: NDArray[np.int64]) -> NDArray[np.int64]:
        """Vectorised :meth:`sector_of`."""
        cut = self.cut
        frame, k = np.divmod(i + self._skipped, len(cut.lengths))
        return frame * cut.frame_sectors + cut.arrays[1][k] + (self.sector - cut.starts[self._skipped])

    def length_of(self, i: int) -> int:
        """Data bytes of buffer ``i`` of the run, as its header says."""
        return self.cut.lengths[(self._skipped + i) % len(self.cut.lengths)]

    def sector_count(self, i: int) -> int:
        """Sectors buffer ``i`` of the run really takes on the card."""
        return self.cut.sectors[(self._skipped + i) % len(self.cut.lengths)]

    def matches(self, i: int, header: Header | None) -> bool:
        """Whether ``header`` has the counters that arithmetic expects of buffer ``i``.

        The data length may differ (a lost interrupt, the first frame after a restart).
        """
        return header is not None and (
            header.frame, header.index, header.count, header.written, header.dropped,
        ) == (
            self.frame_of(i), self.index_of(i), self.first.count + i, self.first.written + i, self.first.dropped,
        )  # fmt: skip


def odd_buffer(sector: int, header: Header, like: Cut, length: int, sectors: int = 0) -> Run:
    """One buffer outside any arithmetic, of a recording cut ``like`` this; 0 ``sectors``: as its length needs."""
    taken = sectors or like.sectors_for(length)
    return Run(sector, 1, header, replace(like, lengths=(length,), first=header.index, taken=taken))


def cut_at(runs: list[Run], number: int, i: int) -> list[Run]:
    """Runs up to buffer ``i`` (exclusive) of run ``number``."""
    return [*runs[:number], *([replace(runs[number], count=i)] if i else [])]


def ended_at(runs: list[Run], sector: int, header: Header | None) -> list[Run]:
    """Runs whose last buffer has this header and ends at this sector, however many sectors its length needs."""
    last = runs[-1]
    i = last.count - 1
    start = last.sector_of(i)
    odd = odd_buffer(start, header or last.first, last.cut, last.length_of(i), sector - start)
    return [*cut_at(runs, len(runs) - 1, i), odd]


def overtaken(runs: list[Run], header_at: Callable[[int], Header | None], ring: int) -> list[Run]:
    """Runs in which the last buffer, if the camera lapped it, takes the sectors of the buffer it was before.

    The firmware counts the sectors of a write, then waits for the card; meanwhile another buffer fills the slot. So
    the header on the card is the later buffer's, the number of sectors that of the earlier one.
    """
    last = runs[-1]
    sector = last.sector_of(last.count - 1)
    header, like = header_at(sector), max((r for r in runs if not r.odd), key=lambda r: r.count, default=None)
    if header is None or like is None or not ring or header.written < 0:
        return runs
    laps = header.ahead
    end = sector + like.cut.sectors[(header.index - laps) % len(like.cut)]
    return runs if laps <= 0 or laps % ring or end == last.end_sector else ended_at(runs, end, header)


def ended_as_said(runs: list[Run], header_at: Callable[[int], Header | None]) -> list[Run]:
    """Runs whose last buffer takes the sectors that the length in its header needs: an interrupt was lost in it."""
    if not runs or runs[-1].odd:
        return runs
    last, i = runs[-1], runs[-1].count - 1
    header = header_at(last.sector_of(i))
    if header is None or not last.matches(i, header):
        return runs
    sectors = last.cut.sectors_for(header.length)
    if sectors == last.sector_count(i):
        return runs
    return [*cut_at(runs, len(runs) - 1, i), odd_buffer(last.sector_of(i), header, last.cut, header.length)]


def last_as_written(runs: list[Run], header_at: Callable[[int], Header | None]) -> list[Run]:
    """Runs whose last buffer, where the camera lapped it, is the one that stands there."""
    last = runs[-1]
    i = last.count - 1
    header = header_at(last.sector_of(i))
    if header is None or last.matches(i, header) or header.written != last.end_place - 1:
        return runs
    return [*cut_at(runs, len(runs) - 1, i), odd_buffer(last.sector_of(i), header, last.cut, header.length)]


def with_true_indexes(runs: list[Run], cut: Cut | None) -> list[Run]:
    """Runs in which a single buffer whose index has a flipped bit (another's, or beyond the frame) has its true one.

    Its header then differs from what its run expects, and it alone is lost; with the flipped index it would stand in
    the place of another.
    """
    if cut is None or not any(run.odd for run in runs):
        return runs
    true = list(runs)
    for n, run in enumerate(runs):
        near = [other.first for other in (*runs[max(n - 1, 0) : n], *runs[n + 1 : n + 2])]
        sure = len(near) == 2 and _captured(near[0], cut) == _captured(near[1], cut)
        first = run.first if not run.odd else true_index(run.first, near, cut)
        if first is not run.first and (sure or run.first.index >= len(cut)):
            true[n] = odd_buffer(run.sector, first, cut, run.cut.lengths[0], run.cut.taken)
    return true


def true_index(header: Header, beside: list[Header], cut: Cut) -> Header:
    """A header with the index that those beside it show, dropped buffers included, where one bit of it flipped."""
    told = {_captured(near, cut) for near in beside}
    if len(cut) < 2 or _captured(header, cut) in told:
        return header  # beyond a frame too, where an interrupt was lost: two of the camera's are under this number
    bits = (header._replace(index=header.index ^ 1 << bit) for bit in range(MAX_INDEX.bit_length()))
    fits = (h for h in bits if h.index < len(cut) and h.length == cut.lengths[h.index])
    return next((h for h in fits if _captured(h, cut) in told), header)


def _captured(header: Header, cut: Cut) -> int:
    """Buffers that the camera gave, by frame and index, less those counted: the same until an interrupt is lost."""
    return header.frame * len(cut) + header.index - header.count


def expected_headers(run: Run, i: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """What arithmetic expects of buffers ``i`` of a run: the layout's field name -> values."""
    frame, index = np.divmod(i + (run.first.index - run.cut.first), len(run.cut))
    return {
        "frame_num": frame + run.first.frame,
        "frame_buffer_count": index + run.cut.first,
        "buffer_count": run.first.count + i,
        "write_buffer_count": run.first.written + i,
        "dropped_buffer_count": np.full(i.shape, run.first.dropped, np.int64),
    }
