"""The firmware as an event model: camera DMA fills a ring of buffers while one loop writes them to the card.

Two clocks run against each other, as in main.c. The DMA completes a buffer at its time in the frame's readout and an
interrupt puts a header on it (``setBufferHeader``); the main loop (``recording``) writes the oldest buffer whenever one
is ready, and drops when it finds itself lapped by more than the ring. While the loop waits for the card the DMA goes
on, so a slot may be refilled under a write: everything odd on a card with drops follows from that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from miniscope_xr.tools.simulate.events import Event, EventsOf
from miniscope_xr.tools.simulate.scene import Camera
from miniscope_xr.tools.simulate.spec import Spec

_FOREVER = float("inf")


@dataclass
class Written:
    """One write of the firmware: ``data`` went to ``sector`` (``data`` is None when the card refused it)."""

    recording: int
    sector: int
    n_sectors: int
    words: tuple[int, ...]
    status: str
    data: NDArray[np.uint8] | None


@dataclass
class Ended:
    """How a recording ended."""

    written: int
    dropped: int
    finished: bool


@dataclass
class _Step:
    """Bytes the DMA moves between two times; none at the end of a frame."""

    start: float
    end: float
    size: int
    done: int = 0


class Firmware:
    """A powered device from power-on; call :meth:`record` once for each recording.

    Parameters
    ----------
    spec
        Sizes and times.
    camera
        Camera frame number (from 0, the first recorded one) -> uint8 pixels (height, width).
    events
        What happens.
    """

    def __init__(self, spec: Spec, camera: Camera, events: Sequence[Event] = ()) -> None:
        self.spec = spec
        self.events = events
        self.recording = 0
        self.sector = spec.layout.sectors.data
        self.writes: list[Written] = []
        self._pixels = lru_cache(maxsize=4 + 2 * spec.build.ring)(lambda c: _flat(camera(c), spec))
        self._ring = np.zeros((spec.build.ring, spec.buffer_bytes), np.uint8)
        self._words = self._ring.view("<u4")
        names = {n: f.word for n, f in spec.layout.buffer.items() if f.word < spec.build.header_words}
        self._at = names
        # DMA position
        self._c = 0
        self._frame_start = spec.frame_start(0)
        self._done = 0
        self._slot = 0
        self._fill = 0
        self._capturing = True
        self._state = "recording"
        # counters of main.c
        self._count = self._frame = self._index = self._written = self._dropped = 0
        self._ewl = spec.settings.get("ewl", 0)
        self._ewl_count = 0
        self._zero = 0.0
        self._last_fill = 0
        self._camera_of: dict[int, int] = {0: 0}
        self._count_at_frame: dict[int, int] = {}
        self._now = EventsOf()
        self._step = self._next_step()

    # the camera side -------------------------------------------------------------------------------------------

    def _next_step(self) -> _Step:
        size = self.spec.frame_bytes
        n = min(self.spec.payload - self._fill, size - self._done) if self._capturing else 0
        if not self._capturing:
            self._done = size
        scale = self.spec.readout_ms / size
        return _Step(self._frame_start + scale * self._done, self._frame_start + scale * (self._done + n), n)

    def _copy(self, step: _Step, upto: int) -> None:
        if upto > step.done:
            pixels = self._pixels(self._c)
            to = self.spec.payload_at + self._fill
            self._ring[self._slot, to + step.done : to + upto] = pixels[self._done + step.done : self._done + upto]
            step.done = upto

    def _advance(self, t: float) -> None:
        """Let the camera run until ``t``."""
        while self._step.end <= t:
            self._copy(self._step, self._step.size)
            if self._step.size:
                self._data_landed(self._step)
            else:
                self._frame_ended(self._step.end)
            self._step = self._next_step()
        step = self._step
        if step.start < t and step.size:
            landed = int((t - step.start) / (step.end - step.start) * step.size)
            self._copy(step, landed // 4 * 4)

    def _data_landed(self, step: _Step) -> None:
        self._done += step.size
        self._fill += step.size
        if self._fill < self.spec.payload:
            return
        if self._state == "recording" and not self._lost("buffer"):
            self._mark(step.end, self.spec.payload)
            self._count += 1
            self._index += 1
        self._slot = (self._slot + 1) % self.spec.build.ring
        self._fill = 0

    def _lost(self, kind: str) -> bool:
        for event in self._now.lost:
            if event.kind == kind and event.frame == self._frame and (kind == "frame" or event.index == self._index):
                self._now.lost.remove(event)
                return True
        return False

    def _frame_ended(self, t: float) -> None:
        """frameValid_cb: the frame's last, shorter buffer; the DMA starts over in the next slot."""
        if self._state == "recording" and not self._lost("frame"):
            if self._capturing:
                self._last_fill = self._fill
            self._mark(t, self._last_fill)
            self._count += 1
            self._frame += 1
            self._index = 0
            self._slot = self._count % self.spec.build.ring
            self._fill = 0
            self._count_at_frame[self._frame] = self._count
            self._camera_of[self._frame] = self._c + 1
            self._camera_of.pop(self._frame - 64, None)
            if self.spec.is_daq and t - self._zero >= self._now.ir_stop:
                self._capturing = False
        elif self._state == "waiting":  # counters start over, yet the running DMA is not moved to slot 0
            self._count = self._frame = self._index = 0
            if self.spec.is_daq:  # imageCaptureDMAStart does move it
                self._slot = self._fill = 0
                self._capturing = True
            self._camera_of = {0: self._c + 1}
            self._count_at_frame = {}
            self._state = "recording"
        self._c += 1
        self._done = 0
        self._frame_start = self.spec.frame_start(self._c)

    def _put(self, slot: int, **values: int) -> None:
        for name, value in values.items():
            if name in self._at:
                self._words[slot, self._at[name]] = value & 0xFFFFFFFF

    def _ms(self, t: float) -> int:
        return int((t - self._zero) * (1 + self.spec.clock_ppm * 1e-6))

    def _mark(self, t: float, length: int) -> None:
        """setBufferHeader."""
        slot = self._count % self.spec.build.ring
        self._put(
            slot, length=self.spec.build.header_words, linked_list=slot, frame_num=self._frame,
            buffer_count=self._count, frame_buffer_count=self._index, write_buffer_count=self._written,
            dropped_buffer_count=self._dropped, timestamp=self._ms(t), data_length=length,
            battery_voltage=self.spec.battery_at(t), ewl=self._ewl,
        )  # fmt: skip
        for name in ("orientation_0", "orientation_1"):
            self._put(slot, **{name: 0})

    # the writing side ------------------------------------------------------------------------------------------

    def record(self, start: float, frames: int | None, seconds: float | None) -> tuple[Ended, float]:
        """Record until ``frames`` frames are on the card, or ``seconds`` are over; return how and when it ended."""
        self._now = EventsOf.recording(self.events, self.recording)
        self._written = self._dropped = 0
        self._zero = start
        if start > 0:
            self._advance(start)
            self._state = "waiting"
            while self._state == "waiting":
                self._advance(self._step.end)
        ended, t = self._loop(start, frames, seconds)
        self._state = "idle"
        if ended.finished:
            self._pad()
        self.recording += 1
        return ended, t

    def _loop(self, t: float, frames: int | None, seconds: float | None) -> tuple[Ended, float]:
        ring, step, loss = self.spec.build.ring, self.spec.build.drop_step, self._now.loss
        limit = _FOREVER if seconds is None else self._zero + 1000 * seconds
        dead = _FOREVER if loss.at_ms is None else self._zero + loss.at_ms
        while True:
            self._advance(t)
            position = self._written + self._dropped
            if frames is not None and position >= self._count_at_frame.get(frames, 0 if frames == 0 else 1 << 60):
                return Ended(self._written, self._dropped, True), t
            if t >= dead:
                return Ended(self._written, self._dropped, False), t
            if self._count <= position:
                t = min(max(self._step.end, t), dead)
                continue
            if self._count > position + ring:  # lapped by more than the ring
                self._dropped += step - position % step
            else:
                if self._written == loss.buffer:
                    if loss.torn_sectors:
                        self._write(t, _FOREVER, loss.torn_sectors)
                    return Ended(self._written, self._dropped, False), t
                t = self._write(t, dead, loss.torn_sectors)
                if t >= dead:
                    return Ended(self._written, self._dropped, False), t
            if t >= limit:
                return Ended(self._written, self._dropped, True), t
            self._scan_focus(t)

    def _write(self, t: float, dead: float, torn: int | None) -> float:
        """Write the slot that is due; return when the card is done with it."""
        spec = self.spec
        slot = (self._written + self._dropped) % spec.build.ring
        length = int(self._words[slot, self._at["data_length"]])
        n = min(-(-(length + spec.header_bytes) // spec.sector), spec.build.buffer_sectors)
        self._put(
            slot, write_buffer_count=self._written, dropped_buffer_count=self._dropped, write_timestamp=self._ms(t)
        )
        times, end = self._pace(t, n)
        data = self._transfer(slot, times, end, n)
        kept = n
        if dead < end or (torn is not None and self._written == self._now.loss.buffer):
            kept = min(torn, n) if torn is not None else int(np.searchsorted(times, dead))
        status = self._status(data, n)
        if kept < n:
            status, data = "torn", data[: kept * spec.sector]
        if self._written in self._now.failed:
            status = "write_failed"
        if kept:
            words = tuple(data[: spec.header_bytes].view("<u4").tolist())
            refused = status == "write_failed"
            self.writes.append(Written(self.recording, self.sector, kept, words, status, None if refused else data))
            self.sector += kept
            self._written += 1
        return min(end, dead)

    def _pace(self, t: float, n: int) -> tuple[NDArray[np.float64], float]:
        """When each of ``n`` sectors leaves the ring, and when the card is done."""
        spec = self.spec
        times = t + spec.lead_ms + spec.sector_ms * np.arange(n + 1)
        for stall in list(self._now.stalls):
            if stall.buffer is not None:
                first = stall.sector if stall.buffer == self._written else -1
            else:
                at = self._zero + (stall.at_ms or 0.0)
                first = int(np.searchsorted(times[:n], at)) if at < times[n] + spec.busy_ms else -1
            if first >= 0:
                times[min(first, n) :] += stall.ms
                self._now.stalls.remove(stall)
        return times[:n], float(times[n]) + spec.busy_ms

    def _transfer(self, slot: int, times: NDArray[np.float64], end: float, n: int) -> NDArray[np.uint8]:
        """The bytes that leave the ring, each sector as it is at its own time."""
        size = self.spec.sector
        if self._step.end >= end and (self._slot != slot or self._step.start >= end or not self._step.size):
            return self._ring[slot, : n * size].copy()
        out = np.empty(n * size, np.uint8)
        done = 0
        while done < n:  # sectors that leave before the camera touches the ring again are copied in one go
            self._advance(float(times[done]))
            upto = done + 1
            if self._slot != slot or not self._step.size:
                upto = max(upto, int(np.searchsorted(times, self._step.end)))
            upto = min(upto, n)
            out[done * size : upto * size] = self._ring[slot, done * size : upto * size]
            done = upto
        return out

    def _status(self, data: NDArray[np.uint8], n: int) -> str:
        """Whether the payload is what the header says, in the words of the card descriptions."""
        spec = self.spec
        words = data[: spec.header_bytes].view("<u4")
        frame, index, length = (int(words[self._at[k]]) for k in ("frame_num", "frame_buffer_count", "data_length"))
        first = self._camera_of.get(frame)
        if first is None:
            return "wrong_content"
        start = index * spec.payload
        c, start = first + start // spec.frame_bytes, start % spec.frame_bytes
        true = self._pixels(c)[start : start + length]
        if true.size < length:
            true = np.concatenate([true, self._pixels(c + 1)[: length - true.size]])
        got = data[spec.payload_at : spec.payload_at + length]
        skip = spec.header_bytes - spec.payload_at
        same = got[skip:] == true[skip : got.size]
        if same.all():
            return "good" if got.size == length else "good_but_short"
        whole = same[: same.size // 64 * 64].reshape(-1, 64).all(axis=1)
        return "mixed_content" if whole.any() else "wrong_content"

    def _scan_focus(self, t: float) -> None:
        """The EWL scan of v4 HEAD (main.c, recording): begins at ``ewl``, may pass ``stop`` by one step."""
        s, ms = self.spec.settings, self._ms(t)
        if s.get("ewl_scan_mode") != 1 or not s["record_length"] or ms > 1000 * s["record_length"]:
            return
        if 0 < self._ewl <= min(255, s["ewl_scan_stop"]) and ms >= 1000 * s["ewl_scan_interval"] * (
            self._ewl_count + 1
        ):
            self._ewl_count += 1
            self._ewl = s["ewl_scan_start"] + self._ewl_count * s["ewl_scan_step"]

    def _pad(self) -> None:
        n, at = self.spec.build.buffer_sectors, self.sector
        for _ in range(self._now.padding):
            data = self._ring[0].copy()
            words = tuple(data[: self.spec.header_bytes].view("<u4").tolist())
            self.writes.append(Written(self.recording, at, n, words, "padding", data))
            at += n


def _flat(frame: NDArray[np.uint8], spec: Spec) -> NDArray[np.uint8]:
    pixels = np.ascontiguousarray(frame, np.uint8).reshape(-1)
    if pixels.size != spec.frame_bytes:
        wanted = f"{spec.build.width}x{spec.build.height}"
        raise ValueError(f"the camera gave {pixels.size} pixels, a frame has {spec.frame_bytes} ({wanted})")
    return pixels
