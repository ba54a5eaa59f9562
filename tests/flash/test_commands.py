"""The commands on image files: what they write, what they say, how they end."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from miniscope_xr.layout import load_layout
from miniscope_xr.tools.flash import ask, jobs, journal, refuse, sector, stale
from miniscope_xr.tools.flash.disks.find import identify
from miniscope_xr.tools.simulate import simulate
from tests import needs

from .cli import Tool, card_id, parser
from .fakes import SECTOR, V4, settings_sector, v4_buffers, v4_card, with_table
from .harness import list_of

SIZE = 64 << 20
HEADER, COUNTS, DATA = 1022 * SECTOR, 1023 * SECTOR, 1024 * SECTOR


@pytest.fixture
def tool(capsys, tmp_path):
    return Tool(capsys, tmp_path / "backups")


@pytest.fixture
def card(tmp_path):
    """A v4 card of 64 MB with a recording of 8 buffers."""
    return write(tmp_path / "card.img", v4_card())


def write(path: Path, data: bytes, size: int = SIZE) -> Path:
    path.write_bytes(data)
    os.truncate(path, size)
    return path


def zero(data: bytes) -> bool:
    return data.count(0) == len(data)


def settings(path: Path, layout=V4) -> dict[str, int]:
    at = layout.sectors.header * SECTOR
    return sector.settings_of(layout, path.read_bytes()[at : at + SECTOR])


def recording_id(result) -> str:
    return result.json["recording"]


@pytest.mark.slow
def test_prepare_wipes_then_writes(tool, card):
    refused = tool("prepare", card, "gain=2", "--json")
    assert refused.code == 3
    assert "--discard-recording" in refused.err
    words = ("gain=2x", "led=10", "ewl=120", "record_length=15s", "fs=20", "delay_start=2")
    done = tool("prepare", card, *words, "--discard-recording", recording_id(refused), "--json")
    assert done.code == 0
    report = done.json
    assert report["exit"] == 0
    assert report["phase"] == "done"
    assert report["card_changed"] is True
    assert report["device"]["card_id"] == card_id(card)
    assert Path(report["backup"]).is_dir()
    now = card.read_bytes()
    assert len(now) == SIZE
    assert zero(now[COUNTS:])
    found = settings(card)
    assert {"gain": 2, "led": 10, "ewl": 120, "record_length": 15, "fs": 20, "delay_start": 2}.items() <= found.items()
    header = now[HEADER : HEADER + SECTOR]
    assert sector.has_keys(V4, header)
    assert sector.read_stamp(header).intact
    assert zero(now[:HEADER])


@pytest.mark.slow
def test_prepare_stops_behind_the_plan(tool, tmp_path):
    """Old foreign data behind the plan and behind any recording is nobody's business."""
    data = bytearray(v4_card(SIZE, buffers=0))
    data[60 << 20 : 61 << 20] = b"\x5a" * (1 << 20)
    card = write(tmp_path / "c.img", bytes(data))
    assert tool("prepare", card, "record_length=10").code == 0
    assert card.read_bytes()[60 << 20 : 61 << 20] == b"\x5a" * (1 << 20)
    assert tool("prepare", card, "record_length=10", "--wipe-minutes", "0.57").code == 0
    assert zero(card.read_bytes()[DATA : 61 << 20])


@pytest.mark.slow
def test_prepare_wipes_to_the_end_of_an_older_recording(tool, tmp_path):
    data = bytearray(v4_card(SIZE))
    for at, content in v4_buffers(70, first_sector=100_000):
        data[at * SECTOR : at * SECTOR + len(content)] = content
    card = write(tmp_path / "c.img", bytes(data))
    assert tool("prepare", card, "record_length=1", "--discard-recording", card_id(card)).code == 0
    assert zero(card.read_bytes()[DATA:])


