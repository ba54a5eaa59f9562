"""Wire-free v3: whole frames with a footer (main.c and sdImaging.h, 97dc62d)."""

from __future__ import annotations

import numpy as np

from miniscope_xr.tools.simulate.events import EventsOf
from miniscope_xr.tools.simulate.firmware import Ended, Firmware, Written

_FOREVER = float("inf")
_FOOTER = 16


class WholeFrames(Firmware):
    """V3 firmware: three frame buffers; a frame is skipped when the card is two frames behind.

    A skipped frame leaves no gap in the frame number, for checkVSync counts captured frames only. The time in the
    footer is the time the write began.
    """

    def record(self, start: float, frames: int | None, seconds: float | None) -> tuple[Ended, float]:
        """Record until ``frames`` frames are on the card, or ``seconds`` are over."""
        self._now = EventsOf.recording(self.events, self.recording)
        loss = self._now.loss
        limit = _FOREVER if seconds is None else 1000 * seconds
        dead = _FOREVER if loss.at_ms is None else loss.at_ms
        t, c, ends = 0.0, 0, list[float]()
        while frames is None or len(ends) < frames:
            complete = self._frame_end(c)
            t = max(t, complete)
            if min(t, limit) >= dead or (self._written == loss.buffer and not loss.torn_sectors):
                return Ended(self._written, 0, False), t
            if t >= limit:
                break
            t = self._write_frame(t, c, dead)
            ends.append(t)
            if self.writes[-1].status == "torn":
                return Ended(self._written, 0, False), t
            c += 1
            if len(ends) > sum(end <= complete for end in ends[-3:]) + max(0, len(ends) - 3) + 2:
                restart = next(end for end in ends if end > complete)  # the main loop sets startRecording again
                while self._frame_end(c - 1) <= restart:
                    c += 1
        self.recording += 1
        return Ended(self._written, 0, True), t

    def _frame_end(self, c: int) -> float:
        return self.spec.frame_start(c) + self.spec.readout_ms

    def _write_frame(self, t: float, c: int, dead: float) -> float:
        spec = self.spec
        data = self._pixels(c).copy()
        values = {
            "dma_complete": 1, "line_count": spec.build.height, "timestamp": self._ms(t), "frame_num": self._written,
        }  # fmt: skip
        footer = data[-_FOOTER:].view("<u4")
        for name, field in spec.layout.footer.items():
            footer[field.word] = values.get(name, 0)
        words = tuple(footer.tolist())
        n = data.size // spec.sector
        times, end = self._pace(t, n)
        status, torn = "good", self._now.loss.torn_sectors
        if torn is not None and self._written == self._now.loss.buffer:
            n, status = min(n, torn), "torn"
        elif dead < end:
            n, status = int(np.searchsorted(times, dead)), "torn"
        if self._written in self._now.failed:
            status = "write_failed"
        kept = None if status == "write_failed" else data[: n * spec.sector]
        self.writes.append(Written(self.recording, self.sector, n, words, status, kept))
        self.sector += n
        self._written += 1
        return end
