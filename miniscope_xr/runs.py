"""Runs: maximal stretches of buffers whose place and counters are plain arithmetic.

Buffers follow one another on the card without holes, and while nothing is dropped every counter of
buffer *i* is known from the first one. So a run's end is found by galloping and bisecting, a few header
reads for millions of buffers. Where the arithmetic breaks, :class:`Walker` takes single steps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from miniscope_xr.device import ByteSource
from miniscope_xr.layout import Layout
from miniscope_xr.words import buffer_header_dtype

_MAX_INDEX = 64  # buffers of one frame that can carry a bit of buffers_present and a place
_READ_WHOLE = 4096  # frames of an uncounted run whose headers are all read
_MARKS = 64  # headers looked at in a longer one
_GATHER = 1 << 16  # headers fetched at once: a small object each until they are joined
_LEARN = 96  # buffers looked at to learn how a frame is cut


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


# Header field -> the layout's name for it; the last three may be absent (-1 then).
_NAMES = (
    "length", "linked_list", "frame_num", "buffer_count", "frame_buffer_count", "write_buffer_count",
    "dropped_buffer_count", "timestamp", "data_length", "write_timestamp", "battery_voltage", "ewl",
)  # fmt: skip


class Pattern:
    """How one frame is cut into buffers.

    Parameters
    ----------
    lengths : tuple of int
        Data bytes of the buffers of one frame, in order.
    header_bytes : int
        Bytes of a buffer header.
    sector_size : int
        Bytes of a sector.
    """

    def __init__(self, lengths: tuple[int, ...], header_bytes: int, sector_size: int = 512) -> None:
        self.lengths = lengths
        self.header_bytes = header_bytes
        self.sector_size = sector_size
        self.sectors = tuple(self.sectors_for(length) for length in lengths)
        self.starts = tuple(int(s) for s in np.concatenate(([0], np.cumsum(self.sectors)))[:-1])
        self.frame_sectors = sum(self.sectors)

    def begins_like(self, other: Pattern) -> bool:
        """Whether ``other`` is the beginning of this pattern (a recording that ended in its first frame)."""
        return other.lengths == self.lengths[: len(other)]

    def sectors_for(self, length: int) -> int:
        """Sectors a buffer of ``length`` data bytes takes."""
        return -(-(length + self.header_bytes) // self.sector_size)

    def __len__(self) -> int:
        return len(self.lengths)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pattern) and (self.lengths, self.header_bytes) == (other.lengths, other.header_bytes)

    def __hash__(self) -> int:
        return hash((self.lengths, self.header_bytes))

    def __repr__(self) -> str:
        return f"Pattern({self.lengths})"


@dataclass(frozen=True)
class Run:
    """A stretch of buffers known by arithmetic from its first header.

    ``single`` is set for one buffer outside any arithmetic: (sectors it really takes, its data length).
    """

    sector: int
    count: int
    first: Header
    pattern: Pattern
    single: tuple[int, int] | None = None

    @property
    def end_sector(self) -> int:
        """First sector behind the run."""
        if self.single:
            return self.sector + self.single[0]
        return self.sector_of(self.count - 1) + self.pattern.sectors[self.index_of(self.count - 1)]

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
        return self.first.frame if self.single else self.first.frame + (self.first.index + i) // len(self.pattern)

    def index_of(self, i: int) -> int:
        """Index in its frame of buffer ``i`` of the run."""
        return self.first.index if self.single else (self.first.index + i) % len(self.pattern)

    def sector_of(self, i: int) -> int:
        """Sector of the header of buffer ``i`` of the run."""
        if self.single:
            return self.sector
        k = self.first.index + i
        p = self.pattern
        return self.sector - p.starts[self.first.index] + k // len(p) * p.frame_sectors + p.starts[k % len(p)]

    def sectors_of(self, i: np.ndarray[Any, np.dtype[np.int64]]) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Vectorised :meth:`sector_of`."""
        if self.single:
            return np.full(i.shape, self.sector, np.int64)
        frame, index = np.divmod(i + self.first.index, len(self.pattern))
        starts = np.array(self.pattern.starts, np.int64)
        return self.sector - int(starts[self.first.index]) + frame * self.pattern.frame_sectors + starts[index]

    def length_of(self, i: int) -> int:
        """Data bytes of buffer ``i`` of the run, as its header says."""
        return self.single[1] if self.single else self.pattern.lengths[self.index_of(i)]

    def sector_count(self, i: int) -> int:
        """Sectors buffer ``i`` of the run really takes on the card."""
        return self.single[0] if self.single else self.pattern.sectors[self.index_of(i)]

    def matches(self, i: int, header: Header | None) -> bool:
        """Whether ``header`` has the counters that arithmetic expects of buffer ``i``.

        The data length may differ (a lost interrupt, the first frame after a restart).
        """
        return header is not None and (
            header.frame, header.index, header.count, header.written, header.dropped,
        ) == (
            self.frame_of(i), self.index_of(i), self.first.count + i, self.first.written + i, self.first.dropped,
        )  # fmt: skip


