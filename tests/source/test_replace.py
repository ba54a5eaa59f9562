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
from miniscope_xr.source.copy_map import CopyMap
from miniscope_xr.source.replace import replace, write_whole
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


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("before", [None, b"old"])
def test_a_small_file_is_there_whole_or_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, before: bytes | None
) -> None:
    """Whatever fails on the way; and nothing of it is left."""
    path = tmp_path / "a.json"
    if before is not None:
        path.write_bytes(before)
    with monkeypatch.context() as patch:
        patch.setattr(replacing.os, call, lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space left"):
            write_whole(path, b"new")
    assert [file.read_bytes() for file in tmp_path.iterdir()] == ([] if before is None else [before])
    write_whole(path, b"new")
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"new"]


def test_its_temporary_name_is_nobody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link there is not written through, what a kill left is replaced, and what another has just made stays."""
    precious = tmp_path / "precious"
    precious.write_bytes(b"mine")
    part = tmp_path / "a.json.tmp"
    part.symlink_to(precious)
    write_whole(tmp_path / "a.json", b"1")
    part.write_bytes(b"half of")
    write_whole(tmp_path / "a.json", b"2")
    assert precious.read_bytes() == b"mine"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.json", "precious"]

    def another(path: Path) -> None:
        path.write_bytes(b"theirs")  # between the look and the writing

    monkeypatch.setattr(replacing, "remove", another)
    with pytest.raises(FileExistsError):
        write_whole(tmp_path / "a.json", b"3")
    assert part.read_bytes() == b"theirs"
    assert (tmp_path / "a.json").read_bytes() == b"2"


def test_a_map_has_the_same_bytes_on_every_system(tmp_path: Path) -> None:
    """Windows' own line ends would be characters of a line to ddrescue elsewhere."""
    copy = CopyMap(1 << 20, "1048576 1022:abc", 4096, [(512, 512)])
    copy.save(tmp_path / "a.map")
    assert (tmp_path / "a.map").read_bytes() == copy.text().encode()
    assert b"\r" not in (tmp_path / "a.map").read_bytes()
    windows = copy.text().replace("\n", "\r\n")  # as one that was written there once
    (tmp_path / "b.map").write_bytes(windows.encode())
    assert CopyMap.parse((tmp_path / "b.map").read_text()) == copy
