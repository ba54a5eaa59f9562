r"""Our own files on Windows: a Python of the Microsoft Store writes them elsewhere than it says; others find them.

It says ``%LOCALAPPDATA%\miniscope-xr`` and writes below ``Packages``; here it is a Python that names that folder.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import platformdirs
import pytest

from miniscope_xr.index.old_buffers import find_list
from miniscope_xr.source import own_files
from miniscope_xr.tools.flash import history, journal, presets, sector

from . import life
from .cli import Tool, card_id
from .test_commands import HEADER, settings

PACKAGE = "PythonSoftwareFoundation.Python.3.12_qbz5n2kfra8p0"


class Pythons:
    """Some Pythons of one person at one computer; ``use`` says which one runs."""

    def __init__(self, local: Path, patch: pytest.MonkeyPatch) -> None:
        self.local, self.patch = local, patch
        self.patch.setattr(own_files, "sys", SimpleNamespace(platform="win32"))
        self.use()

    def folder(self, package: str = "") -> Path:
        inside = self.local / "Packages" / package / "LocalCache/Local" if package else self.local
        return inside / own_files.NAME

    def use(self, package: str = "") -> None:
        where = lambda *_, **__: self.folder(package)  # noqa: E731
        self.patch.setattr(platformdirs, "user_data_path", where)
        self.patch.setattr(platformdirs, "user_config_path", where)


@pytest.fixture
def pythons(tmp_path, monkeypatch):
    return Pythons(tmp_path / "Local", monkeypatch)


@pytest.fixture
def card(tmp_path):
    return life.recorded(tmp_path / "card.img")


@pytest.fixture
def tool(capsys):
    return Tool(capsys, None)


def run(tool, verb, card, *words):
    """Run a verb without --backup-dir, which every other test gives."""
    return tool.raw(verb, card, *words, "--image", "--yes", "--card", card_id(card))


@pytest.fixture
def stopped(pythons, tool, card, monkeypatch):
    """A Python of the Store began to prepare a card, and was interrupted."""
    original = journal.Journal.write

    def stop(self, phase):
        original(self, phase)
        if phase == "settings":
            raise KeyboardInterrupt

    pythons.use(PACKAGE)
    with monkeypatch.context() as patch:
        patch.setattr(journal.Journal, "write", stop)
        result = run(tool, "prepare", card, "gain=4", "record_length=1", "--discard-recording", card_id(card))
    assert result.code == 6, result.err
    assert settings(card)["gain"] == 1
    pythons.use()
    return card


def test_what_one_python_began_another_finishes(pythons, stopped, tool):
    assert run(tool, "resume", stopped).code == 0
    assert settings(stopped)["gain"] == 4
    assert not pythons.folder().exists(), "it goes on in its own journal"
    pythons.use(PACKAGE)
    again = run(tool, "resume", stopped)
    assert (again.code, "no unfinished operation" in again.err) == (3, True)


def test_what_one_python_changed_another_brings_back(pythons, card, tool):
    pythons.use(PACKAGE)
    before = card.read_bytes()
    assert run(tool, "set", card, "gain=4").code == 0
    pythons.use()
    assert run(tool, "restore", card).code == 0
    assert card.read_bytes() == before


def test_a_python_of_the_store_sees_its_own_files_twice(pythons, stopped, tool):
    """In the usual folder, where it thinks they are, and below Packages: it is one journal."""
    shutil.copytree(pythons.folder(PACKAGE), pythons.folder())
    assert len(list(journal.journals(journal.default_dir()))) == 1
    assert run(tool, "resume", stopped).code == 0
    assert settings(stopped)["gain"] == 4
    again = run(tool, "resume", stopped)
    assert (again.code, "no unfinished operation" in again.err) == (3, True)


def test_the_last_word_of_a_journal_in_two_places_counts(pythons, stopped, tool):
    """A Python of the Store goes on with another's journal: it writes a new one, and the old one stays."""
    usual, store = pythons.folder(), pythons.folder(PACKAGE)
    shutil.copytree(store / "backups", usual / "backups")
    for file in usual.rglob("journal.json"):  # as it was before
        os.utime(file, ns=(1, 1))
    pythons.use(PACKAGE)
    assert run(tool, "resume", stopped).code == 0
    pythons.use()
    assert [old.finished for old in journal.find(journal.default_dir()).journals] == [True]
    shutil.rmtree(store)
    assert [old.finished for old in journal.find(journal.default_dir()).journals] == [False]


