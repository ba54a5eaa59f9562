"""``check`` says what is wrong with a card, in sentences with numbers that are right."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from miniscope_xr import check
from miniscope_xr.card import OpenCard, OpenRecording
from miniscope_xr.tools.check.check import _report
from miniscope_xr.tools.check.result import clock
from miniscope_xr.tools.simulate import (
    FailedWrite,
    LostInterrupt,
    PowerLoss,
    RecordAgain,
    SimulatedCard,
    Stall,
    Truncate,
    simulate,
)
from tests.conftest import real_cards, real_names


def kinds(result: Any) -> set[str]:
    return {problem.kind for problem in result.all_problems}


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("layout", ["v4-wirefree", "daq-wirefree", "v3-wirefree"])
def test_a_healthy_card_has_no_problem(layout: str, deep: bool, make_card: Any) -> None:
    length = {"seconds": 2} if layout == "v3-wirefree" else {"frames": 40}  # v3 tells its end by its length only
    path, card = make_card(layout, **length)
    result = check(path, deep=deep)
    assert result.ok
    assert bool(result) is True
    assert "no problem found" in str(result)
    report = result.recordings[0]
    assert report.frames == len(card.expected()[0])
    assert report.frames_per_second == pytest.approx(20, rel=0.02)
    assert report.frames_lost == report.partial_frames == 0
    if deep:
        assert report.jitter_ms is not None
        assert report.jitter_ms < 1


def test_battery_is_that_of_the_first_measurement_and_the_end(make_card: Any) -> None:
    path, _ = make_card(frames=100, battery=190, battery_slope=2)
    report = check(path).recordings[0]
    assert report.battery_start == pytest.approx(190 / 255 * 5.5, abs=0.05)
    assert report.battery_end is not None
    assert report.battery_end < report.battery_start


def test_lost_frames_are_counted(make_card: Any) -> None:
    path, card = make_card(frames=60, events=[Stall(500, 400), Stall(1500, 700)])
    frame_num, _, present = card.expected()
    lost = int(frame_num[-1]) + 1 - len(frame_num)
    result = check(path)
    report = result.recordings[0]
    assert report.frames_lost == lost > 0
    assert report.longest_gap_frames == int(np.diff(frame_num).max()) - 1
    assert report.seconds_lost == pytest.approx(lost * 0.05, rel=0.05)
    assert report.longest_gap_seconds > 0.4
    assert report.partial_frames == int((present != 31).sum())
    assert f"{lost} frames never reached the card" in str(result)
    assert {"frames lost", "partial frames"} <= kinds(result)


def test_failed_writes_are_seen_deep(make_card: Any) -> None:
    path, _ = make_card(frames=40, events=[FailedWrite(52, 2)])
    assert "failed writes" not in kinds(check(path))
    result = check(path, deep=True)
    assert "2 buffers missing in the middle of the recording (in 1 frame: row 10" in str(result)
    assert result.recordings[0].complete_frames == 39


def said_of(data: bytes, path: Path) -> str:
    path.write_bytes(data)
    return str(check(path, deep=True))


@pytest.mark.parametrize(("layout", "why"), [
    ("v4-wirefree", "its counts are not on the card any more"),
    ("v3-wirefree", "this device keeps no counts"),
])  # fmt: skip
def test_a_card_whose_front_is_gone(layout: str, why: str, tmp_path: Path) -> None:
    """What was written and overwritten since did reach the card, and nothing says how the recording ended."""
    card = simulate(layout, frames=60)
    hole = 2000 * 512
    said = said_of(bytes(hole) + card.data[hole:] + bytes(1 << 20), tmp_path / "card.img")
    assert re.search(r"\d+ frames gone at the beginning \(\d.\d+ s of the recording\)", said)
    assert f"whether the recording was stopped or interrupted is not known: {why}" in said
    assert "never reached the card" not in said
    assert "its settings are gone too" in said


def test_frames_that_were_overwritten_in_the_middle(tmp_path: Path) -> None:
    card = simulate(frames=100)
    a, b = 8000 * 512, 10000 * 512
    said = said_of(card.data[:a] + b"\xa5" * (b - a) + card.data[b:], tmp_path / "card.img")
    assert "never reached the card" not in said
    assert "refused by the card, or overwritten since" in said


def test_a_first_frame_of_which_nothing_is_left_has_no_time(tmp_path: Path) -> None:
    """A v3 frame in which a file system wrote keeps its row, black; the recording's length is that of the others."""
    card = simulate("v3-wirefree", frames=60)
    path = tmp_path / "card.img"
    path.write_bytes(card.data)
    with closing(OpenCard(path)) as opened:
        recording = opened.index.recordings[0]
        torn = replace(recording, overwritten=((1024, 1025),))
        report = _report(OpenRecording(opened, torn, strict=True), deep=False, progress=False)
    assert report.seconds == pytest.approx(check(path).recordings[0].seconds)
    assert report.lacking == (0,)


