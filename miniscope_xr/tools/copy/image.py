"""Copy a card to a sparse image that ends behind its recordings: around bad sectors, and on from where it stopped.

Two ways in, one copier: ``miniscope-xr image`` (:func:`copy_image`) and ``SDCard.to_img`` (:func:`trim`). Beside an
image made by the command lie ``OUT.img.map``, which ddrescue can read, and ``OUT.img.sha256``, which ``sha256sum -c``
can. While that copy goes on, the image is ``OUT.img.part``.
"""

from __future__ import annotations

import errno
import hashlib
import os
import warnings
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from miniscope_xr.card import OpenRecording
from miniscope_xr.errors import OutputError
from miniscope_xr.layout import SECTOR
from miniscope_xr.source.copy_map import FRONT, CopyMap, card_marks
from miniscope_xr.source.open import open_device
from miniscope_xr.source.replace import remove, replace
from miniscope_xr.source.words import try_again_command
from miniscope_xr.tools.copy.ends import MARGIN, end_byte, recording_end
from miniscope_xr.tools.copy.part import STEP, UNFINISHED, continued, fill, open_part, refuse_outputs, room_for
from miniscope_xr.tools.flash.errors import CheckFailedError
from miniscope_xr.tools.flash.operation import Progress
from miniscope_xr.tools.stream.outputs import (
    output_errors,
    progress_bar,
    refuse_existing,
    refuse_source,
    refuse_special,
    whole_file,
)


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


def forget(file: BinaryIO) -> None:
    """Have what is read from a file come from the disk, where the system lets us: what is in memory proves nothing."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def sum_up(image: Path, progress: Progress | None = None, end: int | None = None) -> hashlib._Hash:
    """Take the SHA-256 of a file, or of its first ``end`` bytes, as they are on the disk."""
    total, done, size = hashlib.sha256(), 0, image.stat().st_size if end is None else end
    with open(image, "rb") as file:
        forget(file)
        while done < size and (data := file.read(min(STEP, size - done))):
            total.update(data)
            done += len(data)
            if progress:
                progress("checksum", done, size)
    return total


def _verified(part: Path, map_file: Path, read: hashlib._Hash, progress: Progress | None) -> str:
    """Return the checksum of the copy, read back; it is that of the bytes that came from the card.

    Raises
    ------
    OutputError
        It is another: the next copy begins anew.
    """
    sha256 = sum_up(part, progress).hexdigest()
    if sha256 != read.hexdigest():
        remove(map_file)
        raise OutputError(
            errno.EIO, "reads back differently from what was written: this disk or memory is failing; copy to another "
            "disk", str(part),
        )  # fmt: skip
    return sha256


def _sums_line(sha256: str, name: str) -> bytes:
    """One line as ``sha256sum`` writes it: any name, also one that is no text or goes over two lines."""
    plain = os.fsencode(name)
    escaped = plain.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    return (b"\\" if escaped != plain else b"") + sha256.encode() + b"  " + escaped + b"\n"


def note_sum(out: Path, sha256: str) -> None:
    """Write the checksum beside a copy."""
    with whole_file(out.with_name(out.name + ".sha256"), force=True) as made:
        made.write_bytes(_sums_line(sha256, out.name))


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

    The copy is read back from the disk, and is what was read from the card.

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
        The image could not be written; what was copied stays, and the next call goes on from there. Or it reads back
        differently; then the next call begins anew.
    """
    part, map_file, _ = refuse_outputs(path, out, force)
    with closing(open_device(path)) as source:
        end = min(recording_end(source, path, layout, frames, progress), source.size)
        copy = CopyMap(end, card_marks(source, FRONT))
        with output_errors(part, UNFINISHED):
            if not force:
                copy = continued(copy, part, map_file)
            read = sum_up(part, None, copy.done) if copy.done else hashlib.sha256()
            with room_for(part, copy, path), open_part(part, anew=not copy.done) as file:
                fill(source, file, copy, map_file, progress, read)
            sha256 = _verified(part, map_file, read, progress)
            refuse_existing(out, force)
            replace(part, out)
            note_sum(out, sha256)
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
    opened: OpenRecording,
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
    final, source = Path(path), opened.card.source()
    refuse_existing(final, force)
    refuse_source(final, opened.card.path)
    end = end_byte(opened, frames)
    if frames is None and opened.card.index.recordings[-1].status != "finished":  # where counts do not say how it ended
        end = min(end + MARGIN, source.size)
    copy = CopyMap(end, card_marks(source))
    map_file = final.with_name(final.name + ".map")
    with (
        whole_file(final, force) as part,
        room_for(part, copy, opened.card.path),
        open_part(part, anew=True) as file,
        progress_bar(copy.end, "image", "B", progress) as bar,
    ):
        fill(source, file, copy, None, lambda name, done, total: bar.update(done - bar.n))
    with output_errors(map_file):
        if copy.bad:
            refuse_special(map_file)
            copy.save(map_file)
        elif force:
            remove(map_file)  # of what had this name before
    if copy.bad:
        count = sum(length for _, length in copy.bad) // SECTOR
        warnings.warn(
            f"{final} is complete but for {count} unreadable sectors, which are zero in it and listed in {map_file}",
            stacklevel=3,
        )
