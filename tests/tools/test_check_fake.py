"""Counterfeit cards: smaller than they say, which the buffers on them prove."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from miniscope_xr import check
from miniscope_xr.tools.simulate import PowerLoss, SimulatedCard, Stall, simulate

SECTOR = 512
KINDS: dict[str, dict[str, Any]] = {
    "v4": {"frames": 60},
    "v4 with a drop": {"frames": 60, "events": [Stall(200, 250)]},
    "DAQ": {"layout": "daq-wirefree", "frames": 20},
    "v3": {"layout": "v3-wirefree", "frames": 60},
}


def wrapped(card: SimulatedCard, sectors: int) -> np.ndarray[Any, Any]:
    """What is read from a card whose addresses wrap: everything lands within the first ``sectors``."""
    data = np.frombuffer(card.data, np.uint8).reshape(-1, SECTOR)
    front = slice(card.layout.sectors.header, card.layout.sectors.data)
    true = np.zeros((sectors, SECTOR), np.uint8)
    for start in range(0, len(data), sectors):
        piece = data[start : start + sectors]
        true[: len(piece)] = piece
    if card.layout.sectors.config is not None:
        true[front] = data[front]  # counts are written at the stop, behind all frames
    return true[np.arange(len(data)) % sectors]


@pytest.mark.parametrize("kind", KINDS)  # of DAQ and v3 cards the first buffer is overwritten, and later ones are found
def test_a_card_whose_addresses_wrap_is_named(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "card.img"
    wrapped(simulate(seed=2, **KINDS[kind]), 8192).tofile(path)
    (found,) = [p for p in check(path).problems if p.kind == "counterfeit"]
    assert "a counterfeit of 4 MB" in found.sentence
    assert found.numbers["distance"] == 8192


def test_of_a_card_whose_addresses_wrap_the_frames_below_the_wrap_are_read_too(tmp_path: Path, open_card: Any) -> None:
    """They stand behind what wrapped to the front, and all that did follows them once more."""
    card = simulate(build="f70f880", frames=60, seed=2)
    path = tmp_path / "card.img"
    wrapped(card, 6144).tofile(path)
    over = len(card.data) // SECTOR - 6144  # sectors in front that later buffers lie over
    first = next(b for b in card.buffers if b.sector >= over and b.frame_num and not b.index)
    assert first.sector + 200 < 6144, "whole frames are left below the wrap"
    for index in ("bisect", "scan"):
        ds = open_card(path, index=index)
        (there,) = np.nonzero(ds.frame_num.values >= first.frame_num)
        assert ds.frame_num[there[0]] == first.frame_num
        good = ds.complete.values[there]
        assert (~good).sum() == 1, "the frame over which the counts were written"
        numbers = ds.frame_num.values[there][good]
        np.testing.assert_array_equal(ds.video[there[good]], card.expected()[1][numbers])
        assert any("settings or counts lie over 1 of its buffers" in said for said in ds.warnings)


@pytest.mark.parametrize("layout", ["v4-wirefree", "v4-wirefree-2026"])
@pytest.mark.parametrize("over", [100, 366, 600])
def test_what_wrapped_over_the_first_buffer_is_no_failed_write(
    layout: str, over: int, tmp_path: Path, open_card: Any
) -> None:
    """The whole buffers behind it are the first that are left, not the first behind writes that failed."""
    card = simulate(layout, frames=60, seed=2)
    path = tmp_path / "card.img"
    wrapped(card, len(card.data) // SECTOR - 1024 - over).tofile(path)
    ds = open_card(path)
    whole = {b.frame_num for b in card.buffers} - {b.frame_num for b in card.buffers if b.sector < 1024 + over}
    assert len(whole) > 55
    under_counts = {f for f in whole if f not in ds.frame_num.values[ds.complete.values]}
    assert len(under_counts) <= 1, "the frame over which the counts were written"


def test_of_a_wrapped_v3_card_too(tmp_path: Path, open_card: Any) -> None:
    card = simulate("v3-wirefree", frames=60, seed=2)
    path = tmp_path / "card.img"
    wrapped(card, 8192).tofile(path)
    over = len(card.data) // SECTOR - 8192
    first = next(b.frame_num for b in card.buffers if b.sector >= over)
    for index in ("bisect", "scan"):
        ds = open_card(path, index=index)
        assert ds.frame_num.values.tolist() == list(range(first, card.expected()[0][-1] + 1))
        np.testing.assert_array_equal(ds.video, card.expected()[1][first:])


@pytest.mark.parametrize("kind", ["v4", "v4 with a drop", "DAQ"])  # v3 counts nothing: a dead battery looks alike
@pytest.mark.parametrize("fill", [0, 255])
def test_a_card_that_keeps_nothing_behind_its_end_is_named(kind: str, fill: int, tmp_path: Path) -> None:
    path = tmp_path / "card.img"
    data = np.frombuffer(simulate(seed=2, **KINDS[kind]).data, np.uint8).copy()
    data[8192 * SECTOR :] = fill
    data.tofile(path)
    (found,) = [p for p in check(path).problems if p.kind == "counterfeit"]
    assert "a counterfeit keeps nothing behind its true end" in found.sentence
    assert abs(found.numbers["sector"] - 8192) <= 723


@pytest.mark.parametrize("kind", KINDS)
def test_an_honest_card_is_not(kind: str, tmp_path: Path) -> None:
    for k, options in enumerate(({}, {"events": [PowerLoss(buffer=50)]})):
        if "v3" in kind and options:
            continue
        path = simulate(**{**KINDS[kind], **options}, seed=2).write(tmp_path / f"{k}.img")
        assert not [p for p in check(path).problems if p.kind == "counterfeit"]
