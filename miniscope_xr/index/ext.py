"""ext2, ext3 and ext4: the sectors that formatting a card with one of them wrote.

A disk is cut into groups of blocks. One table near the front describes them: where each keeps its two bitmaps and its
inodes, and which of them formatting left alone ("uninit"). Fields are named as in the Linux kernel's documentation
of ext4 (filesystems/ext4), without their ``s_``, ``bg_`` and ``i_``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from miniscope_xr.index.tables import Occupied, Stretches, number_at, read_table
from miniscope_xr.layout import SECTOR
from miniscope_xr.source.base import Readable

_GROUPS = 4096  # groups that are looked at: 512 GB
_FILES = 11  # those that formatting makes: directories, journal
_HAS_JOURNAL = 0x4  # feature_compat
_EXT4_ONLY, _64BIT = 0x2C0, 0x80  # feature_incompat
_SPARSE_SUPER, _CHECKSUMS = 0x1, 0x410  # feature_ro_compat; without checksums the flags of a group say nothing
_INODE_UNINIT, _BLOCK_UNINIT, _INODE_ZEROED = 0x1, 0x2, 0x4  # flags of a group
_EXTENTS = 0x80000  # flag of an inode


def ext(source: Readable, start: int, head: bytes) -> Occupied:
    """The file system that begins at sector ``start``, whose first four sectors are ``head``."""
    block = head[2 * SECTOR : 4 * SECTOR]
    if block[56:58] != b"\x53\xef" or number_at(block, 24, 4) > 6:  # no magic, or blocks of more than 64 KiB
        return None
    disk = _Superblock(start, block)
    descriptors = read_table(source, disk.sectors(disk.first + 1)[0], min(disk.groups, _GROUPS) * disk.width)
    reserved = number_at(block, 206, 2)
    written = [disk.sectors(disk.first, 1 + disk.table + reserved)]
    inodes = 0
    for number in range(len(descriptors) // disk.width):
        group = _Group(disk, descriptors[number * disk.width : (number + 1) * disk.width])
        inodes = inodes or group.inode_table
        written += [*group.written(), *disk.copies(number)]
    files = read_table(source, disk.sectors(inodes)[0], _FILES * disk.inode_size)
    for at in range(0, len(files), disk.inode_size):
        written += [disk.sectors(*run) for run in _blocks(files[at : at + disk.inode_size])]
    return disk.name, written


class _Superblock:
    """What the superblock says; places are blocks, :meth:`sectors` makes sectors of the card of them."""

    def __init__(self, start: int, block: bytes) -> None:
        compat, incompat, self.readonly = (number_at(block, at, 4) for at in (92, 96, 100))
        self.wide = bool(incompat & _64BIT)
        self.name = "ext4" if incompat & _EXT4_ONLY else "ext3" if compat & _HAS_JOURNAL else "ext2"
        self.start = start
        self.per_block = 2 << number_at(block, 24, 4)  # sectors
        self.first = number_at(block, 20, 4)
        self.in_group, self.inodes = number_at(block, 32, 4), number_at(block, 40, 4)
        self.inode_size = number_at(block, 88, 2) or 128
        self.width = number_at(block, 254, 2) if self.wide else 32  # bytes of a group's descriptor
        blocks = number_at(block, 4, 4) | (number_at(block, 336, 4) << 32 if self.wide else 0)
        self.groups = -(-(blocks - self.first) // self.in_group)
        self.table = self.blocks_of(self.groups * self.width)

    def blocks_of(self, size: int) -> int:
        """Blocks that ``size`` bytes take."""
        return -(-size // (self.per_block * SECTOR))

    def sectors(self, block: int, count: int = 1) -> tuple[int, int]:
        """First sector of a block, and the first behind ``count`` blocks."""
        return self.start + block * self.per_block, self.start + (block + count) * self.per_block

    def copies(self, group: int) -> Stretches:
        """The copy of the superblock and of the table that a group begins with; not every group has one."""
        if not group or (self.readonly & _SPARSE_SUPER and not _sparse(group)):
            return []
        block = self.first + group * self.in_group
        first, _ = self.sectors(block)
        return [(first, first + 2), self.sectors(block + 1, self.table)]


@dataclass(frozen=True)
class _Group:
    """A group's descriptor."""

    disk: _Superblock
    entry: bytes

    def _number(self, at: int, size: int, upper: int) -> int:
        """A number whose upper half lies at ``upper``, where descriptors have one."""
        high = number_at(self.entry, upper, size) if self.disk.width >= 64 else 0
        return number_at(self.entry, at, size) | high << 8 * size

    @property
    def inode_table(self) -> int:
        """Block at which its inodes begin."""
        return self._number(8, 4, 40)

    def written(self) -> Iterator[tuple[int, int]]:
        """Its bitmaps, and its inodes as far as they were written."""
        flags = number_at(self.entry, 18, 2) if self.disk.readonly & _CHECKSUMS else _INODE_ZEROED
        unused = self._number(28, 2, 50)
        used = self.disk.inodes if flags & _INODE_ZEROED else 0 if flags & _INODE_UNINIT else self.disk.inodes - unused
        if not flags & _BLOCK_UNINIT:
            yield self.disk.sectors(self._number(0, 4, 32))
        if not flags & _INODE_UNINIT:
            yield self.disk.sectors(self._number(4, 4, 36))
        yield self.disk.sectors(self.inode_table, self.disk.blocks_of(used * self.disk.inode_size))


def _sparse(group: int) -> bool:
    """Whether a group has a copy of the superblock: the first and the powers of 3, 5 and 7."""
    for base in (3, 5, 7):
        power = 1
        while power < group:
            power *= base
        if power == group:
            return True
    return group <= 1


def _blocks(inode: bytes) -> Iterator[tuple[int, int]]:
    """(first block, blocks) of a file, by its inode alone."""
    if not number_at(inode, 0, 2) and not any(inode[40:100]):
        return
    if number_at(inode, 32, 4) & _EXTENTS:
        for k in range(min(number_at(inode, 42, 2), 4) if number_at(inode, 40, 2) == 0xF30A else 0):
            entry = inode[52 + 12 * k : 64 + 12 * k]
            if number_at(inode, 46, 2):  # the block with the next level
                yield number_at(entry, 4, 4) | number_at(entry, 8, 2) << 32, 1
            else:
                yield number_at(entry, 8, 4) | number_at(entry, 6, 2) << 32, number_at(entry, 4, 2) & 0x7FFF
        return
    for k in range(15):
        number = number_at(inode, 40 + 4 * k, 4)
        if number:
            yield number, 1
