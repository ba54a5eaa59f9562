"""Cards on which several things went wrong at once, or whose own sectors contradict each other."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from miniscope_xr import MiniscopeError
from miniscope_xr.tools.simulate import (
    FailedWrite,
    IRStop,
    LostInterrupt,
    PowerLoss,
    RecordAgain,
    SimulatedCard,
    Stall,
    blank,
    simulate,
)
from tests.cards.test_reading import differences
from tests.conftest import SMALL
from tests.measure.named import names

CONFIG = 1023 * 512  # v4
WIDTH, HEIGHT, _, BUFFER_SIZE, RECORDED, DROPPED = range(6)


def with_words(card: SimulatedCard, start: int, words: dict[int, int]) -> bytes:
    """The card with some words replaced."""
    data = bytearray(card.data)
    for word, value in words.items():
        struct.pack_into("<I", data, start + 4 * word, value)
    return bytes(data)


def test_a_last_buffer_that_was_lapped_ends_where_fewer_sectors_were_written(tmp_path: Path) -> None:
    """What follows in its last sectors is whatever the card held before: here an erased card's 0xFF."""
    events = [Stall(59, 20), Stall(59, 173), Stall(50, 211)]
    card = simulate(frames=10, events=events, start_offset_ms=0, jitter_ms=0, fill=255)
    assert (card.buffers[-1].status, card.buffers[-1].n_sectors, card.buffers[-1].length) == (
        "good_but_short",
        21,
        20432,
    )
    for index in ("bisect", "scan"):
        assert differences(card, tmp_path / "card.img", index=index) == []


# -- several recordings ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("build", ["HEAD", "battery", "f70f880", "aa04ec3", "3787c5c"])
@pytest.mark.parametrize("lengths", [(11, 17, 8), (8, 20, 8), (20, 12, 30)])
def test_the_count_is_that_of_the_last_recording_however_long_the_others(
    build: str, lengths: tuple[int, ...], tmp_path: Path
) -> None:
    card = simulate(build=build, frames=14, events=[RecordAgain(n) for n in lengths], seed=1)
    for index in ("bisect", "scan"):
        assert differences(card, tmp_path / "card.img", index=index) == []


@pytest.mark.parametrize("word", range(12))
@pytest.mark.parametrize("bit", [3, 20])
def test_a_flipped_bit_in_the_last_header_is_the_same_looked_up_or_read_through(
    word: int, bit: int, tmp_path: Path, open_card: Any
) -> None:
    """Of the words that count nothing the bit costs no buffer: the counters say what stands there."""
    card = simulate(frames=12, seed=3)
    last = card.buffers[-1].sector * 512
    path = tmp_path / "card.img"
    path.write_bytes(with_words(card, last, {word: card.buffers[-1].words[word] ^ 1 << bit}))
    found, scanned = open_card(path), open_card(path, index="scan")
    xr.testing.assert_identical(found.load(), scanned.load())
    if word in (1, 9, 10, 11):
        assert found.sizes["frame"] == 12
        assert found.complete[-1]


@pytest.mark.parametrize("bit", [0, 1, 3, 5])
def test_a_flipped_index_beside_a_drop_is_no_buffer_beyond_the_frame(bit: int, tmp_path: Path, open_card: Any) -> None:
    """The bit costs the buffer it hit, and no buffer that a frame cannot have is called present."""
    card = simulate(frames=60, seed=3, events=[Stall(300, 250)])
    frame_num, _, present = card.expected()
    broken = [k for k in range(1, len(card.buffers)) if card.buffers[k].words[6] > card.buffers[k - 1].words[6]]
    assert broken
    for k in {n for b in broken for n in (b - 1, b)}:
        path = tmp_path / f"{k}.img"
        hit = card.buffers[k]
        path.write_bytes(with_words(card, hit.sector * 512, {4: hit.words[4] ^ 1 << bit}))
        ds = open_card(path)
        true = dict(zip(frame_num.tolist(), present.tolist(), strict=True))
        found = dict(zip(ds.frame_num.values.tolist(), ds.buffers_present.values.tolist(), strict=True))
        assert all(not bits & ~true[number] for number, bits in found.items())
        assert {n for n, bits in true.items() if found.get(n) != bits} <= {hit.frame_num}


