"""Backups and journals on this computer: a power cut leaves the old file or the new one, never half of one.

One folder per operation, ``BACKUP_DIR/<card id>/<time, UTC>-<verb>/``, with ``journal.json``: the backup, what will be
done, and how far it came (:mod:`miniscope_xr.tools.flash.journal_format`). Journals are ordered by their number: the
time in UTC, or one more than the newest there is, so neither time zones nor a clock that was set back mix them up.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from miniscope_xr.source.own_files import data_folder, everywhere
from miniscope_xr.source.regular import read_regular
from miniscope_xr.source.replace import settle, write_whole
from miniscope_xr.source.windows import unusable
from miniscope_xr.tools.flash import journal_format as text
from miniscope_xr.tools.flash.errors import JournalError

NAME = "journal.json"
OldSectors = Mapping[int, bytes]
"""Bytes of the card as they were, by byte offset."""
_STAMPED = re.compile(r"(\d{8}T\d{6}\.\d{6})Z-.*")
_TIME = "%Y%m%dT%H%M%S.%f"
_NAMED = 3  # journals that cannot be read, or folders, that are named


def default_dir() -> Path:
    """Return where backups go if ``--backup-dir`` names no folder."""
    return data_folder() / "backups"


def places(backup_dir: Path) -> list[Path]:
    """Return the folder, and where it is the usual one also those that other Pythons of this computer use for it."""
    usual = [folder / "backups" for folder in everywhere(data_folder())]
    return usual if backup_dir == usual[0] else [backup_dir]


def save(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole, or not at all, and read it back."""
    try:
        write_whole(path, data)
        settle(path.parent)
        back = path.read_bytes()
    except OSError as error:
        raise JournalError(
            error.errno,
            f"the backup cannot be written ({error.strerror}); make room there, or give --backup-dir",
            str(path),
        ) from error
    if back != data:
        raise JournalError(5, "the backup reads back differently; give --backup-dir on another disk", str(path))


@dataclass
class Journal:
    """One operation: the backup, the intended changes, and the phase it reached."""

    folder: Path
    verb: str
    card: Mapping[str, Any]
    backup: OldSectors
    changes: list[dict[str, Any]]
    layout: str = ""
    session: str = ""
    phase: str = "intent"
    about: Mapping[str, Any] = field(default_factory=dict)
    changed: bool = False
    number: int = 0
    trusted: bool = True
    """False in a journal of format 1, whose changes no checksum covers."""

    @property
    def path(self) -> Path:
        """The journal file."""
        return self.folder / NAME

    @property
    def finished(self) -> bool:
        """True if everything was done and verified."""
        return self.phase == "done"

    @cached_property
    def _packed(self) -> dict[str, str]:
        return {str(offset): text.pack(data) for offset, data in sorted(self.backup.items())}

    def before(self, offset: int, length: int) -> bytes | None:
        """Return the card's bytes as they were, if the backup has them."""
        for start, data in self.backup.items():
            if start <= offset and offset + length <= start + len(data):
                return data[offset - start : offset - start + length]
        return None

    def write(self, phase: str) -> None:
        """Record that ``phase`` begins (``done``: that everything is verified)."""
        self.phase = phase
        content = {
            "number": self.number, "utc": text.utc(self.number), "verb": self.verb, "phase": phase,
            "layout": self.layout, "session": self.session, "card": dict(self.card), "about": dict(self.about),
            "changes": self.changes, "backup": self._packed,
        }  # fmt: skip
        save(self.path, text.encode(content))


def number_of(folder: Path) -> int:
    """Read an operation's number from the name of its folder; 0 if it has none."""
    match = _STAMPED.fullmatch(folder.name)
    with contextlib.suppress(ValueError):
        if match:
            time = datetime.datetime.strptime(match[1], _TIME).replace(tzinfo=datetime.UTC)
            return (time - text.EPOCH) // datetime.timedelta(microseconds=1)
    return 0


