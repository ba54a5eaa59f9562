"""The writing side of the firmware: one loop takes the oldest buffer of the ring to the card, or drops.

Everything odd on a card with drops follows from two things in main.c: the loop drops only when it finds itself lapped
by more than the ring, and while it waits for the card the DMA goes on, also into the slot that is being written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from miniscope_xr.layout import SECTOR
from miniscope_xr.tools.simulate.events import Event, RecordingEvents
from miniscope_xr.tools.simulate.ring import Ring
from miniscope_xr.tools.simulate.scene import Scenery
from miniscope_xr.tools.simulate.spec import Spec

FOREVER = float("inf")


@dataclass
class CardWrite:
    """One write: ``data`` went to ``sector``; None when the card refused it.

    ``doubtful``: its pixels may be right, but the headers cannot exclude that they are not.
    """

    recording: int
    sector: int
    n_sectors: int
    words: tuple[int, ...]
    status: str
    data: NDArray[np.uint8] | None
    doubtful: bool = False


@dataclass
class Ended:
    """How a recording ended: the counters, at which time (ms), and whether the firmware came to note it."""

    written: int
    dropped: int
    finished: bool
    t: float
    timed: bool = False  # by the record length


class Firmware(Ring):
    """A powered device; call :meth:`record` once for each recording.

    Parameters
    ----------
    spec, camera
        As for :class:`Ring`.
    events
        What happens.
    """

    def __init__(self, spec: Spec, camera: Scenery, events: Sequence[Event] = ()) -> None:
        super().__init__(spec, camera)
        self.events = events
        self.recording = 0
        self.sector = spec.layout.sectors.data
        self.writes: list[CardWrite] = []
        self._ewl_count = 0

    def record(self, start: float, frames: int | None, seconds: float | None) -> Ended:
        """Record from ``start`` (ms since power-on) until ``frames`` frames are written or ``seconds`` are over."""
        self.now = RecordingEvents.pick(self.events, self.recording)
        if start > 0:
            self.advance(start)
            self.state = "waiting"
            self.ir_presses += 1
        self.written = self.dropped = 0
        self.zero = start
        while self.state == "waiting":
            self.advance(self.step.end)
        ended = self._loop(start, frames, seconds)
        self.state = "idle"
        if ended.finished:
            self._pad(ended.t)
        self.recording += 1
        return ended

    def _loop(self, t: float, frames: int | None, seconds: float | None) -> Ended:
        ring, step, loss = self.spec.build.ring, self.spec.build.drop_step, self.now.loss
        limit = FOREVER if seconds is None else self.zero + 1000 * seconds
        dead = FOREVER if loss.at_ms is None else self.zero + loss.at_ms
        finished = True
        while True:
            self.advance(t)
            if t < min(self.busy_until, dead):  # an interrupt keeps the loop away
                t = min(self.busy_until, dead)
                continue
            position = self.written + self.dropped
            if frames is not None and position >= (self.count_after.get(frames, FOREVER) if frames else 0):
                break
            if t >= dead:
                finished = False
                break
            if self.count <= position + self.spec.build.write_waits:
                t = min(max(self.step.end, t), dead)
                continue
            if self.count > position + ring:  # overwritten before it was written; step: main.c numBuffersPerFrame
                if not step:  # the firmware divided by it: the counters fall to 0, and nothing more is written
                    self.dropped = -self.written
                    end = min(limit, dead) if limit < FOREVER else t
                    return Ended(self.written, self.dropped, end < dead, end, timed=limit < FOREVER)
                self.dropped += step - position % step
            elif self.written == loss.buffer:
                self._write(t, FOREVER, loss.torn_sectors or 0)
                finished = False
                break
            else:
                t = self._write(t, dead, None)
            if t >= limit:  # looked at only after a buffer was written or dropped
                return Ended(self.written, self.dropped, finished and t < dead, t, timed=True)
            self._scan_focus(t)
        return Ended(self.written, self.dropped, finished and t < dead, t)

    def _write(self, t: float, dead: float, sectors: int | None) -> float:
        """Write the slot that is due, or only some ``sectors`` of it; return when the card is done with it."""
        spec = self.spec
        slot = (self.written + self.dropped) % spec.build.ring
        length = int(self.words[slot, self.at["data_length"]])
        n = min(-(-(length + spec.header_bytes) // SECTOR), spec.build.buffer_sectors)
        self.put(
            slot, write_buffer_count=self.written, dropped_buffer_count=self.dropped, write_timestamp=self.clock(t)
        )
        times, end = self.pace(t, n)
        data = self._transfer(slot, times, end)
        status = self._status(data)
        kept = n if sectors is None else min(sectors, n)
        if dead < end:
            kept = int(np.searchsorted(times, dead))
            kept = kept if self.now.loss.torn_sectors is None else min(self.now.loss.torn_sectors, n)
        self.save(tuple(data[: spec.header_bytes].view("<u4").tolist()), data, status, kept)
        return min(end, dead)

    def save(self, words: tuple[int, ...], data: NDArray[np.uint8], status: str, sectors: int) -> None:
        """Put the first ``sectors`` of a write on the card, unless the card refuses it."""
        if not sectors:
            return
        kept: NDArray[np.uint8] | None = data[: sectors * SECTOR]
        if sectors < data.size // SECTOR:
            status = "torn"
        if self.written in self.now.failed:
            status, kept = "write_failed", None
        self.writes.append(CardWrite(self.recording, self.sector, sectors, words, status, kept))
        self.sector += sectors
        self.written += 1

    def pace(self, t: float, n: int) -> tuple[NDArray[np.float64], float]:
        """When each of ``n`` sectors leaves the ring, and when the card is done, for a write that begins at ``t``."""
        spec = self.spec
        times = np.asarray(t + spec.lead_ms + spec.sector_ms * np.arange(n + 1), np.float64)
        for stall in list(self.now.stalls):
            if stall.buffer is not None:
                first = stall.sector if stall.buffer == self.written else -1
            else:
                at = self.zero + (stall.at_ms or 0.0)
                first = int(np.searchsorted(times[:n], at)) if at < times[n] + spec.busy_ms else -1
            if first >= 0:
                times[min(first, n) :] += stall.ms
                self.now.stalls.remove(stall)
        return times[:n], float(times[n]) + spec.busy_ms

    def _transfer(self, slot: int, times: NDArray[np.float64], end: float) -> NDArray[np.uint8]:
        """Return the bytes that leave the ring, each sector as it is at its own time."""
        n = len(times)
        if self.untouched(slot, end):
            return self.slots[slot, : n * SECTOR].copy()
        out = np.empty(n * SECTOR, np.uint8)
        done = 0
        while done < n:  # sectors that leave before the DMA can come to this slot are copied in one go
            self.advance(float(times[done]))
            upto = done + 1
            if self.slot != slot or not self.step.size:
                upto = max(upto, int(np.searchsorted(times, self.step.end)))
            out[done * SECTOR : upto * SECTOR] = self.slots[slot, done * SECTOR : upto * SECTOR]
            done = upto
        return out

    def _status(self, data: NDArray[np.uint8]) -> str:
        """Whether the payload is what the header says."""
        spec = self.spec
        words = data[: spec.header_bytes].view("<u4")
        frame, index, length = (int(words[self.at[k]]) for k in ("frame_num", "frame_buffer_count", "data_length"))
        true = self.camera_pixels(frame, index, length)
        if true is None:
            return "wrong_content"
        skip = spec.header_bytes - spec.payload_at
        got = data[spec.payload_at : spec.payload_at + length]
        same = got[skip:] == true[skip : got.size]
        if same.all():
            return "good" if got.size == length else "good_but_short"
        whole = same[: same.size // 64 * 64].reshape(-1, 64).all(axis=1)
        return "mixed_content" if whole.any() else "wrong_content"

    def _scan_focus(self, t: float) -> None:
        """Step the EWL scan of v4 HEAD (main.c, recording): it begins at ``ewl`` and may pass ``stop`` by one step."""
        s, ms = self.spec.settings, self.clock(t)
        if s.get("ewl_scan_mode") != 1 or not 0 <= ms <= 1000 * s["record_length"]:
            return
        due = 1000 * s["ewl_scan_interval"] * (self._ewl_count + 1)
        if 0 < self.ewl <= min(255, s["ewl_scan_stop"]) and ms >= due:
            self._ewl_count += 1
            self.ewl = s["ewl_scan_start"] + self._ewl_count * s["ewl_scan_step"]

    def _pad(self, t: float) -> None:
        """Fill the open chunk as aa04ec3 does (main.c, stopRecording); currentBlock does not count it.

        The camera goes on meanwhile: each copy of slot 0 is what the slot holds then.
        """
        n = self.spec.build.buffer_sectors
        for i in range(self.now.padding):
            times, t = self.pace(t, n)
            data = self._transfer(0, times, t)
            words = tuple(data[: self.spec.header_bytes].view("<u4").tolist())
            self.writes.append(CardWrite(self.recording, self.sector + i * n, n, words, "padding", data))
