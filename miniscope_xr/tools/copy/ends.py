"""Where a copy ends: behind everything that looks like a recording."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from miniscope_xr.card import OpenCard, OpenRecording
from miniscope_xr.errors import CardReadError, NotACardError, OptionError
from miniscope_xr.layout import SECTOR, Layout, builtin_layouts, load_layout
from miniscope_xr.source.base import ByteSource
from miniscope_xr.source.salvage import Tolerant
from miniscope_xr.tools.flash.operation import Progress
from miniscope_xr.tools.flash.stale import find_extents

MARGIN = 1 << 20
"""Bytes copied behind the recordings: what lies there tells a reader how the last one ended."""


def end_byte(opened: OpenRecording, frames: int | None = None) -> int:
    """Byte behind the last recording of the card, or behind the first ``frames`` frames of this one."""
    source = opened.card.source()
    if frames is None:
        end = opened.card.index.recordings[-1].end_sector * SECTOR
    else:
        if isinstance(frames, bool) or not isinstance(frames, int) or frames < 1:
            raise OptionError(f"frame={frames!r}: expected the number of frames to copy (1 or more)")
        end = opened.frames.position(min(frames, opened.frames.count))
    return min(end, source.size)


def _frames_end(card: OpenCard, frames: int) -> int:
    """Byte behind the first frames of a card's first recording."""
    if frames < 1:
        raise OptionError(f"--frames {frames}: expected the number of frames to copy (1 or more)")
    return end_byte(OpenRecording(card, card.index.recordings[0]), frames)


def data_end(source: ByteSource, layouts: Sequence[Layout], progress: Progress | None) -> int:
    """Byte behind everything that looks like a recording in one of these layouts; 0 if nothing does.

    It is the search by which ``prepare`` says what would be lost, so that a copy never holds less.
    """
    ends = find_extents(Tolerant(source), layouts, progress)
    return max((ends[each.id] for each in layouts if ends[each.id] > each.sectors.data * SECTOR), default=0)


def recording_end(
    source: ByteSource, path: str, layout: str | None, frames: int | None, progress: Progress | None
) -> int:
    """Find the byte behind all that was recorded (or behind the first frames of the first recording), and a margin.

    Raises
    ------
    NotACardError
        Nothing on the card looks like a recording.
    """
    try:
        card = OpenCard(path, layout, errors="fill")
    except CardReadError:
        raise
    except ValueError as error:  # no card, blank, ambiguous: what it holds may still be a recording without its front
        known = [load_layout(layout)] if layout else list(builtin_layouts().values())
        found = data_end(source, known, progress) if frames is None else 0
        if not found or not isinstance(error, NotACardError):
            raise
        return found + MARGIN
    with closing(card):
        if frames is not None:
            return _frames_end(card, frames)
        end = card.index.recordings[-1].end_sector * SECTOR
        return max(end, data_end(source, [card.index.layout], progress)) + MARGIN
