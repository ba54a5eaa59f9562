"""Rescue what is left of recordings: read a whole card once, keep every buffer, make an image that opens.

When a user meets this: Windows asked to format the card, and someone said yes; a copy lacks its first megabytes; the
settings sectors cannot be read. Each buffer says itself which one it is, so all of them are found by their headers
(:mod:`miniscope_xr.index.find`) and copied to where they were; everything else is left out. The image is sparse, and
the reader judges it like a card: it opens with the newest recording. What the reader does not count to that is of older
recordings; with ``everything`` each of these gets an image of its own, made of the buffers that are left over.

While the card is read, the image is ``OUT.img.part``, with ``OUT.img.map`` beside it; an interrupted rescue goes on
where it stopped.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from dataclasses import replace as replace_field
from pathlib import Path
from typing import Any

from miniscope_xr.card import OpenCard
from miniscope_xr.errors import MiniscopeError, NotACardError, OutputError
from miniscope_xr.index.filesystem import find_file_systems
from miniscope_xr.index.find import Finder, FoundBuffers
from miniscope_xr.index.tables import Stretches
from miniscope_xr.layout import SECTOR, Layout, builtin_layouts, load_layout
from miniscope_xr.source.base import ByteSource
from miniscope_xr.source.copy_map import CopyMap, card_marks
from miniscope_xr.source.open import open_device
from miniscope_xr.source.replace import remove, replace
from miniscope_xr.source.spliced import open_spliced
from miniscope_xr.tools.check.check import check
from miniscope_xr.tools.check.result import CheckResult, count
from miniscope_xr.tools.copy.ends import data_end
from miniscope_xr.tools.copy.fronts import Claimed, newest, older, unclaimed
from miniscope_xr.tools.copy.gather import gather
from miniscope_xr.tools.copy.part import UNFINISHED, continued, open_part, refuse_outputs, room_for
from miniscope_xr.tools.flash.operation import Progress
from miniscope_xr.tools.stream.outputs import output_errors

LEAST = 3
"""Buffers that make a recording: one sector of noise can look like a header, three in a row do not."""
_MOST_OLDER = 50


@dataclass(frozen=True)
class RescuedImage:
    """One image made of what was found, and what a reader finds in it."""

    path: Path
    result: CheckResult

    @property
    def frames(self) -> int:
        """Frames in it."""
        return sum(r.frames for r in self.result.recordings)

    def describe(self) -> list[str]:
        """Say what came back."""
        lines = [f"{self.path}: layout {self.result.layout}"]
        for r in self.result.recordings:
            whole = "" if r.complete_frames is None else f", {r.complete_frames:,} of them whole"
            lines.append(f"  recording {r.number} ({r.status}): {count(r.frames, 'frame')}{whole}")
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return it for ``--json``."""
        recordings = [
            {"number": r.number, "status": r.status, "frames": r.frames, "complete_frames": r.complete_frames,
             "buffers": r.buffers} for r in self.result.recordings
        ]  # fmt: skip
        return {"path": str(self.path), "layout": self.result.layout, "recordings": recordings}


@dataclass(frozen=True)
class Rescued:
    """What came back: the images, newest recording first, and what is in none of them."""

    images: tuple[RescuedImage, ...]
    found: int
    left: int
    torn: int = 0
    """Buffers that something else was written into since; they are in no image."""
    bad: tuple[tuple[int, int], ...] = field(default=())

    @property
    def bad_sectors(self) -> int:
        """Sectors that could not be read."""
        return sum(length for _, length in self.bad) // SECTOR


def _on_its_sectors(path: str, layout: str | Layout | None) -> ByteSource:
    """Open a card; an image from which bytes were left out, or into which some were put, as the reader sees it."""
    source = open_device(path)
    if source.size % SECTOR:
        with contextlib.suppress(MiniscopeError), contextlib.closing(OpenCard(path, layout)) as card:
            if card.splices:
                source.close()
                return open_spliced(path, card.splices)
    return source


