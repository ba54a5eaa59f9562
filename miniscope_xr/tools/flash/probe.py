"""Is a card as large as it says? Data is written all over it, and read back when no cache can hold it any more.

A counterfeit card says 64 GB and has 8. What is written behind its end lands on earlier data (its addresses wrap, at
any number), or nowhere. Reading back at once proves nothing: the last megabytes are answered from its write cache. So:

1. *Marks* of 4 KiB, each different, every 16 MB and at every power of two, in random order.
2. A *block* at the end, larger than any cache and than the distance between two marks. Wherever it lands on a card that
   wraps, it covers a mark::

       says   |m   m   m   m   m   m   m   m   m   m   m   m  BBBBB|
       has    |m   m   m   m   m   m  |           BBBBB wraps to here
                    BBBBB              <- the second mark is gone

3. All marks are read back, in another random order, and then put back as they were.
"""

from __future__ import annotations

import contextlib
import errno
import random
import time
from collections.abc import Callable, Mapping, Sequence

from miniscope_xr.errors import CardReadError
from miniscope_xr.layout import SECTOR
from miniscope_xr.tools.flash import interrupts
from miniscope_xr.tools.flash.errors import CardWriteError
from miniscope_xr.tools.flash.operation import STEP, Progress
from miniscope_xr.tools.flash.target.base import Target

PROBE = 8 * SECTOR
"""Bytes of a mark."""
SPACING = 16 << 20
"""Bytes from one mark to the next, on a card of up to 64 GB."""
CACHE = 64 << 20
"""Bytes of the largest write cache that is to be outlasted; the block is an eighth larger."""
_MARKS = 4096
_LEAST = 64
_PATIENCE = 30.0
"""Seconds after which marks closer than the proof needs are left out: there are cards that take 50 ms for each."""


