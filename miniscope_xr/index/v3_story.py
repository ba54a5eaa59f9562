"""Whose the frames of a v3 card are: the stories that its footers allow, each with its probability.

A footer has the time at which the write of its frame began. Less whole periods of the camera that is the frame's
*phase*, and what firmware and card can do to it is little:

- A frame is on time: it keeps the phase of those before it, within what the camera's clock strays.
- The write before it took long. It is late, never early, and the card catches up: the next one comes no sooner than a
  write takes, with three buffers the one after that is on time. Where it was late by more than a period, as many frames
  of the camera were skipped meanwhile as that took, and the phase is later by so many whole periods from there on.
- Its write failed: one of the older recording beneath is seen there, one or two in a row.
- A bit of its time flipped.
- Power was lost, or the record length is over: from there on all frames are of the older recording, which has one phase
  of its own, and where the same may have happened (a third recording under that one).

Every frame has a few ways to go on with each story; the likely stories are kept (a beam), those that say the same of
what may follow become one. What is left is, for every frame, the probability that an older recording's stands there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from miniscope_xr.index.v3_clock import FINE, TOLERANCE, Clock, apart
from miniscope_xr.layout.arrays import Bools, Floats, Ints

# What is believed before a card is seen, as -log(probability): a card is expected to be good.
_STALL = math.log(200.0)  # a write takes longer than a period: once in so many frames
_FAILS = math.log(400.0)  # the card refuses a write
_AGAIN = math.log(2.0)  # and the next one, too
_FLIP = math.log(1e5 * 32)  # one of the 32 bits of a time flipped
_GONE = math.log(300.0)  # no footer where one is due
_GOES_ON = 0.1  # nor in the next place
_LOST = 0.25  # recordings that end by a loss of power: a probability
_FIRST = 9.0  # it was the very first one: rarer than a card that loses its power in the first frames
_SAME = 4.0  # an older recording has the same clock: it always may, and no footer shows it
_SKIPPED = 2.0  # an older recording was behind by whole periods where this one begins over it
_DEEPER = 2.5  # there is one more recording beneath
_BETWEEN = 4.5  # a recording ended unseen, between two places in which the ones above and below it are seen
_NEVER = 16.0  # what the firmware does not do
_LONG = 400.0  # ms, a usual stall
_WRITE = (3.0, 15.0)  # ms that a write of a frame takes on a card that is not busy; no bus is faster than the first
_BEAM = 24  # stories that are kept
_MANY = 400  # frames looked at from which on fewer are
_SETTLED = 256  # frames behind one that tell whose it is
_LIKELY = 14.0  # by how much less probable than the best one they may be
_AROUND = 6  # frames on each side of one that is off the clock
_SHOWN = 12  # frames that tell a phase
_CELL = 0.5  # ms within which phases are the same
_DEEP = 3  # recordings over one another
_ROW = 4  # frames in a row whose writes fail

_ON_TIME = (0.0, 0.0)


class Level(NamedTuple):
    """The phase that a recording has, and how many frames showed it."""

    phase: float
    shown: int

    def with_one(self, phase: float) -> Level:
        """One more frame showed it; one that is far off moves it by no more than others do."""
        n = min(self.shown + 1, _SHOWN)
        return Level(self.phase + min(max(phase - self.phase, -1.0), 1.0) / n, n)


_Way = tuple[float, Level, tuple[float, float]]
"""A way to go on: its cost, the phase then, and how late the frame is."""


@dataclass(frozen=True)
class _Story:
    """One story up to a frame.

    Attributes
    ----------
    cost
        -log of its probability.
    top
        Which recording the frames are of: 0 the newest, 1 the one beneath.
    levels
        Their phases, None where not yet seen.
    late
        Ms by which the last frame was late, and by which the first of the late ones was; 0, 0: on time.
    astray
        How many frames in a row were not the recording's own.
    gap
        The last frame has no footer.
    old
        For each frame how probable it is that it is of an older recording.
    """

    cost: float
    top: int
    levels: tuple[Level | None, ...]
    late: tuple[float, float] = (0.0, 0.0)
    astray: int = 0
    gap: bool = False
    old: Floats = field(default_factory=lambda: np.zeros(0))

    def with_frame(
        self, whose: int, level: Level | None, cost: float, *, top: int, late: tuple[float, float], astray: int = 0
    ) -> _Story:
        """The story with one more frame, which is of recording ``whose`` and shows its phase."""
        levels = (*self.levels[:whose], level, *self.levels[whose + 1 :])
        return _Story(self.cost + cost, top, levels, late, astray, False, np.append(self.old, float(whose > 0)))

    def key(self) -> tuple[object, ...]:
        """What tells how it may go on."""
        phases = tuple(None if lv is None else round(lv.phase / _CELL) for lv in self.levels)
        return (self.top, phases, round(self.late[0]), round(self.late[1]), self.astray, self.gap)


def old_frames(frames: Ints, times: Floats, there: Bools, clock: Clock) -> Floats:
    """How probable it is, for each frame, that it is not the newest recording's.

    Frames far from all that is odd are passed over: whose the one before them is, they are. What is told of a frame
    is settled once so many more were looked at that those behind tell no more of it.
    """
    looked = _near_what_is_odd(frames, times, there, clock)
    beam = _BEAM if len(looked) < _MANY else _BEAM // 4
    stories, before = [_Story(0.0, 0, (None,) * _DEEP)], -1
    settled: list[Floats] = []
    phase = times - clock.period * frames
    for i in looked.tolist():
        if i > before + 1:
            drift = _drift(phase[before : i + 1])
            stories = [_moved(s, drift) for s in stories]
        k, time, seen = int(frames[i]), float(times[i]), bool(there[i])
        stories = _kept([after for s in stories for after in _next(s, k, time, seen, clock)], beam)
        before = i
        if len(stories[0].old) >= 2 * _SETTLED:
            settled.append(_mean_of(stories, np.array([s.cost for s in stories]))[:_SETTLED])
            stories = [replace(s, old=s.old[_SETTLED:]) for s in stories]
    costs = np.array([s.cost + _ends(s, int(frames[-1]) + 1, clock) for s in stories])
    old = np.concatenate([*settled, _mean_of(stories, costs)])
    return np.asarray(old[np.searchsorted(looked, np.arange(len(frames)), side="right") - 1])


def _mean_of(stories: list[_Story], costs: Floats) -> Floats:
    """What some stories say of each frame, by how probable they are."""
    weights = np.exp(costs.min() - costs)
    told: Floats = weights @ np.array([s.old for s in stories]) / weights.sum()
    return told


def _near_what_is_odd(frames: Ints, times: Floats, there: Bools, clock: Clock) -> Ints:
    """Places of frames some of which are off the clock of those before, or missing; the first and the last ones."""
    n = len(frames)
    steps = np.abs(np.diff(times - clock.period * frames, prepend=times[0] - clock.period * frames[0]))
    odd = np.flatnonzero((steps > max(FINE, 1 + 3 * clock.noise)) | ~there)
    near = np.zeros(n, bool)
    for around in range(-_AROUND, _AROUND + 1):
        near[np.clip(odd + around, 0, n - 1)] = True
    near[:_AROUND] = near[-_AROUND:] = True
    return np.flatnonzero(near)


def _drift(phase: Floats) -> float:
    """Ms by which a phase without a step moves from its first frames to the last; one frame alone may stray."""
    few = min(_AROUND, (len(phase) + 1) // 2)
    return float(np.median(phase[-few:]) - np.median(phase[:few]))


def _moved(s: _Story, by: float) -> _Story:
    """A story whose clocks went on for a while without a step."""
    return replace(s, levels=tuple(lv and Level(lv.phase + by, lv.shown) for lv in s.levels), late=_ON_TIME, astray=0)


def _kept(stories: list[_Story], beam: int) -> list[_Story]:
    """The likely ones, those that say the same of what may follow made one."""
    found: dict[tuple[object, ...], _Story] = {}
    stories.sort(key=lambda s: s.cost)
    best = stories[0].cost
    for s in stories:
        if s.cost > best + _LIKELY or (len(found) >= beam and s.key() not in found):
            continue
        same = found.get(s.key())
        if same is None:
            found[s.key()] = s
            continue
        share = 1 / (1 + math.exp(min(s.cost - same.cost, 50.0)))
        old = same.old + share * (s.old - same.old)
        found[s.key()] = replace(same, cost=same.cost + math.log1p(-share) if share < 1 else same.cost, old=old)
    return list(found.values())


def _ends(s: _Story, k: int, clock: Clock) -> float:
    """Cost of a recording's ending in front of frame ``k``: by its length, in whole seconds, or without power."""
    level = s.levels[s.top]
    due = math.nan if level is None else level.phase + clock.period * k + s.late[1] // clock.camera * clock.camera
    if s.top == 0 and math.isfinite(clock.limit):
        return -math.log(1 - _LOST) if due > clock.limit - 2 else -math.log(_LOST / clock.frames)
    timed = level is not None and due % 1000 < clock.period + 2
    seconds = max(clock.frames * clock.period / 1000, 1.0)
    return -math.log((1 - _LOST if timed else 0.0) / (2 * seconds) + _LOST / clock.frames)


