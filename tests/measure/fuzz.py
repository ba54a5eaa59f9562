"""Damage cards in random ways and read them in every way there is.

    python tests/measure/fuzz.py --cards 100000 --jobs 1

Cards of the real firmware (where ``../shared/cards`` is present) and simulated ones of every build lose sectors,
words and ends, are spliced, shuffled and filled with random header words. Whatever the bytes are, only errors of
this package come out, in bounded time and memory, and no pixel that no header on the card vouches for.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import os
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from miniscope_xr import MiniscopeError, SDCard, check
from miniscope_xr.card import OpenCard, OpenRecording
from miniscope_xr.index.find import Finder
from miniscope_xr.layout import Layout, builtin_layouts
from miniscope_xr.tools.cli.read import Info, info
from miniscope_xr.tools.copy.image import copy_image
from miniscope_xr.tools.copy.rescue import rescue
from miniscope_xr.tools.simulate import (
    FailedWrite,
    LostInterrupt,
    PowerLoss,
    RecordAgain,
    Stall,
    blank,
    simulate,
)
from tests.conftest import real_cards
from tests.lives import SYSTEMS, file_system, live

SECTOR = 512
EXCERPT = 1 << 20  # bytes of a real card that most of its damaged copies keep
SECONDS = 2.0  # for a card of 8 MB, each way of reading it
MOST = 20  # recordings that are read of a card
MEMORY = 200 << 20  # bytes above the card's own size
SMALL = {
    "v4-wirefree": {"width": 304, "height": 120},
    "daq-wirefree": {"width": 608, "height": 160},
    "v3-wirefree": {},
}
EVENTS: tuple[list[Any], ...] = (
    [],
    [Stall(200, 250)],
    [Stall(180, 94)],
    [FailedWrite(3, 2)],
    [PowerLoss(at_ms=330)],
    [PowerLoss(buffer=9, torn_sectors=5)],
    [LostInterrupt(3)],
    [RecordAgain(5)],
)
_FOOTERS = Finder([layout for layout in builtin_layouts().values() if layout.footer])


@dataclass(frozen=True)
class Base:
    """A card to damage: its bytes and the sectors at which its headers are."""

    name: str
    data: bytes
    headers: tuple[int, ...]


# -- cards to damage ----------------------------------------------------------------------------------------


def header_sectors(data: bytes) -> tuple[int, ...]:
    """Sectors that begin with what can be the length of a header."""
    first = np.frombuffer(data, "<u4", len(data) // 4)[:: SECTOR // 4]
    return tuple((np.flatnonzero((first[1024:] >= 9) & (first[1024:] <= 14)) + 1024).tolist())


def footer_sectors(data: bytes) -> list[int]:
    """Sectors that can be the last ones of whole frames, by the layouts that have footers."""
    found = _FOOTERS(np.frombuffer(data, "<u4", len(data) // SECTOR * (SECTOR // 4)).reshape(-1, SECTOR // 4))
    return found.told[found.told >= 1024].tolist()  # type: ignore[no-any-return]


def _base(name: str, data: bytes) -> Base:
    return Base(name, data, header_sectors(data))


@lru_cache(maxsize=1)
def simulated() -> tuple[Base, ...]:
    """A clean card of every build and several that went wrong, all small."""
    found = []
    for layout in builtin_layouts().values():
        for build in layout.builds:
            small = {"width": 352, "height": 240} if layout.footer and build.frame_sectors == 165 else {}
            options = {**SMALL.get(layout.id, SMALL["v4-wirefree"]), **small}
            if layout.footer and build.frame_sectors == 705:
                continue  # nothing but larger
            for number, events in enumerate(EVENTS):
                if layout.footer and any(isinstance(e, LostInterrupt | RecordAgain) for e in events):
                    continue
                card = simulate(layout, build.firmware, frames=8, events=events, seed=number, fill=255 * (number % 2),
                                tail_sectors=16, **options)  # fmt: skip
                found.append(_base(f"{layout.id} {build.firmware} {number}", card.data))
            older = simulate(layout, build.firmware, frames=12, seed=91, tail_sectors=16, **options)
            newer = simulate(layout, build.firmware, frames=9, seed=92, start_offset_ms=17.0, under=older,
                             events=[PowerLoss(at_ms=320)], **options)  # fmt: skip
            found.append(_base(f"{layout.id} {build.firmware} reused", newer.data))
        found.append(_base(f"{layout.id} booted", blank(layout, booted=not layout.footer, tail_sectors=300).data))
    return tuple(found)


@lru_cache(maxsize=4)
def real(name: str) -> Base:
    """A card written by the real firmware code."""
    cards = real_cards()
    assert cards is not None
    return _base(name, cards.image(name))


@cache
def excerpt(name: str) -> Base:
    """The first megabyte of one."""
    return _base(f"{name}, excerpt", real(name).data[:EXCERPT])


@cache
def life(seed: int) -> Base:
    """The first megabyte of a card with a past."""
    return _base(f"life {seed}, excerpt", live(seed).card.data[:EXCERPT])


def any_base(rng: random.Random, whole: float = 0.02) -> Base:
    """One of all cards; ``whole``: how often a real card is taken as a whole."""
    cards = real_cards()
    if rng.random() < 0.2:
        return life(rng.randrange(200))
    if cards is None or rng.random() < 0.7:
        return rng.choice(simulated())
    names = cards.names()
    if rng.random() < whole:
        return real(names[rng.randrange(len(names))])
    return excerpt(names[rng.randrange(len(names))])


# -- damage -----------------------------------------------------------------------------------------------------


def _word(rng: random.Random) -> int:
    """A header word: small, a power of two, near the ends, or anything."""
    return rng.choice([
        rng.randrange(64), rng.randrange(1 << 16), 1 << rng.randrange(32), (1 << 32) - 1 - rng.randrange(3),
        (1 << 31) - rng.randrange(3), rng.randrange(1 << 32), 20480, 64000, 0, 12, 11, 9,
    ])  # fmt: skip


def _target(rng: random.Random, card: bytearray, base: Base) -> int:
    """A sector worth damaging: settings, config, the first header, any header, or any sector."""
    sectors = [1022, 1023, 1024, 1025, *([rng.choice(base.headers)] * 6 if base.headers else [])]
    sectors.append(rng.randrange(max(len(card) // SECTOR, 1)))
    return min(rng.choice(sectors), max(len(card) // SECTOR - 1, 0))


def _put(card: bytearray, at: int, data: bytes) -> None:
    """Overwrite in place; never makes the card longer."""
    data = data[: max(len(card) - at, 0)]
    card[at : at + len(data)] = data


def words(rng: random.Random, card: bytearray, base: Base, other: Base) -> None:
    """Random words where words count."""
    at = _target(rng, card, base) * SECTOR
    for _ in range(rng.randint(1, 4)):
        _put(card, at + 4 * rng.randrange(16), _word(rng).to_bytes(4, "little"))


def bits(rng: random.Random, card: bytearray, base: Base, other: Base) -> None:
    """Flipped bits."""
    at = _target(rng, card, base) * SECTOR
    for _ in range(rng.randint(1, 4)):
        place = at + rng.randrange(64)
        if place < len(card):
            card[place] ^= 1 << rng.randrange(8)


def steps(rng: random.Random, card: bytearray, base: Base, other: Base) -> None:
    """Header words that are a little off."""
    at = _target(rng, card, base) * SECTOR + 4 * rng.randrange(12)
    value = int.from_bytes(card[at : at + 4], "little") + rng.choice([-2, -1, 1, 2, 5, 8, 19])
    _put(card, at, (value % (1 << 32)).to_bytes(4, "little"))


def cut(rng: random.Random, card: bytearray, base: Base, other: Base) -> None:
    """A copy that was cut off."""
    near = _target(rng, card, base) * SECTOR + rng.choice([0, 0, 4, 40, 48, 511])
    del card[rng.choice([near, rng.randrange(len(card) + 1)]) :]


def splice(rng: random.Random, card: bytearray, base: Base, other: Base) -> None:
    """Two cards, one behind the other."""
    sector = _target(rng, card, base)
    card[sector * SECTOR :] = other.data[sector * SECTOR :]


def patch(rng: random.Random, card: bytearray, base: Base, other: Base) -> None:
    """Some sectors of another card."""
    sector, n = _target(rng, card, base), rng.choice([1, 1, 2, 40, 125])
    _put(card, sector * SECTOR, other.data[sector * SECTOR : (sector + n) * SECTOR])


def span(rng: random.Random, card: bytearray, base: Base, other: Base) -> None:
    """Sectors of nothing but zeros or 0xFF."""
    sector, n = _target(rng, card, base), rng.choice([1, 1, 3, 40, 125, 500])
    _put(card, sector * SECTOR, rng.choice([b"\0", b"\xff"]) * n * SECTOR)


def noise(rng: random.Random, card: bytearray, base: Base, other: Base) -> None:
    """Sectors of anything."""
    _put(card, _target(rng, card, base) * SECTOR, rng.randbytes(rng.choice([48, 512, 20480])))


def shuffle(rng: random.Random, card: bytearray, base: Base, other: Base) -> None:
    """Buffers in another order, or one twice."""
    if len(base.headers) < 3:
        return
    a, b = rng.sample(range(len(base.headers) - 1), 2)
    one, two = (bytes(card[base.headers[k] * SECTOR : base.headers[k + 1] * SECTOR]) for k in (a, b))
    _put(card, base.headers[a] * SECTOR, two)
    if rng.random() < 0.5:
        _put(card, base.headers[b] * SECTOR, one)


def headers(rng: random.Random, card: bytearray, base: Base, other: Base) -> None:
    """Headers where no firmware puts them: many starts, one after another."""
    source = base.headers or other.headers
    if not source:
        return
    at = rng.choice(source[: rng.choice([1, len(source)])]) * SECTOR
    header = bytearray(base.data[at : at + 48])
    header[32:36] = rng.choice([bytes(header[32:36]), bytes(4), _word(rng).to_bytes(4, "little")])
    start, step = _target(rng, card, base), rng.choice([1, 1, 2, 40])
    for k in range(rng.choice([2, 20, 3000])):
        _put(card, (start + k * step) * SECTOR, bytes(header))


def shift(rng: random.Random, card: bytearray, base: Base, other: Base) -> None:
    """Sectors lost or inserted, so that all that follows is displaced."""
    at, n = _target(rng, card, base) * SECTOR, rng.choice([1, 4, 48, 512, 1024, 20480])
    if rng.random() < 0.5:
        del card[at : at + n]
    else:
        card[at:at] = bytes(n)


def footers(rng: random.Random, card: bytearray, base: Base, other: Base) -> None:
    """Words of what stands at the ends of sectors: footers of whole frames, leftovers of other buffers."""
    ends = footer_sectors(bytes(card)) or [_target(rng, card, base)]
    for sector in rng.choices(ends, k=rng.randint(1, 3)):
        at = (sector + 1) * SECTOR - 4 * rng.randint(1, 4)
        value = int.from_bytes(card[at : at + 4], "little")
        value = rng.choice([_word(rng), value + rng.choice([-2, -1, 1, 2, 20]), value ^ (1 << rng.randrange(32))])
        _put(card, at, (value % (1 << 32)).to_bytes(4, "little"))


def drift(rng: random.Random, card: bytearray, base: Base, other: Base) -> None:
    """A word of all headers (footers) from one on: it stands still, jumps, or a bit of it is stuck."""
    whole = [] if base.headers else footer_sectors(bytes(card))
    places = [(k + 1) * SECTOR - 16 for k in whole] or [k * SECTOR for k in base.headers]
    word, value, kind = rng.randrange(4 if whole else 14), _word(rng), rng.randrange(4)
    start = rng.randrange(len(places) + 1)
    for at in places[start : start + rng.choice([3, 1 << 20])]:
        was = int.from_bytes(card[at + 4 * word : at + 4 * word + 4], "little")
        new = (value, was + value, was | (1 << value % 32), was & ~(1 << value % 32))[kind]
        _put(card, at + 4 * word, (new % (1 << 32)).to_bytes(4, "little"))


def swap(rng: random.Random, card: bytearray, base: Base, other: Base) -> None:
    """Sectors that stand where others were to be: swapped, or written twice."""
    n = rng.choice([1, 1, 2, 8, 32, 64, 256])
    one = _target(rng, card, base)
    two = rng.choice([_target(rng, card, base), one ^ n, one + n])
    a, b = (bytes(card[k * SECTOR : (k + n) * SECTOR]) for k in (one, two))
    _put(card, two * SECTOR, a)
    if rng.random() < 0.5:
        _put(card, one * SECTOR, b)


def erased(rng: random.Random, card: bytearray, base: Base, other: Base) -> None:
    """Blocks of a flash chip that lost what was in them: one in some, each as long as the others."""
    size, every = rng.choice([1, 8, 32, 128]), rng.choice([2, 3, 8, 64])
    for k in range(rng.randrange(1024, 1200) // size * size, len(card) // SECTOR, size * every):
        _put(card, k * SECTOR, rng.choice([b"\0", b"\xff"]) * size * SECTOR)


def formatted(rng: random.Random, card: bytearray, base: Base, other: Base) -> None:
    """A new file system over the front, or over some of the buffers."""
    size = rng.choice([1, 1023, 1024, 1025, rng.randrange(1024, 1400)]) * SECTOR
    at = rng.choice([0, 0, 0, 63, 512, _target(rng, card, base)]) * SECTOR
    _put(card, at, file_system(rng.choice([*SYSTEMS, "MBR"]), size).tobytes())


def repeat(rng: random.Random, card: bytearray, base: Base, other: Base) -> None:
    """What is on the card once more behind it, or the other card's buffers: older recordings."""
    front = 1024 * SECTOR
    card += rng.choice([card, other.data])[front + rng.choice([0, 0, 512, 20480]) :]