def test_keep_leaves_the_data_and_lists_it(tool, card, tmp_path):
    before = card.read_bytes()
    done = tool("prepare", card, "record_length=1", "--keep", "--json")
    assert done.code == 0
    after = card.read_bytes()
    assert after[DATA + SECTOR :] == before[DATA + SECTOR :]
    assert zero(after[COUNTS : DATA + SECTOR]), "firmware that never writes counts must not find the old recording"
    stamp = sector.read_stamp(after[HEADER : HEADER + SECTOR])
    old = list_of(tmp_path / "backups", stamp.session)
    places = [at for at, _ in v4_buffers(8)]
    assert old.sectors.tolist() == places
    assert old.layout == "v4-wirefree"
    first = before[DATA : DATA + SECTOR]
    assert old.is_old(places[0], first)
    assert not old.is_old(places[0], bytes(SECTOR))
    assert not old.is_old(places[0] + 1, first)
    by_id = list_of(tmp_path / "backups", card_id(card))
    assert by_id.sectors.tolist() == places
    assert list_of(tmp_path / "backups", "nobody") is None


@pytest.mark.slow
def test_unknown_words_are_kept(tool, tmp_path):
    data = bytearray(v4_card(SIZE, buffers=0))
    for word in (16, 20, 31):
        data[HEADER + 4 * word : HEADER + 4 * word + 4] = bytes([word, 1, 2, 3])
    data[HEADER + 300 : HEADER + 304] = b"note"
    card = write(tmp_path / "c.img", bytes(data))
    assert tool("prepare", card, "gain=4", "record_length=1").code == 0
    now = card.read_bytes()
    for at, length in ((64, 4), (80, 4), (124, 4), (300, 4)):
        assert now[HEADER + at : HEADER + at + length] == bytes(data[HEADER + at : HEADER + at + length])
    assert settings(card)["gain"] == 4


@pytest.mark.slow
@pytest.mark.parametrize("foreign", [130, 510])
def test_foreign_bytes_are_not_stamped_over(tool, tmp_path, foreign):
    data = bytearray(v4_card(SIZE, buffers=0))
    data[HEADER + foreign] = 7
    card = write(tmp_path / "c.img", bytes(data))
    assert tool("set", card, "gain=4").code == 0
    now = card.read_bytes()
    assert now[HEADER + 64 : HEADER + SECTOR] == bytes(data[HEADER + 64 : HEADER + SECTOR])


def test_no_stamp_leaves_the_stamp_out_and_removes_an_old_one(tool, card):
    assert tool("set", card, "gain=2").code == 0
    assert tool("set", card, "gain=4", "--no-stamp").code == 0
    assert zero(card.read_bytes()[HEADER + 64 : COUNTS])


@pytest.mark.slow
def test_set_changes_the_settings_sector_only(tool, card):
    before = card.read_bytes()
    assert tool("set", card, "led=50").code == 0
    after = card.read_bytes()
    assert after[:HEADER] == before[:HEADER]
    assert after[COUNTS:] == before[COUNTS:]
    assert settings(card) == {**sector.settings_of(V4, before[HEADER : HEADER + SECTOR]), "led": 50}


def test_a_card_never_prepared_gets_the_defaults(tool, tmp_path):
    card = write(tmp_path / "c.img", b"")
    assert tool("prepare", card, "led=5", "record_length=5", "--layout", "v4-wirefree").code == 0
    defaults = {name: f.default or 0 for name, f in V4.header.items()}
    assert settings(card) == {**defaults, "led": 5, "record_length": 5}


@pytest.mark.parametrize("layout", ["daq-wirefree", "v3-wirefree"])
def test_the_other_layouts(tool, tmp_path, layout):
    card = write(tmp_path / "c.img", b"")
    result = tool("prepare", card, "gain=2", "record_length=1", "--layout", layout, "--json")
    assert result.code == 0
    found = settings(card, load_layout(layout))
    assert (found["gain"], found["record_length"]) == (2, 1)
    assert tool("set", card, "gain=4").code == 0, "the stamp tells which of the two it is"
    assert result.json["layout"] == layout


@pytest.mark.slow
def test_notebook_cards_are_recognised(tool, tmp_path):
    data = bytearray(v4_card(SIZE, buffers=0))
    data[HEADER : HEADER + 16] = bytes(16)
    card = write(tmp_path / "c.img", bytes(data))
    result = tool("prepare", card, "gain=2", "record_length=1", "--dry-run")
    assert result.code == 0
    assert "prepared without write keys, as the lab notebook does" in result.out


def test_a_settings_sector_of_something_else(tool, tmp_path):
    data = bytearray(SIZE)
    data[HEADER : HEADER + SECTOR] = b"\xa5" * SECTOR
    card = write(tmp_path / "c.img", bytes(data))
    result = tool("prepare", card, "record_length=1", "--layout", "v4-wirefree", "--dry-run")
    assert "settings sector holds something unknown" in result.out


