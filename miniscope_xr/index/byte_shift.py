"""Where a recording goes on, but not at the beginning of a sector: bytes were left out of its image, or put in.

Nothing at the beginnings of sectors tells of it. Behind the last buffer found, where a recording does not end by its
counts, a header is looked for at every byte: one that counts on from that buffer, and that another one follows.
"""

from __future__ import annotations

from miniscope_xr.index.clock import FrameClock
from miniscope_xr.index.front import Card
from miniscope_xr.index.headers import HeaderReader
from miniscope_xr.index.runs import Header, Run
from miniscope_xr.layout import SECTOR
from miniscope_xr.source.base import ByteSource
from miniscope_xr.source.salvage import Tolerant

_REACH = 1 << 20  # bytes put in or left out; and a buffer on each side
_LOST = 1 << 12  # buffers that may be missing
_HITS = 1 << 12  # places looked at


def goes_on_at(source: ByteSource, card: Card) -> int | None:
    """Byte off the sectors at which the last recording of a card goes on; None where it does not."""
    recording = card.recordings[-1]
    last = recording.runs[-1]
    ended = recording.status == "finished" and recording.n_recorded in (0, last.end_place)
    if not card.words or ended:
        return None
    source = Tolerant(source)  # what is behind a recording need not be readable
    headers = HeaderReader(source, card.framing)
    clock = FrameClock(headers)
    i = last.count - 1
    start = last.sector_of(i) * SECTOR + card.framing.head
    data = source.read(start, 3 * card.framing.full_sectors * SECTOR + _REACH)
    marker = card.framing.marker.to_bytes(4, "little")
    at = -1
    for _ in range(_HITS):
        at = data.find(marker, at + 1)
        if at < 0:
            return None
        header = headers.parse(data[at : at + headers.dtype.itemsize])
        if header is None or not (start + at) % SECTOR or not _later(last, header):
            continue
        if clock.fits(recording.runs, header) and _followed(source, headers, start + at, header):
            return start + at
    return None


def _later(last: Run, header: Header) -> bool:
    """Whether a header can be of a buffer behind a run."""
    return (
        last.end_place <= header.written < last.end_place + _LOST
        and header.frame >= last.last_frame
        and header.dropped >= last.first.dropped
        and header.length > 0
    )


def _followed(source: ByteSource, headers: HeaderReader, at: int, header: Header) -> bool:
    """Whether the next buffer stands where this one ends."""
    behind = at + headers.framing.sectors_for(header.length) * SECTOR
    following = headers.parse(source.read(behind, headers.dtype.itemsize))
    return following is not None and (
        following.written == header.written + 1 and following.frame >= header.frame and following.time >= header.time
    )