def test_a_lost_interrupt_where_the_last_count_falls_in_an_earlier_recording(tmp_path: Path) -> None:
    events = [RecordAgain(10), RecordAgain(20), FailedWrite(37, 3), LostInterrupt(19)]
    card = simulate(build="aa04ec3", frames=23, events=events, seed=2)
    assert differences(card, tmp_path / "card.img") == []


def test_a_short_recording_is_not_continued_by_the_next_one(tmp_path: Path) -> None:
    events = [Stall(114, 5300), RecordAgain(29)]
    for layout, build in (("daq-wirefree", "319b459"), ("v4-wirefree", "HEAD")):
        card = simulate(layout, build, frames=33, events=events, seed=3)
        assert sum(b.recording == 0 for b in card.buffers) < 40
        assert differences(card, tmp_path / "card.img") == []


@pytest.mark.parametrize("build", ["HEAD", "battery", "f70f880", "aa04ec3"])
def test_an_interrupted_recording_behind_a_finished_one_is_named_and_until_returns_it(
    build: str, tmp_path: Path, open_card: Any
) -> None:
    events = [RecordAgain(20), PowerLoss(at_ms=500, recording=1)]
    card = simulate(build=build, frames=19, events=events, seed=4)
    path = card.write(tmp_path / "card.img")
    ds = open_card(path)
    frame_num, video, _ = card.expected(0)
    np.testing.assert_array_equal(ds.video, video)
    assert ds.status == "finished"
    start = min(b.sector for b in card.buffers if b.recording == 1)
    assert any(f"follows in sector {start}" in said for said in ds.warnings)
    frame_num, video, _ = card.expected(1)
    ds = open_card(path, recording=1, until=int(frame_num[-1]))
    np.testing.assert_array_equal(ds.video, video)
    assert ds.status == "interrupted"


# -- slow cards ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("build", ["HEAD", "battery", "f70f880", "aa04ec3"])
@pytest.mark.parametrize("stall", [(255, 383), (300, 3000), (120, 8000)])
def test_power_lost_behind_a_long_stall(build: str, stall: tuple[float, float], tmp_path: Path) -> None:
    at, ms = stall
    for offset in (3.0, 21.0, 47.8):
        card = simulate(build=build, frames=int(ms / 50) + 23, events=[Stall(at, ms), PowerLoss(at_ms=at + ms + 350)],
                        seed=5, start_offset_ms=offset, jitter_ms=1)  # fmt: skip
        assert differences(card, tmp_path / "card.img") == []


def test_a_focus_scan_with_drops(tmp_path: Path) -> None:
    scan = {"ewl": 30, "ewl_scan_mode": 1, "ewl_scan_start": 30, "ewl_scan_stop": 200, "ewl_scan_step": 20,
            "ewl_scan_interval": 1, "record_length": 60}  # fmt: skip
    for events in ([], [Stall(900, 400)], [PowerLoss(at_ms=2300)], [Stall(900, 400), PowerLoss(at_ms=2300)]):
        card = simulate(frames=60, events=events, settings=scan, seed=6, battery=255, battery_slope=5)
        assert len({b.words[11] for b in card.buffers}) > 1
        assert differences(card, tmp_path / "card.img") == []


def test_skipped_frames_of_a_v3_card_are_no_older_recording(tmp_path: Path, open_card: Any) -> None:
    card = simulate("v3-wirefree", seconds=3, events=[Stall(1058, 355), Stall(1900, 170)], seed=7, jitter_ms=0.3)
    assert differences(card, tmp_path / "card.img") == []
    assert "warnings" not in open_card(tmp_path / "card.img").attrs


