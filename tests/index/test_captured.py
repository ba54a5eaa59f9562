"""A buffer is captured once: two headers with its number and different times are of two recordings."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniscope_xr.index.captured import captured_once, captured_twice
from miniscope_xr.index.clock import FrameClock
from miniscope_xr.index.runs import Cut, Header, Run

CUT = Cut((20432,) * 4 + (10688,), 48, step=40)
OFFSETS = (0, 6, 13, 19, 22)


def header(count: int, written: int, begun: int = 43) -> Header:
    """Of a 2026 buffer whose recording has its frame 0 at ``begun`` ms."""
    frame, index = divmod(count, 5)
    time = begun + 50 * frame + OFFSETS[index]
    return Header(12, count % 8, frame, count, index, written, 0, time, CUT.lengths[index], time + 2, 2108, 0)


def card(*stretches: tuple[int, int, int, int]) -> tuple[list[Run], FrameClock]:
    """Runs of (place of the first buffer, its count, how many, when its recording began), and their clock."""
    runs, found = [], dict[int, Header]()
    for written, first, count, begun in stretches:
        sector = 1024 + 40 * written
        runs.append(Run(sector, count, header(first, written, begun), CUT))
        found |= {sector + 40 * i: header(first + i, written + i, begun) for i in range(count)}
    headers: Any = SimpleNamespace(at=found.get)
    return runs, FrameClock(headers)


def test_old_buffers_where_writes_failed_are_none_that_a_pool_wrote_ahead() -> None:
    runs, clock = card((0, 0, 25, 43), (25, 41, 8, 40), (33, 65, 1, 40), (40, 40, 57, 43))
    assert captured_once(runs, clock) == [runs[0], runs[3]]


def test_buffers_that_a_pool_wrote_ahead_and_again_stay() -> None:
    runs, clock = card((0, 0, 25, 43), (25, 41, 8, 43), (40, 40, 57, 43))
    assert captured_once(runs, clock) == runs


def test_what_a_pool_wrote_ahead_in_front_of_an_older_recording_stays() -> None:
    runs, clock = card((0, 0, 25, 43), (25, 41, 8, 43), (40, 40, 57, 40))
    assert captured_once(runs, clock) == runs


def test_of_a_time_a_bit_of_which_flipped_nothing_is_said() -> None:
    runs, clock = card((0, 0, 25, 43), (25, 41, 1, 43), (40, 40, 57, 43))
    sector, one = runs[1].sector, runs[1].first
    whole = clock.headers.at
    flipped: Any = SimpleNamespace(at=lambda s: one._replace(time=one.time ^ 256) if s == sector else whole(s))
    assert captured_once(runs, FrameClock(flipped)) == runs


@pytest.mark.parametrize("off", [-1, 0, 1, 2])
def test_which_of_two_is_own_is_in_doubt_where_both_are_as_near_to_the_clock(off: int) -> None:
    runs, clock = card((0, 0, 15, 43), (15, 28, 8, 43 + off), (28, 28, 57, 42 if off == 2 else 43))
    doubt = None if off == 0 else 1  # 0: a pool wrote ahead of its turn, and once more
    assert captured_once(runs, clock) == runs
    assert captured_twice(runs, clock) == doubt


def test_whose_buffers_are_own_is_no_doubt_where_the_clock_tells() -> None:
    for begun, other in ((43, 60), (60, 43)):
        runs, clock = card((0, 0, 25, 43), (25, 41, 8, begun), (40, 40, 57, other))
        assert captured_twice(captured_once(runs, clock), clock) is None


def test_that_one_time_of_many_differs_by_a_bit_is_no_doubt() -> None:
    runs, clock = card((0, 0, 15, 43), (15, 28, 8, 43), (28, 28, 57, 43))
    sector, one, whole = runs[1].sector, runs[1].first, clock.headers.at
    flipped: Any = SimpleNamespace(at=lambda s: one._replace(time=one.time ^ 1) if s == sector else whole(s))
    assert captured_twice(runs, FrameClock(flipped)) is None


@pytest.mark.parametrize("front", [1, 5, 14])
def test_few_buffers_in_front_show_no_clock(front: int) -> None:
    runs, clock = card((0, 0, front, 43), (25, 41, 8, 40), (40, 40, 57, 43))
    assert captured_once(runs, clock) == runs


@given(begun=st.integers(1, 90), front=st.integers(15, 40), more=st.integers(2, 60), off=st.integers(2, 24))
def test_those_on_the_clock_of_the_front_are_kept(begun: int, front: int, more: int, off: int) -> None:
    behind = (front + 15, front + 15, more, begun)
    runs, clock = card((0, 0, front, begun), (front, front + 16, 3, begun + off), behind)
    twice = [(header(n, 0, begun).time, header(n, 0, begun + off).time) for n in range(front + 16, front + 19)]
    both = twice[: more - 1]
    told = len(both) > 1 or (both[0][0] ^ both[0][1]).bit_count() > 1  # else a bit may have flipped
    assert captured_once(runs, clock) == ([runs[0], runs[2]] if told else runs)
