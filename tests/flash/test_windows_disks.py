r"""Raw disks of Windows, ``\\.\PhysicalDriveN``: a card's life, and what Windows refuses.

Runs in the Windows Python that ``tests/windows/run.py`` builds. Below that Python, in place of kernel32's calls, are
simulated readers (``tests/windows/disks.c``): they refuse what Microsoft documents that Windows refuses. Everything
above, this package's ctypes calls and the C runtime included, is what runs on Windows.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import xarray as xr

from miniscope_xr.errors import CardReadError
from miniscope_xr.source.local import Device
from miniscope_xr.tools.cli import hardware, main
from miniscope_xr.tools.flash import jobs, journal, operation
from miniscope_xr.tools.flash.disks.find import identify
from miniscope_xr.tools.flash.errors import BUSY, BusyError, CardWriteError
from miniscope_xr.tools.flash.target.open import open_target
from miniscope_xr.tools.flash.target.other import RawTarget
from miniscope_xr.tools.flash.target.volumes import LOCK, Claim, VolumeLocks, WindowsCalls

from . import life
from .cli import Tool, card_id
from .test_commands import DATA, settings

STATE, LOOP = os.environ.get("MINISCOPE_XR_DISKS"), os.environ.get("MINISCOPE_XR_LOOP")
pytestmark = [
    pytest.mark.skipif(sys.platform != "win32", reason="disks of Windows: run by tests/windows/run.py"),
    pytest.mark.skipif(not STATE, reason="needs the simulated readers of tests/windows/run.py"),
]
DRIVE = r"\\.\PhysicalDrive2"
NAME = "Kärtchenleser für Ü"


class Computer:
    """The simulated readers; each change is seen by the next call of Windows."""

    def __init__(self) -> None:
        self.disks: dict[int, list[str]] = {}
        self.volumes: dict[str, list[list[str]]] = {}

    def disk(self, number: int, file: Path | str, words: str = "here", bus: str = "USB", serial: str = "0001") -> str:
        self.disks[number] = [str(file), words, bus, "Removable Media", NAME, serial]
        self.save()
        return rf"\\.\PhysicalDrive{number}"

    def volume(
        self, name: str, disk: int, first: int, size: int, letter: str = "E", words: str = "mounted",
        also: Sequence[tuple[int, int, int]] = (),
    ) -> None:  # fmt: skip
        """A volume that lies there, and ``also`` on more stretches of this disk or others."""
        stretches = [(disk, first, size), *also]
        self.volumes[f"Volume{{{name}}}"] = [[*map(str, each), letter, words] for each in stretches]
        self.save()

    def save(self) -> None:
        lines = [["disk", str(number), *fields] for number, fields in self.disks.items()]
        lines += [["volume", name, *fields] for name, stretches in self.volumes.items() for fields in stretches]
        new = Path(f"{STATE}.new")
        new.write_bytes("".join("\t".join(line) + "\n" for line in lines).encode())
        new.replace(STATE)

    def say(self, number: int, words: str) -> None:
        """Change what is said of a disk: ``here``, ``empty``, ``protected``, ``denied``; nothing: it is pulled."""
        self.disks[number][1] = words
        self.save()


@pytest.fixture
def computer():
    made = Computer()
    made.volume("c", 0, 1 << 20, 1 << 30, letter="C", words="mounted open")  # Windows' own disk
    yield made
    Path(STATE).write_bytes(b"")


@pytest.fixture
def image(tmp_path):
    return life.recorded(tmp_path / "card.img")


@pytest.fixture
def drive(computer, image):
    """A card as Windows shows most: no partition, one volume with a letter over all of it."""
    computer.volume("e", 2, 0, life.SIZE)
    return computer.disk(2, image)


@pytest.fixture
def tool(capsys, tmp_path):
    return Tool(capsys, tmp_path / "backups")


@pytest.mark.parametrize(
    "volumes", ["a letter", *(pytest.param(each, marks=pytest.mark.slow) for each in ("RAW", "two partitions", "none"))]
)
def test_a_whole_life(computer, image, tool, tmp_path, monkeypatch, volumes):
    drive = computer.disk(2, image)
    if volumes == "a letter":
        computer.volume("e", 2, 0, life.SIZE)
    elif volumes == "RAW":
        computer.volume("e", 2, 0, life.SIZE, words="raw")
    elif volumes == "two partitions":
        computer.volume("e", 2, 64 << 10, 4 << 20)
        computer.volume("f", 2, 8 << 20, 4 << 20, letter="-")
    life.whole_life(tool, drive, image, tmp_path, monkeypatch)


def test_a_whole_life_over_a_loop_device(computer, tool, tmp_path, monkeypatch):
    """The disk is a block device of Linux below Wine, not a file."""
    if not LOOP:
        pytest.skip("needs a loop device of Linux, which root attaches")
    drive = computer.disk(2, life.recorded(Path(LOOP)), f"here bytes={life.SIZE}")
    computer.volume("e", 2, 0, life.SIZE)
    life.whole_life(tool, drive, Path(LOOP), tmp_path, monkeypatch)
    life.is_finished_after_a_kill(tool, drive, Path(LOOP))


def test_resume_after_a_kill(drive, image, tool):
    life.is_finished_after_a_kill(tool, drive, image)


SPELLINGS = [r"\\?\PhysicalDrive2", "//./physicaldrive2", "PhysicalDrive2", "\\\\.\\PHYSICALDRIVE02\\", DRIVE + ". "]


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling(drive, tool, image, name):
    assert tool("set", name, "gain=2").code == 0
    assert settings(image)["gain"] == 2
    with xr.open_dataset(name, engine="miniscope") as ds:
        assert ds.sizes["frame"] == life.FRAMES
    assert main(["info", name]) == 0


@pytest.fixture
def opened(drive):
    """The disk as the C runtime opens it."""
    fd = os.open(drive, os.O_RDWR | os.O_BINARY)
    yield fd
    os.close(fd)


# The rules that the life above was lived under: refused by the simulated Windows, as by the real one.
UNALIGNED = {
    "read": lambda fd: os.read(fd, 100),
    "read at": lambda fd: (os.lseek(fd, 100, os.SEEK_SET), os.read(fd, 512)),
    "write": lambda fd: os.write(fd, bytes(100)),
    "write at": lambda fd: (os.lseek(fd, 100, os.SEEK_SET), os.write(fd, bytes(512))),
    "behind the end": lambda fd: (os.lseek(fd, life.SIZE, os.SEEK_SET), os.read(fd, 512)),
    "its facts": os.fstat,
    "its end": lambda fd: os.lseek(fd, 0, os.SEEK_END),
}


@pytest.mark.parametrize("what", UNALIGNED)
def test_unaligned_access_is_refused(opened, what):
    assert len(os.read(opened, 512)) == 512
    os.lseek(opened, 0, os.SEEK_SET)
    with pytest.raises(OSError):  # noqa: PT011 - the C runtime makes one of many
        UNALIGNED[what](opened)


def test_bytes_at_any_place_are_read_in_whole_sectors(drive, image):
    with Device(drive) as device:
        assert device.read(100, 1000) == image.read_bytes()[100:1100]
        assert device.read(life.SIZE - 3, 100) == image.read_bytes()[-3:]
        assert device.salvage(511, 2) == (image.read_bytes()[511:513], [])


def test_a_mounted_volume_keeps_its_sectors(computer, opened, drive, image):
    """Nothing is written into it, until it is locked and let go; then also its last sector."""
    before = image.read_bytes()
    os.lseek(opened, DATA, os.SEEK_SET)
    with pytest.raises(OSError):  # noqa: PT011 - "bad file descriptor" to the C runtime
        os.write(opened, b"x" * 512)
    assert image.read_bytes() == before
    with open_target(identify(drive), write=True) as target:
        target.write(DATA, b"x" * 512)
        target.write(life.SIZE - 512, b"y" * 512)
    assert image.read_bytes()[DATA : DATA + 512] == b"x" * 512
    os.lseek(opened, DATA, os.SEEK_SET)
    with pytest.raises(OSError):  # noqa: PT011 - "bad file descriptor" to the C runtime
        os.write(opened, b"x" * 512)  # the locks were given back


def test_the_old_code_page(computer, drive, tool):
    """A name with letters that PowerShell writes as bytes of code page 850."""
    assert identify(drive).model == NAME
    assert NAME in tool.raw("list").out
    asked = subprocess.run(["powershell", "-Command", "Get-Disk -Number 2"], capture_output=True, stdin=-3).stdout
    assert NAME.encode("cp850") in asked, "without being asked for UTF-8 it is none"


def test_powershell_is_windows_own(drive, tmp_path, monkeypatch):
    """Not one that lies in the folder a user happens to be in, or beside Python."""
    (tmp_path / "powershell.exe").write_bytes(b"none")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    assert identify(drive).model == NAME


def test_a_drive_whose_words_are_another_languages(computer, drive):
    for media, removable in (("Wechselmedien", True), ("External hard disk media", False)):
        computer.disks[2][3] = media
        computer.save()
        assert identify(drive).removable == removable


@pytest.mark.parametrize("name", ["E:", "e:\\", r"\\.\E:", r"\\?\Volume{e}"])
def test_a_letter_or_volume_names_its_disk(drive, name, capsys):
    for words in (["info", name], ["set", name, "gain=2"]):
        assert main(words) == 3
        said = capsys.readouterr().err
        assert f"a card is the whole disk: {DRIVE}" in said
        assert said.count("\n") == 1


def test_what_is_read_is_not_written_over(computer, drive, image, tmp_path, tool, capsys):
    """Somebody formatted the card, and saves what comes back from it under its letter."""
    computer.volumes.clear()
    computer.volume("mine", 2, 0, life.SIZE, letter=tmp_path.drive[0])
    before = image.read_bytes()
    for words in (["image"], ["rescue"], ["video", "--codec", "GREY"]):
        assert main([words[0], drive, str(tmp_path / "mine" / "a.avi"), *words[1:]]) != 0
        assert "lies on the card itself" in capsys.readouterr().err
    result = tool.raw("backup", drive, "--backup-dir", tmp_path / "mine")
    assert "the backup folder lies on the card itself" in result.err
    assert image.read_bytes() == before
    assert not (tmp_path / "mine").exists()
    computer.volume("mine", 3, 0, life.SIZE, letter=tmp_path.drive[0])
    assert tool.raw("image", drive, tmp_path / "a.img").code == 0


def test_a_card_without_partitions(computer, image, tool):
    """What this tool makes: nothing of it is a partition, and PowerShell ends with an error."""
    drive = computer.disk(2, image)
    asked = subprocess.run(["powershell", "-Command", "Get-Partition -DiskNumber 2"], capture_output=True, stdin=-3)
    assert (asked.returncode, asked.stdout) == (1, b"")
    assert identify(drive).partitions == ()
    assert tool("set", drive, "gain=2").code == 0


@pytest.mark.parametrize("words", ["mounted", "raw"])
def test_a_letter_alone_does_not_refuse(computer, image, tool, words):
    drive = computer.disk(2, image)
    computer.volume("e", 2, 64 << 10, 4 << 20, letter="E", words=words)
    assert identify(drive).partitions == (drive + " partition 1 (E:)",)
    assert drive in tool.raw("list").out
    assert tool("set", drive, "gain=2").code == 0


@pytest.mark.parametrize("verb", ["set", "wipe", "prepare", "blank-table"])
def test_a_volume_in_use(computer, drive, tool, image, verb):
    assert tool.raw("backup", drive, "--backup-dir", tool.backups).code == 0
    computer.volume("e", 2, 0, life.SIZE, words="mounted open")
    before = image.read_bytes()
    words = {"set": ["gain=2"], "prepare": ["record_length=1"]}.get(verb, [])
    discard = ["--discard-recording", card_id(drive)] if verb in ("wipe", "prepare") else []
    result = tool(verb, drive, *words, *discard)
    assert result.code == BUSY, result.err
    assert "a volume on it is in use; close the files and windows that show it" in result.err
    assert "`mountvol E: /p`" in result.err
    assert image.read_bytes() == before


def test_locks_are_given_back(drive, tool, image):
    """Of a second command nothing stands in the way, and while one writes another may not."""
    with open_target(identify(drive), write=True):
        with pytest.raises(BusyError, match="another copy of this tool"), open_target(identify(drive), write=True):
            pass
        code = (
            "import sys; from miniscope_xr.tools.flash.disks.find import identify\n"
            "from miniscope_xr.tools.flash.target.open import open_target\n"
            "try:\n with open_target(identify(sys.argv[1]), write=True): print('opened')\n"
            "except OSError as e: print(type(e).__name__)\n"
        )
        done = subprocess.run([sys.executable, "-c", code, drive], capture_output=True, text=True, stdin=-3)
        assert done.stdout.strip() == "BusyError", done.stderr
    assert tool("set", drive, "gain=2").code == 0


def test_a_volume_that_is_open_for_a_moment(computer, drive, tool, image):
    """A virus scanner, the search and the Explorer look at a card when it is put in: they are waited for."""
    computer.volume("e", 2, 0, life.SIZE, words="mounted open")
    seen = identify(drive)
    later = threading.Timer(0.7, computer.volume, ("e", 2, 0, life.SIZE))
    later.start()
    with open_target(seen, write=True) as target:
        later.join()
        target.write(DATA, b"x" * 512)
    assert image.read_bytes()[DATA : DATA + 512] == b"x" * 512


@pytest.mark.parametrize("words", ["mounted", "mounted open"])
def test_a_volume_mounted_after_the_look(computer, image, tool, monkeypatch, words):
    """Windows finds a second volume when the others are locked: it is locked, too, or nothing more is written."""
    drive = computer.disk(2, image)
    computer.volume("e", 2, 64 << 10, 4 << 20)
    before, opened = image.read_bytes(), RawTarget._open

    def mounts(self, write):
        fd = opened(self, write)
        if write:
            computer.volume("f", 2, 0, life.SIZE, letter="F", words=words)
        return fd

    with monkeypatch.context() as patch:
        patch.setattr(RawTarget, "_open", mounts)
        result = tool("set", drive, "gain=2")
    if words == "mounted":
        assert result.code == 0, result.err
        assert settings(image)["gain"] == 2
    else:
        assert result.code == 5, result.err
        assert "a volume on it is in use" in result.err
        assert "The card was not changed" in result.err
        assert image.read_bytes() == before


def held(locks) -> list[str]:
    """The names of the volumes that are locked."""
    return sorted(name.partition("{")[2].strip("}") for name in locks._held)


def test_every_volume_of_a_disk(computer, image, tool):
    """Also those without a letter and shown in a folder; of another disk none. One in use gives the others back."""
    drive = computer.disk(2, image)
    computer.volume("one", 2, 64 << 10, 1 << 20)
    computer.volume("two", 2, 2 << 20, 1 << 20, letter="-")
    computer.volume("three", 2, 4 << 20, 1 << 20, letter="C:\\my cards\\three\\", words="raw")
    computer.volume("other", 3, 64 << 10, 1 << 20)
    locks = VolumeLocks(2)
    assert held(locks) == ["one", "three", "two"]
    locks.close()
    before = image.read_bytes()
    computer.volume("three", 2, 4 << 20, 1 << 20, letter="C:\\my cards\\three\\", words="mounted open")
    result = tool("set", drive, "gain=2")
    assert result.code == BUSY
    assert r'(or take its place away: `mountvol "C:\my cards\three" /p`)' in result.err
    assert image.read_bytes() == before
    computer.volume("three", 2, 4 << 20, 1 << 20, letter="-", words="raw")
    assert tool("set", drive, "gain=2").code == 0, "the locks of the others were given back"


@pytest.mark.parametrize("stretches", [2, 65, 100])
def test_a_volume_that_spans_disks(computer, image, tool, stretches):
    """Windows tells where it lies stretch by stretch, and of too little room for them that there are more."""
    drive = computer.disk(2, image)
    elsewhere = [(4 + i // 8, i << 20, 1 << 20) for i in range(stretches - 1)]
    computer.volume("spans", *elsewhere[0], also=[*elsewhere[1:], (2, 0, life.SIZE)], words="mounted open")
    assert tool("set", drive, "gain=2").code == BUSY
    computer.volume("spans", *elsewhere[0], also=[*elsewhere[1:], (2, 0, life.SIZE)])
    calls = WindowsCalls()
    handle = calls.open(r"\\?\Volume{spans}", False)
    assert calls.disks(handle) == [*(disk for disk, _, _ in elsewhere), 2]
    calls.close(handle)
    assert tool("set", drive, "gain=2").code == 0
    assert settings(image)["gain"] == 2


def test_a_volume_that_windows_does_not_let_go_of(computer, image, tool):
    """Locked and not dismounted, its file system would write what it holds in memory over what we wrote."""
    drive = computer.disk(2, image)
    computer.volume("e", 2, 0, life.SIZE, words="mounted stays")
    before = image.read_bytes()
    result = tool("set", drive, "gain=2")
    assert result.code == BUSY
    assert "a volume on it is in use" in result.err
    assert "The card was not changed" in result.err or image.read_bytes() == before
    assert image.read_bytes() == before
    computer.volume("e", 2, 0, life.SIZE)
    assert tool("set", drive, "gain=2").code == 0, "its lock was given back"


def test_a_volume_is_not_locked_while_another_handle_uses_it(drive):
    calls = WindowsCalls()
    asks, uses = (calls.open(r"\\?\Volume{e}", write) for write in (False, True))
    locks = calls.open(r"\\?\Volume{e}", True)
    try:
        with pytest.raises(OSError):  # noqa: PT011 - in the user's language
            calls.control(locks, LOCK)
        calls.close(uses)
        calls.control(locks, LOCK)
    finally:
        calls.close(asks)
        calls.close(locks)


def test_a_disk_without_a_cache(computer, drive, image, tool):
    """Its driver knows no flush, which Microsoft leaves it free to: nothing is kept back that could be written out."""
    computer.say(2, "here nocache")
    assert tool("set", drive, "gain=2").code == 0
    assert settings(image)["gain"] == 2


def test_a_volume_that_bitlocker_locked(computer, image, tool):
    """What is on it is somebody's: its name is told, and nothing is written, whatever Windows says to a lock."""
    drive = computer.disk(2, image)
    with open(image, "r+b") as file:
        file.seek(3)
        file.write(b"-FVE-FS-")
    computer.volume("e", 2, 0, life.SIZE, words="bitlocker")
    before = image.read_bytes()
    for words in (["set", drive, "gain=2"], ["blank-table", drive]):
        result = tool(*words)
        assert result.code in (3, BUSY), result.err
        assert image.read_bytes() == before
    with pytest.raises(BusyError, match="or Windows does not let go of it"), open_target(identify(drive), write=True):
        pass
    assert "a BitLocker volume" in tool("set", drive, "gain=2").err


