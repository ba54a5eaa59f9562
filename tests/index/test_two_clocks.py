"""Two clocks among the buffers of a run: all of both together tell what one time does not."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from miniscope_xr.index.two_clocks import Stretch, TwoClocks, two_clocks

SIZE = 5


def levels(
    *stretches: tuple[int, float], drift: float = 0.0, jitter: float = 0.0, seed: int = 0
) -> NDArray[np.float64]:
    """Ticks by which buffers are off a clock: so many with each level; frames stray together, times are whole ms."""
    rng = np.random.default_rng(seed)
    told = np.concatenate([np.full(count, level) for count, level in stretches])
    frames = rng.normal(0, jitter, len(told) // SIZE + 1) if jitter else np.zeros(len(told) // SIZE + 1)
    i = np.arange(len(told))
    return np.round(told + drift * i + frames[i // SIZE] + rng.uniform(0, 0.5))


def told(values: NDArray[np.float64], seam: int) -> TwoClocks | None:
    return two_clocks(np.arange(len(values)), values, seam, SIZE)


def places(found: TwoClocks) -> list[tuple[int, int]]:
    return [(part.first, part.last) for part in found.back]


@given(
    own=st.integers(10, 60), old=st.integers(5, 80), more=st.integers(10, 60), behind=st.just(0) | st.integers(5, 40),
    stray=st.sampled_from([(-5, 0.0), (7, 0.0), (-24, 0.3), (12, 0.3), (21, 0.3)]), drift=st.floats(-0.01, 0.01),
    seed=st.integers(0, 1000),
)  # fmt: skip
def test_what_comes_back_is_found_to_the_buffer(
    own: int, old: int, more: int, behind: int, stray: tuple[float, float], drift: float, seed: int
) -> None:
    apart, jitter = stray
    values = levels((own, 0), (old, apart), (more, 0), (behind, apart), drift=drift, jitter=jitter, seed=seed)
    found = told(values, own)
    assert found is not None
    assert found.front == own - 1
    assert places(found) == [(own + old, own + old + more - 1)]
    assert found.again == (behind > 0)


@given(count=st.integers(15, 100), drift=st.floats(-0.02, 0.02), seed=st.integers(0, 1000))
def test_of_one_clock_nothing_comes_back(count: int, drift: float, seed: int) -> None:
    assert told(levels((count, 0), drift=drift, seed=seed), count // 2) is None


def test_an_older_recording_that_stays_does_not_come_back() -> None:
    found = told(levels((30, 0), (40, 8)), 30)
    assert found is not None
    assert (found.front, found.back, found.again) == (29, [], False)


def test_three_ms_among_times_that_stray_by_one() -> None:
    """No single buffer shows it: each may be off by as much."""
    values = levels((21, 0), (14, 3.4), (16, 0), (15, -19), (5, 0), jitter=0.5, seed=3)
    found = told(values, 21)
    assert found is not None
    assert places(found) == [(35, 50), (66, 70)]
    assert all(part.exact for part in found.back)


def test_a_third_recording_whose_clock_is_nearly_the_same_is_not_exact() -> None:
    found = told(levels((40, 0), (20, -14), (60, 2)), 40)
    assert found is not None
    assert [part.exact for part in found.back] == [False]


def test_a_third_clock_is_neither() -> None:
    found = told(levels((40, 0), (10, -14), (10, 21), (40, 0), (10, -14)), 40)
    assert found is not None
    assert places(found) == [(60, 99)]
    assert found.other == [(40, 49), (100, 109)]
    assert found.again


def test_a_flipped_bit_in_the_first_time_hides_nothing() -> None:
    values = levels((20, 0), (8, 11), (30, 0), (20, 11))
    values[0] += 1 << 22
    found = told(values, 20)
    assert found is not None
    assert places(found) == [(28, 57)]


def test_one_buffer_counts_for_little_and_many_for_much() -> None:
    few, many = (told(levels((20, 0), (10, 9), (count, 0), (20, 9)), 20) for count in (2, 20))
    assert few is not None
    assert many is not None
    assert isinstance(few.back[0], Stretch)
    assert few.back[0].gain * 5 < many.back[0].gain


def test_what_begins_elsewhere_is_not_told() -> None:
    """Old buffers far in front of a place say nothing of what begins there."""
    assert told(levels((20, 0), (5, 11), (60, 0)), 70) is None


def test_too_few_buffers_show_no_clock() -> None:
    assert told(levels((5, 0), (5, 9)), 5) is None
