"""Small cards made of bytes, and a disk that fails in every way a card can."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from miniscope_xr.layout import load_layout
from miniscope_xr.tools.flash import sector
from miniscope_xr.tools.flash.disks.base import Disk

SECTOR = 512
SIZE = 2100 * SECTOR
DISK = Disk("/dev/fake", "disk", "sd", SIZE, removable=True, model="FAKE", cid="0123456789abcdef0123456789abc0de")
V4 = load_layout("v4-wirefree")


def settings_sector(layout=V4, *, keys=True, **values):
    """A header sector with the layout's defaults and `values`; without keys as the lab notebook writes it."""
    defaults = {name: f.default or 0 for name, f in layout.header.items()}
    data = bytearray(sector.build(layout, {**defaults, **values}, bytes(SECTOR), None))
    if not keys:
        data[:16] = bytes(16)
    return bytes(data)


def v4_buffers(n, first_sector=1024, length=12, ewl=0):
    """`n` v4 buffers with their headers, as (sector, bytes)."""
    rng = np.random.default_rng(7)
    at, out = first_sector, []
    for i in range(n):
        frame, index = divmod(i, 5)
        size = 20432 if index < 4 else 10688
        words = [length, i % 8, frame, i, index, i, 0, 10 * i + 10, size, 10 * i + 11, 190, ewl][:length]
        data = np.array(words, "<u4").tobytes() + rng.integers(0, 256, size, np.uint8).tobytes()
        sectors = -(-len(data) // SECTOR)
        out.append((at, data.ljust(sectors * SECTOR, b"\xaa")))
        at += sectors
    return out


def v4_card(size=SIZE, buffers=8, counted=True, **values):
    """A small v4 card with a recording, as bytes."""
    card = bytearray(size)
    card[1022 * SECTOR : 1023 * SECTOR] = settings_sector(
        **{"gain": 1, "led": 7, "fs": 20, "record_length": 3, **values}
    )
    if buffers:
        counts = [304, 304, 20, 20480, buffers if counted else 0, 0]
        card[1023 * SECTOR : 1023 * SECTOR + 24] = np.array(counts, "<u4").tobytes()
    for at, data in v4_buffers(buffers):
        card[at * SECTOR : at * SECTOR + len(data)] = data
    return bytes(card)


def with_table(card: bytes, gpt: bool = False) -> bytes:
    """The same card with an MBR, or a GPT and its copy, in front."""
    out = bytearray(card)
    out[446:462] = bytes([0, 0, 2, 0, 0x0C, 0, 0, 0, 0, 8, 0, 0, 0, 64, 0, 0])
    out[510:512] = b"\x55\xaa"
    if gpt:
        out[512:520] = b"EFI PART"
        out[1024:1100] = bytes(range(76))
        out[-512:-504] = b"EFI PART"
        out[-33 * 512 : -33 * 512 + 76] = bytes(range(76))
    return bytes(out)


class Killed(BaseException):
    """The process is gone at once, or the power is."""


@dataclass(frozen=True)
class Fault:
    """What goes wrong at the n-th operation of the disk (reads, writes and flushes counted together).

    ``power`` says what of the card's own unflushed writes survives a power cut: None (no power cut),
    ``"none"``, ``"all"``, or a seed for a random choice of sectors. ``of`` counts operations of one kind alone: how
    often a kernel reads is not the same each time.
    """

    at: int
    kind: str
    where: int = 0
    power: str | int | None = None
    of: str = ""


class FaultDisk:
    """A card with a volatile cache of its own. ``log`` lists the operations."""

    def __init__(self, media: bytes, fault: Fault | None = None) -> None:
        self.media = bytearray(media)
        self.size = len(media)
        self.fault = fault or Fault(-1, "")
        self.cache: list[tuple[int, bytes]] = []
        self.log: list[tuple[str, int, int]] = []
        self._counted = 0
        self.gone = False
        self.bad: set[int] = set()  # sectors that cannot be read

    def view(self) -> bytes:
        """What a read would find: the media with the cache over it."""
        if not self.cache:
            return bytes(self.media)
        out = bytearray(self.media)
        for at, data in self.cache:
            out[at : at + len(data)] = data
        return bytes(out)

    def _due(self, kind: str, at: int, length: int) -> Fault | None:
        self.log.append((kind, at, length))
        if self.gone:
            raise OSError(5, "unplugged")
        if self.fault.of not in ("", kind):
            return None
        self._counted += 1
        if self._counted - 1 != self.fault.at:
            return None
        if self.fault.kind == "unplugged":
            self.gone = True
        if self.fault.kind in ("unplugged", "error"):
            raise OSError(5, self.fault.kind)
        if self.fault.kind == "interrupt":
            raise KeyboardInterrupt
        if self.fault.kind == "killed before":
            self._die()
        return self.fault

    def _die(self) -> None:
        power = self.fault.power
        if power is None or power == "all":
            self._settle(self.cache)
        elif power != "none":
            rng = random.Random(power)
            pieces = [(at + i, data[i : i + SECTOR]) for at, data in self.cache for i in range(0, len(data), SECTOR)]
            kept = [piece for piece in pieces if rng.random() < 0.5]
            if kept and rng.random() < 0.5:  # the sector that was being written when the power went
                at, data = kept[-1]
                kept[-1] = (at, data[: rng.randrange(1, SECTOR)])
            self._settle(kept)
        self.cache = []
        raise Killed

    def _settle(self, pieces: Sequence[tuple[int, bytes]]) -> None:
        for at, data in pieces:
            self.media[at : at + len(data)] = data

    def read(self, offset: int, length: int) -> bytes:
        fault = self._due("read", offset, length)
        if self.bad.intersection(range(offset // SECTOR, (offset + length) // SECTOR)):
            raise OSError(5, "bad sector")
        found = self.media[offset : offset + length]
        for at, piece in self.cache:
            start, stop = max(at, offset), min(at + len(piece), offset + length)
            if start < stop:
                found[start - offset : stop - offset] = piece[start - at : stop - at]
        data = bytes(found)
        assert len(data) == length, "read past the end"
        if fault and fault.kind == "flipped":
            bad = bytearray(data)
            bad[fault.where // 8 % length] ^= 1 << fault.where % 8
            return bytes(bad)
        if fault and fault.kind == "killed after":
            self._die()
        return data

    def write(self, offset: int, data: bytes) -> None:
        assert offset % SECTOR == len(data) % SECTOR == 0
        assert offset + len(data) <= self.size
        fault = self._due("write", offset, len(data))
        kind = fault.kind if fault else ""
        if fault and kind == "torn":
            self.cache.append((offset, data[: fault.where % len(data)]))
            raise OSError(5, "torn")
        if kind == "lying":
            return
        if fault and kind == "flipped":
            bad = bytearray(data)
            bad[fault.where // 8 % len(data)] ^= 1 << fault.where % 8
            data = bytes(bad)
        if fault and kind == "short lie":
            data = data[: fault.where % len(data)]
        self.cache.append((offset, bytes(data)))
        if kind == "killed after":
            self._die()

    def flush(self) -> None:
        fault = self._due("flush", 0, 0)
        self._settle(self.cache)
        self.cache = []
        if fault and fault.kind == "killed after":
            self._die()

    def same(self) -> None:
        if self.gone:
            raise OSError(5, "unplugged")

    def next_data(self, offset: int) -> int:
        return offset

    def reread_partitions(self) -> None:
        pass


def faults_of(log: Sequence[tuple[str, int, int]], wanted: int, seed: int = 1) -> list[Fault]:
    """At least ``wanted`` different faults for a run with these operations, every operation and kind among them."""
    rng = random.Random(seed)
    found: dict[Fault, None] = {}
    for i, (kind, _, length) in enumerate(log):
        for what in ("error", "unplugged", "interrupt", "killed before", "killed after"):
            found[Fault(i, what)] = None
        for power in ("none", "all"):
            found[Fault(i, "killed before", power=power)] = None
            found[Fault(i, "killed after", power=power)] = None
        if kind == "write":
            found[Fault(i, "lying")] = None
            for where in (1, 4, 16, 17, 64, length - 1):
                found[Fault(i, "torn", where)] = found[Fault(i, "short lie", where)] = None
            for where in range(0, 640, 37):
                found[Fault(i, "flipped", where)] = None
        elif kind == "read":
            found[Fault(i, "flipped", rng.randrange(8 * length))] = None
    writes = [i for i, (kind, _, _) in enumerate(log) if kind == "write"]
    while len(found) < wanted:
        i = rng.choice(writes)
        length = log[i][2]
        found[Fault(i, rng.choice(("torn", "short lie")), rng.randrange(1, length))] = None
        found[Fault(i, "flipped", rng.randrange(8 * length))] = None
        found[Fault(rng.randrange(i, len(log)), "killed before", power=rng.randrange(10**6))] = None
        found[Fault(i, "killed after", power=rng.randrange(10**6))] = None
    return list(found)