def test_a_switch_that_shows_only_when_written(computer, drive, image, tool):
    """Readers do not tell of every lock switch; the command says that nothing was changed."""
    before = image.read_bytes()
    computer.say(2, "here switch")
    assert not identify(drive).read_only
    result = tool("set", drive, "gain=2")
    assert result.code == 5, result.err
    assert re.search("(?i)write.protect", result.err)
    assert "The card was not changed" in result.err
    assert image.read_bytes() == before
    computer.say(2, "here")
    assert tool("set", drive, "gain=2").code == 0


FAILURES = {"pulled": "", "changed": "here changed", "empty": "here empty", "not flushed": "here noflush"}


@pytest.mark.parametrize("how", FAILURES)
@pytest.mark.parametrize("write", [1, 4, pytest.param(20, marks=pytest.mark.slow)])
def test_a_reader_that_fails_in_the_middle(computer, drive, image, tool, monkeypatch, how, write):
    """Before any of the writes: the command says so, `resume` finishes what was begun."""
    done, real, before, name = [], RawTarget.write, image.read_bytes(), card_id(drive)
    monkeypatch.setattr(operation, "STEP", 64 << 10)

    def fails(self, offset, data):
        done.append(offset)
        if len(done) == write:
            computer.say(2, FAILURES[how])
        real(self, offset, data)

    with monkeypatch.context() as patch:
        patch.setattr(RawTarget, "write", fails)
        result = tool("prepare", drive, "gain=4", "record_length=1", "--discard-recording", name)
    assert len(done) >= write
    assert result.code == 6, result.err
    assert "`resume`" in result.err
    assert "cannot be flushed" in result.err if how == "not flushed" else "cannot be written" in result.err
    if how != "not flushed":  # else it may have been put back
        assert (image.read_bytes() != before) == (write > 1)
    computer.say(2, "here")
    assert tool("resume", drive).code == 0
    assert settings(image)["gain"] == 4


