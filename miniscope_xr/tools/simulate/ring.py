"""The camera side of the firmware: DMA fills a ring of buffers, interrupts put headers on them."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from miniscope_xr.errors import OptionError
from miniscope_xr.layout.words import put
from miniscope_xr.tools.simulate.events import RecordingEvents
from miniscope_xr.tools.simulate.scene import Scenery, Uint8Image
from miniscope_xr.tools.simulate.spec import Spec


@dataclass
class Transfer:
    """Bytes the DMA moves into one slot between two times (ms); none at the end of a frame."""

    start: float
    end: float
    size: int
    done: int = 0


class Ring:
    """Ring buffer, DMA position and the counters of main.c.

    The DMA runs on its own: :meth:`advance` brings it to a time. It knows two interrupts, a full buffer
    (pcc_dma_cb, XDMAC_Handler) and the end of a frame (frameValid_cb, handleEndOfFrame).

    Parameters
    ----------
    spec
        Sizes and times.
    camera
        Camera frame number (from 0, the first recorded one) -> uint8 pixels (height, width).
    """

    def __init__(self, spec: Spec, camera: Scenery) -> None:
        self.spec = spec
        self.now = RecordingEvents()
        self.state = "recording"  # or idle, or waiting for the end of a frame to begin
        self.zero = 0.0  # start of the recording
        self.ir_presses = 0
        self.count = self.frame = self.index = self.written = self.dropped = 0
        self.ewl = spec.settings.get("ewl", 0)
        self.camera_of = {0: 0}  # camera frame that each frame number began with
        self.count_after: dict[int, int] = {}  # buffers captured when that many frames were over
        self.pixels = lru_cache(maxsize=4 + 2 * spec.build.ring)(lambda c: self._flat(camera(c)))
        self.slots = np.zeros((spec.build.ring, spec.buffer_bytes), np.uint8)
        self.slot = 0  # where the DMA is, with ``_fill`` bytes of the slot's payload filled
        self.words = self.slots.view("<u4")
        self.fields = spec.own.fields_for(spec.build.header_words)
        self.at = {name: f.word for name, f in self.fields.items()}
        # work in progress (3787c5c) misses the frame's first interrupt, so that each is one buffer behind the data
        self._behind = 0 < spec.build.buffers_a_frame < len(spec.build.lengths(spec.build.width, spec.build.height))
        self._skipped = False  # that interrupt, in this frame
        self._served: set[float] = set()  # windows of remote edges in which a buffer's interrupt waits already
        self.busy_until = 0.0  # interrupts keep the main loop away
        self._fill = self._last_fill = 0
        self._camera_frame = 0
        self._frame_start = spec.frame_start(0)
        self._done = 0  # bytes of the camera frame that were moved
        self._capturing = True
        self.step = self._next_step()

    def _flat(self, frame: Uint8Image) -> Uint8Image:
        pixels = np.ascontiguousarray(frame, np.uint8).reshape(-1)
        if pixels.size != self.spec.frame_bytes:
            wanted = f"{self.spec.build.height}x{self.spec.build.width}"
            raise OptionError(f"camera: a frame of {np.shape(frame)} pixels, where the build has {wanted}")
        return pixels

    def _next_step(self) -> Transfer:
        size = self.spec.frame_bytes
        if not self._capturing:
            self._done = size
        n = min(self.spec.payload - self._fill, size - self._done)
        scale = self.spec.readout_ms / size
        return Transfer(self._frame_start + scale * self._done, self._frame_start + scale * (self._done + n), n)

    def _copy(self, upto: int) -> None:
        step = self.step
        if upto > step.done:
            to = self.spec.payload_at + self._fill
            pixels = self.pixels(self._camera_frame)[self._done + step.done : self._done + upto]
            self.slots[self.slot, to + step.done : to + upto] = pixels
            step.done = upto

    def advance(self, t: float) -> None:
        """Let the camera run until ``t``."""
        while self.step.end <= t:
            self._copy(self.step.size)
            if self.step.size:
                self._data_landed()
            else:
                self._frame_ended()
            self.step = self._next_step()
        step = self.step
        if step.size and step.start < t:
            landed = int((t - step.start) / (step.end - step.start) * step.size)
            self._copy(landed // 4 * 4)

    def _data_landed(self) -> None:
        self._done += self.step.size
        self._fill += self.step.size
        if self._fill < self.spec.payload:
            return
        if self._behind and not self._skipped:
            self._skipped = True
        elif self.state == "recording" and not self._lost("buffer") and self._interrupts():
            self._set_header(self.spec.payload)
            self.count += 1
            self.index += 1
        self.slot = (self.slot + 1) % self.spec.build.ring
        self._fill = 0

    def _frame_ended(self) -> None:
        """Close the frame's last, shorter buffer; the DMA starts over in the next slot."""
        if self.state == "recording" and not self._lost("frame"):
            if self._capturing:
                self._last_fill = self._fill
            self._interrupts(only_one=False)
            self._set_header(self._last_fill)  # after an IR stop the DMA's counter keeps its last value
            self.count += 1
            self.frame += 1
            self.index = 0
            self.slot = self.count % self.spec.build.ring
            self._fill = 0
            self.count_after[self.frame] = self.count
            self.camera_of[self.frame] = self._camera_frame + 1
            if self.step.end - self.zero >= self.now.ir_stop:
                self._capturing = False
        elif self.state == "waiting":
            self.count = self.frame = self.index = 0
            self.camera_of = {0: self._camera_frame + 1}
            self.count_after = {}
            self.state = "recording"
            if self.spec.is_daq or self.spec.build.restarts:  # imageCaptureDMAStart; else the DMA stays where it is
                self.slot = self._fill = 0
                self._capturing = True
        self._camera_frame += 1
        self._skipped = False
        self._done = 0
        self._frame_start = self.spec.frame_start(self._camera_frame)

    def _lost(self, kind: str) -> bool:
        for event in self.now.lost:
            if event.kind == kind and event.frame == self.frame and (kind == "frame" or event.index == self.index):
                self.now.lost.remove(event)
                return True
        return False

    def _interrupts(self, only_one: bool = True) -> bool:
        """Whether the interrupt due now is served: while one of the remote is, one other waits, the rest are lost."""
        edge = self.edge_at(self.step.end)
        if edge is None:
            return True
        if only_one and edge in self._served:
            return False
        self._served.add(edge)
        return True

    def edge_at(self, t: float) -> float | None:
        """When the remote's interrupt that keeps the device busy at ``t`` is over; None if there is none."""
        return next((self.zero + end for start, end in self.now.busy if start <= t - self.zero < end), None)

    def clock(self, t: float) -> int:
        """Milliseconds the firmware counts at ``t``: since the recording's start, on the DAQ since power-on."""
        since = t if self.spec.is_daq else t - self.zero
        for start, end in self.now.busy:  # the timer's interrupt waits, too: of so many ticks one is counted
            since -= max(min(t - self.zero, end) - start - 1, 0)
        return int(since * (1 + self.spec.clock_ppm * 1e-6))

    def put(self, slot: int, **values: int) -> None:
        """Set header fields by name; names the build's header is too short for are left out."""
        for name, value in values.items():
            if name not in self.at:
                continue
            bits = self.fields[name].bits
            if bits is None:
                self.words[slot, self.at[name]] = value & 0xFFFFFFFF
            else:
                mask = (1 << bits[1] - bits[0] + 1) - 1
                kept = int(self.words[slot, self.at[name]]) & ~(mask << bits[0])
                self.words[slot, self.at[name]] = kept | (value & mask) << bits[0]

    def _set_header(self, length: int) -> None:
        """Do what setBufferHeader does, at the end of the current step."""
        held, slot = self.edge_at(self.step.end), self.count % self.spec.build.ring
        t = held or self.step.end
        time = self.clock(t) - (held is not None)  # the tick that waits, too, is counted behind this interrupt
        self.busy_until = max(self.busy_until, t)
        self.put(
            slot, length=self.spec.build.marker, linked_list=slot, frame_num=self.frame, data_length=length,
            buffer_count=self.count, frame_buffer_count=self.index, write_buffer_count=self.written,
            dropped_buffer_count=self.dropped, timestamp=time, ewl=self.ewl, orientation_0=0, orientation_1=0,
            battery_voltage=self.spec.battery_at(t, self.ir_presses), **self._more_words(t),
        )  # fmt: skip

    def _more_words(self, t: float) -> dict[str, int]:
        """Words of the firmwares of 2026: temperatures, wireless power, one byte of the version record, a CRC."""
        if "mcu_temperature" not in self.at and "version_byte" not in self.at:
            return {"wireless_power": 133}
        degrees = -129 + int(t / 11)  # 0.01 degC, warming up
        return {
            "mcu_temperature": degrees, "sensor_temperature": 31, "wireless_power": 133, "black_level": 0x04030201,
            "version_byte": self.version_record[self.count % len(self.version_record)],
            "crc": zlib.crc32(self.count.to_bytes(4, "little")) & 0xFFFFFF,  # fits nothing, as on real cards
        }  # fmt: skip

    @cached_property
    def version_record(self) -> bytes:
        """The version record this firmware spreads over its buffers."""
        spec, record = self.spec, self.spec.layout.record
        if record is None:
            return bytes(1)
        block = bytearray(record.length)
        known = {
            "format": 1, "version_minor": 5, "header_layout": spec.build.header_words - 10, "device": 2,
            "width": spec.build.width, "height": spec.build.height, "fs": round(1000 / spec.period_ms),
            "ring": spec.build.ring, "buffer_sectors": spec.build.buffer_sectors,
        }  # fmt: skip
        put(block, record.fields, {name: value for name, value in known.items() if name in record.fields})
        block[0] = record.start
        block[-1] = (record.total - sum(block[:-1])) % 256
        return bytes(block)

    def untouched(self, slot: int, until: float) -> bool:
        """Whether the DMA surely leaves ``slot`` alone from now until the given time."""
        step = self.step
        return step.end >= until and (self.slot != slot or not step.size or step.start >= until)

    def camera_pixels(self, frame: int, index: int, length: int) -> NDArray[np.uint8] | None:
        """Return what the camera saw where buffer ``index`` of ``frame`` belongs; None for a frame never seen."""
        first = self.camera_of.get(frame)
        if first is None:
            return None
        skip, start = divmod(index * self.spec.payload, self.spec.frame_bytes)
        found = self.pixels(first + skip)[start : start + length]
        while found.size < length:  # a frame whose end was missed goes on with the next one
            skip += 1
            found = np.concatenate([found, self.pixels(first + skip)[: length - found.size]])
        return found
