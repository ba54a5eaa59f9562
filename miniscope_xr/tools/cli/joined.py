"""``export --join``: the recordings of one session, opened as one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import xarray as xr

from miniscope_xr.errors import OptionError
from miniscope_xr.tools.clock.align import with_clock
from miniscope_xr.tools.clock.join import join
from miniscope_xr.tools.clock.saved import read_clock


@dataclass(frozen=True)
class Session:
    """The recordings of a session."""

    card: str
    recording: int | None
    """The first one; None is the only one of its card."""
    others: Sequence[str]
    """What comes behind it: cards, or numbers of other recordings of the same card."""
    clocks: Sequence[str]
    """A file that ``align`` wrote for each of them, in this order, or none."""
    apart: float | None
    """s between the end of one and the start of the next, where it is known and they were not aligned."""
    options: dict[str, Any]
    """How each of them is opened."""

    def opened(self, stack: ExitStack) -> xr.Dataset:
        """Open them, as long as ``stack`` is, as one recording; nothing of their pixels is read yet.

        Raises
        ------
        OptionError
            They are no one film, or the clocks are not one for each.
        """
        named = [(self.card, self.recording), *(self._named(word) for word in self.others)]
        if self.clocks and len(self.clocks) != len(named):
            raise OptionError(
                f"--clock was given {len(self.clocks)} times for {len(named)} recordings: give one for each, in order"
            )
        if self.apart is not None and len(named) == 1:
            raise OptionError("--apart says how far joined recordings are apart; give the others with --join")
        parts = []
        for k, (card, number) in enumerate(named):
            ds = xr.open_dataset(card, engine="miniscope", recording=number, **self.options)
            stack.callback(ds.close)
            parts.append(with_clock(ds, read_clock(self.clocks[k])) if self.clocks else ds)
        return parts[0] if len(parts) == 1 else join(parts, self.apart)

    def _named(self, word: str) -> tuple[str, int | None]:
        return (self.card, int(word)) if word.isascii() and word.isdigit() else (word, None)