def _up(at: int) -> int:
    return -(-at // PROBE) * PROBE


def _last(end: int) -> int:
    return end // SECTOR * SECTOR - PROBE


def block_of(start: int, end: int) -> tuple[int, int]:
    """Offset and length of the block at the end of a region; half of a region that is small."""
    spacing = max(SPACING, (end - start) // _MARKS)
    length = min(max(CACHE, spacing) * 9 // 8, (end - start) // 2)
    first = _up(_last(end) + PROBE - length)
    return first, _last(end) + PROBE - first


def places_in(start: int, end: int) -> list[int]:
    """Where marks go in a region: evenly, and at every power of two, where most fakes wrap; the last is its end."""
    last = _last(end)
    count = max(_LEAST, min(_MARKS, (last - start) // SPACING + 1))
    evenly = [start + (last - start) * i // (count - 1) for i in range(count)]
    powers = [p for i in range(20, end.bit_length()) if start < (p := 1 << i) <= last]
    powers += [p + start for p in powers if p + start <= last]
    return sorted({p for p in map(_up, [*evenly, *powers]) if p < last} | {last})


def _distinct(place: int, seed: int) -> bytes:
    return random.Random(place ^ seed).randbytes(PROBE)


def _needed(places: Sequence[int], block: int) -> set[int]:
    """Marks that the proof needs: no two neighbours farther apart than half of the block, and the powers of two."""
    needed = {p for p in places if not p & (p - 1)} | {places[0], places[-1]}
    at = places[0]
    for place, following in zip(places, [*places[1:], places[-1]], strict=True):
        if following - at > block // 2:
            needed.add(place)
            at = place
    return needed


def probe(
    target: Target,
    places: Sequence[int],
    seed: int,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> list[int]:
    """Write marks and the block behind them, and read the marks back; return the places that differ.

    Parameters
    ----------
    target
        The card, open for writing; what is at these places is lost (:func:`prove` puts it back).
    places
        From :func:`places_in`.
    seed
        Makes the data and the order another one each time.
    """
    first, length = block_of(places[0], places[-1] + PROBE)
    front = target.read(0, places[0]) if places[0] <= STEP else b""
    rng = random.Random(seed)
    needed = _needed(places, length)
    marks = [p for p in places if p < first]
    order = sorted(marks, key=lambda p: (p not in needed, rng.random()))
    written: list[int] = []
    begun = clock()
    for place in order:
        if place not in needed and clock() - begun > _PATIENCE:
            break
        interrupts.check()
        target.write(place, _distinct(place, seed))
        written.append(place)
        if progress:
            progress("marks", len(written), len(order))
    target.flush()
    block = random.Random(~seed).randbytes(STEP)
    _write_block(target, block, first, length, progress)
    rng.shuffle(written)
    wanted = {p: _distinct(p, seed) for p in written}
    wanted |= {p: _in_block(block, p, first, PROBE) for p in places if p >= first}
    wrong = _that_differ(target, wanted, progress)
    if target.read(0, len(front)) != front:  # the very end of a card that is hardly smaller wraps to its start
        wrong.append(places[-1])
    return sorted(set(wrong))


def _write_block(target: Target, block: bytes, first: int, length: int, progress: Progress | None) -> None:
    """Write the block behind the marks, the card's last bytes first: no cache has them when all is written."""
    for at in reversed(range(first, first + length, STEP)):
        interrupts.check()
        target.write(at, _in_block(block, at, first, min(STEP, first + length - at)))
        if progress:
            progress("block at the end", first + length - at, length)
    target.flush()


def _that_differ(target: Target, wanted: Mapping[int, bytes], progress: Progress | None) -> list[int]:
    """Read places back, in the order given; those that cannot be read, or hold something else."""
    wrong = []
    for i, (place, data) in enumerate(wanted.items()):
        interrupts.check()
        try:
            if target.read(place, len(data)) != data:
                wrong.append(place)
        except CardReadError:
            wrong.append(place)
        if progress:
            progress("reading back", i + 1, len(wanted))
    return wrong


def _in_block(block: bytes, at: int, first: int, length: int) -> bytes:
    """Return what the block holds there: random bytes, shifted by a sector from step to step, so that none repeats."""
    step, begin = divmod(at - first, STEP)
    shift = step * SECTOR % STEP
    turned = block[shift:] + block[:shift]
    number = step.to_bytes(8, "little")
    found = bytearray(turned[begin : begin + length])
    for i in range(-begin % PROBE, length, PROBE):
        found[i : i + 8] = number
    return bytes(found)


def prove(
    target: Target,
    start: int,
    end: int,
    progress: Progress | None = None,
    seed: int | None = None,
) -> list[int]:
    """Find out whether a region of a card is there; what was on it is put back, also when this is interrupted.

    Everything is read before anything is written, so that also a card that wraps is as it was, and only what a killed
    process or a power cut leaves behind has to be known from a journal: marks at :func:`places_in` and the block at
    :func:`block_of`.

    Parameters
    ----------
    target
        The card, open for writing.
    start, end : int
        The region in bytes: whole sectors, at least 64 KiB.
    seed : int, optional
        Makes the data; default: random.

    Returns
    -------
    list of int
        Bytes at which something else came back than was written; empty for an honest card.
    """
    places = places_in(start, end)
    first, length = block_of(places[0], places[-1] + PROBE)
    spans = [(p, PROBE) for p in places if p < first]
    spans += [(at, min(STEP, first + length - at)) for at in range(first, first + length, STEP)]
    before = {}
    if start <= STEP:
        spans.append((0, start))
    for at, n in spans:
        data = target.read(at, n)
        before[at] = data if any(data) else n
    try:
        return probe(target, places, random.SystemRandom().getrandbits(63) if seed is None else seed, progress)
    finally:
        put_back(target, before, progress)


def put_back(target: Target, before: dict[int, bytes | int], progress: Progress | None = None) -> None:
    """Write what was there (a number means that many zeros); one failure does not keep the rest from coming back.

    It takes what it takes (72 MB, and the marks), and a bar tells how long. One Ctrl+C, before or meanwhile, does not
    end it: the card would not be as it was. A second one does; `resume` is then told of the rest by the journal.

    Raises
    ------
    CardWriteError
        Something could not be written, or somebody did not want to wait.
    """
    failed: BaseException | None = None
    done, total = 0, sum(data if isinstance(data, int) else len(data) for data in before.values())
    for at, data in before.items():
        if interrupts.insisted():
            raise CardWriteError(errno.EINTR, "interrupted a second time, while what was there was put back")
        try:
            target.write(at, bytes(data) if isinstance(data, int) else data)
        except OSError as error:
            failed = failed or error
        done += data if isinstance(data, int) else len(data)
        if progress:
            again = "; Ctrl+C again leaves it to `resume`" if interrupts.arrived() else ""
            with contextlib.suppress(OSError):  # a terminal that was closed
                progress(f"putting back what was there{again}", done, total)
    with contextlib.suppress(OSError) if failed else contextlib.nullcontext():
        target.flush()
    if failed:
        raise failed
