"""Damaged in any way, a card gives only our own errors, in bounded reads and memory, and no invented pixels.

A short run; ``python tests/measure/fuzz.py --cards 100000`` is the long one.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from miniscope_xr.card import card as store
from miniscope_xr.source.local import Device
from miniscope_xr.tools.simulate import simulate
from tests.measure import fuzz

CALLS = 20_000  # reads for each MiB of a card, ten a sector, and as many for any card at all
BYTES = 60  # bytes read for each byte of a card
OPENINGS = {"copied": 4, "info": 4, "rescued": 4}  # how often a way of reading opens a card, where that is not once


class CountingDevice(Device):
    """A device that knows how often and how much it was asked."""

    calls = 0
    total = 0

    @classmethod
    def count(cls, calls: int, n: int) -> None:
        CountingDevice.calls += calls
        CountingDevice.total += n

    def read(self, offset: int, length: int) -> bytes:
        data = super().read(offset, length)
        self.count(1, len(data))
        return data

    def readv(self, offset: int, buffers: Sequence[Any]) -> int:
        got = super().readv(offset, buffers)
        self.count(1, got)
        return got

    def gather(self, offsets: Sequence[int], length: int) -> bytes | None:
        self.count(1, length * len(offsets))
        return super().gather(offsets, length)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[CountingDevice]]:
    monkeypatch.setattr(store, "open_device", CountingDevice)
    return CountingDevice


def read(path: Path, data: bytes, counted: type[CountingDevice]) -> None:
    """Read a card in every way; count what each way takes."""
    counted.calls = counted.total = 0

    def done(way: str, outcome: str) -> None:
        size = (len(data) + (1 << 20)) * OPENINGS.get(way, 1)
        assert counted.calls <= CALLS * size / (1 << 20), f"{way}: {counted.calls} reads of {len(data)} bytes"
        assert counted.total <= BYTES * size, f"{way}: {counted.total} bytes read of {len(data)}"
        counted.calls = counted.total = 0

    fuzz.read(path, data, done)


@pytest.mark.slow
@given(
    seed=st.integers(0, 2**32),
    kinds=st.lists(st.sampled_from(list(fuzz.DAMAGE)), min_size=1, max_size=5),
)
@settings(max_examples=120, suppress_health_check=list(HealthCheck))
@example(seed=134217727, kinds=["steps", "shift", "shuffle"])  # a DAQ card's first buffer lies before its data sector
@example(seed=9656, kinds=["shift", "bits"])  # the same of a v3 card's first frame
@example(seed=166515741, kinds=["noise", *["headers"] * 4])  # many a header might be the first one behind a hole
def test_a_damaged_card_is_read_or_refused(
    seed: int, kinds: list[str], tmp_path: Path, counted: type[CountingDevice]
) -> None:
    rng = random.Random(seed)
    base, other = fuzz.any_base(rng, whole=0.0), fuzz.any_base(rng, whole=0.0)
    read(tmp_path / "card.img", fuzz.apply(rng, base, other, kinds), counted)


@pytest.mark.slow
@given(data=st.binary(max_size=2048), tail=st.integers(0, 4096))
@settings(max_examples=100, suppress_health_check=list(HealthCheck))
def test_any_bytes_where_settings_counts_and_headers_are(
    data: bytes, tail: int, tmp_path: Path, counted: type[CountingDevice]
) -> None:
    read(tmp_path / "card.img", bytes(1022 * 512) + data + bytes(tail), counted)


def test_headers_that_are_damage_reach_over_left_out_bytes(tmp_path: Path, counted: type[CountingDevice]) -> None:
    """Each of them begins a recording, and the buffer of one that is not the last would hold what was shifted."""
    card = simulate(layout="daq-wirefree", frames=4, seed=4)
    data, (first, torn) = bytearray(card.data), (card.buffers[k].sector for k in (0, 9))
    for k in range(4):
        at = (torn + 20 + 40 * k) * 512
        data[at : at + 48] = data[first * 512 : first * 512 + 48]
    at = (torn + 105) * 512
    del data[at : at + 100]
    read(tmp_path / "card.img", bytes(data), counted)