# -- one device's card in another device -----------------------------------------------------------


LAYOUTS = ("v4-wirefree", "daq-wirefree", "v3-wirefree")


@pytest.mark.parametrize("before", LAYOUTS)
@pytest.mark.parametrize("now", LAYOUTS)
def test_a_card_used_in_another_device_before(before: str, now: str, tmp_path: Path) -> None:
    if before == now:
        pytest.skip("not another device")
    older = simulate(before, frames=20, seed=8)
    card = simulate(now, frames=16, seed=9, under=older)
    assert differences(card, tmp_path / "card.img") == []
    if now != "v3-wirefree":
        lost = simulate(now, frames=16, seed=9, under=older, events=[PowerLoss(buffer=50)])
        assert differences(lost, tmp_path / "card.img") == []


@pytest.mark.parametrize("layout", ["v4-wirefree", "v3-wirefree", "daq-wirefree"])
def test_a_card_prepared_by_the_notebook_has_no_write_keys(layout: str, tmp_path: Path) -> None:
    card = simulate(layout, frames=16, write_keys=False, seed=10)
    assert differences(card, tmp_path / "card.img") == []


def test_a_card_prepared_for_another_recording_gives_no_old_frames(tmp_path: Path, open_card: Any) -> None:
    fresh = blank(settings={"record_length": 60})
    card = simulate(frames=10, seed=11, **SMALL)
    path = tmp_path / "card.img"
    path.write_bytes(fresh.data[: 1024 * 512] + card.data[1024 * 512 :])
    with pytest.raises(MiniscopeError, match="older"):
        open_card(path)


# -- sectors that contradict each other ------------------------------------------------------------


@pytest.mark.parametrize("words", [{WIDTH: 305}, {HEIGHT: 8}, {WIDTH: 608, HEIGHT: 608}, {WIDTH: 4000, HEIGHT: 4000}])
def test_a_wrong_frame_size_is_not_believed(words: dict[int, int], tmp_path: Path, open_card: Any) -> None:
    card = simulate(frames=12, seed=12)
    path = tmp_path / "card.img"
    path.write_bytes(with_words(card, CONFIG, words))
    ds = open_card(path)
    assert (ds.width, ds.height) == (304, 304)
    assert any("frame size" in said for said in ds.warnings)
    np.testing.assert_array_equal(ds.video, card.expected()[1])


@pytest.mark.parametrize("size", [20992, 40960, 512, 1 << 19])
def test_a_wrong_buffer_size_is_not_believed(size: int, tmp_path: Path, open_card: Any) -> None:
    card = simulate(frames=12, seed=13)
    path = tmp_path / "card.img"
    path.write_bytes(with_words(card, CONFIG, {BUFFER_SIZE: size}))
    ds = open_card(path)
    assert any(f"buffers of {size} bytes" in said for said in ds.warnings)
    np.testing.assert_array_equal(ds.video, card.expected()[1])


@pytest.mark.parametrize("length", [20436, 40_000, 0xFFFFFFFF])
def test_a_header_with_more_data_than_a_buffer_holds_vouches_for_nothing(
    length: int, tmp_path: Path, open_card: Any
) -> None:
    card = simulate(frames=12, seed=14)
    buffer = card.buffers[26]
    path = tmp_path / "card.img"
    path.write_bytes(with_words(card, buffer.sector * 512, {8: length}))
    _, video, present = card.expected()
    start = buffer.index * card.spec.payload
    video.reshape(12, -1)[buffer.frame_num, start : start + buffer.length] = 0
    present[buffer.frame_num] &= ~np.uint32(1 << buffer.index)
    for index in ("bisect", "scan"):
        ds = open_card(path, index=index)
        np.testing.assert_array_equal(ds.video, video)
        np.testing.assert_array_equal(ds.buffers_present, present)


