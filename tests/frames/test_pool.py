"""An overflow that the capture does not wait for: torn buffers are left out, and nothing wrong is called complete."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from miniscope_xr.card import OpenCard
from miniscope_xr.frames.pool import Tear, _alike
from miniscope_xr.source.base import Through
from miniscope_xr.tools.simulate import Stall, simulate

STALLS = [(400, 95), (700, 230), (612, 160), (333, 410)]


@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize(("at", "ms"), STALLS)
def test_no_wrong_pixel_in_a_frame_called_complete(
    at: int, ms: int, waits: bool, tmp_path: Path, open_card: Any
) -> None:
    card = simulate("v4-wirefree-2026", frames=24, events=[Stall(at, ms)], driver_waits=waits, seed=at)
    numbers, video, present = card.expected(0)
    true = dict(zip(numbers.tolist(), video, strict=True))
    there = dict(zip(numbers.tolist(), present.tolist(), strict=True))
    torn = {(b.frame_num, b.index) for b in card.buffers if b.status in ("torn", "mixed_content", "wrong_content")}
    doubtful = {b.frame_num for b in card.buffers if b.doubtful}
    ds = open_card(card.write(tmp_path / "card.img"))
    assert torn or doubtful or any(b.status != "good" for b in card.buffers)
    for number, image, buffers, complete in zip(
        ds.frame_num.values.tolist(),
        ds.video.values,
        ds.buffers_present.values.tolist(),
        ds.complete.values,
        strict=True,
    ):
        if complete:
            np.testing.assert_array_equal(image, true[number])
        elif number not in doubtful and not any(frame == number for frame, _ in torn):
            assert buffers == there[number] != 31
    complete = set(ds.frame_num.values[ds.complete.values].tolist())
    assert {n for n in there if there[n] == 31} - doubtful - {frame for frame, _ in torn} <= complete


def test_single_frames_are_the_frames_of_the_whole(tmp_path: Path, open_card: Any) -> None:
    card = simulate("v4-wirefree-2026", frames=24, events=[Stall(400, 95)], driver_waits=True)
    path = card.write(tmp_path / "card.img")
    whole, single = open_card(path).load(), open_card(path)
    for k in range(whole.sizes["frame"]):
        np.testing.assert_array_equal(single.video[k], whole.video[k])
        assert bool(single.complete[k]) == bool(whole.complete[k])
        assert int(single.buffers_present[k]) == int(whole.buffers_present[k])


def test_bytes_of_the_buffer_a_ring_later_prove_a_tear() -> None:
    rng = np.random.default_rng(5)
    mine, other = rng.integers(0, 256, (2, 4000), np.uint8)
    mine[mine == other] += 1
    assert _alike(mine, other) == Tear.WHOLE
    for start, stop in ((0, 8), (1000, 1040)):
        torn = mine.copy()
        torn[start:stop] = other[start:stop]
        assert _alike(torn, other) == Tear.TORN
    mine[100:400] = other[100:400] = 255  # saturated in both: no proof
    assert _alike(mine, other) == Tear.SUSPECT


class Reads(Through):
    """A card that counts what it is asked for."""

    def __init__(self, source: Any) -> None:
        super().__init__(source)
        self.count = 0

    def read(self, offset: int, length: int) -> bytes:
        self.count += 1
        return self.source.read(offset, length)

    def readv(self, offset: int, buffers: Any) -> int:
        self.count += 1
        return self.source.readv(offset, buffers)

    def gather(self, offsets: Any, length: int) -> bytes | None:
        self.count += 1
        return self.source.gather(offsets, length)


def test_a_frame_of_an_intact_card_is_one_read(tmp_path: Path) -> None:
    card = simulate("v4-wirefree-2026", frames=24, seed=3)
    opened = OpenCard(card.write(tmp_path / "card.img"))
    frames = opened.frames(opened.index.recordings[0])
    source = Reads(opened.source())
    video = card.expected(0)[1]
    for row in (1, 11, 23):  # the buffers of frame 0 wait for the card
        source.count = 0
        np.testing.assert_array_equal(frames.pixels(source, np.array([row]))[0], video[row])
        assert source.count == 1
    source.count = 0
    assert frames.describe(source, np.arange(1, 24)).complete.all()
    assert source.count == 1
    opened.close()
