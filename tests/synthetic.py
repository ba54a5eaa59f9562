"""A card of any length that is computed as it is read, and that counts its reads."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miniscope_xr.layout import SECTOR, Build, Layout
from miniscope_xr.tools.simulate.events import BadHeight
from miniscope_xr.tools.simulate.firmware import Ended
from miniscope_xr.tools.simulate.image import config_sector, header_sector
from miniscope_xr.tools.simulate.spec import make_spec

_SPREAD = 4096


class SyntheticCard:
    """An intact v4 or DAQ recording (a ByteSource), computed from the formulas a *run* of buffers obeys.

    Parameters
    ----------
    layout, build, settings, width, height
        As for ``simulate``.
    buffers, frames
        Length of the recording: buffers on the card, or whole camera frames captured. Neither: until the card is full.
    finished
        False: the battery died; the config sector holds counts of 0.
    drops
        (buffers written before, buffers dropped) of each overflow, in order.
    size
        Bytes of the card; default: 64 sectors more than the recording takes.
    under
        Older recording that shows behind the end of this one.
    seed
        Other pixels.

    Attributes
    ----------
    reads : list of (offset, length)
        Every read so far, in bytes.
    """

    def __init__(
        self,
        layout: str | Layout = "v4-wirefree",
        build: str | Build | None = None,
        *,
        buffers: int | None = None,
        frames: int | None = None,
        finished: bool = True,
        drops: Sequence[tuple[int, int]] = (),
        size: int | None = None,
        under: SyntheticCard | None = None,
        settings: dict[str, int] | None = None,
        width: int | None = None,
        height: int | None = None,
        seed: int = 0,
        **options: Any,
    ) -> None:
        given: dict[str, Any] = {"battery": 190, "battery_slope": 0.001, "seed": seed, **options}
        self.spec = spec = make_spec(layout, build, width=width, height=height, settings=settings, **given)
        assert not spec.whole_frames, "SyntheticCard is for layouts with buffers"
        self.layout, self.build = spec.layout, spec.build
        self.reads: list[tuple[int, int]] = []
        # buffers of a frame: the last one is shorter, and empty when the frame fills the others exactly
        full, rest = divmod(spec.frame_bytes, spec.payload)
        self.lengths = [spec.payload] * full + [rest]
        self._sectors = [-(-(spec.header_bytes + n) // SECTOR) for n in self.lengths]
        self._before = [0, *accumulate(self._sectors)]  # sectors before buffer i of a frame
        # runs: first written buffer, its buffer_count, its sector
        self._runs = [(0, 0, self.layout.sectors.data)]
        for written, dropped in drops:
            j, count, sector = self._runs[-1]
            reached = count + written - j
            self._runs.append((written, reached + dropped, sector + self._span(count, reached)))
        if buffers is None:
            assert size is not None or frames is not None, "give buffers, frames or the size of the card"
            j, count, sector = self._runs[-1]
            if frames is not None:
                last = frames * len(self.lengths)
            else:
                assert size is not None
                left = size // SECTOR - sector + self._span(0, count)
                last = self._count_at(left)
            buffers = j + last - count
        self.n_buffers = buffers
        self.n_dropped = sum(dropped for _, dropped in drops)
        self.end_sector = self.sector_of(buffers)
        self.size = size if size is not None else (self.end_sector + 64) * SECTOR
        self._under = under
        rng = np.random.default_rng((seed, 23))
        self._pool = np.frombuffer(rng.bytes(spec.frame_bytes + spec.buffer_bytes + _SPREAD), np.uint8)
        ended = Ended(self.n_buffers, self.n_dropped, True, 0.0) if finished else None
        config = config_sector(spec, ended, BadHeight())
        assert config is not None
        self._fixed = {self.layout.sectors.header: header_sector(spec), self.layout.sectors.config: config}

    # arithmetic -------------------------------------------------------------------------------------------------

    def _span(self, first: int, last: int) -> int:
        """Sectors that the captured buffers first..last-1 take."""
        n, total = len(self.lengths), self._before[-1]
        return (last // n - first // n) * total + self._before[last % n] - self._before[first % n]

    def _count_at(self, sector: int) -> int:
        """Buffer that holds the given sector of a recording without drops."""
        frame, sector = divmod(sector, self._before[-1])
        return frame * len(self.lengths) + bisect_right(self._before, sector) - 1

    def buffer_count(self, j: int) -> int:
        """buffer_count of the ``j``-th buffer on the card."""
        first, count, _ = self._runs[bisect_right(self._runs, (j, 1 << 62)) - 1]
        return count + j - first

    def sector_of(self, j: int) -> int:
        """First sector of the ``j``-th buffer on the card."""
        first, count, sector = self._runs[bisect_right(self._runs, (j, 1 << 62)) - 1]
        return sector + self._span(count, count + j - first)

    def header(self, j: int) -> tuple[int, ...]:
        """Header words of the ``j``-th buffer on the card."""
        spec, count = self.spec, self.buffer_count(j)
        frame, index = divmod(count, len(self.lengths))
        done = min((index + 1) * spec.payload, spec.frame_bytes)
        t = spec.frame_start(frame) + spec.readout_ms * done / spec.frame_bytes
        values = {
            "length": spec.build.header_words, "linked_list": count % spec.build.ring, "frame_num": frame,
            "buffer_count": count, "frame_buffer_count": index, "write_buffer_count": j,
            "dropped_buffer_count": count - j, "timestamp": int(t), "data_length": self.lengths[index],
            "write_timestamp": int(t), "battery_voltage": spec.battery_at(t), "ewl": spec.settings.get("ewl", 0),
        }  # fmt: skip
        words = [0] * spec.build.header_words
        for name, field in self.layout.buffer.items():
            if field.word < len(words):
                words[field.word] = values.get(name, 0)
        return tuple(words)

    def _payload(self, count: int, size: int) -> NDArray[np.uint8]:
        frame, index = divmod(count, len(self.lengths))
        start = index * self.spec.payload + (frame * 1031) % _SPREAD
        return self._pool[start : start + size] + np.uint8(37 * frame & 255)

    # what a reader should find ----------------------------------------------------------------------------------

    @property
    def frame_nums(self) -> NDArray[np.int64]:
        """Frames with a buffer on the card, rising."""
        n = len(self.lengths)
        ends = [first for first, *_ in self._runs[1:]] + [self.n_buffers]
        spans = [
            np.arange(count // n, (count + end - first - 1) // n + 1)
            for (first, count, _), end in zip(self._runs, ends, strict=True)
            if end > first
        ]
        return np.unique(np.concatenate([*spans, np.empty(0, np.int64)])).astype(np.int64)

    def frame(self, number: int) -> tuple[NDArray[np.uint8], int]:
        """Pixels (height, width) of a frame, 0 where a buffer is missing, and the mask of the buffers present."""
        spec, n, present = self.spec, len(self.lengths), 0
        pixels = np.zeros(spec.frame_bytes, np.uint8)
        ends = [first for first, *_ in self._runs[1:]] + [self.n_buffers]
        for (first, count, _), end in zip(self._runs, ends, strict=True):
            for b in range(max(number * n, count), min((number + 1) * n, count + end - first)):
                start, size = (b % n) * spec.payload, self.lengths[b % n]
                pixels[start : start + size] = self._payload(b, size)
                present |= 1 << b % n
        return pixels.reshape(spec.build.height, spec.build.width), present

    # ByteSource -------------------------------------------------------------------------------------------------

    def read(self, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes; fewer only at the end."""
        self.reads.append((offset, length))
        return self._read(offset, length)

    def readv(self, offset: int, buffers: Sequence[Any]) -> int:
        """Fill writable buffers one after another; return the bytes read."""
        views = [memoryview(b).cast("B") for b in buffers]
        data = self.read(offset, sum(len(v) for v in views))
        at = 0
        for view in views:
            piece = data[at : at + len(view)]
            view[: len(piece)] = piece
            at += len(piece)
        return len(data)

    path = "synthetic card"
    changed = False
    unread = ()

    def gather(self, offsets: Sequence[int], length: int) -> bytes | None:
        """Leave it to the caller to read one by one."""
        return None

    def at_hand(self, offset: int) -> bool:
        """Nothing of a real card is at once."""
        return False

    def salvage(self, offset: int, length: int) -> tuple[bytes, list[tuple[int, int]]]:
        """Read; no sector of this card is bad."""
        return self.read(offset, length), []

    def close(self) -> None:
        """Do nothing: there is nothing open."""

    def _read(self, offset: int, length: int) -> bytes:
        end = max(offset, min(offset + length, self.size))
        pieces = []
        while offset < end:
            piece = self._piece(offset)[: end - offset]
            pieces.append(piece)
            offset += len(piece)
        return b"".join(pieces)

    def _piece(self, offset: int) -> bytes:
        """Some bytes from ``offset`` on, at least one."""
        size = SECTOR
        sector, within = divmod(offset, size)
        if sector < self.layout.sectors.data:
            return bytes(self._fixed.get(sector, bytes(size)))[within:]
        if sector >= self.end_sector:
            rest = self._under._read(offset, 1 << 20) if self._under is not None else b""
            return rest or bytes(1 << 16)
        first, count, start = self._runs[max(0, bisect_right([s for *_, s in self._runs], sector) - 1)]
        here = self._count_at(self._span(0, count) + sector - start)
        j = first + here - count
        n = self._sectors[here % len(self.lengths)] * size
        image = np.zeros(n, np.uint8)
        head = end = self.spec.header_bytes
        image[:head] = np.frombuffer(np.array(self.header(j), "<u4").tobytes(), np.uint8)
        before = here
        while end < n and before >= 0:  # the slack shows what the ring's slot held before
            upto = min(n, head + self.lengths[before % len(self.lengths)])
            if upto > end:
                image[end:upto] = self._payload(before, upto - head)[end - head :]
                end = upto
            before -= self.spec.build.ring
        return image.tobytes()[offset - self.sector_of(j) * size :]
