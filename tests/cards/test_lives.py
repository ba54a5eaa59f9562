"""Cards with a past: nothing wrong, missing or older without a word (tests/measure/lives.py at large)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.lives import ACCIDENTS, live
from tests.measure.lives import _truth, as_hours, measure, table
from tests.measure.named import names
from tests.measure.undecidable import survivor_of, undecidable


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 100, 10))
def test_what_is_wrong_with_a_card_is_said(first: int, tmp_path: Path) -> None:
    verdicts = [measure(seed, tmp_path, together=True) for seed in range(first, first + 10)]
    of_old = [v for v in verdicts if not v.device.startswith("v4-wirefree-2026")]
    wrong = {v.seed: (v.device, dict(v.counts), v.said) for v in of_old if not v.silent}
    assert not wrong
    assert sum(v.counts["wrong"] for v in verdicts) == 0
    assert f"| **all** | {len(verdicts)} |" in table(verdicts)


MISREAD = {
    "an old stretch longer than a ring was linked to itself": (383, 418, 427),
    "an interrupt lost in the last frame": (1230,),
    "few frames, the clock of which steps often": (1832,),
    "two frames, and a time that goes back": (683,),
    "edges of a remote before the end": (276, 372, 951, 15270),
    "edges of a remote within a hole that a file system left": (15115,),
    "an older recording 2 ms off, in front of which a buffer was written as the next of its own was due": (13285,),
    "a torn last buffer": (518,),
    "a torn last buffer behind a drop": (885,),
    "a few frames over an older recording, bits flipped": (852, 912, 987, 993),
    "a few frames over an older recording, formatted": (149, 762, 861, 870, 877, 888),
    "leftovers broken behind a hole, with nearly the same clock": (933,),
    "an old buffer of another length in the place of a failed write": (401,),
    "a stall over which the clock was carried too far": (328,),
    "a second recording cut off, or its start formatted": (414, 57),
    "failed writes at the end, with a firmware whose leftovers tell nothing": (596,),
    "writes that failed over an older recording with a drop": (2102,),
    "edges of a remote in the last frame before an older recording": (2199,),
    "a lapped last buffer, written later than the one behind it": (2116,),
    "the frame number of a first or last header, with a flipped bit": (2010, 10671, 11182),
    "two buffers in front of an older recording, written before the next one of it came": (10197,),
    "a step of the clock taken for drift": (10391,),
    "another focus in the place of a failed write": (11056, 12543, 13296, 13688),
    "time that goes back, to old buffers among the first or the last": (2154, 10655, 11237, 11311, 12134),
    "a 2026 driver that gave up over an older recording with drops": (12271,),
    "old buffers in the first frame of a finished recording": (12529,),
    "a count that the clock steps at, of this recording or of an older one": (12860, 40, 13051),
    "old buffers in a DAQ's finished recording, with the same clock": (2126, 2293, 12412),
    "a lapped buffer of an older recording in the place of a failed write": (13321,),
    "three edges of a remote in the last two frames": (12966,),
    "an interrupt lost in the last buffer before an older recording": (12562, 12672),
    "a drop of an older recording with the same clock, but another focus": (12634,),
    "an older recording with as many drops far behind": (10756, 11115),
    "v3: a first footer with a flipped bit": (594,),
    "v3: clocks 2 ms apart": (570, 774),
    "v3: an older frame among new ones": (400, 11124),
    "a clock that wins ticks over a drop": (10805,),
    "buffers of its own behind old ones, in front of an older recording": (13240, 14337, 15129, 15254, 15345),
    "another focus in the place of failed writes behind the first buffer": (21447,),
    "formatted over the end of one recording and the beginning of the next": (20141, 20888),
    "v3: two frames in a row a ms off a clock that never strays (a doubt)": (20160, 15031),
    "v3: one late frame, old or not (a doubt)": (21877,),
    "v3: a frame that is missing in front of an older recording": (40720,),
    "v3: few frames, of which the first is damaged or the front is gone": (11256, 12417),
    "the clock comes back behind many old buffers, and has strayed by a ms": (53386, 53553),
    "edges of a remote within a hole, and pauses between frames that stray": (21915,),
    "the header of a buffer that leftovers repeat, with a flipped bit": (13387,),
    "a buffer ahead of its place, as the card was too slow at the end": (11324, 30590),
    "an old stretch among few frames, and then the clock drifts": (30116,),
    "a long hole in a recording whose times stray": (30155,),
    "a time that goes back from old buffers to new ones": (30174,),
    "old buffers and a hole in the first frames": (30247,),
    "another focus in the place of failed writes, and the settings are gone": (30191,),
    "a lapped buffer whose frame number has a flipped bit, in front of a drop": (20252,),
    "a time with a flipped bit in front of the last buffers of a run": (21246,),
    "two edges of a remote in front of the last frame": (51581, 52477, 53833),
    "a write that began while the lapped buffer in front of it was written": (50220,),
    "a clock that lost ticks to an edge of a remote, and wins them over a drop": (50834,),
    "a lost interrupt in front of one last buffer, and an older recording with another focus": (31229,),
    "a drop behind three frames": (52204,),
    "the count of a later recording, where the header behind it has a flipped bit": (51777, 31118),
    "a lapped last buffer, behind it a second recording, and an older one that goes on": (70339,),
    "edges of a remote one after another, frames of four buffers": (20248, 14144),
    "edges of a remote before an older recording: its last buffer is of odd length": (21652,),
    "writes wait for the next buffer: a write began when another recording's came": (20723, 20564),
    "a write that began before the one in front of it": (20381,),
    "a pool that overflows on a new card, so that leftovers do not repeat": (20794,),
    "the record length was over before what seems to follow a drop": (20855,),
    "a drop of an older recording whose clock is 6 ms off": (21373, 13372),
    "a 2026 firmware's first header, with a flipped bit: its layout, and that it is a recording": (20149, 20193),
}


@pytest.mark.parametrize(("seed", "kind"), [(seed, kind) for kind, seeds in MISREAD.items() for seed in seeds])
def test_a_life_that_was_once_misread_stays_solved(seed: int, kind: str, tmp_path: Path) -> None:
    verdict = measure(seed, tmp_path, together=True)
    assert verdict.silent, (kind, dict(verdict.counts), verdict.said)


CERTAIN = {
    "a torn last buffer: its tail is older, its clock is not": (441, 516, 951),
    "a torn last buffer: its tail is older, its focus is not": (134, 700),
    "a failed write where the older recording begins": (248,),
    "the low bytes of a DAQ's counts tell the place": (258, 509, 780),
    "the same, and more was dropped behind the last buffer": (790,),
}


@pytest.mark.parametrize(("seed", "kind"), [(seed, kind) for kind, seeds in CERTAIN.items() for seed in seeds])
def test_where_evidence_places_the_end_nothing_is_in_doubt(seed: int, kind: str, tmp_path: Path) -> None:
    verdict = measure(seed, tmp_path, together=True)
    assert verdict.silent, (kind, dict(verdict.counts), verdict.said)
    assert not verdict.counts["doubt"], (kind, verdict.said)


NAMED = {
    "a last buffer that the camera lapped more than once, or of a DAQ": (80014, 80038, 81216, 83330, 737),
    "old buffers in the first frames, from which time goes back": (82695,),
    "edges of a remote in the last frame, and a time that goes back from it to the older recording": (82899,),
    "edges of a remote within a hole, in front of which a recording seems to end (a doubt)": (84011,),
    "a flipped bit in a header among buffers that a pool overtook": (83133,),
    "a DAQ's counts, where more was dropped behind its last buffer": (992, 81704),
    "a DAQ's last buffer that the camera lapped, where its counts end": (792294, 798719, 801403),
    "a DAQ's count of drops, where older buffers behind a drop keep the clock better": (777088,),
    "v3: two old frames, one of ours, and then the older recording": (84130,),
    "v3: frames in front of a stall of the older recording, which keep its clock": (84627,),
    "v3: few frames that stray, one of them old": (84203, 83822, 82218, 82972),
    "v3: the clock of what is behind the record length, but for one frame": (84099,),
    "v3: a late first frame, and an older recording far behind": (84650,),
    "two older recordings under a DAQ's": (80046, 80319),
    "edges of a remote behind a hole": (80079, 80094),
    "edges of a remote in the last frames (a doubt)": (81052, 82660),
    "edges of a remote in the last buffers before interrupts were lost": (101049,),
    "v3: a late frame just before an older recording, or over two": (80040, 82376),
    "v3: a time with a flipped bit, and frames beside it": (80120, 80741, 80915),
    "v3: the same clock to the ms: no reader can tell": (82665,),
    "a 2026 driver that gave up in front of a hole": (80143, 81192),
    "buffers in front of a drop, and the front is gone": (80415, 82153, 82525, 82485, 81226),
    "a first time with a flipped bit": (81211,),
    "a drop, and behind it fewer were dropped": (81802,),
    "few frames, whose period nobody knows to the ms": (80892,),
    "old buffers in a few frames in front of an older recording with the same clock as theirs": (80600, 82159, 80245),
    "leftovers that repeat old buffers in the place of failed writes": (83804,),
    "a frame that ended, and one that an older recording's lost interrupt made longer": (82393,),
    "buffers written before the one in front of them, and too few frames to show a clock": (921,),
    "a pool that overflowed, and old buffers far behind whose time fits a clock of few frames": (102300,),
    "an edge of a remote in front of which the front is gone (a doubt)": (100377, 110918),
    "a time, a write time or the battery of one header with a flipped bit": (100269, 100275, 104580, 109236, 110057),
    "a pool's slot that was filled again behind the record length": (106091, 118692),
    "writes that failed where the next buffer is waited for, over a clock 1 ms off (a doubt)": (113329, 119940),
    "old buffers behind the third of a recording": (112446,),
    "few frames on both sides of a long hole, whose clocks stray": (100477, 100711, 108759, 117721),
    "a clock that changes by too little to say what begins (a doubt)": (116847, 117084, 119873),
    "two older recordings, the first of which began as edges of a remote have it (a doubt)": (115277, 104583, 102450),
    "a few buffers at the end that are off as by edges of a remote (a doubt)": (101042,),
    "a few buffers of an older recording in front of what it dropped": (101430, 116829, 109989),
    "interrupts that an edge of a remote held up, in the last frame or before interrupts were lost": (
        600648,
        601828,
        608408,
        608723,
    ),
    "time that goes back within a run (a doubt)": (600224, 603029, 604087, 604900, 606032, 607691, 607782),
    "time that goes back in an image of a few buffers (a doubt)": (604651, 604766),
    "an older recording behind old buffers in the place of failed writes, the same one": (602851,),
    "leftovers that are broken in the last buffer in front of a drop (a doubt)": (601551, 605643),
    "a count at which an older recording ends (a doubt)": (600773, 601054),
    "a count that ends in a hole (a doubt)": (605093, 606328, 607991),
    "an older buffer within one whose write failed, where the next might stand": (600232,),
    "an interrupt lost in the last buffers": (601493,),
    "a frame of ten buffers in front of an older recording": (601660, 623450),
    "edges of a remote within a hole, behind it buffers at a shorter pace": (603940, 608230, 609489, 607857),
    "another focus in the last buffers of an image": (606783,),
    "a lapped last buffer, behind which an older recording lies": (604511, 609402, 625190, 625336),
    "a drop, behind it two frames, and then an older recording with the same counters": (622424, 624592),
    "the count of a second recording, at which an edge of a remote stands in the first one": (625619,),
    "v3: one frame a ms off in front of a missing one": (609941, 608843),
    "buffers that a pool wrote a ring late": (634108, 638192),
    "a 2026 firmware's first header, the frame number of which has a flipped bit": (631901, 636485, 625733),
    "buffers of its own behind many old ones, on its clock by all of both": (
        663017,
        664295,
        665150,
        665163,
        666153,
        667605,
        669694,
        662633,
        662867,
        663937,
        664362,
        664823,
        665110,
    ),
    "a pool that took up its order again in front of an older recording": (669205,),
    "a torn last buffer, behind which an older recording's leftovers go on": (665769,),
    "the clock of a third recording, but another focus": (663108,),
    "few buffers in front of many older ones, on the clock of the first": (712,),
    "old buffers of a third recording in front of an older one": (665767, 666105, 664120, 664945, 660762),
    "a count at whose place nothing lies": (662135, 663129),
    "few buffers behind an edge of a remote": (631523, 635911, 639744, 632469),
    "the count of a second recording, the end of which an image lacks": (725839,),
    "a hole up to where a second recording begins, and an older one behind both": (728536,),
    "old buffers that a pool wrote ahead of their turn, in the place of failed writes": (736880,),
    "a pool that overflowed in front of a third recording with the same clock": (727113,),
}


@pytest.mark.parametrize(("seed", "kind"), [(seed, kind) for kind, seeds in NAMED.items() for seed in seeds])
def test_what_is_missing_or_extra_is_named(seed: int, kind: str, tmp_path: Path) -> None:
    verdict = measure(seed, tmp_path)
    assert verdict.right, (kind, dict(verdict.counts), verdict.said)


SAMPLED = {
    "the clock of failed writes' old buffers, at a step between two samples": (130009, 130539, 130996),
    "this recording's clock comes back behind old buffers (a doubt)": (130043, 130533),
    "edges of a remote between two samples": (130607, 131869),
    "another recording's last buffers in front of a drop": (131918, 130293),
    "many buffers that a driver gave up": (131243,),
}


@pytest.mark.parametrize(("seed", "kind"), [(seed, kind) for kind, seeds in SAMPLED.items() for seed in seeds])
def test_a_long_recording_is_looked_at_as_closely_where_its_few_samples_seem_odd(
    seed: int, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_hours(monkeypatch.setattr)
    verdict = measure(seed, tmp_path)
    assert verdict.right, (kind, dict(verdict.counts), verdict.said)


def test_an_old_buffer_that_says_what_the_own_one_would_have_said_is_counted_apart(tmp_path: Path) -> None:
    verdict = measure(82665, tmp_path)
    assert verdict.counts["undecidable"] == 6
    life = live(82665)
    own = dict.fromkeys((14, 15), 1)
    assert undecidable(life, survivor_of(82665, None, False), 0, own) == {14, 15}
    assert not undecidable(life, life, 0, own)  # of what was not written nothing is known: no proof


def test_old_buffers_that_are_a_ms_off_are_alike_and_stay_an_error(tmp_path: Path) -> None:
    verdict = measure(728161, tmp_path)
    assert (verdict.counts["extra"], verdict.counts["undecidable"], verdict.counts["alike"]) == (12, 0, 12)


CARELESS = "an older recording lies behind this one, from sector 1788 on, and is not returned"


@pytest.mark.parametrize(
    ("said", "frames"),
    [
        (CARELESS, []),
        ("which it is, is in doubt: one of frames 3, 8", [3, 8]),
        ("frames 19 to 21 are in doubt, and only what is certain is returned; until=21 returns them", [19, 20, 21]),
        ("whether this recording ended in frame 7 is in doubt: buffers up to frame 9 keep the clock", [7, 8, 9]),
        ("the frame clock changes at frame 28: a slow card, or an older recording from there on", [28, 29]),
    ],
)
def test_a_word_names_the_frames_it_speaks_of_and_no_others(said: str, frames: list[int]) -> None:
    assert [frame for frame in range(30) if names(frame, [said])] == frames


APART = (24, 47, 56, 155, 184, 188, 242, 266)  # DAQs that began at different ms: the clock of both sides places the end


@pytest.mark.parametrize("seed", APART)
def test_where_daqs_began_at_different_ms_nothing_is_in_doubt(seed: int, tmp_path: Path) -> None:
    verdict = measure(seed, tmp_path, layout="daq-wirefree")
    assert verdict.silent, (dict(verdict.counts), verdict.said)
    assert not verdict.counts["doubt"], verdict.said


OF_A_FAMILY = {
    # from 184 on: two older recordings behind; frames skipped by as much as an older one is off; of two old frames one
    # is near the clock; one frame is late (a doubt); one frame behind a damaged first footer, or without a front
    "v3-wirefree": (39, 81, 3060, 184, 195, 938, 405, 467, 1177, 47, 234, 1016, 1074, 491, 1230),
    # from 751 on: the count of a second recording, in which a third one ends; a clock that is 2 ms off behind a count
    "v4-wirefree-2026": (25, 34, 58, 64, 92, 93, 751, 758, 971, 985, 1147, 1171),
    # edges of a remote behind a hole, old buffers in frame 1 of 4, edges at a later count, one edge without leftovers,
    # one old buffer at the end
    "v4-wirefree": (2, 38, 87, 120, 143),
}


@pytest.mark.parametrize(("layout", "seed"), [(name, seed) for name, seeds in OF_A_FAMILY.items() for seed in seeds])
def test_lives_of_one_family_that_were_once_misread_stay_solved(layout: str, seed: int, tmp_path: Path) -> None:
    verdict = measure(seed, tmp_path, layout=layout, together=True)
    assert verdict.silent, (dict(verdict.counts), verdict.said)


V3_SURE = {
    "a frame of its own between old ones and the older recording": (100208, 100472),
    "a clock that comes before what was skipped": (100377, 100868),
    "a step of 2 ms of a clock that does not stray": (100178, 100197),
}


POOLS = {
    "old buffers that a pool wrote ahead of their turn, in the place of failed writes": (715426,),
    "a pool that overflowed in front of a third recording with the same clock": (714530, 716483),
    "a last buffer the slot of which the pool had filled again": (713336, 713633, 713641, 713694),
    "a first header with a flipped bit, by which other layouts fit": (716401,),
    "buffers that are there twice, at times that fit as well as each other (a doubt)": (715077, 719167, 719350),
}


@pytest.mark.parametrize(("seed", "kind"), [(seed, kind) for kind, seeds in POOLS.items() for seed in seeds])
def test_a_2026_life_that_was_once_misread_stays_solved(seed: int, kind: str, tmp_path: Path) -> None:
    verdict = measure(seed, tmp_path, layout="v4-wirefree-2026")
    assert verdict.right, (kind, dict(verdict.counts), verdict.said)


def test_a_few_buffers_and_a_lapped_one_behind_a_lost_front_are_a_recording(tmp_path: Path) -> None:
    verdict = measure(731953, tmp_path)
    assert verdict.silent, verdict.said
    assert not verdict.counts["refused"]


@pytest.mark.parametrize(("seed", "kind"), [(seed, kind) for kind, seeds in V3_SURE.items() for seed in seeds])
def test_what_a_v3_firmware_never_does_leaves_no_doubt(seed: int, kind: str, tmp_path: Path) -> None:
    verdict = measure(seed, tmp_path, layout="v3-wirefree")
    assert verdict.right, (kind, dict(verdict.counts), verdict.said)
    assert not verdict.counts["doubt"], (kind, verdict.said)


@pytest.mark.slow
def test_a_life_is_a_pure_function_of_its_seed_and_its_truth_is_on_the_card() -> None:
    for seed in range(0, 60, 7):
        one, other = live(seed, together=True), live(seed, together=True)
        assert one.card.data == other.card.data
        assert one.story == other.story
        for number in range(one.card.n_recordings):
            frames, video, _ = one.card.expected(number)
            assert len(frames) == len(video)
            truth = _truth(one, number)
            assert all(must & ~truth.may[frame] == 0 for frame, must in truth.must.items())


@pytest.mark.slow
@pytest.mark.parametrize("accident", ACCIDENTS)
def test_an_accident_changes_the_card_where_it_says(accident: str) -> None:
    found = 0
    for seed in range(30):
        life, plain = (live(seed, accidents=which, together=True) for which in ((accident,), ()))
        if life.accident != accident:
            continue
        found += 1
        size = min(len(life.card.data), len(plain.card.data))
        old, new = (np.frombuffer(c.card.data, np.uint8)[:size] for c in (plain, life))
        changed = np.unique(np.flatnonzero(old != new) // 512)
        assert changed.size or len(life.card.data) < len(plain.card.data)
        for b in plain.card.buffers:
            inside = (changed >= b.sector) & (changed < b.sector + b.n_sectors)
            used = -(-(plain.card.spec.header_bytes + b.length) // 512)
            if (inside & (changed < b.sector + used)).any():
                assert (b.recording, b.frame_num, b.index) in life.optional
    assert found >= 3
