"""The frame clock of v3 recordings: frames of an older one among ours, small steps, late writes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from miniscope_xr.index.v3_clock import At
from miniscope_xr.index.v3_seam import same_clock_behind, weighed


def _old(at: At, own: range, behind: range, fs: float | None) -> frozenset[int]:
    """Frames in front of the end that are an older recording's."""
    return weighed(at, range(own.start, max(own.stop, behind.stop)), 0, fs).old & frozenset(own)


def _seam(at: At, frames: range, fs: float | None) -> tuple[int | None, int | None]:
    """Where an older recording begins; from where on that is in doubt."""
    found = weighed(at, frames, 0, fs)
    return found.seam if found.seam < frames.stop else None, found.doubtful


def _card(times: Sequence[int]) -> At:
    return lambda k: (times[k], 320) if 0 <= k < len(times) else None


def _clock(first: int, frames: range) -> list[int]:
    return [first + 50 * k for k in frames]


def test_a_frame_on_the_clock_of_what_is_behind_the_end_is_of_that() -> None:
    ours, older = _clock(64, range(12)), _clock(71, range(12, 30))
    ours[5] = 71 + 250
    assert _old(_card(ours + older), range(12), range(12, 30), None) == {5}
    ours[5] = 64 + 250 + 18  # late, but not by as much
    assert _old(_card(ours + older), range(12), range(12, 30), None) == frozenset()


def test_two_in_a_row_that_are_late_by_as_much_are_of_another_recording() -> None:
    times = _clock(64, range(12))
    times[6] += 12
    assert _old(_card(times), range(12), range(12, 12), None) == frozenset()
    times[7] += 12
    assert _old(_card(times), range(12), range(12, 12), None) == {6, 7}


@pytest.mark.parametrize("late", [[280, 239, 250], [30, 0, 0], [45, 4, 0]])
def test_a_card_that_catches_up_was_busy(late: list[int]) -> None:
    times = _clock(64, range(20))
    for k, more in enumerate(late):
        times[8 + k] += more
    if late[-1]:
        times = [t + (250 if k > 10 else 0) for k, t in enumerate(times)]
    assert _old(_card(times), range(20), range(20, 20), None) == frozenset()
    assert _seam(_card(times), range(20), None)[0] is None


def test_a_small_step_of_a_clock_that_never_strays_is_another_recording() -> None:
    times = [t - 2 * (k >= 9) for k, t in enumerate(_clock(64, range(30)))]
    assert _seam(_card(times), range(30), None) == (9, None)


@pytest.mark.parametrize("stray", [[0], [0, 1], [0, 0, 0, 1, -1, 0, 1]])
def test_a_clock_that_strays_by_a_ms_is_in_no_doubt(stray: list[int]) -> None:
    times = [t + stray[k % len(stray)] for k, t in enumerate(_clock(64, range(60)))]
    assert _seam(_card(times), range(60), None) == (None, None)


def test_a_frame_that_comes_too_early_or_later_than_the_next_is_of_another_recording() -> None:
    times = _clock(41, range(20))
    times[2], times[3] = 138, 482  # 3 ms early where no other strays, and later than the next
    found = weighed(_card(times), range(20), 0, None)
    assert set(found.old) == {3}
    assert found.alone == (2,)
    assert _seam(_card(times), range(20), None) == (None, None)


def test_behind_two_old_frames_the_recording_goes_on() -> None:
    times = _clock(49, range(20))
    times[1] += 8
    times[2] += 7
    assert _old(_card(times), range(20), range(20, 20), None) == {1, 2}
    assert _seam(_card(times), range(20), None) == (None, None)


def test_a_seam_right_before_a_stall_of_the_older_recording() -> None:
    older = [1123, 1173, 1223, 1530, 1538, *_clock(323, range(26, 30))]
    assert _seam(_card(_clock(33, range(21)) + older), range(30), 20) == (21, None)


def test_an_older_recording_behind_the_record_length_with_the_same_clock_is_a_doubt() -> None:
    skipped = _clock(55, range(9)) + _clock(153, range(9, 37))  # two periods skipped, or the older one's
    assert same_clock_behind(_card(skipped), range(17), range(17, 37)) == 9
    other = _clock(55, range(17)) + _clock(62, range(17, 37))
    assert same_clock_behind(_card(other), range(17), range(17, 37)) is None
    assert same_clock_behind(_card(other), range(17), range(17, 18)) is None  # a frame is no clock


def test_a_frame_early_by_the_jitter_of_the_camera_is_ours() -> None:
    times = _clock(60, range(7)) + _clock(60, range(7, 19))
    times[:7] = [61, 90, 140, 209, 260, 309, 360]  # 1 and 2 are another recording's
    assert _old(_card(times), range(19), range(19, 19), None) == {1, 2}


def test_a_frame_that_is_off_by_a_ms_beside_an_old_one_is_ours() -> None:
    times = _clock(53, range(20))
    times[5], times[6] = 54 + 250, 40 + 300
    assert _old(_card(times), range(20), range(20, 20), None) == {6}


