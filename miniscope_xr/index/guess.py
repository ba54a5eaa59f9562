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

from dataclasses import dataclass
from typing import Any

import numpy as np

from miniscope_xr.index.runs import MAX_INDEX
from miniscope_xr.layout import SECTOR, WRITE_KEY, Layout, parse_layout
from miniscope_xr.layout.arrays import Bytes, Ints
from miniscope_xr.source.base import ByteSource

_REACH = 16 << 20  # bytes of the card's front that are looked at
_WORDS = 24  # of each sector
_LEAST = 12  # buffers in a row
_MOST = 0.9  # of them go on as they should: some may be lapped, or follow a drop
_FALLS = 0.04  # of the steps of a counter may go back
_USUAL = 0.1  # of the distances from buffer to buffer are those of full ones
_LONGEST = 64  # words a header can have
_CONFIG = 16  # words of a config sector that are looked at
_SIDE, _LONG = 32, 32  # px of the shortest side of a frame, and how many times longer the other may be
_NEARLY = 1.1  # of widths whose rows are nearly as alike the least is meant: more rows apart they may be, too
_CLEAR = 0.9  # rows of the true width differ by less than this part of what others do


@dataclass(frozen=True)
class Guess:
    """What the headers of a card show.

    Attributes
    ----------
    described : dict
        A layout as a mapping, as it is written to a file.
    said : str
        What was inferred and what was only assumed, in a sentence.
    """

    described: dict[str, Any]
    said: str

    @property
    def layout(self) -> Layout:
        """The layout itself."""
        return parse_layout(self.described, "draft")


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
    times = [
        k for k in range(1, min(head, _WORDS))
        if k not in words.values() and not falls[k] and _share(steps[:, k] > 0) >= _MOST  # ms pass between buffers
    ]  # fmt: skip
    if not times:
        return None
    if len(times) > 1 and np.sign(rows[:, times[0]] - rows[:, times[1]]).sum() > 0:
        times = times[1::-1]  # a buffer is written when it is complete
    words["timestamp"] = times[0]
    if len(times) > 1 and _share(rows[:, times[1]] >= rows[:, times[0]]) >= _MOST:
        words["write_timestamp"] = times[1]
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
    return _describe(table, marker, sectors[first:], rows[first:], words, head, whole, ring[1] if ring else 0)


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