def _next(s: _Story, k: int, time: float, seen: bool, clock: Clock) -> Iterator[_Story]:
    """All ways in which a story goes on with frame ``k``."""
    if not seen:
        cost = s.cost + (_GOES_ON if s.gap else _GONE)
        yield replace(s, cost=cost, gap=True, late=(0.0, s.late[1]), old=np.append(s.old, 0.0))
        return
    phase = time - clock.period * k
    if s.top or time <= clock.limit:
        for cost, level, late in _ours(s, phase, clock):
            yield s.with_frame(s.top, level, cost, top=s.top, late=late)
    for other in _flipped(s, k, phase, clock):
        for cost, level, late in _ours(s, other, clock):
            yield s.with_frame(s.top, level, _FLIP + cost, top=s.top, late=late)
    if s.levels[s.top] is None:  # not what a first frame says, unless by chance
        chance = math.log(clock.period) if time < 3 * clock.period else 0.0
        yield s.with_frame(s.top, None, _FLIP + chance, top=s.top, late=_ON_TIME)
    yield from _beneath(s, k, phase, clock)


def _beneath(s: _Story, k: int, phase: float, clock: Clock) -> Iterator[_Story]:
    """The ways in which a frame is of a recording beneath: a write failed, or the one above has ended."""
    fails = _FAILS if not s.astray else s.astray * _AGAIN if s.astray < _ROW else _NEVER
    ends = _ends(s, k, clock)
    for below in range(s.top + 1, min(s.top + 3, _DEEP)):
        more = _BETWEEN if below > s.top + 1 else 0.0
        if more and s.levels[below - 1] is None:
            break
        if s.levels[below] is None:
            more += _DEEPER * (below - 1)
        for cost, level, late in _seen(s, s.levels[below], phase, clock):
            again = s.astray + 1
            yield s.with_frame(below, level, fails + cost + more, top=s.top, late=s.late, astray=again)
            yield s.with_frame(below, level, ends + cost + more, top=below, late=late)