@pytest.mark.parametrize("recorded", [61, 500, (1 << 28) - 1])
def test_a_count_that_is_not_the_recordings_adds_no_frames(recorded: int, tmp_path: Path, open_card: Any) -> None:
    card = simulate(frames=12, seed=15)
    path = tmp_path / "card.img"
    path.write_bytes(with_words(card, CONFIG, {RECORDED: recorded}))
    ds = open_card(path)
    assert ds.n_buffers_found == 60
    np.testing.assert_array_equal(ds.video, card.expected()[1])


def test_a_count_beyond_the_end_keeps_no_older_recording(tmp_path: Path, open_card: Any) -> None:
    """It is that of a later boot, or of another card: the clock shows where this recording ends all the same."""
    old = simulate(frames=40, seed=15)
    card = simulate(frames=12, seed=16, start_offset_ms=61, under=old)
    path = tmp_path / "card.img"
    path.write_bytes(with_words(card, CONFIG, {RECORDED: 230}))
    for index in ("bisect", "scan"):
        ds = open_card(path, index=index)
        np.testing.assert_array_equal(ds.video, card.expected()[1])
        assert any("an older recording lies behind this one" in said for said in ds.warnings)


@pytest.mark.parametrize("recorded", [2, 5, 37, 59])
def test_a_count_that_leftovers_refute_takes_no_frames(recorded: int, tmp_path: Path, open_card: Any) -> None:
    """It is that of another recording; what lies behind it is proven to be of this one."""
    card = simulate(frames=12, seed=15)
    path = tmp_path / "card.img"
    path.write_bytes(with_words(card, CONFIG, {RECORDED: recorded}))
    for index in ("bisect", "scan"):
        ds = open_card(path, index=index)
        np.testing.assert_array_equal(ds.video, card.expected()[1])
        assert ds.status == "interrupted"
        assert any(f"counts {recorded} buffers, which no recording here ends at" in said for said in ds.warnings)


def test_a_count_that_nothing_confirms_or_refutes_is_in_doubt(tmp_path: Path, open_card: Any) -> None:
    card = simulate(frames=12, seed=15)  # the first buffer's slot of the ring held nothing yet
    path = tmp_path / "card.img"
    path.write_bytes(with_words(card, CONFIG, {RECORDED: 1}))
    ds = open_card(path)
    assert ds.n_buffers_found == 1
    assert any("in doubt" in said and "until=11" in said for said in ds.warnings)
    np.testing.assert_array_equal(open_card(path, until=11).video, card.expected()[1])


@pytest.mark.parametrize("size", [(608, 608), (800, 800)])
def test_a_config_sector_of_a_later_boot_of_another_build_says_no_counts(
    size: tuple[int, int], tmp_path: Path, open_card: Any
) -> None:
    card = simulate("daq-wirefree", "HEAD 640x560", frames=6, seed=15)
    path = tmp_path / "card.img"
    path.write_bytes(with_words(card, card.layout.sectors.config * 512, {WIDTH: size[0], HEIGHT: size[1]}))
    ds = open_card(path)
    assert (ds.width, ds.height) == (640, 560)
    assert not any("counts this card holds" in said for said in ds.warnings)
    np.testing.assert_array_equal(ds.video, card.expected()[1])


