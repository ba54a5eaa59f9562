"""What is overwritten, left out, shifted or flipped costs what it hit and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from miniscope_xr.tools.simulate import PowerLoss, RecordAgain, SimulatedCard, Stall, simulate

SECTOR = 512
FRAMES = 60
KINDS: dict[str, dict[str, Any]] = {
    "v4": {},
    "v4 with a drop": {"events": [Stall(300, 250)]},
    "v4, battery died": {"events": [PowerLoss(buffer=290)]},
    "v4, 10 words": {"build": "f70f880"},
    "v4, 80 sectors": {"build": "aa04ec3", "events": [PowerLoss(buffer=160)]},
    "DAQ": {"layout": "daq-wirefree", "frames": 24},
    "DAQ, battery died": {"layout": "daq-wirefree", "frames": 24, "events": [PowerLoss(buffer=130)]},
    "fw2026": {"layout": "v4-wirefree-2026", "frames": 24},
}
V3: dict[str, dict[str, Any]] = {
    "v3": {"layout": "v3-wirefree", "frames": 20},
    "v3, battery died": {"layout": "v3-wirefree", "frames": 20, "settings": {"record_length": 60}},
    "v3, battery died, long": {
        "layout": "v3-wirefree",
        "build": "352x240",
        "frames": 80,
        "settings": {"record_length": 60},
    },
    "v3, 352x240": {"layout": "v3-wirefree", "build": "352x240", "frames": 20},
}
# sectors overwritten, as parts of the card: where a file system begins, and how far it reaches
HOLES = {
    "a few buffers": (0.30, 0.33),
    "a third": (0.20, 0.53),
    "behind the first frames": (0.08, 0.40),
    "up to the last frames": (0.45, 0.93),
    "the front": (0.0, 0.15),
    "settings and half of it": (0.0, 0.5),
}


@pytest.fixture(scope="module")
def made() -> Callable[[str], SimulatedCard]:
    cards: dict[str, SimulatedCard] = {}

    def make(kind: str) -> SimulatedCard:
        if kind not in cards:
            cards[kind] = simulate(seed=4, **{"frames": FRAMES, **{**KINDS, **V3}[kind]})
        return cards[kind]

    return make


def judged(card: SimulatedCard, data: np.ndarray[Any, Any], path: Path, open_card: Any, **options: Any) -> set[int]:
    """Frames of a damaged card that come back whole; those called complete have no wrong pixel."""
    data.tofile(path)
    frame_num, video, _ = card.expected()
    true = dict(zip(frame_num.tolist(), video, strict=True))
    ds = open_card(path, **options)
    assert len(set(ds.frame_num.values.tolist())) == ds.sizes["frame"]
    whole = set()
    complete, numbers = ds.complete.values, ds.frame_num.values.tolist()
    for number, image, is_whole in zip(numbers, ds.video.values, complete, strict=True):
        if is_whole:
            assert np.array_equal(image, true.get(number)), f"frame {number} is called complete"
            whole.add(number)
    return whole


def untouched(card: SimulatedCard, first: int, stop: int) -> set[int]:
    """Frames all of whose buffers are on the card and lie outside sectors [first, stop)."""
    hit = {b.frame_num for b in card.buffers if b.sector < stop and b.sector + b.n_sectors > first}
    frame_num, _, present = card.expected()
    return {int(f) for f, p in zip(frame_num, present, strict=True) if p == present.max() and f not in hit}


@pytest.mark.slow
@pytest.mark.parametrize("index", ["bisect", "scan"])
@pytest.mark.parametrize("hole", HOLES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_hole_costs_only_the_frames_it_hit(
    kind: str, hole: str, index: str, made: Any, tmp_path: Path, open_card: Any
) -> None:
    card = made(kind)
    data = np.frombuffer(card.data, np.uint8).copy()
    low, high = (int(part * len(data)) // SECTOR for part in HOLES[hole])
    first = low if low == 0 else max(low, 1030)
    data[first * SECTOR : high * SECTOR] = 0
    whole = judged(card, data, tmp_path / "card.img", open_card, index=index)
    assert untouched(card, first, high) <= whole


@pytest.mark.parametrize("fill", [0, 255])
@pytest.mark.parametrize("kind", ["v4", "DAQ", "fw2026"])
def test_a_buffer_within_which_a_hole_begins_is_not_whole(
    kind: str, fill: int, made: Any, tmp_path: Path, open_card: Any
) -> None:
    """Counts and both ends fit, so that nothing is noticed at opening: the next header's sector is blank."""
    card = made(kind)
    frame = card.buffers[60].frame_num
    own = [b for b in card.buffers if b.frame_num == frame]
    for hit in (own[1], own[-1]):  # the next header is the frame's own, or the next frame's
        data = np.frombuffer(card.data, np.uint8).copy()
        first = hit.sector + hit.n_sectors // 2
        data[first * SECTOR : (hit.sector + hit.n_sectors + 1) * SECTOR] = fill
        whole = judged(card, data, tmp_path / "card.img", open_card)
        assert frame not in whole
        assert len(whole) >= len(card.expected()[0]) - 2
        ds = open_card(tmp_path / "card.img")
        alone = [bool(ds.complete[row]) for row in range(ds.sizes["frame"])]  # each by a read of its own
        assert alone == ds.complete.values.tolist()


