"""A card is slow and its sectors are in no cache: it is read in large pieces, and once."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniscope_xr import SDCard
from miniscope_xr.source.local import Device
from miniscope_xr.tools.simulate import SimulatedCard

SIZE = 9 << 20


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of random bytes, larger than what is read at once."""
    path = tmp_path_factory.mktemp("noise") / "noise.img"
    path.write_bytes(np.random.default_rng(0).bytes(SIZE))
    return path


class Cold(Device):
    """A device of which nothing is in memory."""

    def _in_memory(self, offset: int) -> bool:
        return False


OFFSETS = st.lists(st.integers(0, SIZE - 48), max_size=60)
EVENLY = st.builds(
    lambda first, step: list(range(first, SIZE - 48, step)), st.integers(0, 99), st.integers(9000, 99000)
)


@pytest.mark.slow
@given(OFFSETS | OFFSETS.map(sorted) | EVENLY)
def test_small_reads_give_the_same_bytes_however_they_are_made(noise: Path, offsets: list[int]) -> None:
    data = noise.read_bytes()
    wanted = b"".join(data[at : at + 48] for at in offsets)
    with Device(noise) as warm, Cold(noise) as cold:
        for found in (warm.gather(offsets, 48), cold.gather(offsets, 48)):
            assert found == wanted or (found is None and not hasattr(os, "pread"))  # there: one by one, by the caller


def test_small_reads_behind_the_end_are_refused(noise: Path) -> None:
    with Device(noise) as warm, Cold(noise) as cold:
        for device in (warm, cold):
            assert device.gather([SIZE - 96, SIZE - 40], 48) is None


def _read(device: str) -> tuple[int, int]:
    """Requests and bytes that were read from a block device since it is there."""
    numbers = Path("/sys/block", Path(device).name, "stat").read_text().split()
    return int(numbers[0]), 512 * int(numbers[2])


def _frame_after_frame(open_card: Any, card: str) -> None:
    with SDCard(card) as opened:
        for _ in opened:
            pass


WORK: dict[str, Callable[[Any, str], object]] = {
    "a recording": lambda open_card, card: open_card(card).load(),
    "video with its coordinates": lambda open_card, card: open_card(card).video.load(),
    "a recording in chunks": lambda open_card, card: open_card(card, chunks={}).load(scheduler="synchronous"),
    "times": lambda open_card, card: open_card(card).time.load(),
    "the table of buffers": lambda open_card, card: open_card(card, group="buffers").load(),
    "frame after frame": _frame_after_frame,
}


@pytest.mark.parametrize("work", WORK)
def test_a_cold_card_is_read_once_and_in_large_pieces(
    work: str, clean_card: tuple[Path, SimulatedCard], loop_device: Callable[..., str], open_card: Any
) -> None:
    device = loop_device(clean_card[0], "--direct-io=on", "--read-only")
    subprocess.run(["blockdev", "--flushbufs", device], check=True)
    requests, size = _read(device)
    WORK[work](open_card, device)
    requests, size = _read(device)[0] - requests, _read(device)[1] - size
    assert size <= 1.05 * clean_card[0].stat().st_size
    assert requests <= 40 + size / (64 << 10)