def test_a_card_full_of_first_headers_is_not_a_thousand_recordings(tmp_path: Path, open_card: Any) -> None:
    card = simulate(frames=12, seed=16)
    data = bytearray(card.data)
    header = data[1024 * 512 : 1025 * 512]
    header[32:36] = bytes(4)  # no data: the next header may follow in the next sector
    data[1025 * 512 :] = header * (len(data) // 512 - 1025)
    path = tmp_path / "card.img"
    path.write_bytes(data)
    with pytest.raises(MiniscopeError, match="recordings"):
        open_card(path)
    assert open_card(path, recording=0).n_buffers_found == 1


def test_a_remote_stop_before_another_recording(tmp_path: Path) -> None:
    card = simulate("daq-wirefree", frames=30, events=[IRStop(700), RecordAgain(12)], seed=17)
    assert differences(card, tmp_path / "card.img") == []


def test_a_drop_somewhere_among_failed_writes_is_no_older_recording(tmp_path: Path) -> None:
    """Behind the hole the counters are not at a multiple of the drop step: the buffers since the drop are missing."""
    events = [Stall(374, 400), FailedWrite(32, 12), PowerLoss(buffer=70)]
    card = simulate(frames=23, events=events, start_offset_ms=0, seed=8)
    assert {b.words[6] for b in card.buffers[:31]} == {0} != {b.words[6] for b in card.buffers[44:]}
    for index in ("bisect", "scan"):
        assert differences(card, tmp_path / "card.img", index=index) == []


@pytest.mark.parametrize(("layout", "build", "words"), [
    ("v4-wirefree", "battery", {0: 10}), ("v4-wirefree", "f70f880", {0: 11}), ("daq-wirefree", "HEAD", {0: 9}),
    ("samd-framework", "12 words, focus", {0: 13}), ("samd-framework", "13 words", {0: 12}),
    ("samd-framework", "14 words", {0: 12, 1: 1 << 30}), ("v4-wirefree", "HEAD", {0: 11}),
])  # fmt: skip
def test_a_first_header_that_says_another_length_moves_no_pixel(
    layout: str, build: str, words: dict[int, int], tmp_path: Path
) -> None:
    small = {} if layout == "daq-wirefree" else {"width": 304, "height": 120}
    card = simulate(layout, build, frames=8, seed=4, **small)
    path = tmp_path / "card.img"
    path.write_bytes(with_words(card, card.layout.sectors.data * 512, words))
    frames, video, _ = card.expected(0)
    with xr.open_dataset(path, engine="miniscope") as ds:
        whole = np.flatnonzero(ds.complete.values)
        assert len(whole) == len(frames) - 1
        for k in whole.tolist():
            assert np.array_equal(ds.video[k].values, video[frames.tolist().index(int(ds.frame_num[k]))])


def test_a_daq_ends_where_the_low_bytes_of_its_counts_fit(tmp_path: Path, open_card: Any) -> None:
    """Its clock starts at power-on: a longer recording below has the same times, and goes on as this one would."""
    longer = simulate("daq-wirefree", "319b459", frames=20)
    card = simulate("daq-wirefree", "319b459", frames=5, under=longer)
    assert differences(card, tmp_path / "card.img") == []
    ds = open_card(tmp_path / "card.img")
    assert ds.attrs["status"] == "finished"
    assert any("with the same frame clock lies behind this one" in said for said in ds.attrs["warnings"])


def test_where_the_low_bytes_of_the_counts_fit_twice_both_places_are_named(tmp_path: Path, open_card: Any) -> None:
    longer = simulate("daq-wirefree", "319b459", frames=50)
    card = simulate("daq-wirefree", "319b459", frames=5, under=longer)  # 30 buffers, or 286
    path = card.write(tmp_path / "card.img")
    said = open_card(path).attrs["warnings"]
    assert len([s for s in said if "it may be with frame 4 or 47" in s]) == 1
    assert not any("never written" in s for s in said)
    ds = open_card(path, until=4)
    assert np.array_equal(ds.video.values, card.expected()[1])


def test_a_daq_image_that_ends_early_is_not_ended_by_the_counts(tmp_path: Path, open_card: Any) -> None:
    """288 buffers were counted, and the image holds 48: that 32 of them would fit says nothing."""
    card = simulate("daq-wirefree", "319b459", frames=48)
    path = tmp_path / "card.img"
    path.write_bytes(card.data[: card.buffers[48].sector * 512 + 5000])
    ds = open_card(path)
    assert ds.attrs["status"] == "truncated"
    assert np.array_equal(ds.video.values[:8], card.expected()[1][:8])


def test_a_first_header_that_two_firmwares_write_alike_is_told_by_the_slots_behind_it(
    tmp_path: Path, open_card: Any
) -> None:
    """Ring of 2 or of 8: the first buffer stands in slot 0 of both."""
    card = simulate("samd-framework", "10 words", frames=12, seed=3)
    for index in ("bisect", "scan"):
        ds = open_card(card.write(tmp_path / "card.img"), index=index)
        assert ds.layout == "samd-framework"
        np.testing.assert_array_equal(ds.video, card.expected()[1])


@pytest.mark.parametrize(
    ("layout", "build", "place", "word", "bit"),
    [
        ("samd-framework", "13 words", 40, 9, 30),  # the time of a write, of a frame's first buffer
        ("samd-framework", "13 words", 0, 7, 15),  # the first time of all
        ("v4-wirefree", "HEAD", 40, 10, 3),  # the battery
    ],
)
def test_a_flipped_bit_in_one_header_is_no_older_recording(
    layout: str, build: str, place: int, word: int, bit: int, tmp_path: Path, open_card: Any
) -> None:
    card = simulate(layout, build, frames=20, events=[PowerLoss(buffer=58)], seed=4, **SMALL)
    at = card.buffers[place].sector * 512
    path = tmp_path / "card.img"
    path.write_bytes(with_words(card, at, {word: card.buffers[place].words[word] ^ 1 << bit}))
    for index in ("bisect", "scan"):
        ds = open_card(path, index=index)
        np.testing.assert_array_equal(ds.frame_num, card.expected()[0])
        assert not any("older recording lies" in said or "doubtful" in said for said in ds.attrs.get("warnings", []))


def test_a_v3_image_that_ends_in_nothing_is_not_truncated(tmp_path: Path, open_card: Any) -> None:
    """Where its settings are gone, too; a frame that was cut off leaves pixels there."""
    card = simulate("v3-wirefree", frames=12, seed=3)
    front, tail, path = 1024 * 512, 64 * 512, tmp_path / "card.img"
    path.write_bytes(card.data[front:])
    assert open_card(path).status == "interrupted"
    path.write_bytes(card.data[front : -tail - 5000])
    assert open_card(path).status == "truncated"


@pytest.mark.parametrize("behind", [1, 2, 3])
def test_sectors_damaged_shortly_behind_a_drop_leave_no_frame_unnamed(
    behind: int, tmp_path: Path, open_card: Any
) -> None:
    """What was in the ring is gone there, and too few buffers follow the drop to show the clock."""
    card = simulate(frames=50, seed=3, events=[Stall(700, 250), Stall(1800, 250), PowerLoss(buffer=160)])
    words = np.array([b.words for b in card.buffers])
    drop = int(np.flatnonzero(np.diff(words[:, 6]))[0]) + 1
    data, at = bytearray(card.data), card.buffers[drop + behind].sector + 19
    data[at * 512 : (at + 6) * 512] = np.random.default_rng(0).bytes(6 * 512)
    path = tmp_path / "card.img"
    path.write_bytes(data)
    for index in ("bisect", "scan"):
        ds = open_card(path, index=index)
        lacking = set(card.expected()[0].tolist()) - set(ds.frame_num.values.tolist())
        assert all(names(frame, ds.warnings) for frame in lacking)
        assert not any("an older recording begins in frame" in said for said in ds.attrs.get("warnings", []))


@pytest.mark.parametrize("bit", [0, 1])
def test_a_flipped_length_in_the_first_header_of_2026_makes_no_blank_card(
    bit: int, tmp_path: Path, open_card: Any
) -> None:
    card = simulate("v4-wirefree-2026", frames=12, seed=4, events=[PowerLoss(buffer=52)])
    path = tmp_path / "card.img"
    path.write_bytes(with_words(card, card.buffers[0].sector * 512, {0: 12 ^ 1 << bit}))
    for index in ("bisect", "scan"):
        np.testing.assert_array_equal(open_card(path, index=index).frame_num, card.expected()[0])
