"""Whatever signal arrives when: what is said about the card is true."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from miniscope_xr.tools.flash import interrupts, jobs, operation, prepare, probe, steps
from miniscope_xr.tools.flash.journal import Journal, journals
from miniscope_xr.tools.flash.target.linux import FileTarget
from miniscope_xr.tools.flash.target.other import RawTarget

from .cli import Tool, card_id
from .fakes import v4_card
from .test_commands import write

SIZE = 2 << 20
Target = FileTarget if hasattr(os, "preadv") else RawTarget  # what writes an image here


def hit(times: int = 1, number: int = signal.SIGINT) -> None:
    for _ in range(times):
        signal.raise_signal(number)


@pytest.fixture
def card(tmp_path):
    return write(tmp_path / "card.img", v4_card(), SIZE)


@pytest.fixture
def tool(capsys, tmp_path):
    return Tool(capsys, tmp_path / "backups")


def truth(result, card: Path, before: bytes, backups: Path) -> None:
    """The exit code and the words say how the card is; the journal says the same."""
    changed = card.read_bytes() != before
    report = result.json
    journal = next(journals(backups), None)
    assert report["card_changed"] is changed
    assert result.code == (0 if journal and journal.finished else 6 if changed else 5)
    assert ("was not changed" in result.err) == (result.code == 5)
    assert ("`resume` finishes it" in result.err) == (result.code == 6)


PLACES = [
    (owner, name)
    for owner, names in (
        (Target, ("read", "write", "flush", "same")),
        (Journal, ("write",)),
        (operation, ("verify", "apply", "_interrupted")),
        (operation._Watched, ("changed", "write")),
        (jobs, ("verify_shown", "backup")),
        (steps, ("say",)),
    )
    for name in names
]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "times"), [(signal.SIGINT, 3), (signal.SIGTERM, 1)], ids=["int", "term"])
@pytest.mark.parametrize(("owner", "name"), PLACES, ids=[name for _, name in PLACES])
def test_signals_before_and_after_every_step(owner, name, number, times, tool, card, monkeypatch):
    """At the first, second ... call of each step, just before it and just after."""
    before = card.read_bytes()
    words = ("gain=2", "record_length=1", "fs=5", "--discard-recording", card_id(card), "--json")
    real = getattr(owner, name)
    for when in (1, 3):
        for late in (False, True):
            card.write_bytes(before)
            calls = [0]

            def step(*args, calls=calls, when=when, late=late, **named):
                calls[0] += 1
                if calls[0] == when and not late:
                    hit(times, number)
                answer = real(*args, **named)
                if calls[0] == when and late:
                    hit(times, number)
                return answer

            tool.backups = card.parent / f"b-{when}-{late}"
            with monkeypatch.context() as patch:
                patch.setattr(operation, "STEP", 128 << 10)
                patch.setattr(owner, name, step)
                result = tool("prepare", card, *words)
            truth(result, card, before, tool.backups)


def test_a_second_signal_while_the_card_is_asked_how_it_is(tool, card, monkeypatch):
    before = card.read_bytes()
    real = Target.flush

    def flush(self):
        real(self)
        hit()

    looked = operation._Watched.changed

    def changed(self):
        hit(2)
        answer = looked(self)
        hit(2)
        return answer

    monkeypatch.setattr(Target, "flush", flush)
    monkeypatch.setattr(operation._Watched, "changed", changed)
    result = tool("prepare", card, "gain=2", "record_length=1", "fs=5", "--discard-recording", card_id(card), "--json")
    assert result.code == 6
    truth(result, card, before, tool.backups)


def test_handlers_are_put_back(tool, card):
    for number in (signal.SIGINT, signal.SIGTERM):
        before = signal.getsignal(number)
        with interrupts.caught(), interrupts.held():
            assert signal.getsignal(number) != before
        assert signal.getsignal(number) == before


def test_outside_only_the_first_signal_raises():
    with interrupts.caught():
        with pytest.raises(KeyboardInterrupt):
            hit()
        hit(3)
    with interrupts.caught(), pytest.raises(KeyboardInterrupt):
        hit()


def test_check_tells_once():
    with interrupts.held():
        interrupts.check()
        hit()
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
        interrupts.check()
    interrupts.check()


def test_threads_have_no_signals():
    done = []

    def work():
        with interrupts.held():
            interrupts.check()
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]


@pytest.mark.parametrize("again", [False, True])
def test_the_marks_of_a_proof_are_put_back_unless_somebody_insists(tool, card, monkeypatch, again):
    """One Ctrl+C waits for what was there; a second one leaves it to `resume`, which finishes it."""
    before, told = card.read_bytes(), []
    words = ("gain=2", "record_length=1", "fs=5", "--discard-recording", card_id(card), "--json")
    real = probe.put_back

    def marked(*args):
        raise KeyboardInterrupt

    def put_back(target, before, progress=None):
        hit()
        hit() if again else None
        real(target, before, lambda name, done, total: told.append((name, done, total)))

    monkeypatch.setattr(interrupts, "_INSISTED", -1 if again else 60)
    monkeypatch.setattr(prepare, "region_to_prove", lambda seen, plan: (1025 * 512, 960 << 10))
    monkeypatch.setattr(probe, "_that_differ", marked)
    monkeypatch.setattr(probe, "put_back", put_back)
    result = tool("prepare", card, *words)
    assert (result.code, result.json["card_changed"]) == ((6, True) if again else (5, False))
    assert again or card.read_bytes() == before
    assert told == [] if again else told[-1][1] == told[-1][2]
    if not again:
        assert "Ctrl+C again leaves it to `resume`" in told[0][0]
        return
    assert "interrupted a second time" in result.err
    assert "`resume` wipes them and finishes it" in result.err
    monkeypatch.undo()
    assert tool("resume", card, "--discard-recording", card_id(card)).code == 0
    assert not any(card.read_bytes()[1023 * 512 :])
