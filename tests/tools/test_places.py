"""Where a laboratory's computers keep their files: on a network drive, in a cloud's folder below anybody's name.

Every command writes there as it does at home, and reads it again.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from miniscope_xr.tools.cli import main
from miniscope_xr.tools.flash.disks.find import identify

from .test_scanned import COMMANDS

NAMES = re.compile(r"\w+\.[a-z]+\d?|lab|demo|new|backups")
"""The words of a command that are files and folders of its own."""


def network(tmp_path: Path) -> Path:
    r"""A folder of another computer, ``\\nas\lab``; who runs the tests says where there is one."""
    share = os.environ.get("MINISCOPE_XR_SHARE")
    if not share:
        pytest.skip("MINISCOPE_XR_SHARE names no folder of another computer")
    return Path(share) / tmp_path.parent.name / tmp_path.name


def literal(tmp_path: Path) -> Path:
    r"""A path that Windows takes as it is written, ``\\?\C:\...``."""
    if sys.platform != "win32":
        pytest.skip("a way to write paths of Windows")
    return Path(f"\\\\?\\{tmp_path}") / "Maus 1"


def cloud(tmp_path: Path) -> Path:
    """What a university's OneDrive makes of a name."""
    return (
        tmp_path / "Users" / "Jörg Müller-Łoś 鼠" / "OneDrive - Universität Köln (AG O'Brien & Söhne)" / "100% Maus #1"
    )


PLACES = {"a network drive": network, "a cloud's folder": cloud, "a literal path": literal}


@pytest.fixture(params=PLACES)
def place(request: Any, tmp_path: Path, make_card: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a card in it, in which backups, settings and what is temporary are, too."""
    found = PLACES[request.param](tmp_path)
    found.mkdir(parents=True)
    make_card(frames=40)[0].rename(tmp_path / "card.img")
    (found / "card.img").write_bytes((tmp_path / "card.img").read_bytes())
    monkeypatch.setattr("tempfile.tempdir", str(found))
    for name in ("HOME", "USERPROFILE", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "APPDATA", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(found))
    for name in ("APPDATA", "LOCAL_APPDATA"):
        monkeypatch.setenv(f"WIN_PD_OVERRIDE_{name}", str(found))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return found


def there(place: Path, words: list[str]) -> list[str]:
    """The words, their files and folders in a place."""
    return [words[0], *(str(place / word) if NAMES.fullmatch(word) else word for word in words[1:])]


def test_a_card_is_told_of_and_copied_there(place: Path, capsys: Any) -> None:
    for words in (["info", "card.img"], ["check", "card.img"], ["image", "card.img", "copy.img"]):
        assert main(there(place, words)) == 0, capsys.readouterr().err
    assert (place / "copy.img").stat().st_size > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_everything_is_written_there(name: str, place: Path, capsys: Any) -> None:
    words, library = COMMANDS[name]
    pytest.importorskip(library or "numpy", exc_type=ImportError)
    words = there(place, words)
    before = set(place.rglob("*"))
    if name == "set":
        words += ["--card", identify(str(place / "card.img")).card_id]
    assert main(words) == 0, capsys.readouterr().err
    made = set(place.rglob("*")) - before
    assert made
    assert not [path for path in made if ".part" in path.name or path.suffix == ".tmp"]
    assert not list(Path.cwd().iterdir()), "written somewhere else"


@pytest.mark.slow
def test_a_life_there(place: Path, capsys: Any) -> None:
    """Backups lie in the user's own folder; what was set is taken back from there."""
    card = place / "card.img"
    before = card.read_bytes()
    words = ["--image", "--yes", "--card", identify(str(card)).card_id]
    assert main(["set", str(card), "gain=2", *words]) == 0, capsys.readouterr().err
    assert card.read_bytes() != before
    assert list(place.rglob("journal.json"))
    assert main(["restore", str(card), *words[:2], "--card", identify(str(card)).card_id]) == 0, capsys.readouterr().err
    assert card.read_bytes() == before
