"""Recordings of the v3 firmware: whole frames in a row, each with a footer over its last 16 bytes.

There is no config sector and no count, and a card that was used before holds an older recording on the
same grid with the same frame numbers. The frame clock and the record length setting tell them apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice, pairwise

from miniscope_xr.index.footers import Footers
from miniscope_xr.index.front import Card
from miniscope_xr.index.headers import HOLE_WINDOW, bisected, gallop
from miniscope_xr.index.locate import FOOTER, footers_in
from miniscope_xr.index.old_buffers import by_the_list, first_listed
from miniscope_xr.index.recording import Recording
from miniscope_xr.index.runs import Header, Run
from miniscope_xr.index.v3_seam import NEAR, same_clock_behind, suspect_stretch, weighed
from miniscope_xr.layout import SECTOR, Build
from miniscope_xr.source.base import ByteSource

_ALL = 4096  # frames up to which every footer is read at opening
_MANY = 256  # footers read at once by index="scan"
_AHEAD = 16  # frames looked at behind one that was never written
_BUSY = 250  # ms, the longest that an SDHC card may be busy with one write by its standard
_WINDOW = 24  # frames in front of a hole that tell the period


def _extent(footers: Footers, first: int, exhaustive: bool) -> int:
    """The frame behind those in a row from ``first`` on whose footers count up; some between were never written."""
    low, step = first, 1
    while low + 1 < footers.most:
        if exhaustive:
            low = _in_a_row(footers, low)
        high = min(low + (1 if exhaustive else step), footers.most)
        if high < footers.most and footers.at(high) is not None:
            low, step = high, 2 * step
            continue
        low = bisected(low, high, lambda k: footers.at(k) is None) - 1
        ahead = range(low + 2, min(low + 2 + _AHEAD, footers.most))
        resumed = next((k for k in ahead if footers.at(k) is not None), None)
        if resumed is None:
            break
        low, step = resumed, 1
    return low + 1


def _in_a_row(footers: Footers, low: int) -> int:
    """The last of the frames in a row from ``low`` on whose footers are there: every one is looked at."""
    while low + 1 < footers.most:
        some = range(low + 1, min(low + 1 + _MANY, footers.most))
        footers.look_at(some)
        gone = next((k for k in some if footers.at(k) is None), None)
        if gone is not None:
            return gone - 1
        low = some[-1]
    return low


def _beyond(footers: Footers, last: int) -> tuple[int, int] | None:
    """(frame, sector it ends in) of the first frame behind a hole of any length, on the grid of the others or off."""
    end = footers.at(last)
    before = next((k for k in range(max(last - _WINDOW, 0), last) if footers.at(k) is not None), None)
    if end is None:
        return None
    period = 0.0 if before is None else (end[0] - (footers.at(before) or end)[0]) / (last - before)
    start = footers.sector_of(last + 1)
    step = footers.frame_sectors
    window = max(step, HOLE_WINDOW)

    def look(at: int) -> tuple[int, int] | None:
        data = footers.source.read(at * SECTOR, window * SECTOR)
        for sector, frame, time in footers_in(data, footers.dtype, footers.lines, at):
            late = time - end[0] >= 0.9 * period * (frame - last)
            if last < frame < last + 1 + (sector + 1 - start) // step + step and late:
                following = footers.source.read((sector + 1 + step) * SECTOR - FOOTER, FOOTER)
                after = footers_in(following.rjust(SECTOR, b"\0"), footers.dtype, footers.lines, 0)
                if any(number == frame + 1 and then >= time for _, number, then in after):
                    return frame, sector
        return None

    return gallop(look, start, -(-footers.source.size // SECTOR), window)


def _ends(footers: Footers, first: int, seconds: int, exhaustive: bool) -> tuple[int, list[tuple[int, int]]]:
    """The frame behind the last one, and the stretches of sectors between that hold no frames."""
    n = _extent(footers, first, exhaustive)
    holes: list[tuple[int, int]] = []
    while not _complete(footers, n, seconds, first):
        found = _beyond(footers, n - 1)
        if found is None:
            break
        frame, sector = found
        holes.append((footers.sector_of(n), sector + 1 - footers.frame_sectors))
        footers.moved(frame, sector)
        n = _extent(footers, frame, exhaustive)
    return n, holes


def _end_by_length(footers: Footers, n: int, seconds: int) -> int:
    """Frames within the record length: no footer has a time past it."""
    limit = seconds * 1000

    def beyond(k: int) -> bool:
        times = (f[0] for j in range(k, n) if (f := footers.at(j)) is not None)
        return min(islice(times, 2), default=0) > limit  # two: a bit of one may have flipped

    return bisected(0, n, beyond)


def _complete(footers: Footers, end: int, seconds: int, begin: int = 0) -> bool:
    """Whether the last frame is the last of the record length."""
    first, last = footers.at(begin), footers.at(end - 1)
    if not seconds or first is None or last is None:
        return False
    second = footers.at(begin + 1) if end - begin > 1 else None
    period = (last[0] - first[0]) / max(end - 1 - begin, 1)
    if second is not None and second[0] > first[0]:
        period = min(period, second[0] - first[0])  # frames that were skipped make no period longer
    return last[0] + 3 * period + 50 >= seconds * 1000


def _nearly_over(footers: Footers, end: int, seconds: int) -> int:
    """Ms left of the record length at the last frame, if a card may be busy for as long; 0 if not."""
    last = footers.at(end - 1)
    left = 1000 * seconds - last[0] if last else 0
    return left if 0 < left <= _BUSY else 0


def _end_by_clock(
    footers: Footers, frames: range, seconds: int, exhaustive: bool, build: Build
) -> tuple[int, list[str], frozenset[int]]:
    """The frame behind the last one of the newest recording, as record length and clock tell; words; old frames.

    Parameters
    ----------
    footers
    frames
        Those whose footers count up.
    seconds
        The record length; 0: not known.
    exhaustive
        Look at every footer.
    build
        How many buffers it has, and frames per second of the camera, where it says that.
    """
    begin, n, fs, single = frames.start, frames.stop, build.fs, build.ring == 1
    end = _end_by_length(footers, n, seconds) if seconds else n
    every = end <= _ALL or exhaustive
    if every:
        footers.look_at(range(begin, end))
    looked = range(begin, end) if every else suspect_stretch(footers.at, end, fs)
    behind = min(n, looked.stop + NEAR) if looked.stop == end else looked.stop
    whose = weighed(footers.at, range(looked.start, behind), seconds, fs, single)
    told = []
    if whose.seam < min(end, behind):
        told.append(f"an older recording lies behind this one, from frame {whose.seam} on, and is not returned")
        end = max(whose.seam, begin + 1)
    if whose.doubtful is not None and whose.doubtful < end:
        first = max(whose.doubtful, begin + 1)
        told.append(
            f"the frame clock changes at frame {first}: a slow card, or an older recording from there on; "
            f"if it is one, pass until={first - 1}"
        )
    while end > begin + 1 and footers.at(end - 1) is None and told:
        end -= 1  # frames that are missing in front of the older recording
    told += _alone(whose.alone)
    old = frozenset(k for k in whose.old if k < end)
    if told or end == n:
        return end, told, old
    same = same_clock_behind(footers.at, range(max(begin, end - _ALL), end), range(end, n))
    if same is not None:
        told.append(
            "the frames behind the record length are of an older recording, and have the same frame clock as frames "
            f"{same} to {end - 1}: whether it begins there, or at one of these, is in doubt"
        )
    return end, told, old


def index_footers(
    source: ByteSource, card: Card, build: Build, exhaustive: bool, whole: bool, old_buffers: bool
) -> tuple[list[Recording], list[tuple[int, int]]]:
    """The one recording of a v3 card, and the stretches of sectors within it that hold no frames."""
    footers = Footers(source, card, build)
    begin = card.first_frame
    seconds = int(card.settings.get("record_length", 0))
    if seconds and (footers.at(begin) or (0, 0))[0] > 1000 * seconds:
        seconds = 0  # the settings are of another recording
    n, holes = _ends(footers, begin, seconds, exhaustive)
    warnings: list[str] = list(card.notes)
    said = len(warnings)
    end, old = n, frozenset[int]()
    listed = first_listed(source, card.layout, footers.last_sectors(n)) if old_buffers and not whole else None
    if listed is not None:
        end = max(listed, begin + 1)
        warnings.append(by_the_list(f"frame {end - 1}" if listed < n else None))
    elif not whole:
        end, told, old = _end_by_clock(footers, range(begin, n), seconds, exhaustive, build)
        warnings += told
    first = next((found for k in range(begin, end) if (found := footers.at(k)) is not None), None)
    lines = build.height if first is None else first[1]
    width = footers.frame_bytes // lines
    short = end == n and footers.byte_of(n) + footers.frame_bytes > source.size
    if short and (tail := source.read(footers.byte_of(n), footers.frame_bytes)):
        short = any(tail)  # of a frame that was cut off some pixels are there
    status = "finished" if _complete(footers, end, seconds, begin) else "truncated" if short else "interrupted"
    if not whole and status != "finished":
        known = listed is not None or len(warnings) > said
        warnings += _end_in_doubt(footers, range(begin, end), seconds, status, known)
    blank: tuple[tuple[int, int], ...] = ()
    if end - begin <= _ALL and not whole:
        blank = tuple(_blank_fronts(footers, range(begin + 1, end)))
    runs = _runs(footers, begin, end, old)
    return [Recording(0, runs, width, lines, status, overwritten=blank, warnings=tuple(warnings))], holes


def _end_in_doubt(footers: Footers, own: range, seconds: int, status: str, known: bool) -> list[str]:
    """What is to be said of an end before the record length was over; ``known``: something tells of it already."""
    if status == "interrupted" and (left := _nearly_over(footers, own.stop, seconds)):
        return [
            f"whether it was interrupted is in doubt: the last frame came {left} ms before the record length was over, "
            "which a card may be busy for"
        ]
    if known or own.stop <= 1:
        return []
    early = " and this recording ended before its record length" if seconds else ""
    return [
        f"v3 cards keep no count{early}: an older recording with the same frame clock between frames {own.start} and "
        f"{own.stop - 1} is not excluded"
    ]


def _alone(frames: Sequence[int]) -> list[str]:
    """What is to be said of frames that alone may be of an older recording."""
    if not frames:
        return []
    named = f"frame {frames[0]}" if len(frames) == 1 else f"frames {', '.join(map(str, frames[:-1]))} and {frames[-1]}"
    return [
        f"{named} alone did not come when due: the card was busy, or an older recording stands there, as the write "
        "failed; which it is, is in doubt"
    ]


def _blank_fronts(footers: Footers, frames: range) -> Iterator[tuple[int, int]]:
    """Blank sectors in which frames behind missing ones begin: what took those reaches into the next one."""
    for k in frames:
        if footers.at(k) is None or footers.at(k - 1) is not None:
            continue
        at = footers.byte_of(k)
        data = footers.source.read(at, footers.frame_bytes - FOOTER)
        for value in (b"\0", b"\xff"):
            reach = (len(data) - len(data.lstrip(value))) // SECTOR
            if reach:
                yield at // SECTOR, at // SECTOR + reach


def _runs(footers: Footers, begin: int, end: int, old: frozenset[int] = frozenset()) -> tuple[Run, ...]:
    """The frames as runs: one, or one more wherever they go on elsewhere, or behind those that are ``old``."""
    around = {edge for k in old for edge in (k, k + 1)}
    edges = sorted({begin, end, *(k for k in (*around, *(k for k, _ in footers.pieces)) if begin < k < end)})
    runs = []
    for k, stop in pairwise(edges):
        if k in old:
            continue
        while stop > k + 1 and stop < end and footers.at(stop - 1) is None:
            stop -= 1  # frames that are missing where the card goes on elsewhere
        time = (footers.at(k) or (0, 0))[0]
        header = Header(0, 0, k, k, 0, k, 0, time, footers.frame_bytes, -1, -1, -1)
        runs.append(Run(footers.sector_of(k), stop - k, header, footers.cut))
    return tuple(runs)
