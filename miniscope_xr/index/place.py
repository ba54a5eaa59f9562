"""Where among a few buffers an older recording begins, when leftovers show that it begins among them.

Leftovers that do not repeat the buffer one ring earlier say that one of the buffers between is the first of an older
recording. Those that do repeat it narrow that down to some *places*. Each kind of evidence may tell which it is:

    buffer        24   25   26   27   28   29
    leftovers     ok    .    .    .    .  differ     the older recording begins at 25, 26, 27, 28 or 29
    clock, ms      0    0    0  -19  -20  -20        at 27

The last buffer written may be torn: its header is this recording's, what follows in it is older. Then the leftovers one
ring behind it repeat older bytes, and say as little against it as its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median

import numpy as np

from miniscope_xr.index.breaks import Breaks
from miniscope_xr.index.evidence import CLOCK_STEP
from miniscope_xr.index.runs import Header, Run
from miniscope_xr.index.tails import Tails

_SIDE = 40  # buffers on each side whose clock is compared
_FEW = 5  # frames that tell a period to less than half a ms


@dataclass
class Verdict:
    """``end``: (run, buffer in it) of the first old buffer, or None; ``doubt``: sentences about what is unsure."""

    end: tuple[int, int] | None = None
    doubt: list[str] = field(default_factory=list)


class Places(Breaks, Tails):
    """Finds the place among a few at which an older recording begins."""

    written_low: int | None = None
    """Low byte of the number of buffers written, where the card says that."""

    def _locate(self, run: Run, broken: int) -> Verdict | None:
        """The seam from a buffer whose leftovers are broken: it lies at most a ring before it.

        None where nothing else changes, and a slow card explains the broken leftovers as well, or others behind them
        fit wherever it began: a buffer is damaged.
        """
        first = max(broken - self.ring + 1, 1)
        for i in range(broken - 1, first - 1, -1):
            if self.link(run, i) is True:  # buffer i and the one a ring before it are of one recording
                first = i + 1
                break
        fitting = [i for i in range(first, broken + 1) if self._cut_fits_links(run, i)]
        by_links = fitting or [first]
        places = [*by_links, *self._behind_torn(run, by_links[-1], broken)]
        odd = self._behind_odd_size(run, range(first - 1, places[-1])) or self._behind_drop(run, range(first, broken))
        if (shown := odd or self._time_falls(run, places)) is not None:
            return Verdict((0, shown))
        state = self._state_step(run, range(first, places[-1] + 1))
        if state is not None:
            return Verdict((0, self._where(run, *state, places)))
        levels = [self._deviation(run, i, first) for i in range(first, min(broken + 2 * len(run.cut), run.count))]
        known = [d for d in levels[broken - first :] if d is not None]
        jump = median(known) if known else 0.0
        same_clock = abs(jump - self._drift(run, first, levels[broken - first :])) <= 1.5 * self.ticks
        if same_clock and (not fitting or self._stressed(run, broken)):
            return None
        if len(places) == 1:
            return Verdict((0, places[0]))
        kinds: tuple[Callable[[], int | None], ...] = (
            lambda: self._counted(run, places),
            lambda: self._write_step(run, by_links),  # to the ms, where the clock may stray
            lambda: self._clock_place(run, places, levels[: places[-1] + 1 - first], jump),
            lambda: self._step_place(run, first, places),
        )
        told = next((place for kind in kinds if (place := kind()) is not None), None)
        if told in places:
            return Verdict((0, told))
        return self._unplaced(run, by_links, broken, same_clock)

    def _alone_off(self, run: Run, i: int) -> bool:
        """Whether leftovers fit over buffer ``i``, which with a few around it is off the clock as no other one is."""
        size, few = len(run.cut), len(run.cut) // 2
        over = any(self.link(run, k) for k in range(i + few + 1, min(i + self.ring, run.count)))
        start = max((i - _SIDE) // size * size + (-run.first.index) % size, 0)
        told = self._left(run, start, min(i + _SIDE, run.count)) if over else None
        if told is None:
            return False
        left = told[0] - np.nanmedian(told[0])
        others = np.abs(np.delete(left, np.s_[max(i - few - start, 0) : i + few + 1 - start]))
        return bool(abs(left[i - start]) > np.nanmax(others) + self.ticks)

    def _time_falls(self, run: Run, places: Sequence[int]) -> int | None:
        """The place whose buffer came before the one in front of it, as none of one recording does.

        Not where time falls once more behind it: writes failed there.
        """
        around = range(places[0], min(places[-1] + self.headers.framing.build.failed_writes, run.count))
        pairs = ((i, self._header(run, i - 1), self._header(run, i)) for i in around)
        falls = [
            i for i, a, b in pairs if a is not None and b is not None and b.time < a.time and not self._flips(a, b)
        ]
        return falls[0] if len(falls) == 1 and falls[0] in places else None

    def _flips(self, a: Header, b: Header) -> bool:
        """Whether a bit of one time has flipped, as the writes of both buffers are in order."""
        return 0 <= a.write_time <= b.write_time and self._comes_later(a, b)

    @staticmethod
    def _drift(run: Run, first: int, levels: Sequence[float | None]) -> float:
        """Ticks by which two frames run off a clock whose period few frames in front of them have told."""
        size = len(run.cut)
        near, far = ([d for d in part if d is not None] for part in (levels[:size], levels[size:]))
        few = first < _FEW * size and near and far
        return 2 * (median(far) - median(near)) if few else 0.0

    def _perhaps(self, run: Run, broken: int) -> str:
        """What to say where leftovers are broken, buffers around are missing, and nothing else tells."""
        first = max(broken - self.ring + 1, 1)
        a, b = run.frame_of(first), run.frame_of(broken)
        return (
            f"whether an older recording begins in frame {a}{'' if a == b else f' to {b}'} is in doubt: buffers are "
            f"missing around, and what lies behind one is not of this recording; if it does, until={a} leaves it out"
        )

    def left_over(self, runs: Sequence[Run]) -> list[str]:
        """What to say of broken leftovers in a recording that is known to be one: an old buffer stands there."""
        frames: set[int] = set()
        for run in runs:
            broken = [i for i in self._short(run, 0, run.count) if self.link(run, i) is False]
            frames |= {
                run.frame_of(k) for i in broken if not self._stressed(run, i) for k in (max(i - self.ring, 0), i)
            }
        return _one_is_old(frames)

    def _unplaced(self, run: Run, places: Sequence[int], broken: int, same_clock: bool) -> Verdict:
        if self._alone_off(run, broken):
            return Verdict(doubt=_one_is_old({run.frame_of(k) for k in (max(broken - self.ring, 0), broken)}))
        a, b = run.frame_of(places[0]), run.frame_of(places[-1])
        last = max(r.last_frame for r in (run, *self.runs))
        if same_clock:
            return Verdict((0, places[0]), [
                f"what lies behind a buffer of frame {b} is not of this recording, and nothing else changes there: a "
                "sector is damaged, or an older recording with the same frame clock begins; frames "
                f"{a} to {last} are in doubt, and only what is certain is returned; until={last} returns them"
            ])  # fmt: skip
        return Verdict((0, places[0]), [
            f"an older recording seems to begin in frame {a}{'' if a == b else f' or {b}'}, but not every buffer there "
            f"tells which recording it is of: frames {a} to {last} are in doubt, and only what is certain is returned; "
            f"until={b} returns frame {b} whole, until={last} all of them"
        ])  # fmt: skip

    def _counted(self, run: Run, places: Iterable[int]) -> int | None:
        """The one of some places at which the low byte of the buffers written fits; None where none or several do."""
        fitting = [i for i in places if (run.first.written + i) & 255 == self.written_low]
        return fitting[0] if len(fitting) == 1 else None

    def _cut_fits_links(self, run: Run, seam: int) -> bool:
        """Whether a seam right before buffer ``seam`` breaks exactly the links that are broken."""
        return all(self.link(run, i) is not True for i in range(seam, min(seam + self.ring, run.count)))

    def _behind_torn(self, run: Run, last: int, broken: int) -> Iterator[int]:
        """The place behind the last one, if that buffer may be torn: the first one behind it that leftovers exclude."""
        behind = last + self.ring
        torn = last == broken or (behind < run.count and self.link(run, behind) is True)
        if torn and last + 1 < run.count:
            yield last + 1

    def _step_place(self, run: Run, first: int, places: Sequence[int]) -> int | None:
        """The place at which the clocks on both sides meet, where each buffer between is clearly of one."""
        step = self._step_in(run, range(first, places[-1] + 1), sharp=True)
        if step is None:
            return None
        there = (i for i in range(step, places[-1] + 1) if run.matches(i, self.headers.at(run.sector_of(i))))
        return self._where(run, step - 1, next(there, step), places)

    def _where(self, run: Run, ours: int, old: int, places: Sequence[int]) -> int:
        """The place between two buffers: none, or damaged ones, may stand between them, or one behind a drop."""
        nothing = all(self.headers.at(run.sector_of(i)) is None for i in range(ours + 1, old))
        found = ours + 1 if nothing else old
        return found if found in places else next((i for i in places if ours < i <= old), places[0])

    def _behind_odd_size(self, run: Run, buffers: range) -> int | None:
        """The place behind the last of some buffers that takes other sectors than usual: the next is not this one's.

        An interrupt was lost in it. What stands behind it on the grid was written before.
        """
        for i in reversed(buffers):
            header = self.headers.at(run.sector_of(i))
            if run.matches(i, header) and header and run.cut.sectors_for(header.length) != run.sector_count(i):
                return i + 1
        return None

    def _behind_drop(self, run: Run, buffers: range) -> int | None:
        """The place behind the last of some buffers in front of which some were dropped, as never in those behind it.

        Counts of drops never fall: it is the last one of this recording, on a card that was too slow.
        """
        for i in reversed(buffers):
            header, first = self.headers.at(run.sector_of(i)), run.first
            if header is None or header.written != first.written + i or run.matches(i, header):
                continue
            later = header.ahead >= 0 and header.frame > run.frame_of(i)
            if later and header.dropped > first.dropped:
                return i + 1
        return None

    def _state_step(self, run: Run, within: range) -> tuple[int, int] | None:
        """The first two of some buffers that differ in focus or battery; damaged headers aside."""
        around = range(within.start - 1, min(within.stop + 2, run.count))
        known = [(i, h) for i in around if (h := self._header(run, i)) is not None]
        for (i, a), *others in zip(known, known[1:], known[2:] + known[-1:], strict=False):
            if i + 1 < within.stop and not any(self._same_state(a, b) for _, b in others):
                return i, others[0][0]  # both others differ, as a bit may have flipped in one
        return None

    def _clock_place(self, run: Run, places: Sequence[int], levels: Sequence[float | None], jump: float) -> int | None:
        """The place that the clock shows: no buffer before it keeps the later clock, none behind it the earlier one.

        Parameters
        ----------
        run
        places
            Where the older recording may begin; the last one ends what ``levels`` are of.
        levels
            Ticks by which the buffers up to the last place are off the clock in front of them; None: not known.
        jump
            The same of the buffers behind.
        """
        if abs(jump) <= CLOCK_STEP * self.ticks:
            return None
        start = places[-1] + 1 - len(levels)
        sides = {start + k: self._is_old(level, jump) for k, level in enumerate(levels) if level is not None}
        old = [i for i, side in sides.items() if side]
        ours = [i for i, side in sides.items() if side is False]
        first_old, last_ours = min(old, default=places[-1] + 1), max(ours, default=start - 1)
        unclear = any(run.matches(i, self.headers.at(run.sector_of(i))) for i in range(last_ours + 1, first_old))
        if first_old < last_ours or unclear or not old:
            return None
        return self._where(run, last_ours, first_old, places)

    def _is_old(self, level: float, jump: float) -> bool | None:
        """Whether a buffer keeps the later clock, not the earlier one (0); None: neither.

        A clock loses ticks (edges of a remote), and never wins any: what is behind both is of the recording in front,
        what is before both is of the older one, which lost them later.
        """
        near = abs(jump) / 2
        if abs(level - jump) < near or abs(level) < near:
            return abs(level - jump) < near
        if level < min(jump, 0.0) - near:
            return False
        return True if level > max(jump, 0.0) + near else None


def _one_is_old(frames: Iterable[int]) -> list[str]:
    """What to say where leftovers do not fit in one of some frames of a recording that goes on behind it."""
    known = sorted(frames)
    if not known:
        return []
    named = f"frame{'s' if len(known) > 1 else ''} {', '.join(map(str, known))}"
    return [
        "a buffer of an older recording stands in the place of one whose write failed; which it is, is in doubt: "
        f"one of {named}"
    ]
