"""The list that a person with a card works through: its report says what came out, and nothing is lost unasked."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from miniscope_xr.tools.cli import hardware
from miniscope_xr.tools.flash.disks.find import identify
from miniscope_xr.tools.flash.errors import PROBLEMS, REFUSED
from tests.flash import life

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture
def card(tmp_path):
    return life.recorded(tmp_path / "card.img")


@pytest.mark.slow
def test_all_of_it(card, tmp_path):
    life.is_worked_through(hardware, str(card), tmp_path / "report.md")


def test_nothing_is_written_unasked(card, tmp_path, capsys):
    before = card.read_bytes()
    words = [str(card), "--image", "--report", str(tmp_path / "report.md")]
    assert hardware.main(words) == 0
    assert f"--write {identify(str(card)).card_id}" in capsys.readouterr().out
    assert hardware.main([*words, "--write", "0123456789ab"]) == REFUSED
    assert "nothing was done" in capsys.readouterr().err
    assert card.read_bytes() == before


def test_what_goes_wrong_is_in_the_report(card, tmp_path, monkeypatch):
    """A disk that does not give the same bytes however they are asked for."""
    read = hardware.Device.read
    monkeypatch.setattr(hardware.Device, "read", lambda self, at, n: b"x" * n if at == 511 else read(self, at, n))
    list_ = hardware.Checklist(str(card), tmp_path / "report.md", image=True)
    monkeypatch.setattr(hardware, "_MOST", 1 << 20)
    list_.speed()
    card.unlink()
    list_.speed()
    said = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "## NOT AS EXPECTED: read 4 MB" in said
    assert "other bytes at odd places" in said
    assert "there is no file or device here" in said
    assert [step.right for step in list_.steps] == [False, False]


def test_a_card_that_is_not_there(tmp_path, capsys):
    assert hardware.main([str(tmp_path / "none"), "--report", str(tmp_path / "report.md")]) == REFUSED
    assert "there is no file or device here" in capsys.readouterr().err
    assert not (tmp_path / "report.md").exists()


def test_what_a_person_does(card, tmp_path, monkeypatch):
    """Pulled while it is read, put back, and locked: here the image is moved away and made read-only."""
    away = card.with_suffix(".away")
    list_ = hardware.Checklist(str(card), tmp_path / "report.md", image=True)
    # a clock of this module alone: another test's thread may still be waiting by Python's own
    clock = SimpleNamespace(monotonic=time.monotonic, strftime=time.strftime, sleep=lambda seconds: card.rename(away))
    monkeypatch.setattr(hardware, "time", clock)
    answers = {"Put the": lambda: away.rename(card), "Has the": lambda: "", "Move the": lambda: ""}
    list_.by_hand(lambda question: answers[question[:7]]() and "")
    assert [step.right for step in list_.steps] == [True, True]
    assert "CardNotFoundError" in list_.steps[0].got
    monkeypatch.setattr(hardware, "_PATIENCE", 0)
    list_.by_hand(lambda question: "y" if question.startswith("Has the") else "")
    assert "could be read all the time" in list_.wrong[0].got
    assert list_.wrong[1].expected == "exit code 3 or 4", "there is no lock switch on this image"
    assert len(list_.wrong) == 2


def test_the_exit_code(card, tmp_path, monkeypatch):
    monkeypatch.setattr(hardware.Checklist, "look", lambda self: self.run("info", "nothing"))
    assert hardware.main([str(card), "--report", str(tmp_path / "report.md")]) == PROBLEMS


def test_the_page_names_the_command():
    page = (DOCS / "hardware-checklist.md").read_text(encoding="utf-8")
    assert "python -m miniscope_xr.tools.cli.hardware" in page
