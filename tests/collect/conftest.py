"""Cards of one day, small, and a home of their own for presets, backups and lists."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from miniscope_xr.tools.cli import main
from miniscope_xr.tools.flash import presets, stale
from miniscope_xr.tools.simulate import simulate

from ..conftest import SMALL

MOMENT = "2026-03-14T15:09:26"


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing of whoever runs the tests is read or written."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("XDG_DATA_HOME", str(home))
    monkeypatch.setattr(presets, "folder", lambda: home / "config")
    monkeypatch.setattr(presets, "default_dir", lambda: home / "backups")
    if sys.platform != "linux":
        monkeypatch.setattr(stale, "lists_dir", lambda: home / "lists")
    return home


@pytest.fixture
def day(tmp_path: Path) -> Callable[..., list[Path]]:
    """Make cards: ``day(2)`` or ``day(1, events=[...])``; no two are alike."""
    made: list[Path] = []

    def make(n: int = 1, **options: Any) -> list[Path]:
        fresh = []
        for _ in range(n):
            given = {"frames": 40, "seed": 100 + len(made), **SMALL, **options}
            path = simulate("v4-wirefree", **given).write(tmp_path / f"card{len(made)}.img")
            made.append(path)
            fresh.append(path)
        return fresh

    return make


class Said:
    """What a command said, and how it ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def tool(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run a command of the command line."""

    def run(*words: object) -> Said:
        capsys.readouterr()
        code = main([str(word) for word in words])
        return Said(code, *capsys.readouterr())

    return run
