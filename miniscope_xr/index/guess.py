"""A card nobody described: its geometry, inferred from the headers of its buffers alone.

You meet this where no layout fits. Sectors where buffers begin share their first word (a header's length), and in the
words behind it the buffers count: one by one, by frame, within the frame, in ms. Which word does which is found by how
it goes on from buffer to buffer:

    word   0  1  2   3  4   5  6    7      8
          12  0  0   0  0   0  0   48  20432      3 and 5 count by one: buffers captured, buffers written
          12  1  0   1  1   1  0   54  20432      4 counts and falls to 0 where 2 counts: index and frame
          12  2  0   2  2   2  0   61  20432      7 rises: the time; 8 fits the distance to the next buffer
"""

from __future__ import annotations

from typing import Any

import numpy as np

from miniscope_xr.index.draft import Guess, Headers, describe
from miniscope_xr.index.runs import MAX_INDEX
from miniscope_xr.layout import SECTOR
from miniscope_xr.layout.arrays import Ints
from miniscope_xr.source.base import ByteSource

_REACH = 16 << 20  # bytes of the card's front that are looked at
_WORDS = 24  # of each sector
_LEAST = 12  # buffers in a row
_MOST = 0.9  # of them go on as they should: some may be lapped, or follow a drop
_FALLS = 0.04  # of the steps of a counter may go back
_USUAL = 0.1  # of the distances from buffer to buffer are those of full ones
_LONGEST = 64  # words a header can have


