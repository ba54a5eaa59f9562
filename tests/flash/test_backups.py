"""Backups, journals and lists of old data on this computer."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from miniscope_xr.index import old_buffers
from miniscope_xr.layout import load_layout
from miniscope_xr.tools.flash import journal, sector, stale
from miniscope_xr.tools.flash.errors import JournalError
from miniscope_xr.tools.flash.journal import Journal
from tests import needs

from .cli import Tool, card_id
from .fakes import SECTOR, V4, FaultDisk, v4_buffers, v4_card
from .harness import list_of
from .loops import needs_loops, run
from .test_commands import settings, write

pwd = pytest.importorskip("pwd", reason="users of a Unix system") if os.name == "posix" else None
V3, DAQ = load_layout("v3-wirefree"), load_layout("daq-wirefree")


def test_save_is_whole_or_not_at_all(tmp_path, monkeypatch):
    file = tmp_path / "a"
    journal.save(file, b"old")
    monkeypatch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(JournalError, match=r"cannot be written.*make room there, or give --backup-dir"):
        journal.save(file, b"new")
    assert file.read_bytes() == b"old"


def test_save_reads_back(tmp_path, monkeypatch):
    monkeypatch.setattr(journal.Path, "read_bytes", lambda self: b"other")
    with pytest.raises(JournalError, match="reads back differently; give --backup-dir on another disk"):
        journal.save(tmp_path / "a", b"new")


def test_default_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert journal.default_dir() == tmp_path / "miniscope-xr" / "backups" or os.name != "posix"


def test_round_trip(tmp_path):
    folder = journal.new_folder(tmp_path, "abc/../x", "set")
    assert folder.parent.parent == tmp_path
    change = {"name": "table", "offset": 512, "length": 512, "data": None}
    before = Journal(folder, "set", {"size": 8192}, {0: b"a" * 512, 4096: b"b" * 512}, [change], "v4-wirefree", "00ff")
    before.write("intent")
    after = journal.load(folder)
    assert (after.verb, after.card, after.backup, after.changes) == (
        before.verb,
        before.card,
        before.backup,
        before.changes,
    )
    assert (after.layout, after.session, after.phase) == ("v4-wirefree", "00ff", "intent")
    assert after.before(4096, 512) == b"b" * 512
    assert after.before(4608, 512) is None
    assert list(journal.journals(tmp_path)) == [after]


def test_folders_of_one_moment_do_not_collide(tmp_path, monkeypatch):
    monkeypatch.setattr(journal.time, "time_ns", lambda: 1_700_000_000_000_000_000)
    folders = [journal.new_folder(tmp_path, "c", "set") for _ in range(100)]
    assert folders[0].name == "20231114T221320.000000Z-set"
    assert [journal.number_of(f) for f in folders] == list(range(1_700_000_000_000_000, 1_700_000_000_000_100))
    monkeypatch.setattr(journal, "_next_number", lambda backup_dir: 1_700_000_000_000_000)
    with pytest.raises(JournalError, match="try again"):
        journal.new_folder(tmp_path, "c", "set")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"backup": {"0": "!"}, "sha256": "", "changes": []}'])
def test_what_is_no_journal(tmp_path, text):
    (tmp_path / "journal.json").write_text(text)
    with pytest.raises(JournalError, match="give another with --backup"):
        journal.load(tmp_path)


def test_broken_journals_are_passed_over(tmp_path):
    folder = journal.new_folder(tmp_path, "c", "set")
    (folder / "journal.json").write_text("{")
    good = Journal(journal.new_folder(tmp_path, "c", "wipe"), "wipe", {"size": 512}, {0: bytes(512)}, [])
    good.write("done")
    assert [j.verb for j in journal.journals(tmp_path)] == ["wipe"]


def test_lists_that_are_none(tmp_path):
    with pytest.raises(JournalError, match="cannot be read"):
        stale.load_list(tmp_path)
    (tmp_path / stale.NAME).write_text("{}")
    with pytest.raises(JournalError, match="not a list of old data"):
        stale.load_list(tmp_path)


def v3_card(frames, first=1024):
    card = bytearray((first + 200 * frames + 50) * SECTOR)
    rng = np.random.default_rng(3)
    for i in range(frames):
        frame = rng.integers(0, 256, 200 * SECTOR, np.uint8)
        frame[-16:] = np.frombuffer(np.array([1, 320, 50 * i + 9, i], "<u4").tobytes(), np.uint8)
        at = (first + 200 * i) * SECTOR
        card[at : at + len(frame)] = frame.tobytes()
    return bytes(card)


def test_old_data_of_v3():
    card = FaultDisk(v3_card(12))
    end = stale.find_extents(card, [V3])[V3.id]
    assert (1024 + 2400) * SECTOR <= end <= card.size
    found = stale.list_buffers(card, V3, end)
    assert found.sectors.tolist() == [1024 + 200 * (i + 1) - 1 for i in range(12)]


def test_old_data_of_a_daq_at_another_phase():
    size = 12 << 20
    card = bytearray(size)
    places = []
    at = 1025 + 3000 + 7
    for i in range(60):
        words = [11, i % 5, i // 6, i, i % 6, i, 0, 33 * i, 63956, 0, 0]
        data = np.array(words, "<u4").tobytes() + b"\x42" * 63956
        card[at * SECTOR : at * SECTOR + len(data)] = data
        places.append(at)
        at += 125
    disk = FaultDisk(bytes(card))
    end = stale.find_extents(disk, [DAQ])[DAQ.id]
    assert at * SECTOR <= end <= size
    assert stale.list_buffers(disk, DAQ, end).sectors.tolist() == places


def test_an_empty_card_has_no_old_data():
    card = FaultDisk(v4_card(4 << 20, buffers=0))
    assert stale.find_extents(card, [V4])[V4.id] == 1024 * SECTOR
    calls = []
    stale.find_extents(card, [V4], lambda *a: calls.append(a))
    assert calls


def test_old_data_behind_the_wiped_stretch():
    """The notebook clears 488 MiB: what lies behind is found, wherever it begins."""
    card = bytearray(v4_card(24 << 20, buffers=0))
    for at, data in v4_buffers(90, first_sector=30_011):
        card[at * SECTOR : at * SECTOR + len(data)] = data
    disk = FaultDisk(bytes(card))
    end = stale.find_extents(disk, [V4])[V4.id]
    calls = []
    found = stale.list_buffers(disk, V4, end, lambda *a: calls.append(a))
    assert len(found.sectors) == 90
    assert calls[-1][1] <= calls[-1][2]


def test_the_seam_is_found_by_the_list(tmp_path, capsys):
    """Prepared with --keep, recorded on, interrupted: old buffers are told from new ones exactly."""
    size = 24 << 20
    card = write(tmp_path / "c.img", v4_card(size, buffers=200, counted=True), size)
    tool = Tool(capsys, tmp_path / "backups")
    assert tool("prepare", card, "record_length=1", "--keep").code == 0
    data = bytearray(card.read_bytes())
    for at, content in v4_buffers(57, ewl=9):
        data[at * SECTOR : at * SECTOR + len(content)] = content
    old = list_of(tmp_path / "backups", card_id(card))
    verdicts = [old.is_old(at, bytes(data[at * SECTOR : (at + 1) * SECTOR])) for at, _ in v4_buffers(200)]
    assert verdicts == [False] * 57 + [True] * 143
    by_stamp = old_buffers.find_list(bytes(data[1022 * SECTOR : 1023 * SECTOR]), tmp_path / "backups/lists")
    reads = []

    def read(sector):
        reads.append(sector)
        return bytes(data[sector * SECTOR : (sector + 1) * SECTOR])

    assert old_buffers.first_old(by_stamp, [at for at, _ in v4_buffers(200)], read) == 57
    assert len(reads) <= 8
    assert old_buffers.first_old(by_stamp, [at for at, _ in v4_buffers(40)], read) == 40
    assert old_buffers.find_list(bytes(SECTOR)) is None


@contextlib.contextmanager
def tiny(folder, size):
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("cannot mount a tmpfs here")
    try:
        yield folder
    finally:
        run("umount", folder)


@needs_loops
@pytest.mark.skipif(not shutil.which("mount"), reason="needs mount")
def test_no_room_for_the_backup(tmp_path, capsys):
    size = 16 << 20
    card = write(tmp_path / "c.img", v4_card(size, buffers=200), size)
    before = card.read_bytes()
    with tiny(tmp_path / "small", "4k") as folder:
        result = Tool(capsys, folder)("set", card, "gain=2", "--json")
    assert result.code == 5
    assert result.json["card_changed"] is False
    assert "make room there, or give --backup-dir" in result.err
    assert card.read_bytes() == before


@needs_loops
@pytest.mark.skipif(not shutil.which("mount"), reason="needs mount")
def test_no_room_for_the_image_itself(tmp_path, capsys):
    """A sparse image on a full disk: the settings cannot be written, and the card says unchanged or changed."""
    with tiny(tmp_path / "small", "64k") as folder:
        card = write(folder / "c.img", b"", 16 << 20)
        with contextlib.suppress(OSError), open(folder / "filler", "wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))
        result = Tool(capsys, tmp_path / "backups")("set", card, "gain=2", "--layout", "v4-wirefree", "--json")
        assert result.code in (5, 6)
        assert result.json["card_changed"] == (result.code == 6)
        assert "No space left" in result.err
        if result.code == 5:
            assert card.read_bytes() == bytes(16 << 20)


def test_the_format_of_the_list(tmp_path, capsys):
    size = 16 << 20
    card = write(tmp_path / "c.img", v4_card(size), size)
    assert Tool(capsys, tmp_path / "b")("set", card, "gain=2").code == 0
    session = sector.read_stamp(card.read_bytes()[1022 * SECTOR : 1023 * SECTOR]).session
    beside = next((tmp_path / "b").glob(f"*/*/{stale.NAME}"))
    for file in (beside, tmp_path / "b" / "lists" / f"{session}.npz"):
        content = np.load(file)
        assert content["layout"] == "v4-wirefree"
        assert content["card_id"] == card_id(card)
        assert content["session"] == session
        assert len(content["sectors"]) == len(content["hashes"]) == 8
        first = card.read_bytes()[1024 * SECTOR : 1025 * SECTOR]
        assert content["hashes"][0] == old_buffers.sector_hash(first)


def test_lists_are_forgotten_when_nobody_reads_them_any_more(tmp_path):
    """Older than a year, and not among the newest hundred; nothing but lists is touched."""
    lists = tmp_path / "b" / "lists"
    lists.mkdir(parents=True)
    for i in range(110):
        old = lists / f"{i:032x}.npz"
        old.write_bytes(b"x")
        os.utime(old, (1e9 + i, 1e9 + i))
    mine = lists / "mine.npz"
    mine.write_bytes(b"x")
    os.utime(mine, (1e9, 1e9))
    recent = lists / f"{105:032x}.npz"
    os.utime(recent)
    folder = tmp_path / "b" / "card" / "operation"
    folder.mkdir(parents=True)
    (folder / stale.NAME).write_bytes(b"x")
    stale.hand_to_reader(folder, tmp_path / "b", "f" * 32)
    left = {file.stem for file in lists.iterdir()}
    assert left == {"f" * 32, "mine", recent.stem, *(f"{i:032x}" for i in range(110) if i >= 11)}


YEARS = 20 * 365 * 86400
CLOCKS = [
    ("UTC+12", 0),
    ("UTC-14", 0),
    ("UTC+12", -YEARS),
    ("UTC-14", -YEARS),
    ("UTC", -YEARS),
    ("UTC", 7),
    ("UTC+12", 7),
]
"""Zones, and how far (s) the computer's clock is off: five times within one second, two zones, set back by 20 years."""


