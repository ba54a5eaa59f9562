"""The list of old buffers that ``prepare --keep`` saved on this computer: it shows where a recording ends, exactly.

``DATA/lists/<session>.npz`` (DATA is the user's data folder, ``~/.local/share/miniscope-xr`` on Linux; the session
stands in the card's header sector, so a copy of the card has it too) holds, for every sector that looked like a buffer
header (v3: a frame's last sector) before the card was prepared,

- ``sectors`` (int64, ascending), ``hashes`` (uint64: the first 8 bytes of the sector's BLAKE2b hash, little-endian),
- ``end`` (the byte up to which was listed), ``layout``, ``session``, ``card_id``.

A sector that still has its hash belongs to an older recording. Nothing else on this computer is looked at, but under
``sudo`` the same folder of the person who called it, and on Windows where a Python of the Microsoft Store has it
(:mod:`miniscope_xr.source.own_files`); ``old_buffers=False`` leaves this file alone too; where it was used, the
recording's warnings say so.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import sys
import zipfile
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from miniscope_xr.index.runs import Run
from miniscope_xr.layout import SECTOR, Layout
from miniscope_xr.layout.stamp import read_stamp
from miniscope_xr.source.base import ByteSource
from miniscope_xr.source.own_files import data_folder, everywhere
from miniscope_xr.source.regular import read_regular

_MOST = 1 << 28  # bytes; the list of a card of 64 GB has 25 million


@dataclass(frozen=True)
class OldBuffers:
    """Sectors that held buffer headers before the card was prepared, and the hashes of their content."""

    sectors: NDArray[np.int64]
    hashes: NDArray[np.uint64]
    end: int
    layout: str = ""
    session: str = ""
    card_id: str = ""

    def is_old(self, sector: int, content: bytes) -> bool:
        """Tell whether this sector still is what it was before the card was prepared."""
        i = int(np.searchsorted(self.sectors, sector))
        return i < len(self.sectors) and int(self.sectors[i]) == sector and int(self.hashes[i]) == sector_hash(content)

    def to_bytes(self) -> bytes:
        """Return the content of the file."""
        file = io.BytesIO()
        np.savez_compressed(
            file, sectors=self.sectors, hashes=self.hashes, end=np.array(self.end), layout=np.array(self.layout),
            session=np.array(self.session), card_id=np.array(self.card_id),
        )  # fmt: skip
        return file.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> OldBuffers:
        """Read the content of the file; a :class:`ValueError` says what is wrong with it."""
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as found:
                sectors, hashes = found["sectors"], found["hashes"]
                names = (str(found[name]) for name in ("layout", "session", "card_id"))
                old = cls(sectors.astype(np.int64), hashes.astype(np.uint64), int(found["end"]), *names)
        except (KeyError, EOFError, OSError, TypeError, zipfile.BadZipFile) as error:
            raise ValueError(f"it has not what such a list has: {error}") from error
        if old.sectors.ndim != 1 or old.sectors.shape != old.hashes.shape or np.any(np.diff(old.sectors) <= 0):
            raise ValueError("its sectors and hashes do not go together")
        return old


def sector_hash(content: bytes) -> int:
    """Return the hash of one sector's content."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")


HOME_LISTS = Path(".local/share/miniscope-xr/lists")
"""Where the lists are in somebody else's home (Linux)."""


def lists_dir() -> Path:
    """Return where this user's lists are."""
    return data_folder() / "lists"


def sudo_caller() -> tuple[int, int, Path] | None:
    """Return user, group and home of the person who called ``sudo``; None where nobody did."""
    number = os.environ.get("SUDO_UID", "")
    if sys.platform != "linux" or os.geteuid() != 0 or not number.isdecimal() or number == "0":
        return None
    try:
        import pwd  # not on Windows

        entry = pwd.getpwuid(int(number))
    except (KeyError, OverflowError):
        return None
    return entry.pw_uid, entry.pw_gid, Path(entry.pw_dir)


def _places() -> Iterator[Path]:
    """Where lists are looked for: a card may be prepared without ``sudo``, or with another Python, than it is read."""
    yield from (folder / "lists" for folder in everywhere(data_folder()))
    caller = sudo_caller()
    if caller is not None:
        yield caller[2] / HOME_LISTS


def find_list(header: bytes, folder: Path | None = None) -> OldBuffers | None:
    """Return the list that was saved when this header sector was written; None if there is none that can be read."""
    stamp = read_stamp(header)
    if stamp is None or not stamp.intact or not re.fullmatch("[0-9a-f]{32}", stamp.session):
        return None
    for place in _places() if folder is None else [folder]:
        with contextlib.suppress(OSError, ValueError):
            return OldBuffers.from_bytes(read_regular(place / f"{stamp.session}.npz", _MOST))
    return None


def first_old(old: OldBuffers, sectors: Sequence[int], read: Callable[[int], bytes]) -> int:
    """Find the first of a recording's buffers that belongs to an older recording; their number if none does.

    ``sectors`` are the buffers' first sectors in card order, ``read`` returns a sector's bytes. A recording overwrites
    from the start on, so what is old is at the end, and bisecting finds where it begins.
    """
    return bisect_left(sectors, True, key=lambda sector: old.is_old(sector, read(sector)))


class Starts(Sequence[int]):
    """Sectors of the buffers of some runs, in card order, computed when asked for."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = runs
        self._before = [0, *accumulate(run.count for run in runs)]

    def __len__(self) -> int:
        return self._before[-1]

    @overload
    def __getitem__(self, k: int) -> int: ...
    @overload
    def __getitem__(self, k: slice) -> Sequence[int]: ...
    def __getitem__(self, k: int | slice) -> int | Sequence[int]:
        if isinstance(k, slice):
            return [self[j] for j in range(*k.indices(len(self)))]
        number, i = self.locate(k)
        return self._runs[number].sector_of(i)

    def locate(self, k: int) -> tuple[int, int]:
        """Run, and buffer in it, of buffer ``k``."""
        number = bisect_right(self._before, k) - 1
        return number, k - self._before[number]


def first_listed(source: ByteSource, layout: Layout, sectors: Sequence[int]) -> int | None:
    """Number of the first buffer that was on the card before it was prepared; ``len(sectors)`` if none was.

    None where the card carries no stamp of ours or this computer has no list of it.
    """
    old = find_list(source.read(layout.sectors.header * SECTOR, SECTOR))
    if old is None:
        return None
    return first_old(old, sectors, lambda sector: source.read(sector * SECTOR, SECTOR))


def by_the_list(behind: str | None) -> str:
    """Say that the list told where a recording ends: behind which buffer or frame, None where nothing old follows."""
    old = "an older recording, listed when the card was prepared, lies"
    where = (
        f"{old} behind {behind}" if behind else "nothing listed when the card was prepared lies behind this recording"
    )
    return f"{where} (the list is on this computer; old_buffers=False opens the card without it)"
