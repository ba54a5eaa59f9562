"""File systems that a card was formatted with after it was recorded, and the sectors that this wrote over.

When a user meets this: a computer asked to format the card, and someone said yes. Formatting writes some MB of tables
and leaves the rest. Where such a table lies within a buffer, the buffer's header is whole and its pixels are not: only
the file system itself, whose superblock is on the card, says so.

=========  =============================================================================================
FAT        reserved sectors, both tables, the root directory, and every cluster the table calls in use
exFAT      both boot regions, the table, and every cluster the bitmap calls in use
NTFS       the boot sectors and every run of the files in the master file table
ext2 to 4  superblocks and group descriptors, bitmaps and inode tables that are in use, and the blocks of
           the first eleven files (directories, journal)
=========  =============================================================================================

Sources: Microsoft's specifications of FAT (fatgen103) and exFAT, the documentation of ext4 in the Linux kernel, and for
NTFS that of the Linux-NTFS project.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from miniscope_xr.index.ext import ext
from miniscope_xr.index.tables import Occupied, Stretches, number_at, read_table
from miniscope_xr.layout import SECTOR
from miniscope_xr.source.base import Readable

_FIT = 1 << 20  # bytes of one table that are read at most
_RECORDS = 64  # of the master file table: those that formatting makes, and some


@dataclass(frozen=True)
class FileSystem:
    """A file system on a card."""

    name: str
    """``"FAT32"``, ``"exFAT"``, ``"NTFS"``, ``"ext4"`` ..."""
    sector: int
    """Where it begins."""
    written: Stretches
    """Stretches of sectors that it has written: first sector, first sector behind."""


def find_file_systems(source: Readable, whole: bool = False) -> list[FileSystem]:
    """The file systems of a card, in its partitions or without a table; one small read where there is none.

    Parameters
    ----------
    source : ByteSource
    whole : bool
        Look for one without any boot sector too (ext2 to 4 leave the first sectors empty): four more sectors.
    """
    boot = source.read(0, SECTOR)
    signed = _signed(boot)
    if not signed and not whole:
        return []
    found = []
    starts = dict.fromkeys([0, *(_partitions(source, boot) if signed else [])])
    for start in starts:
        try:
            file_system = _at(source, start)
        except (ValueError, IndexError, ZeroDivisionError):  # damaged itself
            continue
        if file_system is not None:
            found.append(file_system)
    return found


def seems_formatted(source: Readable) -> bool:
    """Whether a card begins with a table or a boot sector (ext2 to 4 without a table have none): one sector is read."""
    return _signed(source.read(0, SECTOR))


def _signed(boot: bytes) -> bool:
    return boot[510:512] == b"\x55\xaa"


def merged(stretches: Iterable[tuple[int, int]]) -> Stretches:
    """Stretches of sectors in card order, those that touch joined."""
    out: Stretches = []
    for first, stop in sorted(stretches):
        if stop <= first:
            continue
        if out and first <= out[-1][1]:
            out[-1] = (out[-1][0], max(stop, out[-1][1]))
        else:
            out.append((first, stop))
    return out


def _partitions(source: Readable, boot: bytes) -> Iterator[int]:
    """First sectors of the partitions of an MBR, and of a GPT behind it."""
    for at in range(446, 510, 16):
        kind, first = boot[at + 4], number_at(boot, at + 8, 4)
        if boot[at] & 0x7F or not kind or not 0 < first < source.size // SECTOR:
            continue
        if kind != 0xEE:
            yield first
            continue
        header = source.read(SECTOR, SECTOR)
        if header[:8] == b"EFI PART":
            table = read_table(source, number_at(header, 72, 8), 16 << 10)
            for entry in range(0, len(table), max(number_at(header, 84, 4), 128)):
                if any(table[entry : entry + 16]):
                    yield number_at(table, entry + 32, 8)


def _at(source: Readable, start: int) -> FileSystem | None:
    """The file system that begins at a sector."""
    head = read_table(source, start, 4 * SECTOR)
    for name, made in (("exFAT", _exfat), ("NTFS", _ntfs), ("FAT", _fat), ("ext", ext)):
        found = made(source, start, head)
        if found is not None:
            kind, written = found
            return FileSystem(kind or name, start, merged(written))
    return None


def _runs(used: np.ndarray[Any, Any], first: int, size: int) -> Stretches:
    """Stretches of sectors of the clusters in use; the first of ``size`` sectors begins at ``first``."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], used.astype(np.int8), [0]]))).reshape(-1, 2)
    return [(first + int(a) * size, first + int(b) * size) for a, b in edges]