Damage = Callable[[random.Random, bytearray, Base, Base], None]
DAMAGE: dict[str, Damage] = {
    f.__name__: f
    for f in (
        *(words, bits, steps, cut, splice, patch, span, noise, shuffle, headers, shift),
        *(footers, drift, swap, erased, formatted, repeat),
    )
}


def damaged(seed: int, whole: float = 0.02) -> tuple[str, bytes]:
    """Card number ``seed``, and what it was made of."""
    rng = random.Random(seed)
    base, other = any_base(rng, whole), any_base(rng, 0)
    kinds = rng.choices(list(DAMAGE), k=rng.choice([1, 1, 1, 2, 2, 3, 5]))
    return f"{base.name}: {', '.join(kinds)}", apply(rng, base, other, kinds)


def apply(rng: random.Random, base: Base, other: Base, kinds: list[str]) -> bytes:
    """Do some damage to a copy of a card."""
    card = bytearray(base.data)
    for kind in kinds:
        DAMAGE[kind](rng, card, base, other)
    return bytes(card)


# -- reading, and what must hold -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """One recording as it was read."""

    layout: Layout
    width: int
    height: int
    buffer_size: int
    frame_num: np.ndarray[Any, Any]
    video: np.ndarray[Any, Any]
    present: np.ndarray[Any, Any]
    complete: np.ndarray[Any, Any]