def _flipped(s: _Story, k: int, phase: float, clock: Clock) -> Iterator[float]:
    """What the phase was, if one bit of the time flipped."""
    level = s.levels[s.top]
    if level is None or abs(phase - level.phase) < TOLERANCE:
        return
    time = round(phase + clock.period * k)
    for bit in range(2, 32):
        other = (time ^ 1 << bit) - clock.period * k
        most = _LONG if 1 << bit > clock.period else TOLERANCE
        if -TOLERANCE < other - level.phase < most and (s.top or time ^ 1 << bit <= clock.limit):
            yield other


def _ours(s: _Story, phase: float, clock: Clock) -> Iterator[_Way]:
    """The ways in which a recording goes on with a frame of this phase: cost, its phase then, how late it is."""
    level = s.levels[s.top]
    if level is None:
        yield math.log(clock.period), Level(phase, 1), _ON_TIME
        return
    off = phase - level.phase
    last, first = s.late
    more = _NEVER if last > 0 and clock.period + off - last < _WRITE[0] else 0.0  # before that one was written
    if first > clock.camera - TOLERANCE:
        more += _NEVER / 2
        if last != first:  # with that one the buffers were full
            for n in {math.floor((first + by) / clock.camera) for by in (-TOLERANCE, 0, TOLERANCE)}:
                cost = clock.off(off - n * clock.camera, level.shown) + (0.0 if n else more)
                yield cost, Level(level.phase + n * clock.camera, level.shown).with_one(phase), _ON_TIME
    yield more + clock.off(off, level.shown), level.with_one(phase), _ON_TIME
    if abs(off) > 1:
        yield from _not_on_time(s, level, off, phase, clock)


