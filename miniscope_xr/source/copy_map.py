"""The map beside a copy of a card: which bytes were read, which could not be, and which were not tried yet.

It is a map file of GNU ddrescue, so that ``ddrescue -d CARD COPY COPY.map`` can go on with what could not be read. A
comment in it says which card the copy is of.
"""

from __future__ import annotations

import errno
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from miniscope_xr.errors import OutputError
from miniscope_xr.source.base import SECTOR, ByteSource
from miniscope_xr.source.replace import write_whole

FRONT = (1022, 1023, 1024, 1025)
"""Sectors that tell cards apart: settings, counts and first header of every layout of ours."""
_ROW = re.compile(r"^[ \t]*(0x[0-9A-Fa-f]+|\d+)\s+(0x[0-9A-Fa-f]+|\d+)\s+([-+?*/])[ \t]*$", re.MULTILINE)


def card_marks(source: ByteSource, sectors: Iterable[int] = FRONT) -> str:
    """Say which card this is: its size, and a hash of each of some sectors; one that cannot be read has none."""
    marks = [str(source.size)]
    for sector in sorted(set(sectors)):
        data, bad = source.salvage(sector * SECTOR, SECTOR)
        if not bad:
            marks.append(f"{sector}:{hashlib.sha256(data).hexdigest()[:12]}")
    return " ".join(marks)


def same_card(one: str, other: str) -> bool:
    """Whether two :func:`card_marks` can be of one card: nothing that both could read differs."""
    (size, *first), (other_size, *second) = one.split(), other.split()
    known = dict(mark.split(":", 1) for mark in first if ":" in mark)
    marks = [mark.split(":", 1) for mark in second if ":" in mark]
    return size == other_size and all(known.get(sector, digest) == digest for sector, digest in marks)


def same_content(one: str, other: str) -> bool:
    """Whether two :func:`card_marks` can be of a card and a copy of it, which may be shorter."""
    return same_card(" ".join(["-", *one.split()[1:]]), " ".join(["-", *other.split()[1:]]))


def marked_card(text: str) -> str:
    """The :func:`card_marks` in a map of ours; empty in one of ddrescue's own."""
    found = re.search(r"^# card: (.+)$", text, re.MULTILINE)
    return found[1].strip() if found else ""


def _spans(text: str) -> list[tuple[int, int, str]]:
    """The rows of a map: start, length and status of each span; none if it is no map."""
    found = [(int(start, 0), int(length, 0), status) for start, length, status in _ROW.findall(text)]
    whole = bool(found) and found[0][0] == 0 and all(a + n == b for (a, n, _), (b, _, _) in pairwise(found))
    return found if whole else []


def unread_spans(text: str) -> list[tuple[int, int]]:
    """Bytes that a map does not call read (not tried, bad, or given up on for now); none if it is no map."""
    return [(start, length) for start, length, status in _spans(text) if status != "+"]


@dataclass
class CopyMap:
    """Which bytes of ``end`` are copied (``+``), unreadable (``-``) or not tried (``?``)."""

    end: int
    """Bytes the copy will have."""
    card: str
    """:func:`card_marks` of the card."""
    done: int = 0
    """Bytes tried so far, from the start on."""
    bad: list[tuple[int, int]] = field(default_factory=list)
    """Unreadable bytes."""

    @property
    def unread(self) -> list[tuple[int, int]]:
        """Bytes the copy does not have: (offset, length)."""
        rest = [(self.done, self.end - self.done)] if self.done < self.end else []
        return [*self.bad, *rest]

    def text(self) -> str:
        """Return it as a ddrescue map file."""
        rows = []
        at = 0
        for start, length in [*self.bad, (self.done, 0)]:
            if start > at:
                rows.append((at, start - at, "+"))
            if length:
                rows.append((start, length, "-"))
            at = start + length
        if self.done < self.end:
            rows.append((self.done, self.end - self.done, "?"))
        lines = [f"0x{start:08X}  0x{length:08X}  {status}" for start, length, status in rows]
        state = "+" if self.done >= self.end else "?"
        head = [
            "# Mapfile. Created by miniscope-xr",
            f"# card: {self.card}",
            "# current_pos  current_status  current_pass",
        ]
        return "\n".join(
            [*head, f"0x{self.done:08X}     {state}               1", "#      pos        size  status", *lines, ""]
        )

    @classmethod
    def parse(cls, text: str, path: Path | str | None = None) -> CopyMap:
        """Read a map: one of ours, also after ddrescue went on with it, or one of ddrescue's own (``card`` is empty).

        Raises
        ------
        OutputError
            It is no such map.
        """
        spans = _spans(text)
        if not spans:
            raise OutputError(
                errno.EINVAL, "is not a map of a copy of ours; remove it, or give --force to begin anew",
                None if path is None else str(path),
            )  # fmt: skip
        end = spans[-1][0] + spans[-1][1]
        untried = [start for start, _, status in spans if status == "?"]
        bad = [(start, length) for start, length, status in spans if status in "-*/"]
        return cls(end, marked_card(text), min(untried, default=end), bad)

    def save(self, path: Path) -> None:
        """Write the map so that it is whole at any time: the old one stays until the new one is on the disk."""
        write_whole(path, self.text().encode())
