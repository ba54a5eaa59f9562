"""What headers say of frames is the same whether frames are asked for in a row, far apart, or one by one."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from miniscope_xr.card import OpenCard, OpenRecording
from miniscope_xr.index.clock import Model
from miniscope_xr.index.excursions import Behind
from miniscope_xr.index.run_clock import RunClock
from miniscope_xr.index.runs import Cut, Header, Run
from miniscope_xr.tools.simulate import FailedWrite, Stall, simulate

EVENTS = (Stall(at_ms=700, ms=600), FailedWrite(buffer=23), FailedWrite(buffer=40))


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A card on which buffers were dropped and writes failed."""
    path = tmp_path_factory.mktemp("describe") / "card.img"
    path.write_bytes(simulate(frames=40, width=80, height=64, events=EVENTS).data)
    return path


def described(path: Path, rows: list[int], **options: Any) -> list[dict[str, Any]]:
    """What is said of some rows, by a reader of their own."""
    card = OpenCard(path, **options)
    try:
        found = OpenRecording(card, card.recording(None)).describe(np.array(rows))
    finally:
        card.close()
    return [{f.name: getattr(found, f.name)[k].tolist() for f in fields(found)} for k in range(len(rows))]


@pytest.mark.parametrize("errors", ["raise", "fill"])
def test_frames_far_apart_and_out_of_order_are_described_as_in_a_row(image: Path, errors: str) -> None:
    card = OpenCard(image)
    count = OpenRecording(card, card.recording(None)).frames.count
    card.close()
    whole = described(image, list(range(count)), errors=errors)
    assert not all(row["complete"] for row in whole)  # else the card shows nothing
    assert len({row["present"] for row in whole}) > 1
    for rows in ([0, count - 1], list(range(0, count, 3)), list(range(count))[::-1], [5, 5, 4]):
        assert described(image, rows, errors=errors) == [whole[k] for k in rows]


def run_of(frames: int) -> tuple[Run, Model]:
    """A run of frames of two buffers, 50 ms each, and its clock."""
    cut = Cut((1000, 500), 48)
    first = Header(12, 0, 7, 0, 0, 0, 0, 100, 1000, 102, 0, 0)
    return Run(1026, 2 * frames, first, cut), Model(50.0, np.array([0.0, 20.0]), 0.0)


@pytest.mark.parametrize("rows", [range(200), range(0, 200, 5), [60, 3, 60, 150]], ids=["in a row", "apart", "mixed"])
def test_a_frame_off_the_clock_is_strange_among_whatever_frames_it_is_asked_for(rows: Any) -> None:
    run, model = run_of(200)
    asked = np.array(rows)
    i = np.add.outer(2 * asked, [0, 1]).reshape(-1)
    times = np.add.outer(100 + 50.0 * asked, [0.0, 20.0])
    times[asked == 60] += 19  # an older recording's
    found = RunClock(run, model, 1.0, Behind.GOES_ON).suspects(i, times.reshape(-1))
    assert asked[found.reshape(-1, 2).all(axis=1)].tolist() == asked[asked == 60].tolist()
    assert (found.reshape(-1, 2).any(axis=1) == (asked == 60)).all()


def test_one_frame_alone_is_judged_as_among_others() -> None:
    """The short way for one frame says nothing that the long one would not."""
    run, model = run_of(200)
    clock, told = RunClock(run, model, 1.0, Behind.GOES_ON), set()
    for frame in (0, 3, 60, 199):
        for first, second in ((0, 0), (1, 0), (-1, 1), (3, 3), (0, 5), (19, 19), (-40, -40)):
            times = 100 + 50.0 * frame + np.array([[0.0 + first, 20.0 + second]])
            on_time = clock.on_time(frame, times[0].tolist())
            assert not (on_time and clock.strange(np.array([frame]), times).any())
            told.add((on_time, first, second))
    assert {(True, 0, 0), (True, -1, 1), (False, 0, 5), (False, 19, 19)} <= told


def test_lost_ticks_make_no_frame_strange_where_they_stay_lost() -> None:
    run, model = run_of(200)
    asked = np.arange(200)
    times = np.add.outer(100 + 50.0 * asked, [0.0, 20.0])
    times[80:] -= 12  # an edge of a remote
    found = RunClock(run, model, 1.0, Behind.GOES_ON).strange(asked, times)
    assert not found[:60].any()
    assert not found[120:].any()
