"""Finding a recording by its buffers alone, where what lies before it is gone.

When a user meets this: the card was formatted after recording, or its image lacks the first megabytes. Every buffer
header says which buffer it is and how long; a few that follow one another are proof enough of the layout and build.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from miniscope_xr.index.framing import Framing
from miniscope_xr.index.headers import HeaderReader, gallop
from miniscope_xr.index.runs import Header
from miniscope_xr.layout import SECTOR, Build, Layout
from miniscope_xr.layout.tell import contradictions
from miniscope_xr.source.base import ByteSource

_WINDOW = 128  # sectors; the largest ring buffer of a known build takes 125
_CHAIN = 12  # buffers followed to tell the build
_PROOF = 3  # buffers in a row that are no accident
_FRAME, _PLACE, _LENGTH = 2, 5, 8  # words of a header that mean the same in every build


@dataclass(frozen=True)
class Located:
    """The first buffer of a recording found by its headers, and the build that its buffers show."""

    layout: Layout
    build: Build
    sector: int
    header: Header


def locate(source: ByteSource, layouts: Sequence[Layout]) -> Located | None:
    """The first recording whose buffers stand anywhere on the card; None where looks all over it find none."""
    builds = [
        (layout, build) for layout in sorted(layouts, key=lambda each: each.rank) if layout.buffer
        for build in layout.builds
    ]  # fmt: skip
    markers = np.array(sorted({build.marker for _, build in builds}), np.uint32)

    def look(at: int) -> Located | None:
        data = source.read(at * SECTOR, _WINDOW * SECTOR)
        words = np.frombuffer(data, "<u4", len(data) // SECTOR * SECTOR // 4).reshape(-1, SECTOR // 4)[:, 0]
        for k in np.flatnonzero(np.isin(words, markers)).tolist():
            for layout, build in builds:
                chain = _chain(source, build, at + k) if build.marker == words[k] else []
                if len(chain) >= _PROOF and _is_of(layout, build, chain):
                    reader = HeaderReader(source, Framing(layout.of(build), build.header_words, build.payload))
                    header = reader.parse(chain[0][1])
                    if header is not None:
                        return Located(layout, build, at + k, header)
        return None

    return gallop(look, 0, source.size // SECTOR, _WINDOW)


def _chain(source: ByteSource, build: Build, sector: int) -> list[tuple[int, bytes]]:
    """(sector, header) of buffers that follow one another on the card and count on, from a sector on."""
    found: list[tuple[int, bytes]] = []
    place = 0
    while len(found) < _CHAIN:
        data = source.read(sector * SECTOR, 4 * build.header_words)
        if len(data) < 4 * build.header_words:
            break
        words = np.frombuffer(data, "<u4")
        length = int(words[_LENGTH])
        if words[0] != build.marker or not 0 < length <= build.payload or (found and words[_PLACE] != place):
            break
        found.append((sector, data))
        place = int(words[_PLACE]) + 1
        sector += build.sectors_for(length)
    return found


def _is_of(layout: Layout, build: Build, chain: list[tuple[int, bytes]]) -> bool:
    """Whether nothing in these buffers contradicts a build, and their frames are as large as its frames."""
    words = np.frombuffer(b"".join(data for _, data in chain), "<u4").reshape(len(chain), -1)
    if contradictions(layout, build, words, np.array([sector for sector, _ in chain])):
        return False
    lengths, frames = words[:, _LENGTH].astype(np.int64), words[:, _FRAME]
    whole = [int(lengths[frames == frame].sum()) for frame in set(frames[1:-1].tolist()) - {frames[0], frames[-1]}]
    sizes = {width * height for width, height in ((build.width, build.height), *build.sizes)}
    return build.payload in lengths and (not whole or not sizes.isdisjoint(whole))
