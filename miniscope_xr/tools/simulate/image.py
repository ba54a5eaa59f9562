"""The image of a card: sectors put together, and what a perfect reader gets out of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miniscope_xr.layout import SECTOR, Build, Field, Layout
from miniscope_xr.layout.words import put
from miniscope_xr.tools.simulate.events import BadHeight
from miniscope_xr.tools.simulate.firmware import CardWrite, Ended
from miniscope_xr.tools.simulate.spec import Spec

# Writes whose bytes are not a buffer of the recording, whatever their header says.
_NOT_THERE = ("write_failed", "padding", "beyond_image_end")
# Of two copies of a buffer the one with the right pixels counts, of two equal ones the later.
_TRUST = {"wrong_content": 0, "mixed_content": 1}
_TORN = ("wrong_content", "mixed_content", "torn")


@dataclass(frozen=True)
class Buffer:
    """One write of the firmware (v3: one frame, with its footer as ``words``).

    ``status`` is good, good_but_short, mixed_content, wrong_content, torn, truncated, beyond_image_end,
    write_failed or padding. ``words`` are the header words as the firmware sent them to the card; ``n_sectors`` the
    sectors that got there; ``length`` the data length in bytes that the header gives.
    """

    recording: int
    sector: int
    n_sectors: int
    words: tuple[int, ...]
    status: str
    frame_num: int
    index: int
    length: int
    doubtful: bool = False


@dataclass(frozen=True)
class Frame:
    """A frame with a buffer on the card.

    ``present``: bit b for buffer b; ``doubtful``: those of them that the headers leave in doubt (``present`` without
    them is right as well); ``complete``: every byte the camera saw is there; ``pieces``: (first byte in the
    frame, bytes, offset on the card) of each buffer.
    """

    recording: int
    frame_num: int
    present: int
    complete: bool
    pieces: tuple[tuple[int, int, int], ...]
    doubtful: int = 0


@dataclass(frozen=True, eq=False)
class SimulatedCard:
    """A card image and everything that is known about it."""

    data: bytes
    spec: Spec
    buffers: tuple[Buffer, ...]
    n_recordings: int

    @property
    def layout(self) -> Layout:
        """Layout of the card."""
        return self.spec.layout

    @property
    def build(self) -> Build:
        """Firmware build that wrote it."""
        return self.spec.build

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the image to ``path``."""
        path = Path(path)
        path.write_bytes(self.data)
        return path

    def end_sector(self, recording: int = 0) -> int:
        """Return the first sector behind the data of ``recording``."""
        ends = [b.sector + b.n_sectors for b in self.buffers if b.recording == recording and b.status != "padding"]
        return max(ends, default=self.layout.sectors.data)

    @cached_property
    def frames(self) -> tuple[Frame, ...]:
        """Frames with a buffer on the card, by recording and frame number."""
        spec = self.spec
        found: dict[tuple[int, int], list[Buffer]] = {}
        for b in sorted(self.buffers, key=lambda b: _TRUST.get(b.status, 2)):
            footer_lost = spec.whole_frames and b.status in ("torn", "truncated")
            if b.status not in _NOT_THERE and not footer_lost and not (spec.drops_torn and b.status in _TORN):
                found.setdefault((b.recording, b.frame_num), []).append(b)
        return tuple(self._frame(*key, buffers) for key, buffers in sorted(found.items()))

    def _frame(self, recording: int, number: int, buffers: list[Buffer]) -> Frame:
        """One frame of what the card has of it, the buffers that are trusted least first."""
        spec = self.spec
        pieces, right = [], dict[int, int]()
        for b in buffers:
            offset, start = b.sector * SECTOR + spec.payload_at, b.index * spec.payload
            # nothing on the card says where a torn buffer ends: its tail is what the card held before
            kept = b.length if b.status == "torn" else b.n_sectors * SECTOR - spec.payload_at
            room = min(kept, spec.frame_bytes - start, len(self.data) - offset)
            pieces.append((start, max(0, min(b.length, room)), offset))
            if b.status not in _TRUST and b.status != "torn":
                right[start] = max(right.get(start, 0), pieces[-1][1])
        complete = sum(right.values()) == spec.frame_bytes
        there, sure = {b.index for b in buffers if b.index < 32}, {b.index for b in buffers if not b.doubtful}
        present, doubtful = (sum(1 << index for index in some) for some in (there, there - sure))
        return Frame(recording, number, present, complete, tuple(pieces), doubtful)

    def expected(self, recording: int = 0) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.uint32]]:
        """Return what a perfect reader returns.

        Returns
        -------
        frame_num : int64 (n,)
            Numbers of the frames with a buffer on the card, rising.
        video : uint8 (n, height, width)
            The bytes as they are on the card, 0 where a buffer never reached it. Of two copies of a buffer the one with
            the right pixels, of two equal ones the later.
        present : uint32 (n,)
            Bit b: buffer b of the frame is on the card.
        """
        frames = [f for f in self.frames if f.recording == recording]
        card = np.frombuffer(self.data, np.uint8)
        video = np.zeros((len(frames), self.spec.frame_bytes), np.uint8)
        for row, frame in zip(video, frames, strict=True):
            for start, length, offset in frame.pieces:
                row[start : start + length] = card[offset : offset + length]
        return (
            np.array([f.frame_num for f in frames], np.int64),
            video.reshape(len(frames), self.build.height, self.build.width),
            np.array([f.present for f in frames], np.uint32),
        )