def test_keyed_by_another_program_and_not_prepared(tool, card, tmp_path):
    assert "prepared with write keys, by another program" in tool("set", card, "gain=2", "--dry-run").out
    blank = write(tmp_path / "blank.img", b"")
    assert "not prepared" in tool("set", blank, "gain=2", "--dry-run", "--layout", "v4-wirefree").out


def test_a_torn_stamp_is_told(tool, card):
    assert tool("set", card, "gain=2").code == 0
    data = bytearray(card.read_bytes())
    data[HEADER + 20] ^= 1
    card.write_bytes(data)
    assert "settings torn or changed" in tool("set", card, "gain=2", "--dry-run").out


def test_wipe_keeps_the_settings(tool, card):
    before = card.read_bytes()
    assert tool("wipe", card, "--discard-recording", card_id(card)).code == 0
    after = card.read_bytes()
    assert after[:COUNTS] == before[:COUNTS]
    assert zero(after[COUNTS:])


@pytest.mark.slow
def test_wipe_whole(tool, tmp_path):
    data = bytearray(v4_card(SIZE, buffers=0))
    data[-SECTOR:] = b"\x77" * SECTOR
    card = write(tmp_path / "c.img", bytes(data))
    assert tool("wipe", card).code == 0
    assert card.read_bytes()[-SECTOR:] == b"\x77" * SECTOR
    assert tool("wipe", card, "--whole").code == 0
    assert zero(card.read_bytes()[COUNTS:])


@pytest.mark.slow
@pytest.mark.parametrize("gpt", [False, True])
def test_blank_table_then_restore(tool, tmp_path, gpt):
    before = with_table(v4_card(SIZE, buffers=0), gpt)
    card = write(tmp_path / "c.img", before)
    refused = tool("prepare", card, "record_length=1")
    assert refused.code == 3
    assert f"blank-table {card}" in refused.err
    assert tool("blank-table", card).code == 0
    after = card.read_bytes()
    assert zero(after[:HEADER])
    assert after[HEADER:COUNTS] == before[HEADER:COUNTS]
    assert zero(after[-34 * SECTOR :])
    assert tool("restore", card).code == 0
    assert card.read_bytes() == before


def test_a_formatted_card_is_said_to_hold_its_file_system_once(tool, tmp_path):
    fat = bytearray(v4_card(SIZE))
    fat[0:3], fat[82:90], fat[510:512] = b"\xeb\x58\x90", b"FAT32   ", b"\x55\xaa"
    said = tool("blank-table", write(tmp_path / "fat.img", bytes(fat)), "--dry-run").out
    assert "a FAT file system" in said
    assert "boot sector" not in said


def test_blank_table_says_what_is_lost_and_what_is_not_there(tool, card, tmp_path):
    assert "no partition table or file system found" in tool("blank-table", card, "--dry-run").out
    table = write(tmp_path / "t.img", with_table(v4_card(SIZE)))
    assert "lost: a partition table or FAT boot sector" in tool("blank-table", table, "--dry-run").out


def test_backup_and_restore(tool, card):
    before = card.read_bytes()
    assert tool.raw("backup", card, "--backup-dir", tool.backups).code == 0
    assert tool("set", card, "gain=4").code == 0
    assert tool("set", card, "gain=2").code == 0
    first = next(j for j in journal.journals(tool.backups) if j.verb == "backup")
    assert tool("restore", card, "--backup", first.folder).code == 0
    assert card.read_bytes() == before
    assert tool.raw("backup", card, "--backup-dir", tool.backups, "--dry-run").code == 0


def test_restore_after_a_wipe_does_not_bring_the_counts_back(tool, card):
    assert tool("wipe", card, "--discard-recording", card_id(card)).code == 0
    result = tool("restore", card)
    assert result.code == 0
    assert "counts stay zero" in result.out
    assert zero(card.read_bytes()[COUNTS:])


@pytest.mark.slow
def test_restore_leaves_the_counts_of_a_newer_recording(tool, card):
    """Weeks after it was prepared, the card holds another recording: its counts are not touched."""
    assert tool("prepare", card, "record_length=1", "gain=2", "--discard-recording", card_id(card)).code == 0
    data = bytearray(card.read_bytes())
    newer = v4_card(buffers=6, ewl=1)
    data[COUNTS : len(newer)] = newer[COUNTS:]
    card.write_bytes(data)
    result = tool("restore", card)
    assert result.code == 0
    assert "counts are left as they are" in result.out
    assert card.read_bytes()[COUNTS:] == bytes(data[COUNTS:])
    assert settings(card)["gain"] == 1


