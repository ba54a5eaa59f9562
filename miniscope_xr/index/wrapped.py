"""Where a counterfeit card's addresses wrap, so that its last buffers lie over its front, and once more behind.

sector    0            C                2 C      C: as many sectors as the card has
buffers   p ... end, q ... p ... end, q ...      p: the first one found; q to p - 1 are whole as well
"""

from __future__ import annotations

from dataclasses import replace

from miniscope_xr.index.framing import Framing
from miniscope_xr.index.headers import HeaderReader, bisected
from miniscope_xr.index.locate import Located, footers_in
from miniscope_xr.index.walker import Walker
from miniscope_xr.layout import SECTOR
from miniscope_xr.layout.words import dtype_of, footer_struct
from miniscope_xr.source.base import ByteSource

_BEHIND = 4  # buffers behind what wrapped to the front in which the next whole one is looked for: one was cut by it


def before_the_wrap(source: ByteSource, found: Located) -> Located:
    """The buffer from which on most of a recording follows, where those found first are what wrapped to the front."""
    first, build = found.header, found.build
    if first is None:
        return _frames_in_place(source, found)
    if not first.written or found.sector >= found.layout.sectors.data:
        return found
    headers = HeaderReader(source, Framing(found.layout.of(build), build.header_words, build.payload))
    walker = Walker(headers, None, -(-source.size // SECTOR), False)
    wrapped = walker.runs(found.sector, first, None)[-1]
    end = wrapped.end_sector
    stop = end + _BEHIND * build.buffer_sectors
    hit = headers.find(end, stop, range(first.written), lambda h: h.frame <= first.frame and h.length > 0)
    if hit is None:
        return found
    whole = walker.runs(*hit, None)
    again = next((run for run in whole if first.written in range(run.first.written, run.end_place)), None)
    if again is None or whole[-1].end_place < wrapped.end_place:
        return found
    wraps = again.sector_of(first.written - again.first.written) - found.sector
    return replace(found, sector=hit[0], header=hit[1], wraps=wraps)


def _frames_in_place(source: ByteSource, found: Located) -> Located:
    """The same of whole frames: those that stand where their numbers say; over part of the first one others lie."""
    data, size = found.layout.sectors.data, found.build.frame_sectors
    dtype, lines = dtype_of(footer_struct(found.layout)), (found.build.width, found.build.height)

    def in_place(frame: int) -> bool:
        end = data + (frame + 1) * size
        there = footers_in(source.read((end - 1) * SECTOR, SECTOR), dtype, lines, end - 1)
        return any(number == frame for _, number, _ in there)

    if found.sector >= data or not in_place(found.frame):
        return found
    return replace(found, sector=data, frame=bisected(-1, found.frame, in_place) + 1)