def _sector(fields: Mapping[str, Field], values: Mapping[str, int]) -> bytearray:
    block = bytearray(SECTOR)
    put(block, fields, {name: value for name, value in values.items() if name in fields})
    return block


def header_sector(spec: Spec) -> bytearray:
    """Make the header sector."""
    block = _sector(spec.layout.header, spec.settings)
    if spec.write_keys:
        block[:16] = b"".join(key.to_bytes(4, "little") for key in spec.layout.write_keys)
    return block


def config_sector(spec: Spec, ended: Ended | None, height: BadHeight) -> bytearray | None:
    """Make the config sector; ``ended`` is the last recording that was finished (main.c, stopRecording)."""
    if spec.layout.sectors.config is None or spec.over_pixels:
        return None
    # the DAQ stores its own FRAME_RATE, the others copy the setting
    fs = round(spec.build.fs or 20) if spec.is_daq else spec.settings.get("fs", 20)
    wide, high = spec.build.config_frame or (spec.build.width, spec.build.height)
    values = {"width": wide, "height": high, "fs": fs, "buffer_size": spec.buffer_bytes}
    if not spec.is_daq and ended is not None:
        values.update(n_buffers_recorded=ended.written, n_buffers_dropped=ended.dropped)
    elif "power-on" not in spec.build.config_written:
        return None
    elif spec.is_daq and ended is not None and not height.refused:
        counts = (ended.written & 255) | (ended.dropped & 255) << 8
        values["height"] = counts if height.value is None else height.value
    return _sector(spec.layout.config, values)


def assemble(
    spec: Spec, writes: Sequence[CardWrite], config: bytearray | None, under: bytes, fill: int, tail: int, n: int
) -> SimulatedCard:
    """Put everything where it belongs, over what was on the card before."""
    sectors = spec.layout.sectors
    end = max([sectors.data, *(w.sector + w.n_sectors for w in writes)]) + tail
    image = np.full(max(end * SECTOR, len(under)), fill, np.uint8)
    image[: sectors.data * SECTOR] = 0
    image[: len(under)] = np.frombuffer(under, np.uint8)
    parts: list[tuple[int, Any]] = [(sectors.header, header_sector(spec))]
    if config is not None and sectors.config is not None:
        parts.append((sectors.config, config))
    parts += [(w.sector, w.data) for w in writes if w.data is not None]
    for sector, data in parts:
        image[sector * SECTOR : sector * SECTOR + len(data)] = np.frombuffer(data, np.uint8)
    if spec.build.restarts:  # each recording lies over the one before
        last = max((w.recording for w in writes), default=0)
        writes, n = [replace(w, recording=0) for w in writes if w.recording == last], min(n, 1)
    return SimulatedCard(image.tobytes(), spec, tuple(_describe(w, spec) for w in writes), n)


def _describe(w: CardWrite, spec: Spec) -> Buffer:
    part = spec.layout.footer or spec.layout.buffer
    frame = w.words[part["frame_num"].word]
    index, length = 0, spec.frame_bytes
    if not spec.whole_frames:
        index, length = (w.words[part[name].word] for name in ("frame_buffer_count", "data_length"))
    return Buffer(w.recording, w.sector, w.n_sectors, w.words, w.status, frame, index, length, w.doubtful)


def truncated(card: SimulatedCard, byte: int) -> SimulatedCard:
    """Cut the image off at ``byte``."""
    cut = []
    for b in card.buffers:
        start, end = b.sector * SECTOR, b.sector * SECTOR + min(card.spec.payload_at + b.length, b.n_sectors * SECTOR)
        seen = start + (0 if card.spec.whole_frames else card.spec.header_bytes)
        status = "beyond_image_end" if byte <= seen else "truncated" if byte < end else b.status
        cut.append(b if b.status == "write_failed" else replace(b, status=status))
    return SimulatedCard(card.data[:byte], card.spec, tuple(cut), card.n_recordings)