@pytest.fixture
def wrong_clock(monkeypatch):
    """Set the computer's zone and clock: to the same second each time, so and so far off."""
    begin, real = time.time_ns(), stale.save

    def set_to(zone: str, off: int) -> None:
        now = begin + off * 10**9

        def save(path: Path, data: bytes) -> None:
            real(path, data)
            os.utime(path, ns=(now, now))  # as a system with such a clock does

        monkeypatch.setenv("TZ", zone)
        getattr(time, "tzset", lambda: None)()
        monkeypatch.setattr(time, "time_ns", lambda: now)
        monkeypatch.setattr(stale, "save", save)

    yield set_to
    monkeypatch.undo()
    getattr(time, "tzset", lambda: None)()


def test_the_newest_backup_is_the_last_one_whatever_the_clock_says(tmp_path, wrong_clock):
    """Many operations of several cards: zones, one second, and a clock that was set back by 20 years."""
    made = []
    for i, (zone, off) in enumerate(CLOCKS * 20):
        wrong_clock(zone, off)
        verb = ("wipe", "set", "backup")[i % 3]  # neither the name of the verb nor that of the card orders them
        folder = journal.new_folder(tmp_path, f"card-{i * 7 % 5}", verb)
        Journal(folder, verb, {"size": 512}, {0: bytes(512)}, [], number=journal.number_of(folder)).write("done")
        made.append(folder)
    assert [found.folder for found in journal.journals(tmp_path)] == made[::-1]
    assert len({journal.number_of(folder) for folder in made}) == len(made)


