"""Every way opening, reading, writing and flushing can fail has its own message."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

import pytest

from miniscope_xr.errors import CardNotFoundError, CardPermissionError, CardReadError
from miniscope_xr.source.words import as_administrator
from miniscope_xr.tools.flash import errors, operation
from miniscope_xr.tools.flash.disks.base import image_file
from miniscope_xr.tools.flash.errors import BusyError, CardWriteError, RefusedError
from miniscope_xr.tools.flash.target import linux as target
from miniscope_xr.tools.flash.target.base import open_error
from miniscope_xr.tools.flash.target.linux import FileTarget

from .fakes import SECTOR, Fault, FaultDisk


@pytest.fixture
def disk(tmp_path):
    file = tmp_path / "a.img"
    file.write_bytes(bytes(range(256)) * 16)
    return image_file(str(file))


linux_calls = pytest.mark.skipif(not hasattr(os, "preadv"), reason="the calls of Linux; RawTarget writes here")


@pytest.fixture
def card(disk):
    opened = FileTarget(disk, write=True)
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("number", "kind", "text"),
    [
        (errno.EBUSY, BusyError, "another program uses it"),
        (errno.EAGAIN, BusyError, "end that, then try again"),
        (errno.EACCES, CardPermissionError, as_administrator()),
        (errno.EPERM, CardPermissionError, "administrator"),
        (errno.EROFS, RefusedError, "lock switch"),
        (errno.ENOENT, CardNotFoundError, "`list`"),
        (getattr(errno, "ENOMEDIUM", errno.ENODEV), CardNotFoundError, "insert it"),
        (errno.EIO, CardReadError, "cannot be opened"),
    ],
)
def test_opening(number, kind, text):
    found = open_error("/dev/x", OSError(number, os.strerror(number)))
    assert isinstance(found, kind)
    assert text in str(found)
    assert errors.exit_code(found) == {BusyError: 4, CardPermissionError: 4, RefusedError: 3, CardNotFoundError: 2}.get(
        kind, 5
    )
    assert open_error("/dev/x", found if isinstance(found, OSError) else OSError(5, "x"))


def test_exit_codes_of_other_errors():
    assert errors.exit_code(PermissionError("x")) == 4
    assert errors.exit_code(RuntimeError("x")) == 5
    assert errors.exit_code(OSError("x")) == 5


def fail(number):
    def call(*args, **named):
        raise OSError(number, os.strerror(number))

    return call


@linux_calls
def test_failures_name_the_sector(card, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, "preadv", fail(5))
        with pytest.raises(CardReadError, match=r"sectors from 2 cannot be read.*another reader"):
            card.read(2 * SECTOR, SECTOR)
        patch.setattr(os, "preadv", lambda *a: 100)
        with pytest.raises(CardReadError, match="only 100 of 512 bytes at sector 2; the card ended early"):
            card.read(2 * SECTOR, SECTOR)
        patch.setattr(os, "pwritev", fail(28))
        with pytest.raises(CardWriteError, match="sector 3 cannot be written: No space"):
            card.write(3 * SECTOR, bytes(SECTOR))
        patch.setattr(os, "pwritev", lambda *a: 256)
        with pytest.raises(CardWriteError, match="only 256 of 512 bytes were written at sector 3"):
            card.write(3 * SECTOR, bytes(SECTOR))
        patch.setattr(os, "fsync", fail(5))
        with pytest.raises(CardWriteError, match="cannot be flushed"):
            card.flush()
        patch.setattr(os, "fstat", fail(19))
        with pytest.raises(CardWriteError, match="does not answer any more"):
            card.same()
    assert card.read(0, 4096) == bytes(range(256)) * 16


@linux_calls
def test_resized(card):
    os.truncate(card.path, 1024)
    with pytest.raises(CardWriteError, match="nothing more is written"):
        card.same()


@linux_calls
def test_two_at_once(card, disk, monkeypatch):
    monkeypatch.setattr(target, "_LOCK_PATIENCE", 0.15)
    with pytest.raises(BusyError, match="locked by a copy of this tool"):
        FileTarget(disk, write=True)
    FileTarget(disk, write=False).close()


@linux_calls
def test_another_image_than_identified(disk):
    with pytest.raises(RefusedError, match="not the card it was a moment ago"):
        FileTarget(replace(disk, diskseq=5), write=False)


@linux_calls
def test_holes_are_skipped(tmp_path):
    file = tmp_path / "sparse.img"
    with open(file, "wb") as out:
        out.truncate(8 << 20)
        out.seek(4 << 20)
        out.write(b"\x01" * 4096)
    card = FileTarget(image_file(str(file)), write=True)
    try:
        assert card.next_data(0) in (0, 4 << 20), "0 where the file system knows no holes"
        assert card.next_data(6 << 20) in (6 << 20, 8 << 20)
        card.reread_partitions()
        operation.apply(card, operation.Change("data", 0, 8 << 20))
    finally:
        card.close()
    assert file.read_bytes() == bytes(8 << 20)


@linux_calls
def test_no_holes_known(card, monkeypatch):
    monkeypatch.setattr(os, "lseek", fail(errno.EINVAL))
    assert card.next_data(512) == 512
    monkeypatch.delattr(os, "SEEK_DATA")
    assert card.next_data(1024) == 1024


def test_reads_that_differ():
    with pytest.raises(CardReadError, match=r"read differently each time.*contacts"):
        operation.read_twice(FaultDisk(bytes(4096), Fault(1, "flipped", 5)), 0, 512)


def test_a_neighbour_that_is_disturbed(tmp_path):
    """Writing the settings clobbers the counts: the last look notices it."""
    from miniscope_xr.tools.flash.errors import InterruptedWriteError
    from miniscope_xr.tools.flash.journal import Journal

    class Clobbers(FaultDisk):
        def write(self, offset, data):
            super().write(offset, data)
            if offset == 1024:
                self.cache.append((512, b"\x01" * 512))

    changes = [operation.Change("counts", 512, 512), operation.Change("settings", 1024, 512, b"\x02" * 512)]
    journal = Journal(tmp_path, "prepare", {}, {0: b"\x03" * 4096}, [])
    with pytest.raises(InterruptedWriteError, match="counts: sectors from 1 read back differently") as caught:
        operation.run(Clobbers(b"\x03" * 4096), changes, journal)
    assert caught.value.card_changed


def test_a_journal_that_cannot_be_finished(tmp_path, monkeypatch):
    from miniscope_xr.tools.flash.errors import InterruptedWriteError, JournalError
    from miniscope_xr.tools.flash.journal import Journal

    real = Journal.write

    def write(self, phase):
        self.phase = phase
        if phase == "done":
            raise JournalError(28, "full")
        real(self, phase)

    monkeypatch.setattr(Journal, "write", write)
    journal = Journal(tmp_path, "set", {}, {0: bytes(4096)}, [])
    with pytest.raises(InterruptedWriteError, match="complete and verified; only the journal"):
        operation.run(FaultDisk(bytes(4096)), [operation.Change("settings", 512, 512, b"\x01" * 512)], journal)


def test_progress_bars(monkeypatch, capsys):
    import io
    import sys

    from miniscope_xr.tools.flash.progress import bars

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    with bars() as none:
        assert none is None
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with bars(quiet=True) as none:
        assert none is None
    with bars() as progress:
        for done in range(0, 101, 20):
            progress("data", done << 20, 100 << 20)
        progress("verifying data", 1, 2)
    assert "data" in screen.getvalue()
    assert "verifying data" in screen.getvalue()
