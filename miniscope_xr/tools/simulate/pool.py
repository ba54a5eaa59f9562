"""The V4 firmware of 2026 (v4-wirefree-2026): whole buffers, a pool between capture and card, a driver that gives up.

The capture fills ring slot ``buffer_count % 8`` and asks the pool for a place in its queue; the writer takes the slots
in their order. When the queue is full the place is refused, but the capture goes on: from then on the writer reads
slots that are ``D`` buffers (the refused ones) behind the capture. With D = 2:

    captured     127 128 129 130 131 ...      (128 and 129 found no place)
    written                      121 122 ...  reads slots 1, 2, ...: 129 and 130, their new content
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from miniscope_xr.layout import SECTOR
from miniscope_xr.tools.simulate.events import Event, RecordingEvents
from miniscope_xr.tools.simulate.firmware import FOREVER, CardWrite, Ended, Firmware
from miniscope_xr.tools.simulate.scene import Scenery
from miniscope_xr.tools.simulate.spec import Spec

_REFUSED = 0.05  # ms until the driver gives up on a card that it knows to be busy


class Pool(Firmware):
    """A powered device with the firmware of 2026; call :meth:`record` once for each recording.

    Every recording begins at the first data sector, over the one before.
    """

    def __init__(self, spec: Spec, camera: Scenery, events: Sequence[Event] = ()) -> None:
        super().__init__(spec, camera, events)
        self._begun = 0.0  # when the recording began
        self._first = 0  # buffer_count at its begin
        self._asked = 0  # buffers captured for which the pool was asked
        self._accepted = 0  # that found a place in the queue
        self._taken = 0  # that the writer took out again
        self._writing = False  # the slot being written keeps its place until it is on the card
        self._free_at = 0.0  # when the card listens again after the driver gave up
        self._goes_on = False  # a timed stop lets the capture go on
        self._completed: dict[int, int] = {}  # timestamp of each buffer captured

    def record(self, start: float, frames: int | None, seconds: float | None) -> Ended:
        """Record from ``start`` (ms since power-on) until ``frames`` frames are captured or ``seconds`` are over."""
        self.now = RecordingEvents.pick(self.events, self.recording)
        self.sector, self.written, self._begun = self.spec.layout.sectors.data, 0, start
        self.advance(start)
        if self.recording and not self._goes_on:
            self.state, self.zero = "waiting", start
            while self.state == "waiting":
                self.advance(self.step.end)
        self._first = self._asked = self.count
        self._accepted = self._taken = 0
        ended = self._loop(start, frames, seconds)
        self._goes_on = ended.timed
        self.state = "recording" if ended.timed else "idle"
        self.recording += 1
        return ended

    def _loop(self, t: float, frames: int | None, seconds: float | None) -> Ended:
        limit = FOREVER if seconds is None else self._begun + 1000 * seconds
        dead = FOREVER if self.now.loss.at_ms is None else self._begun + self.now.loss.at_ms
        begin = self.frame
        while True:
            self.advance(t)
            if t < min(self.busy_until, dead):
                t = min(self.busy_until, dead)
            elif t >= dead:
                return Ended(self.written, 0, False, dead)
            elif frames is not None and self.frame >= begin + frames and self._taken >= self._accepted:
                return Ended(self.written, 0, True, t)
            elif t >= limit:
                return Ended(self.written, 0, True, t, timed=True)
            elif self.frame == begin or self._taken >= self._accepted:  # the first frame is whole before any is written
                t = min(max(self.step.end, t), dead, limit)
            elif self.written == self.now.loss.buffer:
                self._write(t, FOREVER, self.now.loss.torn_sectors or 0)
                return Ended(self.written, 0, False, t)
            else:
                t = self._write(t, dead, None)

    def advance(self, t: float) -> None:
        """Let the camera run until ``t``; each buffer that becomes complete asks for a place in the queue."""
        while self.step.end <= t:
            super().advance(self.step.end)
            while self._asked < self.count:
                self._asked += 1
                waiting = self._accepted - self._taken + self._writing
                self._accepted += waiting < self.spec.build.ring
        super().advance(t)

    def _set_header(self, length: int) -> None:
        self.ewl = self._scan()
        super()._set_header(length)
        self._completed[self.count] = int(self.words[self.count % self.spec.build.ring, self.at["timestamp"]])

    def _scan(self) -> int:
        """Focus in the headers: a step of a scan lasts its interval and one frame; behind ``stop`` it begins anew."""
        s = self.spec.settings
        first, step = s.get("ewl_scan_start", 0), s.get("ewl_scan_step", 0)
        if s.get("ewl_scan_mode") != 1 or not step:
            return first
        steps = max(s["ewl_scan_stop"] - first, 0) // step + 1
        return first + step * (self.frame // (s["ewl_scan_interval"] + 1) % steps)

    def _write(self, t: float, dead: float, sectors: int | None) -> float:
        """Write the slot that is next, or only some sectors of it; return when the firmware goes on."""
        spec, n = self.spec, self.spec.build.buffer_sectors
        slot = (self._first + self._taken) % spec.build.ring
        clock = int(t - self._begun + spec.write_ahead_ms)
        self.put(
            slot, write_buffer_count=self.written, write_timestamp=clock, battery_voltage=spec.battery_now(t),
        )  # fmt: skip
        self._judge_previous(clock)
        self._taken += 1
        if t < self._free_at:  # the driver gave up before, and the card is still busy
            data = self.slots[slot].copy()
            end, kept = t + _REFUSED, 0
        else:
            self._writing = True
            times, end, kept = self._with_patience(*self.pace(t, n), t)
            data = self._transfer(slot, times, end)
            kept = kept if sectors is None else min(sectors, n)
            if dead < end and sectors is None:
                kept = min(kept, int(np.searchsorted(times, dead)))
            self._writing = False
        self._land(data, kept, lost=t < self._free_at and not kept)
        return min(end, dead)

    def _with_patience(
        self, times: NDArray[np.float64], end: float, begin: float
    ) -> tuple[NDArray[np.float64], float, int]:
        """When the sectors leave, when the driver is done, and how many arrive: it gives up where the card stalls."""
        patience = 0 if self.spec.driver_waits else self.spec.build.driver_timeout[1]
        moments = np.concatenate(([begin], times, [end]))
        late = np.flatnonzero(np.diff(moments) > patience) if patience else np.array([], np.int64)
        if not late.size:
            return times, end, len(times)
        self._free_at, given_up = end, float(moments[late[0]]) + patience
        return np.minimum(times, given_up), given_up, int(late[0])

    def _land(self, data: NDArray[np.uint8], kept: int, lost: bool) -> None:
        """Put the first ``kept`` sectors of a write on the card; a failed one leaves a hole and counts, too."""
        spec, n = self.spec, self.spec.build.buffer_sectors
        words = tuple(data[: spec.header_bytes].view("<u4").tolist())
        status = self._status(data)
        if kept * SECTOR < spec.header_bytes + int(words[self.at["data_length"]]):
            status = "torn"
        if lost or self.written in self.now.failed:
            self.writes.append(CardWrite(self.recording, self.sector, n, words, "write_failed", None))
        elif kept:
            self.writes.append(CardWrite(self.recording, self.sector, kept, words, status, data[: kept * SECTOR]))
        self.sector += n
        self.written += 1

    def _judge_previous(self, clock: int) -> None:
        """Whether the headers leave the buffer written last in doubt, now that the next write begins at ``clock``.

        Its slot may have been filled again: the buffer seven later was complete when the next write began. Or the
        driver may have given it up: the next one waited for it for nearly as long as the driver waits, or longer.
        """
        if not self.writes or self.writes[-1].recording != self.recording:
            return
        last = self.writes[-1]
        count, began = (last.words[self.at[name]] for name in ("buffer_count", "write_timestamp"))
        again = self._completed.get(count + self.spec.build.ring - 1)
        ready = self._completed.get(count + 1, clock)
        patience = self.spec.build.driver_timeout[0]
        given_up = 0 < patience <= clock - max(began, ready)
        last.doubtful = given_up or (again is not None and again <= clock)
