"""Qualify: cards that stall, cards that lie about their size, and nothing left behind."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from miniscope_xr.layout import load_layout
from miniscope_xr.tools.flash import probe, qualify, qualifying, ring, risk, verdict
from miniscope_xr.tools.flash.errors import CardWriteError, CheckFailedError, RefusedError
from miniscope_xr.tools.flash.plan import make_plan
from miniscope_xr.tools.flash.settings import parse_settings
from tests import needs

from ..measure import qualify_risk
from .cli import Tool, card_id
from .fakes import DISK, SECTOR, V4, Fault, FaultDisk, v4_card, with_table
from .harness import seen_on
from .test_commands import write

SIZE = 16 << 20
EMPTY = v4_card(SIZE, buffers=0)


def plan_for(size=SIZE, layout=V4, **words):
    return make_plan(layout, parse_settings(layout, [f"{k}={v}" for k, v in words.items()]).values, {}, size)


class Clock:
    """Time that passes only in writes and sleeps."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


class SlowDisk(FaultDisk):
    """Every write takes 1 ms; the n-th takes longer."""

    def __init__(self, media, clock, stalls):
        super().__init__(media)
        self.clock, self.stalls, self.count = clock, stalls, 0

    def write(self, offset, data):
        super().write(offset, data)
        self.clock.now += self.stalls.get(self.count, 0.001)
        self.count += 1


class FakeCapacity(FaultDisk):
    """Says 16 MB, has 4: addresses wrap around."""

    real = 4 << 20

    def _at(self, offset):
        return offset % self.real

    def read(self, offset, length):
        return b"".join(
            super(FakeCapacity, self).read(self._at(at), SECTOR) for at in range(offset, offset + length, SECTOR)
        )

    def write(self, offset, data):
        for i in range(0, len(data), SECTOR):
            super().write(self._at(offset + i), data[i : i + SECTOR])
        self.flush()


def measured(stalls, seconds=2.0):
    clock = Clock()
    disk = SlowDisk(EMPTY, clock, stalls)
    return qualify.measure(disk, plan_for(), seconds, clock=clock, sleep=clock.sleep), disk


