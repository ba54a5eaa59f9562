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

from miniscope_xr.layout import SECTOR
from miniscope_xr.source.base import Readable

Sectors = list[tuple[int, int]]
"""(first sector, first sector behind) of stretches, in card order."""
_FIT = 1 << 20  # bytes of one table that are read at most
_RECORDS = 64  # of the master file table: those that formatting makes, and some
_GROUPS = 4096  # groups of an ext file system that are looked at: 512 GB


@dataclass(frozen=True)
class FileSystem:
    """A file system on a card.

    Attributes
    ----------
    name : str
        ``"FAT32"``, ``"exFAT"``, ``"NTFS"``, ``"ext4"`` ...
    sector : int
        Where it begins.
    written : list of (int, int)
        Stretches of sectors that it has written: first sector, first sector behind.
    """

    name: str
    sector: int
    written: Sectors


def find_file_systems(source: Readable, whole: bool = False) -> list[FileSystem]:
    """The file systems of a card, in its partitions or without a table; one small read where there is none.

    Parameters
    ----------
    source : ByteSource
    whole : bool
        Look for one without any boot sector too (ext2 to 4 leave the first sectors empty): four more sectors.
    """
    boot = source.read(0, SECTOR)
    signed = boot[510:512] == b"\x55\xaa"
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


def merged(stretches: Iterable[tuple[int, int]]) -> Sectors:
    """Stretches of sectors in card order, those that touch joined."""
    out: Sectors = []
    for first, stop in sorted(stretches):
        if stop <= first:
            continue
        if out and first <= out[-1][1]:
            out[-1] = (out[-1][0], max(stop, out[-1][1]))
        else:
            out.append((first, stop))
    return out


