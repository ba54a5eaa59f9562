"""What a disk is, the same on every system, and what each system has to tell of it."""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from miniscope_xr.errors import plain
from miniscope_xr.source.windows import real_path
from miniscope_xr.source.words import as_administrator

CARD_BUSES = ("sd", "usb", "loop")


@dataclass(frozen=True)
class Disk:
    """What the system tells about a disk or image file, and the id that is on the card.

    ``kind`` is ``disk``, ``partition``, ``boot area``, ``loop`` or ``image``; ``bus`` is ``sd``, ``usb``, ``loop``,
    ``image`` or the name of one that is never a card.
    """

    path: str
    kind: str
    bus: str
    size: int
    sector_size: int = 512
    read_only: bool = False
    removable: bool = False
    model: str = ""
    reader: str = ""
    serial: str = ""
    cid: str = ""
    diskseq: int | None = None
    partitions: tuple[str, ...] = ()
    mounts: tuple[tuple[str, str], ...] = ()
    swaps: tuple[str, ...] = ()
    holders: tuple[str, ...] = ()
    slaves: tuple[str, ...] = ()
    stacked: tuple[str, ...] = ()
    backing: str = ""
    inode: str = ""
    own_id: str = ""
    own_id_unique: bool = False

    def __post_init__(self) -> None:
        """Names come from the card and the reader, which may send anything: clean them before anybody prints them."""
        for name in ("model", "reader", "serial", "cid"):
            object.__setattr__(self, name, plain(getattr(self, name)))

    @property
    def card_id(self) -> str:
        """The card's number where the reader shows it, else the id on it; an image file's is that of the file."""
        if self.cid or self.own_id:
            return self.cid or self.own_id
        place = (self.bus, self.model, self.reader, self.serial, self.size, self.diskseq, self.backing)
        image = (self.path, self.inode)  # writing to it, or making it longer, leaves it the same image
        return hashlib.sha256(repr(image if self.bus == "image" else place).encode()).hexdigest()[:12]

    @property
    def has_id(self) -> bool:
        """False where a card shows no number and its sectors could not be read: its id is unknown as yet."""
        return bool(self.cid or self.own_id) or self.bus not in CARD_BUSES

    def describe(self) -> str:
        """One line that a person recognises the card by."""
        what = " ".join(x for x in (self.model, f"in {self.reader}" if self.reader else "") if x)
        card = f"card {self.card_id}" if self.has_id else f"card id not readable: {as_administrator()}"
        return f"{self.path}: {what or self.kind}, {self.size / 1e9:.2f} GB ({self.size} bytes), {card}"

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain JSON values."""
        return {**asdict(self), "card_id": self.card_id}


class Disks(Protocol):
    """What each system's backend can do."""

    def identify(self, path: str) -> Disk:
        """Describe the disk at ``path``."""
        ...

    def names(self) -> list[str]:
        """Paths of every whole disk of this computer."""
        ...

    def loops_on(self, path: str) -> tuple[str, ...]:
        """Devices of this computer that show the image file at ``path`` as a disk."""
        ...


def image_file(path: str, stacked: tuple[str, ...] = ()) -> Disk:
    """Describe an image file."""
    status = Path(path).stat()
    return Disk(
        path=real_path(path), kind="image", bus="image", size=status.st_size // 512 * 512,
        read_only=not os.access(path, os.W_OK), model="image file", inode=f"{status.st_dev}:{status.st_ino}",
        stacked=stacked,
    )  # fmt: skip


def read_text(path: Path) -> str:
    """Read a small system file, stripped; empty if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
