"""Telling firmware builds apart by what their buffers show.

Two builds can share sectors and header length and still mean other things by the same words. What a build says about
itself in its layout (limits, ring, whole buffers, when it writes) is held against headers on the card:

    battery word 2110               not v4-wirefree HEAD (8 bits), but v4-wirefree-2026 (12 bits)
    word 1 = 0xFFFFFF81 (-127)      no ring slot, but a temperature of -1.27 degC (samd-framework)
    short buffers take 40 sectors   not by length: whole buffers
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from miniscope_xr.layout.arrays import Array, Bools, Ints
from miniscope_xr.layout.model import Build, Layout
from miniscope_xr.layout.words import HeaderWords, header_words

_MOST = 0.75  # of the headers must agree: one flipped bit or one lap proves nothing
_NEVER = 1 << 40  # more than any field holds
_PAIRS = 4  # buffers in a row before the pace of the writes tells anything


def _fails(holds: Bools | bool, share: float = _MOST) -> bool:
    """Whether too few of some headers are as they should be, or the only one is not."""
    if isinstance(holds, bool):
        return not holds
    return bool(np.count_nonzero(holds) < share * holds.size)


class _Columns(NamedTuple):
    """Where the fields of a header are, and what they can be, as arrays: read and judged all at once."""

    names: tuple[str, ...]
    word: Ints
    shift: Ints
    mask: Ints
    sign: Ints  # the highest bit of a field that has a sign, else 0
    low: Ints
    high: Ints
    none: Ints

    def read(self, words: Array) -> Ints:
        """Values of the fields, shape (headers, fields)."""
        found: Ints = ((words[:, self.word] >> self.shift & self.mask) ^ self.sign) - self.sign
        return found


@lru_cache(maxsize=256)
def _columns(layout: Layout, words: int) -> _Columns:
    fields = layout.fields_for(words)
    any_value = (-_NEVER, _NEVER)
    limits = [item.limits if item.trusted and item.name != "length" else any_value for item in fields.values()]
    rows = [
        (item.word, item.shift, item.mask, item.sign, low, high, _NEVER if item.none is None else item.none)
        for item, (low, high) in zip(fields.values(), limits, strict=True)
    ]
    return _Columns(tuple(fields), *np.array(rows, np.int64).T)


def contradictions(
    layout: Layout, build: Build, words: Array, sectors: Ints, settings: Mapping[str, int] | None = None
) -> Iterator[str]:
    """What in some buffer headers cannot have been written by a build, the quickest to find first.

    Parameters
    ----------
    layout, build
        The build and its layout.
    words : uint32, shape (n, k)
        First k words of the sectors where n buffers begin, in the order of the card.
    sectors : int64, shape (n,)
        Those sectors.
    settings
        The header sector's values, for buffer words that repeat a setting.

    Yields
    ------
    str
        One short reason for each statement of the layout that does not hold.
    """
    if not len(words) or words.shape[1] < build.header_words:
        yield "no header"
        return
    words = words.astype(np.int64)
    if _fails(words[:, 0] == build.marker):
        yield f"the first word is not {build.marker}"
    columns = _columns(layout.of(build), build.header_words)
    numbers = columns.read(words)
    good = (numbers >= columns.low) & (numbers <= columns.high) | (numbers == columns.none)
    for k in np.flatnonzero(np.count_nonzero(good, axis=0) < _MOST * len(words)).tolist():
        yield f"{columns.names[k]} is not within {columns.low[k]} to {columns.high[k]}"
    read = dict(zip(columns.names, numbers.T, strict=True))
    yield from _singly(build, read, settings or {})
    if len(words) > 1:
        yield from _pairs(build, read, sectors)


def _singly(build: Build, read: Mapping[str, Any], settings: Mapping[str, int]) -> Iterator[str]:
    """What each buffer shows by itself: its slot in the ring, its length, settings that it repeats."""
    if "linked_list" in read and build.ring and _fails(read["linked_list"] == read["buffer_count"] % build.ring):
        yield f"the slots are not those of a ring of {build.ring}"
    if _fails(read["data_length"] <= build.payload):
        yield f"buffers hold more than {build.payload} bytes"
    for name in build.repeats:
        if name in settings and _fails(read[name] == settings[name] & 0xFF):
            yield f"{name} is not the setting"


def _pairs(build: Build, read: Mapping[str, Ints], sectors: Ints) -> Iterator[str]:
    """What pairs of buffers one behind the other show: the cut of a frame, steps on the card, the pace of writes."""
    following = (np.diff(read["write_buffer_count"]) == 1) & (np.diff(read["buffer_count"]) == 1)
    first = np.flatnonzero(following)
    length = read["data_length"][first]
    same = np.diff(read["frame_num"])[first] == 0
    if _fails(length[same] == build.payload):
        yield f"full buffers do not hold {build.payload} bytes"
    short = length < build.payload
    taken = np.array([build.sectors_for(int(n)) for n in length[short]], np.int64)
    if _fails(np.diff(sectors)[first][short] == taken):
        yield f"buffers do not follow each other {'whole buffers' if build.whole_buffers else 'by length'}"
    if "write_timestamp" in read and len(first) >= _PAIRS:
        late = read["write_timestamp"][first] + 1 >= read["timestamp"][first + 1]
        if build.write_waits and _fails(late, 0.5):
            yield "writes do not wait for the next buffer"
        elif not build.write_waits and len(first) >= 2 * _PAIRS and _fails(~late, 0.2):
            yield "every write waits for the next buffer"


def fits(layout: Layout, build: Build, words: Array, sectors: Ints, settings: Mapping[str, int] | None = None) -> bool:
    """Whether nothing in some buffer headers contradicts a build; see :func:`contradictions`."""
    return next(contradictions(layout, build, words, sectors, settings), None) is None


def fits_first(layout: Layout, build: Build, header: bytes, settings: Mapping[str, int] | None = None) -> bool:
    """The same of one header, its bytes given: asked of every build whenever a card is opened."""
    if len(header) < 4 * build.header_words or int.from_bytes(header[:4], "little") != build.marker:
        return False
    words = _header_words(layout, build)
    values = words.take(header)
    if not words.plausible(values):
        return False
    read = dict(zip(words.names, values, strict=True))
    return next(_singly(build, read, settings or {}), None) is None


@lru_cache(maxsize=256)
def _header_words(layout: Layout, build: Build) -> HeaderWords:
    return header_words(layout.of(build), build.header_words)
