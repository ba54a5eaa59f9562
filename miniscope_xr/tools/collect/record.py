"""The sidecar of a copy, ``COPY.img.json``: what was told, which card it was, and what has been made of it so far.

It is on the disk before the copy begins, and says at any time what is done: a run that was killed goes on from it.
Whatever is written is named in it first, so that a file that is found without its name there is somebody else's.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from miniscope_xr.engine import sidecar
from miniscope_xr.errors import OutputError, OutputExistsError
from miniscope_xr.source.copy_map import same_card
from miniscope_xr.source.replace import remove, remove_tree, write_whole
from miniscope_xr.tools.stream.outputs import headers_beside, kind_of, output_errors

_FORMAT = 1
_MOST_SIDECARS = 100_000
_DATA = 1025  # no layout has settings or counts from this sector on


@dataclass
class Sidecar:
    """What is known of one copy."""

    image: Path
    """The copy."""
    about: dict[str, str] = field(default_factory=dict)
    """What was told."""
    card: dict[str, Any] = field(default_factory=dict)
    """Id, model, size and marks (:func:`~miniscope_xr.source.copy_map.card_marks`) of the card."""
    copy: dict[str, Any] = field(default_factory=dict)
    """Bytes, SHA-256 and unreadable sectors; empty while the copy is not whole."""
    check: dict[str, Any] = field(default_factory=dict)
    """What the check found; empty before it was."""
    made: dict[str, str] = field(default_factory=dict)
    """By the name of each output: what it was made of and with, in one hash."""
    making: list[str] = field(default_factory=list)
    """Outputs that are being written: a half of one, or a whole one of an earlier run, is ours."""
    prepared: str = ""
    """The preset with which the card was prepared again; empty where it was not."""
    preparing: str = ""

    @property
    def path(self) -> Path:
        """The sidecar."""
        return sidecar.beside(self.image)

    @property
    def marks(self) -> str:
        """What tells the card from others."""
        return str(self.card.get("marks", ""))

    def is_of(self, marks: str, card_id: str) -> bool:
        """Whether it is of the card with these marks and this id.

        Settings are those of many cards, data is of one: where none of it could be read, the id has to say so.
        """
        known = shared_data(self.marks, marks) or card_id == self.card.get("id")
        return bool(self.marks) and known and same_card(self.marks, marks)

    def save(self) -> None:
        """Write it so that it is there whole, or as it was."""
        content = {sidecar.MARK: _FORMAT, "about": self.about, "card": self.card}
        for name in ("copy", "check", "made", "making", "prepared", "preparing"):
            if value := getattr(self, name):
                content[name] = dict(sorted(value.items())) if name == "made" else value
        data = (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()
        with output_errors(self.path, "run it again to go on"):
            if self.path.is_file() and self.path.read_bytes() == data:
                remove(self.path.with_name(self.path.name + ".tmp"))  # as a kill leaves it
                return
            write_whole(self.path, data)

    def begin(self, *names: str) -> None:
        """Say that outputs are about to be written."""
        self.making = sorted({*self.making, *names})
        self.save()

    def done(self, *names: str, of: str) -> None:
        """Say that they are whole, and what they were made of."""
        self.making = [name for name in self.making if name not in names]
        self.made.update(dict.fromkeys(names, of))
        self.save()

    def tidy(self) -> None:
        """Take away what a run that was killed left half written: the names that outputs have before they are whole."""
        finals = [self.image.with_name(name) for name in self.making]
        finals += [headers_beside(final) for final in finals]
        for final in [*finals, self.image.with_name(self.image.name + ".sha256")]:
            _tidy(final)


def _tidy(final: Path) -> None:
    """Temporary files and folders beside an output; they are named as ``whole_file`` and ``whole_folder`` do."""
    name = re.compile(rf"\.{re.escape(final.stem[:40])}-[a-z0-9_]{{8}}\.part({re.escape(final.suffix)})?")
    with contextlib.suppress(OSError):
        for entry in list(final.parent.iterdir()):
            if name.fullmatch(entry.name):
                if entry.is_dir() and not entry.is_symlink():
                    remove_tree(entry)
                else:
                    remove(entry)


def shared_data(one: str, other: str) -> bool:
    """Whether two marks of cards both know a sector that holds data, and not settings or counts."""
    known = [{mark.partition(":")[0] for mark in marks.split()[1:]} for marks in (one, other)]
    return any(sector.isdecimal() and int(sector) >= _DATA for sector in known[0] & known[1])


def read_sidecar(image: Path) -> Sidecar | None:
    """Return the record of a copy; None where there is none yet.

    Raises
    ------
    OutputExistsError
        A file of somebody else's has its name.
    """
    path = sidecar.beside(image)
    if not kind_of(path):
        return None
    with output_errors(path):
        found = sidecar.read(path)
    if found is None:
        raise OutputExistsError(errno.EEXIST, "exists already and is no record of ours; give another name", str(path))
    return _record(image, found)


def _record(image: Path, found: dict[str, Any]) -> Sidecar:
    kinds = {"about": dict, "card": dict, "copy": dict, "check": dict, "made": dict, "making": list}
    values: dict[str, Any] = {name: found[name] for name, kind in kinds.items() if isinstance(found.get(name), kind)}
    words = [str(found.get(name, "")) for name in ("prepared", "preparing")]
    return Sidecar(image, **values, prepared=words[0], preparing=words[1])


def read_sidecars(folder: Path) -> Iterator[Sidecar]:
    """Yield the record of every copy in a folder and those below it."""
    ending = ".img" + sidecar.SUFFIX
    for number, (where, _, names) in enumerate(os.walk(folder)):
        if number > _MOST_SIDECARS:
            raise OutputError(
                errno.EINVAL, f"has more than {_MOST_SIDECARS} folders; collect into another", str(folder)
            )
        for name in sorted(names):
            if name.endswith(ending):
                with contextlib.suppress(OSError):
                    found = sidecar.read(Path(where, name))
                    if found is not None:
                        yield _record(Path(where, name[: -len(sidecar.SUFFIX)]), found)