class HeaderReader:
    """Buffer headers by sector, each read once.

    Parameters
    ----------
    source : ByteSource
    layout : Layout
    words : int
        Length of the headers of this recording, in words.
    payload : int
        Data bytes of a full buffer.
    """

    def __init__(
        self,
        source: ByteSource,
        layout: Layout,
        words: int,
        payload: int,
    ) -> None:
        self.source = source
        self.layout = layout
        self.words = words
        self.payload = payload
        self.dtype = buffer_header_dtype(layout, words)
        self.sector_size = layout.sectors.size
        self._seen: dict[int, Header | None] = {}
        names = self.dtype.names or ()
        self._names = tuple(name if name in names else None for name in _NAMES)

    def parse(self, data: bytes | memoryview) -> Header | None:
        """The header at the start of ``data``, or None where no firmware header can be."""
        if len(data) < self.dtype.itemsize:
            return None
        record = np.frombuffer(data, self.dtype, 1)
        header = Header(*(-1 if name is None else int(record[name][0]) for name in self._names))
        return header if self.plausible(header) else None

    def plausible(self, header: Header) -> bool:
        """Whether the words can be a header of this recording at all."""
        return (
            header.words == self.words
            and header.slot < _MAX_INDEX
            and header.index < _MAX_INDEX
            and header.length <= self.payload
            and header.battery <= 255
            and header.written < 1 << 28
            and header.dropped < 1 << 28
            and header.count < 1 << 29
            and header.frame < 1 << 29
        )

    def at(self, sector: int) -> Header | None:
        """The header at a sector, or None."""
        if sector not in self._seen:
            if len(self._seen) > 1 << 16:
                self._seen.clear()
            self._seen[sector] = self.parse(self.source.read(sector * self.sector_size, self.sector_size))
        return self._seen[sector]

    def find(
        self, start: int, stop: int, written: range, accept: Callable[[Header], bool] = lambda header: True
    ) -> tuple[int, Header] | None:
        """The first sector in [start, stop) whose header has a place in ``written`` and is accepted; one large read."""
        size = self.sector_size
        data = self.source.read(start * size, (stop - start) * size)
        count = max(len(data) - self.dtype.itemsize + size, 0) // size
        rows = np.ndarray(count, self.dtype, data, strides=size)
        places = rows["write_buffer_count"]
        for k in np.flatnonzero((rows["length"] == self.words) & (places >= written.start) & (places < written.stop)):
            header = self.parse(data[int(k) * size : int(k) * size + self.dtype.itemsize])
            if header is not None and accept(header):
                return start + int(k), header
        return None


def expected_headers(run: Run, i: np.ndarray[Any, np.dtype[np.int64]]) -> dict[str, np.ndarray[Any, Any]]:
    """What arithmetic expects of buffers ``i`` of a run: the layout's field name -> int64 values."""
    if run.single:
        frame, index = np.full(i.shape, run.first.frame, np.int64), np.full(i.shape, run.first.index, np.int64)
    else:
        frame, index = np.divmod(i + run.first.index, len(run.pattern))
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


