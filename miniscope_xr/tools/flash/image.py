"""Copy a card to a sparse image that ends with its recordings: around bad sectors, and on from where it stopped.

Beside ``OUT.img`` lie ``OUT.img.map``, which ddrescue can read, and ``OUT.img.sha256``, which ``sha256sum -c`` can.
While the copy goes on, the image is ``OUT.img.part``.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path

from miniscope_xr.errors import CardReadError, OptionError, OutputError
from miniscope_xr.source.base import ByteSource, fingerprint
from miniscope_xr.source.local import Device
from miniscope_xr.tools.flash.errors import CheckFailedError, RefusedError
from miniscope_xr.tools.flash.operation import Progress
from miniscope_xr.tools.stream.outputs import refuse_existing, refuse_source, refuse_special, whole_file

_STEP = 4 << 20
_HOLE = 64 << 10
_MARGIN = 1 << 20
"""Bytes copied behind the recordings: what lies there tells a reader how the last one ended."""
_SAVE_EVERY = 256 << 20


@dataclass
class CopyMap:
    """Which bytes are copied (``+``), unreadable (``-``) or not tried (``?``)."""

    end: int
    card: str
    done: int = 0
    bad: list[tuple[int, int]] = field(default_factory=list)

    def text(self) -> str:
        """Return it as a ddrescue map file."""
        rows = []
        at = 0
        for start, length in [*self.bad, (self.done, 0)]:
            if start > at:
                rows.append((at, start - at, "+"))
            if length:
                rows.append((start, length, "-"))
            at = start + length
        if self.done < self.end:
            rows.append((self.done, self.end - self.done, "?"))
        lines = [f"0x{start:08X}  0x{length:08X}  {status}" for start, length, status in rows]
        state = "+" if self.done >= self.end else "?"
        head = [
            "# Mapfile. Created by miniscope-xr",
            f"# card: {self.card}",
            "# current_pos  current_status  current_pass",
        ]
        return "\n".join(
            [*head, f"0x{self.done:08X}     {state}               1", "#      pos        size  status", *lines, ""]
        )

    @classmethod
    def parse(cls, text: str, path: Path) -> CopyMap:
        """Read a map file of an earlier, unfinished copy."""
        card = re.search(r"^# card: (\w+)$", text, re.MULTILINE)
        rows = re.findall(r"^(0x[0-9A-F]+)\s+(0x[0-9A-F]+)\s+([-+?])$", text, re.MULTILINE)
        if card is None or not rows:
            raise OutputError(
                errno.EINVAL, "is not a map of a copy of ours; remove it, or give --force to begin anew", str(path)
            )
        spans = [(int(start, 16), int(length, 16), status) for start, length, status in rows]
        untried = [start for start, _, status in spans if status == "?"]
        end = spans[-1][0] + spans[-1][1]
        bad = [(start, length) for start, length, status in spans if status == "-"]
        return cls(end, card[1], min(untried, default=end), bad)


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
        return sum(length for _, length in self.bad) // 512


def recording_end(path: str, layout: str | None, frames: int | None) -> int:
    """Find the byte behind the recordings (or behind the first frames of the first), with a margin."""
    from miniscope_xr.card import CardStore, RecordingStore

    if frames is not None and frames < 1:
        raise OptionError(f"--frames {frames}: expected the number of frames to copy (1 or more)")
    card = CardStore(path, layout, errors="fill")
    try:
        size = card.index.layout.sectors.size
        end = card.index.recordings[-1].end_sector * size
        if frames is None:
            return end + _MARGIN
        reader = RecordingStore(card, card.index.recordings[0]).frames
        return reader.position(frames) if frames < reader.count else end
    finally:
        card.close()


def _pieces(source: ByteSource, copy: CopyMap) -> Iterator[tuple[int, bytes, list[tuple[int, int]]]]:
    while copy.done < copy.end:
        length = min(_STEP, copy.end - copy.done)
        try:
            bad: list[tuple[int, int]] = []
            data = source.read(copy.done, length)
            if len(data) < length:
                raise CardReadError(errno.EIO, f"the card ended at byte {copy.done + len(data)} of {copy.end}")
        except CardReadError:
            data, bad = source.salvage(copy.done, length)
            if sum(n for _, n in bad) == length and not _answers(source):
                raise
        yield copy.done, data, bad


def _answers(source: ByteSource) -> bool:
    """Tell bad sectors from a reader that was unplugged."""
    try:
        return len(source.read(0, 512)) == 512 and not source.salvage(0, 512)[1]
    except OSError:
        return False


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

    Raises
    ------
    OutputExistsError
        ``out`` exists and ``force`` is not given.
    RefusedError
        The unfinished copy is of another card.
    OutputError
        The image could not be written.
    """
    part, map_file = out.with_name(out.name + ".part"), out.with_name(out.name + ".map")
    sums = out.with_name(out.name + ".sha256")
    refuse_existing(out, force)
    if out.exists() and Path(path).samefile(out):
        raise RefusedError(f"{out} is the card itself; give another name for the copy")
    for beside in (part, map_file, sums):
        refuse_special(beside)
        refuse_source(beside, path)
    with Device(path) as source:
        end = min(recording_end(path, layout, frames), source.size)
        copy = CopyMap(end, fingerprint(source, [1022, 1023, 1024, 1025])[:16])
        try:
            if part.exists() and map_file.exists() and not force:
                copy = _continue(copy, CopyMap.parse(map_file.read_text(encoding="utf-8"), map_file), part)
            _copy(source, part, map_file, copy, progress)
            sha256 = _checksum(part, progress)
            refuse_existing(out, force)
            part.replace(out)
            with whole_file(sums, force=True) as file:
                file.write_text(f"{sha256}  {out.name}\n", encoding="utf-8")
        except CardReadError:
            raise
        except OSError as error:
            if isinstance(error, OutputError):
                raise
            raise OutputError(
                error.errno, f"cannot be written: {error.strerror}; make room and run it again", str(part)
            ) from error
    return Copied(out, copy.end, sha256, tuple(copy.bad))


