"""What may happen to a simulated recording.

Times are in ms since the start of the recording the event belongs to (``recording``, counted from 0); buffers are
counted as written to the card in that recording, frames by the number the firmware gives them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar


class Event:
    """Something that happens to a recording, or to the image of it."""


@dataclass(frozen=True)
class Stall(Event):
    """The card keeps the firmware waiting for ``ms``; drops and laps follow from the firmware's own rule.

    The write under way at ``at_ms``, or the next one, is interrupted. ``buffer`` picks the write by its number
    instead; ``sector`` then says after how many of its sectors the wait comes.
    """

    at_ms: float | None = None
    ms: float = 0.0
    buffer: int | None = None
    sector: int = 0
    recording: int = 0


@dataclass(frozen=True)
class FailedWrite(Event):
    """``n`` buffers from ``buffer`` on never reach the card: old content stays, the counters look normal."""

    buffer: int
    n: int = 1
    recording: int = 0


@dataclass(frozen=True)
class PowerLoss(Event):
    """The battery dies at ``at_ms``, or when ``buffer`` is due: the counts in the config sector stay 0.

    ``torn_sectors`` of that buffer still reach the card; None: what the time allows, or none for ``buffer``.
    """

    at_ms: float | None = None
    buffer: int | None = None
    torn_sectors: int | None = None
    recording: int = 0


@dataclass(frozen=True)
class RecordAgain(Event):
    """One more recording in the same power cycle, ``pause_ms`` after the one before it.

    ``finalise_first=False``: the remote was pressed during the recording before, whose end was never noted.
    """

    frames: int = 40
    seconds: float | None = None
    pause_ms: float = 600.0
    finalise_first: bool = True


@dataclass(frozen=True)
class LostInterrupt(Event):
    """An interrupt that never came: the end of ``frame``, or buffer ``index`` of it."""

    frame: int
    kind: Literal["frame", "buffer"] = "frame"
    index: int = 1
    recording: int = 0


@dataclass(frozen=True)
class RemoteEdge(Event):
    """An edge of a foreign infrared remote: its interrupt keeps the firmware busy for ``ms``.

    The clock counts one tick in that time, and of several buffers that become complete only one gets its interrupt,
    late. A press of a remote control is 68 edges, a reflex of sunlight one.
    """

    at_ms: float
    ms: float = 13.0
    recording: int = 0


@dataclass(frozen=True)
class Padding(Event):
    """Copies of ring slot 0 behind the end (firmware aa04ec3 fills its open write chunk with them)."""

    copies: int = 1
    recording: int = 0


@dataclass(frozen=True)
class IRStop(Event):
    """DAQ: the remote stops the capture, yet one stale buffer a frame is written until the length is over."""

    at_ms: float
    recording: int = 0


@dataclass(frozen=True)
class BadHeight(Event):
    """DAQ: what happens to the config sector's height word at the end.

    ``value=None``: the firmware's own rewrite, (written & 255) | (dropped & 255) << 8; ``refused``: the card
    refuses the write and the height stays; a number: that number.
    """

    value: int | None = None
    refused: bool = False


@dataclass(frozen=True)
class Truncate(Event):
    """The image ends at ``byte`` (a copy that was cut off)."""

    byte: int


E = TypeVar("E", bound=Event)


@dataclass
class RecordingEvents:
    """The events of one recording, by kind."""

    stalls: list[Stall] = field(default_factory=list)
    failed: set[int] = field(default_factory=set)
    loss: PowerLoss = field(default_factory=PowerLoss)
    lost: list[LostInterrupt] = field(default_factory=list)
    busy: list[tuple[float, float]] = field(default_factory=list)
    """From when to when interrupts of the remote keep the device busy; one edge waits while another is served."""
    padding: int = 0
    ir_stop: float = float("inf")

    @classmethod
    def pick(cls, events: Sequence[Event], number: int) -> RecordingEvents:
        """Pick the events of recording ``number``."""
        own = [event for event in events if getattr(event, "recording", None) == number]

        def all_of(kind: type[E]) -> list[E]:
            return [event for event in own if isinstance(event, kind)]

        found = cls(
            stalls=all_of(Stall),
            failed={at for event in all_of(FailedWrite) for at in range(event.buffer, event.buffer + event.n)},
            loss=next(iter(reversed(all_of(PowerLoss))), PowerLoss()),
            lost=all_of(LostInterrupt),
            padding=sum(event.copies for event in all_of(Padding)),
            ir_stop=next((event.at_ms for event in reversed(all_of(IRStop))), float("inf")),
        )
        for edge in sorted(all_of(RemoteEdge), key=lambda edge: edge.at_ms):
            last = found.busy[-1][1] if found.busy else 0.0
            if len(found.busy) < 2 or edge.at_ms >= found.busy[-2][1]:
                start = max(edge.at_ms, last)
                found.busy.append((start, start + edge.ms))
        return found
