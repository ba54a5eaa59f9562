"""The how-to pages tell the truth: their Python and their commands run, on a card like the reader's."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from miniscope_xr.tools.cli import main
from miniscope_xr.tools.flash import presets
from miniscope_xr.tools.simulate import Stall, blank, simulate

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = ["lab-day", "reading", "rescue", "preparing", "layouts", "from-mio"]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cv2", reason="needs an importable OpenCV", exc_type=ImportError)
    card = simulate(frames=200, events=[Stall(3000, 400)] if page == "rescue" else [])
    card.write(tmp_path / "card.img")
    with blank("v4-wirefree").write(tmp_path / "blank.img").open("r+b") as file:
        file.truncate(400_000_000)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(presets, "folder", lambda: tmp_path / "config")  # not those of whoever runs the tests
    names: dict[str, object] = {}
    blocks = re.findall(r"```(python|console)\n(.*?)```", (DOCS / f"{page}.md").read_text(), re.S)
    assert blocks
    for language, text in blocks:
        if language == "python":
            exec(text, names)
            continue
        for line in text.splitlines():
            command, _, said = line.partition("   # ")
            assert command.startswith("$ miniscope-xr "), command
            wanted = int(said.split()[1]) if said.startswith("exit") else 0
            assert main(shlex.split(command)[2:]) == wanted, command
