"""Every card that a power cut can leave, enumerated completely, and what becomes of it.

Between two flushes a card holds the sectors it was sent in a cache of its own. When the power goes, any of them may be
on the medium and any not, whatever the order they were sent in, and one may be half written: new bytes in front and old
ones behind, or the other way round, with the border anywhere. A model of a run is its time line of writes, flushes and
journals (each journal is on the computer's disk before the next step, so a cut leaves one version of it). From it
follow all states: at every point of the time line, each subset of the sectors in flight, each with none, one or two
torn (a card that writes to two of its chips at once can leave two).

A sector whose content does not change is the same in every subset, so a card with few sectors that hold anything makes
the whole set small; nothing of it is left out.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from miniscope_xr.tools.flash import jobs, journal, recover, whose_backup
from miniscope_xr.tools.flash.disks.base import Disk
from miniscope_xr.tools.flash.journal import FoundJournals, Journal
from miniscope_xr.tools.flash.look import Look, look

from .fakes import DISK, SECTOR, FaultDisk

AFTER_REBOOT = replace(DISK, cid="", diskseq=7, reader="another reader")
"""The card when the computer is up again: the reader shows no number of it, and counts anew."""


@dataclass
class Memory:
    """Journals as they are on the computer's disk; ``journal.Journal.write`` puts them into the one in use."""

    used: ClassVar[Memory]

    kept: dict[Path, Journal] = field(default_factory=dict)
    log: list[tuple] = field(default_factory=list)
    made: int = 0

    def install(self, patch: pytest.MonkeyPatch) -> None:
        def write(old: Journal, phase: str) -> None:
            old.phase = phase
            Memory.used.kept[old.folder] = copy.copy(old)
            Memory.used.log.append(("journal", phase))

        def new_folder(backup_dir: Path, card_id: str, verb: str) -> Path:
            Memory.used.made += 1
            folder = backup_dir / "c" / f"20301231T0000{Memory.used.made:02d}.000000Z-{verb}"
            folder.mkdir(parents=True, exist_ok=True)
            return folder

        Memory.used = self
        patch.setattr(Journal, "write", write)
        patch.setattr(journal, "new_folder", new_folder)
        patch.setattr(whose_backup, "look", look_once)

    def found(self) -> FoundJournals:
        return FoundJournals(tuple(sorted(self.kept.values(), key=lambda j: j.number, reverse=True)), ())


class Recorder(FaultDisk):
    """A card that writes down what it is sent, beside the journals."""

    def __init__(self, media: bytes, memory: Memory) -> None:
        super().__init__(media)
        self.memory = memory

    def write(self, offset: int, data: bytes) -> None:
        self.memory.log.append(("write", offset, bytes(data)))
        super().write(offset, data)

    def flush(self) -> None:
        self.memory.log.append(("flush",))
        super().flush()


@dataclass(frozen=True)
class Point:
    """What is certain at a point of the time line, and what is in flight; ``done`` is how far the journal is."""

    settled: bytes
    flying: dict[int, bytes]
    journal: str | None


def points(start: bytes, log: list[tuple]) -> list[Point]:
    """All points of a time line that differ; what flies at an earlier point of the same stretch is a subset."""
    settled, flying, phase = bytearray(start), {}, None
    found: dict[tuple[bytes, str | None], dict[int, bytes]] = {}
    for event in log:
        if event[0] == "journal":
            phase = event[1]
        elif event[0] == "flush":
            for sector, data in flying.items():
                settled[sector * SECTOR : (sector + 1) * SECTOR] = data
            flying = {}
        else:
            _, at, data = event
            for i in range(0, len(data), SECTOR):
                sector, new = (at + i) // SECTOR, data[i : i + SECTOR]
                assert sector not in flying, "a sector is sent twice between two flushes: its versions must be listed"
                if new != settled[at + i : at + i + SECTOR]:
                    flying[sector] = new
        found[bytes(settled), phase] = dict(flying)
    return [Point(settled, flying, phase) for (settled, phase), flying in found.items()]


def torn(old: bytes, new: bytes) -> set[bytes]:
    """Every mixture with one border, except for the two whole ones."""
    borders = range(1, len(new))
    mixed = {new[:k] + old[k:] for k in borders} | {old[:k] + new[k:] for k in borders}
    return mixed - {old, new}


def cards(point: Point, at_once: int = 1) -> Iterator[bytes]:
    """Every card a power cut can leave at this point, each once; up to so many sectors are torn ``at_once``."""
    old = {s: point.settled[s * SECTOR : (s + 1) * SECTOR] for s in point.flying}
    whole = {s: [(s, old[s]), (s, new)] for s, new in point.flying.items()}
    half = {s: [(s, mixed) for mixed in sorted(torn(old[s], new))] for s, new in point.flying.items()}
    for many in range(at_once + 1):
        for chosen in itertools.combinations(point.flying, many):
            for written in itertools.product(*(half[s] if s in chosen else whole[s] for s in point.flying)):
                yield _with(point.settled, written)


def _with(settled: bytes, sectors) -> bytes:
    card = bytearray(settled)
    for sector, data in sectors:
        card[sector * SECTOR : (sector + 1) * SECTOR] = data
    return bytes(card)


_looks: dict[tuple, Look] = {}


def look_once(disk: FaultDisk, known: Disk, layout: str, *, whole: bool) -> Look:
    """`look`, which is most of the work: the same card is looked at by `restore`, by `resume`, and again by both."""
    key = (disk.view(), layout, whole)
    if key not in _looks:
        if len(_looks) > 8:
            _looks.clear()
        _looks[key] = look(disk, known, layout, whole=whole)
    return _looks[key]


def look_again(card: bytes, memory: Memory, choose, *, whole: bool) -> tuple | None:
    """What the commands do first: find the backup, then look with its layout."""
    Memory.used = memory
    disk = FaultDisk(card)
    known = replace(AFTER_REBOOT, size=len(card))
    mine = whose_backup.own(disk, known, memory.found())
    old = choose(mine, disk) if choose is recover.to_restore else choose(mine)
    return None if old is None else (copy.copy(old), disk, look_once(disk, known, old.layout, whole=whole))


def resume(card: bytes, memory: Memory, backups: Path) -> bytes | None:
    """`resume`; None if it says that there is nothing to finish."""
    found = look_again(card, memory, recover.to_resume, whole=True)
    if found is None:
        return None
    old, disk, seen = found
    jobs.carry_out(recover.resume(disk, seen, old), disk, backups)
    return disk.view()


def restore(card: bytes, memory: Memory, backups: Path) -> bytes:
    """`restore`; it has to find a backup."""
    found = look_again(card, memory, recover.to_restore, whole=False)
    assert found is not None, "no backup is found"
    old, disk, seen = found
    job = recover.restore(disk, seen, old)
    if job.changes:
        jobs.carry_out(job, disk, backups)
    return disk.view()


def differing(a: bytes, b: bytes) -> list[int]:
    """Sectors in which two cards differ."""
    x, y = (np.frombuffer(card, "<u8").reshape(-1, SECTOR // 8) for card in (a, b))
    return np.flatnonzero((x != y).any(axis=1)).tolist()