class Walker:
    """Finds the runs of one recording from its first buffer on.

    Parameters
    ----------
    headers : HeaderReader
    pattern : Pattern or None
        How a frame is expected to be cut (from the config sector); learnt from the card where it does not fit.
    end_sector : int
        First sector behind the card.
    ring : int
        Buffers in the firmware's ring; 0 if unknown.
    exhaustive : bool
        Read every header instead of bisecting; finds the same runs.
    """

    def __init__(
        self, headers: HeaderReader, pattern: Pattern | None, end_sector: int, ring: int = 0, exhaustive: bool = False
    ) -> None:
        self.headers = headers
        self.pattern = pattern
        self.end_sector = end_sector
        self.ring = ring
        self.exhaustive = exhaustive
        self.over_holes = False  # look behind holes off the grid also where no limit is known
        self._header_bytes = 4 * headers.words
        self._size = headers.sector_size
        self._buffer_sectors = -(-(headers.payload + self._header_bytes) // self._size)

    def runs(self, sector: int, first: Header, limit: int | None) -> list[Run]:
        """All runs of the recording that starts at ``sector``; ``limit`` is its number of buffers if known."""
        if not self._predicts_second_frame(sector, first):
            learnt, expected = self._learn(sector, first), self.pattern
            if learnt is not None and (expected is None or not expected.begins_like(learnt)):
                self.pattern = learnt
        found: list[Run] = []
        at: tuple[int, Header] | None = (sector, first)
        while at is not None:
            run = self._run_from(*at, limit)
            found.append(run)
            at = None if limit is not None and run.end_place >= limit else self._next(found, limit)
        return found

    def _pattern(self, lengths: list[int]) -> Pattern:
        return Pattern(tuple(lengths), self._header_bytes, self._size)

    def _predicts_second_frame(self, sector: int, first: Header) -> bool:
        pattern = self.pattern
        if pattern is None or first.index or first.length != pattern.lengths[0]:
            return False
        run = Run(sector, 1 << 40, first, pattern)
        last, following = (self.headers.at(run.sector_of(i)) for i in (len(pattern) - 1, len(pattern)))
        return (
            run.matches(len(pattern) - 1, last)
            and run.matches(len(pattern), following)
            and last is not None
            and last.length == pattern.lengths[-1]
        )

    def _learn(self, sector: int, first: Header) -> Pattern | None:
        """How frames are cut: as two in a row that have the size of a known build, else as most are."""
        sizes = {b.width * b.height for b in self.headers.layout.builds if b.header_words == self.headers.words}
        frames: list[list[int]] = [[]]
        previous, header = first, first
        for _ in range(_LEARN):
            if header.frame != previous.frame:
                alike = len(frames) > 1 and frames[-1] and frames[-1] == frames[-2]
                if alike and (not sizes or sum(frames[-1]) in sizes):
                    return self._pattern(frames[-1])
                frames.append([])
            if header.index == len(frames[-1]):
                frames[-1].append(header.length)
            sector += -(-(header.length + self._header_bytes) // self._size)
            following = self.headers.at(sector)
            if following is None or following.written != header.written + 1:
                hit = self._behind_hole(sector, header)
                if hit is None:
                    break
                sector, following = hit
                frames.append([])
            previous, header = header, following
        seen = Counter(tuple(frame) for frame in frames[:-1] or frames if frame)
        best = max(seen, key=lambda cut: (seen[cut] > 1, sum(cut) in sizes, seen[cut], sum(cut)), default=())
        return self._pattern(list(best)) if best else None

    def _behind_hole(self, sector: int, header: Header) -> tuple[int, Header] | None:
        """The next buffer behind writes that failed."""
        return self.headers.find(
            sector, sector + self.lookahead * self._buffer_sectors,
            range(header.written + 1, header.written + self.lookahead + 1), lambda h: h.frame >= header.frame,
        )  # fmt: skip

    def _run_from(self, sector: int, header: Header, limit: int | None) -> Run:
        for pattern in self._patterns_for(header):
            run = Run(sector, 1, header, pattern)
            count = self._extent(run, self._most(run, limit), limit is not None)
            if count > 1:
                return replace(run, count=count)
        own = self._pattern([header.length])
        return Run(sector, 1, header, own, single=(own.frame_sectors, header.length))

    def _patterns_for(self, header: Header) -> list[Pattern]:
        patterns = []
        main = self.pattern
        if main is not None and header.index < len(main) and header.length == main.lengths[header.index]:
            patterns.append(main)
        if header.index == 0 and (main is None or main.lengths != (header.length,)):
            patterns.append(self._pattern([header.length]))  # a DAQ stopped by remote: one buffer a frame
        return patterns

    def _most(self, run: Run, limit: int | None) -> int:
        """Buffers a run can have at most: up to the count in the config sector, or to the end of the card."""
        if limit is not None:
            return max(limit - run.first.written, 1)
        room = max(self.end_sector - run.sector, 1) + run.pattern.starts[run.first.index]
        return max(-(-room // run.pattern.frame_sectors) * len(run.pattern) - run.first.index, 1)

    def _ok(self, run: Run, i: int) -> bool:
        return run.matches(i, self.headers.at(run.sector_of(i)))

    def _extent(self, run: Run, most: int, counted: bool) -> int:
        """Number of buffers for which the arithmetic holds, holes and laps inside included."""
        if self.exhaustive:
            return self._extent_by_scan(run, most)
        if counted and most > 1 and self._ok(run, most - 1):
            return most
        low, step = 0, 1
        while low + 1 < most:
            high = min(low + step, most)
            if high < most and self._ok(run, high):
                low, step = high, 2 * step
                continue
            low = self._first_break(run, low, high) - 1
            resumed = self._resumes(run, low, most)
            if resumed is None:
                break
            low, step = resumed, 1
        return low + 1 if counted else self._without_detour(run, low + 1)

    def _without_detour(self, run: Run, count: int) -> int:
        """Cut an extent that leaps over drops into an older recording with the same counters.

        Without a count, a far probe that matches may be of a recording underneath. Short extents are read whole,
        long ones at even distances.
        """
        if count <= _READ_WHOLE * len(run.pattern):
            return self._extent_by_scan(run, count)
        marks = np.linspace(0, count - 1, _MARKS, dtype=np.int64).tolist()
        good = 0
        for mark in marks:
            if not self._ok(run, mark) and self._resumes(run, mark - 1, count) is None:
                return self._without_detour(run, self._first_break(run, good, mark))
            good = mark
        return count

    def _first_break(self, run: Run, low: int, high: int) -> int:
        """Number of buffers up to a break between a buffer that matches and one that does not."""
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._ok(run, middle) else (low, middle)
        return low + 1

    def _extent_by_scan(self, run: Run, most: int) -> int:
        low = 0
        while low + 1 < most:
            i = np.arange(low + 1, min(low + 1 + (1 << 14), most))
            rows = self.rows(run.sectors_of(i))
            bad = np.flatnonzero(~vouched(rows, expected_headers(run, i), self.headers.words, self.headers.payload))
            if not len(bad):
                low = int(i[-1])
                continue
            low = int(i[bad[0]]) - 1
            resumed = self._resumes(run, low, most)
            if resumed is None:
                break
            low = resumed
        return low + 1

    def rows(self, sectors: np.ndarray[Any, np.dtype[np.int64]]) -> np.ndarray[Any, Any]:
        """Headers at these sectors as a structured array; zeros where the card ends."""
        return read_rows(self.headers.source, self.headers.dtype, sectors * self._size)

    @property
    def lookahead(self) -> int:
        """Buffers looked at behind a break before it counts as the end of a run."""
        return 2 * max(self.ring, 4) + (len(self.pattern) if self.pattern else 0)

    def _resumes(self, run: Run, low: int, most: int) -> int | None:
        """Where the arithmetic holds again after ``low``: behind failed writes, or a lap that falls on the grid."""
        for i in range(low + 1, min(low + 2 + self.lookahead, most)):
            header = self.headers.at(run.sector_of(i))
            if run.matches(i, header):
                return i
            if header is not None and header.written == run.first.written + i and header.dropped > run.first.dropped:
                return None  # a drop: the old arithmetic never comes back
        return None

    def _follows(self, last: Run, header: Header) -> bool:
        """Whether a header can be a later buffer of the same recording as ``last``."""
        excess = header.count - header.written - header.dropped
        return (
            header.dropped >= last.first.dropped
            and excess >= 0
            and (not self.ring or excess % self.ring == 0)
            and header.frame >= last.last_frame - 4 - self.ring
        )

    def _next(self, found: list[Run], limit: int | None) -> tuple[int, Header] | None:
        """Where the recording goes on behind the last run; corrects the size of its last buffer if needed."""
        last = found[-1]
        place, expected = last.end_place, last.end_sector

        def follows(header: Header) -> bool:
            return self._follows(last, header)

        header = self.headers.at(expected)
        if header is not None and header.written == place and follows(header):
            return expected, header
        if header is not None and header.written == header.dropped == 0:
            return None  # another recording begins here
        # A lapped buffer takes the sectors of the one it replaced: look at every sector it can end on.
        sector = last.sector_of(last.count - 1)
        hit = self.headers.find(sector + 1, sector + 1 + self._buffer_sectors, range(place, place + 1), follows)
        if hit is not None:
            odd = Run(
                sector, 1, self.headers.at(sector) or last.first, last.pattern,
                single=(hit[0] - sector, last.length_of(last.count - 1)),
            )  # fmt: skip
            found[-1:] = [replace(last, count=last.count - 1), odd] if last.count > 1 else [odd]
            return hit
        if limit is None and not self.over_holes:
            return None
        # The counts in the config sector say there is more: buffers between were not written.
        later = range(place + 1, place + self.lookahead if limit is None else min(place + self.lookahead, limit))
        return self.headers.find(expected, expected + self.lookahead * self._buffer_sectors, later, follows)


def read_rows(
    source: ByteSource,
    dtype: np.dtype[Any],
    offsets: np.ndarray[Any, np.dtype[np.int64]],
) -> np.ndarray[Any, Any]:
    """Headers at many byte offsets as a structured array; zeros where the card ends."""
    parts = [
        _gathered(source, dtype.itemsize, offsets[at : at + _GATHER].tolist()) for at in range(0, len(offsets), _GATHER)
    ]
    return np.frombuffer(parts[0] if len(parts) == 1 else b"".join(parts), dtype)


def _gathered(source: ByteSource, size: int, offsets: list[int]) -> bytes | bytearray:
    """``size`` bytes from each offset: by the source's own way to do many small reads, or one by one."""
    gather = getattr(source, "gather", None)
    data: bytes | None = None if gather is None else gather(offsets, size)
    if data is not None:
        return data
    out = bytearray(len(offsets) * size)
    for k, offset in enumerate(offsets):
        piece = source.read(offset, size)
        out[k * size : k * size + len(piece)] = piece
    return out
