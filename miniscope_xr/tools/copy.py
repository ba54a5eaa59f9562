"""Copy a card to a sparse image that ends behind its recordings: around bad sectors, and on from where it stopped.

Two ways in, one copier: ``miniscope-xr image`` (:func:`copy_image`) and ``SDCard.to_img`` (:func:`trim`). Beside an
image made by the command lie ``OUT.img.map``, which ddrescue can read, and ``OUT.img.sha256``, which ``sha256sum -c``
can. While that copy goes on, the image is ``OUT.img.part``.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

from miniscope_xr.card import OpenCard, OpenRecording
from miniscope_xr.errors import CardReadError, NotACardError, OptionError, OutputError
from miniscope_xr.layout import SECTOR, Layout, builtin_layouts, load_layout
from miniscope_xr.source.base import ByteSource
from miniscope_xr.source.copy_map import FRONT, CopyMap, card_marks, same_card
from miniscope_xr.source.open import open_device
from miniscope_xr.source.replace import replace
from miniscope_xr.source.salvage import Tolerant, is_gone
from miniscope_xr.source.words import try_again_command
from miniscope_xr.tools.flash.errors import CheckFailedError, RefusedError
from miniscope_xr.tools.flash.operation import Progress
from miniscope_xr.tools.flash.stale import find_extent
from miniscope_xr.tools.stream.outputs import (
    output_errors,
    progress_bar,
    refuse_existing,
    refuse_source,
    refuse_special,
    whole_file,
)

_STEP = 4 << 20
_HOLE = 64 << 10
_ZEROS = bytes(_HOLE)
UNFINISHED = "make room and run it again"
"""What to do when the copy cannot be written: what was copied stays."""
_MARGIN = 1 << 20
"""Bytes copied behind the recordings: what lies there tells a reader how the last one ended."""
_SAVE_EVERY = 256 << 20


@dataclass(frozen=True)
class Copied:
    """The finished copy."""

    path: Path
    size: int
    sha256: str
    bad: tuple[tuple[int, int], ...]

    @property
    def bad_sectors(self) -> int:
        """Sectors that could not be read; they are zero in the copy."""
        return sum(length for _, length in self.bad) // SECTOR


# where a copy ends


def end_byte(store: OpenRecording, frames: int | None = None) -> int:
    """Byte behind the last recording of the card, or behind the first ``frames`` frames of this one."""
    source = store.card.source()
    if frames is None:
        end = store.card.index.recordings[-1].end_sector * SECTOR
    else:
        if isinstance(frames, bool) or not isinstance(frames, int) or frames < 1:
            raise OptionError(f"frame={frames!r}: expected the number of frames to copy (1 or more)")
        end = store.frames.position(min(frames, store.frames.count))
    return min(end, source.size)


def _frames_end(card: OpenCard, frames: int) -> int:
    """Byte behind the first frames of a card's first recording."""
    if frames < 1:
        raise OptionError(f"--frames {frames}: expected the number of frames to copy (1 or more)")
    return end_byte(OpenRecording(card, card.index.recordings[0]), frames)


def _data_end(source: ByteSource, layouts: Iterable[Layout], progress: Progress | None) -> int:
    """Byte behind everything that looks like a recording in one of these layouts; 0 if nothing does.

    It is the search by which ``prepare`` says what would be lost, so that a copy never holds less.
    """
    readable, end = Tolerant(source), 0
    for layout in layouts:
        start = layout.sectors.data * SECTOR
        if source.size > start:
            found = find_extent(readable, layout, progress)  # type: ignore[arg-type]
            end = max(end, found if found > start else 0)
    return end


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
        found = _data_end(source, known, progress) if frames is None else 0
        if not found or not isinstance(error, NotACardError):
            raise
        return found + _MARGIN
    try:
        if frames is not None:
            return _frames_end(card, frames)
        end = card.index.recordings[-1].end_sector * SECTOR
        return max(end, _data_end(source, [card.index.layout], progress)) + _MARGIN
    finally:
        card.close()


# the copier


def _piece(source: ByteSource, copy: CopyMap) -> tuple[bytes, list[tuple[int, int]]]:
    """The next bytes of the copy, and the spans of them that are unreadable.

    Raises
    ------
    CardReadError
        The card is gone: a reader pulled out is no bad sector, and what it did not deliver is read another time.
    """
    length = min(_STEP, copy.end - copy.done)
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