def _int(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")


def _read(source: Readable, sector: int, n: int) -> bytes:
    """Read ``n`` bytes from a sector that a file system names: none behind the end of the card.

    Raises
    ------
    ValueError
        No card has such a sector: what names it is damaged.
    """
    if sector < 0 or n < 0:
        raise ValueError(sector)
    return source.read(sector * SECTOR, n) if sector * SECTOR < source.size else b""


def _partitions(source: Readable, boot: bytes) -> Iterator[int]:
    """First sectors of the partitions of an MBR, and of a GPT behind it."""
    for at in range(446, 510, 16):
        kind, first = boot[at + 4], _int(boot, at + 8, 4)
        if boot[at] & 0x7F or not kind or not 0 < first < source.size // SECTOR:
            continue
        if kind != 0xEE:
            yield first
            continue
        header = source.read(SECTOR, SECTOR)
        if header[:8] == b"EFI PART":
            table = _read(source, _int(header, 72, 8), 16 << 10)
            for entry in range(0, len(table), max(_int(header, 84, 4), 128)):
                if any(table[entry : entry + 16]):
                    yield _int(table, entry + 32, 8)


def _at(source: Readable, start: int) -> FileSystem | None:
    """The file system that begins at a sector."""
    head = _read(source, start, 4 * SECTOR)
    for name, made in (("exFAT", _exfat), ("NTFS", _ntfs), ("FAT", _fat), ("ext", _ext)):
        found = made(source, start, head)
        if found is not None:
            kind, written = found
            return FileSystem(kind or name, start, merged(written))
    return None


Occupied = tuple[str, Sectors] | None


def _runs(used: np.ndarray[Any, Any], first: int, size: int) -> Sectors:
    """Stretches of sectors of the clusters in use; the first of ``size`` sectors begins at ``first``."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], used.astype(np.int8), [0]]))).reshape(-1, 2)
    return [(first + int(a) * size, first + int(b) * size) for a, b in edges]


def _fat(source: Readable, start: int, head: bytes) -> Occupied:
    sectors, tables, reserved = head[13], head[16], _int(head, 14, 2)
    if head[510:512] != b"\x55\xaa" or _int(head, 11, 2) != SECTOR or not tables or sectors & (sectors - 1):
        return None
    if not sectors or not reserved or head[0] not in (0xEB, 0xE9):
        return None
    small = _int(head, 22, 2)
    size = small or _int(head, 36, 4)
    root = -(-32 * _int(head, 17, 2) // SECTOR)
    data = start + reserved + tables * size + root
    total = _int(head, 19, 2) or _int(head, 32, 4)
    clusters = max(start + total - data, 0) // sectors
    name = "FAT32" if not small else "FAT16" if clusters >= 4085 else "FAT12"
    written = [(start, data)]
    if name != "FAT12":
        width = 4 if name == "FAT32" else 2
        table = np.frombuffer(_read(source, start + reserved, min(size * SECTOR, _FIT)), f"<u{width}")
        written += _runs(table[2 : clusters + 2] & 0x0FFFFFFF != 0, data, sectors)
    return name, written


def _exfat(source: Readable, start: int, head: bytes) -> Occupied:
    if head[3:11] != b"EXFAT   ":
        return None
    fat, fat_size, heap, clusters, root = (_int(head, at, 4) for at in (80, 84, 88, 92, 96))
    if head[109] > 16 or not heap:  # clusters of more than 32 MB
        return None
    cluster = 1 << head[109]
    first = start + heap
    written = [(start, start + 24), (start + fat, start + fat + fat_size)]
    between = _read(source, start + 24, SECTOR) + _read(source, first - 1, SECTOR)
    if not any(between):  # formatting leaves the stretches between these alone, or clears them
        written.append((start, first))
    directory = _read(source, first + (root - 2) * cluster, min(cluster * SECTOR, _FIT))
    written.append((first + (root - 2) * cluster, first + (root - 1) * cluster))
    for entry in range(0, len(directory), 32):
        if directory[entry] in (0x81, 0x82):  # bitmap, upper-case table
            at = first + (_int(directory, entry + 20, 4) - 2) * cluster
            length = _int(directory, entry + 24, 8)
            written.append((at, at + -(-length // SECTOR)))
            if directory[entry] == 0x81:
                bits = np.frombuffer(_read(source, at, min(length, _FIT)), np.uint8)
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
    table = _read(source, start + _int(head, 48, 8) * cluster, min(_RECORDS * size, _FIT))
    for at in range(0, len(table) - size + 1, size):
        record = table[at : at + size]
        if record[:4] == b"FILE":
            written += _ntfs_runs(_unfixed(record), start, cluster)
    return "NTFS", written


def _unfixed(record: bytes) -> bytes:
    """A record with the last two bytes of each sector put back, which a sequence number replaces on the disk."""
    out = bytearray(record)
    at, count = _int(record, 4, 2), _int(record, 6, 2)
    for k in range(1, count):
        out[k * SECTOR - 2 : k * SECTOR] = record[at + 2 * k : at + 2 * k + 2]
    return bytes(out)


def _ntfs_runs(record: bytes, start: int, cluster: int) -> Iterator[tuple[int, int]]:
    """The clusters of a file's attributes, as far as something was written into them."""
    at = _int(record, 20, 2)
    while at + 8 < len(record) and _int(record, at, 4) != 0xFFFFFFFF:
        length = _int(record, at + 4, 4)
        if record[at + 8]:
            left = -(-_int(record, at + 56, 8) // (cluster * SECTOR))  # clusters with content
            runs, place = at + _int(record, at + 32, 2), 0
            while left > 0 and record[runs]:
                low, high = record[runs] & 15, record[runs] >> 4
                count = _int(record, runs + 1, low)
                place += int.from_bytes(record[runs + 1 + low : runs + 1 + low + high], "little", signed=True)
                if high:
                    yield start + place * cluster, start + (place + min(count, left)) * cluster
                left -= count
                runs += 1 + low + high
        if not length:
            return
        at += length


def _ext(source: Readable, start: int, head: bytes) -> Occupied:
    block = head[2 * SECTOR : 4 * SECTOR]
    if block[56:58] != b"\x53\xef":
        return None
    compat, incompat, readonly = (_int(block, at, 4) for at in (92, 96, 100))
    if _int(block, 24, 4) > 6:  # blocks of more than 64 KiB
        return None
    per_block = 2 << _int(block, 24, 4)  # sectors
    name = "ext4" if incompat & 0x2C0 else "ext3" if compat & 4 else "ext2"
    first_block, blocks = _int(block, 20, 4), _int(block, 4, 4) | (_int(block, 336, 4) << 32 if incompat & 0x80 else 0)
    in_group, inodes = _int(block, 32, 4), _int(block, 40, 4)
    inode_size = _int(block, 88, 2) or 128
    width = _int(block, 254, 2) if incompat & 0x80 else 32
    groups = -(-(blocks - first_block) // in_group)
    table_blocks = -(-groups * width // (per_block * SECTOR))

    def at(number: int, count: int = 1) -> tuple[int, int]:
        return start + number * per_block, start + (number + count) * per_block

    table = _read(source, at(first_block + 1)[0], min(groups, _GROUPS) * width)
    written = [at(first_block, 1 + table_blocks + _int(block, 206, 2))]
    tells = readonly & 0x410  # checksums of groups: only then the flags say what was never written
    inode_table = 0
    for group in range(len(table) // width):
        entry = table[group * width : (group + 1) * width]
        block_bits, inode_bits, inode_at = (
            _int(entry, k, 4) | (_int(entry, k + 32, 4) << 32 if width >= 64 else 0) for k in (0, 4, 8)
        )
        flags = _int(entry, 18, 2) if tells else 4
        inode_table = inode_table or inode_at
        unused = _int(entry, 28, 2) | (_int(entry, 50, 2) << 16 if width >= 64 else 0)
        used = inodes if flags & 4 else 0 if flags & 1 else inodes - unused
        written += [at(block_bits)] if not flags & 2 else []
        written += [at(inode_bits)] if not flags & 1 else []
        written.append(at(inode_at, -(-used * inode_size // (per_block * SECTOR))))
        if group and (not readonly & 1 or _sparse(group)):
            copy = first_block + group * in_group
            written += [(at(copy)[0], at(copy)[0] + 2), at(copy + 1, table_blocks)]
    files = _read(source, at(inode_table)[0], 11 * inode_size)
    for k in range(0, len(files), inode_size):
        written += [at(*run) for run in _ext_blocks(files[k : k + inode_size], incompat)]
    return name, written


def _sparse(group: int) -> bool:
    """Whether a group has a copy of the superblock: the first and the powers of 3, 5 and 7."""
    for base in (3, 5, 7):
        power = 1
        while power < group:
            power *= base
        if power == group:
            return True
    return group <= 1


def _ext_blocks(inode: bytes, incompat: int) -> Iterator[tuple[int, int]]:
    """(first block, blocks) of a file, by its inode alone."""
    if not _int(inode, 0, 2) and not any(inode[40:100]):
        return
    if _int(inode, 32, 4) & 0x80000:  # extents
        for k in range(min(_int(inode, 42, 2), 4) if _int(inode, 40, 2) == 0xF30A else 0):
            entry = inode[52 + 12 * k : 64 + 12 * k]
            if _int(inode, 46, 2):  # the block with the next level
                yield _int(entry, 4, 4) | _int(entry, 8, 2) << 32, 1
            else:
                yield _int(entry, 8, 4) | _int(entry, 6, 2) << 32, _int(entry, 4, 2) & 0x7FFF
        return
    for k in range(15):
        number = _int(inode, 40 + 4 * k, 4)
        if number:
            yield number, 1
