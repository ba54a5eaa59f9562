"""A draft of a layout by what the headers of a card show: its frame size, and where settings and counts may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from miniscope_xr.layout import SECTOR, WRITE_KEY, Layout, parse_layout
from miniscope_xr.layout.arrays import Array, Bytes, Ints

NO_LAYOUT = "no known layout fits; "
"""How the sentence about a card begins that was read by a draft."""
_CONFIG = 16  # words of a config sector that are looked at
_SIDE, _LONG = 32, 32  # px of the shortest side of a frame, and how many times longer the other may be
_NEARLY = 1.1  # of widths whose rows are nearly as alike the least is meant: more rows apart they may be, too
_CLEAR = 0.9  # rows of the true width differ by less than this part of what others do


class Headers(NamedTuple):
    """Headers of a card that nobody described, and what of them was inferred."""

    marker: int
    """Their first word."""
    sectors: Ints
    """Where they were found."""
    rows: Ints
    """Their words."""
    words: dict[str, int]
    """Word of each field."""
    length: int
    """How many words a header has."""
    whole: bool
    """Every buffer takes as many sectors as a full one."""
    ring: int
    """Buffers in the firmware's ring; 0 where it did not show."""

    @property
    def payload(self) -> int:
        """Data bytes of a full buffer."""
        return int(self.rows[:, self.words["data_length"]].max())

    @property
    def buffer_bytes(self) -> int:
        """Bytes that a full buffer takes on the card."""
        return -(-(self.payload + 4 * self.length) // SECTOR) * SECTOR

    @property
    def pixels(self) -> int:
        """Pixels of a frame: what its buffers add up to; the first frame and the last may be cut."""
        frames, sizes = self.rows[:, self.words["frame_num"]], self.rows[:, self.words["data_length"]]
        _, which = np.unique(frames, return_inverse=True)  # a bit may have flipped in one: numbers to 2**32
        totals = np.bincount(which, weights=sizes).astype(np.int64)[1:-1]
        usual, counts = np.unique(totals, return_counts=True)
        return int(usual[counts.argmax()]) if len(totals) and totals.max() < 1 << 24 else int(sizes.max())

    def build(self, width: int, height: int) -> dict[str, Any]:
        """A firmware build that writes such headers."""
        odd = {
            "ring": (self.ring, 0),
            "whole_buffers": (self.whole, False),
            "preamble": (self.marker, self.length),
        }  # fmt: skip
        return {
            "firmware": "draft", "width": width, "height": height, "header_words": self.length,
            "buffer_sectors": self.buffer_bytes // SECTOR, "stale_config": True,
            **{name: value for name, (value, usual) in odd.items() if value != usual},
        }  # fmt: skip


@dataclass(frozen=True)
class Guess:
    """What the headers of a card show."""

    described: dict[str, Any]
    """A layout as a mapping, as it is written to a file."""
    said: str
    """What was inferred and what was only assumed, in a sentence."""

    @property
    def layout(self) -> Layout:
        """The layout itself."""
        return parse_layout(self.described, "draft")


def describe(table: Array, found: Headers) -> Guess:
    """Make a draft layout of what was inferred; ``table`` has the first words of every sector at the card's front."""
    words, pixels, buffer_bytes = found.words, found.pixels, found.buffer_bytes
    front = table[: int(found.sectors[0])]
    before = int(found.rows[0, words["write_buffer_count"]]) if found.whole else 0
    data = len(front) - before * (buffer_bytes // SECTOR)
    most = 0 if pixels % found.payload else pixels + buffer_bytes  # one build loses the end of each frame
    config, places = _config(front, pixels, buffer_bytes, most)
    keyed = np.flatnonzero((front[:, :4] == WRITE_KEY).all(axis=1))
    header = int(keyed[-1]) if len(keyed) else (config if config is not None else data - 1) - 1
    frame = _frame_bytes(table, found)
    alike = _alike(frame) if frame is not None else None
    if config is not None:
        width, height = (int(table[config, places[name]]) for name in ("width", "height"))
        if alike == (height, width):  # the rows say that it is written the other way round
            width, height = alike
            places |= {"width": places["height"], "height": places["width"]}
        said = f"the frame size {width}x{height} stands in sector {config}"
    else:
        width, height = alike or _shape(pixels)
        config = header + 1 if header + 1 < data else max(header - 1, 0)
        places = {"width": 0, "height": 1, "buffer_size": 3, "n_buffers_recorded": 4, "n_buffers_dropped": 5}
        how = "that in which rows are most alike" if alike else "only one"
        said = f"the frame size {width}x{height} is {how} of those with {pixels} pixels"
    described = {
        "id": "draft",
        "description": "inferred from the headers of a card",
        "sectors": {"header": header, "config": config, "data": data},
        "header_words": [found.length],
        "frame": {"width": width, "height": height},
        "header": {},
        "config": places,
        "buffer": {"length": 0, **dict(sorted(words.items(), key=lambda item: item[1]))},
        "builds": [found.build(width, height)],
    }
    said = (
        f"{NO_LAYOUT}what the words mean was inferred from {len(found.rows)} headers (buffers of "
        f"{buffer_bytes} bytes, headers of {found.length} words, {pixels} pixels a frame), {said}, and settings are "
        "unknown"
    )
    return Guess(described, said)


def _config(front: Array, pixels: int, buffer_bytes: int, most: int = 0) -> tuple[int | None, dict[str, int]]:
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


def _frame_bytes(table: Array, found: Headers) -> Bytes | None:
    """The pixels of a whole frame that was looked at; None where there is none."""
    names = ("frame_num", "frame_buffer_count", "data_length")
    frames, index, size = (found.rows[:, found.words[name]] for name in names)
    pixels = found.pixels
    for frame in np.unique(frames)[1:-1].tolist():
        own = np.flatnonzero(frames == frame)
        if int(size[own].sum()) == pixels and np.array_equal(index[own], np.arange(len(own))):
            parts = [
                table[sector:].reshape(-1)[found.length :].view(np.uint8)[: int(n)]
                for sector, n in zip(found.sectors[own].tolist(), size[own], strict=True)
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