@pytest.mark.parametrize("how", ["pulled", "changed", "empty"])
def test_a_reader_that_fails_at_the_first_write(computer, drive, image, tool, monkeypatch, how):
    before, real = image.read_bytes(), RawTarget.write

    def fails(self, offset, data):
        computer.say(2, FAILURES[how])
        real(self, offset, data)

    with monkeypatch.context() as patch:
        patch.setattr(RawTarget, "write", fails)
        result = tool("set", drive, "gain=4")
    assert result.code in (5, 6), result.err
    assert image.read_bytes() == before
    computer.say(2, "here")
    if result.code == 6:  # whether something of it arrived nobody can say of a card that is gone
        assert tool("resume", drive).code == 0
    assert tool("set", drive, "gain=4").code == 0


def test_a_disk_of_larger_sectors(computer, drive, image, tool):
    """A copy on a large disk of 4096 bytes a sector is read; a Miniscope takes no such card."""
    computer.say(2, "here sector=4096")
    with pytest.raises(OSError), open(drive, "rb", buffering=0) as raw:  # noqa: PT011 - the C runtime makes one of many
        raw.read(512)
    with Device(drive) as device:
        assert device.read(100, 1000) == image.read_bytes()[100:1100]
        assert device.read(life.SIZE - 3, 100) == image.read_bytes()[-3:]
        assert device.salvage(511, 2) == (image.read_bytes()[511:513], [])
    with xr.open_dataset(drive, engine="miniscope") as ds:
        assert ds.sizes["frame"] == life.FRAMES
    result = tool("set", drive, "gain=2")
    assert result.code == 3
    assert "sectors of 4096 bytes" in result.err


