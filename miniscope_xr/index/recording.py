"""What is known about one recording: where its buffers are, its frame size, how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field

from miniscope_xr.index.clock import Model
from miniscope_xr.index.runs import Run


@dataclass(frozen=True)
class Recording:
    """One recording on a card."""

    number: int
    """0 for the first on the card."""
    runs: tuple[Run, ...]
    """Where its buffers are, in card order."""
    width: int
    height: int
    """Frame size in pixels."""
    status: str
    """``"finished"``, ``"interrupted"`` (counts never written, or gone) or ``"truncated"`` (the image ends early)."""
    n_recorded: int = 0
    n_dropped: int = 0
    """Buffers written and dropped as the config sector says (0 where it does not)."""
    ticks: float = 1.0
    """Timestamp units per millisecond."""
    torn: int | None = None
    """Bytes of the last buffer's data that reached the card, where a power loss cut it."""
    overwritten: tuple[tuple[int, int], ...] = ()
    """Stretches of sectors (first, first behind) within it that hold somebody else's bytes, as far as that is known
    without looking at headers."""
    clock: Model | None = field(default=None, compare=False)
    """Its frame clock, as far as the headers tell that were looked at to find it."""
    focus: int | None = field(default=None, compare=False)
    """Focus of its first and last buffer, where the settings say that it does not change."""
    warnings: tuple[str, ...] = ()
    """Sentences about what is doubtful."""

    @property
    def n_buffers(self) -> int:
        """Buffers found on the card."""
        return sum(run.count for run in self.runs)

    @property
    def start_sector(self) -> int:
        """Sector of the first buffer."""
        return self.runs[0].sector

    @property
    def end_sector(self) -> int:
        """First sector behind the recording."""
        return self.runs[-1].end_sector