def vouching(data: bytes, seen: Seen, on_sectors: bool = True) -> dict[int, list[tuple[int, int, int]]]:
    """From the bytes alone: frame number -> (first byte in the frame, bytes, offset on the card) of its buffers.

    Behind bytes that were left out, or put in, headers do not begin with sectors any more.
    """
    # in front of the data, too: a card whose front is gone is opened by its buffers, wherever the first one lies
    found: dict[int, list[tuple[int, int, int]]] = {}
    for phase in range(1 if on_sectors else 4):
        table = _words(data, phase)
        of = _footers if seen.layout.footer else _headers
        for number, start, n, offset in of(table, phase, len(data), seen, on_sectors):
            found.setdefault(number, []).append((start, n, offset))
    return found


def _words(data: bytes, phase: int) -> np.ndarray[Any, Any]:
    """The words of a card from byte ``phase`` on, and zeros behind a last sector that was cut."""
    padded = data + bytes(-len(data) % SECTOR + SECTOR)
    return np.frombuffer(padded, "<u4", (len(padded) - phase) // 4, phase)


Vouched = Iterator[tuple[int, int, int, int]]  # frame number, first byte in the frame, bytes, offset on the card


def _footers(words: np.ndarray[Any, Any], phase: int, length: int, seen: Seen, on_sectors: bool) -> Vouched:
    """Frames that a footer names: its number is the last word of the frame, wherever that ends."""
    size = seen.width * seen.height
    at = np.flatnonzero(np.isin(words[127::128], seen.frame_num)) * 128 + 127
    if not on_sectors:  # and stands behind two other words, one of which may be damaged: a small one, and a line count
        small, lines = words[:-3] - np.uint32(1) < 63, words[1:-2] - np.uint32(1) < 4095
        at = np.flatnonzero(small | lines) + 3
        at = at[np.isin(words[at], seen.frame_num)]
        places, many = np.unique(at % 128, return_counts=True)
        if many.max(initial=0) > 1:  # where most are in an image that was shifted, both words may be damaged
            last = np.arange(int(places[many.argmax()]), len(words), 128)
            at = np.union1d(at, last[np.isin(words[last], seen.frame_num)])
    ends = 4 * (at + 1) + phase
    for number, end in zip(words[at].tolist(), ends.tolist(), strict=True):
        if size <= end <= length:
            yield number, 0, size, end - size


def _headers(words: np.ndarray[Any, Any], phase: int, length: int, seen: Seen, on_sectors: bool) -> Vouched:
    """Buffers that a header names."""
    step = 128 if on_sectors else 1
    sizes = {n: n for n in seen.layout.header_words} | {b.marker: b.header_words for b in seen.layout.builds}
    first = words[:-9:step]
    at = np.flatnonzero((first >= min(sizes)) & (first <= max(sizes))) * step
    buffer = seen.layout.buffer
    frame, place_in, length_of = (buffer[name].word for name in ("frame_num", "frame_buffer_count", "data_length"))
    at = at[np.isin(words[at], list(sizes)) & np.isin(words[at + frame], seen.frame_num) & (words[at + place_in] < 64)]
    for marker, number, index, n, place in zip(
        *(words[at + k].tolist() for k in (0, frame, place_in, length_of)), (4 * at + phase).tolist(), strict=True
    ):
        payload, offset = seen.buffer_size - 4 * sizes[marker], place + 4 * sizes[marker]
        if n <= payload:
            yield number, index * payload, min(n, length - offset), offset


def stray(data: bytes, seen: Seen, on_sectors: bool = True) -> list[int]:
    """Frame numbers with a pixel that no buffer named by a header can have put there."""
    known = vouching(data, seen, on_sectors)
    card = np.frombuffer(data, np.uint8)
    wrong = []
    for number, image in zip(seen.frame_num.tolist(), seen.video, strict=True):
        pixels = image.reshape(-1)
        left = pixels != 0
        for start, n, offset in known.get(number, []):
            if start < pixels.size and n > 0:
                stop = min(start + n, pixels.size)
                left[start:stop] &= pixels[start:stop] != card[offset : offset + stop - start]
                if not left.any():
                    break
        if left.any():
            wrong.append(number)
    return wrong


_judging = 0.0  # seconds of this process that were the judge's and not the reader's
_judged: tuple[bytes, list[Seen]] = b"", []  # what was found right of a card: most ways of reading give the same


def judge(data: bytes, seen: Seen) -> None:
    """What must hold of every recording that comes out of a damaged card."""
    global _judging, _judged
    since = time.process_time()
    try:
        if _judged[0] is not data:
            _judged = data, []
        if not any(_same(seen, known) for known in _judged[1]):
            _judge(data, seen)
            _judged[1].append(seen)
    finally:
        _judging += time.process_time() - since


def _same(one: Seen, other: Seen) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(vars(one).values(), vars(other).values(), strict=True))


