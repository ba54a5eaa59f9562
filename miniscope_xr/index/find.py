"""Finding every buffer on a card by looking at every sector, many at a time.

When a user meets this: ``miniscope-xr rescue``, where nothing but the buffers themselves is to be trusted. A sector is
where a buffer begins if its first words are a header that some firmware can have written: the right first word, no more
data than a buffer holds, counters that agree with one another. Of whole frames (v3) it is the footer that is found, at
the end of the frame's last sector.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from miniscope_xr.index.runs import MAX_INDEX
from miniscope_xr.layout import SECTOR, Layout
from miniscope_xr.layout.arrays import Ints, Words

WORDS = SECTOR // 4
_FOOTER = 16  # bytes
_SMALL = 64  # words of the longest header
_TIME, _FRAMES = 1 << 28, 1 << 24  # ms and frames of three days: more is no footer


class FoundBuffers(NamedTuple):
    """Where buffers (or whole frames) begin, and how many sectors belong to each at most; in card order.

    ``told`` is the sector that tells of it: the first one with a header in front, with a footer the last.
    """

    first: Ints
    sectors: Ints
    told: Ints

    @property
    def end(self) -> Ints:
        """First sector behind each."""
        return self.first + self.sectors


NOTHING = FoundBuffers(*(np.zeros(0, np.int64) for _ in range(3)))


class _HeaderWords(NamedTuple):
    """What a header of one first word must be like, whatever the build."""

    marker: int
    sectors: int
    payload: int
    at_index: int
    at_captured: int
    at_written: int
    at_length: int


class _FooterWords(NamedTuple):
    """Where a footer has its words (-1: not at all), and how large a frame can be."""

    sectors: int
    flag: int
    lines: int
    time: int
    frame: int


class Finder:
    """Finds the buffers in stretches of sectors.

    Parameters
    ----------
    layouts
        The layouts whose buffers are looked for.

    Examples
    --------
    >>> from miniscope_xr.layout import builtin_layouts
    >>> find = Finder(list(builtin_layouts().values()))
    >>> find(np.zeros((8, 128), np.uint32)).first
    array([], dtype=int64)
    """

    def __init__(self, layouts: Sequence[Layout]) -> None:
        self._buffers: dict[tuple[int, ...], _HeaderWords] = {}
        self._footers: dict[tuple[int, ...], _FooterWords] = {}
        for layout in layouts:
            if layout.footer:
                self._add_footers(layout)
            else:
                self._add_buffers(layout)
        self._preambles = sorted({spec.marker for spec in self._buffers.values() if spec.marker > _SMALL})
        self.reach = max((f.sectors for f in self._footers.values()), default=0)
        """Sectors that a frame can begin before the sector that tells of it."""

    def _add_buffers(self, layout: Layout) -> None:
        words = [layout.buffer[n].word for n in ("frame_buffer_count", "buffer_count", "write_buffer_count")]
        length = layout.buffer["data_length"].word
        for build in layout.builds:
            key = (build.marker, *words, length)
            known = self._buffers.get(key)
            sectors = max(build.buffer_sectors, known.sectors if known else 0)
            payload = max(build.payload, known.payload if known else 0)
            self._buffers[key] = _HeaderWords(build.marker, sectors, payload, words[0], words[1], words[2], length)

    def _add_footers(self, layout: Layout) -> None:
        at = WORDS - _FOOTER // 4
        words = [
            at + layout.footer[name].word if name in layout.footer else -1
            for name in ("dma_complete", "line_count", "timestamp", "frame_num")
        ]
        for build in layout.builds:
            known = self._footers.get(tuple(words))
            largest = max(build.frame_sectors, known.sectors if known else 0)
            self._footers[tuple(words)] = _FooterWords(largest, words[0], words[1], words[2], words[3])

    def __call__(self, sectors: Words, at: int = 0) -> FoundBuffers:
        """Find what begins (whole frames: ends) in some sectors.

        Parameters
        ----------
        sectors : uint32, shape (n, 128)
            The sectors' words.
        at : int
            Number of the first of them on the card.
        """
        first, count, told = [], [], []
        start = sectors[:, 0].copy()  # the words of one column lie far apart: touched once
        near = np.flatnonzero(start - np.uint32(1) < _SMALL)  # a header's length; nearly no sector of anything else
        for marker in self._preambles:
            near = np.concatenate([near, np.flatnonzero(start == marker)])
        begins = start[near]
        for spec in self._buffers.values():
            k = near[begins == spec.marker]
            if len(k):
                words = sectors[k]
                length = words[:, spec.at_length]
                good = (length > 0) & (length <= spec.payload) & (words[:, spec.at_index] < MAX_INDEX)
                good &= words[:, spec.at_written] <= words[:, spec.at_captured]
                first.append(k[good])
                told.append(k[good])
                count.append(np.full(int(good.sum()), spec.sectors))
        for footer in self._footers.values():
            k = np.flatnonzero(sectors[:, footer.flag].copy() == 1) if footer.flag >= 0 else np.arange(len(sectors))
            words = sectors[k]
            good = (words[:, footer.time] < _TIME) & (words[:, footer.frame] < _FRAMES)
            if footer.lines >= 0:
                good &= (words[:, footer.lines] > 0) & (words[:, footer.lines] < 4096)
            else:
                good &= words[:, -_FOOTER // 4 :].any(axis=1)
            first.append(k[good] - footer.sectors + 1)
            told.append(k[good])
            count.append(np.full(int(good.sum()), footer.sectors))
        if not first:
            return NOTHING
        tells = np.concatenate(told).astype(np.int64)
        order = np.argsort(tells, kind="stable")
        firsts, counts = (np.concatenate(part).astype(np.int64)[order] for part in (first, count))
        return FoundBuffers(firsts + at, counts, tells[order] + at)
