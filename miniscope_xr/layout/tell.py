"""Telling firmware builds apart by what their buffers show.

Two builds can share sectors and header length and still mean other things by the same words. What a build says about
itself in its layout (limits, ring, whole buffers, when it writes) is held against headers on the card:

    battery word 2110               not v4-wirefree HEAD (8 bits), but v4-wirefree-2026 (12 bits)
    word 1 = 0xFFFFFF81 (-127)      no ring slot, but a temperature of -1.27 degC (samd-framework)
    short buffers take 40 sectors   not by length: whole buffers
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
    if not len(words) or words.shape[1] < build.header_words:
        return ["no header"]
    own = layout.of(build)
    found = []

    def expect(holds: Bools, said: str, share: float = _MOST) -> None:
        if holds.size and float(holds.mean()) < share:
            found.append(said)

    expect(words[:, 0] == build.marker, f"the first word is not {build.marker}")
    raw = np.ascontiguousarray(words[:, : build.header_words], "<u4")
    rows = raw.view(buffer_header_dtype(own, build.header_words)).reshape(-1)
    fields = own.fields_for(build.header_words)
    read = {name: np.asarray(part, np.int64) for name, part in values(fields, rows).items()}
    for name, item in fields.items():
        if item.trusted and name != "length":
            low, high = item.limits
            good = (read[name] >= low) & (read[name] <= high)
            good = good if item.none is None else good | (read[name] == item.none)
            expect(good, f"{name} is not within {low} to {high}")
    if "linked_list" in read and build.ring:
        slots = read["buffer_count"] % build.ring
        expect(read["linked_list"] == slots, f"the slots are not those of a ring of {build.ring}")
    expect(read["data_length"] <= build.payload, f"buffers hold more than {build.payload} bytes")
    for name in build.repeats:
        if settings is not None and name in settings:
            expect(read[name] == settings[name] & 0xFF, f"{name} is not the setting")
    _pairs(build, read, sectors, expect)
    return found


def _pairs(build: Build, read: Mapping[str, Ints], sectors: Ints, expect: Any) -> None:
    """What pairs of buffers one behind the other show: the cut of a frame, steps on the card, the pace of writes."""
    following = (np.diff(read["write_buffer_count"]) == 1) & (np.diff(read["buffer_count"]) == 1)
    first = np.flatnonzero(following)
    length = read["data_length"][first]
    same = np.diff(read["frame_num"])[first] == 0
    expect(length[same] == build.payload, f"full buffers do not hold {build.payload} bytes")
    short = length < build.payload
    taken = np.array([build.sectors_for(int(n)) for n in length[short]], np.int64)
    rule = "whole buffers" if build.whole_buffers else "by length"
    expect(np.diff(sectors)[first][short] == taken, f"buffers do not follow each other {rule}")
    if "write_timestamp" in read and len(first) >= _PAIRS:
        late = read["write_timestamp"][first] + 1 >= read["timestamp"][first + 1]
        if build.write_waits:
            expect(late, "writes do not wait for the next buffer", 0.5)
        elif len(first) >= 2 * _PAIRS:
            expect(~late, "every write waits for the next buffer", 0.2)


def fitting(
    candidates: Iterable[tuple[Layout, Build]],
    words: np.ndarray[Any, Any],
    sectors: Ints,
    settings: Mapping[str, int] | None = None,
) -> list[tuple[Layout, Build]]:
    """The builds that nothing in some buffer headers contradicts, in the order given; see :func:`contradictions`."""
    return [
        (layout, build) for layout, build in candidates if not contradictions(layout, build, words, sectors, settings)
    ]
