"""Format cards that hold a recording, with the real mkfs programs, and count the frames that come back.

    python -m tests.measure.formatted --write docs/damaged-cards.md

A card is a sparse file as large as the card would be, with a simulated recording on it. Each way to format is what a
program does with a card: Windows' Disk Management, the SD Association's formatter, macOS, Linux. Nothing is mounted and
no rights are needed: a partition is copied into a file of its own, formatted there and copied back. Two figures a cell:
frames no byte of which was overwritten, and of those, the ones that come back exact in frames called complete, by both
indexes. A frame that is called complete and is not what was recorded is counted as wrong.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from miniscope_xr.tools.simulate import PowerLoss, SimulatedCard, Stall, simulate

SECTOR = 512
Bytes = np.ndarray[Any, np.dtype[np.uint8]]
GB2, GB32, GB64 = 3_911_680, 62_333_952, 124_735_488  # sectors of cards sold as 2, 32 and 64 GB

KINDS: dict[str, dict[str, Any]] = {
    "v4 clean": {"frames": 1200},
    "v4 with a drop": {"frames": 1200, "events": [Stall(300, 250)]},
    "v4 battery died": {"frames": 1200, "events": [PowerLoss(buffer=5990)]},
    "DAQ": {"layout": "daq-wirefree", "frames": 200},
    "DAQ battery died": {"layout": "daq-wirefree", "frames": 200, "events": [PowerLoss(buffer=1150)]},
    "v3": {"layout": "v3-wirefree", "frames": 400},
    "v3 battery died": {"layout": "v3-wirefree", "frames": 400, "settings": {"record_length": 600}},
}


class Way(NamedTuple):
    """One way to format: the card's sectors, where the file system begins, its type byte and the program's call."""

    sectors: int
    start: int
    kind: int
    command: tuple[str, ...]


_FAT = ("mkfs.fat", "-F", "32", "-s", "64")
_EXFAT = ("mkfs.exfat", "-c", "128K")
_NTFS = ("mkfs.ntfs", "-Q", "-F", "-q", "-c", "4096", "-p", "2048", "-H", "255", "-S", "63", "-s", "512")
_EXT4 = ("mkfs.ext4", "-q", "-F", "-E", "nodiscard")
WAYS: dict[str, Way] = {
    "exFAT in a partition at 2048, 64 GB (Disk Management)": Way(GB64, 2048, 0x07, _EXFAT),
    "FAT32 in a partition at 2048, 32 GB (Disk Management)": Way(GB32, 2048, 0x0C, _FAT),
    "FAT16 in a partition at 2048, 2 GB": Way(GB2, 2048, 0x06, ("mkfs.fat", "-F", "16", "-s", "64")),
    "FAT32 in a partition at 8192, 32 GB (SD Formatter)": Way(GB32, 8192, 0x0C, (*_FAT, "-R", "2452")),
    "exFAT in a partition at 32768, 64 GB (SD Formatter)": Way(GB64, 32768, 0x07, (*_EXFAT, "-b", "16M")),
    "NTFS in a partition at 2048, 64 GB": Way(GB64, 2048, 0x07, _NTFS),
    "ext4 in a partition at 2048, 64 GB": Way(GB64, 2048, 0x83, _EXT4),
    "FAT32 without a table, 32 GB": Way(GB32, 0, 0, _FAT),
    "exFAT without a table, 64 GB": Way(GB64, 0, 0, _EXFAT),
    "NTFS without a table, 64 GB": Way(GB64, 0, 0, _NTFS),
    "ext4 without a table, 64 GB": Way(GB64, 0, 0, _EXT4),
    "EFI FAT32 from 40 (macOS, Disk Utility)": Way(GB64, 40, 0xEE, ("mkfs.fat", "-F", "32", "-s", "1")),
}


@dataclass(frozen=True)
class Cell:
    """What one way to format left of one card.

    Attributes
    ----------
    intact : int
        Frames no byte of which was overwritten.
    back : dict
        By index: of those, the frames that came back exact and complete.
    wrong : dict
        By index: frames called complete that are not what was recorded.
    warnings : tuple of str
        Of the dataset.
    """

    intact: int
    back: dict[str, int]
    wrong: dict[str, int]
    warnings: tuple[str, ...]


def installed(way: Way) -> bool:
    """Whether the programs of a way to format are there; sfdisk makes the partition table, where there is one."""
    return all(_program(name) for name in (way.command[0], *(["sfdisk"] if way.kind else [])))


def _program(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), "/sbin", "/usr/sbin")))


def write_card(card: bytes, path: Path, sectors: int) -> None:
    """Write a card as a sparse file of its full size."""
    with path.open("wb") as out:
        out.write(card)
        out.truncate(sectors * SECTOR)


def format_card(path: Path, way: Way, used: int) -> None:
    """Format a card of which the first ``used`` bytes are not zero."""
    size = way.sectors - way.start if way.kind != 0xEE else 409_600
    part = path.with_suffix(".part")
    with path.open("rb") as card, part.open("wb") as out:
        card.seek(way.start * SECTOR)
        out.write(card.read(used - way.start * SECTOR))
        out.truncate(size * SECTOR)
    program = _program(way.command[0])
    assert program is not None
    subprocess.run([program, *way.command[1:], part], check=True, capture_output=True, timeout=300)
    if way.kind:
        subprocess.run(
            [str(_program("sfdisk")), "-q", path], input=_table(way), text=True, check=True, capture_output=True
        )
    _copy_data(part, path, way.start * SECTOR)
    part.unlink()


def _table(way: Way) -> str:
    """The partition table, as sfdisk reads it."""
    if way.kind != 0xEE:
        return f"label: dos\n{way.start},{way.sectors - way.start},{way.kind:x}\n"
    return f"label: gpt\nfirst-lba: 34\n{way.start},409600,U\n{way.start + 409600},\n"


def _copy_data(part: Path, card: Path, at: int) -> None:
    """Copy what is not a hole of one sparse file into another."""
    with part.open("rb") as src, card.open("r+b") as out:
        end, place = os.fstat(src.fileno()).st_size, 0
        while place < end:
            try:
                place = os.lseek(src.fileno(), place, os.SEEK_DATA)
            except OSError:
                break
            stop = os.lseek(src.fileno(), place, os.SEEK_HOLE)
            while place < stop:
                data = os.pread(src.fileno(), min(stop - place, 8 << 20), place)
                os.pwrite(out.fileno(), data, at + place)
                place += len(data)


@lru_cache(maxsize=1)
def expected(card: SimulatedCard) -> tuple[Any, Any, Any]:
    """What a card holds, kept for all the ways to format it."""
    return card.expected()


def intact_frames(card: SimulatedCard, now: Bytes) -> set[int]:
    """Frames that were whole on the card, and no byte of whose buffers was overwritten since."""
    before = np.frombuffer(card.data, np.uint8)
    changed = np.concatenate([[0], np.cumsum(before != now[: len(before)])])
    frame_num, _, present = expected(card)
    head = card.spec.header_bytes
    hit = {b.frame_num for b in card.buffers if _hit(changed, b.sector * SECTOR, head + b.length)}
    return {int(f) for f, p in zip(frame_num, present, strict=True) if p == present.max() and int(f) not in hit}


def _hit(changed: np.ndarray[Any, Any], at: int, length: int) -> bool:
    return bool(changed[min(at + length, len(changed) - 1)] > changed[min(at, len(changed) - 1)])


def judge(card: SimulatedCard, path: Path, indexes: Sequence[str] = ("bisect", "scan")) -> Cell:
    """Read a card that was formatted, and compare."""
    with path.open("rb") as file:
        now = np.fromfile(file, np.uint8, len(card.data))
    intact = intact_frames(card, now)
    frame_num, video, _ = expected(card)
    true = dict(zip(frame_num.tolist(), video, strict=True))
    back, wrong, said = {}, {}, []
    for index in indexes:
        try:
            ds = xr.open_dataset(path, engine="miniscope", index=index)
        except Exception as error:  # what a person would see
            back[index], wrong[index] = 0, 0
            said.append(f"{type(error).__name__}: {error}")
            continue
        with ds:
            exact, false = set(), 0
            for number, image, whole in zip(ds.frame_num.values, ds.video.values, ds.complete.values, strict=True):
                if not whole:
                    continue
                if np.array_equal(image, true.get(int(number))):
                    exact.add(int(number))
                else:
                    false += 1
            back[index], wrong[index] = len(exact & intact), false
            warnings = ds.attrs.get("warnings", [])
            said += [warnings] if isinstance(warnings, str) else warnings
    return Cell(len(intact), back, wrong, tuple(dict.fromkeys(said)))


def cell(card: SimulatedCard, way: Way, folder: Path, indexes: Sequence[str] = ("bisect", "scan")) -> Cell:
    """Write a card, format it in one way, read it."""
    path = folder / "card.img"
    try:
        write_card(card.data, path, way.sectors)
        format_card(path, way, len(card.data))
        return judge(card, path, indexes)
    finally:
        path.unlink(missing_ok=True)


def make(kind: str) -> SimulatedCard:
    """The card of one kind, before it is formatted."""
    return simulate(seed=5, **KINDS[kind])


def table(cells: dict[tuple[str, str], Cell]) -> str:
    """The table of the docs: intact / back, and what is wrong where there is something."""
    kinds = list(dict.fromkeys(kind for _, kind in cells))
    lines = ["| formatted as | " + " | ".join(kinds) + " |", "| --- |" + " ---: |" * len(kinds)]
    for way in dict.fromkeys(way for way, _ in cells):
        row = [_shown(cells[way, kind]) for kind in kinds]
        lines.append(f"| {way} | " + " | ".join(row) + " |")
    return "\n".join(lines)


def _shown(one: Cell) -> str:
    backs = sorted(set(one.back.values()))
    said = f"{one.intact} / {' or '.join(str(n) for n in backs)}"
    worst = max(one.wrong.values(), default=0)
    return said + (f" ({worst} wrong)" if worst else "")


def main(say: Callable[..., None] = print) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ways", nargs="*", help="parts of the names of ways to format")
    parser.add_argument("--kinds", nargs="*", choices=list(KINDS))
    parser.add_argument("--write", type=Path, help="put the table into this page")
    parser.add_argument("--verbose", action="store_true", help="show the warnings of each card")
    args = parser.parse_args()
    cells: dict[tuple[str, str], Cell] = {}
    ways = {n: w for n, w in WAYS.items() if installed(w) and any(part in n for part in args.ways or [""])}
    for missing in sorted({w.command[0] for w in WAYS.values() if not installed(w)}):
        say(f"{missing} is not installed: its rows are left out", file=sys.stderr)
    kinds = args.kinds or list(KINDS)
    with tempfile.TemporaryDirectory() as folder:
        for kind in kinds:
            card = make(kind)
            for name, way in ways.items():
                one = cells[name, kind] = cell(card, way, Path(folder))
                say(f"{kind}, {name}: {_shown(one)}", file=sys.stderr, flush=True)
                for text in one.warnings if args.verbose else ():
                    say("    ", text, file=sys.stderr)
    ordered = {(name, kind): cells[name, kind] for name in ways for kind in kinds}
    text = table(ordered)
    if args.write:
        put_into(args.write, text)
    else:
        say(text)
    return int(any(set(c.back.values()) != {c.intact} or any(c.wrong.values()) for c in cells.values()))


def put_into(page: Path, text: str) -> None:
    """Replace the table of a page."""
    lines = page.read_text().splitlines()
    start = next(k for k, line in enumerate(lines) if line.startswith("| formatted as |"))
    stop = next((k for k in range(start, len(lines)) if not lines[k].startswith("|")), len(lines))
    page.write_text("\n".join([*lines[:start], text, *lines[stop:]]) + "\n")


if __name__ == "__main__":
    sys.exit(main())