def test_a_named_folder_is_the_only_one(stopped, tool, tmp_path):
    result = run(tool, "resume", stopped, "--backup-dir", tmp_path / "mine")
    assert (result.code, "no unfinished operation" in result.err) == (3, True)


def test_other_systems_have_no_store(pythons, stopped):
    assert len(journal.places(journal.default_dir())) == 2
    pythons.patch.setattr(own_files, "sys", SimpleNamespace(platform="darwin"))
    assert journal.places(journal.default_dir()) == [journal.default_dir()]
    assert list(journal.journals(journal.default_dir())) == []


def test_operations_are_numbered_behind_those_of_every_python(pythons, stopped, monkeypatch):
    """Also where the clock was set back since."""
    [begun] = journal.journals(journal.default_dir())
    monkeypatch.setattr(journal.time, "time_ns", lambda: 1_700_000_000_000_000_000)
    new = journal.new_folder(journal.default_dir(), "card", "set")
    assert journal.number_of(new) == begun.number + 1
    assert pythons.folder() in new.parents


def test_the_list_of_old_data_is_found(pythons, card, tool):
    pythons.use(PACKAGE)
    assert run(tool, "prepare", card, "record_length=1", "--keep").code == 0
    header = card.read_bytes()[HEADER : HEADER + 512]
    saved = pythons.folder(PACKAGE) / "lists" / f"{sector.read_stamp(header).session}.npz"
    assert saved.exists()
    pythons.use()
    found = find_list(header)
    assert len(found.sectors) > life.FRAMES
    saved.unlink()
    assert find_list(header) is None


def test_presets_and_earlier_qualify_runs(pythons, tmp_path):
    pythons.use(PACKAGE)
    presets.keep("dim", "v4-wirefree", ["gain=2x"])
    run = {
        "time": "2026-01-01T00:00:00Z", "firmware": "f", "fps": 20, "seconds": 60.0, "writes": 100, "median_ms": 1.0,
        "p99_ms": 2.0, "longest_ms": 3.0, "bridge_ms": 100.0, "dropped": 0, "overwritten": 0, "risk": 0.1,
        "fake_at": [], "passed": True,
    }  # fmt: skip
    kept = journal.new_folder(journal.default_dir(), "card", "qualify")
    (kept / history.NAME).write_text(json.dumps(run), encoding="utf-8")
    pythons.use()
    now = journal.new_folder(journal.default_dir(), "card", "qualify")
    assert [each.time for each in history.earlier(now)] == ["2026-01-01T00:00:00Z"]
    assert list(presets.load()) == ["dim"]
    presets.keep("bright", "v4-wirefree", ["led=50"])
    assert presets.file().parent == pythons.folder()
    assert set(presets.load()) == {"dim", "bright"}


@pytest.mark.skipif(sys.platform != "win32", reason="where Windows says that a person's files are")
def test_the_usual_folder_of_windows():
    """Packages lies beside it: not in the roaming folder, nor in one of a company's name."""
    code = (
        "import sys; from miniscope_xr.source import own_files as o; print(o.data_folder()); print(o.config_folder())"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, stdin=-3).stdout
    local = Path(os.environ["LOCALAPPDATA"]) / own_files.NAME
    assert [Path(line) for line in said.split("\n")[:2]] == [local, local]