def test_writes_as_the_firmware_does():
    result, disk = measured({})
    writes = [(at, n) for kind, at, n in disk.log if kind == "write"]
    assert [n // SECTOR for _, n in writes[:6]] == [40, 40, 40, 40, 21, 40]
    assert writes[0][0] == 1024 * SECTOR
    assert all(a + n == b for (a, n), (b, _) in pairwise(writes))
    assert len(writes) == 200
    assert result.seconds == pytest.approx(2.0, abs=0.05)
    assert result.bytes == 40 * 181 * SECTOR
    assert (result.dropped, result.backlog) == (0, 1)


@pytest.mark.parametrize(("stall", "dropped"), [(0.03, 0), (0.06, 0), (0.09, 1), (0.2, 12)])
def test_stalls_against_the_ring(stall, dropped):
    """The v4 ring of 8 buffers bridges 70 ms at 20 frames/s."""
    result, _ = measured({50: stall})
    assert result.bridge == pytest.approx(0.07)
    assert result.dropped == dropped
    assert result.latencies.max() == pytest.approx(stall)
    reasons = verdict.verdict(result, [], SIZE)
    assert bool(reasons) == bool(dropped)
    if dropped:
        with pytest.raises(CheckFailedError, match=f"stalled up to {stall * 1000:.0f} ms where the ring bridges 70 ms"):
            verdict.complain(reasons)


def test_a_card_that_is_too_slow_on_the_whole():
    result, _ = measured(dict.fromkeys(range(10_000), 0.012))
    assert result.dropped > 10
    assert result.backlog == 8


@pytest.mark.parametrize(
    ("layout", "sectors", "slots"), [("v4-wirefree", 181, 8), ("daq-wirefree", 723, 5), ("v3-wirefree", 200, 2)]
)
def test_patterns_of_the_layouts(layout, sectors, slots):
    layout = load_layout(layout)
    pattern = ring.pattern_of(plan_for(10**9, layout, record_length=1))
    assert sum(pattern.sectors) == sectors
    assert pattern.ring == slots
    assert len(pattern.due) == len(pattern.sectors)
    assert pattern.due[-1] == pytest.approx(pattern.period)
    assert 0 < pattern.bridge <= pattern.period * slots


@pytest.mark.slow
def test_figures_and_pictures(tmp_path):
    result, _ = measured({50: 0.2})
    text = "\n".join(result.describe())
    for word in ("200 writes", "3.7 MB", "median 1.00 ms", "longest 200.0, 1.0", "bridges 70.0 ms", "dropped 12"):
        assert word in text
    assert any("the ring bridges this" in line for line in verdict.histogram(result))
    pytest.importorskip("matplotlib")
    verdict.draw(result, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_no_matplotlib(monkeypatch, tmp_path):
    import sys

    from miniscope_xr.errors import MissingDependencyError

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r"miniscope-xr\[plot\]"):
        verdict.draw(measured({})[0], tmp_path / "a.png")


@pytest.mark.parametrize(("layout", "limit"), [("v4-wirefree", 70), ("daq-wirefree", 22.2), ("v3-wirefree", 33.3)])
def test_no_stall_longer_than_the_limit_passes(layout, limit):
    """From the limit on the camera writes over the buffer that is on its way to the card."""
    size = 1 << 28
    plan = plan_for(size, load_layout(layout), **({"record_length": 1} if layout == "v3-wirefree" else {}))
    assert 1000 * ring.pattern_of(plan).bridge == pytest.approx(limit, abs=0.05)
    for stall, passes in ((limit - 1, True), (limit + 0.5, False), (limit + 5, False)):
        clock = Clock()
        disk = SlowDisk(bytes(8 << 20), clock, {30: stall / 1000})
        plan_small = replace(plan, size=8 << 20)
        result = qualify.measure(disk, plan_small, 2.0, clock=clock, sleep=clock.sleep)
        assert (verdict.verdict(result, [], size) == []) is passes
        assert bool(result.overwritten) is not passes


PAGE = 4096
GB = 10**9 // PAGE * PAGE


class Media:
    """A card of any size that keeps what is written, by pages; a fake has less room than it says.

    `real` bytes are there; addresses behind wrap (`wraps`) or go nowhere. The last `cache` bytes written are answered
    from a write cache, whatever became of them.
    """

    def __init__(self, size, real=None, wraps=True, cache=0):
        self.size, self.real, self.wraps, self.cached = size, real or size, wraps, cache // probe.PROBE
        self.pages, self.recent, self.writes = {}, {}, 0

    def _at(self, page):
        at = page % self.real if self.wraps else page
        return at if at < self.real else None

    def _pages(self, offset, length):
        assert offset % PAGE == length % PAGE == self.real % PAGE == 0 <= offset <= offset + length <= self.size
        return range(offset, offset + length, PAGE)

    def write(self, offset, data):
        self.writes += len(data)
        for at in self._pages(offset, len(data)):
            piece = data[at - offset : at - offset + PAGE]
            if (where := self._at(at)) is not None:
                self.pages[where] = piece
            if self.cached:
                self.recent.pop(at, None)
                self.recent[at] = piece
        while len(self.recent) > self.cached:
            del self.recent[next(iter(self.recent))]

    def read(self, offset, length):
        return b"".join(
            self.recent.get(at) or self.pages.get(self._at(at)) or bytes(PAGE) for at in self._pages(offset, length)
        )

    def flush(self):
        pass

    def same(self):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("cache", [0, 256 << 10, 8 << 20])
@pytest.mark.parametrize("real", [1 << 30, 189_697 * PAGE, 2 * GB - 2 * PAGE])
@pytest.mark.parametrize("wraps", [True, False])
def test_a_fake_of_any_size_with_any_cache(cache, real, wraps):
    card = Media(2 * GB, real, wraps, cache)
    places = qualify.positions(plan_for(2 * GB))
    assert probe.probe(card, places, 5)


@pytest.mark.slow
def test_a_fake_with_the_largest_cache():
    card = Media(4 * GB, 813_802 * PAGE, True, 64 << 20)
    assert probe.probe(card, qualify.positions(plan_for(4 * GB)), 5)


def test_honest_with_a_cache():
    card = Media(2 * GB, cache=8 << 20)
    places = qualify.positions(plan_for(2 * GB))
    assert probe.probe(card, places, 5) == []
    assert card.writes > (64 << 20) + len(places) * probe.PROBE // 2


@pytest.mark.parametrize("size", [SIZE, 2 * GB, 64 * GB, 250 * GB, 2000 * GB])
def test_wherever_the_block_lands_it_covers_a_mark(size):
    """The proof for a wrap at any number: no two marks are farther apart than the block is long."""
    places = probe.places_in(524288, size)
    first, length = probe.block_of(places[0], places[-1] + probe.PROBE)
    assert first + length == places[-1] + probe.PROBE
    marks = [p for p in places if p < first]
    needed = sorted(probe._needed(places, length) & set(marks))
    for kept in (marks, needed):
        assert max(b - a for a, b in pairwise([*kept, first])) <= length - probe.PROBE
    assert len(places) < 4200
    if size > 1 << 30:
        assert length > 64 << 20


def test_a_slow_card_is_probed_where_it_matters_only():
    """A card that takes 50 ms for each mark is done in time all the same."""
    clock = Clock()

    class Slow(Media):
        def write(self, offset, data):
            clock.now += 0.05
            super().write(offset, data)

    size = 64 * GB
    card = Slow(size, 8 * GB + 12345 * PAGE)
    places = probe.places_in(524288, size)
    assert probe.probe(card, places, 5, clock=clock)
    assert clock.now < 100


@pytest.mark.slow
@pytest.mark.parametrize("what", ["done", "interrupted", "fake"])
def test_what_was_there_is_put_back(what):
    card = Media(1 << 30, 81_380 * PAGE if what == "fake" else None)
    rng = np.random.default_rng(3)
    for at in (0, 1016 * SECTOR, *probe.places_in(1 << 20, 1 << 29)[::5]):
        card.write(at, rng.bytes(PAGE))
    before = {at: data for at, data in card.pages.items() if any(data)}

    def progress(name, done, total):
        if what == "interrupted" and name == "block at the end" and done > 4 * probe.STEP:
            raise KeyboardInterrupt

    if what == "interrupted":
        with pytest.raises(KeyboardInterrupt):
            probe.prove(card, 1 << 20, 1 << 29, progress)
    else:
        assert bool(probe.prove(card, 1 << 20, 1 << 29, seed=3)) == (what == "fake")
    assert {at: data for at, data in card.pages.items() if any(data)} == before


def waits_of(seed, seconds=60, **stall):
    """Latencies of a card (s): quick, with a stall of some length every so often."""
    rng = np.random.default_rng(seed)
    found = 0.002 * np.exp(rng.normal(0, 0.2, int(100 * seconds)))
    for ms, every in stall.values():
        at = rng.random(len(found)) < 0.01 / every
        found[at] += ms / 1000 * np.exp(rng.normal(0, 0.2, int(at.sum())))
    return found


def chance(latencies, minutes=30):
    captured = 0.01 * (1 + np.arange(len(latencies)))
    return risk.estimate(captured, latencies, 0.07, 60 * minutes)


def test_the_chance_of_losing_a_buffer():
    quick, near, over = (chance(waits_of(1, **s)) for s in ({}, {"a": (40, 2)}, {"a": (90, 10)}))
    assert quick.probability < 0.15 < near.probability < over.probability
    assert over.probability > 0.9
    for found in (quick, near, over):
        assert 0 <= found.low <= found.probability <= found.high <= 1
    longer = chance(waits_of(1, seconds=1800))
    assert longer.probability < 0.04  # half an hour of writing says more than a minute
    assert longer.high - longer.low < near.high - near.low
    assert "of 30 min loses a buffer: " in quick.describe()
    assert "90 % interval" in quick.describe()


@pytest.mark.slow
def test_the_chance_is_calibrated():
    """The script that measures it, on fewer cards; its figures are in the docs."""
    table = qualify_risk.measure(cards=80, seconds=60, minutes=10, seed=7)
    told, lost = table[:, 0], table[:, 2]
    assert qualify_risk.brier(told, lost) < 0.6 * qualify_risk.brier(lost.mean(), lost)
    assert abs(told.mean() - lost.mean()) < 0.15


@pytest.mark.slow
def test_after_a_long_test_the_chance_says_more_than_the_plain_rule():
    """\"It lost one in the test\" is the rule to beat where the test is long."""
    table = qualify_risk.measure(cards=120, seconds=600, minutes=20, seed=3)
    told, tested, lost = table[:, 0], table[:, 1], table[:, 2]
    assert qualify_risk.brier(told, lost) < 0.9 * qualify_risk.brier(tested, lost)
    assert qualify_risk.brier(told, lost) < 0.4 * qualify_risk.brier(lost.mean(), lost)


def test_what_the_test_lost_counts():
    """One loss in ten minutes is about three in half an hour, whatever the other waits look like."""
    waits = waits_of(2, seconds=600)
    waits[30_000] = 0.09
    one = chance(waits)
    assert 0.8 < one.probability < 0.95
    assert one.low < 0.6
    waits[[5_000, 15_000, 45_000]] = 0.09
    assert chance(waits).probability > 0.98


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "-inf"])
def test_lengths_that_are_none(tool, card, seconds):
    result = tool("qualify", card, f"--seconds={seconds}")
    assert result.code == 2
    assert "a number of seconds above 0" in result.err
    assert card.read_bytes() == EMPTY


