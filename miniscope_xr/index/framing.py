"""How the buffers of a card are framed: a header in front of the data, or (v3) a footer over its last bytes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from miniscope_xr.index.runs import Cut, Run, expected_headers
from miniscope_xr.layout import SECTOR, Build, Field, Layout
from miniscope_xr.layout.words import buffer_header_dtype, dtype_of, footer_struct


class Stamps(NamedTuple):
    """Times of some buffers, in ticks, by their headers: NaN where none is known."""

    came: NDArray[np.float64]
    """When each was complete."""
    written: NDArray[np.float64]
    """When its write began."""


@dataclass(frozen=True)
class Framing:
    """Where a buffer's header stands, what it is like, and what the firmware's ring does to it.

    A v4 buffer is ``header, data, leftovers up to the end of the sector``; a v3 frame is one buffer, all data, and its
    footer lies over the last 16 bytes of them.
    """

    layout: Layout
    """As the build that wrote the card has it, where the build is known (:meth:`Layout.of`)."""
    words: int
    """Length of the headers in words; 0 for footers."""
    payload: int
    """Data bytes of a full buffer; 0 for footers (every frame is one buffer)."""

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Numpy dtype of one header (or footer)."""
        if self.layout.footer:
            return dtype_of(footer_struct(self.layout))
        return buffer_header_dtype(self.layout, self.words)

    @cached_property
    def head(self) -> int:
        """Bytes in front of a buffer's data."""
        return 4 * self.words

    @property
    def marker(self) -> int:
        """What the first word of a header holds."""
        return self.layout.build.marker if self.layout.build else self.words

    @cached_property
    def ring(self) -> int:
        """Buffers in the firmware's ring; 0 if unknown, or where there is none."""
        return self.layout.build.ring if self.layout.build and self.layout.buffer else 0

    @property
    def repeats(self) -> int:
        """Buffers after which the leftovers behind a short buffer repeat; 0 where they tell nothing."""
        build = self.layout.build
        return 0 if build and build.leftovers == "frame" else self.ring

    @property
    def drop_step(self) -> int:
        """Multiple at which counters resume behind a drop; 0 if unknown."""
        return (self.layout.build.drop_step or 0) if self.layout.build else 0

    @cached_property
    def full_sectors(self) -> int:
        """Sectors of a full buffer."""
        return -(-(self.payload + self.head) // SECTOR)

    @cached_property
    def step(self) -> int:
        """Sectors that every buffer takes, however short; 0: as many as it needs."""
        build = self.layout.build
        return self.full_sectors if build and build.whole_buffers else 0

    @cached_property
    def build(self) -> Build | type[Build]:
        """The build that wrote the card; what most builds are like where it is not known."""
        return self.layout.build or Build

    @cached_property
    def battery_noise(self) -> int:
        """By how much the battery's number may rise from one buffer to the next."""
        item = self.layout.buffer.get("battery_voltage")
        return Field.noise if item is None else item.noise

    def cut(self, lengths: tuple[int, ...]) -> Cut:
        """How a frame is cut into buffers of so many data bytes."""
        return _cut(lengths, self.head, self.step)

    def sectors_for(self, length: int) -> int:
        """Sectors a buffer of ``length`` data bytes needs."""
        return self.step or -(-(length + self.head) // SECTOR)

    def places(self, run: Run, i: NDArray[np.int64]) -> NDArray[np.int64]:
        """Bytes on the card at which the headers of buffers ``i`` of a run begin."""
        return run.sectors_of(i) * SECTOR if self.words else self.ends(run, i) - self.dtype.itemsize

    def ends(self, run: Run, i: NDArray[np.int64]) -> NDArray[np.int64]:
        """Bytes on the card behind the data of buffers ``i`` (frames, buffers of one) of a run."""
        ends: NDArray[np.int64] = run.sectors_of(i) * SECTOR + self.head + run.cut.arrays[0]
        return ends

    def vouch(self, rows: NDArray[Any], expected: dict[str, NDArray[np.int64]]) -> NDArray[np.bool_]:
        """Which headers have the counters arithmetic expects, and no more data than a buffer holds."""
        good: NDArray[np.bool_] = np.ones(rows.shape, bool)
        if self.words:
            good = (rows["length"] == self.marker) & (rows["data_length"] <= self.payload)
        names = rows.dtype.names or ()
        for name, values in expected.items():
            if name in names:
                good &= rows[name] == values
        return good

    def vouched(self, rows: NDArray[Any], run: Run, i: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which headers vouch for buffers ``i`` of a run."""
        return self.vouch(rows, expected_headers(run, i))

    def header_in(self, data: bytes, length: int) -> NDArray[Any] | None:
        """The header of a buffer whose bytes these are (one row); None where they end before it."""
        at = 0 if self.words else length - self.dtype.itemsize
        return np.frombuffer(data, self.dtype, 1, at) if 0 <= at <= len(data) - self.dtype.itemsize else None

    def length_in(self, header: NDArray[Any], usual: int) -> int:
        """Data bytes of a buffer as its own header says; a footer does not say."""
        return int(header["data_length"][0]) if self.words else usual

    def stamps(self, rows: NDArray[Any], run: Run, i: NDArray[np.int64]) -> Stamps:
        """Times of buffers ``i`` of a run; NaN where a header does not vouch for one of the usual length."""
        good = self.vouched(rows, run, i)
        good &= ~self.odd_length(rows, run, i)
        came = np.where(good, rows["timestamp"].astype(np.float64), np.nan)
        if "write_timestamp" not in (rows.dtype.names or ()):
            return Stamps(came, np.full(came.shape, np.nan))
        return Stamps(came, np.where(good, rows["write_timestamp"].astype(np.float64), np.nan))

    def odd_length(self, rows: NDArray[Any], run: Run, i: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of buffers ``i`` of a run have another length than usual."""
        if not self.words:
            return np.zeros(rows.shape, bool)
        skipped = run.first.index - run.cut.first
        odd: NDArray[np.bool_] = rows["data_length"] != run.cut.arrays[0][(i + skipped) % len(run.cut)]
        return odd

    def odd_lengths(self, table: NDArray[Any], run: Run) -> NDArray[np.bool_]:
        """Which frames (rows of headers) have a buffer of another length than usual."""
        if not self.words:
            return np.zeros(len(table), bool)
        odd: NDArray[np.bool_] = (table["data_length"] != run.cut.arrays[0]).any(axis=1)
        return odd


@lru_cache(maxsize=64)
def framing_of(layout: Layout, words: int, payload: int) -> Framing:
    """How such buffers are framed: the next card of the same firmware finds all of it worked out."""
    return Framing(layout, words, payload)


@lru_cache(maxsize=256)
def _cut(lengths: tuple[int, ...], head: int, step: int) -> Cut:
    return Cut(lengths, head, step)
