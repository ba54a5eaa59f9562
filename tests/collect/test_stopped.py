"""Ended from outside: at once, with words that say by whom; and two commands in one folder."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time

import pytest

from miniscope_xr.tools.cli import collect
from miniscope_xr.tools.collect import run
from miniscope_xr.tools.copy import part
from miniscope_xr.tools.copy.lock import alone
from miniscope_xr.tools.flash import interrupts
from miniscope_xr.tools.flash.errors import BusyError

from .test_collect import TOLD, content, data_of

posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
windows = pytest.mark.skipif(os.name == "posix", reason="a signal of Windows")


def hit(number: int) -> None:
    """Send a signal (on Windows `os.kill` is none), and wait until the main thread has noted it."""
    signal.raise_signal(number)
    while not interrupts.arrived():
        time.sleep(0.001)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("SIGINT", "stopped by Ctrl+C"),
        pytest.param("SIGTERM", "stopped by another program or the system (SIGTERM)", marks=[posix, pytest.mark.slow]),
        pytest.param("SIGBREAK", "stopped by Ctrl+Break", marks=[windows, pytest.mark.slow]),
        pytest.param("SIGHUP", "stopped, since the terminal was closed", marks=[posix, pytest.mark.slow]),
    ],
)
def test_whoever_stops_it_is_named_and_it_goes_on(day, tool, tmp_path, monkeypatch, name, said):
    (one, other), into = day(2), tmp_path / "lab"
    words = ("collect", one, other, into, *TOLD)
    monkeypatch.setattr(part, "STEP", 256 << 10)
    real, both, places = part._piece, threading.Barrier(2), []

    def piece(source, copy):
        if copy.done == 1 << 20:
            both.wait(30)
            if source.path == str(one):
                hit(getattr(signal, name))
            both.wait(30)
        places.append((source.path, copy.done))
        return real(source, copy)

    monkeypatch.setattr(part, "_piece", piece)
    done = tool(*words)
    assert done.code == 5
    assert said in done.out
    assert done.out.count("run the same command again") == 2
    assert len(list(into.rglob("*.img.part"))) == 2
    assert not list(into.rglob("*.lock"))
    before, places[:] = set(places), []
    assert tool(*words).code == 0
    assert not set(places) & before  # nothing is read twice
    assert any(data_of(one, copy) for copy in into.rglob("*.img"))


def test_a_reader_that_does_not_answer_keeps_nobody(day, tool, tmp_path, monkeypatch):
    (good, dead), into = day(2), tmp_path / "lab"
    monkeypatch.setattr(run, "_PATIENCE", 0.01)
    real, answer, ended = part._piece, threading.Event(), threading.Event()

    def piece(source, copy):
        if source.path == str(dead):
            hit(signal.SIGINT)
            answer.wait(60)
            ended.set()
        return real(source, copy)

    try:
        with monkeypatch.context() as patch:
            patch.setattr(part, "_piece", piece)
            done = tool("collect", good, dead, into, *TOLD)
        assert not ended.is_set()
        assert done.code == 5
        assert "stopped by Ctrl+C" in done.out
        assert "which did not end in time" in done.out
    finally:
        answer.set()


@posix
def test_what_is_ignored_stays_ignored():
    """`nohup`, and a script's background: whoever closes the terminal does not mean this."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupts.caught():
            signal.raise_signal(signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert interrupts.arrived() == ""
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_stopped_while_the_store_is_written(day, tool, tmp_path, monkeypatch):
    """What came of the cards is told all the same."""
    pytest.importorskip("zarr")
    pytest.importorskip("dask.array")

    def archive(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(collect, "archive", archive)
    done = tool("collect", *day(1), tmp_path / "lab", *TOLD, "--archive", tmp_path / "lab.zarr")
    assert done.code == 5
    assert "1 of 1 card collected" in done.out
    assert "lab.zarr: stopped; run the same command again" in done.out
    assert "not changed" not in done.err


def test_one_at_a_time_under_one_name(day, tool, tmp_path):
    (card, other), into = day(2), tmp_path / "lab"
    image = into / "s1.img"
    into.mkdir()
    with alone(image):
        with pytest.raises(BusyError, match="another command"), alone(image):
            pass
        done = tool("collect", card, into, "--session", "s1", "--name", "{session}")
        assert done.code == 4
        assert "another command is at work" in done.out
        assert tool("collect", other, into, "--session", "s2", "--name", "{session}").code == 0  # a card of its own
    assert [name for name in content(into) if name.startswith(("s1", "."))] == []
    (into / ".s1.img.lock").touch()  # of one that was killed
    assert tool("collect", card, into, "--session", "s1", "--name", "{session}").code == 0
    assert not (into / ".s1.img.lock").exists()


@pytest.mark.slow
def test_two_that_do_not_fit_beside_each_other(day, tool, tmp_path, monkeypatch):
    """It is said before anything is read; the one that fits is copied."""
    cards, into = day(2, frames=60), tmp_path / "lab"
    real, sizes = shutil.disk_usage, [card.stat().st_size for card in cards]
    usage = real(tmp_path)
    monkeypatch.setattr(part.shutil, "disk_usage", lambda path: usage._replace(free=int(1.5 * max(sizes))))
    both, fill = threading.Barrier(2), part._piece

    def piece(source, copy):
        if copy.done == 0:
            assert len(part._UNDER_WAY) == 1
        return fill(source, copy)

    room = part.room_for

    def together(*args):
        both.wait(30)
        return room(*args)

    monkeypatch.setattr("miniscope_xr.tools.copy.image.room_for", together)
    monkeypatch.setattr(part, "_piece", piece)
    monkeypatch.setattr(part, "STEP", 64 << 10)
    done = tool("collect", *cards, into, *TOLD)
    assert done.code == 5
    assert "1 of 2 cards collected" in done.out
    assert "are free on this disk, of which the other copies of this run take" in done.out
    monkeypatch.undo()
