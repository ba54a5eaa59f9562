"""What to type next, complete, where a card holds no recording: the daily case on the first day."""

from __future__ import annotations

import os

from miniscope_xr.errors import BlankCardError, MiniscopeError, NotACardError
from miniscope_xr.index.detect import prepared
from miniscope_xr.source.local import Device
from miniscope_xr.source.words import one_after_the_other, quoted

SETTINGS = "gain=2x led=10 ewl=120 record_length=30min fs=20"
_LOOK = 1 << 20  # bytes at the start: past the settings and counts of every layout
_FILE_SYSTEMS = {3: {b"EXFAT   ": "exFAT", b"NTFS    ": "NTFS"}, 54: {b"FAT": "FAT"}, 82: {b"FAT32": "FAT32"}}


def next_step(error: Exception, path: str) -> str:
    """A sentence with the next command for a card on which nothing was recorded; empty where there is none.

    Examples
    --------
    A new card, all zeros: ``It looks like a new card; to prepare it: miniscope-xr prepare /dev/sdb --layout v4-wirefree
    gain=2x ...``.
    """
    if not isinstance(error, NotACardError) or "://" in path:
        return ""
    try:
        with Device(path) as source:
            if isinstance(error, BlankCardError):
                card = prepared(source, None)[0]
                counted = card.config is not None and card.config["n_buffers_recorded"]
                return _held(quoted(path)) if counted else _of_blank(path, card.layout.id)
            return _of_new(path, source.read(0, _LOOK), source.size)
    except (MiniscopeError, OSError, IndexError):
        return ""


def _of_blank(path: str, layout: str) -> str:
    card = quoted(path)
    return (
        "It is ready: put it into the Miniscope and record. To change its settings first: "
        f"miniscope-xr set {card} --layout {layout}{_image(path)} led=20"
    )


def _of_new(path: str, start: bytes, size: int) -> str:
    card = quoted(path)
    command = f"miniscope-xr prepare {card} --layout v4-wirefree{_image(path)} {SETTINGS}"
    if size < _LOOK:
        return ""
    if start == start[:1] * len(start) and start[:1] in (b"\0", b"\xff"):
        return f"It looks like a new card (nothing is written at its start); to prepare it: {command}. {_held(card)}"
    for at, names in _FILE_SYSTEMS.items():
        for magic, name in names.items():
            if start[at : at + len(magic)] == magic:
                return _formatted(card, f"a {name}" if name.startswith("FAT") else f"an {name}", path, command)
    if start[510:512] == b"\x55\xaa":
        return _formatted(card, "a partition table or", path, command)
    return ""


def _formatted(card: str, what: str, path: str, command: str) -> str:
    commands = one_after_the_other(f"miniscope-xr blank-table {card}{_image(path)}", command)
    return f"It has {what} file system, as cards are sold; if nothing on it is needed: {commands}. {_held(card)}"


def _held(card: str) -> str:
    return f"If it held a recording, write nothing to it; what is left of it: miniscope-xr rescue {card} rescued.img"


def _image(path: str) -> str:
    return " --image" if os.path.isfile(path) else ""  # noqa: PTH113
