"""What a person reads at the shell: one sentence without Python in it, whatever is named, wherever it is printed."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from miniscope_xr.errors import at_the_shell
from miniscope_xr.tools.cli import build_parser, main
from miniscope_xr.tools.cli.runner import EXIT_CODES
from miniscope_xr.tools.simulate import blank

COMMANDS = sorted(build_parser()._subparsers._group_actions[0].choices)  # type: ignore[union-attr,arg-type]
PYTHON = ("Traceback", "Error", "errno", "None", "open_dataset", "xr.", "force=", "layout=", "errors=", "a fault of")
READING = {
    "info": [],
    "check": [],
    "video": ["out.avi"],
    "export": ["out.zarr"],
    "report": ["out.html"],
    "image": ["out.img"],
    "backup": [],
    "prepare": ["--image", "--dry-run", "--layout", "v4-wirefree"],
}


def _files(folder: Path) -> dict[str, str]:
    """Names of things that are no cards, by what is wrong with them."""
    (folder / "folder").mkdir()
    if os.name == "posix":
        (folder / "loop").symlink_to(folder / "loop")
    (folder / "empty.img").write_bytes(b"")
    (folder / "short.img").write_bytes(b"short")
    (folder / "noise.img").write_bytes(b"\x01\x02\x03" * 700_000)
    return {
        "nothing there": "gone.img",
        "a file as a folder": "noise.img/x",
        "a name too long": "a" * 300 + ".img",
        "another encoding": os.fsdecode(b"g\xfcnther.img") if os.name == "posix" else "günther.img",
        "no character of this terminal": "\N{MOUSE}.img",
        "a folder": "folder",
        "a link to itself": "loop",
        "empty": "empty.img",
        "too short": "short.img",
        "noise": "noise.img",
        "a device that is no disk": os.devnull,
        "an address without a server": "file:///nothing/here.img",
        "an unknown kind of address": "nosuch://host/card.img",
    }


@pytest.mark.slow
@pytest.mark.parametrize("command", READING)
def test_what_is_no_card_is_one_sentence(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    before = _files(tmp_path)
    there = set(tmp_path.iterdir())
    for what, name in before.items():
        code = main([command, name, *READING[command]])
        said = capsys.readouterr().err
        assert code in (2, 3, 4, 5), what
        assert said.startswith(f"miniscope-xr {command}: "), what
        assert len(said.strip().splitlines()) == 1, (what, said)
        assert not [word for word in PYTHON if word in said.replace(name, "")], (what, said)
    assert set(tmp_path.iterdir()) == there, "nothing was written"


@pytest.mark.parametrize("command", ["info", "check", "video"])
@pytest.mark.parametrize("name", ["noise.img", "empty.img", "short.img"])
def test_what_is_no_card_is_named(
    command: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    _files(tmp_path)
    main([command, name, *READING[command]])
    assert name in capsys.readouterr().err


@pytest.mark.parametrize("out", ["card.img/x.avi", "a" * 300 + ".avi", "folder", "\0.avi"])
def test_an_output_that_cannot_be_is_one_sentence(
    out: str, make_card: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_card(frames=5)[0].rename(tmp_path / "card.img")
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    assert main(["video", "card.img", out]) in (2, 5)
    said = capsys.readouterr().err
    assert len(said.strip().splitlines()) == 1
    assert not [word for word in PYTHON if word in said]


def _shell(words: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    program = f'"{sys.executable}" -m miniscope_xr {words}'
    return subprocess.run(
        ["sh", "-c", program], cwd=folder, capture_output=True, check=False, env={**os.environ, **environment}
    )


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="streams as a Linux shell gives them")
@pytest.mark.parametrize(
    ("stream", "code"), [(">/dev/full", 5), (">&-", 0), ("2>&-", 0), (">/dev/full 2>/dev/full", 5), ("| true", 0)]
)
def test_a_stream_that_takes_nothing(stream: str, code: int, make_card: Any, tmp_path: Path) -> None:
    make_card(frames=5)[0].rename(tmp_path / "card.img")
    done = _shell(f"info card.img {stream}", tmp_path)
    assert done.returncode == code
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr
    assert len(done.stderr.splitlines()) <= 1


@pytest.mark.slow
def test_a_terminal_that_lacks_the_characters(make_card: Any, tmp_path: Path) -> None:
    make_card(frames=5)[0].rename(tmp_path / "\N{MOUSE}.img")
    command = [sys.executable, "-m", "miniscope_xr", "info", "\N{MOUSE}.img"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}, stdin=-3
    )
    assert done.returncode == 0
    assert rb"\U0001f401.img: image file" in done.stdout


NAMED = "J\xfcrgens K\xe4fig \N{KATAKANA LETTER KA} \N{MOUSE}"
SAID: dict[str, tuple[list[str], int]] = {
    "info": (["info", "{}.img"], 0),
    "check": (["check", "{}.img"], 0),
    "layouts": (["layouts"], 0),
    "image": (["image", "{}.img", "{} 2.img"], 0),
    "dry run": (["prepare", "{}.img", "--image", "--dry-run", "gain=2"], 0),
    "backup": (["backup", "{}.img", "--backup-dir", "{}"], 0),
    "nothing there": (["info", "{} 3.img"], 2),
    "there already": (["image", "{}.img", "{}.img"], 2),
}


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["cp437", "cp850", "cp932", "cp1252", "cp65001"])
def test_a_console_of_an_old_code_page(
    encoding: str, make_card: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows' terminals of many countries, and files that output is sent to: what they lack is escaped."""
    make_card(frames=5)[0].rename(tmp_path / f"{NAMED}.img")
    monkeypatch.chdir(tmp_path)
    for what, (words, expected) in SAID.items():
        streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", streams[0])
            patch.setattr(sys, "stderr", streams[1])
            code = main([word.format(NAMED) for word in words])
        said = b"".join(stream.detach().getvalue() for stream in streams)  # type: ignore[attr-defined]
        assert code == expected, (what, said)
        shown = NAMED.encode(encoding, "backslashreplace")
        assert (shown in said) is (what != "layouts"), (what, said)