def _fat(source: Readable, start: int, head: bytes) -> Occupied:
    sectors, tables, reserved = head[13], head[16], number_at(head, 14, 2)
    if not _signed(head) or number_at(head, 11, 2) != SECTOR or not tables or sectors & (sectors - 1):
        return None
    if not sectors or not reserved or head[0] not in (0xEB, 0xE9):
        return None
    small = number_at(head, 22, 2)
    size = small or number_at(head, 36, 4)
    root = -(-32 * number_at(head, 17, 2) // SECTOR)
    data = start + reserved + tables * size + root
    begun = [read_table(source, start + reserved + k * size, 4)[:1] for k in range(tables)]
    if begun != [head[21:22]] * tables:  # a recording has been written over a table: it is the newer one
        return None
    total = number_at(head, 19, 2) or number_at(head, 32, 4)
    clusters = max(start + total - data, 0) // sectors
    name = "FAT32" if not small else "FAT16" if clusters >= 4085 else "FAT12"
    written = [(start, data)]
    if name != "FAT12":
        width, bits = ("<u4", 0x0FFFFFFF) if name == "FAT32" else ("<u2", 0xFFFF)
        table = np.frombuffer(read_table(source, start + reserved, min(size * SECTOR, _FIT)), width)
        written += _runs(table[2 : clusters + 2] & bits != 0, data, sectors)
    return name, written


def _exfat(source: Readable, start: int, head: bytes) -> Occupied:
    if head[3:11] != b"EXFAT   ":
        return None
    fat, fat_size, heap, clusters, root = (number_at(head, at, 4) for at in (80, 84, 88, 92, 96))
    if head[109] > 16 or not heap:  # clusters of more than 32 MB
        return None
    if read_table(source, start + fat, 4) != b"\xf8\xff\xff\xff":  # a recording was written over it since
        return None
    cluster = 1 << head[109]
    first = start + heap
    written = [(start, start + 24), (start + fat, start + fat + fat_size)]
    between = read_table(source, start + 24, SECTOR) + read_table(source, first - 1, SECTOR)
    if not any(between):  # formatting leaves the stretches between these alone, or clears them
        written.append((start, first))
    directory = read_table(source, first + (root - 2) * cluster, min(cluster * SECTOR, _FIT))
    written.append((first + (root - 2) * cluster, first + (root - 1) * cluster))
    for entry in range(0, len(directory), 32):
        if directory[entry] in (0x81, 0x82):  # bitmap, upper-case table
            at = first + (number_at(directory, entry + 20, 4) - 2) * cluster
            length = number_at(directory, entry + 24, 8)
            written.append((at, at + -(-length // SECTOR)))
            if directory[entry] == 0x81:
                bits = np.frombuffer(read_table(source, at, min(length, _FIT)), np.uint8)
                written += _runs(np.unpackbits(bits, bitorder="little")[:clusters], first, cluster)
    return "exFAT", written


def _ntfs(source: Readable, start: int, head: bytes) -> Occupied:
    if head[3:11] != b"NTFS    ":
        return None
    cluster, shift = head[13], head[64]
    size = 1 << (256 - shift) if shift > 127 else shift * cluster * SECTOR
    if not cluster or size < SECTOR:
        return None
    written = [(start, start + 16)]
    table = read_table(source, start + number_at(head, 48, 8) * cluster, min(_RECORDS * size, _FIT))
    for at in range(0, len(table) - size + 1, size):
        record = table[at : at + size]
        if record[:4] == b"FILE":
            written += _ntfs_runs(_unfixed(record), start, cluster)
    return "NTFS", written


def _unfixed(record: bytes) -> bytes:
    """A record with the last two bytes of each sector put back, which a sequence number replaces on the disk."""
    out = bytearray(record)
    at, count = number_at(record, 4, 2), number_at(record, 6, 2)
    for k in range(1, count):
        out[k * SECTOR - 2 : k * SECTOR] = record[at + 2 * k : at + 2 * k + 2]
    return bytes(out)


def _ntfs_runs(record: bytes, start: int, cluster: int) -> Iterator[tuple[int, int]]:
    """The clusters of a file's attributes, as far as something was written into them."""
    at = number_at(record, 20, 2)
    while at + 8 < len(record) and number_at(record, at, 4) != 0xFFFFFFFF:
        length = number_at(record, at + 4, 4)
        if record[at + 8]:
            left = -(-number_at(record, at + 56, 8) // (cluster * SECTOR))  # clusters with content
            runs, place = at + number_at(record, at + 32, 2), 0
            while left > 0 and record[runs]:
                low, high = record[runs] & 15, record[runs] >> 4
                count = number_at(record, runs + 1, low)
                place += int.from_bytes(record[runs + 1 + low : runs + 1 + low + high], "little", signed=True)
                if high:
                    yield start + place * cluster, start + (place + min(count, left)) * cluster
                left -= count
                runs += 1 + low + high
        if not length:
            return
        at += length
