"""Whole frames straight from the card into an array: one vectored read for many frames, headers checked after it.

A frame on the card is header, pixels, header, pixels ... A read that scatters the pixels into place and
the headers aside touches every byte once; what the headers must say is arithmetic, one comparison a batch.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np

from miniscope_xr.errors import CardReadError
from miniscope_xr.index.framing import Framing
from miniscope_xr.index.runs import Run, expected_headers
from miniscope_xr.layout import SECTOR
from miniscope_xr.layout.arrays import Bytes, Words
from miniscope_xr.source.base import ByteSource

FrameRoom = Bytes | list[Bytes]
_PAGE = 4096
_BATCHES_A_WORKER = 4  # fewer are not worth a thread
_MOST_WORKERS = 4  # more share the same memory bandwidth
LATE = 5  # ms a buffer waits for the card before it can have lapped the ring
_BLANK = (bytes(4), b"\xff" * 4)  # four bytes of an erased sector
_VECTORS = 640  # below IOV_MAX (1024); more makes the headers leave the nearest cache before they are checked


def aligned_empty(shape: tuple[int, ...]) -> Bytes:
    """Return an uninitialised array that starts on a page: reads into unaligned memory are several times slower."""
    size = math.prod(shape)
    raw = np.empty(size + _PAGE, np.uint8)
    start = -raw.__array_interface__["data"][0] % _PAGE
    return raw[start : start + size].reshape(shape)


class Stencil:
    """How the bytes of a run's whole frames are scattered, and what must stand in the headers between them.

    Parameters
    ----------
    run : Run
        A run whose cut tiles the frame (see :func:`tiles`).
    framing : Framing
    """

    def __init__(self, run: Run, framing: Framing) -> None:
        cut = run.cut
        head = framing.head
        self.run = run
        self.frame_bytes = sum(cut.lengths)
        self.batch = max(_VECTORS // (2 * len(cut)), 1)
        self._stride = cut.frame_sectors * SECTOR
        self._origin = run.sector_of(-run.first.index) * SECTOR  # of the run's first frame number, buffer 0
        slack = [s * SECTOR - head - n for s, n in zip(cut.sectors, cut.lengths, strict=True)]
        self._lead = slack[-1]  # before the first header of a frame, except at the start of a read
        self._more = 0  # bytes read behind the last frame
        self._end = run.last_frame - run.first.frame
        self._starts = [sector * SECTOR for sector in cut.starts]  # of the buffers in their frame
        self._size = framing.dtype.itemsize
        # Each header is read together with the slack before it; its place in the scratch row is a whole word.
        self._asides: list[tuple[int, int]] = []
        self._payloads: list[slice] = []
        words_at, end, pixel = [], 0, 0
        for before, length in zip([slack[-1], *slack[:-1]], cut.lengths, strict=True):
            start = end + -(end + before) % 4
            end = start + before + head
            self._asides.append((start, end))
            words_at.append((start + before) // 4)
            self._payloads.append(slice(pixel, pixel + length))
            pixel += length
        self._row = -(-end // 4) * 4
        # scratch for one frame and for a batch of them, with its vectors: making those takes as long as a read
        self._spare: tuple[list[tuple[Bytes, list[memoryview]]], ...] = ([], [])
        self.header_words = framing.words * len(words_at)
        self._headers_at = np.add.outer(words_at, np.arange(framing.words)).reshape(-1)
        self._expect(words_at, framing)

    @cached_property
    def _places(self) -> list[slice]:
        """Where the payloads of a batch go in an array of frames; one frame read by itself needs none of it."""
        begins = (k * self.frame_bytes for k in range(self.batch))
        return [slice(at + payload.start, at + payload.stop) for at in begins for payload in self._payloads]

    def _expect(self, words_at: list[int], framing: Framing) -> None:
        """Prepare the comparison: which words of a scratch row must be ``base + k * step`` in frame ``k``."""
        fields = framing.dtype.fields
        if not framing.words or fields is None:
            return
        size = len(words_at)
        i = np.arange(size) - self.run.first.index
        constant = {"length": np.full(size, framing.marker), "data_length": np.array(self.run.cut.lengths)}
        now, later = (expected_headers(self.run, i + shift) | constant for shift in (0, size))
        now = {name: values for name, values in now.items() if name in fields}
        base = np.stack(list(now.values()), axis=1)
        step = np.stack([later[name] - now[name] for name in now], axis=1)
        self._marker = framing.marker
        self._marked = list(now).index("length")  # column of the first word of a frame
        counters = [fields[name][1] // 4 for name in now]
        columns = np.add.outer(words_at, counters).reshape(-1)
        self._counters = np.add.outer(np.arange(size) * framing.words, counters).reshape(-1)  # of headers joined
        times = [name for name in ("write_timestamp", "timestamp") if "write_timestamp" in fields]
        self._columns = np.concatenate([columns, *(np.add(words_at, fields[name][1] // 4) for name in times)])
        # words as on the card, so that sums wrap as they would there and whole batches compare as bytes
        self._base, self._step = base.reshape(-1).astype("<u4"), step.reshape(-1).astype("<u4")

    def headers_of(self, source: ByteSource, number: int) -> Words | None:
        """The headers of one whole frame, joined; None where one of them is not as expected, or cannot be read."""
        if number * len(self._starts) < self.run.first.index:
            return None
        start = self._origin + number * self._stride
        data = source.gather([start + at for at in self._starts], self._size)
        words = None if data is None else np.frombuffer(data, "<u4")
        if words is None or words.take(self._counters).tobytes() != (self._base + number * self._step).tobytes():
            return None
        return words

    def read(self, source: ByteSource, number: int, out: FrameRoom, headers: Words | None = None) -> list[int]:
        """Read frames ``number`` on (counted from the run's first frame number) into the rows of ``out``.

        Parameters
        ----------
        out
            uint8 (frames, bytes of a frame), or as many arrays of one frame.
        headers
            uint32 (frames, ``header_words``) to keep the headers in, or None.

        Returns
        -------
        list of int
            Rows that have to be read buffer by buffer: their headers do not vouch for them, or the read failed.
        """
        starts = range(0, len(out), self.batch)
        if len(starts) < 2 * _BATCHES_A_WORKER:
            return self._batches(source, number, out, starts, headers)
        workers = min(len(starts) // _BATCHES_A_WORKER, _MOST_WORKERS, cores())
        with ThreadPoolExecutor(workers) as pool:  # in turns, so that the card is still read from front to back
            parts = pool.map(lambda w: self._batches(source, number, out, starts[w::workers], headers), range(workers))
            return [row for part in parts for row in part]

    def _batches(
        self, source: ByteSource, number: int, out: FrameRoom, starts: range, headers: Words | None
    ) -> list[int]:
        """Read the batches that begin at some rows of ``out``."""
        doubtful: list[int] = []
        stride = self._stride
        offset = self._origin + number * stride
        spare = self._spare[len(out) > 1]
        try:
            scratch, asides = spare.pop()
        except IndexError:
            scratch = np.empty((self.batch if len(out) > 1 else 1, self._row), np.uint8)
            asides = self._vectors(scratch)
        for start in starts:
            n = min(self.batch, len(out) - start)
            vectors = asides[: 2 * n * len(self._payloads)]
            vectors[1::2] = self._pixels(out, start, n)
            behind = np.zeros(self._more, np.uint8)
            try:
                got = source.readv(offset + start * stride, [*vectors, behind.data] if self._more else vectors)
            except CardReadError:
                got = -1
            if got >= n * stride - self._lead:
                refused = self._refused(scratch[:n], number + start, out[start : start + n], behind)
                doubtful += [start + k for k in refused]
                if headers is not None:
                    headers[start : start + n] = self._headers(scratch[:n], out[start : start + n])
            else:  # a bad sector, or the image ends in here
                doubtful += range(start, start + n)
        spare.append((scratch, asides))
        return doubtful

    def _pixels(self, out: FrameRoom, start: int, count: int) -> Iterable[memoryview]:
        """Where the payloads of a batch go."""
        if isinstance(out, list):
            return [row.data[payload] for row in out[start : start + count] for payload in self._payloads]
        flat = out.reshape(-1).data[start * self.frame_bytes :]
        return map(flat.__getitem__, self._places[: count * len(self._payloads)])

    def _vectors(self, scratch: Bytes) -> list[memoryview]:
        """Where the headers of a batch go (even places; the odd ones are for pixels)."""
        aside = scratch.reshape(-1).data
        rows = range(0, scratch.size, self._row) if self._row else [0] * len(scratch)
        vectors: list[memoryview] = []
        for row in rows:
            for a, b in self._asides:
                vectors += (aside[row + a : row + b], aside)
        vectors[0] = aside[self._asides[0][0] + self._lead : self._asides[0][1]]
        return vectors

    def _headers(self, scratch: Bytes, out: FrameRoom) -> Words:
        """The headers of the frames just read."""
        return scratch.view("<u4").take(self._headers_at, axis=1)

    def _refused(self, scratch: Bytes, number: int, out: FrameRoom, behind: Bytes) -> list[int]:
        """Rows whose headers are not what arithmetic expects, or whose buffers waited long for the card."""
        words = scratch.view("<u4")
        found = words.take(self._columns, axis=1)
        counters = found[:, : len(self._base)]
        frames = number if len(scratch) == 1 else np.arange(number, number + len(scratch), dtype="<u4")[:, None]
        wanted = self._base + frames * self._step
        late: list[int] = []
        if found.shape != counters.shape:
            middle = (found.shape[1] + counters.shape[1]) // 2
            waited = found[:, counters.shape[1] : middle] - found[:, middle:]
            if waited.max() > LATE:
                late = np.flatnonzero((waited > LATE).any(axis=1)).tolist()
        last = len(out) - 1
        if number + last < self._end and out[last][-4:].tobytes() in _BLANK:
            late.append(last)  # what stands behind is not in hand
        if counters.tobytes() == wanted.tobytes():
            return late
        odd = np.flatnonzero((counters != wanted).any(axis=1))
        holes = odd[found[odd, self._marked] != self._marker] - 1  # one may begin in the last buffer before
        return sorted({*odd.tolist(), *holes[holes >= 0].tolist(), *late})


class PoolStencil(Stencil):
    """The same where a slow card tears buffers: whether a write was slow shows in the header of the buffer behind it.

    Parameters
    ----------
    run : Run
    framing : Framing
    ended : bool
        The recording ends with this run.
    """

    def __init__(self, run: Run, framing: Framing, ended: bool) -> None:
        super().__init__(run, framing)
        self._framing = framing
        self._more = self._lead + framing.head
        self._end = run.last_frame - run.first.frame if ended else -1

    def _refused(self, scratch: Bytes, number: int, out: FrameRoom, behind: Bytes) -> list[int]:
        refused = super()._refused(scratch, number, out, behind)
        last = len(out) - 1
        if number + last != self._end and not self._in_time(behind, number + len(out)):
            refused.append(last)
        return sorted({*refused, *(k - 1 for k in refused if k)})

    def _in_time(self, behind: Bytes, number: int) -> bool:
        """Whether the first buffer of a frame did not wait for the card."""
        header = behind[self._lead :].view(self._framing.dtype)
        place = self.run.first.written + number * len(self.run.cut) - self.run.first.index
        waited = header["write_timestamp"].astype(np.int64) - header["timestamp"]
        there = (header["length"] == self._framing.marker) & (header["write_buffer_count"] == place)
        return bool(there[0] and waited[0] <= LATE)


class FooterStencil(Stencil):
    """The same for whole frames that end in a footer: there is nothing aside, and the footer is in the pixels."""

    def __init__(self, run: Run, framing: Framing) -> None:
        super().__init__(run, framing)
        self._dtype = framing.dtype
        self.header_words = self._dtype.itemsize // 4

    def _headers(self, scratch: Bytes, out: FrameRoom) -> Words:
        ends = np.concatenate([row[-self._dtype.itemsize :] for row in out])
        return ends.view("<u4").reshape(len(out), -1)

    def _refused(self, scratch: Bytes, number: int, out: FrameRoom, behind: Bytes) -> list[int]:
        found = self._headers(scratch, out).view(self._dtype)["frame_num"][:, 0].tolist()
        first = self.run.first.frame + number
        return [k for k, frame in enumerate(found) if frame != first + k]


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def tiles(run: Run, payload: int, frame_bytes: int) -> bool:
    """Whether whole frames of a run tile the pixel row exactly."""
    lengths = run.cut.lengths
    return sum(lengths) == frame_bytes and all(n == payload for n in lengths[:-1])
