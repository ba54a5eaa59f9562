"""What lies over a recording: which of its buffers were overwritten after they were written, and by what.

When a user meets this: a card that was formatted, or an image with a piece missing. The headers tell where a recording
goes on; here is counted what it lost, and sectors are named that hold somebody else's bytes behind a whole header.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from miniscope_xr.index.filesystem import FileSystem, find_file_systems, merged
from miniscope_xr.index.recording import Recording
from miniscope_xr.index.runs import Run
from miniscope_xr.index.tables import Stretches
from miniscope_xr.layout import SECTOR
from miniscope_xr.source.base import Readable

Lost = tuple[int, int, int]
"""Buffers lost, and the first and last frame that lack them."""
_OTHER = "other data"


def made_since(
    source: Readable, recordings: Sequence[Recording], config: int | None, front_gone: bool
) -> list[FileSystem]:
    """File systems that are newer than the recordings of a card.

    One that has written the sector of the counts, in which they still are, was there before the card was recorded on.
    """
    counted = config is not None and any(recording.n_recorded for recording in recordings) and not front_gone
    return [
        system for system in find_file_systems(source, front_gone)
        if not (counted and _within(system.written, config or 0, (config or 0) + 1))
    ]  # fmt: skip


def with_overwritten(
    source: Readable, recordings: Sequence[Recording], holes: Sequence[tuple[int, int]],
    systems: Sequence[FileSystem], front_gone: bool, own: Sequence[int], refused: int,
) -> tuple[Recording, ...]:  # fmt: skip
    """Recordings that know which of their sectors were overwritten, with a sentence for each thing that did it.

    Parameters
    ----------
    source : ByteSource
    recordings
        As their headers show them.
    holes
        Stretches of sectors in which headers were looked for and not found.
    systems
        File systems that are newer than the recordings.
    front_gone : bool
        The sectors before the data are not a Miniscope's any more.
    own
        Sectors that hold the card's settings and counts.
    refused
        Buffers that the firmware may lose in a row while the card refuses to write: whole ones, in whose place others
        may lie.
    """
    told = [_with_overwritten(source, each, systems, holes, front_gone, refused) for each in recordings]
    return tuple(_under_own(each, own) for each in told)


def _under_own(recording: Recording, own: Sequence[int]) -> Recording:
    """A recording without its buffers that lie under the card's own sectors."""
    mine = _within([(sector, sector + 1) for sector in own], recording.start_sector, recording.end_sector)
    if not mine:
        return recording
    said = f"the card's settings or counts lie over {_counted(_lost(recording.runs, mine))}"
    known = merged([*recording.overwritten, *mine])
    return replace(recording, overwritten=tuple(known), warnings=(*recording.warnings, said))


def _with_overwritten(
    source: Readable, recording: Recording, systems: Sequence[FileSystem], holes: Sequence[tuple[int, int]],
    front_gone: bool, refused: int,
) -> Recording:  # fmt: skip
    start, stop = recording.start_sector, recording.end_sector
    said, written, covered = [], [], []
    before = recording.runs[0].first.written if front_gone else 0
    for system in systems:
        mine = _within(system.written, start, stop)
        over = [f"its first {before:,} buffers"] if before and _within(system.written, 0, start) else []
        over += [_counted(_lost(recording.runs, mine))] if mine else []
        covered += mine
        written += mine
        if over:
            said.append(
                f"the card was formatted after this recording: {_named(system)} from sector {system.sector} on lies "
                f"over {' and '.join(over)}"
            )
    for first, end in _gaps(recording.runs, holes):
        inside = sum(min(b, end) - max(a, first) for a, b in _within(covered, first, end))
        if 2 * inside >= end - first:
            continue  # named above
        tail = _blank_before(source, recording.runs, first)
        written += [(tail, first)] if tail < first else []
        lost, content = _lost(recording.runs, [(first, end)]), _content(source, first)
        reach = _may_reach(recording.runs, first, end) if content == _OTHER and lost[0] > refused else ""
        said.append(f"sectors {first} to {end - 1} hold {content} in place of {_counted(lost)}{reach}")
    for first, end, said_of in _displaced(recording.runs):
        written.append((first, end))
        said.append(said_of)
    if not said:
        return recording
    written += recording.overwritten
    return replace(recording, overwritten=tuple(merged(written)), warnings=(*recording.warnings, *said))


def _named(system: FileSystem) -> str:
    return f"{'a' if system.name.startswith('FAT') else 'an'} {system.name} file system"


def _counted(lost: Lost) -> str:
    n, first, last = lost
    frames = f"frame {first}" if first == last else f"frames {first} to {last}"
    return f"{n:,} of its buffers, in {frames}" if n != 1 else f"1 of its buffers, in {frames}"


def _within(stretches: Sequence[tuple[int, int]], start: int, stop: int) -> Stretches:
    return [(max(a, start), min(b, stop)) for a, b in stretches if a < stop and b > start]


def _lost(runs: Sequence[Run], stretches: Stretches) -> Lost:
    """Buffers that lie in some stretches of sectors: those of the runs, and those missing between two runs."""
    count, frames = 0, []
    for k, run in enumerate(runs):
        own: set[int] = set()
        for first, stop in _within(stretches, run.sector, run.end_sector):
            low, high = buffer_at(run, first), buffer_at(run, stop - 1)
            own.update(range(low, high + 1))
        if own:
            count += len(own)
            frames += [run.frame_of(min(own)), run.frame_of(max(own))]
        if k and _within(stretches, runs[k - 1].end_sector, run.sector):
            count += max(run.first.written - runs[k - 1].end_place, 0)
            frames += [runs[k - 1].last_frame, run.first.frame]
    return (count, min(frames), max(frames)) if frames else (0, runs[0].first.frame, runs[0].first.frame)