def test_counts_that_are_those_of_the_next_recording_tell_nothing_of_the_first(make_card: Any) -> None:
    path, _ = make_card(frames=40, events=[RecordAgain(frames=30)])
    first, second = check(path).recordings
    assert any("the card has the counts of the next one only" in p.sentence for p in first.problems)
    assert second.status == "finished"


def test_a_firmware_that_writes_nothing_down_at_a_stop_by_hand(make_card: Any) -> None:
    path, _ = make_card("samd-framework", frames=40)
    assert "was stopped by hand, of which this firmware writes nothing down, or it was interrupted" in str(check(path))


def test_a_damaged_config_sector_tells_nothing_of_the_end(tmp_path: Path) -> None:
    data = bytearray(simulate(frames=40).data)
    data[1023 * 512 : 1023 * 512 + 8] = b"not one!"
    said = said_of(bytes(data), tmp_path / "card.img")
    assert "whether the recording was stopped or interrupted is not known" in said


def test_what_was_not_looked_at_is_said_beside_problems_too(make_card: Any) -> None:
    path, _ = make_card(frames=500, events=[Stall(500, 400)])
    assert "nothing else was found in the 400 of " in str(check(path)).splitlines()[-1]
    assert "PROBLEM: at least " in str(check(path))
    assert "at least" not in str(check(path, deep=True))
    assert "were looked at" not in str(check(path, deep=True))


def test_frames_that_lack_buffers_are_named_by_row_and_by_the_devices_number(make_card: Any) -> None:
    path, card = make_card(frames=60, events=[Stall(500, 400), Stall(1500, 700)])
    frame_num, _, present = card.expected()
    rows = np.flatnonzero(present != 31).tolist()
    assert rows[0] != frame_num[rows[0]] or rows[-1] != frame_num[rows[-1]], "frames were lost before one of them"
    for deep in (False, True):
        result = check(path, deep=deep)
        partial = next(p for p in result.all_problems if p.kind == "partial frames")
        assert partial.numbers["rows"] == [row for row in rows if row != len(frame_num) - 1]
        assert partial.numbers["frame_nums"] == [int(frame_num[row]) for row in partial.numbers["rows"]]
        assert f"row {rows[-1]} (device frame {frame_num[rows[-1]]})" in str(result)


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("events", [[FailedWrite(52, 2)], [FailedWrite(100, 200)]])
def test_no_problem_found_is_never_said_while_frames_lack_buffers(events: Any, deep: bool, make_card: Any) -> None:
    path, card = make_card(frames=60, events=events)
    _, _, present = card.expected()
    result = check(path, deep=deep)
    report = result.recordings[0]
    assert "no problem found" not in str(result)
    assert list(report.lacking) == np.flatnonzero(present != 31).tolist()
    assert report.partial_frames == len(report.lacking)
    failed = [p for p in result.all_problems if p.kind == "failed writes"]
    assert deep or not failed
    assert all(len(p.numbers["rows"]) == len(p.numbers["frames"]) == len(report.lacking) for p in failed)


def test_a_recording_that_ends_within_a_frame_says_so_and_is_no_problem(make_card: Any) -> None:
    path, card = make_card(frames=None, seconds=2.02)
    lacking = np.flatnonzero(card.expected()[2] != 31).tolist()
    result = check(path)
    assert lacking == list(result.recordings[0].lacking)
    assert result.ok
    assert ("no problem found" in str(result)) is not bool(lacking)
    assert ("ends within it" in str(result)) is bool(lacking)