def _not_on_time(s: _Story, level: Level, off: float, phase: float, clock: Clock) -> Iterator[_Way]:
    """The ways to be off the clock: late, late for the write of a late one, or later by whole periods for good."""
    last, first = s.late
    if off > 0:
        longer = max(off - _LONG, 0) / clock.period
        yield _STALL + math.log(_LONG) + longer, level, (off, off)
    if last > 0 and off > 0:
        took = off - last + clock.period
        usual = _WRITE[0] <= took <= _WRITE[1]
        cost = math.log(_WRITE[1] - _WRITE[0]) if usual else math.log(_LONG) if took > _WRITE[0] else _NEVER
        yield cost + (0.0 if last == first else _NEVER / 2), level, (off, first)
    periods = round(off / clock.camera)
    if periods > 0:  # those late ones are not seen, or there are none, as the firmware has one buffer
        how = 1.0 if s.gap else _STALL + (0.0 if clock.single else _NEVER / 2)
        then = Level(level.phase + periods * clock.camera, level.shown).with_one(phase)
        yield how + 0.5 * periods + clock.off(off - periods * clock.camera, level.shown), then, _ON_TIME
    if s.top or clock.begun:
        yield from _was_late(s, level, off, phase, clock)


def _was_late(s: _Story, level: Level, off: float, phase: float, clock: Clock) -> Iterator[_Way]:
    """The ways on from the first frames that are seen of a recording, if those were late: its phase is another."""
    if level.shown == 1 and 0 < off < clock.camera:  # frames were skipped behind that one
        yield _STALL + math.log(clock.camera), Level(phase, 1), _ON_TIME
    if level.shown < 3 and off < 0:
        again = s.late[0] < 0
        yield (math.log(_LONG / 4) if again else _STALL + math.log(_LONG)), Level(phase, 1), (-1.0, 0.0)


def _seen(s: _Story, below: Level | None, phase: float, clock: Clock) -> Iterator[_Way]:
    """The ways in which a frame of this phase is of the recording beneath."""
    if below is None:
        yield _first_seen(s, phase, clock), Level(phase, 1), _ON_TIME
        return
    off = phase - below.phase
    yield clock.off(off, below.shown), below.with_one(phase), _ON_TIME
    periods = round(off / clock.camera)
    if periods > 0:
        then = Level(below.phase + periods * clock.camera, below.shown).with_one(phase)
        cost = 1 + _SKIPPED + 0.3 * periods
        yield cost + clock.off(off - periods * clock.camera, below.shown), then, _ON_TIME
    if off > TOLERANCE:
        yield _STALL + math.log(_LONG), below, (off, off)


def _first_seen(s: _Story, phase: float, clock: Clock) -> float:
    """Cost of a phase that was not yet seen: any within a period is as probable."""
    top = s.levels[s.top]
    cost = math.log(clock.period)
    if top is None:
        return cost + _FIRST
    cycles = abs(phase - top.phase) / clock.period
    if any(lv and apart(phase, lv.phase, clock.camera) <= 1 + 2 * clock.noise for lv in s.levels):
        cost += _SAME
    return cost + (0.0 if cycles < 1 else _SKIPPED + 0.3 * cycles)
