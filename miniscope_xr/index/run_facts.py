"""What runs of buffers tell about their recording, beside and against the config sector."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from math import log

from miniscope_xr.index.front import Card
from miniscope_xr.index.headers import HeaderReader
from miniscope_xr.index.low_counts import LowCounts
from miniscope_xr.index.runs import Header, Run
from miniscope_xr.layout import SECTOR

_PROBES = 8  # buffers that tell a recording's focus where its settings are gone
_SCAN_PROBES, _FEW_FOCUSES = 12, 3  # buffers, and values among them, that tell whether the focus is scanned
_SPARE = 1 << 22  # bytes a short recording's frames may take more than the card


class RunFacts:
    """Clock unit, frame size and end of a recording, from its runs.

    Parameters
    ----------
    size : int
        Of the card, in bytes.
    card : Card
    config : dict
        Its config sector.
    headers : HeaderReader
    """

    def __init__(self, size: int, card: Card, config: Mapping[str, int], headers: HeaderReader) -> None:
        self._size = size
        self.card = card
        self.config = config
        self.layout = card.layout
        self.headers = headers
        self._made_up = "fs" not in config  # there is no config sector: these are its build's numbers
        self._builds = card.layout.builds_for(card.words, config["buffer_size"])
        self._known = [(b.width, b.height) for b in self._builds]

    def focus(self, runs: list[Run]) -> int | None:
        """Focus of the first and the last buffer, if it is one and the settings say that it stays; None: not known.

        Where the settings are gone, or those two differ, it is that of all but one of some more buffers.
        """
        last = runs[-1]
        ends = runs[0].first, self.headers.at(last.sector_of(last.count - 1))
        if self.card.settings.get("ewl_scan_mode", 0) or ends[0].ewl < 0:
            return None
        if self.card.settings and ends[1] is not None and ends[0].ewl == ends[1].ewl:
            return ends[0].ewl
        between = self._probed(runs, range(1, _PROBES), _PROBES)
        seen = Counter(header.ewl for header in (*ends, *between) if header is not None)
        focus, times = seen.most_common(1)[0]
        return focus if times + 1 >= seen.total() > _PROBES // 2 else None

    def scanning(self, runs: list[Run]) -> bool:
        """Whether the focus changes while it records, so that it tells nothing: by the settings, or by the headers.

        More values than two or three recordings have show it where the settings are gone, or another recording's.
        """
        said = bool(self.card.settings.get("ewl_scan_mode", 0))
        if said or runs[0].first.ewl < 0:
            return said
        some = self._probed(runs, range(_SCAN_PROBES), _SCAN_PROBES)
        return len({header.ewl for header in some if header is not None}) > _FEW_FOCUSES

    def _probed(self, runs: list[Run], which: range, parts: int) -> Iterator[Header | None]:
        """The headers at some of the places that cut the longest run into so many parts."""
        run = max(runs, key=lambda r: r.count)
        return (self.headers.at(run.sector_of(run.count * k // parts)) for k in which)

    def ticks(self, runs: list[Run]) -> float:
        """Timestamp units per ms: of those its build may count, the one with which a frame takes about 1000 / fs ms."""
        known = self.headers.framing.build.ticks_per_ms
        fs = self.config.get("fs", 0)
        run = max(runs, key=lambda r: r.count)
        if len(known) == 1 or not fs or run.odd or run.count <= len(run.cut):
            return float(known[0])
        first, second = (self.headers.at(run.sector_of(i)) for i in (0, len(run.cut)))
        if first is None or second is None or second.time <= first.time:
            return float(known[0])
        ms = (second.time - first.time) * fs / 1000
        return float(min(known, key=lambda ticks: abs(log(ms / ticks))))

    def frame_size(self, runs: list[Run]) -> tuple[int, int, list[str]]:
        """Width, height and what had to be said about them."""
        width, height = self.config["width"], self.config["height"]
        # behind a remote stop the DAQ writes one stale buffer a frame: the fullest frames are the camera's
        whole = (r for r in runs if not r.odd and r.count >= len(r.cut))
        main = max(whole, key=lambda r: (sum(r.cut.lengths), r.count), default=None)
        total = sum(main.cut.lengths) if main else 0
        if total == width * height:
            return width, height, []
        if self.layout.height_overwritten and total and total % width == 0 and (width, height) not in self._known:
            recovered = total // width
            return width, recovered, [
                f"the config sector says height {height}, which the firmware overwrote when the recording ended; "
                f"height {recovered} was recovered from the frames themselves ({total} bytes at width {width})"
            ]  # fmt: skip
        sizes = [(*((b.width, b.height), *b.sizes), b.config_frame) for b in self._builds]
        shown = [size for each in sizes for size in each if size and size[0] * size[1] == total]
        build = self.card.build
        if shown and (self._made_up or (build and build.config_frame)):  # the numbers in question are the build's own
            return *shown[0], []
        sure = main is not None and main.count >= 2 * len(main.cut)
        believed = (width, height) in self._known or (not total and self._has_room(runs, width, height))
        partly = any(b.buffers_a_frame for b in self._builds)  # of each frame less than the whole is written
        if believed and (partly or not sure):
            return width, height, []
        wide, high = self._assumed(shown, total if sure else 0)
        said = f"the config sector's frame size {width}x{height} does not fit the frames; {wide}x{high} is assumed"
        if (wide, high) == (width, height):
            said = f"no known frame size has the {total} bytes that these frames have; {wide}x{high} is assumed"
        return wide, high, [said]

    def _assumed(self, shown: list[tuple[int, int]], total: int) -> tuple[int, int]:
        """Width and height where the config sector's cannot be: of a build, or of so many bytes (0: not known)."""
        width, height = self.config["width"], self.config["height"]
        alike = [size for size in self._known if size[0] == width]
        wide, high = [*shown, *alike, *self._known, self.layout.frame or (width, height)][0]
        if not total or wide * high == total:
            return wide, high
        if total % width == 0:
            return width, total // width
        if height and total % height == 0:
            return total // height, height
        return wide, high

    def _has_room(self, runs: list[Run], width: int, height: int) -> bool:
        """Whether a frame size no whole frame proves can be: not much more than what the buffers there are hold."""
        slots = -(-width * height // self.card.payload)
        indexes = max(r.cut.first + len(r.cut) - 1 for r in runs)
        frames = sum(r.last_frame - r.first.frame + 1 for r in runs)
        fits = not self.layout.height_overwritten or indexes < slots
        return fits and height >= 8 and frames * width * height <= 8 * (self._size + _SPARE)

    def low_counts(self, runs: list[Run]) -> LowCounts | None:
        """The low bytes of the counts, which a DAQ leaves in the height word at a clean stop."""
        if not self.layout.height_overwritten or self._made_up:
            return None
        size = self.config["width"], self.config["height"]  # another build's, of a later boot, holds no counts
        if size in self._known or size[1] == self.frame_size(runs)[1]:
            return None
        word = self.config["height"]
        return LowCounts(word & 255, word >> 8 & 255)

    def finished(self, runs: list[Run]) -> bool:
        """Whether the height word says that the recording ended here; more may have been dropped behind the last."""
        counts = self.low_counts(runs)
        return counts is not None and counts.written_fits(runs)

    def ran_its_time(self, runs: list[Run]) -> bool:
        """Whether an earlier one of several recordings (whose counts were overwritten) ended by its record length."""
        first, last = runs[0], runs[-1]
        end = self.headers.at(last.sector_of(last.count - 1)) or last.first
        seconds = (end.time - first.first.time) / self.ticks(runs) / 1000
        return 0 < self.card.settings.get("record_length", 0) <= seconds + 0.2

    def cut_off(self, runs: list[Run]) -> bool:
        """Whether the image ends before there is room for the header of another buffer."""
        return runs[-1].end_sector * SECTOR + self.card.framing.head > self._size
