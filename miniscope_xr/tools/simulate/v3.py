"""Wire-free v3: whole frames with a footer (main.c and sdImaging.h, 97dc62d)."""

from __future__ import annotations

import numpy as np

from miniscope_xr.layout import SECTOR
from miniscope_xr.tools.simulate.events import RecordingEvents
from miniscope_xr.tools.simulate.firmware import FOREVER, Ended, Firmware

_FOOTER = 16


class WholeFrames(Firmware):
    """V3 firmware: three frame buffers (480x752: one); a frame is skipped when the card is two frames (one) behind.

    A skipped frame leaves no gap in the frame number, for checkVSync counts captured frames only. The time in the
    footer is the time the write began.
    """

    def record(self, start: float, frames: int | None, seconds: float | None) -> Ended:
        """Record until ``frames`` frames are on the card, or ``seconds`` are over."""
        self.now = RecordingEvents.pick(self.events, self.recording)
        loss = self.now.loss
        limit = FOREVER if seconds is None else 1000 * seconds
        dead = FOREVER if loss.at_ms is None else loss.at_ms
        t, c, ends = start, 0, list[float]()
        while frames is None or len(ends) < frames:
            complete = self._frame_end(c)
            t = max(t, complete)
            if t >= limit and limit <= dead:
                break
            if t >= dead:
                return Ended(self.written, 0, False, dead)
            if self.written == loss.buffer:
                self._write_frame(t, c, FOREVER, loss.torn_sectors or 0)
                return Ended(self.written, 0, False, t)
            t = self._write_frame(t, c, dead, None)
            if t >= dead:
                return Ended(self.written, 0, False, dead)
            ends.append(t)
            c += 1
            waiting = len(ends) - sum(end <= complete for end in ends)
            if waiting >= (self.spec.build.ring or 3):  # no buffer free: wait for a write to end
                restart = next(end for end in ends if end > complete)
                while self._frame_end(c - 1) <= restart:
                    c += 1
        return Ended(self.written, 0, True, t)

    def _frame_end(self, c: int) -> float:
        return self.spec.frame_start(c) + self.spec.readout_ms

    def _write_frame(self, t: float, c: int, dead: float, sectors: int | None) -> float:
        spec = self.spec
        data = self.pixels(c).copy()
        values = {
            "dma_complete": 1, "line_count": spec.build.height, "timestamp": self.clock(t), "frame_num": self.written,
        }  # fmt: skip
        footer = data[-_FOOTER:].view("<u4")
        for name, field in spec.layout.footer.items():
            footer[field.word] = values.get(name, 0)
        n = data.size // SECTOR
        times, end = self.pace(t, n)
        kept = n if sectors is None else min(sectors, n)
        if dead < end:
            kept = int(np.searchsorted(times, dead))
        self.save(tuple(footer.tolist()), data, "good", kept)
        return min(end, dead)