def test_an_error_of_an_earlier_call_is_not_ours(drive):
    """Of a new mutex Windows need not say that all is well: what was said before it is forgotten."""
    ctypes.set_last_error(183)  # ERROR_ALREADY_EXISTS
    Claim(2).close()
    with open_target(identify(drive), write=True):
        pass


@pytest.fixture
def two(computer, drive, image, tmp_path):
    """A second card of the same size, in a second reader of the same name."""
    other = life.recorded(tmp_path / "other.img")
    with open(other, "r+b") as file:
        file.seek(DATA + 512)
        file.write(b"another")
    computer.disk(3, other)
    return other


@pytest.mark.parametrize("when", ["shown", "identified"])
def test_a_number_that_is_another_card_now(computer, drive, image, two, tool, monkeypatch, when):
    """Between the question and the first write; and between the last look at its name and that."""
    before = image.read_bytes(), two.read_bytes()
    name, real, done = card_id(drive), jobs.identify, []

    def swaps(*words):
        """Describe the card; both readers were pulled and put in again before that, or after."""
        found = real(*words) if when == "identified" else None
        computer.disks[2], computer.disks[3] = computer.disks[3], computer.disks[2]
        computer.save()
        done.append(words)
        return found or real(*words)

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "identify", swaps)
        words = ["wipe", drive, "--discard-recording", name, "--card", name, "--yes", "--backup-dir", tool.backups]
        result = tool.raw(*words)
    assert len(done) == 1
    assert result.code == 3, result.err
    assert ("another card than the one shown" if when == "shown" else "changed since it was shown") in result.err
    assert (image.read_bytes(), two.read_bytes()) == before