def _continue(new: CopyMap, old: CopyMap, part: Path) -> CopyMap:
    if old.card != new.card or old.end != new.end:
        raise RefusedError(f"{part} is an unfinished copy of another card (or of other frames); --force begins anew")
    return old


def _copy(source: ByteSource, part: Path, map_file: Path, copy: CopyMap, progress: Progress | None) -> None:
    saved = copy.done
    # unbuffered: what did not fit on a full disk must not be tried again when the file is closed
    with open(part, "r+b" if copy.done else "wb", buffering=0) as file:
        try:
            for at, data, bad in _pieces(source, copy):
                for i in range(0, len(data), _HOLE):
                    piece = data[i : i + _HOLE]
                    if piece.count(0) != len(piece):
                        _write(file, at + i, piece)
                copy.bad += bad
                copy.done = at + len(data)
                if progress:
                    progress("copying", copy.done, copy.end)
                if copy.done - saved >= _SAVE_EVERY:
                    _save(file, map_file, copy)
                    saved = copy.done
        finally:
            file.truncate(copy.done)  # on a full disk this makes room for the map, by which the copy goes on
            _save(file, map_file, copy)


def _write(file: FileIO, at: int, piece: bytes) -> None:
    view = memoryview(piece)
    file.seek(at)
    while view:
        view = view[file.write(view) or 0 :]


def _save(file: FileIO, map_file: Path, copy: CopyMap) -> None:
    """Put the image on the disk, then say in the map how far it is; the old map stays until the new one is whole."""
    os.fsync(file.fileno())
    with whole_file(map_file, force=True) as new:
        new.write_text(copy.text(), encoding="utf-8")


def _checksum(part: Path, progress: Progress | None) -> str:
    total, done, size = hashlib.sha256(), 0, part.stat().st_size
    with open(part, "rb") as file:
        while data := file.read(_STEP):
            total.update(data)
            done += len(data)
            if progress:
                progress("checksum", done, size)
    return total.hexdigest()


def complain(copied: Copied) -> None:
    """Raise if sectors are missing from the copy.

    Raises
    ------
    CheckFailedError
        Some sectors could not be read.
    """
    if copied.bad:
        raise CheckFailedError(
            f"{copied.path} is complete but for {copied.bad_sectors} unreadable sectors, which are zero in it; "
            f"they are listed in {copied.path}.map: `ddrescue -d CARD {copied.path} {copied.path}.map` tries them again"
        )
