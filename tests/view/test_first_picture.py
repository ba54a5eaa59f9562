"""The first picture waits for nothing that it does not need: no library, no other command, no look over the card."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from miniscope_xr.card import OpenRecording
from miniscope_xr.tools.cli import build_parser, program

_LOADED = """
import sys
from pathlib import Path
from miniscope_xr.tools.cli import program
from miniscope_xr.tools.cli.view import view
program.build_parser(["view"])
from miniscope_xr.tools.view import Viewer
viewer = Viewer(Path.cwd())
viewer.open(sys.argv[1])
given = {"card": 0, "recording": 0, "start": 0, "count": 1, "path": sys.argv[1]}
for name in ("start", "preparing", "open", "frames", "rate"):
    assert viewer.answers.of_posted(name, given)
print(*sys.modules)
"""


@pytest.mark.slow
def test_nothing_slow_is_imported_before_it(clean_card):
    done = subprocess.run(
        [sys.executable, "-c", _LOADED, str(clean_card[0])], capture_output=True, text=True, check=True
    )
    loaded = done.stdout.split()
    assert "miniscope_xr.card" in loaded
    slow = {"xarray", "pandas", "cv2", "matplotlib", "miniscope_xr.tools.flash.jobs", "miniscope_xr.tools.check.check"}
    assert not slow & {*loaded}


def test_few_headers_are_read_before_it(viewing, make_card, monkeypatch: pytest.MonkeyPatch):
    path, _ = make_card("samd-framework", frames=600)
    described: list[int] = []
    whole = OpenRecording.describe

    def counted(store: OpenRecording, rows: Any, **options: Any) -> Any:
        described.extend(np.atleast_1d(rows).tolist())
        return whole(store, rows, **options)

    monkeypatch.setattr(OpenRecording, "describe", counted)
    asker = viewing(path)
    assert asker.get("start").status == asker.post("open", path=str(path)).status == 200
    assert asker.get("frames", card=0, recording=0, start=0, count=1).status == 200
    assert set(described) == {0}


@pytest.mark.parametrize("home", program.COMMANDS)
def test_a_command_is_found_without_the_others(home):
    names = program.COMMANDS[home]
    for name in names:
        parser = build_parser([name, "--help"])
        (choices,) = [each.choices for each in parser._actions if each.choices]
        assert tuple(choices) == names


def test_every_command_is_in_the_help():
    (choices,) = [each.choices for each in build_parser()._actions if each.choices]
    assert tuple(choices) == sum(program.COMMANDS.values(), ())
