"""Ctrl+C at any moment of a command, from its first to its last: one line and our exit code, or as if nothing was."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from miniscope_xr.tools.flash.disks.find import identify

pytestmark = pytest.mark.skipif(os.name != "posix", reason="a process sends another no Ctrl+C there")
ROOT = Path(__file__).parents[2]

_CHILD = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
from miniscope_xr.tools.cli import main
from miniscope_xr.tools.cli.ctrl_c import CtrlC
begins = CtrlC.begins
def begun(self):
    begins(self)
    os.write(int(os.environ["BEGUN"]), b".")
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
CtrlC.begins = begun
sys.exit(main())
"""


class Ran:
    """A command that was run in a process of its own, with Ctrl+C at a moment after it began to listen."""

    def __init__(self, words: list[Any], at: float | None, home: Path, presses: int = 1) -> None:
        ours, theirs = os.pipe()
        env = {**os.environ, "BEGUN": str(theirs), "XDG_DATA_HOME": str(home), "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            [sys.executable, "-c", _CHILD, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=env, pass_fds=[theirs],
        )  # fmt: skip
        os.close(theirs)
        os.read(ours, 1)
        os.close(ours)
        began = time.monotonic()
        if at is not None:
            time.sleep(at)
            for _ in range(presses):
                process.send_signal(signal.SIGINT)
        self.out, self.err = process.communicate()
        self.seconds, self.code = time.monotonic() - began, process.returncode


def moments(count: int, length: float, seed: str) -> list[float]:
    """Random moments, one of each equal part of a time, and of what comes a little behind it."""
    draw = random.Random(seed)
    return [(i + draw.random()) / count * 1.1 * length for i in range(count)]


@pytest.mark.slow
@pytest.mark.parametrize("presses", [1, 3])
@pytest.mark.parametrize("words", [["info", "CARD"], ["--help"], ["video", "CARD", "OUT"]])
def test_one_line_and_our_exit_code_at_any_moment(words, presses, make_card, tmp_path):
    card, _ = make_card(frames=20)
    words = [{"CARD": card, "OUT": tmp_path / "out.avi"}.get(word, word) for word in words]
    alone = Ran(words, None, tmp_path)
    for at in moments(8, alone.seconds, f"{words[0]} {presses}"):
        for made in tmp_path.glob("out*"):
            made.unlink()
        ran = Ran(words, at, tmp_path, presses)
        if (ran.code, ran.err) == (alone.code, alone.err) and ran.out == alone.out:
            continue
        assert ran.code == 5, (at, ran.code, ran.err)
        name = f"miniscope-xr {words[0]}: interrupted" if "nothing was begun" not in ran.err else "miniscope-xr: "
        assert ran.err.startswith(name), (at, ran.err)
        assert ran.err.count("\n") == 1, (at, ran.err)
        assert not list(tmp_path.glob("*.part*")) + list(tmp_path.glob(".*part*"))


@pytest.mark.slow
def test_what_was_written_to_a_card_is_what_is_said_at_any_moment(make_card, tmp_path):
    """Done, and then Ctrl+C: it is done. Not begun: the card is as it was."""
    card, _ = make_card(frames=20)
    before = card.read_bytes()
    asked = ["--image", "--yes", "--card", identify(str(card)).card_id, "--backup-dir", tmp_path / "b", "--no-stamp"]
    words = ["set", card, "led=37", *asked]
    alone = Ran(words, None, tmp_path)
    assert alone.code == 0
    after = card.read_bytes()
    assert after != before
    codes = {alone.code}
    for at in [0.0, *moments(16, alone.seconds, "set")]:  # before anything is done, however slow the machine is
        card.write_bytes(before)
        ran = Ran(words, at, tmp_path)
        codes.add(ran.code)
        assert ran.code in (0, 5, 6), (at, ran.code, ran.err)
        assert ran.err.count("\n") == (ran.code != 0), (at, ran.err)
        now = card.read_bytes()
        assert now == {0: after, 5: before}.get(ran.code, now), (at, ran.code, ran.err)
        assert "Traceback" not in ran.err
    assert {0, 5} <= codes
