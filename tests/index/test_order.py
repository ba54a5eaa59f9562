"""Which buffers cannot be of one recording, by their times alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniscope_xr.index.order import Times, ordered

STEP = 7.0
NONE = 16  # buffers that may be missing in a row


def times(count: int, stretch: range = range(0), off: float = 0.0, *, clock: bool = True, waits: bool = False) -> Times:
    """Buffers that come every 7 ms, but for a stretch of another recording whose clock is off."""
    came = STEP * np.arange(count, dtype=float)
    came[stretch.start : stretch.stop] += off
    written = np.append(came[1:], came[-1] + STEP)
    written[stretch.start : stretch.stop] = came[stretch.start : stretch.stop] + STEP
    if stretch:
        written[stretch.start - 1] = STEP * stretch.start
    late = came - STEP * np.arange(count) if clock else np.full(count, np.nan)
    return Times(came, written if waits else np.full(count, np.nan), late, 2.0, waits)


@given(st.integers(2, 200), st.booleans(), st.booleans())
def test_of_one_recording_nothing_is_odd(count: int, clock: bool, waits: bool) -> None:
    assert ordered(times(count, clock=clock, waits=waits), NONE) is None


@given(st.data(), st.floats(-110, 110).filter(lambda off: abs(off) >= 3))  # else as by one bit
def test_a_stretch_that_the_clock_before_and_behind_contradicts_is_odd(data: st.DataObject, off: float) -> None:
    length = data.draw(st.integers(1, NONE))
    start = data.draw(st.integers(NONE + 1, 60))
    stretch = range(start, start + length)
    found = ordered(times(start + 4 * NONE, stretch, off), NONE)
    assert found is not None
    assert np.flatnonzero(found.odd).tolist() == list(stretch)
    assert not found.unsure.any()
    assert found.end == start + 4 * NONE


@given(st.integers(20, 60), st.integers(NONE + 1, 80), st.floats(-400, -3))
def test_behind_the_end_of_a_recording_all_contradict_it(own: int, old: int, off: float) -> None:
    found = ordered(times(own + old, range(own, own + old), off), NONE)
    assert found is not None
    assert found.end == own
    assert not found.odd.any()


@pytest.mark.parametrize("off", [1.0, 2.0])
def test_a_write_that_began_before_the_next_buffer_came_was_another_recordings(off: float) -> None:
    stretch = range(30, 33)
    assert ordered(times(60, stretch, off), NONE) is None  # the clock strays by as much
    found = ordered(times(60, stretch, off, waits=True), NONE)
    assert found is not None
    assert np.flatnonzero(found.unsure).tolist() == [29, 30]


def test_of_two_that_contradict_each_other_nobody_knows_which_is_odd() -> None:
    came = np.array([0.0, 7, 14, 30, 21, 35, 42, 49, 56])
    none = np.full(len(came), np.nan)
    found = ordered(Times(came, none, none, 0.0, waits=False), NONE)
    assert found is not None
    assert np.flatnonzero(found.unsure).tolist() == [3, 4]
    assert not found.odd.any()


def test_a_large_bit_that_flipped_in_one_time_says_nothing() -> None:
    clean = times(40, clock=False)
    written = clean.came + 1
    came = clean.came.copy()
    came[20] += 1 << 20
    assert ordered(Times(came, written, clean.late, 2.0, waits=False), NONE) is None


def test_times_of_two_headers_with_flipped_bits_say_nothing() -> None:
    came = np.array([float(1 << 20), 7.0])
    none = np.full(2, np.nan)
    assert ordered(Times(came, none, none, 0.0, waits=False), NONE) is None


@pytest.mark.parametrize("own", [1, 3, 6])
def test_of_few_buffers_in_front_of_as_many_old_ones_each_is_in_doubt(own: int) -> None:
    found = ordered(times(20, range(own, 20), -100.0, clock=False), NONE)
    assert found is not None
    assert found.unsure[: own + 1].all()
    assert not found.odd.any()


def test_what_is_missing_does_not_count() -> None:
    some = times(60, range(30, 34), -50.0)
    for values in (some.came, some.written, some.late):
        values[40:50] = np.nan
    found = ordered(some, NONE)
    assert found is not None
    assert np.flatnonzero(found.odd).tolist() == [30, 31, 32, 33]


def test_times_that_fall_everywhere_tell_nothing() -> None:
    came = np.random.default_rng(1).normal(0, 50, 5000)
    none = np.full(5000, np.nan)
    assert ordered(Times(came, none, none, 2.0, waits=False), NONE) is None
