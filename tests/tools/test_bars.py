"""Where a person waits there is a bar, in the unit of the work, and no trace of it when something is said."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from miniscope_xr.tools.cli import main
from miniscope_xr.tools.export import FORMATS
from miniscope_xr.tools.flash import progress

from ..screen import Screen
from .test_full_disk import NEEDS

LOOK = ("looking for old data", "B")
BARS: dict[str, tuple[list[str], set[tuple[str, str]]]] = {
    "info": (["info", "card.img"], {("frames", "frame")}),
    "check": (["check", "card.img"], {("frames", "frame")}),
    "check --deep": (["check", "card.img", "--deep"], {("frames", "frame"), ("headers", "buffer")}),
    "video": (["video", "card.img", "a.avi"], {("a.avi", "frame")}),
    "report": (
        ["report", "card.img", "a.html"],
        {("frames", "frame"), ("quality", "frame"), ("report", "frame"), ("film", "picture")},
    ),
    "archive": (["archive", "card.img", "lab.zarr", "--workers", "1"], {("archive", "frame")}),
    "image": (["image", "card.img", "b.img"], {LOOK, ("copying", "B"), ("checksum", "B")}),
    "collect": (
        ["collect", "card.img", "lab", "--name", "{card}"],
        {(f"card.img: {what}", "B") for what in (LOOK[0], "copying", "checksum")} | {("card.img: frames", "frame")},
    ),
    "rescue": (["rescue", "card.img", "b.img"], {("searching", "B")}),
    "simulate": (["simulate", "b.img", "--frames", "5"], {("simulate", "frame")}),
    "prepare": (["prepare", "old.img", "--image", "record_length=2"], {LOOK}),
    "wipe": (["wipe", "old.img", "--image"], {LOOK}),
    **{to: (["export", "card.img", f"a{''.join(k.suffixes[:1])}", "--to", to], set()) for to, k in FORMATS.items()},
}
"""Commands whose work grows with the card, and their bars (an export's is called by its output)."""
BOUNDED = ["layouts", "list", "set", "backup", "restore", "resume", "blank-table", "view", "preset"]
"""Commands that read some sectors, however large the card; `view` tells the page. `qualify` and `demo` are below."""
MODULES = {"video": "cv2", "report": "PIL", "archive": "zarr", **NEEDS}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[list[str]], tuple[int, Screen]]:
    """Run a command at a terminal of its own."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)

    def run(words: list[str]) -> tuple[int, Screen]:
        screen = Screen()
        with contextlib.redirect_stdout(screen), contextlib.redirect_stderr(screen):
            return main(words), screen

    return run


@pytest.mark.slow
@pytest.mark.parametrize("name", BARS)
def test_work_that_grows_with_the_card_has_a_bar_that_goes(
    name: str, seen: Callable[[list[str]], tuple[int, Screen]], make_card: Any, tmp_path: Path
) -> None:
    pytest.importorskip(MODULES.get(name, "zarr" if name in FORMATS else "numpy"), exc_type=ImportError)
    words, wanted = BARS[name]
    for card in ("card.img", "old.img"):
        make_card(frames=8)[0].rename(tmp_path / card)
    code, screen = seen(words)
    asked = words[0] in ("prepare", "wipe")  # they ask, nobody answers
    assert code == (3 if asked else 0), screen.getvalue()
    if name == "miniscope-daq":  # its output is a folder called by the time
        assert {unit for _, unit in screen.bars()} == {"frame"}
    else:
        assert screen.bars() == (wanted or {(words[2], "frame")})
    assert not [line for line in screen.left() if "%|" in line], screen.left()


def test_a_bar_is_gone_before_a_word_is_said() -> None:
    screen = Screen()
    with contextlib.redirect_stderr(screen), progress.bars() as tell:
        assert tell is not None
        tell("writing", 1 << 20, 4 << 20)
        progress.clear()
        print("half of it", file=screen)
        tell("writing", 2 << 20, 4 << 20)
        tell("marks", 1, 3)
    assert screen.left() == ["half of it", ""]
    assert screen.bars() == {("writing", "B"), ("marks", "place")}
    with progress.bars(quiet=True) as tell:
        assert tell is None
