"""A journal is checked in every point before it is used, and what is skipped is named."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from miniscope_xr.tools.flash import journal, journal_format, qualify
from miniscope_xr.tools.flash.errors import JournalError
from miniscope_xr.tools.flash.journal import Journal
from miniscope_xr.tools.flash.plan import make_plan
from tests import needs

from .cli import Tool
from .fakes import SECTOR, v4_card, with_table
from .harness import job_for, seen_on
from .test_commands import settings, write

CHANGE = {"name": "settings", "offset": 1022 * SECTOR, "length": SECTOR, "data": journal_format.base64.b64encode(
    bytes(range(256)) * 2).decode()}  # fmt: skip


def make(backups: Path, verb: str = "set", phase: str = "done", card: str = "c") -> Journal:
    folder = journal.new_folder(backups, card, verb)
    made = Journal(
        folder, verb, {"size": 1100 * SECTOR}, {1016 * SECTOR: bytes(8 * SECTOR)}, [CHANGE], "v4-wirefree",
        number=journal.number_of(folder),
    )  # fmt: skip
    made.write(phase)
    return made


@pytest.mark.slow
def test_every_flipped_bit_is_noticed(tmp_path):
    """Any bit of what will be written, of the backup, of everything: 1 of 8 positions of every byte."""
    made = make(tmp_path)
    good = made.path.read_bytes()
    for at in range(len(good)):
        bad = bytearray(good)
        bad[at] ^= 1 << at % 8
        made.path.write_bytes(bad)
        try:
            same = journal.load(made.folder)
        except JournalError:
            continue
        assert (same.backup, same.changes, same.number, same.verb) == (made.backup, [CHANGE], made.number, "set")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 3}, "format 3 is unknown to this version"),
        ({"format": True}, "format True is unknown"),
        ({"format": None}, "format None is unknown"),
        ({"verb": "format"}, "command 'format' is unknown"),
        ({"verb": None}, "'verb' is missing or of the wrong kind"),
        ({"phase": "halfway"}, "ended at 'halfway', which is no step of its own"),
        ({"phase": "counts"}, "ended at 'counts', which is no step of its own"),
        ({"phase": ""}, "no step of its own"),
        ({"phase": None}, "'phase' is missing or of the wrong kind"),
        ({"number": -1}, "out of range"),
        ({"number": 1 << 60}, "out of range"),
        ({"session": "xyz"}, "hex"),
        ({"session": "00" * 17}, "session"),
        ({"card": {}}, "'size' is missing"),
        ({"card": {"size": "1"}}, "'size' is missing or of the wrong kind"),
        ({"card": {"size": 1100 * SECTOR, "cid": ["x"]}}, "'cid' of its card is of the wrong kind"),
        ({"card": {"size": 1100 * SECTOR, "card_id": 7}}, "'card_id' of its card is of the wrong kind"),
        ({"backup": {"-512": journal_format.pack(bytes(512))}}, "no place of a sector"),
        ({"backup": {"7": journal_format.pack(bytes(512))}}, "no place of a sector"),
        ({"backup": {"512": journal_format.pack(bytes(511))}}, "not sectors of its card"),
        ({"backup": {"512": "AAAA"}}, "backup is"),
        ({"backup": {"512": 5}}, "wrong kind"),
        ({"backup": {str(1099 * SECTOR): journal_format.pack(bytes(1024))}}, "not sectors of its card"),
        ({"changes": [5]}, "a change is no object"),
        ({"changes": [{**CHANGE, "name": "firmware"}]}, "a change of 'firmware' is unknown to this version"),
        ({"changes": [{**CHANGE, "name": "intent"}]}, "a change of 'intent' is unknown"),
        ({"changes": [{**CHANGE, "offset": -512}]}, "not sectors of its card"),
        ({"changes": [{**CHANGE, "length": 0}]}, "not sectors of its card"),
        ({"changes": [{**CHANGE, "length": 1024}]}, "another length than it says"),
        ({"changes": [{k: v for k, v in CHANGE.items() if k != "data"}]}, "data of 'settings' is missing"),
        ({"changes": [{**CHANGE, "data": "AA"}]}, "padding"),
    ],
)  # fmt: skip
def test_what_is_not_believed(tmp_path, change, message):
    """The checksum fits: somebody wrote this on purpose, or a newer version did."""
    made = make(tmp_path)
    content = {**json.loads(made.path.read_text()), **change}
    content["sha256"] = journal_format.checksum(content)
    made.path.write_text(json.dumps(content))
    with pytest.raises(JournalError, match=message):
        journal.load(made.folder)
    assert [file for file, _ in journal.find(tmp_path).skipped] == [made.path]


def test_text_that_is_no_journal(tmp_path):
    for text in (b"\xff\xfe", b"[" * 100_000, b'{"format": NaN}', b"null", b'{"format": 1, "time": "today"}'):
        (tmp_path / "journal.json").write_bytes(text)
        with pytest.raises(JournalError, match="not an intact backup of ours"):
            journal.load(tmp_path)


def test_a_bomb_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(journal_format, "MOST", 1 << 16)
    with pytest.raises(ValueError, match="cut off, or too long"):
        journal_format.unpack(journal_format.pack(bytes(1 << 20)))
    (tmp_path / "journal.json").write_bytes(bytes(1 << 17))
    with pytest.raises(JournalError, match="MB long"):
        journal.load(tmp_path)


@needs.fifos
def test_a_pipe_named_as_a_journal_does_not_hang(tmp_path):
    good = make(tmp_path)
    pipe = journal.new_folder(tmp_path, "c", "wipe") / journal.NAME
    os.mkfifo(pipe)
    begun = time.monotonic()
    found = journal.find(tmp_path)
    assert time.monotonic() - begun < 30
    assert [j.folder for j in found.journals] == [good.folder]
    assert found.skipped[0][0] == pipe
    assert "no regular file" in found.skipped[0][1]


@needs.links
def test_a_link_in_place_of_the_temporary_file_is_not_written_through(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "a.tmp").symlink_to(precious)
    journal.save(tmp_path / "a", b"new")
    assert precious.read_text() == "mine"
    assert (tmp_path / "a").read_bytes() == b"new"


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="a time zone is set in a process on POSIX alone")
def test_the_order_is_that_of_the_operations(tmp_path, monkeypatch):
    """Whatever the clock, the time zone and the alphabet say."""
    verbs = ["wipe", "prepare", "set", "backup", "restore"]
    clock = [1_700_000_000_000_000_000]
    monkeypatch.setattr(journal.time, "time_ns", lambda: clock[0])
    for i, verb in enumerate(verbs):
        monkeypatch.setenv("TZ", ("UTC", "Pacific/Kiritimati", "Pacific/Niue")[i % 3])
        time.tzset()
        clock[0] -= 3600 * 10**9  # the clock is set back by an hour each time
        make(tmp_path, verb, card="cd"[i % 2])
    monkeypatch.delenv("TZ")
    time.tzset()
    assert [j.verb for j in journal.find(tmp_path).journals] == verbs[::-1]


def old_format(made: Journal, time: str, **changed: object) -> None:
    content = {k: v for k, v in json.loads(made.path.read_text()).items() if k not in ("number", "utc")}
    content.update(format=1, time=time, sha256=journal_format.digest(made.backup), **changed)
    made.path.write_text(json.dumps(content))


def test_journals_of_the_first_format(tmp_path):
    """Their time has a zone; their changes have no checksum."""
    first, second, third = (make(tmp_path, verb) for verb in ("prepare", "set", "wipe"))
    old_format(first, "2026-01-01T12:00:00+0900")
    old_format(second, "2026-01-01T05:00:00+0000")
    found = journal.find(tmp_path).journals
    assert [j.verb for j in found] == ["wipe", "set", "prepare"]
    assert [j.trusted for j in found] == [True, False, False]
    assert third.number > found[1].number == 1767243600 * 10**6


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    make(tmp_path)
    real = os.scandir

    def scandir(path):
        if Path(path).name == "d":
            raise PermissionError(13, "Permission denied")
        return real(path)

    (tmp_path / "d").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", scandir)
        found = journal.find(tmp_path)
    assert len(found.journals) == 1
    assert found.skipped == ((tmp_path / "d", "cannot be listed: Permission denied"),)
    assert journal.find(tmp_path / "nothing") == journal.FoundJournals((), ())


def test_one_bad_journal_does_not_block_a_card(tmp_path, capsys):
    """The settings come back from the good one, and the bad one is named."""
    tool = Tool(capsys, tmp_path / "backups")
    card = write(tmp_path / "card.img", v4_card())
    before = settings(card)
    assert tool("set", card, "gain=4").code == 0
    bad = next((tmp_path / "backups").iterdir()) / "20990101T000000.000000Z-set"
    bad.mkdir()
    (bad / "journal.json").write_text("{")
    result = tool("restore", card)
    assert result.code == 0
    assert f"skipped {bad / 'journal.json'}: this is not an intact backup of ours" in result.out
    assert settings(card) == before


def test_of_many_that_cannot_be_read_a_few_are_named(tmp_path, capsys):
    """As in a folder of somebody else's: the message stays one that a person reads."""
    tool = Tool(capsys, tmp_path / "backups")
    card = write(tmp_path / "card.img", v4_card())
    for n in range(9):
        bad = tmp_path / "backups" / "card" / f"2099010{n + 1}T000000.000000Z-set"
        bad.mkdir(parents=True)
        (bad / "journal.json").write_text("{")
    result = tool("restore", card)
    assert result.code == 3
    assert result.err.count("this is not an intact backup of ours") == 3
    assert "skipped 6 more, which could not be read either" in result.err


def test_every_step_a_command_writes_down_is_known(tmp_path):
    """Whatever a command calls its changes, and however far it came, its journal can be read again."""
    for verb in ("prepare", "set", "wipe", "blank-table", "qualify"):
        card = with_table(v4_card(), gpt=True) if verb == "blank-table" else v4_card()
        seen = seen_on(card)
        if verb == "qualify":
            plan = make_plan(seen.layout, seen.contents.settings, {}, seen.disk.size, must_fit=False)
            changes = qualify.changes_for(plan, 1)
        else:
            changes = job_for(verb, card, tmp_path).changes
        folder = journal.new_folder(tmp_path, "c", verb)
        made = Journal(folder, verb, seen.disk.to_json(), {}, [c.to_json() for c in changes], seen.layout.id)
        for phase in ("intent", *(change.name for change in changes), "done"):
            made.write(phase)
            assert journal.load(folder).phase == phase