@pytest.mark.parametrize("kind", ["v4, battery died", "DAQ", "v3, battery died, long"])
def test_other_data_may_reach_into_the_buffer_beside_them_whose_header_is_whole(
    kind: str, made: Any, tmp_path: Path, open_card: Any
) -> None:
    """Half of a frame's last buffer is somebody's, of a v3 frame the first half: no header tells, a doubt does."""
    card = made(kind)
    data = np.frombuffer(card.data, np.uint8).copy()
    numbers = sorted({b.frame_num for b in card.buffers})
    frame = numbers[len(numbers) // 2]
    last = [b for b in card.buffers if b.frame_num == frame][-1]
    middle, stretch = last.sector + last.n_sectors // 2, last.n_sectors * len(card.buffers) // 3
    first, end = (middle - stretch, middle) if "v3" in kind else (middle, middle + stretch)
    noise = np.random.default_rng(1).integers(0, 256, (end - first) * SECTOR, np.uint8)
    data[first * SECTOR : end * SECTOR] = noise
    data.tofile(tmp_path / "card.img")
    said = open_card(tmp_path / "card.img").attrs["warnings"]
    assert any("in doubt" in each and each.endswith(f"of frame {frame}") for each in said), said


@pytest.mark.slow
@pytest.mark.parametrize("word", range(12))
@pytest.mark.parametrize("kind", ["v4", "v4 with a drop", "v4, battery died"])
def test_a_flipped_bit_in_a_header_costs_one_buffer(
    kind: str, word: int, made: Any, tmp_path: Path, open_card: Any
) -> None:
    card = made(kind)
    frame_num, _, present = card.expected()
    for bit, number in ((0, 57), (3, 140), (9, 200), (27, 141)):
        buffer = card.buffers[number]
        data = np.frombuffer(card.data, np.uint8).copy()
        data[buffer.sector * SECTOR + 4 * word + bit // 8] ^= 1 << bit % 8
        whole = judged(card, data, tmp_path / "card.img", open_card)
        wanted = {int(f) for f, p in zip(frame_num, present, strict=True) if p == present.max()}
        assert wanted - {buffer.frame_num} <= whole


@pytest.mark.parametrize("damage", ["bit", "zeros", "ones"])
@pytest.mark.parametrize("kind", ["v4, battery died", "v4, 80 sectors", "DAQ, battery died"])
def test_damage_behind_the_pixels_of_a_buffer_costs_nothing(
    kind: str, damage: str, made: Any, tmp_path: Path, open_card: Any
) -> None:
    """Nothing says where these end but what lies behind the pixels: one damaged sector there is no older recording."""
    card = made(kind)
    frame_num, _, present = card.expected()
    wanted = {int(f) for f, p in zip(frame_num, present, strict=True) if p == present.max()}
    said = open_card(card.write(tmp_path / "intact.img")).attrs.get("warnings", [])
    short = [b for b in card.buffers[20:-20] if (card.spec.header_bytes + b.length) % SECTOR]
    for buffer in short[:: max(len(short) // 4, 1)]:
        data = np.frombuffer(card.data, np.uint8).copy()
        start = buffer.sector * SECTOR + card.spec.header_bytes + buffer.length
        end = (buffer.sector + buffer.n_sectors) * SECTOR
        if damage == "bit":
            data[(start + end) // 2] ^= 16
        else:
            data[start:end] = 0 if damage == "zeros" else 255
        assert judged(card, data, tmp_path / "card.img", open_card) == wanted
        assert open_card(tmp_path / "card.img").attrs.get("warnings", []) == said


def test_a_sector_of_noise_behind_the_pixels_is_a_doubt_that_names_its_frames(tmp_path: Path, open_card: Any) -> None:
    """The same for a sector full of other bytes: an older recording with this frame clock cannot be told from it."""
    card = simulate(seed=4, frames=FRAMES, events=[PowerLoss(buffer=290)])
    data = np.frombuffer(card.data, np.uint8).copy()
    hit = next(b for b in card.buffers[100:] if b.index == 4)
    end = (hit.sector + hit.n_sectors) * SECTOR
    data[end - 16 : end] = np.random.default_rng(1).integers(0, 256, 16, np.uint8)
    whole = judged(card, data, tmp_path / "card.img", open_card)
    ds = open_card(tmp_path / "card.img")
    assert whole == set(range(hit.frame_num))
    assert [f"frames {hit.frame_num} to 57 are in doubt" in said for said in ds.attrs["warnings"]] == [True]
    assert len(judged(card, data, tmp_path / "card.img", open_card, until=57)) == 58


@pytest.mark.slow
@pytest.mark.parametrize("index", ["bisect", "scan"])
@pytest.mark.parametrize("sectors", [-2048, -331, -8, 1, 8, 128, 2048])
@pytest.mark.parametrize("kind", ["v4", "v4 with a drop", "v4, battery died", "DAQ", "v3", "fw2026"])
def test_what_is_left_out_or_put_in_costs_only_the_frames_it_hit(
    kind: str, sectors: int, index: str, made: Any, tmp_path: Path, open_card: Any
) -> None:
    card = made(kind)
    data = np.frombuffer(card.data, np.uint8)
    at = card.buffers[len(card.buffers) // 3].sector + 7
    put_in = np.zeros(max(sectors, 0) * SECTOR, np.uint8)
    shifted = np.concatenate([data[: at * SECTOR], put_in, data[(at - min(sectors, 0)) * SECTOR :]])
    whole = judged(card, shifted, tmp_path / "card.img", open_card, index=index)
    assert untouched(card, at, at + max(-sectors, 1)) <= whole


@pytest.mark.parametrize("n", [-100, 1, pytest.param(4103, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "kind", ["v4", *(pytest.param(k, marks=pytest.mark.slow) for k in ("v4, battery died", "DAQ"))]
)
def test_bytes_left_out_or_put_in_cost_only_the_frames_they_hit(
    kind: str, n: int, made: Any, tmp_path: Path, open_card: Any
) -> None:
    card = made(kind)
    data = np.frombuffer(card.data, np.uint8)
    at = card.buffers[len(card.buffers) // 3].sector * SECTOR + 3700
    shifted = np.concatenate([data[:at], np.zeros(max(n, 0), np.uint8), data[at - min(n, 0) :]])
    whole = judged(card, shifted, tmp_path / "card.img", open_card)
    assert untouched(card, at // SECTOR, at // SECTOR + 1) <= whole
    (said,) = [w for w in open_card(tmp_path / "card.img").attrs["warnings"] if "off the sectors" in w]
    assert f"behind byte {card.buffers[len(card.buffers) // 3 + 1].sector * SECTOR + n} " in said


@pytest.mark.parametrize("n", [-100, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 4103))])
@pytest.mark.parametrize("kind", ["v3", *(pytest.param(k, marks=pytest.mark.slow) for k in V3 if k != "v3")])
def test_bytes_left_out_of_whole_frames_cost_only_the_frame_they_hit(
    kind: str, n: int, made: Any, tmp_path: Path, open_card: Any
) -> None:
    card = made(kind)
    data = np.frombuffer(card.data, np.uint8)
    at = card.buffers[7].sector * SECTOR + 3700
    shifted = np.concatenate([data[:at], np.zeros(max(n, 0), np.uint8), data[at - min(n, 0) :]])
    for index in ("bisect", "scan"):
        whole = judged(card, shifted, tmp_path / "card.img", open_card, index=index)
        assert whole == untouched(card, at // SECTOR, at // SECTOR + 1)


@pytest.mark.parametrize("cut", [100, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 523_000, 600_001))])
@pytest.mark.parametrize(
    "kind", ["v4", *(pytest.param(k, marks=pytest.mark.slow) for k in ("v4, battery died", "DAQ", "v3"))]
)
def test_an_image_whose_front_is_cut_off_within_a_sector_is_read(
    kind: str, cut: int, made: Any, tmp_path: Path, open_card: Any
) -> None:
    card = made(kind)
    for data in (card.data[cut:], bytes(cut) + card.data):
        whole = judged(card, np.frombuffer(data, np.uint8), tmp_path / "card.img", open_card)
        kept = untouched(card, 0, -(-cut // SECTOR) if len(data) < len(card.data) else 0)
        assert whole == kept
        assert any("off the sectors" in w for w in open_card(tmp_path / "card.img").attrs["warnings"])


def test_an_image_that_begins_late_and_whose_config_sector_is_gone_is_read(
    made: Any, tmp_path: Path, open_card: Any
) -> None:
    card = made("v4")
    data = np.frombuffer(card.data, np.uint8).copy()
    data[1023 * SECTOR : 1024 * SECTOR] = 77
    assert judged(card, data[2 * SECTOR :], tmp_path / "card.img", open_card) == untouched(card, 0, 0)
    assert open_card(tmp_path / "card.img").attrs["led"] == 0


def test_bytes_left_out_in_several_places(made: Any, tmp_path: Path, open_card: Any) -> None:
    card = made("v4")
    data, hit = np.frombuffer(card.data, np.uint8), set()
    for number, n in ((200, 3), (110, 511), (50, 77)):
        at = card.buffers[number].sector * SECTOR + 900
        hit.add(card.buffers[number].frame_num)
        data = np.delete(data, np.s_[at : at + n])
    for index in ("bisect", "scan"):
        whole = judged(card, data, tmp_path / "card.img", open_card, index=index)
        assert untouched(card, 0, 0) - hit == whole


@pytest.mark.parametrize("start", [700, 1022, 1024])
def test_an_image_without_its_first_sectors_is_read(start: int, made: Any, tmp_path: Path, open_card: Any) -> None:
    card = made("v4")
    whole = judged(card, np.frombuffer(card.data, np.uint8)[start * SECTOR :], tmp_path / "card.img", open_card)
    assert whole == untouched(card, 0, 0)
    ds = open_card(tmp_path / "card.img")
    assert ("led" in ds.attrs) == (start <= 1022)


def test_a_hole_that_reaches_into_a_whole_frame_costs_that_frame_too(made: Any, tmp_path: Path, open_card: Any) -> None:
    card = made("v3")
    data = np.frombuffer(card.data, np.uint8).copy()
    first = card.buffers[5].sector
    data[first * SECTOR : (first + 250) * SECTOR] = 0  # frame 5, and the front of frame 6, whose footer is there
    assert judged(card, data, tmp_path / "card.img", open_card) == untouched(card, first, first + 250)


@pytest.mark.parametrize("kind", ["v4", "DAQ", "fw2026"])
def test_a_front_that_was_zeroed_up_to_the_data_hides_no_frame(
    kind: str, made: Any, tmp_path: Path, open_card: Any
) -> None:
    """Neither settings nor config, as on a card on which nothing was recorded: but the buffers are there."""
    card = made(kind)
    data = np.frombuffer(card.data, np.uint8).copy()
    data[: card.layout.sectors.data * SECTOR] = 0
    assert judged(card, data, tmp_path / "card.img", open_card) == untouched(card, 0, 0)


@pytest.mark.parametrize("gone", [1, 7, 21])
def test_a_2026_card_without_its_front_says_what_is_gone(gone: int, tmp_path: Path, open_card: Any) -> None:
    """Its buffers all take 40 sectors, and its config sector would have the count only of a stop."""
    card = simulate("v4-wirefree-2026", frames=8, seed=6)
    data = np.frombuffer(card.data, np.uint8).copy()
    end = card.buffers[gone - 1].sector + 3  # within a buffer
    data[: end * SECTOR] = 0xFF
    assert judged(card, data, tmp_path / "card.img", open_card) == untouched(card, 0, end)
    ds = open_card(tmp_path / "card.img")
    assert f"its first {gone} buffers are gone" in " ".join(ds.attrs["warnings"])
    assert "led" not in ds.attrs


def test_a_bit_flipped_in_the_time_of_a_middle_frame_ends_no_recording(tmp_path: Path, open_card: Any) -> None:
    """It is past the record length, and where bisecting for that looks first."""
    card = simulate("v3-wirefree", frames=59, seed=8, settings={"record_length": 3})
    path = tmp_path / "card.img"
    path.write_bytes(card.data)
    whole = open_card(path)
    numbers = set(whole.frame_num.values.tolist())
    for number in (14, 29, 30):
        data = bytearray(card.data)
        data[(1024 + (number + 1) * 200) * 512 - 7] ^= 0x10  # bit 12 of its ms
        path.write_bytes(data)
        ds = open_card(path)
        assert ds.status == whole.status
        lost = numbers - set(ds.frame_num[ds.complete.values].values.tolist())
        assert lost <= {number}


@pytest.mark.parametrize(("begins", "sectors"), [(25, 1), (15, 420)])
def test_a_hole_where_the_last_recordings_count_would_end_the_first_costs_what_it_hit(
    begins: int, sectors: int, tmp_path: Path, open_card: Any
) -> None:
    """The count in the config sector says nothing of a recording in front of the one it is of."""
    card = simulate(frames=20, seed=5, events=[RecordAgain(frames=5)])
    hole = card.buffers[begins].sector
    data = bytearray(card.data)
    data[hole * SECTOR : (hole + sectors) * SECTOR] = np.random.default_rng(1).bytes(sectors * SECTOR)
    path = tmp_path / "card.img"
    path.write_bytes(data)
    intact = card.write(tmp_path / "intact.img")
    for number in (0, 1):
        own = [b for b in card.buffers if b.recording == number]
        hit = {b.frame_num for b in own if b.sector < hole + sectors and b.sector + b.n_sectors > hole}
        before, ds = open_card(intact, recording=number), open_card(path, recording=number)
        found = {int(n): k for k, n in enumerate(ds.frame_num.values) if ds.complete[k]}
        whole = {int(n): k for k, n in enumerate(before.frame_num.values) if before.complete[k] and int(n) not in hit}
        assert set(whole) <= set(found)
        assert len(whole) >= 4
        assert all(np.array_equal(ds.video[found[n]], before.video[k]) for n, k in whole.items())


@pytest.mark.parametrize("index", ["bisect", "scan"])
@pytest.mark.parametrize("layout", ["v4-wirefree", "daq-wirefree", "samd-framework"])
def test_other_data_that_begins_in_a_frames_last_buffer_is_told_by_what_the_ring_left_behind_it(
    layout: str, index: str, tmp_path: Path, open_card: Any
) -> None:
    """Its header is whole, and so are its first pixels; the next header is gone, and the end repeats no buffer."""
    card = simulate(layout, frames=20, seed=4)
    cut = max((b for b in card.buffers if b.frame_num == 9), key=lambda b: b.index)
    noise = np.random.default_rng(2).integers(0, 256, cut.n_sectors * 512, np.uint8)
    for first in (cut.sector + 5, cut.sector + cut.n_sectors):  # within it, and right behind it
        data = np.frombuffer(card.data, np.uint8).copy()
        data[first * 512 :][: len(noise)] = noise
        path = tmp_path / f"{first}.img"
        data.tofile(path)
        ds = open_card(path, index=index)
        whole = first > cut.sector + 5
        frame_num, video, _ = card.expected()
        row = int(np.flatnonzero(ds.frame_num.values == cut.frame_num)[0])
        assert bool(ds.complete[row]) is whole
        assert bool(int(ds.buffers_present[row]) >> cut.index & 1) is whole
        good = ds.complete.values
        np.testing.assert_array_equal(ds.video.values[good], video[np.isin(frame_num, ds.frame_num.values[good])])


@pytest.mark.parametrize("fill", [0, 0xFF])
def test_an_erased_stretch_over_the_first_footer_hit_the_frame_in_which_it_ends(
    fill: int, tmp_path: Path, open_card: Any
) -> None:
    card = simulate("v3-wirefree", frames=20, seed=4)
    data = np.frombuffer(card.data, np.uint8).copy()
    first, second = sorted(b.sector for b in card.buffers)[:2]
    data[(first + 170) * SECTOR : (second + 40) * SECTOR] = fill
    path = tmp_path / "card.img"
    data.tofile(path)
    ds = open_card(path)
    frame_num, video, _ = card.expected()
    numbers = ds.frame_num.values[ds.complete.values]
    assert numbers.tolist() == frame_num.tolist()[2:]
    np.testing.assert_array_equal(ds.video.values[ds.complete.values], video[2:])
    assert any("first 2 frames are gone" in said for said in ds.warnings)
