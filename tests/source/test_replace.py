"""A file takes its name where another program has the old one open for a moment, as on Windows they do."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from miniscope_xr.errors import OutputError
from miniscope_xr.source import replace as replacing
from miniscope_xr.source.replace import replace
from miniscope_xr.tools.stream.outputs import whole_file
from tests.source.refusing import refuse_renames

Held = Callable[[int], None]


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    """Windows refuses the first renames."""

    def times(number: int) -> None:
        refuse_renames(monkeypatch, [number])
        monkeypatch.setattr(sys, "platform", "win32")

    return times


def test_who_has_it_open_for_a_moment_is_waited_for(tmp_path: Path, held: Held) -> None:
    made, final = tmp_path / "made", tmp_path / "final"
    made.write_text("new")
    final.write_text("old")
    held(3)
    replace(made, final)
    assert final.read_text() == "new"
    assert not made.exists()


def test_who_keeps_it_open_is_told_of(tmp_path: Path, held: Held) -> None:
    final = tmp_path / "frames.csv"
    final.write_text("old")
    held(10**6)
    with (
        pytest.raises(OutputError, match=r"another process \(is it open in another program, or write-protected\?\)"),
        whole_file(final, force=True) as part,
    ):
        part.write_text("new")
    assert final.read_text() == "old"
    assert list(tmp_path.iterdir()) == [final]


@pytest.mark.skipif(sys.platform == "win32", reason="a rename is refused there for a moment, too")
def test_elsewhere_a_refusal_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replacing.os, "replace", lambda *_: (_ for _ in ()).throw(PermissionError(13, "no")))
    began = time.monotonic()
    with pytest.raises(PermissionError):
        replace(tmp_path / "a", tmp_path / "b")
    assert time.monotonic() - began < replacing._PATIENCE


@pytest.mark.skipif(sys.platform != "win32", reason="only Windows refuses to rename over an open file")
def test_a_file_that_is_really_open(tmp_path: Path) -> None:
    made, final = tmp_path / "made", tmp_path / "final"
    made.write_text("new")
    final.write_text("old")
    reader = final.open()
    with pytest.raises(PermissionError):
        os.replace(made, final)  # noqa: PTH105
    threading.Timer(0.5, reader.close).start()
    replace(made, final)
    assert final.read_text() == "new"


@pytest.mark.skipif(sys.platform != "win32", reason="only Windows refuses to remove an open file")
def test_the_error_of_a_writer_that_left_its_file_open_is_told(tmp_path: Path) -> None:
    left = []

    def write() -> None:
        with whole_file(tmp_path / "a.avi") as part:
            left.append(part.open("w"))
            raise RuntimeError("first")

    with pytest.raises(RuntimeError, match="first"):
        write()
    left[0].close()