def _judge(data: bytes, seen: Seen) -> None:
    wrong = stray(data, seen) and stray(data, seen, on_sectors=False)
    assert not wrong, f"frames {wrong[:5]} hold pixels that no header vouches for"
    assert not seen.complete[seen.present == 0].any(), "complete without buffers"
    assert bool((np.diff(seen.frame_num) > 0).all()), "frame numbers do not rise"


def _stores(path: Path, data: bytes, index: str, known: list[str] | None = None) -> None:
    """All frames, headers and buffers of every recording, as the backend reads them.

    Recordings in ``known`` were read before: what is read of one follows from it and the bytes.
    """
    known = [] if known is None else known
    card = OpenCard(path, index=index)
    try:
        found = card.index
        size = 0 if found.config is None else found.config["buffer_size"]
        front = repr((replace(found, recordings=()), card.splices))
        for recording in found.recordings[:MOST]:
            reading = front + repr(recording)
            if reading in known:
                continue
            store = OpenRecording(card, recording)
            rows = np.arange(store.frames.count)
            pixels = store.pixels(rows)
            described = store.describe(rows)
            judge(data, Seen(
                found.layout, recording.width, recording.height, size,
                described.frame_num, pixels, described.present, described.complete,
            ))  # fmt: skip
            assert len(store.buffer_rows(np.arange(recording.n_buffers))) == recording.n_buffers
            known.append(reading)
    finally:
        card.close()