def test_restore_without_a_backup(tool, card):
    result = tool("restore", card)
    assert result.code == 3
    assert "--backup" in result.err
    assert "--backup-dir" in result.err


def test_restore_of_a_backup_that_is_none(tool, card, tmp_path):
    (tmp_path / "journal.json").write_text("{}")
    assert "not an intact backup" in tool("restore", card, "--backup", tmp_path).err
    assert "cannot be read" in tool("restore", card, "--backup", tmp_path / "nothing").err


def test_a_backup_that_covers_nothing(tool, card):
    tool.backups.mkdir()
    empty = journal.Journal(tool.backups, "prepare", {"size": SIZE}, {}, [])
    empty.layout = "v4-wirefree"
    empty.write("done")
    result = tool("restore", card, "--backup", tool.backups)
    assert result.code == 3
    assert "holds nothing that can be put back; choose another with --backup" in result.err


def test_a_damaged_backup_is_noticed(tool, card):
    assert tool("set", card, "gain=4").code == 0
    file = next(tool.backups.glob("*/*/journal.json"))
    content = json.loads(file.read_text())
    content["sha256"] = "0" * 64
    file.write_text(json.dumps(content))
    result = tool("restore", card, "--backup", file.parent)
    assert result.code == 5
    assert "checksum" in result.err


def interrupted(tool, card, monkeypatch, *words, at="settings"):
    """A prepare that is interrupted when it comes to the settings, or to another step."""
    original = journal.Journal.write

    def stop(self, phase):
        original(self, phase)
        if phase == at:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(journal.Journal, "write", stop)
        return tool("prepare", card, "gain=4", "record_length=1", *words, "--json")


def test_interrupt_then_resume(tool, card, monkeypatch):
    result = interrupted(tool, card, monkeypatch, "--discard-recording", card_id(card))
    assert result.code == 6
    report = result.json
    assert report["card_changed"] is True
    assert report["phase"] == "settings"
    assert "`resume` finishes it, `restore` brings the settings back" in report["error"]
    assert report["backup"] in report["error"]
    assert settings(card)["gain"] == 1
    done = tool("resume", card)
    assert done.code == 0
    assert "finishes prepare" in done.out
    assert settings(card)["gain"] == 4
    again = tool("resume", card)
    assert again.code == 3
    assert "no unfinished operation" in again.err


def test_interrupt_then_restore(tool, card, monkeypatch):
    before = settings(card)
    assert interrupted(tool, card, monkeypatch, "--discard-recording", card_id(card)).code == 6
    assert tool("restore", card).code == 0
    assert settings(card) == before


@pytest.mark.slow
def test_resume_refuses_a_card_that_was_used_since(tool, card, monkeypatch):
    assert interrupted(tool, card, monkeypatch, "--discard-recording", card_id(card)).code == 6
    data = bytearray(card.read_bytes())
    data[DATA : DATA + SECTOR] = v4_card(ewl=3)[COUNTS - SECTOR : COUNTS]
    card.write_bytes(data)
    result = tool("resume", card, "--json")
    assert result.code == 3
    assert "--discard-recording" in result.err
    assert tool("resume", card, "--discard-recording", recording_id(result)).code == 0
    assert zero(card.read_bytes()[DATA : DATA + SECTOR])


def test_resume_does_not_say_used_where_it_cannot_know(tool, card, monkeypatch):
    """The list of the old buffers was lost: the recording on the card is the old one, or a new one."""
    before = card.read_bytes()
    result = interrupted(tool, card, monkeypatch, "--discard-recording", card_id(card), at="data")
    (Path(result.json["backup"]) / stale.NAME).unlink()
    refused = tool("resume", card)
    assert refused.code == 3
    assert "may have been used since this operation was interrupted (old_buffers.npz, which knows sector" in refused.err
    assert card.read_bytes()[DATA:] == before[DATA:]