def open_part(part: Path, anew: bool) -> BinaryIO:
    """Open the unfinished image, never through a link that lies there."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    file = os.fdopen(os.open(part, flags | (os.O_TRUNC if anew else 0), 0o666), "r+b", buffering=0)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OutputError(errno.EINVAL, "is no regular file; remove it or give another name", str(part))
    return file


def fill(source: ByteSource, file: BinaryIO, copy: CopyMap, map_file: Path | None, progress: Progress | None) -> None:
    """Copy from where ``copy`` says up to its end; ``map_file`` never says more than is on the disk."""
    saved = copy.done
    if map_file:
        copy.save(map_file)
    try:
        while copy.done < copy.end:
            data, bad = _piece(source, copy)
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


def _checksum(part: Path, progress: Progress | None) -> str:
    total, done, size = hashlib.sha256(), 0, part.stat().st_size
    with open(part, "rb") as file:
        while data := file.read(_STEP):
            total.update(data)
            done += len(data)
            if progress:
                progress("checksum", done, size)
    return total.hexdigest()


def _sums_line(sha256: str, name: str) -> bytes:
    """One line as ``sha256sum`` writes it: any name, also one that is no text or goes over two lines."""
    plain = os.fsencode(name)
    escaped = plain.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    return (b"\\" if escaped != plain else b"") + sha256.encode() + b"  " + escaped + b"\n"


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


def copy_image(
    path: str,
    out: Path,
    *,
    layout: str | None = None,
    frames: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Copied:
    """Copy a card to ``out``; an unfinished copy goes on where it stopped.

    The copy holds everything that looks like a recording, also where a broken front or a hole keeps it from being
    opened: at least as much as ``prepare`` would call lost.

    Raises
    ------
    OutputExistsError
        ``out`` exists and ``force`` is not given; or it is no regular file.
    RefusedError
        The unfinished copy is of another card, or ``out`` is the card itself.
    CardReadError
        The card is gone (single bad sectors are zero in the copy).
    OutputError
        The image could not be written; what was copied stays, and the next call goes on from there.
    """
    part, map_file, sums = refuse_outputs(path, out, force)
    source = open_device(path)
    try:
        end = min(recording_end(source, path, layout, frames, progress), source.size)
        copy = CopyMap(end, card_marks(source, FRONT))
        with output_errors(part, UNFINISHED):
            if not force:
                copy = continued(copy, part, map_file)
            with open_part(part, anew=not copy.done) as file:
                fill(source, file, copy, map_file, progress)
            sha256 = _checksum(part, progress)
            refuse_existing(out, force)
            replace(part, out)
            with whole_file(sums, force=True) as made:
                made.write_bytes(_sums_line(sha256, out.name))
    finally:
        source.close()
    return Copied(out, copy.end, sha256, tuple(copy.bad))


def complain(copied: Copied) -> None:
    """Raise if sectors are missing from the copy.

    Raises
    ------
    CheckFailedError
        Some sectors could not be read.
    """
    if copied.bad:
        command = try_again_command(str(copied.path))
        again = f"`{command}` tries them again" if command else "another card reader may get more of them"
        raise CheckFailedError(
            f"{copied.path} is complete but for {copied.bad_sectors} unreadable sectors, which are zero in it; "
            f"they are listed in {copied.path}.map: {again}"
        )


def trim(
    store: OpenRecording,
    path: str | os.PathLike[str],
    frames: int | None = None,
    force: bool = False,
    progress: bool = True,
) -> None:
    """Copy an open card up to the end of its recordings (or of ``frames`` frames).

    Behind a recording whose counts were never written, the margin is copied too: what lies there tells a reader how it
    ended, so that the copy opens with the same doubts as the card.

    Sectors that cannot be read are zero in the copy; a warning counts them, and ``PATH.map`` lists them.

    Raises
    ------
    OutputExistsError
        ``path`` exists and ``force`` is not given; or it is no regular file, or the card itself.
    CardReadError
        The card is gone.
    """
    final, source = Path(path), store.card.source()
    refuse_existing(final, force)
    refuse_source(final, store.card.path)
    end = end_byte(store, frames)
    if frames is None and store.card.index.recordings[-1].status != "finished":  # where counts do not say how it ended
        end = min(end + _MARGIN, source.size)
    copy = CopyMap(end, card_marks(source))
    map_file = final.with_name(final.name + ".map")
    with (
        whole_file(final, force) as part,
        open_part(part, anew=True) as file,
        progress_bar(copy.end, "image", "B", progress) as bar,
    ):
        fill(source, file, copy, None, lambda name, done, total: bar.update(done - bar.n))
    with output_errors(map_file):
        if copy.bad:
            refuse_special(map_file)
            copy.save(map_file)
        elif force:
            map_file.unlink(missing_ok=True)  # of what had this name before
    if copy.bad:
        count = sum(length for _, length in copy.bad) // SECTOR
        warnings.warn(
            f"{final} is complete but for {count} unreadable sectors, which are zero in it and listed in {map_file}",
            stacklevel=3,
        )
