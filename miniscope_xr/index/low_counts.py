"""Where a recording ends by the low bytes of its counts, which are all that a DAQ leaves of them, in the height word.

A DAQ's clock starts at power-on, and its leftovers tell little: a recording over a longer one, each begun as long after
power-on, seems to go on in the older one. The low bytes say how many buffers it has, modulo 256. Where one place alone
fits, it ends there; where several do, they are named.
"""

from __future__ import annotations

from typing import NamedTuple

from miniscope_xr.index.runs import Run, cut_at, last_as_written, overtaken
from miniscope_xr.index.seam import SeamSearch

_ROUND = 256


class LowCounts(NamedTuple):
    """The low bytes of a recording's counts."""

    written: int
    dropped: int

    def written_fits(self, runs: list[Run]) -> bool:
        """Whether runs end at the buffers written."""
        return runs[-1].end_place % _ROUND == self.written

    def fit(self, runs: list[Run]) -> bool:
        """Whether runs end at the counts."""
        return self.written_fits(runs) and runs[-1].first.dropped % _ROUND == self.dropped

    def met(self, runs: list[Run]) -> bool:
        """Whether both counts fit behind some buffer."""
        return any(run.first.dropped % _ROUND == self.dropped and self._written_in(run) for run in runs)

    def _written_in(self, run: Run) -> range:
        """How many of a run's buffers are written where the count of them fits."""
        return range((self.written - run.first.written - 1) % _ROUND + 1, run.count + 1, _ROUND)

    def places(self, runs: list[Run]) -> list[tuple[int, int]]:
        """Run, and buffer in it, behind each buffer of some runs at which both counts would fit.

        Where none does, those at which the rest of a whole frame, or some more, would have been dropped behind it.
        """
        fitting, dropping = [], []
        for number, run in enumerate(runs):
            more = (self.dropped - run.first.dropped) % _ROUND
            for i in self._written_in(run):
                fitting += [] if more else [(number, i)]
                whole = (run.first.written + i + run.first.dropped + more) % len(run.cut) == 0
                dropping += [(number, i)] if whole and not run.odd else []
        return fitting or dropping

    def missed(self, runs: list[Run]) -> str:
        """What to say of runs that do not end at them."""
        frames = [runs[number].frame_of(i - 1) for number, i in self.places(runs)]
        named = " or ".join(map(str, frames[:3])) + (f", or one of {len(frames) - 3} later ones" if frames[3:] else "")
        ends = (
            f"where the recording ended is in doubt, it may be with frame {named}" if frames else "something is missing"
        )
        return (
            f"the counts this card holds the low bytes of ({self.written} buffers written, {self.dropped} dropped, "
            f"each modulo {_ROUND}) are not those of the {runs[-1].end_place} buffers found: {ends}"
        )


def ended_by(counts: LowCounts, runs: list[Run], search: SeamSearch) -> tuple[list[Run], str] | None:
    """Runs up to the one place at which the counts fit, unless leftovers go on there; and what to say.

    Parameters
    ----------
    counts
    runs : list of Run
        One recording's, which do not end at the counts.
    search : SeamSearch
        Compares buffers of these runs.
    """
    places = counts.places(runs)
    if len(places) != 1:
        return None
    (number, i), header_at = places[0], search.headers.at
    run, kept = runs[number], overtaken(last_as_written(cut_at(runs, number, i), header_at), header_at, search.ring)
    if any(search.link(run, k) for k in range(i, min(i + search.ring, run.count))):
        return None
    same_clock = run.matches(i, header_at(run.sector_of(i))) and not search.steps_at(run, i)
    a, b = kept[0].first.frame, kept[-1].last_frame
    clock = " with the same frame clock" if same_clock else ""
    said = f"an older recording{clock} lies behind this one, from sector {kept[-1].end_sector} on, and is not returned"
    untold = f"; a buffer of it in the place of a write that failed, in frames {a} to {b}, could not be told"
    return kept, said + untold if same_clock else said
