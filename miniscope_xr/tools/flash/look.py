"""Everything a command has to know of a card before it may write: read only, and shown to the user."""

from __future__ import annotations

from dataclasses import dataclass

from miniscope_xr.layout import Layout
from miniscope_xr.tools.flash.contents import Contents, inspect_card
from miniscope_xr.tools.flash.disks.find import Disk
from miniscope_xr.tools.flash.errors import RefusedError
from miniscope_xr.tools.flash.operation import Progress, read_twice
from miniscope_xr.tools.flash.refuse import SIGNATURE_BYTES, signatures
from miniscope_xr.tools.flash.stale import find_extent
from miniscope_xr.tools.flash.target.linux import SECTOR, Target

TAIL = 34 * SECTOR
"""Bytes at the end of a disk that hold the copy of a GPT."""
_BLOCK = 8 * SECTOR


@dataclass(frozen=True)
class Look:
    """A card as it was shown to the user."""

    disk: Disk
    contents: Contents
    block_offset: int
    block: bytes
    start: bytes
    tail: bytes
    data_end: int

    @property
    def layout(self) -> Layout:
        """The card's layout."""
        return self.contents.layout

    @property
    def data_start(self) -> int:
        """First byte of the data region."""
        return self.layout.sectors.data * self.layout.sectors.size

    @property
    def has_recording(self) -> bool:
        """True if anything on the card looks like a recording."""
        return self.data_end > self.data_start or bool(self.contents.counts.get("n_buffers_recorded"))

    @property
    def signatures(self) -> list[str]:
        """Partition tables and file systems on the card."""
        return signatures(self.start, self.tail)

    def lost(self) -> str:
        """Say what wiping would lose, for the question."""
        if not self.has_recording:
            return "nothing that looks like a recording"
        counted = self.contents.counts.get("n_buffers_recorded", 0)
        said = f"{counted} buffers by the card's own count" if counted else "its length was never counted"
        reach = (self.data_end - self.data_start) / 1e6
        return f"recording {self.contents.recording}: {said}" + (f"; data up to {reach:.1f} MB" if reach > 1e-3 else "")


def read_block(target: Target, layout: Layout) -> tuple[int, bytes]:
    """Read the sectors around settings, counts and the first data, twice."""
    sectors = [s for s in (layout.sectors.header, layout.sectors.config, layout.sectors.data) if s is not None]
    size = layout.sectors.size
    low = min(sectors) * size // _BLOCK * _BLOCK
    high = min(-(-(max(sectors) + 1) * size // _BLOCK) * _BLOCK, target.size)
    return low, read_twice(target, low, high - low)


def look(
    target: Target,
    disk: Disk,
    layout: str | None = None,
    progress: Progress | None = None,
    *,
    whole: bool = True,
) -> Look:
    """Read what there is to know; write nothing.

    ``whole`` looks for old data on all of the card, which takes a minute for 64 GB; without it only where a recording
    begins.
    """
    contents = inspect_card(target, layout)
    offset, block = read_block(target, contents.layout)
    start = read_twice(target, 0, min(SIGNATURE_BYTES, offset))
    tail = target.read(target.size - TAIL, TAIL) if target.size > offset + len(block) + TAIL else b""
    data = contents.layout.sectors.data * SECTOR
    end = find_extent(target, contents.layout, progress) if whole else data + SECTOR * (contents.state == "recorded")
    return Look(disk, contents, offset, block, start, tail, end)


def check_content(seen: Look, *, discard: str | None = None, writes_data: bool, verb: str) -> None:
    """Refuse what the card's own content speaks against.

    Raises
    ------
    RefusedError
        A partition table or file system, or a recording that would be lost.
    """
    if seen.signatures and verb != "blank-table":
        raise RefusedError(
            f"{seen.disk.path} holds {' and '.join(seen.signatures)}: it may be somebody's disk. Look at its "
            f"files; if it is the card, remove the table with `blank-table {seen.disk.path}` first"
        )
    if not (writes_data and seen.has_recording):
        return
    ids = (seen.contents.recording, seen.disk.card_id)
    if discard is None or discard.lower() not in ids:
        wrong = "" if discard is None else f" ({discard} is another)"
        raise RefusedError(
            f"{seen.disk.path} holds a {seen.lost()}, which would be lost{wrong}. Copy it first with `image`; "
            f"to give it up: --discard-recording {seen.contents.recording}",
            recording=seen.contents.recording,
        )
