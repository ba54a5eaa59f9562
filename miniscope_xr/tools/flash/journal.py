"""Backups and journals on this computer: a power cut leaves the old file or the new one, never half of one.

One folder per operation, ``BACKUP_DIR/<card id>/<time>-<verb>/``, with ``journal.json`` (the backup, what will be
done, and how far it came) and ``old_buffers.json`` (see :mod:`miniscope_xr.tools.flash.stale`).
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from miniscope_xr.tools.flash.errors import JournalError

NAME = "journal.json"
Sectors = Mapping[int, bytes]
"""Bytes of the card as they were, by byte offset."""


def default_dir() -> Path:
    """Return where backups go if ``--backup-dir`` names no folder."""
    from platformdirs import user_data_path

    return user_data_path("miniscope-xr", appauthor=False) / "backups"


def save(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole, or not at all, and read it back."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        with contextlib.suppress(PermissionError):  # a folder cannot be opened on Windows
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        back = path.read_bytes()
    except OSError as error:
        raise JournalError(
            error.errno,
            f"the backup cannot be written ({error.strerror}); make room there, or give --backup-dir",
            str(path),
        ) from error
    if back != data:
        raise JournalError(5, "the backup reads back differently; give --backup-dir on another disk", str(path))


def pack(data: bytes) -> str:
    """Turn bytes into compressed text."""
    return base64.b64encode(zlib.compress(data, 1)).decode()


def unpack(text: str) -> bytes:
    """Return the bytes of :func:`pack`."""
    return zlib.decompress(base64.b64decode(text))


def digest(sectors: Sectors) -> str:
    """Return a checksum over a backup."""
    total = hashlib.sha256()
    for offset in sorted(sectors):
        total.update(offset.to_bytes(8, "little") + sectors[offset])
    return total.hexdigest()


@dataclass
class Journal:
    """One operation: the backup, the intended changes, and the phase it reached."""

    folder: Path
    verb: str
    card: Mapping[str, Any]
    backup: Sectors
    changes: list[dict[str, Any]]
    layout: str = ""
    session: str = ""
    phase: str = "intent"
    about: Mapping[str, Any] = field(default_factory=dict)
    changed: bool = False

    @property
    def path(self) -> Path:
        """The journal file."""
        return self.folder / NAME

    @cached_property
    def _packed(self) -> dict[str, Any]:
        packed = {str(offset): pack(data) for offset, data in sorted(self.backup.items())}
        return {"sha256": digest(self.backup), "backup": packed}

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
            "format": 1, "verb": self.verb, "phase": phase, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "layout": self.layout, "session": self.session, "card": dict(self.card), "about": dict(self.about),
            "changes": self.changes, **self._packed,
        }  # fmt: skip
        save(self.path, json.dumps(content, indent=1).encode())


def new_folder(backup_dir: Path, card_id: str, verb: str) -> Path:
    """Make a fresh folder for one operation."""
    parent = backup_dir / re.sub(r"[^\w.-]", "_", card_id)
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{verb}"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(100):
            folder = parent / (f"{name}-{attempt}" if attempt else name)
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                return folder
    except OSError as error:
        raise JournalError(
            error.errno, f"the backup folder cannot be made ({error.strerror}); give --backup-dir", str(parent)
        ) from error
    raise JournalError(17, "the backup folder is full of this second's backups; try again", str(parent))


def load(path: Path) -> Journal:
    """Read a journal (its file or its folder) and check its backup's checksum."""
    file = path / NAME if path.is_dir() else path
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        backup = {int(offset): unpack(text) for offset, text in content["backup"].items()}
        if digest(backup) != content["sha256"]:
            raise ValueError("its checksum does not match")
        return Journal(
            file.parent, str(content["verb"]), content["card"], backup, list(content["changes"]),
            str(content["layout"]), str(content["session"]), str(content["phase"]), content["about"],
        )  # fmt: skip
    except OSError as error:
        raise JournalError(
            error.errno, f"this backup cannot be read: {error.strerror}; give the folder of one", str(file)
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, zlib.error) as error:
        raise JournalError(
            22, f"this is not an intact backup of ours ({error}); give another with --backup", str(file)
        ) from error


def journals(backup_dir: Path) -> Iterator[Journal]:
    """Find every readable journal below ``backup_dir``, newest first."""
    files = sorted(backup_dir.glob(f"*/*/{NAME}"), key=lambda f: (f.parent.name, f.stat().st_mtime_ns), reverse=True)
    for file in files:
        with contextlib.suppress(JournalError):
            yield load(file)
