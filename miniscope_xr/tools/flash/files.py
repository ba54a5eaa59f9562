"""Files that somebody named as the image of a card, and that are something else.

A disk is held back by its reader, its mounts and its tables. A file has none of these: a path that was typed wrongly is
any file of a lab, and ``--image`` was typed too. So of a file everything has to be zeros, or a Miniscope's, or a table
or file system known by name (which ``blank-table`` is there to remove).
"""

from __future__ import annotations

from miniscope_xr.index.front import State
from miniscope_xr.layout import SECTOR, builtin_layouts
from miniscope_xr.source.words import empty_image_command
from miniscope_xr.tools.flash.contents import Contents, read_contents
from miniscope_xr.tools.flash.errors import RefusedError
from miniscope_xr.tools.flash.look import Look
from miniscope_xr.tools.flash.operation import STEP
from miniscope_xr.tools.flash.target.base import Target

_BLANK = (bytes(SECTOR), b"\xff" * SECTOR)


def refuse_strangers(target: Target, seen: Look) -> None:
    """Refuse a file in which nothing is of a Miniscope, and something is not zero: nobody knows what that is.

    Raises
    ------
    RefusedError
        Names the first sector that holds something.
    """
    if seen.disk.bus not in ("image", "loop") or seen.named_signatures or seen.has_recording:
        return
    state = max((_trace(card) for card in _as_every_layout(target, seen)), key=lambda found: found.weight)
    if state.weight > State.NOTEBOOK.weight:
        return
    at = first_used(target, 0, len(seen.front))
    if at is None and state is State.EMPTY and seen.disk.bus == "image":
        at = first_used(target, seen.data_start, target.size // SECTOR * SECTOR)
    if at is not None:
        raise RefusedError(
            f"{seen.disk.path} holds something unknown (sector {at // SECTOR} is the first), and nothing that a "
            "Miniscope or this tool writes: it may be any file, so nothing is written to it. An image to begin with "
            f"is a new, empty file: `{empty_image_command(64 * 10**9)}`"
        )


def _as_every_layout(target: Target, seen: Look) -> list[Contents]:
    fitting = [known for known in builtin_layouts().values() if target.size > known.sectors.data * SECTOR + SECTOR]
    return [seen.contents, *(read_contents(target, known) for known in fitting)]


def _trace(card: Contents) -> State:
    """Return what one layout sees; keys and our stamp count as prepared."""
    return max(card.state, State.PREPARED if card.keys or card.stamp else State.EMPTY, key=lambda state: state.weight)


def first_used(target: Target, start: int, stop: int) -> int | None:
    """Find the first sector that is neither zeros nor 0xFF, as an erased card reads; None if all are."""
    at = start
    while at < stop:
        at = max(at, target.next_data(at))
        length = min(STEP, stop - at)
        if length <= 0:
            break
        data = target.read(at, length)
        if data.count(0) != len(data) and data.count(0xFF) != len(data):
            for i in range(0, len(data), SECTOR):
                if data[i : i + SECTOR] not in _BLANK:
                    return at + i
        at += length
    return None
