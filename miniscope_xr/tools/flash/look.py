"""Everything a command has to know of a card before it may write: read only, and shown to the user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from miniscope_xr.layout import SECTOR, Layout, builtin_layouts
from miniscope_xr.source.magic import KIND_BYTES, file_kind
from miniscope_xr.tools.flash.contents import Contents, inspect_card, read_contents
from miniscope_xr.tools.flash.disks.base import Disk
from miniscope_xr.tools.flash.errors import RefusedError
from miniscope_xr.tools.flash.operation import Progress, read_twice
from miniscope_xr.tools.flash.plan import holds
from miniscope_xr.tools.flash.signatures import END_BYTES, SIGNATURE_BYTES, AtEnd, amid, at_end, at_start
from miniscope_xr.tools.flash.stale import find_extents
from miniscope_xr.tools.flash.target.base import Target

TAIL = 34 * SECTOR
"""Bytes at the end of a disk that hold the copy of a GPT."""
_BLOCK = 8 * SECTOR


@dataclass(frozen=True)
class FoundRecording:
    """A recording as one layout sees it; ``end`` is the byte behind what looks like its data."""

    contents: Contents
    end: int

    @property
    def layout(self) -> Layout:
        """The layout that sees it."""
        return self.contents.layout


@dataclass(frozen=True)
class Look:
    """A card as it was shown to the user."""

    disk: Disk
    contents: Contents
    """Settings and counts, read with the card's layout (or the one that was named)."""
    block_offset: int
    block: bytes
    """The sectors around settings, counts and the first data."""
    start: bytes
    """Everything in front of the block."""
    tail: bytes
    """The last bytes of the card."""
    found: tuple[FoundRecording, ...] = ()
    """A recording, once for every layout that sees one, whichever layout was named."""
    amid: tuple[AtEnd, ...] = ()
    """What is left of somebody's file system where recordings lie, its start being gone."""
    head: bytes = b""
    """The first bytes of the card, as many as the known signatures reach: also where a layout has its settings there.
    """

    @property
    def layout(self) -> Layout:
        """The card's layout."""
        return self.contents.layout

    @property
    def data_start(self) -> int:
        """First byte of the data region."""
        return self.layout.sectors.data * SECTOR

    @property
    def data_end(self) -> int:
        """First byte behind everything that looks like a recording of any layout."""
        return max([self.data_start, *(found.end for found in self.found)])

    @property
    def has_recording(self) -> bool:
        """True if anything on the card looks like a recording, of whatever layout."""
        return bool(self.found)

    @cached_property
    def recorded(self) -> Contents:
        """What the layout says that sees the recording; the card's own where it (or none at all) sees one.

        Layouts of one family have the same sectors: to any of them the recording is in its place.
        """
        fitting = [found.contents for found in self.found]
        same = [c for c in fitting if c.layout.sectors == self.layout.sectors]
        return self.contents if same or not fitting else fitting[0]

    @property
    def foreign(self) -> bool:
        """True if the recording lies in other sectors than those of the card's layout (or the one that was named)."""
        return self.has_recording and self.recorded is not self.contents

    @cached_property
    def front(self) -> bytes:
        """All bytes in front of the first settings sector of any layout: nothing of ours lies there."""
        return self.start + self.block[: _front_end(self.layout) - self.block_offset]

    @cached_property
    def ends(self) -> list[AtEnd]:
        """What lies at the end of the card and is somebody else's."""
        return at_end(self.tail, self.disk.size)

    @property
    def signatures(self) -> list[str]:
        """What is on the card and is somebody else's: partition tables, file systems, anything in front."""
        unknown = "" if at_start(self.head) else _unknown(self.front)
        return [*([unknown] if unknown else []), *self.named_signatures]

    @property
    def named_signatures(self) -> list[str]:
        """The partition tables, file systems and volumes among them that are known by name."""
        found = at_start(self.head)
        for name in (each.name for each in (*self.amid, *self.ends)):
            if name not in found and not ("GPT" in name and "a GPT partition table" in found):
                found.append(name)
        return found

    def lost(self) -> str:
        """Say what wiping would lose, for the question."""
        if not self.has_recording:
            return "nothing that looks like a recording"
        card = self.recorded
        counted = card.counts.get("n_buffers_recorded", 0)
        said = f"{counted} buffers by the card's own count" if counted else "its length is not counted"
        if counted and not holds(card.layout, card.counts, self.disk.size):
            said = f"{counted} buffers by its own count, which do not fit on this card of {self.disk.size} bytes"
        reach = (self.data_end - card.layout.sectors.data * SECTOR) / 1e6
        whose = f" of layout {card.layout.id}" if self.foreign else ""
        return f"recording {card.recording}{whose}: {said}" + (f"; data up to {reach:.1f} MB" if reach > 1e-3 else "")


def _front_end(layout: Layout) -> int:
    """Return the first byte at which a layout (this one, or one of ours) has something."""
    return SECTOR * min(layout.sectors.header, *(known.sectors.header for known in builtin_layouts().values()))


