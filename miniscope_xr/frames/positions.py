"""Where on the card the frames begin that a cursor has been at."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping

from miniscope_xr.frames.reader import FrameReader


class Positions(Mapping[int, int]):
    """Byte on the card where a frame begins, for each frame the cursor has been at; worked out when it is asked for.

    Frames read one after another take the room of one: the stretches are kept, not the frames.
    """

    def __init__(self) -> None:
        self._stretches: list[tuple[int, int]] = []  # [first, stop) of frames, rising, apart
        self._frames: FrameReader | None = None

    def note(self, frames: FrameReader, frame: int) -> None:
        """Remember that the cursor was at ``frame``."""
        self._frames = frames
        if self._stretches and self._stretches[-1][1] == frame:  # one frame after the other, as most often
            self._stretches[-1] = self._stretches[-1][0], frame + 1
            return
        k = bisect_right(self._stretches, (frame, frame + 1))
        before = self._stretches[k - 1] if k else (0, -1)
        if before[0] <= frame < before[1]:
            return
        start, stop, low, high = frame, frame + 1, k, k
        if before[1] == frame:
            start, low = before[0], k - 1
        if k < len(self._stretches) and self._stretches[k][0] == stop:
            stop, high = self._stretches[k][1], k + 1
        self._stretches[low:high] = [(start, stop)]

    def __getitem__(self, frame: int) -> int:
        if self._frames is None or not any(start <= frame < stop for start, stop in self._stretches):
            raise KeyError(frame)
        return self._frames.position(frame)

    def __iter__(self) -> Iterator[int]:
        for start, stop in self._stretches:
            yield from range(start, stop)

    def __len__(self) -> int:
        return sum(stop - start for start, stop in self._stretches)

    def __repr__(self) -> str:
        return repr(dict(self))