def test_another_card_between_two_writes(computer, drive, image, two, tool, monkeypatch):
    """Pulled, and another put into the same reader: what is on that one stays."""
    name, other, write = card_id(drive), two.read_bytes(), RawTarget.write
    monkeypatch.setattr(operation, "STEP", 64 << 10)

    def swaps(self, offset, data):
        write(self, offset, data)
        if offset >= DATA:
            image.write_bytes(other)  # what the reader's number leads to
            computer.say(2, "here changes=1")

    with monkeypatch.context() as patch:
        patch.setattr(RawTarget, "write", swaps)
        result = tool("wipe", drive, "--discard-recording", name)
    assert result.code == 6, result.err
    assert "the card was changed or resized meanwhile; nothing more is written" in result.err
    assert image.read_bytes() == other


def test_a_lock_switch_that_shows_only_when_written(computer, drive, image):
    before = image.read_bytes()
    computer.say(2, "here protected")
    seen = replace(identify(drive), read_only=False)
    with open_target(seen, write=True) as target, pytest.raises(CardWriteError, match=r"(?i)write.protect"):
        target.write(0, bytes(512))
    assert image.read_bytes() == before


def test_two_readers_of_one_name(computer, drive, image, tool, tmp_path):
    """Two readers of one maker tell nothing apart: the cards do."""
    other = life.recorded(tmp_path / "other.img")
    with open(other, "r+b") as file:
        file.seek(DATA + 100 * 512)
        file.write(b"another recording")
    with open(other, "r+b") as file:
        file.seek(DATA + 512)
        file.write(b"another")
    second = computer.disk(3, other)
    rows = tool.raw("list", "--json").json["devices"]
    assert [row["model"] for row in rows] == [NAME, NAME]
    assert len({row["card_id"] for row in rows}) == 2
    words = ["--image", "--yes", "--backup-dir", str(tool.backups)]
    assert tool.raw("set", second, "gain=2", *words, "--card", card_id(drive)).code == 3
    assert tool.raw("set", second, "gain=2", *words, "--card", card_id(second)).code == 0
    assert (settings(image)["gain"], settings(other)["gain"]) == (1, 2)


