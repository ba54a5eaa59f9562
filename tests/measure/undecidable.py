"""Old buffers that no reader can tell from a recording's own, proven from the truth of a simulated life.

One stands where a write failed, or behind the last buffer before the power was lost. Its twin is the buffer that the
recording itself wrote there, or would have written had the power stayed on (the life is made once more, without its
loss). Nothing tells the two apart where

- every word of the header (v3: of the footer) is the same, and
- no leftovers could: neither it nor the buffer a ring behind it leaves room for any.

Behind a power loss this has to be so of every old buffer that was returned: one that is told gives the end away.

*Alike* is less: but for the times, which are off by a ms or two as times stray, and readings of battery and
temperature, every word is the same. That is no proof: leftovers may tell, and of many buffers their times.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

import numpy as np

from miniscope_xr.layout import SECTOR
from miniscope_xr.tools.simulate.image import Buffer, SimulatedCard
from tests.lives import Life, live


def undecidable(life: Life, survivor: Life, number: int, extra: Mapping[int, int], ms: int = 0) -> Set[int]:
    """Frames, of those in which buffers (bits) are returned that are not the recording's, that no reader can tell.

    With ``ms`` those that are alike: their times are off by no more.
    """
    failed = _places(life.card, number)
    ours = {key for key, b in failed.items() if b.status != "write_failed"}
    beyond = {key: b for key, b in _places(survivor.card, number).items() if key not in failed}
    found, told = set[int](), False
    for frame, bits in extra.items():
        keys = [(frame, index) for index in range(32) if bits >> index & 1]
        lost = [key for key in keys if key in failed and key not in ours]
        later = [key for key in keys if key not in failed]
        twins = all(_is_twin(life.card, failed, key, ms) for key in lost)
        last = all(_is_twin(life.card, beyond, key, ms) for key in later)
        told |= bool(later) and not last
        if twins and last and len(lost) + len(later) == len(keys):
            found.add(frame)
    behind = {f for f in found if any((f, index) not in failed for index in range(32) if extra[f] >> index & 1)}
    return found - behind if told else found


def survivor_of(seed: int, layout: str | None, together: bool) -> Life:
    """The life without the power loss of its last recording, and without an accident."""
    return live(seed, layout, (), together, survives=True)


def _places(card: SimulatedCard, number: int) -> dict[tuple[int, int], Buffer]:
    return {(b.frame_num, b.index): b for b in card.buffers if b.recording == number}


def _is_twin(card: SimulatedCard, places: Mapping[tuple[int, int], Buffer], key: tuple[int, int], ms: int) -> bool:
    """Whether what lies on the card where a buffer belongs says in every word what that buffer said, or is alike."""
    own = places.get(key)
    if own is None:
        return False
    spec, data = card.spec, card.data
    start = own.sector * SECTOR
    size = 4 * len(own.words)
    at = start + own.n_sectors * SECTOR - size if spec.whole_frames else start
    words = np.frombuffer(data[at : at + size], "<u4").tolist()
    if ms and len(words) == len(own.words):  # else the image ends there
        off = _may_be_off(card, ms)
        return all(abs(a - b) <= off.get(n, 0) for n, (a, b) in enumerate(zip(words, own.words, strict=True)))
    if tuple(words) != own.words:
        return False
    if spec.whole_frames:
        return True
    count = spec.own.fields_for(spec.build.header_words)["buffer_count"].word
    later = [b for b in places.values() if b.words[count] == own.words[count] + spec.build.ring]
    return not any(_room(card, b) for b in (own, *later))


def _may_be_off(card: SimulatedCard, ms: int) -> dict[int, float]:
    """By how much words of a header, or footer, may differ in buffers that are alike."""
    spec = card.spec
    fields = spec.own.footer or spec.own.fields_for(spec.build.header_words)
    most = dict.fromkeys(("timestamp", "write_timestamp"), ms * spec.build.ticks_per_ms[0])
    most |= dict.fromkeys(("battery_voltage", "mcu_temperature"), 1 << 32)
    return {fields[name].word: n for name, n in most.items() if name in fields}


def _room(card: SimulatedCard, b: Buffer) -> int:
    """Bytes behind the data of a buffer, in its last sector."""
    return b.n_sectors * SECTOR - card.spec.header_bytes - b.length
