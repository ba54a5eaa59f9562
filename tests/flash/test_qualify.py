"""Qualify: cards that stall, cards that lie about their size, and nothing left behind."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from miniscope_xr.layout import load_layout
from miniscope_xr.tools.flash import checks, qualify
from miniscope_xr.tools.flash.errors import CardWriteError, CheckFailedError, RefusedError
from miniscope_xr.tools.flash.plan import make_plan
from miniscope_xr.tools.flash.settings import parse_settings

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
    reasons = qualify.verdict(result, [], SIZE)
    assert bool(reasons) == bool(dropped)
    if dropped:
        with pytest.raises(CheckFailedError, match=f"stalled up to {stall * 1000:.0f} ms where the ring bridges 70 ms"):
            qualify.complain(reasons)


def test_a_card_that_is_too_slow_on_the_whole():
    result, _ = measured(dict.fromkeys(range(10_000), 0.012))
    assert result.dropped > 10
    assert result.backlog == 8


@pytest.mark.parametrize(
    ("layout", "sectors", "ring"), [("v4-wirefree", 181, 8), ("daq-wirefree", 723, 5), ("v3-wirefree", 200, 2)]
)
def test_patterns_of_the_layouts(layout, sectors, ring):
    layout = load_layout(layout)
    pattern = qualify.pattern_of(plan_for(10**9, layout, record_length=1))
    assert sum(pattern.sectors) == sectors
    assert pattern.ring == ring
    assert len(pattern.due) == len(pattern.sectors)
    assert pattern.due[-1] == pytest.approx(pattern.period)
    assert 0 < pattern.bridge <= pattern.period * ring


def test_figures_and_pictures(tmp_path):
    result, _ = measured({50: 0.2})
    text = "\n".join(result.describe())
    for word in ("200 writes", "3.7 MB", "median 1.00 ms", "longest 200.0, 1.0", "bridges 70.0 ms", "dropped 12"):
        assert word in text
    assert any("the ring bridges this" in line for line in qualify.histogram(result))
    pytest.importorskip("matplotlib")
    qualify.draw(result, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_no_matplotlib(monkeypatch, tmp_path):
    import sys

    from miniscope_xr.errors import MissingDependencyError

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r"miniscope-xr\[plot\]"):
        qualify.draw(measured({})[0], tmp_path / "a.png")


def test_an_honest_card():
    places = qualify.positions(plan_for())
    assert len(places) >= 64
    assert places[0] >= 1024 * SECTOR
    assert places[-1] + qualify.PROBE == SIZE
    assert all(p % qualify.PROBE == 0 for p in places)
    assert qualify.probe(FaultDisk(EMPTY), places, 5) == []


def test_a_fake_card():
    disk = FakeCapacity(EMPTY)
    places = qualify.positions(plan_for())
    wrong = qualify.probe(disk, places, 5)
    assert wrong
    result, _ = measured({})
    text = qualify.verdict(result, wrong, SIZE)[0]
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
    assert qualify.probe(Bad(EMPTY), places, 5) == [places[7]]


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


@pytest.mark.parametrize("what", [KeyboardInterrupt, CardWriteError(5, "broken")])
def test_interrupted(tool, card, monkeypatch, what):
    def stop(target, plan, *rest, **named):
        target.write(plan.start, b"\x01" * SECTOR)
        raise what

    with monkeypatch.context() as patch:
        patch.setattr(qualify, "measure", stop)
        result = tool("qualify", card, "--seconds", "1", "--json")
    assert result.code == 6
    assert "`resume` removes it" in result.json["error"]
    if what is not KeyboardInterrupt:
        assert card.read_bytes() != EMPTY
        assert tool("resume", card).code == 0
    assert card.read_bytes() == EMPTY


def test_cleaning_up_that_fails_too(tool, card, monkeypatch):
    def fail(*args):
        raise CardWriteError(5, "gone")

    monkeypatch.setattr(checks, "_test", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt()))
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