def test_the_last_settings_are_put_back_whatever_the_clock_says(tmp_path, capsys, wrong_clock):
    card = write(tmp_path / "c.img", v4_card())
    tool = Tool(capsys, tmp_path / "b")
    for led, (zone, off) in enumerate(CLOCKS, 11):
        wrong_clock(zone, off)
        assert tool("set", card, f"led={led}").code == 0
    assert tool("restore", card).code == 0
    assert settings(card)["led"] == 10 + len(CLOCKS) - 1


@pytest.mark.parametrize("set_back", [False, True])
def test_the_newest_lists_are_kept_whatever_the_clock_says(tmp_path, monkeypatch, wrong_clock, set_back):
    """A list that was written while the clock was 20 years back is as new as it is."""
    monkeypatch.setattr(stale, "_KEEP", 10)
    folder, names = tmp_path / "b" / "card" / "operation", []
    folder.mkdir(parents=True)
    (folder / stale.NAME).write_bytes(b"x")
    for i in range(40):
        wrong_clock(*CLOCKS[i % len(CLOCKS)] if set_back else ("UTC", 0))
        names.append(f"{i * 7 % 40:032x}")
        stale.hand_to_reader(folder, tmp_path / "b", names[-1])
    left = tmp_path / "b" / "lists"
    assert len(list(left.iterdir())) == 40, "a year has not gone by"
    wrong_clock("UTC", 2 * YEARS)
    stale.hand_to_reader(folder, tmp_path / "b", "f" * 32)
    assert {file.stem for file in left.iterdir()} == {"f" * 32, *names[-9:]}


