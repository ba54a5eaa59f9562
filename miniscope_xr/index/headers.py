"""Reading buffer headers from a card: one by one, searched for, or many at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from miniscope_xr.index.ahead import Ahead
from miniscope_xr.index.framing import Framing
from miniscope_xr.index.runs import MAX_INDEX, Cut, Header, Run, expected_headers
from miniscope_xr.layout import SECTOR
from miniscope_xr.layout.words import header_words
from miniscope_xr.source.base import ByteSource

Hit = TypeVar("Hit")
_FRAMES, _BYTES = 4096, 512 << 20  # of a run whose headers are all read when the card is opened
_GATHER = 1 << 16  # headers fetched at once: a small object each until they are joined
# Header field -> the layout's name for it; those that a layout need not have are -1 where it has not.
_NAMES = (
    "length", "linked_list", "frame_num", "buffer_count", "frame_buffer_count", "write_buffer_count",
    "dropped_buffer_count", "timestamp", "data_length", "write_timestamp", "battery_voltage", "ewl",
)  # fmt: skip

HOLE_WINDOW = 1 << 13  # sectors looked at at once behind a hole: up to 32 MB from its start nothing is leapt over


class HeaderReader:
    """Buffer headers by sector, each read once.

    Parameters
    ----------
    source : ByteSource
    framing : Framing
    """

    def __init__(self, source: ByteSource, framing: Framing) -> None:
        self.source = Ahead(source)
        self.framing = framing
        self.dtype = framing.dtype
        self.marker = framing.marker
        self._seen: dict[int, Header | None] = {}
        self._damaged: dict[int, bytes] = {}  # what is there instead of a header, unless zeros
        self._ahead: dict[tuple[int, Cut], int] = {}  # buffers of a run read ahead
        self._words = header_words(framing.layout, framing.words)
        self._pick = _picked(self._words.names)
        self._told_drops = "dropped_buffer_count" in self._words.names
        self._pool = framing.build.pool  # there a place is used up by each buffer that finds none

    def parse(self, data: bytes | memoryview) -> Header | None:
        """The header at the start of ``data``, or None where no firmware header can be."""
        if len(data) < self.dtype.itemsize or int.from_bytes(data[:4], "little") != self.marker:
            return None
        values = self._words.take(data)
        if not self._words.plausible(values):
            return None
        header = Header(*self._pick([*values, -1]))
        if not self._told_drops:
            header = header._replace(dropped=0 if self._pool else max(header.count - header.written, 0))
        return header if self.plausible(header) else None

    def flipped(self, run: Run, i: int) -> bool:
        """Whether the header of buffer ``i`` of a run would match but for one bit, also one of what is not counted."""
        sector = run.sector_of(i)
        header = self.at(sector)
        data = b"" if header is not None else self._damaged.get(sector, b"")
        if header is None and (
            len(data) < self.dtype.itemsize or (int.from_bytes(data[:4], "little") ^ self.marker).bit_count() > 1
        ):
            return False  # nothing like one stands there: so it is behind most recordings
        expected = {name: int(values[0]) for name, values in expected_headers(run, np.array([i])).items()}
        expected |= {"length": self.marker, "data_length": run.length_of(i)}
        if header is not None:
            found = dict(zip(_NAMES, header, strict=True))
        else:
            row = np.frombuffer(data, self.dtype)[0]
            expected = {name: value for name, value in expected.items() if name in self._words.names}
            found = {name: int(row[name]) for name in expected}
        bits = sum((found[name] ^ value).bit_count() for name, value in expected.items())
        return bits == 1 or (bits == 0 and header is None)

    def counts(self, run: Run, i: int) -> bool:
        """Whether the counters of buffer ``i`` of a run are those expected, in a header that is none for another word.

        A bit of the battery or the focus has flipped: the buffer is as whole as its counters say.
        """
        sector = run.sector_of(i)
        data = self._damaged.get(sector, b"") if self.at(sector) is None else b""
        if len(data) < self.dtype.itemsize:
            return False
        return bool(self.framing.vouched(np.frombuffer(data, self.dtype), run, np.array([i]))[0])

    def plausible(self, header: Header) -> bool:
        """Whether the words can be a header of this recording at all."""
        return (
            header.slot < MAX_INDEX
            and header.index < MAX_INDEX
            and header.length <= self.framing.payload
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
                self._damaged.clear()
            data = self.source.read(sector * SECTOR, SECTOR)
            self._seen[sector] = self.parse(data)
            if self._seen[sector] is None and any(data[: self.dtype.itemsize]):
                self._damaged[sector] = bytes(data[: self.dtype.itemsize])
        return self._seen[sector]

    def whole(self, run: Run, count: int) -> bool:
        """Whether so many buffers of a run are few enough to look at every one of them when the card is opened."""
        few = count <= _FRAMES * len(run.cut)
        return few and (run.sector_of(count - 1) - run.sector) * SECTOR <= _BYTES

    def fetch(self, run: Run, buffers: range) -> None:
        """Read the headers of some buffers of a run ahead, and the leftovers that tell whether they belong together."""
        if buffers.stop <= self._ahead.get((run.sector, run.cut), 0):
            return
        if not buffers.start:
            self._ahead[run.sector, run.cut] = buffers.stop
        i = np.arange(buffers.start, buffers.stop)
        places = [np.stack([run.sectors_of(i) * SECTOR, np.full(len(i), SECTOR)], axis=1)]
        ring, first = self.framing.repeats, run.first.index - run.cut.first
        data_end, end = self.framing.head + run.cut.arrays[0], np.array(run.cut.sectors) * SECTOR
        kind = (first + i) % len(run.cut)
        short = i[(data_end < end)[kind] & (i >= ring)] if ring else i[:0]
        kind, before = (first + short) % len(run.cut), short - ring
        while (over := (before >= 0) & (data_end[(first + before) % len(run.cut)] < end[kind])).any():
            before[over] -= ring  # too short itself: what it left there is of the one before
        there = before >= 0
        tail = kind[there]
        for k in (short[there], before[there]):
            places.append(np.stack([run.sectors_of(k) * SECTOR + data_end[tail], (end - data_end)[tail]], axis=1))
        self.source.fetch(np.concatenate(places))

    def find(
        self, start: int, stop: int, written: range, accept: Callable[[Header], bool] = lambda header: True
    ) -> tuple[int, Header] | None:
        """The first sector in [start, stop) whose header has a place in ``written`` and is accepted; one large read."""
        return next((hit for hit in self._in(start, stop, written) if accept(hit[1])), None)

    def beyond(
        self, start: int, stop: int, window: int, written: range, accept: Callable[[int, Header], bool]
    ) -> tuple[int, Header] | None:
        """The first accepted header behind a hole that begins at ``start``, its place in ``written``: :func:`gallop`.

        Every ``window`` sectors of a recording hold a header.
        """
        window = max(window, HOLE_WINDOW)

        def look(at: int) -> tuple[int, Header] | None:
            for sector, header in self._in(at, min(at + window, stop), written):
                if accept(sector, header):
                    return sector, header
            return None

        return gallop(look, start, stop, window)

    def _in(self, start: int, stop: int, written: range) -> Iterator[tuple[int, Header]]:
        """Headers in [start, stop) whose place is in ``written``, and their sectors; one large read."""
        data = self.source.read(start * SECTOR, (stop - start) * SECTOR)
        count = max(len(data) - self.dtype.itemsize + SECTOR, 0) // SECTOR
        rows = np.ndarray(count, self.dtype, data, strides=SECTOR) if count else np.zeros(0, self.dtype)
        places = rows["write_buffer_count"]
        there = (rows["length"] == self.marker) & (places >= written.start) & (places < written.stop)
        for k in np.flatnonzero(there).tolist():
            header = self.parse(data[k * SECTOR : k * SECTOR + self.dtype.itemsize])
            if header is not None:
                yield start + k, header


@lru_cache(maxsize=256)
def _picked(names: tuple[str, ...]) -> Callable[[Sequence[int]], tuple[int, ...]]:
    """What takes the values of a :class:`Header` out of those of fields with these names and a -1 behind them."""
    return itemgetter(*(names.index(name) if name in names else -1 for name in _NAMES))


def read_rows(
    source: ByteSource,
    dtype: np.dtype[Any],
    offsets: NDArray[np.int64],
) -> NDArray[Any]:
    """Headers at many byte offsets as a structured array; zeros where the card ends."""
    parts = [
        _gathered(source, dtype.itemsize, offsets[at : at + _GATHER].tolist()) for at in range(0, len(offsets), _GATHER)
    ]
    return np.frombuffer(parts[0] if len(parts) == 1 else b"".join(parts), dtype)


def _gathered(source: ByteSource, size: int, offsets: list[int]) -> bytes | bytearray:
    """``size`` bytes from each offset: by the source's own way to do many small reads, or one by one."""
    data = source.gather(offsets, size)
    if data is not None:
        return data
    out = bytearray(len(offsets) * size)
    for k, offset in enumerate(offsets):
        piece = source.read(offset, size)
        out[k * size : k * size + len(piece)] = piece
    return out


def bisected(low: int, high: int, there: Callable[[int], bool]) -> int:
    """The first number behind ``low`` from which on ``there`` holds; ``high`` where it holds for none before."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if there(middle) else (middle, high)
    return high


def gallop(look: Callable[[int], Hit | None], start: int, stop: int, window: int, back: bool = False) -> Hit | None:
    """The first of what ``look(sector)`` finds in windows behind ``start``: tens of looks, however far it is.

    Each step is a window or an eighth of the way so far, so that nothing longer than that is leapt over; then the
    first window is found by bisecting. ``back`` looks from the end backwards then, where nothing was found.
    """
    low, at, hit = start - window, start, None
    while at < stop and (hit := look(at)) is None:
        low, at = at, at + max(window, (at - start) // 8)
    if back and hit is None:
        low, at = start - window, stop - window
        while at > start and (hit := look(at)) is None:
            at -= max(window, (stop - at) // 8)
    while hit is not None and at - low > window:
        middle = (low + at) // 2
        found = look(middle)
        low, at, hit = (middle, at, hit) if found is None else (low, middle, found)
    return hit