def _judge_dataset(data: bytes, ds: xr.Dataset) -> None:
    ds.load()
    if ds.attrs["layout"] == "draft":  # opened by its headers alone: no layout to judge it by
        assert any("no known layout fits" in said for said in ds.attrs["warnings"])
        return
    judge(data, Seen(
        builtin_layouts()[ds.attrs["layout"]], ds.attrs["width"], ds.attrs["height"], ds.attrs.get("buffer_size", 0),
        ds.frame_num.values, ds.video.values, ds.buffers_present.values, ds.complete.values,
    ))  # fmt: skip


def _tree(path: Path, data: bytes, index: str) -> None:
    with xr.open_datatree(path, engine="miniscope", index=index) as tree:
        for node in list(tree.children.values())[:MOST]:
            _judge_dataset(data, node.to_dataset())
            table = node["buffers"].to_dataset().load()
            assert table.sizes["buffer"] == node.attrs["n_buffers_found"]


def _dataset(path: Path, data: bytes, **options: Any) -> None:
    with xr.open_dataset(path, engine="miniscope", recording=0, **options) as ds:
        _judge_dataset(data, ds)


def _filled(path: Path, data: bytes) -> None:
    with xr.open_dataset(path, engine="miniscope", recording=0, gaps="fill", until=1 << 20) as ds:
        _judge_dataset(data, ds.isel(frame=slice(0, 12)))


