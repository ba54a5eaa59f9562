"""Runs: maximal stretches of buffers whose place and counters are plain arithmetic.

Buffers follow one another on the card without holes, and while nothing is dropped every counter of
buffer *i* is known from the first one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

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


class Cut:
    """How one frame is cut into buffers.

    Parameters
    ----------
    lengths : tuple of int
        Data bytes of the buffers of one frame, in order.
    header_bytes : int
        Bytes of a buffer header.
    sector_size : int
        Bytes of a sector.
    step : int
        Sectors that every buffer takes, however short; 0: as many as it needs.
    """

    def __init__(self, lengths: tuple[int, ...], header_bytes: int, sector_size: int = 512, step: int = 0) -> None:
        self.lengths = lengths
        self.step = step
        self.header_bytes = header_bytes
        self.sector_size = sector_size
        self.sectors = tuple(self.sectors_for(length) for length in lengths)
        self.starts = tuple(int(s) for s in np.concatenate(([0], np.cumsum(self.sectors)))[:-1])
        self.frame_sectors = sum(self.sectors)

    def begins_like(self, other: Cut) -> bool:
        """Whether ``other`` is the beginning of this cut (a recording that ended in its first frame)."""
        return other.lengths == self.lengths[: len(other)]

    def sectors_for(self, length: int) -> int:
        """Sectors a buffer of ``length`` data bytes takes."""
        return self.step or -(-(length + self.header_bytes) // self.sector_size)

    def __len__(self) -> int:
        return len(self.lengths)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cut) and (self.lengths, self.header_bytes) == (other.lengths, other.header_bytes)

    def __hash__(self) -> int:
        return hash((self.lengths, self.header_bytes))

    def __repr__(self) -> str:
        return f"Cut({self.lengths})"


@dataclass(frozen=True)
class Run:
    """A stretch of buffers known by arithmetic from its first header.

    ``single`` is set for one buffer outside any arithmetic: (sectors it really takes, its data length).
    """

    sector: int
    count: int
    first: Header
    cut: Cut
    single: tuple[int, int] | None = None

    @property
    def end_sector(self) -> int:
        """First sector behind the run."""
        if self.single:
            return self.sector + self.single[0]
        return self.sector_of(self.count - 1) + self.cut.sectors[self.index_of(self.count - 1)]

    @property
    def end_place(self) -> int:
        """``write_buffer_count`` the next buffer must have."""
        return self.first.written + self.count

    @property
    def last_frame(self) -> int:
        """Frame number of the last buffer."""
        return self.frame_of(self.count - 1)

    def frame_of(self, i: int) -> int:
        """Frame number of buffer ``i`` of the run."""
        return self.first.frame if self.single else self.first.frame + (self.first.index + i) // len(self.cut)

    def index_of(self, i: int) -> int:
        """Index in its frame of buffer ``i`` of the run."""
        return self.first.index if self.single else (self.first.index + i) % len(self.cut)

    def sector_of(self, i: int) -> int:
        """Sector of the header of buffer ``i`` of the run."""
        if self.single:
            return self.sector
        k = self.first.index + i
        p = self.cut
        return self.sector - p.starts[self.first.index] + k // len(p) * p.frame_sectors + p.starts[k % len(p)]

    def sectors_of(self, i: np.ndarray[Any, np.dtype[np.int64]]) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Vectorised :meth:`sector_of`."""
        if self.single:
            return np.full(i.shape, self.sector, np.int64)
        frame, index = np.divmod(i + self.first.index, len(self.cut))
        starts = np.array(self.cut.starts, np.int64)
        return self.sector - int(starts[self.first.index]) + frame * self.cut.frame_sectors + starts[index]

    def length_of(self, i: int) -> int:
        """Data bytes of buffer ``i`` of the run, as its header says."""
        return self.single[1] if self.single else self.cut.lengths[self.index_of(i)]

    def sector_count(self, i: int) -> int:
        """Sectors buffer ``i`` of the run really takes on the card."""
        return self.single[0] if self.single else self.cut.sectors[self.index_of(i)]

    def matches(self, i: int, header: Header | None) -> bool:
        """Whether ``header`` has the counters that arithmetic expects of buffer ``i``.

        The data length may differ (a lost interrupt, the first frame after a restart).
        """
        return header is not None and (
            header.frame, header.index, header.count, header.written, header.dropped,
        ) == (
            self.frame_of(i), self.index_of(i), self.first.count + i, self.first.written + i, self.first.dropped,
        )  # fmt: skip


def cut_at(runs: list[Run], number: int, i: int) -> list[Run]:
    """Runs up to buffer ``i`` (exclusive) of run ``number``."""
    return [*runs[:number], *([replace(runs[number], count=i)] if i else [])]


def ended_at(runs: list[Run], sector: int, header: Header | None) -> list[Run]:
    """Runs whose last buffer, with this header, ends at a sector: a lapped one takes the sectors of another."""
    last = runs[-1]
    i = last.count - 1
    start = last.sector_of(i)
    odd = Run(start, 1, header or last.first, last.cut, single=(sector - start, last.length_of(i)))
    return [*cut_at(runs, len(runs) - 1, i), odd]


def expected_headers(run: Run, i: np.ndarray[Any, np.dtype[np.int64]]) -> dict[str, np.ndarray[Any, Any]]:
    """What arithmetic expects of buffers ``i`` of a run: the layout's field name -> int64 values."""
    if run.single:
        frame, index = np.full(i.shape, run.first.frame, np.int64), np.full(i.shape, run.first.index, np.int64)
    else:
        frame, index = np.divmod(i + run.first.index, len(run.cut))
        frame += run.first.frame
    return {
        "frame_num": frame,
        "frame_buffer_count": index,
        "buffer_count": run.first.count + i,
        "write_buffer_count": run.first.written + i,
        "dropped_buffer_count": np.full(i.shape, run.first.dropped, np.int64),
    }


def vouched(
    rows: np.ndarray[Any, Any], expected: dict[str, np.ndarray[Any, Any]], words: int, payload: int
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which header rows have the counters arithmetic expects, and no more data than a buffer holds."""
    good: np.ndarray[Any, np.dtype[np.bool_]] = (rows["length"] == words) & (rows["data_length"] <= payload)
    for name, values in expected.items():
        good &= rows[name] == values
    return good