def _next_number(backup_dir: Path) -> int:
    cards = (card for place in places(backup_dir) for card in _folders(place, []))
    newest = max((number_of(folder) for card in cards for folder in _folders(card, [])), default=0)
    return max(time.time_ns() // 1000, newest + 1)


def new_folder(backup_dir: Path, card_id: str, verb: str) -> Path:
    """Make a fresh folder for one operation, numbered behind all others."""
    parent = backup_dir / re.sub(r"[^\w.-]", "_", card_id)
    if sys.platform == "win32" and (why := unusable(str(parent))):
        raise JournalError(errno.EINVAL, f"the backup folder cannot be made: {why}", str(parent))
    try:
        parent.mkdir(parents=True, exist_ok=True)
        number = _next_number(backup_dir)
        for attempt in range(100):  # another process may take the number that was free a moment ago
            at = text.EPOCH + datetime.timedelta(microseconds=number + attempt)
            folder = parent / f"{at.strftime(_TIME)}Z-{verb}"
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                return folder
    except OSError as error:
        raise JournalError(
            error.errno, f"the backup folder cannot be made ({error.strerror}); give --backup-dir", str(parent)
        ) from error
    raise JournalError(errno.EEXIST, "the backup folder is full of this moment's backups; try again", str(parent))


def load(path: Path) -> Journal:
    """Read a journal (its file or its folder), and check everything in it before anything of it is used.

    Raises
    ------
    JournalError
        It cannot be read, or is not a journal as this tool writes it; says in which point.
    """
    file = path / NAME if path.is_dir() else path
    try:
        found = text.decode(read_regular(file, text.MOST))
    except OSError as error:
        raise JournalError(
            error.errno, f"this backup cannot be read: {error.strerror}; give the folder of one", str(file)
        ) from error
    except ValueError as error:
        raise JournalError(
            errno.EINVAL, f"this is not an intact backup of ours ({error}); give another with --backup", str(file)
        ) from error
    return Journal(
        file.parent, found["verb"], found["card"], found["backup"], found["changes"], found["layout"],
        found["session"], found["phase"], found["about"], number=found["number"], trusted=found["format"] > 1,
    )  # fmt: skip


@dataclass(frozen=True)
class FoundJournals:
    """The journals in a backup folder, newest first, and what is named like one but cannot be used: file, reason."""

    journals: tuple[Journal, ...]
    skipped: tuple[tuple[Path, str], ...]

    def told(self) -> list[str]:
        """What was skipped and why: a few by name, and how many more there are."""
        named = [f"skipped {file}: {why}" for file, why in self.skipped[:_NAMED]]
        more = len(self.skipped) - len(named)
        return [*named, f"skipped {more} more, which could not be read either"] if more else named


def _folders(parent: Path, skipped: list[tuple[Path, str]]) -> list[Path]:
    try:
        with os.scandir(parent) as entries:
            return [Path(entry.path) for entry in entries if entry.is_dir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        skipped.append((parent, f"cannot be listed: {error.strerror}"))
        return []


def find(backup_dir: Path) -> FoundJournals:
    """Find every journal below ``backup_dir``; one that is damaged is named, and does not hide the others."""
    found: list[Journal] = []
    skipped: list[tuple[Path, str]] = []
    for folder in _operations(backup_dir, skipped):
        try:
            found.append(load(folder))
        except JournalError as error:
            skipped.append((folder / NAME, str(error.strerror)))
    found.sort(key=lambda journal: (journal.number, journal.folder.name), reverse=True)
    return FoundJournals(tuple(found), tuple(sorted(skipped)))


def _operations(backup_dir: Path, skipped: list[tuple[Path, str]]) -> Iterable[Path]:
    """Return the folder of each operation that has a journal.

    An operation may have one in two places: a Python of the Microsoft Store that goes on with it leaves the old one,
    and writes into its own. What was written last counts.
    """
    newest: dict[tuple[str, str], tuple[int, Path]] = {}
    for place in places(backup_dir):
        for card in _folders(place, skipped):
            for folder in _folders(card, skipped):
                try:
                    written = (folder / NAME).lstat().st_mtime_ns
                except FileNotFoundError:  # interrupted before its first word
                    continue
                except OSError:  # why will be said when it is read
                    written = 0
                known = newest.get((card.name, folder.name))
                if known is None or known[0] < written:
                    newest[card.name, folder.name] = written, folder
    return [folder for _, folder in newest.values()]


def journals(backup_dir: Path) -> Iterator[Journal]:
    """Yield every usable journal below ``backup_dir``, newest first."""
    yield from find(backup_dir).journals
