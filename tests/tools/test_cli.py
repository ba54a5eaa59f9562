"""The command line: what it prints, its exit codes, and that every command explains itself."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from miniscope_xr.tools.cli import build_parser, main
from miniscope_xr.tools.simulate import PowerLoss, Stall, blank
from miniscope_xr.tools.stream.libraries import need

COMMANDS = sorted(build_parser()._subparsers._group_actions[0].choices)  # type: ignore[union-attr,arg-type]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"miniscope-xr {command}" in capsys.readouterr().out


def test_info_says_what_is_on_a_card(make_card: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path, _ = make_card(frames=40, settings={"gain": 2, "led": 7}, events=[Stall(500, 400)])
    assert main(["info", str(path)]) == 0
    out = capsys.readouterr().out
    assert "layout v4-wirefree" in out
    assert "gain              2 (2x)" in out
    assert "led               7 percent" in out
    assert "never reached the card" in out
    assert main(["info", str(path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["settings"]["led"] == 7
    assert said["card_id"]
    assert said["check"]["recordings"][0]["frames_lost"] > 0


def test_info_of_a_blank_card_shows_its_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = blank("v4-wirefree", settings={"record_length": 1800}).write(tmp_path / "blank.img")
    assert main(["info", str(path)]) == 0
    out = capsys.readouterr().out
    assert "blank card" in out
    assert "1800 s" in out
    assert main(["info", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["layouts"]["v4-wirefree"]["record_length"] == 1800


@pytest.mark.parametrize("command", ["info", "check"])
def test_json_of_what_is_no_card_is_json_too(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty.img"
    empty.write_bytes(bytes(1 << 20))
    assert main([command, str(empty), "--json"]) == 3
    said = capsys.readouterr()
    assert json.loads(said.out)["error"] == "NotACardError"
    assert "not a Miniscope card" in json.loads(said.out)["message"]
    assert "not a Miniscope card" in said.err


def test_check_ends_with_7_when_something_is_wrong(make_card: Any, capsys: pytest.CaptureFixture[str]) -> None:
    good, _ = make_card(frames=20)
    bad, _ = make_card(frames=20, events=[PowerLoss(buffer=60)])
    assert main(["check", str(good), "--deep"]) == 0
    assert "no problem found" in capsys.readouterr().out
    assert main(["check", str(bad), "--json"]) == 7
    assert json.loads(capsys.readouterr().out)["ok"] is False


def test_layouts_lists_settings_and_their_limits(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["layouts"]) == 0
    out = capsys.readouterr().out
    assert "also known as: wirefree-sd-layout" in out
    assert "[5, 10, 15, 20]" in out
    assert main(["layouts", "daq-wirefree", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"daq-wirefree"}


@pytest.mark.parametrize("frames", ["50", "40"])
def test_a_simulated_v3_ends_at_its_record_length(frames: str, tmp_path: Path) -> None:
    out = str(tmp_path / "card.img")
    assert main(["simulate", out, "--layout", "v3-wirefree", "--frames", frames]) == 0
    assert main(["check", out, "--deep"]) == 0


def test_settings_that_a_layout_does_not_name_are_not_called_gone(
    make_card: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = make_card(frames=20)
    draft = tmp_path / "draft.yaml"
    assert main(["layouts", "--draft", str(path), "--out", str(draft)]) == 0
    assert "no known layout fits" not in draft.read_text()
    assert main(["info", str(path), "--layout", str(draft)]) == 0
    assert "settings: this layout names none" in capsys.readouterr().out


@pytest.mark.slow
def test_simulate_writes_a_card_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "card.img"
    words = ["simulate", str(out), "--frames", "40", "--stall", "500:400", "--seed", "3"]
    assert main(words) == 0
    first = out.read_bytes()
    assert main(words) == 2
    assert "--force" in capsys.readouterr().err
    assert main([*words, "--force"]) == 0
    assert out.read_bytes() == first
    assert main(["check", str(out)]) == 7
    for wrong in (["--stall", "500"], ["--stall", "a:b"], ["--build", "x"], ["--frames", "0"], ["--layout", "v5"]):
        assert main(["simulate", str(tmp_path / "other.img"), *wrong]) in (2, 3)
    assert not (tmp_path / "other.img").exists()


@pytest.mark.parametrize("command", ["info", "check", "video", "report", "export"])
def test_a_missing_card_is_a_clear_error(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    extra = {"video": ["o.avi"], "report": ["o.html"], "export": ["o", "--to", "zarr"]}.get(command, [])
    assert main([command, str(tmp_path / "gone.img"), *extra]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"miniscope-xr {command}: ")
    assert "no file or device here" in error
    assert "Traceback" not in error


@pytest.mark.slow
def test_the_module_is_the_command(make_card: Any) -> None:
    path, _ = make_card(frames=5)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "miniscope_xr", "info", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "layout v4-wirefree" in done.stdout
    assert done.stderr == ""


@pytest.mark.slow
def test_the_demo_makes_a_card_a_video_and_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("cv2", reason="needs an importable OpenCV", exc_type=ImportError)
    pytest.importorskip("matplotlib")
    assert main(["demo", str(tmp_path / "demo")]) == 0
    out = capsys.readouterr().out
    assert "<xarray.Dataset>" in out
    assert "never reached the card" in out
    sizes = {p.name: p.stat().st_size for p in (tmp_path / "demo").iterdir()}
    assert sizes["card.avi"] > 30_000_000
    assert sizes["card.png"] > 50_000
    assert {"card.img", "card_timeStamps.csv"} <= set(sizes)


@pytest.mark.slow
def test_without_opencv_every_command_but_video_works(
    make_card: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)  # import cv2 raises ImportError
    path, _ = make_card(frames=10)
    for command in ("info", "check"):
        assert main([command, str(path)]) == 0
    assert main(["export", str(path), str(tmp_path / "out.zarr"), "--to", "zarr"]) == 0
    capsys.readouterr()
    assert main(["video", str(path), str(tmp_path / "out.avi")]) == 2
    assert 'pip install "miniscope-xr[video]"' in capsys.readouterr().err
    assert not (tmp_path / "out.avi").exists()
    assert main(["demo", str(tmp_path / "demo")]) == 0
    assert "left out: " in capsys.readouterr().out
    assert (tmp_path / "demo" / "card.png").exists()


_INTERRUPTED_IMPORT = """
import sys
from importlib.abc import MetaPathFinder
class Interrupt(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "xarray":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupt())
from miniscope_xr.tools.cli import main
main(["video", "card.img", "out.avi"])
"""


@pytest.mark.slow
def test_ctrl_c_while_it_starts_is_one_line(tmp_path):
    """The commands take a second to import; the interrupt comes in that second."""
    done = subprocess.run(
        [sys.executable, "-c", _INTERRUPTED_IMPORT],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (5, "miniscope-xr: interrupted; nothing was begun\n")
    assert not list(tmp_path.iterdir())


_CAUGHT_INTERRUPT = """
import os, signal, sys
from importlib.abc import MetaPathFinder
class Interrupt(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "xarray":
            try:
                os.kill(os.getpid(), signal.SIGINT)
                for _ in range(1000):
                    pass
            except BaseException:
                pass
sys.meta_path.insert(0, Interrupt())
from miniscope_xr.tools.cli import main
main(["layouts"])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="a process sends itself no Ctrl+C there")
def test_ctrl_c_that_a_library_would_catch_while_it_is_imported_ends_the_command(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", _CAUGHT_INTERRUPT], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (5, "", "miniscope-xr: interrupted; nothing was begun\n")


_INTERRUPTED = """
import atexit, sys
from miniscope_xr.tools.cli import main, read, program
atexit.register(print, "the interpreter was taken apart")
def interrupted(args):
    import signal
    signal.raise_signal(signal.SIGINT)
read.check_command.__code__ = interrupted.__code__
sys.argv[1:] = ["check", "card.img"]
sys.exit(main())
"""


@pytest.mark.slow
def test_nothing_is_done_any_more_after_an_interrupt_was_told(tmp_path):
    """Taking every module apart takes a second on a busy machine: a person sees a command that does not end."""
    done = subprocess.run(
        [sys.executable, "-c", _INTERRUPTED], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (5, "", "miniscope-xr check: interrupted\n")


def test_an_interrupt_that_leaves_a_command_is_not_called_a_beginning(monkeypatch):
    """Only while nothing has begun may that be said: what a command did until then, it says itself."""

    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr("miniscope_xr.tools.cli.runner.run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        main(["list"])


@pytest.mark.skipif(sys.platform == "win32", reason="a process sends itself no Ctrl+C there")
@pytest.mark.parametrize("caught", ["BaseException", "KeyboardInterrupt", "ValueError"])
def test_ctrl_c_is_not_lost_in_the_import_of_an_optional_library(caught, tmp_path, monkeypatch):
    """A library may catch everything while it looks what else is installed, and go on as if nothing had been."""
    lines = ["import os, signal", "try:", "    os.kill(os.getpid(), signal.SIGINT)", "    for _ in range(1000): pass"]
    lines += [f"except {caught}:", "    pass"]
    (tmp_path / f"catches_{caught}.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        need(f"catches_{caught}", "extra")
    assert signal.getsignal(signal.SIGINT) is before