def buffer_at(run: Run, sector: int) -> int:
    """The buffer of a run in which a sector lies (one within the run)."""
    cut, skipped = run.cut, run.first.index - run.cut.first
    frame, rest = divmod(sector - run.sector + cut.starts[skipped], cut.frame_sectors)
    index = max(k for k, at in enumerate(cut.starts) if at <= rest)
    return min(max(frame * len(cut) + index - skipped, 0), run.count - 1)


def _gaps(runs: Sequence[Run], holes: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Stretches between the runs that should hold buffers, and those within a run where headers are missing."""
    for before, after in pairwise(runs):
        if after.first.written > before.end_place and after.sector > before.end_sector:
            yield before.end_sector, after.sector
    for first, stop in dict.fromkeys(holes):
        if any(run.sector <= first and stop <= run.end_sector for run in runs):
            yield first, stop


def _displaced(runs: Sequence[Run]) -> Iterator[tuple[int, int, str]]:
    """Buffers behind which the recording goes on elsewhere than it should, and what to say of each.

    Sectors were left out of an image, or put in: behind the header of the buffer before that place, whose end nothing
    vouches for. Of a frame with a footer it is the front. A lapped buffer takes the sectors of another.
    """
    usual = {n for run in runs if not run.odd for n in run.cut.sectors}
    for before, after in pairwise(runs):
        missing = after.first.written - before.end_place
        start = before.sector_of(before.count - 1)
        length = before.first.length if before.odd else before.length_of(before.count - 1)
        needed = before.cut.sectors_for(length)
        off = 0
        dropped = before.first.dropped != after.first.dropped
        if missing == 0 and not dropped:  # beside a drop the firmware itself writes fewer sectors than a header says
            off = 0 if after.sector - start in usual else after.sector - start - needed
        elif missing > 0 and not before.odd and before.matches(before.count + missing, after.first):
            off = after.sector - before.sector_of(before.count + missing)
        if before.cut.head:
            torn = start, min(start + needed, max(after.sector, start + 1))
            frame = before.last_frame
        else:
            torn = max(after.sector, before.end_sector), after.sector + needed
            frame = after.first.frame
            off = 0 if missing > 0 and off > 0 and not off % needed else off  # the frame before it is the torn one
        if off:
            said = f"before sector {after.sector} sectors of this image are missing, or were put in"
            yield *torn, f"{said}: one buffer of frame {frame}, in which that was, is left out"


def torn_before(recording: Recording, byte: int) -> Recording:
    """The recording without the buffer in front of a byte, in which bytes are missing or too many."""
    runs = [run for run in recording.runs if run.sector * SECTOR < byte]
    if not runs or not runs[-1].cut.head:  # of whole frames the torn one is not found
        return recording
    run = runs[-1]
    first = run.sector_of(buffer_at(run, min(byte // SECTOR, run.end_sector - 1)))
    torn = (first, max(byte // SECTOR, first + 1))
    return replace(recording, overwritten=tuple(merged([*recording.overwritten, torn])))


def _blank_before(source: Readable, runs: Sequence[Run], sector: int) -> int:
    """First of the blank sectors that end the buffer before a hole: the hole begins within it."""
    run = next((run for run in reversed(runs) if run.sector < sector), None)
    if run is None:
        return sector
    start = run.sector_of(buffer_at(run, min(sector, run.end_sector) - 1))
    data = source.read(start * SECTOR, (sector - start) * SECTOR)
    blank = blank_sectors(data)
    return start + max(len(data) // SECTOR - blank, 1) if blank else sector


def blank_sectors(data: bytes) -> int:
    """Sectors at the end of ``data`` that hold nothing but zeros or nothing but 0xFF."""
    for value in (0, 0xFF):
        kept = len(data.rstrip(bytes([value])))
        blank = (len(data) - -(-kept // SECTOR) * SECTOR) // SECTOR
        if blank:
            return blank
    return 0


def _may_reach(runs: Sequence[Run], first: int, end: int) -> str:
    """What to say of the buffer beside other data that keeps its header, or footer, where they begin or end within it.

    Example: a file that was copied to the card takes sectors 5000 to 5999. The header in sector 4980 is whole, and so
    are the first of its buffer's pixels; those in sectors 5000 to 5025 are the file's, and nothing on the card says so.
    """
    if runs[0].cut.head:
        run = next((run for run in reversed(runs) if run.sector < first), None)
        where, sector = "before", first - 1
    else:
        run = next((run for run in runs if run.end_sector > end), None)
        where, sector = "behind", end
    if run is None:
        return ""
    frame = run.frame_of(buffer_at(run, min(max(sector, run.sector), run.end_sector - 1)))
    return f"; it is in doubt whether they reach into the buffer {where} them, of frame {frame}"


def _content(source: Readable, sector: int) -> str:
    """What is in a sector, in words."""
    data = source.read(sector * SECTOR, SECTOR)
    if not any(data):
        return "zeros"
    return "nothing but 0xFF" if not data.strip(b"\xff") else _OTHER
