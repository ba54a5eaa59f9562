"""Whether a layout sees a recording, by the sectors in front: counts, the first buffer's header, the first footers."""

from __future__ import annotations

from collections.abc import Mapping
from struct import unpack_from

import numpy as np

from miniscope_xr.index.front import Card, Front, State, looks_prepared, with_settings
from miniscope_xr.layout import SECTOR, Build, Layout
from miniscope_xr.layout.arrays import Array, Ints
from miniscope_xr.layout.tell import fits
from miniscope_xr.layout.words import buffer_header_dtype, config_of, has_keys, take

_MAX_SIDE = 4096  # px; the largest sensor of the family has 800
_MAX_BUFFER = 1 << 20  # bytes; the largest ring buffer of the family has 64,000
_SHOWN = 8  # first buffers behind failed writes that are held against the builds: one of them may have flipped bits


def begun(front: Front, layout: Layout, holes: bool = True) -> Card | None:
    """What a card says if it has this layout, without its settings; None where this layout sees no recording."""
    return _buffers(front, layout, holes) if layout.buffer else _whole_frames(front, layout)


def examine(front: Front, layout: Layout) -> Card:
    """Read what a card says if it has this layout; never raises for a card that does not."""
    return with_settings(front, judge(front, layout))


def judge(front: Front, layout: Layout, holes: bool = True) -> Card:
    """The same without the settings: all that telling layouts apart asks for.

    ``holes=False`` does not look behind writes that failed at the very start.
    """
    return begun(front, layout, holes) or _unrecorded(front, layout)


def _unrecorded(front: Front, layout: Layout) -> Card:
    """A card on which this layout sees no recording."""
    header = front.read(layout.sectors.header)
    config = _config(front, layout)
    keyed = has_keys(layout, header)
    if config is not None:
        state = State.BOOTED
    elif keyed:
        state = State.PREPARED
    else:
        state = State.NOTEBOOK if looks_prepared(layout, header) else State.EMPTY
    return Card(layout, {}, config, keyed, state)


# -- frames split into buffers ----------------------------------------------------------------------------


def _buffers(front: Front, layout: Layout, holes: bool) -> Card | None:
    words = _header_length(front, layout)
    if not words and not holes:
        return None
    config = _config(front, layout)
    if config is not None and not words:
        words = _header_length_behind_hole(front, layout, config["buffer_size"])
    if not words:
        return None
    notes: tuple[str, ...] = ()
    if config is not None:
        config, notes = _sized(front, layout, words, config)
    build, known = _build(front, layout, words, config)
    keyed = has_keys(layout, front.read(layout.sectors.header))
    if build is not None and config is None and build.stale_config:
        config = {"width": build.width, "height": build.height, "buffer_size": SECTOR * build.buffer_sectors}
        config["n_buffers_recorded"] = 0
    if config is None:
        if not _is_first(front, layout):
            return None  # another image's, or a shifted one's: no recording begins there
        return Card(layout.of(build), {}, None, keyed, State.HEADERS_ONLY, words, build=build, fits=known)
    if build is not None and build.config_frame:
        config = {**config, "width": build.width, "height": build.height}
    payload = config["buffer_size"] - 4 * words
    state = State.RECORDED if payload > 0 else State.EMPTY
    return Card(layout.of(build), {}, config, keyed, state, words, payload, build, known, notes)


def _config(front: Front, layout: Layout) -> dict[str, int] | None:
    """The config sector where it can be one, else None."""
    if layout.sectors.config is None:
        return None
    data = front.read(layout.sectors.config)
    if len(data) < SECTOR:
        return None
    config = config_of(layout, data)
    plausible = (
        8 <= config["width"] <= _MAX_SIDE
        and (layout.height_overwritten or 8 <= config["height"] <= _MAX_SIDE)
        and 0 < config["buffer_size"] <= _MAX_BUFFER
        and config["buffer_size"] % SECTOR == 0
        and config["n_buffers_recorded"] < 1 << 28
    )
    return config if plausible else None


def _header_length(front: Front, layout: Layout) -> int:
    """Words of the buffer header at the start of the data, 0 where there is none."""
    data = front.read(layout.sectors.data)
    if len(data) < 4 * layout.min_words:
        return 0
    marker = int.from_bytes(data[:4], "little")
    alike = [build for build in layout.builds if build.preamble == marker]
    known = layout.header_words or range(layout.min_words, 65)
    words = next((b for b in alike if front.fits(layout, b)), alike[0]).header_words if alike else marker
    if (words not in known and not alike) or len(data) < 4 * words:
        return 0
    first, names = unpack_from(f"<{words}I", data), layout.buffer
    place, index = first[names["write_buffer_count"].word], first[names["frame_buffer_count"].word]
    length = first[names["data_length"].word]
    # The first place on the card; the buffer there may be one that lapped the ring, so its own count may be any.
    return words if place < 64 and index < 64 and 0 < length <= _MAX_BUFFER else 0


def _is_first(front: Front, layout: Layout) -> bool:
    """Whether the header at the start of the data is that of the first place on the card."""
    return not take(layout.buffer, front.read(layout.sectors.data))["write_buffer_count"]


