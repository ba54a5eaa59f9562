"""The unfinished image, ``OUT.img.part``, and its map: room for it, what is read around bad sectors, going on later."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import threading
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

from miniscope_xr.errors import CardReadError, OutputError
from miniscope_xr.source.base import ByteSource
from miniscope_xr.source.copy_map import CopyMap, same_card
from miniscope_xr.source.salvage import is_gone
from miniscope_xr.tools.flash.errors import RefusedError
from miniscope_xr.tools.flash.operation import Progress
from miniscope_xr.tools.stream.outputs import output_errors, refuse_existing, refuse_source, refuse_special

STEP = 4 << 20
_HOLE = 64 << 10
_ZEROS = bytes(_HOLE)
_SAVE_EVERY = 256 << 20
UNFINISHED = "make room and run it again"
"""What to do when the copy cannot be written: what was copied stays."""


def _piece(source: ByteSource, copy: CopyMap) -> tuple[bytes, list[tuple[int, int]]]:
    """The next bytes of the copy, and the spans of them that are unreadable.

    Raises
    ------
    CardReadError
        The card is gone: a reader pulled out is no bad sector, and what it did not deliver is read another time.
    """
    length = min(STEP, copy.end - copy.done)
    try:
        data = source.read(copy.done, length)
        if len(data) < length:
            raise CardReadError(
                errno.EIO, f"the card ended at byte {copy.done + len(data)} of {copy.end}; it was cut meanwhile"
            )
    except CardReadError:
        data, bad = source.salvage(copy.done, length)
        if len(data) < length or (bad and sum(bad[-1]) == copy.done + length and is_gone(source)):
            raise
        return data, bad
    return data, []


def _write(file: BinaryIO, at: int, data: bytes) -> None:
    """Write what is not zero; the rest stays a hole."""
    with memoryview(data) as view:
        for blank, pieces in groupby(range(0, len(data), _HOLE), lambda i: data.startswith(_ZEROS[: len(data) - i], i)):
            places = [] if blank else list(pieces)
            done, stop = (places[0], min(places[-1] + _HOLE, len(data))) if places else (0, 0)
            file.seek(at + done)
            while done < stop:
                done += file.write(view[done:stop]) or 0


def refuse_outputs(path: str | None, out: Path, force: bool) -> tuple[Path, Path, Path]:
    """Refuse an image that cannot be written there; returns the names of its part, its map and its checksum.

    Raises
    ------
    OutputExistsError
        ``out`` exists and ``force`` is not given; or one of the files is there and no regular file.
    RefusedError
        ``out`` is the card itself.
    """
    refuse_existing(out, force)
    part, map_file, sums = (out.with_name(out.name + suffix) for suffix in (".part", ".map", ".sha256"))
    if path and out.exists() and os.path.exists(path) and out.samefile(path):  # noqa: PTH110 (a URL is no path)
        raise RefusedError(f"{out} is the card itself; give another name for the copy")
    for beside in (part, map_file, sums):
        refuse_special(beside)
        refuse_source(beside, path)
    return part, map_file, sums


_UNDER_WAY: list[tuple[int, CopyMap]] = []
"""Copies of this process that are not whole yet, each with the number of its disk."""
_LOOKING = threading.Lock()


@contextlib.contextmanager
def room_for(part: Path, copy: CopyMap, card: str, says: str = "the copy takes") -> Iterator[None]:
    """Refuse a copy that its disk has no room for, beside the others that are under way: now, not hours later.

    Parameters
    ----------
    part
        The unfinished image; what it has is not needed again.
    copy
        What it is going to hold.
    card
        What is copied. Of a sparse file its holes need no room.
    says
        Of what is needed.

    Raises
    ------
    OutputError
        Says how much is needed, and how much is there.
    """
    needed = copy.end - copy.done
    with contextlib.suppress(OSError, ValueError, AttributeError):
        status = os.stat(card)  # noqa: PTH116 (a URL is no path)
        needed = min(needed, status.st_blocks * 512) if stat.S_ISREG(status.st_mode) else needed
    with _LOOKING:
        with output_errors(part):
            disk, free = part.parent.stat().st_dev, shutil.disk_usage(part.parent).free
            if not copy.done and part.exists():  # begun anew: what it has is given back first
                free += part.stat().st_size
        others = sum(other.end - other.done for where, other in _UNDER_WAY if where == disk)
        if needed > free - others:
            beside = f", of which the other copies of this run take {others / 1e9:.2f} GB" if others else ""
            raise OutputError(
                errno.ENOSPC,
                f"{says} {needed / 1e9:.2f} GB more, and {free / 1e9:.2f} GB are free on this disk{beside}; "
                f"{UNFINISHED}",
                str(part),
            )
        mine = (disk, copy)
        _UNDER_WAY.append(mine)
    try:
        yield
    finally:
        with _LOOKING:
            _UNDER_WAY[:] = [each for each in _UNDER_WAY if each is not mine]


def open_part(part: Path, anew: bool) -> BinaryIO:
    """Open the unfinished image, never through a link that lies there."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    file = os.fdopen(os.open(part, flags | (os.O_TRUNC if anew else 0), 0o666), "r+b", buffering=0)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OutputError(errno.EINVAL, "is no regular file; remove it or give another name", str(part))
    return file


def fill(
    source: ByteSource,
    file: BinaryIO,
    copy: CopyMap,
    map_file: Path | None,
    progress: Progress | None,
    read: hashlib._Hash | None = None,
) -> None:
    """Copy from where ``copy`` says up to its end; ``map_file`` never says more than is on the disk.

    ``read`` is told of every byte that was read.
    """
    saved = copy.done
    if map_file:
        copy.save(map_file)
    try:
        while copy.done < copy.end:
            data, bad = _piece(source, copy)
            if read is not None:
                read.update(data)
            _write(file, copy.done, data)
            copy.bad += bad
            copy.done += len(data)
            del data  # so that the next piece comes into the same memory: new memory costs as much as the copying
            if progress:
                progress("copying", copy.done, copy.end)
            if map_file and copy.done - saved >= _SAVE_EVERY:
                os.fsync(file.fileno())
                copy.save(map_file)
                saved = copy.done
        file.truncate(copy.end)
    finally:
        if map_file:
            file.truncate(copy.done)  # on a full disk this makes room for the map, by which the copy goes on
            os.fsync(file.fileno())
            copy.save(map_file)


def continued(new: CopyMap, part: Path, map_file: Path) -> CopyMap:
    """Take up an unfinished copy, where there is one.

    Raises
    ------
    RefusedError
        It is of another card, or of other frames.
    """
    if not (part.exists() and map_file.exists()):
        return new
    old = CopyMap.parse(map_file.read_text(encoding="utf-8", errors="replace"), map_file)
    if not same_card(old.card, new.card) or old.end != new.end:
        raise RefusedError(f"{part} is an unfinished copy of another card (or of other frames); --force begins anew")
    return old if part.stat().st_size >= old.done or not old.done else new
