"""``--then-prepare``: what is erased is in the copy first, proven; everything else is as `prepare` does it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import xarray as xr

from miniscope_xr.index.detect import prepared
from miniscope_xr.source.local import Device
from miniscope_xr.tools.collect import again
from miniscope_xr.tools.copy import image
from miniscope_xr.tools.flash import jobs, operation
from miniscope_xr.tools.flash import journal as journals
from miniscope_xr.tools.flash.disks.find import identify
from miniscope_xr.tools.flash.target.linux import FileTarget
from miniscope_xr.tools.flash.target.other import RawTarget

from ..tools.test_copy import Bad
from .conftest import MOMENT

TOLD = ("--session", "s1", "--date", MOMENT, "--name", "{session}/{card}")


@pytest.fixture
def ready(day, tool, tmp_path):
    """A card of 16 MB with a recording, a preset, and the words that collect it and prepare it again."""
    tool("preset", "save", "dim", "--layout", "v4-wirefree", "gain=2x", "led=5", "record_length=3")
    (card,) = day(1)
    with card.open("r+b") as file:
        file.truncate(16 << 20)
    words = ["collect", card, "into", tmp_path / "lab", *TOLD, "--then-prepare", "dim", "--image"]
    return card, [*words, "--backup-dir", tmp_path / "backups"]


def yes(card: Path) -> list[str]:
    return ["--yes", "--card", identify(str(card)).card_id]


def settings(card: Path) -> dict[str, int]:
    with Device(str(card)) as source:
        return dict(prepared(source, "v4-wirefree")[0].settings)


def test_the_card_is_ready_and_the_recording_is_in_the_copy(ready, tool, tmp_path):
    card, words = ready
    before = card.read_bytes()
    done = tool(*words, *yes(card), "--settings", "led=9", "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert report["card_changed"] is True
    assert report["cards"][0]["did"][-1] == "prepared"
    (copy,) = (tmp_path / "lab").rglob("*.img")
    kept = copy.read_bytes()
    assert kept == before[: len(kept)]
    with xr.open_dataset(copy, engine="miniscope") as ds:
        assert ds.sizes["frame"] == 40
    now = settings(card)
    assert (now["gain"], now["led"], now["record_length"]) == (2, 9, 3)
    assert not any(card.read_bytes()[1023 * 512 :])
    (journal,) = (tmp_path / "backups").rglob("journal.json")
    assert journals.load(journal).finished
    once_more = tool(*words, *yes(card))
    assert once_more.code == 0
    assert "was collected and prepared (dim)" in once_more.out


def test_nobody_is_there_to_ask(ready, tool):
    card, words = ready
    before = card.read_bytes()
    done = tool(*words)
    assert done.code == 3
    assert "nobody is there to ask" in done.err
    assert card.read_bytes() == before
    assert not words[3].exists()


def test_the_question_is_asked_before_anything_is_copied(ready, tool, monkeypatch):
    card, words = ready
    asked = []

    def answer(card_id, yes, streams=None):
        asked.append(card_id)
        assert not words[3].exists()

    monkeypatch.setattr(again.ask, "confirm", answer)
    assert tool(*words).code == 0
    assert asked == [identify(str(card)).card_id]


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--yes"], 2, "named by its id"),
        (["--yes", "--card", "abcd"], 3, "none of these cards"),
        (["--then-prepare", "bright"], 2, "no preset 'bright'"),
        (["--settings", "gian=2x"], 2, "gain"),
        (["--settings", "record_length=9h"], 3, "fit"),
    ],
)
def test_refused_before_anything_is_read(ready, tool, more, code, said):
    card, words = ready
    before = card.read_bytes()
    done = tool(*words, *(yes(card) if "--yes" not in more else []), *more)
    assert (done.code, said in done.err) == (code, True), done.err
    assert card.read_bytes() == before
    assert not words[3].exists()


def test_a_loop_or_image_needs_the_same_word_as_prepare(ready, tool):
    card, words = ready
    done = tool(*(word for word in words if word != "--image"), *yes(card))
    assert done.code == 3
    assert "--image" in done.err


def test_options_of_the_next_recording_alone(day, tool, tmp_path):
    for words in (["--yes"], ["--settings", "led=1"], ["--card", "ab"]):
        done = tool("collect", *day(1), tmp_path / "lab", *TOLD, *words)
        assert done.code == 2
        assert "--then-prepare" in done.err


def test_a_table_names_the_cards_and_has_their_settings(ready, tool, tmp_path):
    card, words = ready
    table = tmp_path / "day.csv"
    table.write_text(f"card,animal,settings\n{identify(str(card)).card_id},m1,led=3 ewl=20\n")
    done = tool(*words, "--yes", "--table", table)
    assert done.code == 0, done.err
    assert (settings(card)["led"], settings(card)["ewl"]) == (3, 20)
    (copy,) = (tmp_path / "lab").rglob("*.img")
    with xr.open_dataset(copy, engine="miniscope") as ds:
        assert ds.attrs["animal"] == "m1"
        assert "settings" not in ds.attrs


def spoilt_copy(card: Path, copy: Path) -> None:
    with copy.open("r+b") as file:
        file.seek(1030 * 512)
        file.write(b"x")


def other_card(card: Path, copy: Path) -> None:
    with card.open("r+b") as file:
        file.seek(3000 * 512)
        file.write(b"\xa5" * 512)


def longer_copy(card: Path, copy: Path) -> None:
    with copy.open("ab") as file:
        file.write(bytes(512))


def lost_copy(card: Path, copy: Path) -> None:
    copy.unlink()


def fronts_changed(card: Path, copy: Path) -> None:
    with card.open("r+b") as file:
        file.seek(1022 * 512 + 16)
        file.write(b"\x07")


SLOW = [pytest.param(how, marks=pytest.mark.slow) for how in (longer_copy, lost_copy, fronts_changed)]


@pytest.mark.parametrize("meanwhile", [spoilt_copy, other_card, *SLOW])
def test_without_the_proof_nothing_is_erased(ready, tool, tmp_path, meanwhile, monkeypatch):
    card, words = ready
    real, then = again.prepare_again, []

    def just_before(agreed, record, *rest):
        meanwhile(card, record.image)
        then.append(card.read_bytes())
        real(agreed, record, *rest)

    with monkeypatch.context() as patch:
        patch.setattr("miniscope_xr.tools.collect.run.prepare_again", just_before)
        done = tool(*words, *yes(card))
    assert done.code == 3, done.out
    assert "was not prepared" in done.out or "changed since it was shown" in done.out
    assert card.read_bytes() == then[0]


def test_bad_sectors_keep_a_card_from_being_prepared(ready, tool, monkeypatch):
    card, words = ready
    before = card.read_bytes()
    monkeypatch.setattr(image, "open_device", Bad)
    done = tool(*words, *yes(card))
    assert done.code == 3
    assert "missing in the copy" in done.out
    assert card.read_bytes() == before


def test_the_card_is_read_under_the_descriptor_that_erases(ready, tool, monkeypatch):
    """No write to the card comes before its last byte was compared."""
    card, words = ready
    log = []
    target = FileTarget if hasattr(os, "preadv") else RawTarget  # whichever opens an image here
    read, write = target.read, target.write
    monkeypatch.setattr(target, "read", lambda self, at, n: log.append(("read", at, n, id(self))) or read(self, at, n))
    monkeypatch.setattr(
        target, "write", lambda self, at, data: log.append(("write", at, len(data), id(self))) or write(self, at, data)
    )
    monkeypatch.setattr(again, "_STEP", 1 << 20)
    assert tool(*words, *yes(card)).code == 0
    first = next(i for i, entry in enumerate(log) if entry[0] == "write")
    who = log[first][3]
    (copy,) = words[3].rglob("*.img")
    compared = {at for what, at, n, by in log[:first] if what == "read" and by == who}
    assert compared >= set(range(0, copy.stat().st_size, 1 << 20))


@pytest.mark.slow
def test_interrupted_in_the_middle(ready, tool, monkeypatch, tmp_path):
    card, words = ready
    monkeypatch.setattr(operation, "STEP", 64 << 10)
    real, left = operation.apply, [2]

    def apply(target, change, *rest):
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        return real(target, change, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(operation, "apply", apply)
        done = tool(*words, *yes(card))
    assert done.code == 6
    assert "`resume` finishes it" in done.out
    then = tool(*words, *yes(card))
    assert then.code == 3, then.out
    assert "was being prepared when that was interrupted" in then.out
    ends = ["--image", "--backup-dir", tmp_path / "backups", *yes(card)]
    assert tool("resume", card, *ends).code == 0
    last = tool(*words, *yes(card))
    assert last.code == 0, last.out
    assert "was collected and prepared" in last.out


@pytest.mark.slow
def test_killed_between_the_end_of_the_wipe_and_its_record(ready, tool, monkeypatch):
    card, words = ready
    real = jobs.carry_out

    def killed(*args):
        real(*args)
        raise SystemError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "carry_out", killed)
        assert tool(*words, *yes(card)).code == 5
    done = tool(*words, *yes(card))
    assert done.code == 0, done.out
    assert "was collected and prepared (dim)" in done.out
    assert card.stat().st_size == 16 << 20