@needs.root
def test_after_sudo_the_list_is_the_callers(tmp_path, capsys, monkeypatch):
    """`sudo prepare --keep`, then reading as the user: the list lies in the user's folder and is the user's."""
    nobody = pwd.getpwnam("nobody")
    home = Path(tempfile.mkdtemp(prefix="home-", dir="/tmp"))
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    try:
        entry = pwd.struct_passwd((*nobody[:5], str(home), nobody[6]))
        monkeypatch.setattr(pwd, "getpwuid", lambda uid: entry)
        monkeypatch.setenv("SUDO_UID", str(nobody.pw_uid))
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "root"))
        size = 16 << 20
        card = write(tmp_path / "c.img", v4_card(size), size)
        words = ("--image", "--yes", "--card", card_id(card))
        assert Tool(capsys, tmp_path).raw("prepare", card, "record_length=1", "--keep", *words).code == 0
        assert os.geteuid() == 0
        header = card.read_bytes()[1022 * SECTOR : 1023 * SECTOR]
        file = home / ".local/share/miniscope-xr/lists" / f"{sector.read_stamp(header).session}.npz"
        for path in (file, *list(file.parents)[:4]):
            assert path.stat().st_uid == nobody.pw_uid
        assert len(old_buffers.find_list(header).sectors) == 8, "with sudo"
        shutil.rmtree(tmp_path / "root")
        assert len(old_buffers.find_list(header).sectors) == 8, "prepared by the user, read with sudo"
        monkeypatch.setenv("XDG_DATA_HOME", str(home / ".local/share"))
        assert len(old_buffers.find_list(header).sectors) == 8
    finally:
        shutil.rmtree(home)


def test_a_reader_finds_the_list_with_any_backup_folder(tmp_path, capsys, monkeypatch):
    """Readers know nothing of --backup-dir; where their folder takes nothing, the note says what to copy."""
    for place in ("home", "full"):
        card = write(tmp_path / f"{place}.img", v4_card(16 << 20), 16 << 20)
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / place))
        if place == "full":
            (tmp_path / place).write_text("a file where the folder would be")
        done = Tool(capsys, tmp_path / "backups")("prepare", card, "record_length=1", "--keep")
        assert done.code == 0
        header = card.read_bytes()[1022 * SECTOR : 1023 * SECTOR]
        name = f"{sector.read_stamp(header).session}.npz"
        assert (tmp_path / "backups/lists" / name).exists()
        assert (old_buffers.find_list(header) is not None) == (place == "home")
        assert (f"copy {tmp_path / 'backups/lists' / name} there" in done.out) == (place == "full")


@pytest.mark.slow
def test_backups_of_two_computers_in_one_folder(tmp_path, capsys, monkeypatch):
    """One clock is a year ahead: the settings on the card tell which operation was the last."""
    card = write(tmp_path / "c.img", v4_card())
    real = time.time_ns
    for led, computer, ahead in ((11, "a", 365 * 86400), (12, "b", 0), (13, "b", -86400)):
        monkeypatch.setattr(journal.time, "time_ns", lambda ahead=ahead: real() + ahead * 10**9)
        assert Tool(capsys, tmp_path / computer)("set", card, f"led={led}").code == 0
    monkeypatch.setattr(journal.time, "time_ns", real)
    shutil.copytree(tmp_path / "b", tmp_path / "a", dirs_exist_ok=True)
    restored = Tool(capsys, tmp_path / "a")("restore", card)
    assert restored.code == 0
    assert settings(card)["led"] == 12
    again = Tool(capsys, tmp_path / "a")("restore", card)
    assert "nothing is written" in again.out
    assert settings(card)["led"] == 12
