"""Images that open: a front for the buffers that were found, with which most of them belong to a recording."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

import numpy as np

from miniscope_xr.card import OpenCard
from miniscope_xr.errors import MiniscopeError, NotACardError
from miniscope_xr.index.find import FoundBuffers
from miniscope_xr.index.tables import Stretches
from miniscope_xr.layout import SECTOR, Layout
from miniscope_xr.layout.words import put
from miniscope_xr.source.base import ByteSource
from miniscope_xr.source.replace import remove, replace
from miniscope_xr.tools.copy.gather import covered, stretches
from miniscope_xr.tools.copy.part import STEP, open_part, refuse_outputs
from miniscope_xr.tools.stream.outputs import output_errors, refuse_too_large

_FRONT = range(1022, 1026)


Claimed = list[tuple[int, int]]
"""(first sector, sectors) of buffers."""


def newest(
    source: ByteSource, file: BinaryIO, part: Path, layouts: Sequence[Layout], found: FoundBuffers, foreign: Stretches
) -> tuple[Claimed, Claimed]:
    """Finish the image; returns the buffers that a reader counts to its recordings, and those taken out of it.

    Taken out are buffers that a file system has written into (``foreign``): their headers are whole, their pixels not.
    """
    behind = int(found.sectors.max())  # room for one more: what is all there shall not look cut off
    file.truncate(min((int(found.end.max()) + behind) * SECTOR, source.size))
    taken = set(found.told.tolist())
    kept = {sector: source.salvage(sector * SECTOR, SECTOR)[0] for sector in _FRONT if sector not in taken}
    claimed = _open_best(file, part, [kept, dict.fromkeys(kept, bytes(SECTOR)), *_fresh(layouts, kept)])
    if claimed is None:
        raise NotACardError(
            f"{part}: {len(found.first)} sectors look like the beginning of a buffer, but no known firmware wrote them "
            "in any order; give --layout with a layout of your firmware"
        )
    torn = _take_out(file, claimed, foreign, found)
    os.fsync(file.fileno())
    return (_claimed(part) if torn else claimed), torn


def _take_out(file: BinaryIO, claimed: Claimed, foreign: Stretches, found: FoundBuffers) -> Claimed:
    """Make the buffers zero that were found and hold somebody else's bytes; returns these."""
    told = set(found.told.tolist()) if foreign else set()
    torn = [
        (at, n) for at, n in claimed
        if any(first < at + n and stop > at for first, stop in foreign) and not told.isdisjoint(range(at, at + n))
    ]  # fmt: skip
    for at, n in torn:
        file.seek(at * SECTOR)
        file.write(bytes(n * SECTOR))
    return torn


def _fresh(layouts: Iterable[Layout], kept: dict[int, bytes]) -> Iterator[dict[int, bytes]]:
    """Fronts as a firmware writes them at power-on, without counts: where neither the old one nor none opens."""
    for layout in layouts:
        if layout.sectors.config not in kept or not layout.config:
            continue
        for build in layout.builds:
            width, height = build.config_frame or (build.width, build.height)
            config = bytearray(SECTOR)
            values = {"width": width, "height": height, "buffer_size": build.buffer_sectors * SECTOR}
            put(config, layout.config, values)
            yield {**dict.fromkeys(kept, bytes(SECTOR)), layout.sectors.config: bytes(config)}


def _open_best(file: BinaryIO, part: Path, fronts: Iterable[dict[int, bytes]]) -> Claimed | None:
    """Give the image the front with which most of its buffers belong to a recording; returns their sectors."""
    best: tuple[int, dict[int, bytes], Claimed] | None = None
    for number, front in enumerate(fronts):
        if number > 1 and best:
            break  # made up only where nothing else opens
        _put(file, front)
        claimed = _claimed(part)
        if claimed and (best is None or len(claimed) > best[0]):
            best = len(claimed), front, claimed
    if best is None:
        return None
    _put(file, best[1])
    return best[2]


def _put(file: BinaryIO, front: dict[int, bytes]) -> None:
    for sector, data in front.items():
        file.seek(sector * SECTOR)
        file.write(data)


def _claimed(path: Path) -> Claimed:
    """(first sector, sectors) of each buffer that a reader counts to a recording of this image; none if none opens."""
    try:
        card = OpenCard(path, errors="fill")
    except MiniscopeError:
        return []
    with closing(card):
        found: Claimed = []
        for recording in card.index.recordings:
            for run in recording.runs:
                i = np.arange(run.count)
                found += zip(run.sectors_of(i).tolist(), map(run.sector_count, range(run.count)), strict=True)
        return found


def unclaimed(found: FoundBuffers, claimed: Claimed) -> FoundBuffers:
    """Leave out what is told of in the sectors of a recording."""
    if not claimed:
        return found
    buffers = np.array(sorted(claimed), np.int64)
    k = np.searchsorted(buffers[:, 0], found.told, side="right") - 1
    left = (k < 0) | (found.told >= buffers[np.maximum(k, 0)].sum(axis=1))
    return FoundBuffers(*(part[left] for part in found))


def older(
    file: BinaryIO,
    older: Path,
    layouts: Sequence[Layout],
    rest: FoundBuffers,
    claimed: Claimed,
    foreign: Stretches,
    force: bool,
) -> Claimed:
    """Make the image of the newest of the recordings that are left; returns its buffers, none where nothing opens."""
    part, *_ = refuse_outputs(None, older, force)
    begin, end = int(rest.first.min()), int(rest.end.max())
    keep = covered(rest, 0, end)
    for first, count in claimed:
        keep[first : first + count] = False
    refuse_too_large(older, int(keep.sum()) * SECTOR)
    try:
        with output_errors(older), open_part(part, anew=True) as made:
            for a, b in stretches(keep):
                for at in range(a * SECTOR, b * SECTOR, STEP):
                    file.seek(at)
                    made.seek(at)
                    made.write(file.read(min(STEP, b * SECTOR - at)))
            made.truncate(end * SECTOR)
            blank = {sector: bytes(SECTOR) for sector in _FRONT if sector < begin}
            found = _open_best(made, part, [blank, *_fresh(layouts, blank)])
            if found:
                _take_out(made, found, foreign, rest)
        if found:
            replace(part, older)
    finally:
        remove(part)  # where it did not become the image
    return found or []