def test_an_empty_reader(computer, tool, image):
    empty = computer.disk(2, image, "here empty")
    assert "no card found" in tool.raw("list").out
    assert "no card" in tool.raw("list", "--all").out
    for verb, words in (("set", ["gain=2"]), ("wipe", []), ("backup", [])):
        result = tool.raw(verb, empty, *words, "--backup-dir", tool.backups)
        assert result.code in (2, 3), result.err
    with pytest.raises(OSError, match=r"(?i)ready") as caught:
        xr.open_dataset(empty, engine="miniscope")
    assert "administrator" not in str(caught.value)


def test_a_disk_pulled_while_it_is_written(computer, drive, image, tool, monkeypatch):
    original = journal.Journal.write

    def pull(self, phase):
        original(self, phase)
        if phase == "settings":
            computer.say(2, "")

    before, name = image.read_bytes(), card_id(drive)
    with monkeypatch.context() as patch:
        patch.setattr(journal.Journal, "write", pull)
        result = tool("prepare", drive, "gain=4", "record_length=1", "--discard-recording", name)
    assert result.code == 6, result.err
    assert "The card was changed: `resume` finishes it" in result.err
    assert image.read_bytes() != before
    assert "no card found" in tool.raw("list").out
    computer.say(2, "here")
    assert tool("resume", drive).code == 0
    assert settings(image)["gain"] == 4