def test_resume_on_a_card_of_another_size(tool, card, monkeypatch):
    assert interrupted(tool, card, monkeypatch, "--discard-recording", card_id(card)).code == 6
    os.truncate(card, SIZE // 2)
    result = tool("resume", card)
    assert result.code == 3
    assert f"on a card of {SIZE} bytes" in result.err


def test_interrupt_before_anything_is_written(tool, card, monkeypatch):
    def stop(*args):
        raise KeyboardInterrupt

    before = card.read_bytes()
    monkeypatch.setattr(jobs, "verify_shown", stop)
    result = tool("set", card, "gain=2", "--json")
    assert result.code == 5
    assert result.json["error"] == "interrupted; the card was not changed"
    assert card.read_bytes() == before


def test_a_polite_kill_is_an_interrupt(tool, card, monkeypatch):
    def wait(*args):
        signal.raise_signal(signal.SIGTERM)
        time.sleep(5)

    monkeypatch.setattr(jobs, "verify_shown", wait)
    assert tool("set", card, "gain=2").code == 5
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_commands_run_in_a_thread(tool, card):
    codes = []
    thread = threading.Thread(target=lambda: codes.append(tool("set", card, "gain=2", "--dry-run").code))
    thread.start()
    thread.join()
    assert codes == [0]


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["prepare", "set", "wipe", "blank-table", "qualify"])
def test_dry_run_writes_nothing(tool, tmp_path, verb):
    card = write(tmp_path / "c.img", v4_card(SIZE, buffers=0))
    card.chmod(0o444)
    before = card.read_bytes()
    opened = []
    real = os.open

    def spy(path, flags, *rest, **named):
        opened.append((str(path), flags))
        return real(path, flags, *rest, **named)

    os.open = spy
    try:
        result = tool(verb, card, *(["record_length=1"] if verb == "prepare" else []), "--dry-run")
    finally:
        os.open = real
    if needs.ROOT:  # others are refused: read-only file
        assert result.code == 0
        assert "sector" in result.out
    assert card.read_bytes() == before
    assert not tool.backups.exists()
    assert all(flags & (os.O_WRONLY | os.O_RDWR) == 0 for path, flags in opened if path == str(card))


def test_dry_run_says_what_where_and_how_long(tool, card):
    result = tool("prepare", card, "gain=2", "record_length=1", "--dry-run", "--discard-recording", card_id(card))
    assert "zero counts: sector 1023" in result.out
    assert "write settings: sector 1022" in result.out
    assert "zero data: sectors 1024 to" in result.out
    assert "takes up to about 1 s at 20 MB/s" in result.out
    assert "1.853 MB/s" in result.out
    assert "min fit on this card" in result.out


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("gone", [DATA, DATA + 2000 * SECTOR])
def test_a_recording_without_its_front_is_named(tool, tmp_path, gone):
    """What the reader finds by its buffers, nobody is to give up unseen."""
    path = write(tmp_path / "card.img", bytes(gone) + simulate(frames=20, seed=3).data[gone:])
    result = tool("prepare", path, "led=10", "--dry-run")
    assert result.code == 0
    assert "without --dry-run this is refused" in result.out + result.err
    assert "recording" in result.out + result.err
    assert tool("prepare", path, "led=10").code == 3


def test_a_recording_behind_a_table_is_named(tool, tmp_path):
    path = write(tmp_path / "card.img", with_table(simulate(frames=20, seed=3).data, gpt=False))
    result = tool("prepare", path, "led=10", "--dry-run")
    assert result.code == 3
    assert "somebody's disk" in result.err
    assert "lies a recording" in result.err


@pytest.mark.parametrize("upper", [False, True])
def test_the_question(tool, card, monkeypatch, upper):
    last = card_id(card)[-4:]
    monkeypatch.setattr(sys, "stdin", Terminal((last.upper() if upper else last) + "\n"))
    result = tool("set", card, "gain=2", yes=False)
    assert result.code == 0
    assert card_id(card) in result.err
    for text in (str(card), "image file", f"{SIZE} bytes", "1 (1x)", "2 (2x)  *", "recording", "8 buffers"):
        assert text in result.out


def test_a_wrong_answer_writes_nothing(tool, card, monkeypatch):
    before = card.read_bytes()
    monkeypatch.setattr(sys, "stdin", Terminal("yes\n"))
    result = tool("set", card, "gain=2", yes=False)
    assert result.code == 3
    assert "nothing was written" in result.err
    assert card.read_bytes() == before


