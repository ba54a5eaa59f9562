"""Reading buffer headers from a card: one by one, searched for, or many at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from miniscope_xr.index.runs import MAX_INDEX, Header
from miniscope_xr.layout import Layout
from miniscope_xr.layout.words import buffer_header_dtype
from miniscope_xr.source.base import ByteSource

_GATHER = 1 << 16  # headers fetched at once: a small object each until they are joined
# Header field -> the layout's name for it; the last three may be absent (-1 then).
_NAMES = (
    "length", "linked_list", "frame_num", "buffer_count", "frame_buffer_count", "write_buffer_count",
    "dropped_buffer_count", "timestamp", "data_length", "write_timestamp", "battery_voltage", "ewl",
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
            and header.slot < MAX_INDEX
            and header.index < MAX_INDEX
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