def test_another_card_of_the_same_size_while_it_is_written(computer, drive):
    with open_target(identify(drive), write=True) as target:
        target.same()
        computer.say(2, "here changes=1")
        with pytest.raises(CardWriteError, match="changed or resized meanwhile; nothing more is written"):
            target.same()


def test_a_disk_pulled_while_it_is_read(computer, drive):
    with xr.open_dataset(drive, engine="miniscope") as ds:
        computer.say(2, "")
        with pytest.raises(CardReadError, match="cannot be read"):
            ds.video[3].load()


def test_write_protection_and_rights(computer, drive, image, tool):
    before = image.read_bytes()
    computer.say(2, "here protected")
    assert "read-only" in tool("set", drive, "gain=2").err
    with open_target(identify(drive), write=True) as target, pytest.raises(CardWriteError, match=r"(?i)write.protect"):
        target.write(DATA, bytes(512))
    computer.say(2, "here denied")
    result = tool.raw("set", drive, "gain=2", "--backup-dir", tool.backups, "--card", "x", "--yes")
    assert result.code in (2, 3)
    assert "Run as administrator" in tool.raw("list").out
    assert main(["info", drive]) != 0
    assert image.read_bytes() == before


@pytest.mark.slow
def test_who_is_no_administrator_does_everything_with_an_image(computer, image, tool, tmp_path, monkeypatch):
    computer.disk(2, image, "here denied")
    life.life_of_an_image(tool, tmp_path / "mine" / "Käfig 3.img", tmp_path, monkeypatch)


