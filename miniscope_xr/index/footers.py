"""The footers of a v3 card by frame, each read once, wherever its frames stand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from miniscope_xr.index.ahead import Ahead
from miniscope_xr.index.front import Card
from miniscope_xr.index.locate import FOOTER
from miniscope_xr.layout import SECTOR, Build
from miniscope_xr.source.base import ByteSource


class Footers:
    """Footers by frame, each read once.

    Where bytes were left out of an image, or put in, the frames behind stand elsewhere: ``pieces`` are (first frame,
    byte at which frame 0 would begin).
    """

    def __init__(self, source: ByteSource, card: Card, build: Build) -> None:
        self.source = Ahead(source)
        self.start = (card.layout.sectors.data if card.start is None else card.start) * SECTOR
        self.frame_sectors = build.frame_sectors
        self.frame_bytes = build.frame_sectors * SECTOR
        self.lines = (build.width, build.height)
        self.dtype = card.framing.dtype
        self.cut = card.framing.cut((self.frame_bytes,))
        self.pieces = [(0, self.start)]
        self._seen: dict[int, tuple[int, int] | None] = {}

    @property
    def most(self) -> int:
        """Frames there can be, counted from 0, up to the end of the card."""
        return -(-max(self.source.size - self.pieces[-1][1], 0) // self.frame_bytes)

    def byte_of(self, k: int) -> int:
        """Where frame ``k`` begins."""
        if len(self.pieces) == 1:
            return self.start + k * self.frame_bytes
        start = next(start for first, start in reversed(self.pieces) if first <= k or not first)
        return start + k * self.frame_bytes

    def footer_of(self, k: int) -> int:
        """Byte at which the footer of frame ``k`` begins."""
        return self.byte_of(k) + self.frame_bytes - FOOTER

    def sector_of(self, k: int) -> int:
        """Sector in which frame ``k`` begins."""
        return self.byte_of(k) // SECTOR

    def last_sectors(self, n: int) -> Sequence[int]:
        """Sectors that end the first ``n`` frames."""
        if len(self.pieces) == 1:
            first, step = self.start // SECTOR, self.frame_sectors
            return range(first + step - 1, first + step - 1 + n * step, step)
        return [self.sector_of(k) + self.frame_sectors - 1 for k in range(n)]

    def at(self, k: int) -> tuple[int, int] | None:
        """(time in ms, line count) of frame ``k``, or None where its footer is not there."""
        if k not in self._seen:
            at = self.footer_of(k)
            self._seen[k] = self._parse(k, self.source.read(at, FOOTER) if at >= 0 else b"")
        return self._seen[k]

    def look_at(self, frames: range) -> None:
        """Read the footers of some frames all at once."""
        inside = self.source.size - FOOTER
        wanted = {k: at for k in frames if k not in self._seen and 0 <= (at := self.footer_of(k)) <= inside}
        unseen, places = list(wanted), list(wanted.values())
        if not unseen:
            return
        self.source.fetch([(at, FOOTER) for at in places])
        data = self.source.gather(places, FOOTER)
        if data is None:
            return  # one of them cannot be read: each as it is asked for
        rows = np.frombuffer(data, self.dtype)
        named = "line_count" in (self.dtype.names or ())
        lines = rows["line_count"] if named else np.full(len(rows), self.lines[1])
        good = (rows["frame_num"] == np.array(unseen, np.int64)) & np.isin(lines, self.lines)
        found = zip(unseen, good.tolist(), zip(rows["timestamp"].tolist(), lines.tolist(), strict=True), strict=True)
        self._seen.update((k, footer if there else None) for k, there, footer in found)

    def moved(self, k: int, sector: int) -> None:
        """From frame ``k`` on, which ends in a sector, frames stand elsewhere."""
        start = (sector + 1) * SECTOR - (k + 1) * self.frame_bytes
        if start != self.pieces[-1][1]:
            self.pieces.append((k, start))
            self._seen = {known: found for known, found in self._seen.items() if known < k}

    def _parse(self, k: int, data: bytes) -> tuple[int, int] | None:
        if len(data) < FOOTER:
            return None
        footer = np.frombuffer(data, self.dtype, 1)[0]
        lines = int(footer["line_count"]) if "line_count" in (self.dtype.names or ()) else self.lines[1]
        if int(footer["frame_num"]) != k or lines not in self.lines:
            return None
        return int(footer["timestamp"]), lines