def test_a_long_recording_says_how_much_of_it_was_looked_at(make_card: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("miniscope_xr.tools.check.check._LOOKED_AT", 100)
    path, _ = make_card(frames=60)
    assert "no problem found in the 20 of 60 frames that were looked at (--deep" in str(check(path))
    assert "no problem found" in str(check(path, deep=True)).splitlines()


def test_a_cut_v3_image_claims_no_count(make_card: Any) -> None:
    whole = simulate("v3-wirefree", seconds=3)
    path, _ = make_card("v3-wirefree", seconds=3, events=[Truncate(len(whole.data) - 5_000_000)])
    said = str(check(path))
    assert " of 0" not in said


def test_a_length_of_time_has_one_way_to_be_written() -> None:
    assert [clock(s) for s in (3.42, 59.94, 59.96, 60.0, 61, 3723)] == [
        "3.4 s",
        "59.9 s",
        "1:00",
        "1:00",
        "1:01",
        "1:02:03",
    ]


def test_two_camera_frames_under_one_number_are_named(make_card: Any) -> None:
    path, _ = make_card(frames=40, events=[LostInterrupt(9, "frame")])
    found = next(p for p in check(path, deep=True).all_problems if p.kind == "overlong frames")
    assert found.numbers["frames"] == found.numbers["frame_nums"] == found.numbers["rows"] == [9]
    assert "row 9 (device frame 9)" in found.sentence


@pytest.mark.parametrize(("stall_ms", "overtaken"), [(90, 27), (160, 27), (190, 27), (310, 27)])
def test_frames_of_which_a_buffer_was_lapped_are_listed(stall_ms: int, overtaken: int, make_card: Any) -> None:
    path, card = make_card(frames=40, events=[Stall(310, stall_ms)])
    frame_num, _, present = card.expected()
    found = next(p for p in check(path, deep=True).all_problems if p.kind == "laps")
    (frame,) = found.numbers["frame_nums"]
    assert frame == overtaken // 5, "five buffers a frame"
    (row,) = found.numbers["rows"]
    assert frame_num[row] == frame
    assert not present[row] >> overtaken % 5 & 1, "it is this buffer that the frame lacks"
    assert f"row {row} (device frame {frame})" in found.sentence


def test_a_lapped_buffer_of_a_frame_that_is_lost_has_no_row(make_card: Any) -> None:
    path, card = make_card("daq-wirefree", frames=40, events=[Stall(310, 90)])
    assert card.expected()[0][0] == 1
    found = next(p for p in check(path, deep=True).all_problems if p.kind == "laps")
    assert (found.numbers["frame_nums"], found.numbers["rows"]) == ([0], [])
    assert "device frame 0 (lost, no row)" in found.sentence


NAMED = {
    "partial frames": [Stall(500, 400), Stall(1500, 700)],
    "failed writes": [FailedWrite(52, 2), FailedWrite(100, 1)],
    "laps": [Stall(310, 160)],
    "suspect buffers": [Stall(500, 90)],
    "overlong frames": [LostInterrupt(9, "frame")],
}
"""Kinds that name frames, and what makes them."""


@pytest.mark.parametrize("kind", NAMED)
def test_every_kind_that_names_frames_lists_all_of_them_for_programs(kind: str, make_card: Any) -> None:
    path, card = make_card(frames=60, events=NAMED[kind])
    frame_num = card.expected()[0]
    found = json.loads(json.dumps(check(path, deep=True).to_dict()))
    (problem,) = (p for p in found["recordings"][0]["problems"] if p["kind"] == kind)
    numbers = problem["numbers"]
    assert numbers["rows"]
    assert [int(frame_num[row]) for row in numbers["rows"]] == numbers["frame_nums"]
    assert numbers.get("buffers", len(numbers["rows"])) >= len(numbers["rows"])


@pytest.mark.slow
def test_no_kind_of_problem_names_a_frame_that_it_does_not_list(make_card: Any) -> None:
    for kind, events in NAMED.items():
        path, _ = make_card(frames=60, events=events)
        for problem in check(path, deep=True).all_problems:
            named = re.findall(r"row \d+ \(device frame (\d+)\)", problem.sentence)
            assert set(map(int, named)) <= set(problem.numbers.get("frame_nums", [])), (kind, problem)


@pytest.mark.parametrize("name", [n for n in real_names() if n == "none" or str(n).startswith("e")] or real_names()[:1])
def test_buffers_mixed_with_later_pixels_are_suspected(name: Any, real_image: Callable[[str], Path]) -> None:
    cards = real_cards()
    assert cards is not None
    mixed = {b["words"][2] for b in cards.truth(name)["buffers"] if b["status"] == "mixed_content"}
    result = check(real_image(name), deep=True)
    suspects = next(p for p in result.all_problems if p.kind == "suspect buffers")
    assert mixed == set(suspects.numbers["frames"])
    assert "laps" in kinds(result)


def test_an_interrupted_recording_says_what_was_found(make_card: Any) -> None:
    path, _ = make_card(frames=40, events=[PowerLoss(buffer=101, torn_sectors=7)])
    result = check(path)
    assert {"interrupted", "warning"} == kinds(result)
    assert "or some was erased since, as by formatting: only 7 of its 40 sectors are there" in str(result)


def test_a_cut_image_says_how_much_is_there(make_card: Any) -> None:
    path, _ = make_card(frames=40, events=[Truncate(1024 * 512 + 2_000_000)])
    result = check(path)
    assert kinds(result) == {"truncated"}
    assert "before the recording does" in str(result)


def test_an_older_recording_behind_the_end_is_named(make_card: Any) -> None:
    old = simulate(frames=60, seed=1)
    path, card = make_card(frames=20, seed=2, under=old)
    result = check(path)
    assert kinds(result) == {"older recording"}
    assert result.recordings[0].frames == 20
    assert f"from sector {card.end_sector()}" in str(result)


def test_the_result_is_plain_data(make_card: Any) -> None:
    path, _ = make_card(frames=40, events=[Stall(500, 400)])
    result = check(path, deep=True)
    again = json.loads(json.dumps(result.to_dict()))
    assert again["ok"] is False
    assert again["recordings"][0]["frames_lost"] == result.recordings[0].frames_lost


def test_checking_writes_nothing(make_card: Any) -> None:
    path, card = make_card(frames=20)
    path.chmod(0o444)
    check(path, deep=True)
    assert path.read_bytes() == card.data
    assert isinstance(card, SimulatedCard)