@pytest.mark.parametrize("words", [["preset", "list", "--json"], ["info", "{}.img", "--json"]])
def test_json_is_json_in_every_code_page(
    words: list[str], make_card: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program reads it as UTF-8; an escape of the terminal's would be no JSON."""
    make_card(frames=5)[0].rename(tmp_path / f"{NAMED}.img")
    monkeypatch.chdir(tmp_path)
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path))
    assert main(["preset", "save", NAMED, "gain=2x"]) == 0
    out = io.TextIOWrapper(io.BytesIO(), encoding="cp437")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        assert main([word.format(NAMED) for word in words]) == 0
    told = out.detach().getvalue().decode("utf-8")  # type: ignore[attr-defined]
    assert NAMED in json.dumps(json.loads(told), ensure_ascii=False)


def test_a_fault_of_ours_is_one_sentence_too(
    make_card: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = make_card(frames=5)

    def broken(*args: Any, **options: Any) -> None:
        raise KeyError("x")

    monkeypatch.setattr("miniscope_xr.tools.cli.read.check", broken)
    assert main(["check", str(path)]) == 5
    said = capsys.readouterr().err
    assert "a fault of miniscope-xr" in said
    assert "please report it" in said
    assert len(said.strip().splitlines()) == 1
    monkeypatch.setenv("MINISCOPE_XR_TRACEBACK", "1")
    main(["check", str(path)])
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("python", "shell"),
    [
        ("open it with errors='fill'", "open it with --errors fill"),
        ("force=True (--force) to overwrite", "--force to overwrite"),
        ("until=40 returns it whole", "--until 40 returns it whole"),
        ("pass recording= one of: 0", "pass --recording one of: 0"),
        ("index='scan' compares every frame", "`check --deep` compares every frame"),
        ("pass layout='v4-wirefree' or layout='x'", "pass --layout v4-wirefree or --layout x"),
        ("gain=2 led=10", "gain=2 led=10"),
        ("frames=slice(5, 2, None) selects none", "--frames 5:2 selects none"),
        ("frames=slice(None, -3, 2): expected", "--frames :-3:2: expected"),
        ("crop='nan': expected x, y", "--crop nan: expected x, y"),
        ("bin=-1: expected 1 to 16", "--bin -1: expected 1 to 16"),
        ("fps=1e+99: expected more than 0", "--fps 1e+99: expected more than 0"),
        ("fps=nan: expected; fps=-inf: expected", "--fps nan: expected; --fps -inf: expected"),
        ("crop= or another bin= makes them even", "--crop or another --bin makes them even"),
    ],
)
def test_the_library_s_words_become_the_shell_s(python: str, shell: str) -> None:
    assert at_the_shell(python) == shell


@pytest.mark.slow
def test_a_warning_is_one_line_without_a_place_in_a_program(make_card: Any, tmp_path: Path) -> None:
    """A store in which a kill left a file: zarr warns of that, as a program warns its programmer."""
    pytest.importorskip("zarr")
    card, _ = make_card(frames=5)
    words = f"archive {card} {tmp_path / 'lab.zarr'} --workers 1"
    assert _shell(words, tmp_path).returncode == 0
    (tmp_path / "lab.zarr" / ".zgroup.0123456789abcdef.partial").write_text("{")
    done = _shell(words, tmp_path)
    said = done.stderr.decode().splitlines()
    assert done.returncode == 0
    assert len(said) == 1
    assert said[0].startswith("miniscope-xr archive: note: ")
    assert ".partial" in said[0]


def test_an_option_the_command_lacks_names_those_that_have_it() -> None:
    said = at_the_shell("until=40 returns it whole", known=lambda name: False)
    assert said == "--until 40 (an option of `video` and `export`) returns it whole"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_lists_the_exit_codes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    said = capsys.readouterr().out
    for code, text in EXIT_CODES.items():
        assert f"  {code}  {text}" in said


def test_options_are_not_abbreviated(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["check", "card.img", "--dee"])
    assert ended.value.code == 2
    assert "unrecognized arguments: --dee" in capsys.readouterr().err


def _new(content: Callable[[io.BufferedWriter], Any]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with path.open("wb") as file:
            file.truncate(4_000_000)
            content(file)

    return write


CARDS = {
    "zeros": (_new(lambda file: None), "miniscope-xr prepare card.img --layout v4-wirefree --image gain=2x led=10"),
    "erased": (_new(lambda file: file.write(b"\xff" * 4_000_000)), "miniscope-xr prepare card.img"),
    "exFAT": (_new(lambda file: file.write(b"\xeb\x76\x90EXFAT   ")), "an exFAT file system"),
    "prepared": (lambda path: blank("v4-wirefree").write(path), "miniscope-xr set card.img --layout v4-wirefree"),
}


@pytest.mark.parametrize("command", ["info", "check"])
@pytest.mark.parametrize("kind", CARDS)
def test_a_card_without_a_recording_gets_the_next_command(
    kind: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make, wanted = CARDS[kind]
    make(tmp_path / "card.img")
    monkeypatch.chdir(tmp_path)
    main([command, "card.img"])
    said = capsys.readouterr()
    assert wanted in said.out + said.err