def test_nobody_to_ask(tool, card, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    result = tool("set", card, "gain=2", yes=False)
    assert result.code == 3
    assert f"--yes --card {card_id(card)}" in result.err
    assert tool("set", card, "gain=2").code == 0


def test_yes_needs_the_card(tool, card):
    result = tool.raw("set", card, "gain=2", "--yes", "--image")
    assert result.code == 2
    assert "--card" in result.err
    assert "`list`" in result.err


def test_another_card_than_named(tool, card):
    result = tool.raw("set", card, "gain=2", "--yes", "--image", "--card", "0badc0de", "--json")
    assert result.code == 3
    assert "--card 0badc0de is not this card" in result.err
    assert result.json["card_id"] == card_id(card)
    assert tool.raw("backup", card, "--card", "0badc0de").code == 3


def test_image_needs_its_flag(tool, card):
    result = tool.raw("set", card, "gain=2")
    assert result.code == 3
    assert "--image" in result.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["gian=2"], "did you mean 'gain'"),
        (["gain=3"], "silently ignore"),
        (["fs=25"], "5, 10, 15 or 20"),
        (["delay_start=300"], "outside 0 to 255 s"),
        (["gain"], "NAME=VALUE"),
        (["gain=1", "gain=2"], "given twice"),
    ],
)
def test_bad_settings_end_with_2(tool, card, words, text):
    before = card.read_bytes()
    result = tool("set", card, *words)
    assert result.code == 2
    assert text in result.err
    assert card.read_bytes() == before


@pytest.mark.parametrize(
    "order",
    [
        ["{card}", "gain=2", "led=3", "--image", "--dry-run"], ["{card}", "--image", "gain=2", "--dry-run", "led=3"],
        ["--image", "--dry-run", "{card}", "gain=2", "led=3"], ["--image", "{card}", "--dry-run", "gain=2", "led=3"],
    ],
)  # fmt: skip
def test_settings_anywhere_on_the_line(tool, card, order):
    result = tool.raw("set", *(word.format(card=card) for word in order), "--json")
    assert result.code == 0
    assert (result.json["settings"]["gain"], result.json["settings"]["led"]) == (2, 3)


def test_unknown_options_are_still_errors(tool, card):
    with pytest.raises(SystemExit) as caught:
        tool.raw("set", card, "--image", "gain=2", "--nonsense")
    assert caught.value.code == 2


def test_unused_settings_are_told(tool, card):
    assert "note: battery_cutoff: stored but never used" in tool("set", card, "battery_cutoff=3.5V").out


def test_a_plan_that_does_not_fit(tool, card):
    result = tool("set", card, "record_length=30min")
    assert result.code == 3
    assert "the planned 1800 s do not fit: 35 s (0.6 min) fit" in result.err
    assert "lower record_length" in result.err


