"""Clocks set back, two users, links and cards exchanged in between, and backups that cannot be written any more."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from miniscope_xr.errors import OutputExistsError
from miniscope_xr.tools.copy import image as images
from miniscope_xr.tools.copy import part
from miniscope_xr.tools.flash import ask, jobs, journal
from miniscope_xr.tools.flash.disks.find import identify
from miniscope_xr.tools.flash.errors import RefusedError
from miniscope_xr.tools.flash.target.linux import FileTarget
from tests import needs

from ..small_disk import small_disk
from .cli import Tool, card_id
from .fakes import v4_card
from .loops import loop, needs_loops
from .test_commands import COUNTS, DATA, interrupted, settings, write, zero

pytestmark = pytest.mark.slow
SIZE = 16 << 20
linux_calls = pytest.mark.skipif(not hasattr(os, "preadv"), reason="images are opened otherwise elsewhere")


@pytest.fixture
def tool(capsys, tmp_path):
    return Tool(capsys, tmp_path / "backups")


@pytest.fixture
def card(tmp_path):
    return write(tmp_path / "card.img", v4_card(SIZE), SIZE)


def test_a_clock_that_was_set_back(tool, card, monkeypatch):
    """By twenty years, in the middle of a prepare: what came last is still the last."""
    assert tool("set", card, "led=3").code == 0
    assert interrupted(tool, card, monkeypatch, "--discard-recording", card_id(card)).code == 6
    real = time.time_ns
    monkeypatch.setattr(journal.time, "time_ns", lambda: real() - 20 * 365 * 86400 * 10**9)
    done = tool("resume", card)
    assert done.code == 0
    assert "finishes prepare" in done.out
    assert settings(card)["gain"] == 4
    assert tool("resume", card).code == 3
    assert tool("set", card, "led=9").code == 0
    assert settings(card)["led"] == 9
    assert tool("restore", card).code == 0  # undoes the set, not the prepare before it, which has the later date
    assert (settings(card)["gain"], settings(card)["led"]) != (1, 3)
    assert settings(card)["led"] != 9
    assert settings(card)["gain"] == 4


def test_two_people_with_backups_of_their_own(capsys, card, tmp_path, monkeypatch):
    """One is interrupted, the other prepares; what the first had begun is not finished over it."""
    ann, root = Tool(capsys, tmp_path / "ann"), Tool(capsys, tmp_path / "root")
    assert ann("set", card, "led=3").code == 0
    assert interrupted(ann, card, monkeypatch, "--discard-recording", card_id(card)).code == 6
    before = card.read_bytes()
    for verb in ("resume", "restore"):  # the other's backups know nothing of it
        refused = root(verb, card)
        assert refused.code == 3
        assert "--backup" in refused.err
        assert card.read_bytes() == before
    assert root("prepare", card, "gain=2x", "record_length=1", "--discard-recording", card_id(card)).code == 0
    assert settings(card)["gain"] == 2
    recorded = bytearray(card.read_bytes())
    recorded[COUNTS:] = v4_card(SIZE).ljust(SIZE, b"\0")[COUNTS:]
    card.write_bytes(recorded)
    refused = ann("resume", card)
    assert refused.code == 3
    assert "changed since" in refused.err or "used since" in refused.err
    assert card.read_bytes() == bytes(recorded)
    assert ann("restore", card).code in (0, 3)
    assert card.read_bytes()[DATA:] == bytes(recorded[DATA:])


@pytest.fixture
def open_folder():
    """A folder that every user may look into, whatever another run of pytest does to pytest's own meanwhile."""
    with tempfile.TemporaryDirectory(prefix="home-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@needs.root
def test_backups_that_root_left_in_a_users_home(card, open_folder, capsys, monkeypatch):
    """`sudo` that keeps HOME: the user may read the journals, not write them. Nothing is begun that cannot be noted."""
    backups, card = open_folder / "backups", Path(shutil.copy(card, open_folder))
    assert interrupted(Tool(capsys, backups), card, monkeypatch, "--discard-recording", card_id(card)).code == 6
    before = card.read_bytes()
    code = (
        "import os, pkgutil, sys\n"
        "import miniscope_xr.tools.cli.program, miniscope_xr.tools.flash as flash, miniscope_xr.tools.cli as cli\n"
        "from miniscope_xr.tools.cli import main\n"
        "for room in (flash, cli):\n"  # all of it: another user may not see this folder
        "    for found in pkgutil.walk_packages(room.__path__, room.__name__ + '.'): __import__(found.name)\n"
        "import numpy.lib.format, encodings.cp437, platformdirs, yaml\n"
        "from miniscope_xr.layout import builtin_layouts; builtin_layouts()\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    card.chmod(0o666)
    words = ["resume", str(card), "--image", "--backup-dir", str(backups), "--yes", "--card", card_id(card)]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 5, done.stderr
    assert "cannot be written" in done.stderr
    assert "as the first interruption left it" in done.stderr
    assert card.read_bytes() == before
    assert Tool(capsys, backups)("resume", card).code == 0
    assert settings(card)["gain"] == 4


@linux_calls
def test_another_recording_under_the_same_settings(tool, card, monkeypatch):
    """Of two cards that were prepared alike, with one id, the other lies in the reader when the answer comes."""
    assert tool("prepare", card, "gain=2x", "record_length=1", "--discard-recording", card_id(card)).code == 0
    recorded = bytearray(card.read_bytes())  # the stamp in the settings is the id of both
    recorded[COUNTS:] = v4_card(SIZE).ljust(SIZE, b"\0")[COUNTS:]
    card.write_bytes(recorded)
    data, shown = bytearray(recorded), card_id(card)
    data[DATA + 100] ^= 1

    def swap(*args, **named):
        card.write_bytes(data)
        assert card_id(card) == shown

    monkeypatch.setattr(ask, "confirm", swap)
    refused = tool("prepare", card, "gain=4", "record_length=1", "--discard-recording", card_id(card))
    assert refused.code == 3, refused.err
    assert "changed since it was shown" in refused.err
    assert card.read_bytes() == bytes(data)


@linux_calls
@needs_loops
@pytest.mark.parametrize("write_it", [False, True])
def test_a_link_that_leads_to_a_disk_by_now(card, tmp_path, write_it):
    """It was an image when it was looked at: as such nobody asks whether it is mounted."""
    target = write(tmp_path / "disk.img", b"", SIZE)
    link = tmp_path / "link.img"
    link.symlink_to(card)
    disk = identify(str(link))
    with loop(target) as device:
        with contextlib.suppress(OSError):
            Path(disk.path).unlink()
        Path(disk.path).symlink_to(device)
        with pytest.raises(RefusedError, match="not what it was"):
            FileTarget(disk, write=write_it)
    assert zero(target.read_bytes())


@linux_calls
@pytest.mark.parametrize("write_it", [False, True])
def test_another_image_has_the_name_by_now(card, tmp_path, write_it):
    disk = identify(str(card))
    write(tmp_path / "other.img", v4_card(SIZE), SIZE).replace(card)
    before = card.read_bytes()
    with pytest.raises(RefusedError, match="not what it was"):
        FileTarget(disk, write=write_it)
    assert card.read_bytes() == before


@needs.fifos
@pytest.mark.parametrize("name", ["out.img", "out.img.map", "out.img.part", "out.img.sha256", "out.img.map.tmp"])
def test_outputs_that_become_links_meanwhile(card, tmp_path, monkeypatch, name):
    """Nothing is written through them."""
    precious, out = tmp_path / "precious", tmp_path / "out.img"
    precious.write_bytes(b"mine")
    real = part._piece

    def piece(source, copy):
        link = tmp_path / name
        link.unlink(missing_ok=True)
        link.symlink_to(precious)
        return real(source, copy)

    monkeypatch.setattr(part, "_piece", piece)
    with contextlib.suppress(OutputExistsError, OSError):
        images.copy_image(str(card), out)
    assert precious.read_bytes() == b"mine"


@pytest.mark.parametrize("how", ["read-only", "full"])
def test_backups_that_cannot_be_written_in_the_middle(capsys, card, tmp_path, monkeypatch, how):
    """It stops there with true words, and goes on when they can."""
    with small_disk(tmp_path / "small", 1 << 20) as disk:
        real = jobs.run

        def spoilt(*args, **named):
            write_phase = journal.Journal.write

            def at(self, phase):
                if phase == "settings" and how == "full":
                    with contextlib.suppress(OSError), open(disk / "filler", "wb", buffering=0) as filler:
                        while True:
                            filler.write(bytes(4096))
                elif phase == "settings":
                    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
                write_phase(self, phase)

            with monkeypatch.context() as patch:
                patch.setattr(journal.Journal, "write", at)
                real(*args, **named)

        with monkeypatch.context() as patch:
            patch.setattr(jobs, "run", spoilt)
            tool = Tool(capsys, disk)
            words = ("gain=4", "record_length=1", "--discard-recording", card_id(card), "--json")
            stopped = tool("prepare", card, *words)
        assert stopped.code == 6, stopped.err
        assert stopped.json["card_changed"] is True
        assert "`resume` finishes it" in stopped.err
        assert settings(card)["gain"] == 1
        middle = card.read_bytes()
        again = tool("resume", card)
        assert again.code == 5, again.err
        assert "as the first interruption left it" in again.err
        assert card.read_bytes() == middle
        if how == "full":
            (disk / "filler").unlink()
        else:
            subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        assert tool("resume", card).code == 0
        assert settings(card)["gain"] == 4