def test_windows_own_disk_is_never_a_card(computer, image, tool):
    own = computer.disk(0, image, "here system", bus="SATA")
    assert "no card found" in tool.raw("list").out
    assert tool.raw("set", own, "gain=2").code == 3


def test_the_checklist_for_hardware(drive, tmp_path):
    life.is_worked_through(hardware, drive, tmp_path / "report.md")


def test_an_image_has_one_writer(tmp_path, tool):
    """Also against another process, and readers are not kept out."""
    image = life.recorded(tmp_path / "my card.img")
    with open_target(identify(str(image)), write=True):
        with pytest.raises(BusyError, match="another copy of this tool"), open_target(identify(str(image)), write=True):
            pass
        assert main(["info", str(image)]) == 0
        assert tool("set", image, "gain=2").code == BUSY
    assert tool("set", image, "gain=2").code == 0


@pytest.mark.parametrize("name", ["CON", "NUL", "COM1", "aux.img", "a<b>.img", "a|b", "E:", "card?.img", "\\\\.\\E:"])
@pytest.mark.parametrize("verb", ["info", "check", "set", "video"])
def test_a_name_that_is_no_card(name, verb, capsys, tmp_path):
    words = {"set": ["gain=2"], "video": [str(tmp_path / "a.avi")]}.get(verb, [])
    assert main([verb, name, *words]) in (2, 3, 4, 5)
    said = capsys.readouterr().err
    assert said.startswith(f"miniscope-xr {verb}: ")
    assert "a fault of miniscope-xr" not in said
    assert len(said.strip().splitlines()) == 1
