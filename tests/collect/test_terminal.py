"""Ctrl+C as a person presses it: on a terminal of its own, while an export is being written."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .test_collect import TOLD

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="needs a terminal of Linux")]
START = 120  # seconds in which an export has certainly begun


def test_ctrl_c_while_an_export_is_written(day, tool, tmp_path):
    """Nothing half written is left, the copy stays, and the same command goes on."""
    pytest.importorskip("tifffile")
    (card,), into = day(1, frames=3000), tmp_path / "lab"
    words = [str(word) for word in ("collect", card, "into", into, *TOLD, "--export", "tiff")]
    ours, theirs = os.openpty()
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "TERM": "xterm"}
    process = subprocess.Popen(
        ["setsid", "-c", sys.executable, "-m", "miniscope_xr", *words], stdin=theirs, stdout=theirs,
        stderr=subprocess.PIPE, env=env,
    )  # fmt: skip
    os.close(theirs)
    try:
        until = time.monotonic() + START
        while not list(into.rglob(".*.part.tif")):
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.01)
        os.write(ours, b"\x03")
        process.communicate(timeout=START)
    finally:
        process.kill()
        process.communicate()
        said = os.read(ours, 1 << 16).decode()
        os.close(ours)
    assert process.returncode == 5
    assert "stopped by Ctrl+C" in said
    assert {path.suffix for path in into.rglob("*") if path.is_file()} == {".img", ".json", ".map", ".sha256"}
    assert tool(*words).code == 0
    assert list(into.rglob("*.tif"))
