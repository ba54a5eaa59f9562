"""Clean card images of any length, written by arithmetic: a million frames need no simulated firmware."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from miniscope_xr.layout import load_layout
from miniscope_xr.layout.words import buffer_header_dtype

WIDTH = HEIGHT = 304
WORDS, SECTOR, BUFFER, RING = 12, 512, 40 * 512, 8
PAYLOAD = BUFFER - 4 * WORDS
LENGTHS = (PAYLOAD,) * 4 + (WIDTH * HEIGHT - 4 * PAYLOAD,)
STARTS = np.array([0, 40, 80, 120, 160]) * SECTOR  # of the buffers in their frame
FRAME_BYTES = 181 * SECTOR
PERIOD_MS = 50
READ_MS = np.array([25, 32, 39, 47, 51])  # behind the frame's beginning a buffer is full: in proportion to its bytes
LAYOUT = load_layout("v4-wirefree")
DTYPE = buffer_header_dtype(LAYOUT, WORDS)


def headers(first: int, n: int) -> np.ndarray:
    """Header words of frames ``first`` to ``first + n``: structured (n, 5)."""
    frame = first + np.arange(n)[:, None]
    index = np.arange(5)[None, :]
    count = frame * 5 + index
    table = np.zeros((n, 5), DTYPE)
    times = 40 + frame * PERIOD_MS + READ_MS[index]
    values = {
        "length": WORDS, "linked_list": count % RING, "frame_num": frame, "buffer_count": count,
        "frame_buffer_count": index, "write_buffer_count": count, "timestamp": times,
        "data_length": np.array(LENGTHS)[index], "write_timestamp": times + 2, "battery_voltage": 190, "ewl": 110,
    }  # fmt: skip
    for name, value in values.items():
        table[name] = value
    return table


def front(frames: int, counted: bool = True) -> bytes:
    """Everything before the data: settings, and the config sector of a clean stop."""
    sectors = np.zeros((LAYOUT.sectors.data, SECTOR // 4), "<u4")
    sectors[LAYOUT.sectors.header, :9] = [*LAYOUT.write_keys, 2, 10, 110, 0, 20]
    sectors[LAYOUT.sectors.config, :5] = [WIDTH, HEIGHT, 20, BUFFER, 5 * frames if counted else 0]
    return sectors.tobytes()


def write_image(path: Path, frames: int, batch: int = 500) -> Path:
    """Write a clean card of ``frames`` frames; the pixels are noise on a slowly moving gradient."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 24, (batch, HEIGHT, WIDTH), np.uint8)
    slope = np.add.outer(np.arange(HEIGHT), np.arange(WIDTH)).astype(np.uint16) // 4
    with open(path, "wb") as file:
        file.write(front(frames))
        for first in range(0, frames, batch):
            n = min(batch, frames - first)
            pixels = noise[:n] + ((slope + first) % 160).astype(np.uint8)
            block = np.zeros((n, FRAME_BYTES), np.uint8)
            words = headers(first, n).view(np.uint8).reshape(n, 5, 4 * WORDS)
            flat = pixels.reshape(n, -1)
            for b, (start, length) in enumerate(zip(STARTS, LENGTHS, strict=True)):
                block[:, start : start + 4 * WORDS] = words[:, b]
                block[:, start + 4 * WORDS : start + 4 * WORDS + length] = flat[:, b * PAYLOAD : b * PAYLOAD + length]
            file.write(block.data)
    return path


class EndlessCard:
    """A card that exists only as arithmetic: any size, and it counts what is read of it."""

    def __init__(self, frames: int, counted: bool = True, tail: int = 64) -> None:
        self.frames = frames
        self.size = LAYOUT.sectors.data * SECTOR + frames * FRAME_BYTES + tail * SECTOR
        self.reads: list[tuple[int, int]] = []
        self._front = front(frames, counted)

    def read(self, offset: int, length: int) -> bytes:
        self.reads.append((offset, length))
        out = bytearray(length)
        data = len(self._front)
        if offset < data:
            piece = self._front[offset : offset + length]
            out[: len(piece)] = piece
        first = max(offset - data, 0) // FRAME_BYTES
        last = min((offset + length - data) // FRAME_BYTES + 1, self.frames)
        for frame in range(first, last):
            words = headers(frame, 1)[0]
            for b in range(5):
                at = data + frame * FRAME_BYTES + int(STARTS[b]) - offset
                head = words[b].tobytes()
                lo, hi = max(at, 0), min(at + len(head), length)
                if lo < hi:
                    out[lo:hi] = head[lo - at : hi - at]
        return bytes(out)

    def readv(self, offset: int, buffers: list) -> int:
        raise NotImplementedError

    def gather(self, offsets: object, length: int) -> None:
        """No way to do many small reads at once: each counts."""

    def at_hand(self, offset: int) -> bool:
        return False

    def salvage(self, offset: int, length: int) -> tuple[bytes, list]:
        return self.read(offset, length), []
