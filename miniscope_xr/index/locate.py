"""Finding a recording by its buffers alone, where what lies before it is gone.

When a user meets this: the card was formatted after recording, or its image lacks the first megabytes. Every buffer
header says which buffer it is and how long; a few that follow one another are proof enough of the layout and build.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from miniscope_xr.index.framing import Framing
from miniscope_xr.index.headers import HeaderReader, gallop
from miniscope_xr.index.runs import Cut, Header, Run
from miniscope_xr.layout import SECTOR, Build, Layout
from miniscope_xr.layout.arrays import Array, Bools
from miniscope_xr.layout.tell import fits
from miniscope_xr.layout.words import dtype_of, footer_struct
from miniscope_xr.source.base import ByteSource

FOOTER = 16  # bytes of a whole frame's footer
_WINDOW = 1024  # sectors looked at in one read: a ring buffer takes 125 at most, a whole frame 705
_CHAIN = 12  # buffers followed to tell the build
_LAPPED = 64  # frames that a card is too slow for, at most
_BEFORE = 16  # buffers looked at before those found
_PROOF = 3  # buffers in a row that are no accident


@dataclass(frozen=True)
class Located:
    """The first buffer of a recording found by its headers, and the build that its buffers show."""

    layout: Layout
    build: Build
    sector: int
    """Where the buffer begins. Of whole frames: where frame 0 would begin."""
    header: Header | None
    """Of the buffer; None for whole frames."""
    frame: int = 0
    """Of whole frames: number of the first one found."""
    wraps: int = 0
    """Sectors after which what is in front stands once more, as on a counterfeit whose addresses wrap; 0: not known."""


def locate(source: ByteSource, layouts: Sequence[Layout]) -> Located | None:
    """The first recording whose buffers or frames stand anywhere on the card; None where looks all over find none."""
    framed = [(layout, build) for layout in layouts if layout.footer for build in layout.builds]
    builds = [
        (layout, build) for layout in sorted(layouts, key=lambda each: each.rank) if layout.buffer
        for build in layout.builds
    ]  # fmt: skip

    def look(at: int) -> Located | None:
        data = source.read(at * SECTOR, _WINDOW * SECTOR)
        words = np.frombuffer(data, "<u4", len(data) // SECTOR * SECTOR // 4).reshape(-1, SECTOR // 4)
        leads = [_leads(layout, build, words) for layout, build in builds]
        for k in np.flatnonzero(np.logical_or.reduce(leads)).tolist() if leads else []:
            shown = _shown(source, [of for of, led in zip(builds, leads, strict=True) if led[k]], at + k)
            if shown is not None:
                return shown
        for layout, build in framed:
            found = _frame(source, layout, build, data, at)
            if found is not None:
                return found
        return None

    found = gallop(look, 0, source.size // SECTOR, _WINDOW, back=True)
    return found if found is None or found.header is None else _with_what_is_before(source, found, found.header)


def _leads(layout: Layout, build: Build, words: Array) -> Bools:
    """Which of some sectors, as words, can hold a header of a build that leads to the next one, where that is in them.

    Of random bytes hardly any does, and none of it is read again.
    """
    names = layout.of(build).buffer
    length, place = (words[:, names[name].word].astype(np.int64) for name in ("data_length", "write_buffer_count"))
    found: Bools = (words[:, 0] == build.marker) & (length > 0) & (length <= build.payload)
    for k in np.flatnonzero(found).tolist():
        behind = k + build.sectors_for(int(length[k]))
        found[k] = behind >= len(words) or (words[behind, 0] == build.marker and place[behind] == place[k] + 1)
    return found


def _shown(source: ByteSource, builds: Sequence[tuple[Layout, Build]], sector: int) -> Located | None:
    """The first of some builds whose buffers follow one another from a sector on; the last of them may be odd."""
    chains = []
    for layout, build in builds:
        chains.append((layout, build, _chain(source, layout, build, sector)))
        if (found := _located(source, *chains[-1])) is not None:
            return found
    without_last = ((layout, build, chain[:-1]) for layout, build, chain in chains)
    return next((found for each in without_last if (found := _located(source, *each)) is not None), None)


def _located(source: ByteSource, layout: Layout, build: Build, chain: list[tuple[int, bytes]]) -> Located | None:
    """The first buffer of a chain that is long enough, and contradicts its build in nothing."""
    if len(chain) < _PROOF or not _is_of(layout, build, chain):
        return None
    reader = HeaderReader(source, Framing(layout.of(build), build.header_words, build.payload))
    header = reader.parse(chain[0][1])
    return None if header is None else Located(layout, build, chain[0][0], header)


def _with_what_is_before(source: ByteSource, found: Located, header: Header) -> Located:
    """The same from the first buffer on that leads to those found: writes between them failed, or a bit flipped.

    place      0  1  2  3  4  5  6  7  8      3 and 4 are no proof by themselves; but by its length and index
    buffer     .  .  .  x  x  .  x  x  x      buffer 3 leads to buffer 6, just where that is
    """
    build, framing = found.build, Framing(found.layout.of(found.build), found.build.header_words, found.build.payload)
    reader = HeaderReader(source, framing)
    reach = min(header.written, _BEFORE) * build.buffer_sectors
    start = max(found.sector - reach, 0)
    sizes = dict.fromkeys(((build.width, build.height), *build.sizes))
    cuts = [framing.cut(build.lengths(*size)) for size in sizes]
    data = source.read(start * SECTOR, (found.sector - start) * SECTOR)
    for k in range(len(data) // SECTOR):
        earlier = reader.parse(data[k * SECTOR : (k + 1) * SECTOR])
        if earlier is None:
            continue
        leads = any(_leads_to(earlier, start + k, header, found.sector, cut) for cut in cuts)
        if leads or _in_front_of(earlier, start + k, header, found.sector, cuts):
            return _with_what_is_before(source, replace(found, sector=start + k, header=earlier), earlier)
    return found


def _in_front_of(earlier: Header, at: int, header: Header, sector: int, cuts: Sequence[Cut]) -> bool:
    """Whether a buffer ends where one begins that was written next, be it behind a drop, or one of both lapped."""
    follows = header.written == earlier.written + 1 and earlier.dropped <= header.dropped
    later = earlier.write_time <= header.write_time and abs(header.frame - earlier.frame) < _LAPPED
    return follows and later and any(sector - at in cut.sectors for cut in cuts)


def _leads_to(earlier: Header, at: int, header: Header, sector: int, cut: Cut) -> bool:
    """Whether a buffer and a later one are as the arithmetic of one run has it."""
    later = header.written - earlier.written
    if later <= 0 or earlier.index >= len(cut) or earlier.length != cut.lengths[earlier.index]:
        return False
    run = Run(at, later + 1, earlier, cut)
    return run.sector_of(later) == sector and run.matches(later, header) and earlier.time <= header.time


def footers_in(
    data: bytes, dtype: np.dtype[Any], lines: Sequence[int], at: int
) -> list[tuple[int, int, int]]:  # fmt: skip
    """(sector, frame, time) of what can be footers at the ends of sectors, the first of which has number ``at``."""
    sectors = np.frombuffer(data, np.uint8, len(data) // SECTOR * SECTOR).reshape(-1, SECTOR)
    rows = np.ascontiguousarray(sectors[:, -FOOTER:]).view(dtype)[:, 0]
    names = dtype.names or ()
    good = (rows["frame_num"] < 1 << 24) & (rows["timestamp"] < 1 << 28) & (rows["timestamp"] > 0)
    if "line_count" in names:
        good &= np.isin(rows["line_count"], list(lines))
    if "dma_complete" in names:
        good &= rows["dma_complete"] == 1
    return [(at + k, int(rows["frame_num"][k]), int(rows["timestamp"][k])) for k in np.flatnonzero(good).tolist()]


def _frame(source: ByteSource, layout: Layout, build: Build, data: bytes, at: int) -> Located | None:
    """The first frame of a build that ends within some sectors, if two more that count on follow it.

    One that ends where its number says is proof by itself.
    """
    dtype, lines = dtype_of(footer_struct(layout)), (build.width, build.height)
    for sector, frame, time in footers_in(data, dtype, lines, at):
        before = time
        in_place = sector + 1 == layout.sectors.data + (frame + 1) * build.frame_sectors
        for later in range(1, 1 if in_place else _PROOF):
            end = sector + 1 + later * build.frame_sectors
            following = source.read((end - 1) * SECTOR, SECTOR)
            after = footers_in(following, dtype, lines, 0)
            if not after or after[0][1] != frame + later or after[0][2] < before:
                break
            before = after[0][2]
        else:
            return Located(layout, build, sector + 1 - (frame + 1) * build.frame_sectors, None, frame)
    return None


def _chain(source: ByteSource, layout: Layout, build: Build, sector: int) -> list[tuple[int, bytes]]:
    """(sector, header) of buffers that follow one another on the card and count on, from a sector on."""
    found: list[tuple[int, bytes]] = []
    names, place = layout.of(build).buffer, 0
    at_length, at_place = names["data_length"].word, names["write_buffer_count"].word
    while len(found) < _CHAIN:
        data = source.read(sector * SECTOR, 4 * build.header_words)
        if len(data) < 4 * build.header_words:
            break
        words = np.frombuffer(data, "<u4")
        length = int(words[at_length])
        if words[0] != build.marker or not 0 < length <= build.payload or (found and words[at_place] != place):
            break
        found.append((sector, data))
        place = int(words[at_place]) + 1
        sector += build.sectors_for(length)
    return found


def _is_of(layout: Layout, build: Build, chain: list[tuple[int, bytes]]) -> bool:
    """Whether nothing in these buffers contradicts a build, and their frames are as large as its frames."""
    words = np.frombuffer(b"".join(data for _, data in chain), "<u4").reshape(len(chain), -1)
    if not fits(layout, build, words, np.array([sector for sector, _ in chain])):
        return False
    names = layout.of(build).buffer
    lengths, frames = words[:, names["data_length"].word].astype(np.int64), words[:, names["frame_num"].word]
    begins = words[0, names["frame_buffer_count"].word] == 0
    partial = {frames[-1]} if begins else {frames[0], frames[-1]}
    whole = [int(lengths[frames == frame].sum()) for frame in set(frames.tolist()) - partial]
    sizes = {
        width * height - build.payload * max(len(build.lengths(width, height)) - most, 0)
        for width, height in ((build.width, build.height), *build.sizes)
        for most in [build.buffers_a_frame or len(build.lengths(width, height))]
    }
    return build.payload in lengths and (not whole or not sizes.isdisjoint(whole))
