"""Two processes collect the same cards into the same folder at once, and cards are read once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from miniscope_xr.tools.copy import part

from .conftest import MOMENT
from .test_collect import TOLD, content, data_of

HOLD = """
import sys
from miniscope_xr.tools.cli import main
from miniscope_xr.tools.copy import part

real = part._piece
part.STEP = 256 << 10

def piece(source, copy):
    if copy.done == 512 << 10:
        print("in the middle", flush=True)
        sys.stdin.readline()
    return real(source, copy)

part._piece = piece
sys.exit(main(sys.argv[1:]))
"""


class Other:
    """Another process that collects, and stops in the middle of its first card until it is let go on."""

    def __init__(self, *words: object) -> None:
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD, *map(str, words)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, env=env,
        )  # fmt: skip
        assert self.process.stdout
        self.first = self.process.stdout.readline()

    def go_on(self) -> tuple[int, str]:
        """How it ended, and what it said."""
        said = "".join(self.process.communicate("\n" * 8, timeout=300))
        return self.process.returncode, said


@pytest.fixture
def other():
    made = []

    def start(*words: object) -> Other:
        made.append(Other(*words))
        assert "in the middle" in made[-1].first
        return made[-1]

    yield start
    for each in made:
        if each.process.poll() is None:
            each.process.kill()
            each.process.communicate()


def unlocked(folder: Path) -> dict[str, bytes]:
    """What lies in a folder, but for the lock of who is at work there: Windows lets nobody read that."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.slow
def test_the_same_card_into_the_same_folder(day, tool, tmp_path, other):
    """The second says that another is at it, and touches nothing of it; then both find all of it there."""
    (card,), into = day(1), tmp_path / "lab"
    words = ("collect", card, "into", into, *TOLD)
    first = other(*words)
    before = unlocked(into)
    assert [name for name in before if name.endswith(".part")]
    second = tool(*words)
    assert second.code == 4
    assert "another command is at work" in second.out
    assert unlocked(into) == before
    code, said = first.go_on()
    assert code == 0, said
    whole = content(into)
    assert not [name for name in whole if name.endswith((".part", ".lock", ".tmp"))]
    (copy,) = into.rglob("*.img")
    assert data_of(card, copy)
    assert tool(*words).code == 0
    assert content(into) == whole


@pytest.mark.slow
def test_one_that_was_killed_keeps_no_lock(day, tool, tmp_path, other):
    (card,), into = day(1), tmp_path / "lab"
    words = ("collect", card, "into", into, *TOLD)
    first = other(*words)
    first.process.kill()
    first.process.communicate()
    assert bool(list(into.rglob(".*.lock"))) == (os.name == "posix"), "Windows takes it away with its process"
    assert tool(*words).code == 0
    assert not list(into.rglob(".*.lock"))
    assert data_of(card, next(into.rglob("*.img")))


@pytest.mark.slow
def test_two_processes_share_the_cards_of_a_day(day, tool, tmp_path, other):
    """Each does what the other is not at; what both were to do is there once, and one more run has nothing to do."""
    cards, into = day(3), tmp_path / "lab"
    words = ("collect", *cards, "into", into, "--session", "s1", "--date", MOMENT, "--name", "{session}/{card}")
    first = other(*words, "--at-once", "1")
    second = tool(*words, "--json")
    assert second.code == 4
    states = Counter(card["state"] for card in json.loads(second.out)["cards"])
    assert states == {"done": 2, "failed": 1}
    code, said = first.go_on()
    assert code == 0, said
    last = tool(*words, "--json")
    assert last.code == 0
    assert [card["did"] for card in json.loads(last.out)["cards"]] == [[], [], []]
    assert len(list(into.rglob("*.img"))) == 3


class Reads:
    """What the system is asked for, by the path of the file: bytes, and how often each sector."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bytes: Counter[str] = Counter()
        self.sectors: dict[str, Counter[int]] = {}
        pread, preadv = os.pread, os.preadv

        def counted(fd: int, offset: int, got: int) -> None:
            name = str(Path(f"/proc/self/fd/{fd}").readlink())
            self.bytes[name] += got
            self.sectors.setdefault(name, Counter()).update(range(offset // 512, (offset + got) // 512))

        def one(fd, length, offset):
            data = pread(fd, length, offset)
            counted(fd, offset, len(data))
            return data

        def many(fd, buffers, offset, *flags):
            got = preadv(fd, buffers, offset, *flags)
            counted(fd, offset, got)
            return got

        monkeypatch.setattr(os, "pread", one)
        monkeypatch.setattr(os, "preadv", many)

    def clear(self) -> None:
        self.bytes.clear()
        self.sectors.clear()


counts = pytest.mark.skipif(sys.platform != "linux", reason="tells files by /proc")


@counts
@pytest.mark.slow
def test_no_card_is_read_twice(day, tool, tmp_path, monkeypatch):
    """The pixels come from the card once; check, report and exports read the copy; a second run looks at the front."""
    pytest.importorskip("tifffile")
    pytest.importorskip("PIL")
    (card,), into = day(1, frames=400), tmp_path / "lab"
    reads = Reads(monkeypatch)
    words = ("collect", card, "into", into, *TOLD, "--report", "--export", "tiff", "--deep")
    assert tool(*words).code == 0
    copy = next(into.rglob("*.img"))
    size = copy.stat().st_size
    # the front, and the look for where recordings end: a window of a header in each MiB
    assert size <= reads.bytes[str(card)] < 1.25 * size
    twice = [sector for sector, times in reads.sectors[str(card)].items() if times > 1]
    assert len(twice) < 0.2 * size / 512
    reads.clear()
    assert tool(*words).code == 0
    assert reads.bytes[str(card)] < 0.02 * size
    assert reads.bytes[str(copy)] == 0


@counts
@pytest.mark.slow
def test_what_was_copied_before_a_stop_is_not_read_again(day, tool, tmp_path, monkeypatch):
    (card,), into = day(1, frames=400), tmp_path / "lab"
    words = ("collect", card, "into", into, *TOLD)
    monkeypatch.setattr(part, "STEP", 256 << 10)
    real = part._piece

    def piece(source, copy):
        if copy.done >= copy.end // 2:
            raise OSError(5, "the disk of the copy failed")
        return real(source, copy)

    with monkeypatch.context() as patch:
        patch.setattr(part, "_piece", piece)
        assert tool(*words).code == 5
    half = next(into.rglob("*.part")).stat().st_size
    reads = Reads(monkeypatch)
    assert tool(*words).code == 0
    size = next(into.rglob("*.img")).stat().st_size
    assert size - half <= reads.bytes[str(card)] < size - half + 0.25 * size
