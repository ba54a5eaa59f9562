"""Own buffers behind what seems to be the end of a recording: older ones stand where writes failed, then it went on.

The clock tells, held against that of the older buffers by all of both (``two_clocks.py``). What lies between, of
whatever recording, is left out, and named as a hole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from miniscope_xr.index.evidence import Evidence
from miniscope_xr.index.excursions import Behind
from miniscope_xr.index.place import Verdict
from miniscope_xr.index.run_clock import RunClock
from miniscope_xr.index.runs import Run
from miniscope_xr.index.two_clocks import Stretch, TwoClocks, two_clocks

_AROUND = 256  # buffers on each side of a place, and of as many writes as may fail, whose clocks are compared
_BEGINNING = 4  # frames, the first ones, in which few buffers of a recording may seem to be older ones
_SURE, _HINTS = 12.0, 6.0  # nats: by so much likelier, buffers are this recording's, or perhaps


class GoesOn(NamedTuple):
    """A recording that goes on behind older buffers, or may."""

    runs: list[Run]
    """The runs without these older buffers, up to where all of them ended before; none where it only may go on."""
    own: list[Run]
    """The same up to the last buffer on this recording's clock."""
    doubt: list[str]
    """What is to be said of them."""


class OverOld(Evidence):
    """Tells whether a recording goes on behind older buffers among its own.

    Parameters
    ----------
    args, kwargs
        As for :class:`Evidence`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._parted: dict[tuple[int, int, int], TwoClocks | None] = {}  # by sector and count of a run, and a place

    def goes_on(self, runs: Sequence[Run], number: int, seam: int) -> GoesOn | None:
        """What lies behind the old buffers that made buffer ``seam`` of a run seem to be the end; None: nothing of it.

        Buffers that count on behind a break of the run are looked at, too: older ones out of their turn may have broken
        it. Where this recording's clock comes back and then goes for good, it is its own. Where it only comes back, a
        third recording may lie there, the clock of which is the same by chance.
        """
        on_it = (n for n in range(number) if _counts_on(runs[n], runs[number]) and not self._overflowed(runs, n))
        first = next(on_it, number)
        run = runs[first]
        seam += runs[number].first.written - run.first.written
        on = [n for n in range(first + 1, len(runs)) if _counts_on(run, runs[n])]
        whole = replace(run, count=max(runs[n].end_place for n in (first, *on)) - run.first.written)
        told = self._two_clocks(whole, seam) if not run.odd else None
        back = self._in_reach(run, told) if told is not None else []
        if told is None or not back or back[-1].last < seam:
            return None
        sure = [part for part in back if part.gain > _SURE and part.last > part.first]
        again = told.again and sure and sure[-1] == back[-1]
        if not again and not (sure and sure[-1].last - sure[-1].first >= 2 * len(run.cut)):
            b = run.frame_of(back[-1].last)
            return GoesOn([], [], [
                f"whether this recording ended in frame {run.frame_of(seam)} is in doubt: an older one seems to begin "
                f"there, but buffers up to frame {b} keep the clock of this one again; until={b} returns them"
            ])  # fmt: skip
        a, b = run.frame_of(sure[-1].first), run.frame_of(sure[-1].last)
        doubt = [] if again else [
            f"whether frames {a} to {b} are of this recording is in doubt: they keep its clock, but behind buffers of "
            f"an older one{f'; until={a - 1} leaves them out' if a else ''}"
        ]  # fmt: skip
        stretches = [(0, told.front), *((part.first, part.last) for part in sure)]
        mine = self._parts(run, stretches)
        later = [r for n, r in enumerate(runs) if n > max(first, *on, number)]
        last = replace(mine[-1], count=whole.count - stretches[-1][0])
        return GoesOn([*runs[:first], *mine[:-1], last, *later], [*runs[:first], *mine], doubt)

    def _overflowed(self, runs: Sequence[Run], number: int) -> bool:
        """Whether a pool overflowed behind a run, so that what is out of its turn there is this recording's."""
        if not self.headers.framing.build.pool:
            return False
        end = self.headers.at(runs[number].sector_of(runs[number].count - 1))
        return end is not None and runs[number + 1].first.written_next(end)

    def outlived(self, runs: Sequence[Run], doubt: list[str]) -> Verdict:
        """The end of a recording of few buffers, which seem to be old ones among those of the longer one behind it.

        None, and the doubt there is, where nothing shows one.

        The first buffer of all is this recording's, and so are those that keep its clock:

            buffers      0    1   2-9  10-68
            clock, ms    0   +3    0     +3      it ended at 9, and the write of 1 failed
        """
        run, size = runs[0], len(runs[0].cut)
        if run.odd or not self.close or (run.sector, run.count) in self._even:
            return Verdict(None, doubt)
        stale = [i for i in range(min(_BEGINNING * size, run.count)) if self._stale(run, i)]
        told = self._two_clocks(run, stale[-1] + 1) if stale else None
        back = self._in_reach(run, told) if told is not None else []
        if told is None or not back or not told.again or back[-1].last not in stale or back[-1].gain < _SURE:
            return Verdict(None, doubt)
        a, last = run.frame_of(back[-1].last), max(run.last_frame for run in runs)
        return Verdict((0, back[-1].last + 1), [
            f"whether this recording ended in frame {a} is in doubt: what is behind it keeps another clock than the "
            f"first buffer, but is more; until={last} returns all of it"
        ])  # fmt: skip

    def without_theirs(self, run: Run, seam: int) -> list[Run]:
        """The parts of a run in front of a seam, without buffers that keep the clock of the older recording behind it.

        Writes failed there.
        """
        told, most = self._two_clocks(run, seam), self.headers.framing.build.failed_writes
        there = list[tuple[int, int]]()
        if told is not None and told.back and told.other[-1][1] >= seam:
            there = sorted([*told.other, *((a, b) for a, b in told.strange if b > a)])  # of one alone a bit has flipped
        theirs = [(a, b) for a, b in there if a < seam and min(b + 1, seam) - a <= most]
        edges = [0, *(at for a, b in theirs for at in (a, b + 1)), seam]
        return self._parts(run, [(a, min(b, seam) - 1) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b])

    def _in_reach(self, run: Run, told: TwoClocks) -> list[Stretch]:
        """Where the clock comes back, each time behind no more buffers than may fail to be written in a row.

        With the focus of the run's first buffer: else it is another recording's, the clock of which is the same.
        """
        last, found = told.front, list[Stretch]()
        for part in told.back:
            near = part.first - last - 1 <= self.headers.framing.build.failed_writes
            header = self.headers.at(run.sector_of(part.first))
            focus = self.scanning or (header is not None and header.ewl == run.first.ewl)
            if near and focus and part.exact and part.gain > _HINTS:
                found.append(part)
                last = part.last
        return found

    def _parts(self, run: Run, stretches: Sequence[tuple[int, int]]) -> list[Run]:
        """The stretches of a run from and to these buffers, each from its first one that is there."""
        parts = []
        for first, last in stretches:
            there = ((i, self.headers.at(run.sector_of(i))) for i in range(first, last + 1))
            i, header = next(((i, header) for i, header in there if run.matches(i, header)), (0, None))
            parts += [Run(run.sector_of(i), last + 1 - i, header, run.cut)] if header is not None else []
        return parts

    def _two_clocks(self, run: Run, seam: int) -> TwoClocks | None:
        """What the clocks of buffers around a place tell; asked twice of most places at which an older one begins."""
        place = run.sector, run.count, seam
        if place not in self._parted:
            self._parted[place] = self._told_clocks(run, seam)
        return self._parted[place]

    def _told_clocks(self, run: Run, seam: int) -> TwoClocks | None:
        size = len(run.cut)
        lead = (-run.first.index) % size
        start = lead + (seam - _AROUND - lead) // size * size if seam > _AROUND else 0
        most = self.headers.framing.build.failed_writes
        stop = min(seam + most + _AROUND, run.count)
        clock = RunClock(run, None, self.ticks, Behind.UNKNOWN, self.headers.framing.build)
        told = clock.left(lambda k: self._stamps(run, k), start, stop)
        if told is None:
            return None
        known = np.flatnonzero(np.isfinite(told[1]))
        return two_clocks(known + start, told[1][known], seam, size)


def _counts_on(run: Run, later: Run) -> bool:
    """Whether a later run has the counters that a run's arithmetic says."""
    i = later.first.written - run.first.written
    return not run.odd and not later.odd and i > 0 and run.cut == later.cut and run.matches(i, later.first)