def _describe(
    table: np.ndarray[Any, Any], marker: int, sectors: Ints, rows: Ints, words: dict[str, int], head: int, whole: bool,
    ring: int,
) -> Guess:  # fmt: skip
    """Make a draft layout of what was inferred, and say it in a sentence.

    Parameters
    ----------
    table
        First words of every sector that was looked at, from the front of the card on.
    marker
        First word of the headers.
    sectors, rows
        Where headers were found, and their words.
    words
        Word of each field in a header.
    head
        Length of a header in words.
    whole
        Every buffer takes as many sectors as a full one.
    ring
        Buffers in the firmware's ring; 0 where it did not show.
    """
    payload = int(rows[:, words["data_length"]].max())
    buffer_bytes = -(-(payload + 4 * head) // SECTOR) * SECTOR
    frames, sizes = rows[:, words["frame_num"]], rows[:, words["data_length"]]
    totals = np.bincount(frames - frames.min(), weights=sizes).astype(np.int64)[1:-1]
    pixels = int(np.bincount(totals).argmax()) if len(totals) and totals.max() < 1 << 24 else int(sizes.max())
    data = int(sectors[0]) - int(rows[0, words["write_buffer_count"]]) * (buffer_bytes // SECTOR if whole else 0)
    most = 0 if pixels % payload else pixels + buffer_bytes  # one build loses the end of each frame
    config, places = _config(table[: int(sectors[0])], pixels, buffer_bytes, most)
    keyed = np.flatnonzero((table[: int(sectors[0]), :4] == WRITE_KEY).all(axis=1))
    header = int(keyed[-1]) if len(keyed) else (config if config is not None else data - 1) - 1
    frame = _frame_bytes(table, sectors, rows, words, head, pixels)
    alike = _alike(frame) if frame is not None else None
    if config is not None:
        size = tuple(int(table[config, places[name]]) for name in ("height", "width"))
        if alike == size:  # the rows say that it is written the other way round
            places |= {"width": places["height"], "height": places["width"]}
        width, height = (int(table[config, places[name]]) for name in ("width", "height"))
        said = f"the frame size {width}x{height} stands in sector {config}"
    else:
        width, height = alike or _shape(pixels)
        config = header + 1 if header + 1 < data else max(header - 1, 0)
        places = {"width": 0, "height": 1, "buffer_size": 3, "n_buffers_recorded": 4, "n_buffers_dropped": 5}
        how = "that in which rows are most alike" if alike else "only one"
        said = f"the frame size {width}x{height} is {how} of those with {pixels} pixels"
    build: dict[str, Any] = {
        "firmware": "draft", "width": width, "height": height, "header_words": head,
        "buffer_sectors": buffer_bytes // SECTOR, "stale_config": True,
    }  # fmt: skip
    if ring:
        build["ring"] = ring
    if whole:
        build["whole_buffers"] = True
    if marker != head:
        build["preamble"] = marker
    described = {
        "id": "draft",
        "description": "inferred from the headers of a card",
        "sectors": {"header": header, "config": config, "data": data},
        "header_words": [head],
        "frame": {"width": width, "height": height},
        "header": {},
        "config": places,
        "buffer": {"length": 0, **dict(sorted(words.items(), key=lambda item: item[1]))},
        "builds": [build],
    }
    said = (
        f"no known layout fits; what the words mean was inferred from {len(rows)} headers (buffers of {buffer_bytes} "
        f"bytes, headers of {head} words, {pixels} pixels a frame), {said}, and settings are unknown"
    )
    return Guess(described, said)


def _config(
    front: np.ndarray[Any, Any], pixels: int, buffer_bytes: int, most: int = 0
) -> tuple[int | None, dict[str, int]]:
    """A sector before the data with width, height and buffer size, and where in it they are.

    ``most``: pixels a frame can have of which the firmware loses the end.
    """
    pairs = [(k, other) for far in range(1, _CONFIG) for k in range(_CONFIG - far) for other in (k + far,)]
    for sector in np.flatnonzero((front[:, :_CONFIG] == buffer_bytes).any(axis=1))[::-1]:
        row = front[sector, :_CONFIG].tolist()  # plain numbers: two of any words may be multiplied
        size = row.index(buffer_bytes)
        for k, other in pairs:
            fits = pixels <= row[k] * row[other] <= (max(pixels, most) if other == k + 1 else pixels)
            if fits and size not in (k, other) and 8 <= row[k] <= 4096 and 8 <= row[other] <= 4096:
                rest = next((at for at in range(size + 1, _CONFIG) if at not in (k, other)), None)
                if rest is not None:  # where nothing follows the buffer size it is another number
                    return int(sector), {"width": k, "height": other, "buffer_size": size, "n_buffers_recorded": rest}
    return None, {}


def _frame_bytes(
    table: np.ndarray[Any, Any], sectors: Ints, rows: Ints, words: dict[str, int], head: int, pixels: int
) -> Bytes | None:
    """The pixels of a whole frame that was looked at; None where there is none."""
    frames, index, size = (rows[:, words[name]] for name in ("frame_num", "frame_buffer_count", "data_length"))
    for frame in np.unique(frames)[1:-1].tolist():
        own = np.flatnonzero(frames == frame)
        if int(size[own].sum()) == pixels and np.array_equal(index[own], np.arange(len(own))):
            parts = [
                table[sector:].reshape(-1)[head : head + -(-int(n) // 4)].view(np.uint8)[: int(n)]
                for sector, n in zip(sectors[own].tolist(), size[own], strict=True)
            ]
            return np.concatenate(parts)
    return None


def _alike(frame: Bytes) -> tuple[int, int] | None:
    """Width and height with which neighbouring rows of a frame are most alike; None where all are as unlike."""
    pixels = len(frame)
    widths = [
        w for w in range(_SIDE, pixels // _SIDE + 1) if pixels % w == 0 and w <= _LONG * (pixels // w) <= _LONG**2 * w
    ]
    unlike = [float(np.abs(np.subtract(frame[w:], frame[:-w], dtype=np.int16)).mean()) for w in widths]
    if not widths or min(unlike) > _CLEAR * float(np.median(unlike)):
        return None
    width = next(w for w, by in zip(widths, unlike, strict=True) if by <= min(unlike) * _NEARLY)
    return width, pixels // width


def _shape(pixels: int) -> tuple[int, int]:
    """Width and height with so many pixels, as near to a square as there are."""
    height = next((h for h in range(int(pixels**0.5), 0, -1) if pixels % h == 0), 1)
    return min(pixels // height, 1 << 14), height