def test_a_frame_is_of_one_of_two_older_recordings_behind() -> None:
    times = _clock(39, range(20)) + _clock(51, range(20, 24)) + _clock(71, range(24, 44))
    times[5] = 51 + 250
    assert _old(_card(times), range(20), range(20, 44), None) == {5}


def test_a_late_frame_where_frames_were_skipped_is_ours_though_an_older_recording_is_off_by_as_much() -> None:
    times = [*_clock(40, range(10)), 143 + 500, 102 + 550, *_clock(140, range(12, 18)), *_clock(292, range(18, 34))]
    assert _old(_card(times), range(18), range(18, 34), 20) == frozenset()
    assert not weighed(_card(times), range(34), 0, 20).alone


@pytest.mark.parametrize(("off", "doubtful"), [({5: 14}, [5]), ({5: 1}, []), ({5: -1, 6: -1}, [5, 6]), ({0: 9}, [])])
def test_what_alone_is_off_the_clock_is_a_doubt(off: dict[int, int], doubtful: list[int]) -> None:
    times = [t + off.get(k, 0) for k, t in enumerate(_clock(50, range(20)))]
    assert list(weighed(_card(times), range(20), 0, 20).alone) == doubtful


@pytest.mark.parametrize("late", [{5: 45, 6: 4}, {5: 14, 12: 20}, {3: 14, 8: 2, 9: -2, 12: 13}])
def test_a_card_that_was_busy_twice_leaves_no_doubt(late: dict[int, int]) -> None:
    times = [t + late.get(k, 0) for k, t in enumerate(_clock(50, range(20)))]
    assert not weighed(_card(times), range(20), 0, 20).alone


def test_the_period_is_that_of_both_recordings_where_a_few_frames_stray() -> None:
    times = [36, 85, 135, 184, 254, 285, 335, 386, 434, *_clock(54, range(9, 19))]  # 4 is the older one's
    assert 4 in _old(_card(times), range(9), range(9, 19), 20)


def test_a_seam_is_not_at_a_frame_of_ours_behind_old_ones() -> None:
    times = [*_clock(73, range(5)), 317, 367, 423, *_clock(67, range(8, 19))]
    assert _seam(_card(times), range(19), 20) == (8, None)


def test_frames_in_front_of_a_stall_of_the_older_recording_keep_its_clock() -> None:
    times = [50, 99, 149, 198, 250, 299, 353, 404, 452, 658, 666, *_clock(203, range(11, 30))]
    assert _seam(_card(times), range(30), 20) == (6, None)
    assert _seam(_card(_clock(50, range(9)) + times[9:]), range(30), 20)[1] == 9


def test_a_late_first_frame_behind_a_gone_front_is_a_doubt() -> None:
    times = [0] * 5 + [574, *_clock(353, range(6, 13)), *_clock(63, range(13, 19))]
    assert _seam(_card(times), range(5, 19), 20) == (13, 6)
    assert _seam(_card([36, *_clock(65, range(1, 19))]), range(19), 20) == (1, None)


def test_a_stall_before_the_last_frames_is_no_small_step() -> None:
    times = [*_clock(54, range(8)), 557, 566, 654, 704]
    assert _seam(_card(times), range(12), 20) == (None, None)


def test_the_same_clock_behind_the_end_goes_on_over_a_frame_of_another() -> None:
    times = _clock(70, range(37))
    times[5] -= 29
    assert same_clock_behind(_card(times), range(19), range(19, 37)) == 0


def test_a_stall_that_skips_as_many_frames_as_it_took_is_ours() -> None:
    stalled = [*_clock(68, range(7)), 232 + 350, 191 + 400, *_clock(218, range(9, 16))]
    assert weighed(_card(stalled), range(16), 1, 20) == (16, None, frozenset(), ())
    other = [*stalled[:9], *_clock(243, range(9, 16))]  # by half a period too late for that
    assert _seam(_card(other), range(16), 20)[1] is not None


def test_a_clock_never_falls_behind_what_was_skipped() -> None:
    stalled = [62, 112, 124 + 100, 82 + 150, *_clock(112, range(4, 18)), 88 + 900]
    assert weighed(_card(stalled), range(19), 1, 20).seam == 18


def test_a_frame_of_ours_between_old_ones_and_the_older_recording_is_kept() -> None:
    times = [60, 110, 65 + 100, 60 + 150, *_clock(65, range(4, 30))]
    found = weighed(_card(times), range(30), 2, 20)
    assert (found.seam, found.doubtful, set(found.old)) == (4, None, {2})


def test_one_frame_that_strays_some_frames_in_front_of_a_missing_one_moves_no_clock() -> None:
    """What lies between two places that are looked at is told by many frames, not by the first and the last one."""
    stray = "210010110111111100012110110110010210110"  # ms; frame 20 is where the next place begins, and 26 is missing
    times = [53 + 50 * k + int(ms) for k, ms in enumerate(stray)]

    def at(k: int) -> tuple[int, int] | None:
        return (times[k], 320) if 0 <= k < len(times) and k != 26 else None

    found = weighed(at, range(len(times)), 2, 20.0)
    assert (found.seam, found.doubtful, found.alone) == (len(times), None, ())
