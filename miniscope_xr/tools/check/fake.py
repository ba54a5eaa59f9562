"""Cards that say they are larger than they are, where a recording on them proves it.

When a user meets this: a 64 GB card that was cheap holds 8. What is written behind its true end lands on earlier data,
since addresses wrap (then one buffer is read at two places, a power of two apart), or is thrown away (then the counts
say that buffers were written, and what is read there is blank).
"""

from __future__ import annotations

import numpy as np

from miniscope_xr.card import OpenCard
from miniscope_xr.index.framing import Framing
from miniscope_xr.index.headers import read_rows
from miniscope_xr.index.recording import Recording
from miniscope_xr.layout import SECTOR
from miniscope_xr.layout.arrays import Ints
from miniscope_xr.source.base import ByteSource
from miniscope_xr.source.salvage import Tolerant
from miniscope_xr.tools.check.result import Problem

_SMALLEST = 1 << 11  # sectors: 1 MB
_LOOKS = 16  # buffers, or places, that are compared
_WHOLE = np.dtype((np.void, SECTOR))
_MATCHES = 3  # equal sectors that are no accident


def fakes(card: OpenCard) -> list[Problem]:
    """What the buffers of a card prove about its size."""
    source = Tolerant(card.source())
    wrapped = None
    for recording in card.index.recordings:
        wrapped = wrapped or _wraps(source, recording, card.index.framing)
    if wrapped is not None:
        return [_wrapped(*wrapped)]
    last = card.index.recordings[-1]
    counted, missing = _counted(card, last)
    blank = _blank_from(source, last, missing)
    if blank is None:
        return []
    return [Problem(
        "counterfeit",
        f"the card counts {counted} buffers as written, but from sector {blank} on ({_size(blank)}) it holds "
        f"nothing where {missing:,} of them should be: a counterfeit keeps nothing "
        "behind its true end, and a card that was wiped since looks alike. Copy what is on it, then prove the card "
        "with `miniscope-xr qualify` before it is used again",
        {"sector": blank, "bytes": blank * SECTOR},
    )]  # fmt: skip


def _counted(card: OpenCard, recording: Recording) -> tuple[str, int]:
    """The count of buffers written, in words, and how many of them are missing behind the last one found.

    A DAQ leaves the low byte of its count in the height word, at a clean stop: no fewer than that are missing.
    """
    found = recording.runs[-1].end_place
    height = (card.index.config or {}).get("height", recording.height)
    if not recording.n_recorded and card.layout.height_overwritten and height != recording.height:
        missing = ((height & 255) - found) % 256
        return f"{found + missing:,} (or 256 more, or 512)", missing
    return f"{recording.n_recorded:,}", recording.n_recorded - found


def _wrapped(sector: int, distance: int) -> Problem:
    return Problem(
        "counterfeit",
        f"the card is a counterfeit of {_size(distance)}: what is in sector {sector} is also read in sector "
        f"{sector + distance}, {distance} sectors on, and so are other buffers. What was recorded behind its true end "
        "was written over earlier frames. Copy what is on it, and do not use it again",
        {"sector": sector, "distance": distance, "bytes": distance * SECTOR},
    )


def _size(sectors: int) -> str:
    size = sectors * SECTOR
    return f"{size / (1 << 30):.3g} GB" if size >= 1 << 30 else f"{size / (1 << 20):.3g} MB"


def _wraps(source: ByteSource, recording: Recording, framing: Framing) -> tuple[int, int] | None:
    """(sector, distance) of the first of several buffers that are on the card twice, a power of two apart."""
    end, distance = source.size // SECTOR, _SMALLEST
    sectors = np.array(_sectors_of_headers(recording, framing), np.int64)
    own = [here if len(set(here)) > 1 else None for here in _read(source, sectors)]
    while distance < end:
        same: set[int] = set()
        for step in (-distance, distance):
            inside = np.flatnonzero((sectors + step >= 0) & (sectors + step < end))
            there = _read(source, sectors[inside] + step)
            again = [k for k, data in zip(inside.tolist(), there, strict=True) if data == own[k]]
            same.update((sectors[again] + min(step, 0)).tolist())
        if len(same) >= _MATCHES:
            return min(same), distance
        distance *= 2
    return None


def _read(source: ByteSource, sectors: Ints) -> list[bytes]:
    """Return what stands in some sectors."""
    return [row.tobytes() for row in read_rows(source, _WHOLE, sectors * SECTOR)]


def _sectors_of_headers(recording: Recording, framing: Framing) -> list[int]:
    """Sectors with the headers (or footers) of some buffers all over a recording."""
    out: list[int] = []
    total = recording.n_buffers
    wanted = np.unique(np.linspace(0, total - 1, min(_LOOKS, total)).astype(np.int64))
    start = 0
    for run in recording.runs:
        mine = wanted[(wanted >= start) & (wanted < start + run.count)] - start
        out += (framing.places(run, mine) // SECTOR).tolist() if len(mine) else []
        start += run.count
    return out


def _blank_from(source: ByteSource, recording: Recording, missing: int) -> int | None:
    """First sector behind a recording's last buffer, where its counts go on and everything there is blank."""
    last = recording.runs[-1]
    if missing <= 0:
        return None
    cut, first = last.cut, last.end_sector
    stop = min(first + -(-missing * cut.frame_sectors // len(cut)), source.size // SECTOR)
    places = np.unique(np.linspace(first, max(stop, first + 1) - 1, _LOOKS).astype(np.int64))
    if stop - first < 2 * cut.frame_sectors or len(places) < _LOOKS:
        return None
    blank = all(len(set(there)) == 1 for there in _read(source, places))
    return first if blank else None
