"""Finding a recording costs few reads, however long it is."""

from __future__ import annotations

from math import log2

import pytest

from miniscope_xr.errors import RecordingError
from miniscope_xr.index import build_index
from tests.synthetic import SyntheticCard

GB = 10**9


@pytest.mark.parametrize(("layout", "build"), [("v4-wirefree", "HEAD"), ("v4-wirefree", "f70f880")])
@pytest.mark.parametrize("gigabytes", [1, 8, 64])
def test_an_intact_card_of_any_length_opens_in_at_most_24_sector_reads(layout: str, build: str, gigabytes: int) -> None:
    card = SyntheticCard(layout, build, size=gigabytes * GB)
    found = build_index(card)
    assert found.recordings[0].n_buffers == card.n_buffers
    assert found.recordings[0].status == "finished"
    assert len(card.reads) <= 24
    assert all(length <= 512 for _, length in card.reads)


def test_a_drop_costs_a_few_reads_more() -> None:
    intact = SyntheticCard("v4-wirefree", "HEAD", size=8 * GB)
    build_index(intact)
    drops = [(50_000, 60), (90_000, 200), (170_001, 31)]
    card = SyntheticCard("v4-wirefree", "HEAD", size=8 * GB, drops=drops)
    found = build_index(card)
    assert found.recordings[0].n_buffers == card.n_buffers
    assert len(card.reads) <= len(intact.reads) + len(drops) * (2 * log2(card.n_buffers) + 4)


def test_an_interrupted_64_gb_card_opens_in_hundreds_of_reads_not_millions() -> None:
    card = SyntheticCard("v4-wirefree", "HEAD", size=64 * GB, finished=False)
    found = build_index(card)
    recording = found.recordings[0]
    assert recording.n_buffers == card.n_buffers > 3_000_000
    assert recording.status == "interrupted"
    assert "not excluded" in recording.warnings[0]
    assert len(card.reads) < 500
    assert sum(length for _, length in card.reads) < 5_000_000


def test_a_card_without_the_recording_asked_for_says_which_there_are() -> None:
    card = SyntheticCard("v4-wirefree", "HEAD", buffers=100)
    assert [r.number for r in build_index(card).recordings] == [0]
    assert issubclass(RecordingError, ValueError)