def test_a_trimmed_image_keeps_a_length_that_nobody_asked_for(tool, tmp_path):
    card = write(tmp_path / "t.img", v4_card(record_length=1800), SIZE // 64)
    assert tool("set", card, "gain=2").code == 0
    assert tool("prepare", card, "gain=2", "--discard-recording", card_id(card)).code == 0
    assert tool("set", card, "fs=10").code == 3


def test_ambiguous_card(tool, tmp_path):
    blank = write(tmp_path / "blank.img", b"")
    result = tool("set", blank, "gain=2")
    assert result.code == 3
    assert "--layout daq-wirefree or --layout v3-wirefree or --layout v4-wirefree" in result.err
    data = bytearray(SIZE)
    data[COUNTS : COUNTS + SECTOR] = settings_sector(load_layout("v3-wirefree"))
    either = write(tmp_path / "either.img", bytes(data))
    result = tool("set", either, "gain=2")
    assert result.code == 3
    assert "does not tell for certain" in result.err


@pytest.mark.parametrize("size", [0, 511, SECTOR, 1024 * SECTOR, 1025 * SECTOR - 1])
def test_too_small(tool, tmp_path, size):
    small = write(tmp_path / "small.img", b"", size)
    result = tool("set", small, "gain=2", "--layout", "v4-wirefree")
    assert result.code == 3
    if size >= SECTOR:
        assert "too small" in result.err
        assert "too small" in tool("set", small, "gain=2").err


def test_paths_that_are_no_card(tool, tmp_path):
    assert tool.raw("set", tmp_path / "nothing", "gain=2").code == 2
    assert "`list`" in tool.raw("set", tmp_path / "nothing", "gain=2").err
    assert "a directory" in tool.raw("set", tmp_path, "gain=2").err
    assert tool.raw("set", os.devnull, "gain=2").code == 3
    if not hasattr(os, "mkfifo"):
        return
    os.mkfifo(tmp_path / "fifo")
    assert "neither a disk nor an image file" in tool.raw("set", tmp_path / "fifo", "gain=2").err


def test_no_place_for_the_backup(tool, card, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    before = card.read_bytes()
    words = ("--image", "--yes", "--card", card_id(card), "--backup-dir", file / "below")
    result = tool.raw("set", card, "gain=2", *words)
    assert result.code == 5
    assert "--backup-dir" in result.err
    assert card.read_bytes() == before


def test_a_card_that_changed_since_it_was_shown(tool, card, monkeypatch):
    def meanwhile(*args, **named):
        data = bytearray(card.read_bytes())
        data[HEADER + 20] ^= 1
        card.write_bytes(data)

    monkeypatch.setattr(ask, "confirm", meanwhile)
    result = tool("set", card, "gain=2")
    assert result.code == 3
    assert "changed since it was shown" in result.err


def test_another_card_since_it_was_shown(tool, card, monkeypatch, tmp_path):
    def meanwhile(*args, **named):
        write(tmp_path / "other.img", v4_card()).replace(card)

    monkeypatch.setattr(ask, "confirm", meanwhile)
    result = tool("set", card, "gain=2")
    assert result.code == 3
    assert "another card than the one shown" in result.err


def test_list_shows_why_a_disk_is_not_a_card(tool):
    every = tool.raw("list", "--all", "--json")
    assert every.code == 0
    for disk in every.json["devices"]:
        assert disk["card_id"]
        assert isinstance(disk["refused"], list)
    assert tool.raw("list").code == 0


def test_list_with_no_card(tool, monkeypatch):
    from miniscope_xr.tools.flash.disks import find

    class Nothing:
        def names(self):
            return []

    monkeypatch.setattr(find, "backend", Nothing)
    assert "`list --all`" in tool.raw("list").out


def test_every_flag_in_a_message_exists():
    """A message that names a flag or a command no parser knows would lead nowhere."""
    import re

    known = set()
    commands = next(a for a in parser()._actions if a.choices).choices
    for command in commands.values():
        known |= {flag for action in command._actions for flag in action.option_strings}
    folder = Path(refuse.__file__).parent
    for file in folder.glob("*.py"):
        text = file.read_text()
        for flag in re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", text):
            assert flag in known, f"{file.name} names {flag}"
        for name in re.findall(r"`(list|prepare|set|wipe|blank-table|backup|restore|resume|qualify|image)\b", text):
            assert name in commands, f"{file.name} names {name}"


def test_the_package_does_not_load_this():
    import subprocess

    code = "import sys, miniscope_xr; sys.exit(any('tools.flash' in m for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_identify_agrees_with_the_list(card):
    assert identify(str(card)).to_json()["card_id"] == card_id(card)


def test_a_backup_of_a_card_with_the_same_settings_does_not_touch_the_counts(tool, tmp_path):
    """Two cards set alike, on which record_length made as many buffers: nothing on either has a name.

    The one was wiped and the other comes into the reader. Its counts are not the wiped ones, though they are equal.
    """
    first, second = bytearray(v4_card()), bytearray(v4_card())
    second[DATA + 4096 : DATA + 8192] = bytes(range(256)) * 16
    second[DATA + 48 : DATA + 96] = bytes(range(48))
    cards = [tmp_path / "a.img", tmp_path / "b.img"]
    for card, data in zip(cards, (first, second), strict=True):
        card.write_bytes(data)
    assert tool("wipe", cards[0], "--discard-recording", card_id(cards[0])).code == 0
    backup = next(tool.backups.glob("*/*-wipe"))
    for words in ((), ("--backup", backup)):
        result = tool("restore", cards[1], *words)
        assert result.code == 0
        assert "nothing is written" in result.out
        assert cards[1].read_bytes() == second
    assert tool("restore", cards[0]).code == 0
    assert cards[0].read_bytes()[COUNTS:DATA] == bytes(SECTOR), "the data they counted is gone"
