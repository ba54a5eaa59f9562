"""Lives of cards: recorded, stalled, used again, cut off, used again; then formatted, or a bit of it flipped.

A life is random but a pure function of its seed, and what a perfect reader gets out of its last recording is known
exactly (:meth:`SimulatedCard.expected`). What lies behind that recording is an older one of the same card.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miniscope_xr.layout import SECTOR, builtin_layouts
from miniscope_xr.tools.simulate.card import simulate
from miniscope_xr.tools.simulate.events import (
    Event,
    FailedWrite,
    LostInterrupt,
    PowerLoss,
    RecordAgain,
    RemoteEdge,
    Stall,
)
from miniscope_xr.tools.simulate.image import SimulatedCard, truncated

# Layout, build, and how often a life is one of it.
DEVICES = (
    ("v4-wirefree", "HEAD", 5), ("v4-wirefree", "battery", 2), ("v4-wirefree", "f70f880", 2),
    ("v4-wirefree", "aa04ec3", 1), ("v4-wirefree", "3787c5c", 1), ("daq-wirefree", "HEAD", 3),
    ("daq-wirefree", "HEAD 640x560", 1), ("daq-wirefree", "319b459", 1), ("v3-wirefree", "97dc62d", 2),
    ("v3-wirefree", "352x240", 1), ("v4-wirefree-2026", "e3f18b5", 3), ("samd-framework", "12 words, temperature", 1),
    ("samd-framework", "12 words, focus", 1), ("samd-framework", "13 words", 1), ("miniscope-zero", "8045572", 1),
)  # fmt: skip
ACCIDENTS = ("formatted", "front gone", "flipped", "truncated")


@dataclass(frozen=True)
class Life:
    """A card with a past.

    Attributes
    ----------
    card : SimulatedCard
        The card as it is now; its truth is that of the last recording.
    story : tuple of str
        What happened, one sentence a step.
    optional : frozenset of (int, int, int)
        (recording, frame, buffer) of buffers that an accident hit: nothing tells how much of one is left, so a reader
        may return or leave out each, and its pixels are not judged.
    accident : str
        One of :data:`ACCIDENTS`, or nothing.
    counted : bool
        The config sector holds the counts of the last recording.
    """

    card: SimulatedCard
    story: tuple[str, ...]
    optional: frozenset[tuple[int, int, int]] = frozenset()
    accident: str = ""
    counted: bool = False


def _device(rng: random.Random, family: str | None) -> tuple[str, str]:
    devices = [d for d in DEVICES if family in (None, d[0])]
    layout, build, _ = rng.choices(devices, [d[2] for d in devices])[0]
    return layout, build


def _power_on(layout: str, build: str) -> float:
    """Ms from power-on to the start of a recording, on the clock of its headers."""
    return 1550.0 if layout == "daq-wirefree" and build != "319b459" else 0.0


def _troubles(rng: random.Random, layout: str, build: str, frames: int) -> list[Event]:
    """What goes wrong while it records; most recordings go well."""
    length = 50.0 * frames
    whole = layout == "v3-wirefree"
    kinds = ["stall", "failed"] if whole else ["stall", "stall", "stalls", "failed", "interrupt", "remote"]
    kind = rng.choice(["none", "none", *kinds])
    start = _power_on(layout, build)
    if kind == "stall":
        return [Stall(start + rng.uniform(100, length), rng.uniform(40, 400))]
    if kind == "stalls":
        return [Stall(start + rng.uniform(100, length), rng.uniform(20, 250)) for _ in range(rng.randint(2, 4))]
    if kind == "failed":
        return [FailedWrite(rng.randint(1, frames if whole else 3 * frames), rng.randint(1, 2 if whole else 4))]
    if kind == "interrupt" and layout == "v4-wirefree":
        return [LostInterrupt(rng.randint(1, frames - 2), rng.choice(["frame", "buffer"]))]
    if kind == "remote" and layout == "v4-wirefree":
        return [RemoteEdge(rng.uniform(100, length)) for _ in range(rng.randint(1, 5))]
    return []


def _ending(rng: random.Random, layout: str, frames: int, cut: float) -> tuple[dict[str, Any], list[Event], str]:
    """How a recording ends: options for ``simulate``, an event, and words for it."""
    power_on = 1.55 if layout == "daq-wirefree" else 0.0
    if rng.random() < cut:
        at = rng.uniform(0.3, 0.98) * 50 * frames + 1000 * power_on
        return {"frames": frames}, [PowerLoss(at_ms=at)], "power lost"
    if layout != "v3-wirefree" and rng.random() < 0.5:
        return {"frames": frames}, [], "stopped"
    return {"seconds": math.ceil(power_on + frames / 20)}, [], "record length over"


def live(
    seed: int,
    layout: str | None = None,
    accidents: Sequence[str] = ACCIDENTS,
    together: bool = False,
    survives: bool = False,
) -> Life:
    """Make life number ``seed``.

    Parameters
    ----------
    seed
        The same number gives the same card.
    layout
        Only devices of this layout (an id).
    accidents
        What may happen to the card at the end.
    together
        A DAQ's recordings all begin at the same ms after power-on; else at any, as a person presses the button.
    survives
        The power is not lost in the last recording: what it would have written, had it gone on.
    """
    rng = random.Random(f"life {seed}")
    device, build = _device(rng, layout)
    story: list[str] = []
    cards: list[SimulatedCard] = []
    counted = False
    fill = rng.choice([0, 255])
    uses = rng.choice([1, 1, 2, 2, 3])
    large = device == "daq-wirefree" or build == "3787c5c"
    most = 16 if large else 36
    for use in range(uses):
        frames = rng.randint(6, most)
        if use == uses - 1 and uses > 1:  # the last one is the shorter one: the older goes on behind it
            frames = max(5, frames // 2)
        options, ending, said = _ending(rng, device, frames, 0.5)
        troubles = _troubles(rng, device, build, frames)
        if survives and use == uses - 1 and said == "power lost":
            options, ending = {"frames": 2 * most}, []
        events: list[Event] = [*troubles, *ending]
        again = said == "stopped" and device == "v4-wirefree" and rng.random() < 0.12
        if again:
            events.append(RecordAgain(rng.randint(4, 12)))
        shape = next(b for b in builtin_layouts()[device].builds if b.firmware == build)
        pixels = np.random.default_rng((seed, use))
        scene = pixels.integers(0, 256, (7, shape.height, shape.width), np.uint8)
        settings = {"ewl": rng.randrange(256)} if device == "v4-wirefree" else {}
        apart = None if together else _power_on(device, build) + random.Random(f"apart {seed} {use}").uniform(2, 50)
        card = simulate(
            device, build, events=events, under=cards[-1] if cards else None, fill=fill,
            camera=scene, settings=settings,
            start_offset_ms=apart if device == "daq-wirefree" else rng.uniform(2, 50), clock_ppm=rng.uniform(-80, 80),
            jitter_ms=rng.choice([0, 0, 0.3, 1]), driver_waits=rng.random() < 0.5, tail_sectors=1024, **options,
        )  # fmt: skip
        cards.append(card)
        counted = said != "power lost" and _writes_counts(shape.config_written, said) and device != "daq-wirefree"
        what = ", ".join(type(e).__name__ for e in troubles)
        more = f"{', again' if again else ''}{', ' + what if what else ''}"
        story.append(f"{device} {build}: {frames} frames, {said}{more}")
    if accidents and rng.random() < 0.35:
        return _happen(rng, rng.choice(list(accidents)), cards[-1], story, counted)
    return Life(cards[-1], tuple(story), counted=counted)


def _writes_counts(written: Sequence[str], said: str) -> bool:
    return ("timed stop" if said == "record length over" else "stop") in written


# -- accidents ---------------------------------------------------------------------------------------------------------


def _happen(rng: random.Random, accident: str, card: SimulatedCard, story: list[str], counted: bool) -> Life:
    first = card.layout.sectors.data
    end = max(card.end_sector(k) for k in range(max(card.n_recordings, 1)))
    data = np.frombuffer(card.data, np.uint8).copy()
    if accident == "truncated":
        cut = rng.randint(first * SECTOR + 60_000, max(end * SECTOR, first * SECTOR + 60_001))
        story.append(f"the image ends at byte {cut}")
        shorter = truncated(card, cut)
        return Life(shorter, tuple(story), _touched(card, [(cut, len(card.data))]), accident, counted)
    if accident == "flipped":
        spans = []
        for _ in range(rng.randint(1, 3)):
            buffer = rng.choice(card.buffers)
            at = buffer.sector * SECTOR + 4 * rng.randrange(max(len(buffer.words), 4)) + rng.randrange(4)
            if card.spec.whole_frames:
                at = (buffer.sector + buffer.n_sectors) * SECTOR - 1 - rng.randrange(16)
            if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
                spans.append((at, at + 1))
        story.append(f"{len(spans)} bits flipped in headers")
        return Life(_changed(card, data, spans), tuple(story), _touched(card, spans), accident, counted)
    kind = rng.choice(list(SYSTEMS))
    if accident == "formatted":
        at = first + rng.randint(200, max(201, (end - first) // 2))
        spans = [(0, SECTOR), (at * SECTOR, (at + rng.randint(60, max(61, (end - first) // 3))) * SECTOR)]
    else:
        spans = [(0, (first + rng.randint(0, max(1, (end - first) // 2))) * SECTOR)]
    spans = [(a, min(b, len(data))) for a, b in spans if a < len(data)]
    for k, (a, b) in enumerate(spans):
        data[a:b] = file_system(kind if k == len(spans) - 1 else "MBR", b - a)
    story.append(f"{accident}: {kind} over sectors {', '.join(f'{a // SECTOR}-{b // SECTOR - 1}' for a, b in spans)}")
    gone = any(a <= card.layout.sectors.header * SECTOR < b for a, b in spans)
    return Life(_changed(card, data, spans), tuple(story), _touched(card, spans), accident, counted and not gone)


SYSTEMS = {"FAT32": b"mkfs.fat", "exFAT": b"EXFAT   ", "NTFS": b"NTFS    ", "ext4": b""}


def file_system(kind: str, size: int) -> NDArray[np.uint8]:
    """Make the first ``size`` bytes of an empty file system (or of a partition table, ``"MBR"``)."""
    block = np.zeros(size, np.uint8)

    def put(at: int, text: bytes) -> None:
        part = np.frombuffer(text, np.uint8)[: max(size - at, 0)]
        block[at : at + len(part)] = part

    put(510, b"\x55\xaa")
    if kind == "MBR":
        put(446, bytes([0, 0x20, 0x21, 0, 0x0C, 0xFE, 0xFF, 0xFF, 0, 8, 0, 0, 0, 0, 0xE0, 1]))
    elif kind == "ext4":
        put(510, b"\0\0")
        put(1024 + 56, b"\x53\xef")
    else:
        put(0, b"\xeb\x58\x90" + SYSTEMS[kind])
        if kind == "FAT32":
            put(82, b"FAT32   ")
            put(32 * SECTOR, b"\xf8\xff\xff\x0f\xff\xff\xff\x0f\xff\xff\xff\x0f")
    return block


def _bytes_of(card: SimulatedCard, sector: int, n_sectors: int, length: int) -> tuple[int, int]:
    start = sector * SECTOR
    end = n_sectors * SECTOR if card.spec.whole_frames else card.spec.header_bytes + length
    return start, start + min(end, n_sectors * SECTOR)


def _touched(card: SimulatedCard, spans: Sequence[tuple[int, int]]) -> frozenset[tuple[int, int, int]]:
    """Buffers with a byte in one of the spans."""
    found = set()
    for b in card.buffers:
        start, end = _bytes_of(card, b.sector, b.n_sectors, b.length)
        if any(start < stop and first < end for first, stop in spans):
            found.add((b.recording, b.frame_num, b.index))
    return frozenset(found)


def _changed(card: SimulatedCard, data: NDArray[np.uint8], spans: Sequence[tuple[int, int]]) -> SimulatedCard:
    """The card with other bytes; buffers they hit count as never having reached it."""
    buffers = []
    for b in card.buffers:
        start, end = _bytes_of(card, b.sector, b.n_sectors, b.length)
        hit = any(start < stop and first < end for first, stop in spans)
        buffers.append(replace(b, status="write_failed") if hit else b)
    return SimulatedCard(data.tobytes(), card.spec, tuple(buffers), card.n_recordings)
