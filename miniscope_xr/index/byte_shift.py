"""Where a recording stands, or goes on, off the sectors: bytes were left out of its image, or put in.

Nothing at the beginnings of sectors tells of it. A card has whole sectors; an image that has not, or in which neither
nothing nor buffers stand behind the last one found, is searched at every byte: for a header that counts on from that
buffer, and that another one follows. Of whole frames (v3) it is a footer, and the frame in front of it is the one in
which the bytes are missing or too many: it is behind it that the recording goes on.

    image     |footer 6 |frame 7, bytes missing, footer 7|frame 8 ...      goes on at frame 8
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import numpy as np

from miniscope_xr.index.clock import FrameClock
from miniscope_xr.index.find import Finder
from miniscope_xr.index.front import Card
from miniscope_xr.index.headers import HeaderReader, gallop
from miniscope_xr.index.overwritten import torn_before
from miniscope_xr.index.recording import Recording
from miniscope_xr.index.runs import Header, Run
from miniscope_xr.layout import SECTOR, Layout
from miniscope_xr.layout.arrays import Ints
from miniscope_xr.source.base import ByteSource
from miniscope_xr.source.salvage import Tolerant
from miniscope_xr.source.spliced import Splices

_REACH = 1 << 20  # bytes put in or left out; and a buffer on each side
_LOST = 1 << 12  # buffers that may be missing
_HITS = 1 << 12  # places looked at
_WINDOW = 1024  # sectors searched at once for a recording that begins off them
_PROOF = 3  # buffers as far off the sectors as each other


def begins_off(source: ByteSource, layouts: Sequence[Layout]) -> int | None:
    """Byte off the sectors at which the first buffers begin (whole frames: the second one); None where none are."""
    if not source.size % SECTOR:
        return None
    source, finder = Tolerant(source), Finder(layouts)
    markers = sorted({b.marker for layout in layouts if layout.buffer for b in layout.builds})
    window = max(_WINDOW, (_PROOF + 1) * finder.reach)

    def look(at: int) -> int | None:
        data = source.read(at * SECTOR, (window + 1) * SECTOR)
        heads = [n for n in _places(data, markers, 0) if n <= len(data) - SECTOR]
        ends = [n for n in _places(data, (1,), 16 - SECTOR) if 0 <= n <= len(data) - SECTOR] if finder.reach else []
        begins = np.concatenate([_told(finder, data, heads), _told(finder, data, ends) + SECTOR])
        off, counts = np.unique(begins % SECTOR, return_counts=True)
        good = (off > 0) & (counts >= _PROOF)
        if not good.any():
            return None
        alike = begins[begins % SECTOR == off[good][np.argmax(counts[good])]]
        return at * SECTOR + int(alike.min())

    return gallop(look, 0, -(-source.size // SECTOR), window)


def _told(finder: Finder, data: bytes, places: list[int]) -> Ints:
    """Those of some bytes at which a sector would tell of a buffer."""
    if not places:
        return np.zeros(0, np.int64)
    rows = np.lib.stride_tricks.sliding_window_view(np.frombuffer(data, np.uint8), SECTOR)[places]
    return np.array(places)[finder(np.ascontiguousarray(rows).view("<u4")).told]


def _places(data: bytes, words: Sequence[int], before: int) -> list[int]:
    """Bytes at which one of some words stands, each ``before`` bytes off; not more of one than are worth a look.

    ``bytes.find`` takes several times as long where most bytes are zeros, and most of a card is.
    """
    found = [np.zeros(0, np.int64)]
    for word in words:
        at = [
            np.flatnonzero(np.frombuffer(data, "<u4", (len(data) - phase) // 4, phase) == word) * 4 + phase
            for phase in range(min(4, len(data)))
        ]
        found.append(np.sort(np.concatenate([*found[:1], *at]))[:_HITS])
    places: list[int] = (np.concatenate(found) + before).tolist()
    return places


def goes_on_at(source: ByteSource, card: Card) -> int | None:
    """Byte off the sectors at which the last recording of a card goes on; None where it does not."""
    recording = card.recordings[-1]
    last = recording.runs[-1]
    if recording.status == "finished" and (not card.words or recording.n_recorded in (0, last.end_place)):
        return None
    source = Tolerant(source)  # what is behind a recording need not be readable
    if not card.words:
        return _frames_go_on(source, card, recording) if source.size % SECTOR else None
    headers = HeaderReader(source, card.framing)
    clock = FrameClock(headers)
    start = last.sector_of(last.count - 1) * SECTOR + card.framing.head
    marker = card.framing.marker
    if not source.size % SECTOR and not _other_data(source, last, card.framing.full_sectors, marker):
        return None
    data = source.read(start, 3 * card.framing.full_sectors * SECTOR + _REACH)
    for at in _places(data, [marker], 0):
        header = headers.parse(data[at : at + headers.dtype.itemsize])
        if header is None or not (start + at) % SECTOR or not _later(last, header):
            continue
        if clock.fits(recording.runs, header) and _followed(source, headers, start + at, header):
            return start + at
    return None


def zeros_before(at: int, card: Card) -> int:
    """Zeros to put in before the byte at which a recording goes on.

    A sector more than to the next one, so that the buffer before it does not seem whole; whole frames get to where the
    one behind those that are missing is due, or as much further as some frames take.
    """
    last = card.recordings[-1].runs[-1]
    end = last.end_sector * SECTOR
    if not card.words:
        return (end - at) % last.cut.lengths[0]
    zeros = 2 * SECTOR - at % SECTOR
    return zeros + SECTOR if at + zeros == end else zeros


def _other_data(source: ByteSource, last: Run, sectors: int, marker: int) -> bool:
    """Whether neither nothing nor a buffer stands behind a run."""
    data = source.read(last.end_sector * SECTOR, (sectors + 1) * SECTOR)
    blank = len(set(data[:SECTOR])) <= 1
    return not blank and marker not in np.frombuffer(data, "<u4", len(data) // 4)[:: SECTOR // 4]


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


def _frames_go_on(source: ByteSource, card: Card, recording: Recording) -> int | None:
    """The same of whole frames: byte behind the first footer off the sectors that counts on."""
    last, dtype = recording.runs[-1], card.framing.dtype
    if "line_count" not in (dtype.names or ()):
        return None
    size = last.cut.lengths[0]
    shift = int(dtype.fields["line_count"][1]) if dtype.fields else 0
    start = last.end_sector * SECTOR
    data = source.read(start, 2 * size + _REACH)

    def footer(at: int) -> np.void | None:
        found = source.read(at, dtype.itemsize)
        return np.frombuffer(found, dtype)[0] if len(found) == dtype.itemsize else None

    before = footer(start - dtype.itemsize)
    for at in _places(data, [recording.height], start - shift):
        here, following = footer(at), footer(at + size)
        behind = at + dtype.itemsize
        if before is None or here is None or following is None or not behind % SECTOR:
            continue
        rows = [before, here, following]
        frames, times = ([int(row[name]) for row in rows] for name in ("frame_num", "timestamp"))
        counts_on = frames[0] < frames[1] < frames[0] + _LOST and frames[2] == frames[1] + 1
        if counts_on and times == sorted(times):
            return behind
    return None


def told_of_splices(card: Card, splices: Splices) -> Card:
    """A card whose last recording says where its image is off the sectors, and lacks the buffers that are cut there.

    Headers that are damage may begin other recordings, whose buffers reach over those places as well.
    """
    *others, last = card.recordings
    last = replace(last, warnings=(*last.warnings, *map(_off_sectors, splices)))
    zeros = accumulate((n for _, n in splices), initial=0)
    for at in (byte + before for (byte, _), before in zip(splices, zeros, strict=False)):
        last = torn_before(last, at)
        others = [torn_before(each, at) if _reaches_over(each, at) else each for each in others]
    return replace(card, recordings=(*others, last))


def _reaches_over(recording: Recording, byte: int) -> bool:
    """Whether a byte is within a recording's runs."""
    return any(run.sector * SECTOR < byte < run.end_sector * SECTOR for run in recording.runs)


def _off_sectors(splice: tuple[int, int]) -> str:
    """Say where an image is off the sectors of its card."""
    byte, zeros = splice
    if not byte:
        return f"this image is off the sectors of its card: it is read as if {zeros} bytes more stood before it"
    return (
        f"behind byte {byte} this image is off the sectors of its card: in the buffer before it bytes are missing, or "
        "were put in"
    )