def rescue(
    path: str,
    out: Path,
    *,
    layout: str | Layout | None = None,
    everything: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> Rescued:
    """Find every buffer on a card and write an image that opens.

    Parameters
    ----------
    path
        Device, image file or URL.
    out
        The image; images of older recordings are called ``OUT-older1.img`` and so on.
    layout
        Look for buffers of this layout only.
    everything
        Make images of older recordings too.
    force
        Replace ``out``, and begin anew.

    Raises
    ------
    NotACardError
        No buffer of a known firmware is on the card.
    OutputExistsError, RefusedError, CardReadError, OutputError
        As for :func:`miniscope_xr.tools.copy.image.copy_image`.
    """
    part, map_file, _ = refuse_outputs(path, out, force)
    layouts = [load_layout(layout)] if layout is not None else list(builtin_layouts().values())
    finder = Finder(layouts)
    with contextlib.closing(_on_its_sectors(path, layout)) as source:
        copy = CopyMap(source.size, card_marks(source))
        copy = copy if force else continued(copy, part, map_file)
        _refuse_tight(source, path, part, copy, layouts, progress)
        try:
            with output_errors(part, UNFINISHED), open_part(part, anew=not copy.done) as file:
                found = gather(source, file, finder, copy, map_file, progress)
                if len(found.first) < LEAST:
                    raise NotACardError(
                        f"{path}: of {source.size // SECTOR} sectors none begins a recording of a known firmware; "
                        "check that this is the card, or give --layout with a layout of your firmware"
                    )
                foreign = _foreign(path, source, layout)
                claimed, torn = newest(source, file, part, layouts, found, foreign)
            replace(part, out)  # closed by now: Windows gives no other name to an open file
            rest = unclaimed(found, [*claimed, *torn])
            made, left = _images(out, layouts, rest, claimed, foreign, everything, force)
        except Exception as error:
            if copy.done and not isinstance(error, NotACardError):
                raise  # what was read is kept
            for file_ in (part, map_file):
                remove(file_)
            raise
    return Rescued(tuple(made), len(found.first), left, len(torn), tuple(copy.bad))


def _foreign(path: str, source: ByteSource, layout: str | Layout | None) -> Stretches:
    """Sectors among the buffers that a file system has written, or that are the card's own, as its reader has it."""
    with contextlib.suppress(MiniscopeError), contextlib.closing(OpenCard(path, layout, errors="fill")) as card:
        under_own = [(sector, sector + 1) for sector in card.index.own]
        return under_own + [each for system in card.index.file_systems for each in system.written]
    return [each for system in find_file_systems(source, whole=True) for each in system.written]


def _refuse_tight(
    source: ByteSource, path: str, part: Path, copy: CopyMap, layouts: Sequence[Layout], progress: Progress | None
) -> None:
    """Refuse where the disk has no room: for the whole card, or at least for it up to where recordings reach.

    How much of that is buffers is known once it was read; most cards are full from the front on.
    """
    says = "the image takes up to"
    with contextlib.suppress(OutputError), room_for(part, copy, path, says):
        return
    end = min(max(data_end(source, layouts, progress), copy.done), copy.end)
    with room_for(part, replace_field(copy, end=end), path, says):
        pass


def _images(
    out: Path,
    layouts: Sequence[Layout],
    rest: FoundBuffers,
    claimed: Claimed,
    foreign: Stretches,
    everything: bool,
    force: bool,
) -> tuple[list[RescuedImage], int]:
    """Make the images of older recordings; returns these and the first, and the buffers that are in none."""
    made = [RescuedImage(out, check(str(out), progress=False))]
    with open(out, "rb") as file:
        for number in range(1, _MOST_OLDER * everything + 1):
            name = out.with_name(f"{out.stem}-older{number}{out.suffix}")
            if len(rest.first) < LEAST or not (claimed := older(file, name, layouts, rest, claimed, foreign, force)):
                break
            made.append(RescuedImage(name, check(str(name), progress=False)))
            rest = unclaimed(rest, claimed)
    return made, len(rest.first)