def test_no_room_for_one_frame(tool, tmp_path):
    size = (1024 + 300) * SECTOR
    result = tool("qualify", write(tmp_path / "s.img", b"", size), "--layout", "daq-wirefree")
    assert result.code == 3
    assert "too small for a recording" in result.err


def test_as_long_as_the_planned_recording(tool, tmp_path, monkeypatch):
    no_wait(monkeypatch)
    card = write(tmp_path / "f.img", v4_card(SIZE, buffers=0, record_length=4), SIZE)
    result = tool("qualify", card, "--full", "--json")
    assert result.code == 0
    assert result.json["writes"] == 400
    assert result.json["risk"]["recording_seconds"] == 4


@pytest.mark.slow
def test_a_card_that_got_slower(tool, card, monkeypatch):
    with monkeypatch.context() as patch:
        no_wait(patch)
        for _ in range(2):
            result = tool("qualify", card, "--seconds", "1", "--json")
            assert result.json["slower"] == []
    no_wait(monkeypatch, [((1024 + 181 * frame) * SECTOR, 0.02) for frame in range(20)])
    result = tool("qualify", card, "--seconds", "1", "--json")
    assert result.code == 0
    assert result.json["slower"] == ["1 of 100 writes takes more than 20.0 ms, 1.0 ms in 2 earlier runs since "
                                     f"{time.strftime('%Y-%m-%d', time.gmtime())}"]  # fmt: skip
    assert "slower than before" in result.err
    assert len(list(tool.backups.glob("*/*/qualify.json"))) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    "change", [{"time": None}, {"time": 5}, {"firmware": 5}, {"fps": "20"}, {"median_ms": None}, {"median_ms": "1"},
               {"p99_ms": float("nan")}, {"p99_ms": -1}, []],
)  # fmt: skip
def test_a_run_that_is_none_is_left_out(tool, card, monkeypatch, change):
    """Whatever stands in the file of an earlier run, the test that took a minute has its verdict."""
    no_wait(monkeypatch)
    assert tool("qualify", card, "--seconds", "0.2").code == 0
    (file,) = tool.backups.glob("*/*/qualify.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), **change} if change else change))
    result = tool("qualify", card, "--seconds", "0.2", "--json")
    assert result.code == 0
    assert result.json["slower"] == []


def test_many_writes_that_are_a_little_too_long_are_no_stall(tool, card, monkeypatch):
    """A card of 12 ms a buffer where one is due every 10 ms: it falls behind, though no write is long."""
    no_wait(monkeypatch, [((1024 + 181 * frame + 40 * i) * SECTOR, 0.012) for frame in range(20) for i in range(5)])
    result = tool("qualify", card, "--seconds", "1")
    assert result.code == 7
    said = re.search(r"up to (\d+) ms behind the camera \(no write took more than (\d+) ms\) where the", result.err)
    assert said
    assert int(said[1]) > 70 > int(said[2])


def test_an_honest_card():
    places = qualify.positions(plan_for())
    assert len(places) >= 64
    assert places[0] >= 1024 * SECTOR
    assert places[-1] + probe.PROBE == SIZE
    assert all(p % probe.PROBE == 0 for p in places)
    assert probe.probe(FaultDisk(EMPTY), places, 5) == []


def test_a_fake_card():
    disk = FakeCapacity(EMPTY)
    places = qualify.positions(plan_for())
    wrong = probe.probe(disk, places, 5)
    assert wrong
    result, _ = measured({})
    text = verdict.verdict(result, wrong, SIZE)[0]
    assert "capacity is fake" in text
    assert "of 0.017 GB" in text
    seen = seen_on(EMPTY)
    qualify.clean(disk, qualify.changes_for(plan_for(), 1), (seen.block_offset, seen.block), seen.start)
    assert disk.view()[: FakeCapacity.real] == EMPTY[: FakeCapacity.real]


def test_an_unreadable_place_is_wrong():
    class Bad(FaultDisk):
        def read(self, offset, length):
            from miniscope_xr.errors import CardReadError

            if offset == places[7]:
                raise CardReadError(5, "bad")
            return super().read(offset, length)

    places = qualify.positions(plan_for())
    assert probe.probe(Bad(EMPTY), places, 5) == [places[7]]


def test_only_empty_cards():
    changes = qualify.changes_for(plan_for(), 1)
    qualify.check_empty(FaultDisk(EMPTY), changes)
    for place in (1024 * SECTOR, changes[0].offset + changes[0].length - SECTOR, SIZE - SECTOR):
        card = bytearray(EMPTY)
        card[place] = 1
        with pytest.raises(RefusedError, match="qualify needs an empty card"):
            qualify.check_empty(FaultDisk(bytes(card)), changes)


def test_settings_that_cannot_be_put_back():
    class Stuck(FaultDisk):
        def read(self, offset, length):
            return bytes(length) if offset == seen.block_offset else super().read(offset, length)

    seen = seen_on(EMPTY)
    with pytest.raises(CardWriteError, match="`restore` does it"):
        qualify.clean(Stuck(EMPTY), [], (seen.block_offset, seen.block), seen.start)


@pytest.fixture
def tool(capsys, tmp_path):
    return Tool(capsys, tmp_path / "backups")


@pytest.fixture
def card(tmp_path):
    return write(tmp_path / "c.img", EMPTY, SIZE)


def no_wait(monkeypatch, stalls=()):
    clock = Clock()
    real = qualify.measure

    def measure(target, plan, seconds, progress=None):
        write = target.write

        def slow(offset, data):
            write(offset, data)
            clock.now += dict(stalls).get(offset, 0.001)

        target.write = slow
        return real(target, plan, seconds, clock=clock, sleep=clock.sleep, progress=progress)

    monkeypatch.setattr(qualify, "measure", measure)


@pytest.mark.slow
def test_the_command_passes_and_leaves_nothing(tool, card, monkeypatch, tmp_path):
    no_wait(monkeypatch)
    result = tool("qualify", card, "--seconds", "1", "--json", "--plot", tmp_path / "p.png")
    assert result.code == 0
    report = result.json
    assert report["passed"] is True
    assert (report["writes"], report["dropped"], report["bridge_ms"]) == (100, 0, pytest.approx(70))
    assert report["fake_at"] == []
    assert "pass: it kept up" in result.err
    assert card.read_bytes() == EMPTY
    assert (tmp_path / "p.png").exists()


def test_the_command_fails_a_slow_card(tool, card, monkeypatch):
    no_wait(monkeypatch, [(1024 * SECTOR, 0.5)])
    result = tool("qualify", card, "--seconds", "1", "--json")
    assert result.code == 7
    assert result.json["passed"] is False
    assert "use a faster card" in result.err
    assert card.read_bytes() == EMPTY


def test_a_card_never_prepared(tool, tmp_path, monkeypatch):
    no_wait(monkeypatch)
    blank = write(tmp_path / "b.img", b"", SIZE)
    assert tool("qualify", blank, "--seconds", "1", "--layout", "daq-wirefree").code == 0


def test_cards_with_data_are_refused(tool, tmp_path):
    card = write(tmp_path / "r.img", v4_card(), SIZE)
    result = tool("qualify", card)
    assert result.code == 3
    assert "qualify needs an empty card" in result.err
    table = write(tmp_path / "t.img", with_table(EMPTY), SIZE)
    assert tool("qualify", table).code == 3
    rest = bytearray(EMPTY)
    rest[-1] = 1
    result = tool("qualify", write(tmp_path / "d.img", bytes(rest), SIZE))
    assert result.code == 3
    assert "`wipe CARD --whole`" in result.err


@pytest.mark.parametrize("what", ["in time", "not in time", "broken"])
def test_interrupted(tool, card, monkeypatch, what):
    """Ctrl+C ends within a second: what cannot be taken off by then is left to ``resume``, and said."""

    def stop(target, plan, *rest, **named):
        target.write(plan.start, b"\x01" * SECTOR)
        raise CardWriteError(5, "broken") if what == "broken" else KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(qualify, "measure", stop)
        patch.setattr(qualifying, "_PATIENCE", -1 if what == "not in time" else 600)
        result = tool("qualify", card, "--seconds", "1", "--json")
    if what == "in time":
        assert (result.code, result.json["card_changed"]) == (5, False)
        assert "the card is as it was" in result.json["error"]
        assert "nothing left to do" in tool("resume", card, "--backup", result.json["backup"]).err
    else:
        assert (result.code, result.json["card_changed"]) == (6, True)
        assert "`resume` removes it" in result.json["error"]
        assert card.read_bytes() != EMPTY
        assert tool("resume", card).code == 0
    assert card.read_bytes() == EMPTY


def test_what_is_taken_off_is_what_was_written():
    """Not the whole planned stretch: of a minute's test that is stopped after a second, a second is written again."""
    written = qualify.Written(FaultDisk(EMPTY, Fault(-1, "error")))
    for at in (8 * SECTOR, 9 * SECTOR, 4 * SECTOR, 11 * SECTOR):
        written.write(at, b"\x01" * SECTOR)
    assert [(c.offset // SECTOR, c.length // SECTOR) for c in written.places()] == [(4, 1), (8, 2), (11, 1)]


def test_dry_run_shows_what_would_be_refused(tool, tmp_path):
    card = write(tmp_path / "r.img", v4_card(), SIZE)
    before = card.read_bytes()
    result = tool("qualify", card, "--dry-run")
    assert result.code == 0
    assert "without --dry-run this is refused" in result.out
    assert "dry run: nothing is written" in result.out
    assert card.read_bytes() == before


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--seconds", "nan", "a number of seconds above 0"),
        ("--expect-size", "much", "write the size as 512G"),
        ("--plot", "picture", "the name of a picture ends in"),
        ("--plot", "picture.exe", "the name of a picture ends in"),
        ("--plot", "gone/picture.png", "no such folder"),
    ],
)
def test_values_are_checked_before_the_card_is_looked_at(tool, tmp_path, monkeypatch, option, value, said):
    if option == "--plot":
        pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    result = tool.raw("qualify", tmp_path / "no-card", option, value)
    assert said in result.err
    assert "no-card" not in result.err


def test_a_picture_is_kept(tool, card, tmp_path):
    """What has its name is not written over."""
    pytest.importorskip("matplotlib")
    kept = tmp_path / "kept.png"
    kept.write_text("kept")
    assert tool("qualify", card, "--seconds", "1", "--plot", kept).code != 0
    assert kept.read_text() == "kept"


@needs.links
def test_a_picture_is_not_written_through_a_link(tool, card, tmp_path):
    pytest.importorskip("matplotlib")
    kept, link = tmp_path / "kept.png", tmp_path / "link.png"
    kept.write_text("kept")
    link.symlink_to(kept)
    assert tool("qualify", card, "--seconds", "1", "--plot", link).code != 0
    assert kept.read_text() == "kept"


def test_cleaning_up_that_fails_too(tool, card, monkeypatch):
    def fail(*args):
        raise CardWriteError(5, "gone")

    monkeypatch.setattr(qualifying, "_test", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt()))
    monkeypatch.setattr(qualify, "clean", fail)
    assert tool("qualify", card, "--seconds", "1").code == 6


def test_a_write_error_while_cleaning():
    seen = seen_on(EMPTY)
    disk = FaultDisk(EMPTY, Fault(0, "error"))

    class Broken(FaultDisk):
        def write(self, offset, data):
            raise CardWriteError(5, "no")

    with pytest.raises(CardWriteError, match="no"):
        qualify.clean(Broken(EMPTY), qualify.changes_for(plan_for(), 1), (seen.block_offset, seen.block), seen.start)
    assert disk.size == SIZE
    assert DISK.size
    assert np.all(np.array(qualify.positions(plan_for())) < SIZE)


def test_card_id_is_needed_for_yes(tool, card):
    assert tool.raw("qualify", card, "--image", "--yes").code == 2
    assert card_id(card)