def guess(source: ByteSource) -> Guess | None:
    """Infer the layout of a card; None where its front holds no buffers that follow each other.

    Reads at most 16 MB.
    """
    data = source.read(0, min(_REACH, source.size))
    table = np.frombuffer(data, "<u4", len(data) // SECTOR * (SECTOR // 4)).reshape(-1, SECTOR // 4)
    markers, counts = np.unique(table[:, 0], return_counts=True)
    likely = (counts >= _LEAST) & (markers != 0) & (markers != 2**32 - 1)
    for marker in markers[likely][np.argsort(counts[likely])[::-1][:8]].tolist():
        sectors = np.flatnonzero(table[:, 0] == marker)
        found = _by_marker(table, marker, sectors)
        if found is not None:
            return found
    return None


def _share(holds: Any) -> float:
    return float(np.mean(holds)) if len(holds) else 0.0


def _by_marker(table: np.ndarray[Any, Any], marker: int, sectors: Ints) -> Guess | None:
    rows = table[sectors, :_WORDS].astype(np.int64)
    steps, gaps = np.diff(rows, axis=0), np.diff(sectors)
    words: dict[str, int] = {}
    # an index within the frame falls back to 0 again and again, a counter only where another recording begins
    back = steps < 0
    falls = (back.mean(axis=0) > _FALLS) | ((rows.max(axis=0) < MAX_INDEX) & (back.sum(axis=0) > 1))
    counters = [k for k in range(1, _WORDS) if not falls[k] and _share(steps[:, k] == 1) >= _MOST]
    if not counters:
        return None
    ends = rows[-1, counters].tolist()  # with drops more were captured than written; else either is either
    words["buffer_count"] = counters[ends.index(max(ends))]
    words["write_buffer_count"] = counters[len(ends) - 1 - ends[::-1].index(min(ends))]
    spare = [k for k in counters if k not in words.values()]
    words |= _frame_words(rows, steps, set(counters)) or _frames_of_one(rows, spare)
    if "frame_num" not in words:
        return None
    length = _length_word(rows, gaps, set(words.values()), marker)
    if length is None:
        return None
    words["data_length"], head, whole = length
    # ms pass between buffers
    rising = [k for k in range(1, min(head, _WORDS)) if not falls[k] and _share(steps[:, k] > 0) >= _MOST]
    times = _time_words(rows, [k for k in rising if k not in words.values()])
    if not times:
        return None
    words |= times
    free = [k for k in range(1, head) if k not in words.values()]
    ring = _ring(rows, words, free)
    if ring:
        words["linked_list"] = ring[0]
        free.remove(ring[0])
    lost = rows[:, words["buffer_count"]] - rows[:, words["write_buffer_count"]]
    dropped = [k for k in free if k < _WORDS and _share(rows[:, k] == lost) >= _MOST]
    dropped = dropped or [k for k in free if k < _WORDS and not rows[:, k].any()]  # drops are not counted
    if words["write_buffer_count"] == words["buffer_count"] or not dropped:
        return None
    words["dropped_buffer_count"] = min(dropped, key=lambda k: abs(k - words["write_buffer_count"] - 1))
    # another sector in front may begin with the same number by chance
    first = int(np.argmax((steps[:, words["buffer_count"]] == 1) & (steps[:, words["write_buffer_count"]] == 1)))
    found = Headers(marker, sectors[first:], rows[first:], words, head, whole, ring[1] if ring else 0)
    return describe(table, found)


def _frame_words(rows: Ints, steps: Ints, taken: set[int]) -> dict[str, int]:
    """The words that count frames, and buffers within a frame: one falls to 0 where the other goes on."""
    for index in range(1, rows.shape[1]):
        if index in taken or not _share(rows[:, index] < MAX_INDEX) >= _MOST or not rows[:, index].any():
            continue
        begins = rows[1:, index] == 0
        if _share(begins | (steps[:, index] == 1)) < _MOST:
            continue
        for frame in range(1, rows.shape[1]):
            if frame in taken or frame == index:
                continue
            # the slot in a ring falls to 0 as well, but also where no frame begins
            together = begins.any() and _share(steps[begins, frame] == 1) >= _MOST
            if together and _share(steps[~begins, frame] == 0) >= _MOST:
                return {"frame_num": frame, "frame_buffer_count": index}
    return {}


def _frames_of_one(rows: Ints, counters: list[int]) -> dict[str, int]:
    """The same words where a frame is one buffer: frames are counted like buffers, and the index is always 0."""
    zero = np.flatnonzero(~rows.any(axis=0)).tolist()
    return {"frame_num": counters[0], "frame_buffer_count": zero[0]} if counters and zero else {}


def _time_words(rows: Ints, rising: list[int]) -> dict[str, int]:
    """The words with the times at which a buffer was complete and, behind that, written; none where nothing rises."""
    if len(rising) > 1 and np.sign(rows[:, rising[0]] - rows[:, rising[1]]).sum() > 0:
        rising = rising[1::-1]
    words = dict(zip(("timestamp", "write_timestamp"), rising, strict=False))
    if len(words) > 1 and _share(rows[:, rising[1]] >= rows[:, rising[0]]) < _MOST:
        del words["write_timestamp"]
    return words


def _length_word(rows: Ints, gaps: Ints, taken: set[int], marker: int) -> tuple[int, int, bool] | None:
    """The word with a buffer's data bytes, the header's length in words, and whether short buffers take all sectors."""
    usual = np.bincount(np.minimum(gaps, 4096)) >= _USUAL * len(gaps)
    full = int(np.flatnonzero(usual).max(initial=0))
    for k in range(1, rows.shape[1]):
        column = rows[:-1, k]
        if k in taken or not ((column > 0) & (column <= full * SECTOR)).mean() >= _MOST:
            continue
        values, counts = np.unique(column[gaps == full], return_counts=True)
        if not len(values):
            continue
        head, odd = divmod(full * SECTOR - int(values.max()), 4)
        if len(values) == 1 and _LONGEST >= marker > max(taken):  # a frame may be one buffer, none of which is full
            head, odd = marker, 0
        if odd or not max(taken, default=0) < head <= _LONGEST or counts.max() < _USUAL * len(gaps):
            continue
        by_length = _share(-(-(column + 4 * head) // SECTOR) == gaps)
        if by_length >= _MOST:
            return k, head, False
        if _share(gaps == full) >= _MOST and len(np.unique(column)) <= 8 and values.max() > full * SECTOR // 2:
            return k, head, True
    return None


def _ring(rows: Ints, words: dict[str, int], free: list[int]) -> tuple[int, int] | None:
    """The word that is ``buffer_count`` modulo the ring, and the ring."""
    for k in free:
        ring = int(rows[:, k].max()) + 1 if k < _WORDS else 0
        if 1 < ring <= 64 and _share(rows[:, words["buffer_count"]] % ring == rows[:, k]) >= _MOST:
            return k, ring
    return None