def _unknown(front: bytes) -> str:
    """Describe what is in front of the settings, empty if nothing is: zeros, or 0xFF as an erased card reads."""
    sectors = [front[i : i + SECTOR] for i in range(0, len(front), SECTOR)]
    blank = (bytes(SECTOR), b"\xff" * SECTOR)
    used = [i for i, sector in enumerate(sectors) if sector not in blank]
    if not used:
        return ""
    where = f"sector {used[0]}" if len(used) == 1 else f"{len(used)} of the sectors {used[0]} to {used[-1]}"
    return f"{file_kind(front[:KIND_BYTES]) or 'something unknown'} in front of the settings ({where})"


def read_block(target: Target, layout: Layout) -> tuple[int, bytes]:
    """Read the sectors around settings, counts and the first data, twice."""
    sectors = [s for s in (layout.sectors.header, layout.sectors.config, layout.sectors.data) if s is not None]
    low = min(sectors) * SECTOR // _BLOCK * _BLOCK
    high = min(-(-(max(sectors) + 1) * SECTOR // _BLOCK) * _BLOCK, target.size)
    return low, read_twice(target, low, high - low)


def refuse_files(target: Target, disk: Disk) -> None:
    """Refuse a file that is plainly something else than an image of a card.

    Raises
    ------
    RefusedError
        A picture, video, archive, document ...
    """
    if disk.bus not in ("image", "loop") or target.size < SECTOR:
        return
    kind = file_kind(target.read(0, min(KIND_BYTES, target.size // SECTOR * SECTOR)))
    if kind:
        raise RefusedError(f"{disk.path} is {kind}, not a card or the image of one; nothing is written to it")


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
    refuse_files(target, disk)
    contents = inspect_card(target, layout)
    offset, block = read_block(target, contents.layout)
    start = read_twice(target, 0, offset)
    behind = target.size - (offset + len(block))
    length = min(END_BYTES, behind // SECTOR * SECTOR)
    tail = target.read(target.size - length, length) if length > TAIL else b""
    found = _recordings(target, contents, progress, whole)
    head, reach = start + block, min(SIGNATURE_BYTES, target.size // SECTOR * SECTOR)
    head = head[:reach] if len(head) >= reach else target.read(0, reach)
    return Look(disk, contents, offset, block, start, tail, found, tuple(amid(target.read, target.size)), head)


def _recordings(
    target: Target, contents: Contents, progress: Progress | None, whole: bool
) -> tuple[FoundRecording, ...]:
    """Look for a recording with the card's layout and with every other one, whichever was named."""
    seen: Mapping[str, Contents] = {
        contents.layout.id: contents,
        **{
            known.id: read_contents(target, known)
            for known in builtin_layouts().values()
            if known.id != contents.layout.id and target.size >= (known.sectors.data + 1) * SECTOR
        },
    }
    ends = find_extents(target, [c.layout for c in seen.values()], progress, target.next_data) if whole else {}
    found = []
    for each in seen.values():
        begin = each.layout.sectors.data * SECTOR
        end = ends.get(each.layout.id, begin)
        if end == begin and each.state.begun:
            end = begin + SECTOR
        counted = each.counts.get("n_buffers_recorded") and holds(each.layout, each.counts, target.size)
        if end > begin or counted:
            found.append(FoundRecording(each, end))
    return tuple(found)


def check_content(
    seen: Look, *, discard: str | None = None, writes_data: bool, verb: str, dry_run: bool = False
) -> None:
    """Refuse what the card's own content speaks against.

    ``dry_run`` refuses no recording: nothing is lost by looking.

    Raises
    ------
    RefusedError
        A partition table or file system, or a recording that would be lost.
    """
    if seen.signatures and verb != "blank-table":
        told = seen.contents.prepared or seen.layout.id not in builtin_layouts()
        named = "" if told else f" --layout {seen.layout.id}"
        under = f". Behind it lies a {seen.lost()}: copy that first with `image`" if seen.has_recording else ""
        raise RefusedError(
            f"{seen.disk.path} holds {' and '.join(seen.signatures)}: it may be somebody's disk. Look at its "
            f"files; if it is the card, remove the table with `blank-table {seen.disk.path}{named}` first{under}"
        )
    refused = loss(seen, discard, verb) if writes_data or seen.foreign else None
    if refused and not dry_run:
        raise refused


def loss(seen: Look, discard: str | None, verb: str = "prepare") -> RefusedError | None:
    """Return the refusal to lose a recording, None if there is none or it was given up by its id."""
    if not seen.has_recording:
        return None
    recording, layout = seen.recorded.recording, seen.recorded.layout.id
    if seen.foreign and verb != "prepare":
        return RefusedError(
            f"{seen.disk.path} holds a {seen.lost()}, so it is no card of {seen.layout.id}: name --layout {layout}, "
            f"or make it one with `prepare --layout {seen.layout.id}`",
            recording=recording,
        )
    if discard is not None and discard.lower() in (recording, seen.disk.card_id):
        return None
    wrong = "" if discard is None else f" ({discard} is another)"
    named = f" --layout {layout}" if seen.foreign else ""
    return RefusedError(
        f"{seen.disk.path} holds a {seen.lost()}, which would be lost{wrong}. Copy it first with `image{named}`; "
        f"to give it up: --discard-recording {recording}",
        recording=recording,
    )
