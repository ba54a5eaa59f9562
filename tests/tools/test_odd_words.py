"""Every command, with every path, option and environment that a person or a script may give it by mistake.

What is wrong is said in one sentence without Python in it, the exit code is one of those that ``--help`` lists, nothing
is written, and nothing waits for ever. A new command is tried too: it is taken from the parser.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from miniscope_xr.tools.cli import build_parser, main
from miniscope_xr.tools.cli.runner import EXIT_CODES

from .test_words import COMMANDS, PYTHON

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform not in ("linux", "win32"), reason="names and devices of Linux and Windows"),
]
_PATIENCE = 300  # s: far more than any of these takes, so that only what hangs is ended
WINDOWS = sys.platform == "win32"
BYTES = "g\xfcnther" if WINDOWS else os.fsdecode(b"g\xfcnther")
"""A name that is no UTF-8, where names are bytes."""

CARD = "CARD"
"""Stands for the odd name in the words of a command."""
OUT = "OUT"
READS: dict[str, list[str]] = {
    "info": [CARD],
    "check": [CARD, "--deep"],
    "video": [CARD, "new.avi"],
    "export": [CARD, "new.zarr"],
    "report": [CARD, "new.html"],
    "archive": [CARD, "new.zarr", "--workers", "1"],
    "image": [CARD, "new.img"],
    "rescue": [CARD, "new.img"],
    "layouts": ["--draft", CARD],
    "view": ["--no-browser", CARD],
    "prepare": [CARD, "gain=2x"],
    "set": [CARD, "gain=2x"],
    "wipe": [CARD],
    "blank-table": [CARD],
    "backup": [CARD],
    "restore": [CARD],
    "resume": [CARD],
    "qualify": [CARD],
    "collect": [CARD, "into", "new", "--name", "{card}"],
    "align": [CARD, "new.json", "--start", "2026-03-14T15:09:26"],
}
"""Commands that are given a card."""
WRITES = {
    "video": ["card.img", OUT],
    "export": ["card.img", OUT, "--to", "tiff"],
    "report": ["card.img", OUT],
    "archive": ["card.img", OUT, "--workers", "1"],
    "image": ["card.img", OUT],
    "rescue": ["card.img", OUT],
    "simulate": [OUT, "--frames", "5"],
    "layouts": ["--draft", "card.img", "--out", OUT],
    "backup": ["card.img", "--image", "--backup-dir", OUT],
    "qualify": ["empty.img", "--image", "--layout", "v4-wirefree", "--seconds", "1", "--plot", OUT],
    "demo": [OUT],
    "collect": ["card.img", "into", OUT, "--name", "{card}"],
    "align": ["card.img", OUT, "--start", "2026-03-14T15:09:26"],
}
"""Commands that are told where to write."""
LAYOUTS = [name for name in READS if name not in ("layouts", "view")]


def test_every_command_is_tried() -> None:
    assert set(READS) | set(WRITES) | {"list", "preset"} == set(COMMANDS)


@pytest.fixture
def folder(tmp_path: Path, make_card: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with odd things in it, where the commands run; nobody answers a question."""
    work = tmp_path / "work"
    work.mkdir()
    make_card(frames=5)[0].rename(work / "card.img")
    (work / "empty.img").write_bytes(bytes(8 << 20))
    (work / "no card.img ").write_bytes(b"\x01\x02\x03" * 700_000)
    (work / "empty").write_bytes(b"")
    (work / f"{BYTES}.img").write_bytes(b"\x07" * 5000)
    (work / "-").write_bytes(b"no card")
    (work / "a folder").mkdir()
    monkeypatch.chdir(work)
    for name in ("HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    with Path(os.devnull).open(encoding="utf-8") as nothing, contextlib.ExitStack() as held:
        monkeypatch.setattr("sys.stdin", nothing)
        if not WINDOWS:
            _of_posix(held)
        yield work


def _of_posix(held: contextlib.ExitStack) -> None:
    """Things, here, that Windows knows nothing of."""
    Path("\x1b[2J\r.img").write_bytes(b"\x07" * 5000)
    Path("loop").symlink_to("loop")
    Path("nowhere").symlink_to("gone")
    os.mkfifo("pipe")
    held.enter_context(socket.socket(socket.AF_UNIX)).bind("socket")


IN = [
    "gone.img", "no card.img ", "empty", "a folder", "a folder/", "card.img/x", f"{BYTES}.img", "\x1b[2J\r.img",
    "\N{MOUSE}.img", "a" * 300, "a" * 5000, "a\0b", "", " ", "-", ".", "~nobody/x", "file:///gone.img", "file://", "://",
    "nosuch://host/x", "http://[", "http:///x", "http://127.0.0.1:1/x.img", "s3://bucket/x.img", "gs://bucket/x.img",
    "zip://a::card.img", "::", "simplecache::", "memory://x", "data:,x",
]  # fmt: skip
"""No cards, by name."""
IN += [
    "NUL", "con", "COM1", "lpt9.img", "CONIN$", "a<b>.img", "a|b", "card?.img", "c*.img", "E:", "C:\\", "C:", "\\",
    "\\\\", r"\\nosuch\share\x.img", r"\\.\E:", r"\\.\PhysicalDrive99", r"\\?\C:\gone.img", "a folder\\", "empty.",
    "x:y:z",
] if WINDOWS else [
    "loop", "nowhere", "pipe", "socket", "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/tty", "/dev/fd/0",
    "/proc/self/mem", "/proc", "/proc/self/environ",
]  # fmt: skip


@contextlib.contextmanager
def patience(words: list[str]) -> Iterator[None]:
    """End what hangs, by name; on Windows, which has no alarms, whoever runs the tests does."""
    if WINDOWS:
        yield
        return

    def enough(*_: Any) -> None:
        raise AssertionError(f"hangs: {words}")

    before = signal.signal(signal.SIGALRM, enough)
    signal.alarm(_PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


Run = Callable[..., list[str]]


@pytest.fixture
def complaints(folder: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command that is to fail; returns what is wrong with how it did."""

    def run(words: list[str], codes: tuple[int, ...] = (2, 3, 4, 5)) -> list[str]:
        with patience(words):
            try:
                code = main(words)
            except SystemExit as ended:
                code = int(ended.code or 0)
            except Exception as error:
                return [f"{words}: {error!r}"]
        out, said = capfd.readouterr()
        err = "\n".join(line for line in said.splitlines() if not line.startswith(("usage: ", " ", "Note: ")))
        quoted = err
        for word in sorted(words, key=len, reverse=True):
            quoted = quoted.replace(word, "") if len(word) > 1 else quoted
        wrong = []
        if code not in codes:
            wrong.append(f"exit code {code}")
        told = words[0] == "collect" and "of 1 card collected" in out  # its summary names what failed, card by card
        begins = (f"miniscope-xr {words[0]}: ", "miniscope-xr: error: unrecognized arguments: ")
        if code in (2, 3, 4) and not told and not err.startswith(begins):
            wrong.append("does not begin with the command")
        if code and (len(err.splitlines()) > 1 or len(err) > 900 + 2 * max(len(word) for word in words)):
            wrong.append("more than a sentence")
        if "" in words and f"{Path.cwd()} is a directory" in err:
            wrong.append("an empty name is taken for the folder one stands in")
        if found := [word for word in (*PYTHON, "Errno", "\x1b", "<class", "object at") if word in quoted]:
            wrong.append(f"{found} in it")
        return [f"{words}: {'; '.join(wrong)}: {err}"] if wrong else []

    return run


def things(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def _options(command: str) -> str:
    return build_parser()._subparsers._group_actions[0].choices[command].format_help()  # type: ignore[union-attr,index]


@pytest.mark.parametrize("command", READS)
def test_what_is_no_card(command: str, folder: Path, complaints: Run) -> None:
    before = things(folder)
    flags = ["--image"] if "--image" in _options(command) else []
    wrong = []
    for name in IN:
        words = [command, *(name if word == CARD else word for word in READS[command]), *flags]
        wrong += complaints(words)
        if left := things(folder) - before:
            wrong.append(f"{words}: left {left}")
            before |= left
    assert not wrong, "\n".join(wrong)


OUTS = [
    "card.img", "a folder", "card.img/x", "a folder/../card.img", "", " ", ".", "..", "-", "a" * 300, "a" * 5000,
    "a\0b", BYTES, "\x1b[2J", "nosuch://host/x", "http://127.0.0.1:1/x", "s3://bucket/x",
]  # fmt: skip
OUTS += [
    "NUL", "con", "COM1", "a<b>", "a|b", "card?", r"E:\x", r"\\nosuch\share\x", r"\\.\E:", r"\\.\PhysicalDrive99",
    "x:y:z",
] if WINDOWS else [
    "pipe", "socket", "loop", "nowhere", "/dev/null", "/dev/full", "/dev/fd/1", "/proc/x", "/proc/1/x", "/sys/x",
]  # fmt: skip
"""Where nothing can be written, or only by destroying something; some of them are names that a file may have."""
ENDINGS = {"align": ".csv", "video": ".avi", "export": ".tif", "report": ".html", "image": ".img", "rescue": ".img"}
NEEDED = {
    "video": "cv2",
    "export": "tifffile",
    "report": "PIL",
    "archive": "zarr",
    "demo": "cv2",
    "qualify": "matplotlib",
}


@pytest.mark.parametrize("command", WRITES)
@pytest.mark.parametrize("ending", ["no ending", "its ending"])
def test_where_nothing_can_be_written(command: str, ending: str, folder: Path, complaints: Run) -> None:
    if ending == "its ending" and command not in ENDINGS:
        pytest.skip("a folder, or any name")
    pytest.importorskip(NEEDED.get(command, "numpy"), exc_type=ImportError)
    before, held = things(folder), _contents(folder)
    force = ["--force"] if "--force" in _options(command) else []
    wrong = []
    for name in OUTS:
        out = name + ENDINGS[command] if ending == "its ending" else name
        words = [command, *(out if word == OUT else word for word in WRITES[command]), *force]
        wrong += complaints(words, tuple(EXIT_CODES))
        for kept, data in _contents(folder).items():
            if kept in held and data != held[kept]:
                named = os.path.normpath(out) == kept and (kept != "card.img" or command == "simulate")
                wrong += [] if named else [f"{words}: {kept!r} was changed"]  # --force replaces a file that is named
                (folder / kept).write_bytes(held[kept])
        new = things(folder) - before
        wrong += [f"{words}: left {thing}" for thing in new if ".part" in thing]
        for thing in sorted(new, reverse=True):  # a name that a file may have, or a backup
            path = folder / thing
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    assert not wrong, "\n".join(wrong)


def _contents(folder: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in folder.iterdir() if entry.is_file() and not entry.is_symlink()}


NUMBERS = [
    "",
    " ",
    "x",
    "-1",
    "0",
    "1.5",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "9" * 25,
    "\N{ARABIC-INDIC DIGIT THREE}",
    "0x10",
    "1_0",
]
TEXTS = ["", " ", "x", "a\0b", "\x1b[2J", BYTES, "\N{MOUSE}", "a" * 300, "nan", "../x", "="]
PATHS = [name for name in IN if name not in ("/dev/tty", "/dev/fd/0") and "://" not in name]
SLICES = [":", "::", ":::", "::0", "5:2", "-3:", "9:", f":{'9' * 25}", "0:3:-1"]
STALLS = [":", "1:", ":1", "nan:1", "1:nan", "1:-1", "1:inf"]
VIDEO, NWB = ["video", "card.img", "x.avi"], ["export", "card.img", "x.nwb"]
SIMULATE, PREPARE = ["simulate", "x.img", "--frames", "3"], ["prepare", "empty.img", "--image"]
OPTIONS: dict[str, tuple[list[str], list[str]]] = {
    **{f"video {name}": ([*VIDEO, "--quiet", name], NUMBERS) for name in ("--recording", "--until", "--fps")},
    "video --frames": ([*VIDEO, "--frames"], [*NUMBERS, *SLICES]),
    "video --codec": ([*VIDEO, "--codec"], TEXTS),
    "export --to": (["export", "card.img", "x", "--to"], TEXTS),
    **{
        f"export --{name}": ([*NWB, f"--{name}"], [*TEXTS, *NUMBERS])
        for name in ("start", "sex", "age", "species", "wavelengths")
    },
    "report --notes": (["report", "card.img", "x.html", "--notes"], TEXTS[:4]),
    "image --frames": (["image", "card.img", "x.img", "--frames"], NUMBERS),
    "archive --workers": (["archive", "gone.img", "x.zarr", "--workers"], NUMBERS),
    "simulate --stall": ([*SIMULATE, "--stall"], [*NUMBERS, *STALLS]),
    "simulate --power-loss": ([*SIMULATE, "--power-loss"], NUMBERS),
    "simulate --frames": (["simulate", "x.img", "--frames"], [n for n in NUMBERS if n != "9" * 25]),
    "simulate --seed": ([*SIMULATE, "--seed"], NUMBERS),
    "simulate --build": ([*SIMULATE, "--build"], TEXTS),
    "view --port": (["view", "gone.img", "--port"], NUMBERS),
    "qualify --seconds": (["qualify", "empty.img", "--image", "--layout", "v4-wirefree", "--seconds"], NUMBERS),
    "prepare --wipe-minutes": ([*PREPARE, "--layout", "v4-wirefree", "--wipe-minutes"], NUMBERS),
    "prepare --expect-size": ([*PREPARE, "--layout", "v4-wirefree", "--expect-size"], [*NUMBERS, *TEXTS]),
    "prepare --card": ([*PREPARE, "--layout", "v4-wirefree", "--yes", "--card"], TEXTS),
    "prepare --discard-recording": (["prepare", "card.img", "--image", "--discard-recording"], TEXTS),
    "prepare NAME=VALUE": (
        [*PREPARE, "--layout", "v4-wirefree"],
        [*TEXTS, "gain=", "=2", "gain", "gain=a\0b", "gain=nan", "led=-1", "led=1e9", f"led={'9' * 25}",
         "record_length=0", "record_length=99999h", "record_length=1:99:99", "fs=\x1b[2J", "gain=2x=3", "no such=1"],
    ),
    **{
        f"{name} --backup-dir": ([name, "card.img", "--image", "--backup-dir"], PATHS)
        for name in ("backup", "restore", "resume")
    },
    **{f"{name} --backup": ([name, "card.img", "--image", "--backup"], PATHS) for name in ("restore", "resume")},
    **{
        f"{name} --layout": ([name, *("card.img" if word == CARD else word for word in READS[name]), "--layout"], PATHS)
        for name in LAYOUTS if name in READS
    },
    "simulate --layout": ([*SIMULATE, "--layout"], PATHS),
    "layouts LAYOUT": (["layouts"], PATHS),
}  # fmt: skip
"""Options, and values that they may be given by mistake."""


@pytest.mark.parametrize("option", OPTIONS)
def test_an_odd_value(option: str, folder: Path, complaints: Run) -> None:
    words, values = OPTIONS[option]
    pytest.importorskip({"export": "pynwb"}.get(words[0], NEEDED.get(words[0], "numpy")), exc_type=ImportError)
    before, wrong = things(folder), []
    for value in values:
        # "--fps -1" would be another option; a word that stands alone is given as it is
        given = [f"{words[-1]}={value}"] if words[-1].startswith("--") and words[-1] != "--image" else [value]
        tried = [*(words[:-1] if given[0] != value else words), *given]
        wrong += complaints(tried, tuple(EXIT_CODES))
        for thing in sorted(things(folder) - before, reverse=True):
            path = folder / thing
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    assert not wrong, "\n".join(wrong)


ENVIRONMENTS = {
    "no home": {"HOME": None, "USERPROFILE": None, "APPDATA": None, "LOCALAPPDATA": None},
    "a home that is no folder": {"HOME": "/dev/null"}, "a home in /proc": {"HOME": "/proc"},
    "an empty home": {"HOME": ""}, "the C locale": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"},
    "no temporary folder": {"TMPDIR": "/proc", "TEMP": "x:y", "TMP": ""}, "no path": {"PATH": ""},
    "no terminal": {"TERM": ""},
}  # fmt: skip


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_an_odd_environment(environment: str, folder: Path, complaints: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_DATA_HOME")
    for name, value in ENVIRONMENTS[environment].items():
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    wrong = []
    for words in (
        ["info", "card.img"], ["check", "card.img"], ["list", "--all"], ["layouts"], ["resume", "card.img", "--image"],
        ["backup", "card.img", "--image"], ["restore", "card.img", "--image"],
        ["set", "card.img", "--image", "gain=2x"],
        ["prepare", "empty.img", "--image", "--layout", "v4-wirefree", "--dry-run"], ["image", "card.img", "x.img"],
        ["simulate", "y.img", "--frames", "3"],
    ):  # fmt: skip
        wrong += complaints(words, tuple(EXIT_CODES))
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("command", READS)
def test_what_may_not_be_read_or_written(command: str, folder: Path, complaints: Run) -> None:
    """As another user, for whom nothing here is open."""
    if WINDOWS or os.geteuid() != 0:
        pytest.skip("root of Linux alone becomes another user")
    pytest.importorskip(NEEDED.get(command, "numpy"), exc_type=ImportError)
    flags = ["--image"] if "--image" in _options(command) else []
    Path("secret.img").write_bytes(Path("card.img").read_bytes())
    Path("secret.img").chmod(0)
    Path("private").mkdir(mode=0o700)
    complaints([command, "gone.img", *flags])  # imports what it needs while it may
    held, wrong = _contents(folder), []
    os.seteuid(65534)
    try:
        for name in ("secret.img", "card.img", "private/x.img", "private"):
            words = [command, *(name if word == CARD else word for word in READS[command]), *flags]
            wrong += complaints(words, tuple(EXIT_CODES) if name == "card.img" else (2, 3, 4, 5))
    finally:
        os.seteuid(0)
    assert _contents(folder) == held
    assert not wrong, "\n".join(wrong)
