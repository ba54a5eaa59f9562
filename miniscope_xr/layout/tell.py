"""Telling firmware builds apart by what their buffers show.

Two builds can share sectors and header length and still mean other things by the same words. What a build says about
itself in its layout (limits, ring, whole buffers, when it writes) is held against headers on the card:

    battery word 2110               not v4-wirefree HEAD (8 bits), but v4-wirefree-2026 (12 bits)
    word 1 = 0xFFFFFF81 (-127)      no ring slot, but a temperature of -1.27 degC (samd-framework)
    short buffers take 40 sectors   not by length: whole buffers
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from miniscope_xr.layout.model import Build, Layout
from miniscope_xr.layout.words import buffer_header_dtype, values

Ints = np.ndarray[Any, np.dtype[np.int64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]

_MOST = 0.75  # of the headers must agree: one flipped bit or one lap proves nothing
_PAIRS = 4  # buffers in a row before the pace of the writes tells anything


def contradictions(
    layout: Layout,
    build: Build,
    words: np.ndarray[Any, Any],
    sectors: Ints,
    settings: Mapping[str, int] | None = None,
) -> list[str]:
    """What in some buffer headers cannot have been written by a build.

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

    Returns
    -------
    list of str
        One short reason for each statement of the layout that does not hold; empty where the build fits.
    """
    return list(_objections(layout, build, words, sectors, settings))


def _fails(holds: Bools, share: float = _MOST) -> bool:
    """Whether too few of some headers are as they should be."""
    return bool(np.count_nonzero(holds) < share * holds.size)


def _objections(
    layout: Layout, build: Build, words: np.ndarray[Any, Any], sectors: Ints, settings: Mapping[str, int] | None
) -> Iterator[str]:
    """The same one by one, the quickest to find first: for telling builds apart the first one is enough."""
    if not len(words) or words.shape[1] < build.header_words:
        yield "no header"
        return
    own = layout.of(build)
    if _fails(words[:, 0] == build.marker):
        yield f"the first word is not {build.marker}"
    raw = np.ascontiguousarray(words[:, : build.header_words], "<u4")
    rows = raw.view(buffer_header_dtype(own, build.header_words)).reshape(-1)
    fields = own.fields_for(build.header_words)
    read = {name: np.asarray(part, np.int64) for name, part in values(fields, rows).items()}
    for name, item in fields.items():
        if item.trusted and name != "length":
            low, high = item.limits
            good = (read[name] >= low) & (read[name] <= high)
            if _fails(good if item.none is None else good | (read[name] == item.none)):
                yield f"{name} is not within {low} to {high}"
    if "linked_list" in read and build.ring and _fails(read["linked_list"] == read["buffer_count"] % build.ring):
        yield f"the slots are not those of a ring of {build.ring}"
    if _fails(read["data_length"] <= build.payload):
        yield f"buffers hold more than {build.payload} bytes"
    for name in build.repeats:
        if settings is not None and name in settings and _fails(read[name] == settings[name] & 0xFF):
            yield f"{name} is not the setting"
    if len(words) > 1:
        yield from _pairs(build, read, sectors)


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


def fits(
    layout: Layout, build: Build, words: np.ndarray[Any, Any], sectors: Ints, settings: Mapping[str, int] | None = None
) -> bool:
    """Whether nothing in some buffer headers contradicts a build; see :func:`contradictions`."""
    return next(_objections(layout, build, words, sectors, settings), None) is None


def fitting(
    candidates: Iterable[tuple[Layout, Build]],
    words: np.ndarray[Any, Any],
    sectors: Ints,
    settings: Mapping[str, int] | None = None,
) -> list[tuple[Layout, Build]]:
    """The builds that nothing in some buffer headers contradicts, in the order given; see :func:`contradictions`."""
    return [each for each in candidates if fits(*each, words, sectors, settings)]
