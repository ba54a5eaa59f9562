"""Finding a recording costs few reads, however long it is."""

from __future__ import annotations

from math import log2

import numpy as np
import pytest

from miniscope_xr.errors import RecordingError
from miniscope_xr.index.build import build_index
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


class LongV3:
    """A finished v3 card of any length, computed as it is read; an older recording may begin at ``seam``."""

    def __init__(self, frames: int, seam: int | None = None, step: int = 0, skipped: tuple[int, ...] = ()) -> None:
        self.frames, self.seam, self.step, self.skipped = frames, seam, step, skipped
        self.size = (1024 + (frames + 10) * 200) * 512
        self.reads = 0
        settings = [0x0D7CBA17] * 4 + [1, 10, frames // 20]
        self._header = np.array(settings, "<u4").tobytes().ljust(512, b"\0")

    def _time(self, k: int) -> int:
        late = self.step if self.seam is not None and k >= self.seam else 0
        return int(60 + 49.996 * k * (1 + 30e-6)) + late + 50 * sum(k >= at for at in self.skipped)

    def read(self, offset: int, length: int) -> bytes:
        self.reads += 1
        out = bytearray(max(min(length, self.size - offset), 0))
        at = 1023 * 512 - offset
        if 0 <= at < len(out):
            out[at : at + 512] = self._header[: len(out) - at]
        k = (offset - 1024 * 512) // (200 * 512)
        at = (1024 + (k + 1) * 200) * 512 - 16 - offset
        if 0 <= k < self.frames and 0 <= at <= len(out) - 16:
            out[at : at + 16] = np.array([1, 320, self._time(k), k], "<u4").tobytes()
        return bytes(out)

    def readv(self, offset: int, buffers: object) -> int:
        raise NotImplementedError

    def salvage(self, offset: int, length: int) -> tuple[bytes, list[tuple[int, int]]]:
        return self.read(offset, length), []


@pytest.mark.parametrize("skipped", [(), (1000, 30_000)])
def test_a_long_finished_v3_card_has_no_warning_and_costs_hundreds_of_reads(skipped: tuple[int, ...]) -> None:
    card = LongV3(60_000, skipped=skipped)
    recording = build_index(card).recordings[0]
    assert (recording.n_buffers, recording.status, recording.warnings) == (60_000, "finished", ())
    assert card.reads < 1500


@pytest.mark.parametrize(("seam", "step"), [(41_234, 23), (41_234, -17), (100, 9), (59_990, 20)])
def test_an_older_recording_under_a_long_v3_card_is_cut_off(seam: int, step: int) -> None:
    recording = build_index(LongV3(60_000, seam, step)).recordings[0]
    assert recording.n_buffers == seam
    assert recording.warnings or recording.status == "finished"


@pytest.mark.parametrize(
    ("layout", "build", "buffers"),
    [("v4-wirefree", "HEAD", 36_543), ("v4-wirefree", "f70f880", 188_373), ("daq-wirefree", "HEAD", 20_374)],
)
def test_an_older_recording_under_hours_of_video_is_found_to_the_buffer(layout: str, build: str, buffers: int) -> None:
    old = SyntheticCard(layout, build, size=4 * GB, finished=False, seed=1, start_offset_ms=7.3, clock_ppm=20)
    new = SyntheticCard(
        layout,
        build,
        buffers=buffers,
        size=4 * GB,
        finished=False,
        seed=2,
        under=old,
        start_offset_ms=31.9,
        clock_ppm=-11,
    )
    recording = build_index(new).recordings[0]
    assert recording.n_buffers == buffers
    assert "older recording lies behind this one" in recording.warnings[0]
    assert len(new.reads) < 500