def _header_length_behind_hole(front: Front, layout: Layout, buffer_bytes: int) -> int:
    """Words of the first buffer header behind writes that failed at the very start, 0 where there is none."""
    longest = Build.failed_writes  # of most builds: what lies further in may be any layout's
    data = front.read(layout.sectors.data, longest * buffer_bytes)
    words = np.frombuffer(data, "<u4", len(data) // SECTOR * SECTOR // 4).reshape(-1, SECTOR // 4)
    lengths = layout.header_words or range(layout.min_words, 65)
    preambles = [(build.preamble, build.header_words) for build in layout.builds if build.preamble is not None]
    for marker, length in [*zip(lengths, lengths, strict=True), *preambles]:
        names = layout.buffer
        sectors = np.flatnonzero(words[:, 0] == marker)
        rows = words[sectors]
        good = (
            (rows[:, names["write_buffer_count"].word] > 0)
            & (rows[:, names["write_buffer_count"].word] <= longest)
            & (rows[:, names["frame_buffer_count"].word] < 64)
            & (rows[:, names["data_length"].word] > 0)
            & (rows[:, names["data_length"].word] <= buffer_bytes - 4 * length)
        )
        # one of a place far behind in front of it wrapped to the start of a counterfeit: no write failed there
        far = rows[:, names["write_buffer_count"].word] > longest
        wrapped = far & (rows[:, names["frame_buffer_count"].word] < 64)
        shown = np.flatnonzero(good)[:_SHOWN]
        if len(shown) and not wrapped[: shown[0]].any() and _of_a_build(layout, length, rows[shown], sectors[shown]):
            return length
    return 0


def _of_a_build(layout: Layout, words: int, headers: Array, sectors: Ints) -> bool:
    """Whether buffers can be those of a build with headers of so many words; True where no build is known."""
    builds = [build for build in layout.builds if build.header_words == words]
    return not builds or any(fits(layout, each, headers, sectors) for each in builds)


def _build(front: Front, layout: Layout, words: int, config: Mapping[str, int] | None) -> tuple[Build | None, bool]:
    """The firmware build of a recording, by its frame size if known; and whether the first header fits it."""
    sized = [] if config is None else layout.builds_for(words, config["buffer_size"])
    builds = sized or [b for b in layout.builds if b.header_words == words]
    if config is not None and len(builds) > 1:  # those of this frame size are asked first
        width = config["width"]
        builds = sorted(builds, key=lambda b: width not in (b.width, *(b.config_frame or ())))
    for build in builds:
        if front.fits(layout, build):
            return build, True
    return builds[0] if sized else None, False


def _sized(front: Front, layout: Layout, words: int, config: dict[str, int]) -> tuple[dict[str, int], tuple[str, ...]]:
    """The config sector with a buffer size the first full buffer agrees with; and what had to be said."""
    sizes = {b.buffer_sectors * SECTOR for b in layout.builds if b.header_words == words}
    header = np.frombuffer(front.read(layout.sectors.data), buffer_header_dtype(layout, words), 1)[0]
    found = int(header["data_length"]) + 4 * words
    markers = {words, *(b.preamble for b in layout.builds)}
    if int(header["length"]) not in markers or found not in sizes - {config["buffer_size"]}:
        return config, ()
    said = f"the config sector says buffers of {config['buffer_size']} bytes, but the first one has {found}"
    return {**config, "buffer_size": found}, (said,)


# -- whole frames with footers ----------------------------------------------------------------------------


def _footer(front: Front, layout: Layout, build: Build, number: int) -> dict[str, int] | None:
    last = front.read(layout.sectors.data + (number + 1) * build.frame_sectors - 1)
    return take(layout.footer, last[-16:]) if len(last) == SECTOR else None


Footer = dict[str, int] | None


def _begins(build: Build, number: int, first: Footer, second: Footer, alone: bool = False) -> bool:
    """Whether a frame has a footer, and the next one a later one (unless it may be ``alone``)."""
    if first is None or first["frame_num"] != number or first["timestamp"] <= 0:
        return False
    follows = second is not None and second["frame_num"] == number + 1 and second["timestamp"] > first["timestamp"]
    return first.get("line_count", build.height) in (build.height, build.width) and (follows or alone)


def _is_none(build: Build, footer: Footer) -> bool:
    """Whether what stands where the first frame's footer would be is none, nor one in which bits of a word flipped."""
    if footer is None:
        return True
    size_fits = footer.get("line_count", build.height) in (build.height, build.width)
    return (footer["frame_num"] != 0) + (footer["timestamp"] <= 0) + (not size_fits) > 1


def _whole_frames(front: Front, layout: Layout) -> Card | None:
    keyed = has_keys(layout, front.read(layout.sectors.header))
    for build in layout.builds:
        first = _footer(front, layout, build, 0)
        if _is_none(build, first):
            continue  # as of every card of another layout: no more is read there
        footers = [_footer(front, layout, build, k) for k in range(2)]
        if not _begins(build, 0, footers[0], footers[1], keyed):
            # bits flipped in one word of the first: `prepare` would have left nothing there
            end = front.read(layout.sectors.data + build.frame_sectors - 1)
            footers += [_footer(front, layout, build, k) for k in range(2, 5)]
            later = any(_begins(build, k, footers[k], footers[k + 1], keyed) for k in range(1, 4))
            if len(set(end)) < 2 or not later:
                continue
        return Card(layout, {}, None, keyed, State.RECORDED, build=build)
    return None