def _rows(path: Path) -> str:
    """Frames are the same in any order; what is there may be told by the others that are read.

    A clock that was learnt from a time with a flipped bit is found wrong only where frames are read that show it.
    """
    outcome = "read"
    with contextlib.closing(OpenCard(path)) as card:
        recording = card.index.recordings[0]
        store = OpenRecording(card, recording)
        rows = np.arange(min(store.frames.count, 40))
        pixels, described = store.pixels(rows), store.describe(rows)
        for some in (rows[::-1], rows[1::3], rows[len(rows) // 2 :]):
            again = OpenRecording(card, recording)
            said = again.describe(some)
            assert (said.frame_num == described.frame_num[some]).all(), "numbers depend on the rows"
            same = said.present == described.present[some]
            assert (said.complete == described.complete[some])[same].all(), "what is complete depends on the rows"
            seen, first = again.pixels(some), pixels[some]
            whole = (said.complete & same)[:, None, None]  # of a missing buffer, what is left of it may be shown or not
            assert ((seen == first) | ~whole & ((seen == 0) | (first == 0)))[same].all(), "pixels depend on the rows"
            outcome = outcome if same.all() else "what is there depends on the rows"
    return outcome


def _cursor(path: Path) -> None:
    """A cursor reads the same frames one after another and wherever it is put; as for :func:`_rows`."""
    with SDCard(path, recording=0) as cursor:
        count = min(cursor.frame_count, 40)
        known = [cursor.read(return_header=True) for _ in range(count)]
        most = max((len(frame.headers) for frame in known), default=0)
        for row in (*range(count - 1, -1, -3), *range(0, count, 4)):
            cursor.frame = row
            seen, first = cursor.read(return_header=True), known[row]
            if len(seen.headers) == len(first.headers):
                missing = len(first.headers) < most and ((seen.frame == 0) | (first.frame == 0))
                assert ((seen.frame == first.frame) | missing).all(), f"the cursor's frame {row} is another"


def _copied(path: Path) -> None:
    """A copy holds the same recordings."""
    out = path.with_suffix(".copy")
    try:
        copy_image(str(path), out, force=True)
        with contextlib.closing(OpenCard(path)) as card, contextlib.closing(OpenCard(out)) as copy:
            runs, copied = ([(r.runs, r.width, r.height) for r in c.index.recordings] for c in (card, copy))
        assert runs == copied, "a copy holds other recordings"
    finally:
        for left in path.parent.glob(f"{path.stem}.copy*"):
            left.unlink()


def _rescued(path: Path) -> None:
    """What a rescued image shows can be vouched for by what is in it."""
    out = path.with_suffix(".rescued")
    try:
        rescue(str(path), out, force=True)
        _stores(out, out.read_bytes(), "bisect")
    finally:
        for left in path.parent.glob(f"{path.stem}.rescued*"):
            left.unlink()


def _info(path: Path) -> None:
    for json in (False, True):
        with contextlib.redirect_stdout(io.StringIO()) as said:
            info(Info(card=str(path), json=json))
        assert said.getvalue()


def _other_layout(path: Path, data: bytes, turn: int) -> None:
    """Read by a layout that somebody gave: it may be wrong, and is what the pixels are judged by."""
    ids = sorted(builtin_layouts())
    _dataset(path, data, layout=ids[turn % len(ids)], index=("bisect", "scan")[turn % 2])


Ways = list[tuple[str, Callable[[], Any]]]


def ways(path: Path, data: bytes, turn: int = 0) -> tuple[Ways, Ways]:
    """The ways to read a card: each by both indexes, and all that is built on them."""
    known: list[str] = []
    both: Ways = [("bisect", lambda: _stores(path, data, "bisect", known)),
                  ("scan", lambda: _stores(path, data, "scan", known))]  # fmt: skip
    more: Ways = [
        ("tree", lambda: _tree(path, data, "bisect")),
        ("dataset", lambda: _dataset(path, data, errors="fill")),
        ("check", lambda: check(path)),
        ("tree", lambda: _tree(path, data, "scan")),
        ("filled", lambda: _filled(path, data)),
        ("check", lambda: check(path, deep=True)),
        ("rows", lambda: _rows(path)),
        ("cursor", lambda: _cursor(path)),
        ("copied", lambda: _copied(path)),
        ("rescued", lambda: _rescued(path)),
        ("info", lambda: _info(path)),
        ("layout", lambda: _other_layout(path, data, turn // len(more))),
    ]
    return both, more


def read(path: Path, data: bytes, done: Callable[[str, str], None], turn: int | None = None) -> None:
    """Read a card by both indexes and in the other ways (all, or the one whose turn it is).

    ``done`` is told each way and how it ended. Raises what is no error of ours.
    """
    path.write_bytes(data)
    both, more = ways(path, data, turn or len(data))
    for name, way in both + (more if turn is None else [more[turn % len(more)]]):
        try:
            outcome = way() or "read"
        except MiniscopeError as error:
            outcome = type(error).__name__
        done(name, outcome)


# -- the long run ---------------------------------------------------------------------------------------------------


def _peak() -> int:
    """Peak of resident memory (bytes) since :func:`_reset_peak`; 0 where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM")), 0)


def _reset_peak() -> int:
    """Forget the peak; returns what is resident now."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return 0
    return _peak()


@dataclass
class Report:
    """What a run found."""

    cards: int = 0
    outcomes: Counter[str] = None  # type: ignore[assignment]
    failures: list[str] = None  # type: ignore[assignment]
    slowest: float = 0.0
    memory: int = 0

    def __post_init__(self) -> None:
        self.outcomes = Counter()
        self.failures = []

    def add(self, other: Report) -> None:
        """Take up the report of other cards."""
        self.cards += other.cards
        self.outcomes += other.outcomes
        self.failures += other.failures
        self.slowest = max(self.slowest, other.slowest)
        self.memory = max(self.memory, other.memory)


def run(first: int, count: int, folder: str) -> Report:
    """Damage and read cards ``first`` to ``first + count - 1``."""
    report = Report()
    path = Path(folder) / f"fuzz-{os.getpid()}.img"
    read(path, simulated()[0].data, lambda way, outcome: None)  # imports are not the cards' seconds
    for seed in range(first, first + count):
        what, data = damaged(seed)
        scale = max(len(data) / 8e6, 1.0)
        resident, since = _reset_peak(), time.process_time() - _judging

        def done(way: str, outcome: str, what: str = what, seed: int = seed, scale: float = scale) -> None:
            nonlocal since
            now = time.process_time() - _judging
            report.outcomes[f"{way}: {outcome}"] += 1
            report.slowest = max(report.slowest, (now - since) / scale)
            if now - since > SECONDS * scale:
                report.failures.append(f"card {seed} ({what}), {way}: {now - since:.1f} s")
            since = now

        try:
            read(path, data, done, turn=seed)
        except Exception as error:
            where = "".join(traceback.format_exception(error)[-4:])
            report.failures.append(f"card {seed} ({what}): {type(error).__name__}: {error}\n{where}")
        taken = _peak() - resident
        report.memory = max(report.memory, taken - len(data))
        if taken > len(data) + MEMORY:
            report.failures.append(f"card {seed} ({what}): {taken / 1e6:.0f} MB for {len(data) / 1e6:.1f} MB")
        report.cards += 1
    path.unlink(missing_ok=True)
    return report


def _fingerprint() -> str:
    """Hash of the cards to damage: the same cards, the same numbers."""
    digest = hashlib.sha256()
    for base in simulated():
        digest.update(base.data)
    return digest.hexdigest()[:12]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cards", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="number of the first card (to repeat one)")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--folder", default="/dev/shm" if Path("/dev/shm").is_dir() else tempfile.gettempdir())
    options = parser.parse_args()
    kinds = "and cards of the real firmware" if real_cards() else "only (../shared/cards is not here)"
    print(f"simulated cards ({len(simulated())}, {_fingerprint()}) {kinds}", flush=True)
    total, started = Report(), time.monotonic()
    blocks = [(at, min(500, options.first + options.cards - at))
              for at in range(options.first, options.first + options.cards, 500)]  # fmt: skip
    with ProcessPoolExecutor(options.jobs) as pool:
        for report in pool.map(run, *zip(*blocks, strict=True), [options.folder] * len(blocks)):
            total.add(report)
            print("\n".join(report.failures), end="\n" if report.failures else "", flush=True)
            seconds = time.monotonic() - started
            print(f"{total.cards} cards, {seconds:.0f} s, {len(total.failures)} failures", flush=True)
    for outcome, n in sorted(total.outcomes.items()):
        print(f"  {n:>8} {outcome}")
    print(f"slowest {total.slowest:.2f} s (limit {SECONDS} s for 8 MB), "
          f"memory above the card's size {total.memory / 1e6:.0f} MB (limit {MEMORY / 1e6:.0f} MB)")  # fmt: skip
    print(f"{total.cards} cards, {len(total.failures)} failures")
    return bool(total.failures)


if __name__ == "__main__":
    sys.exit(main())
