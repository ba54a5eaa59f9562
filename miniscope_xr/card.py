"""An open card: its descriptor, its index, whether it is still the same card; frames read ahead, each bad one alone."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from typing import Any

import numpy as np

from miniscope_xr.errors import BlankCardError, CardReadError, NotACardError, OptionError, RecordingError
from miniscope_xr.frames.buffers import BufferReader
from miniscope_xr.frames.cache import HeaderTables, Recent
from miniscope_xr.frames.describe import FrameRows
from miniscope_xr.frames.due import DueTimes
from miniscope_xr.frames.pool import PoolBufferReader
from miniscope_xr.frames.reader import FrameReader
from miniscope_xr.index.build import build_index
from miniscope_xr.index.byte_shift import begins_off, goes_on_at, told_of_splices, zeros_before
from miniscope_xr.index.front import Card
from miniscope_xr.index.recording import Recording
from miniscope_xr.layout import SECTOR, Layout, builtin_layouts, load_layout
from miniscope_xr.layout.arrays import Ints
from miniscope_xr.source.base import ByteSource
from miniscope_xr.source.magic import KIND_BYTES, file_kind
from miniscope_xr.source.open import address, open_device
from miniscope_xr.source.owned import OwnedSource
from miniscope_xr.source.salvage import Tolerant
from miniscope_xr.source.spliced import Splices, open_spliced

_AHEAD = 32  # frames
_MOST_SPLICES = 16
_KEPT = 1 << 16  # rows, of about 100 bytes


def _named(error: NotACardError, path: str, source: ByteSource) -> str:
    """Begin with the file, and say what it seems to be where that is no card."""
    kind = None
    if not isinstance(error, BlankCardError):
        with contextlib.suppress(OSError):
            kind = file_kind(source.read(0, KIND_BYTES))
    return f"{path}: {error}" + (f". It seems to be {kind}" if kind else "")


def _identity(layout: Layout, tolerant: bool, source: ByteSource) -> bytes:
    """Read the sectors that tell one card from another: settings, counts and the first header."""
    sectors = layout.sectors
    start = min(sectors.header, sectors.data if sectors.config is None else sectors.config)
    readable = Tolerant(source) if tolerant else source
    return readable.read(start * SECTOR, (sectors.data + 1 - start) * SECTOR)


class OpenCard:
    """An open card. Pickles as its path and index, and reopens where it is unpickled.

    Parameters
    ----------
    path
        Image file, block device or URL.
    layout, index, errors
        As in ``xr.open_dataset(..., engine="miniscope")``.
    whole : bool
        Keep what looks like an older recording at the end (``until=`` is given).
    old_buffers : bool
        Look for the list of old buffers on this computer (see :mod:`miniscope_xr.index.old_buffers`).
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        layout: str | os.PathLike[str] | Mapping[str, Any] | Layout | None = None,
        index: str = "bisect",
        errors: str = "raise",
        whole: bool = False,
        old_buffers: bool = True,
    ) -> None:
        self.path = address(path)
        self._source = OwnedSource(self.path, open_device)
        try:
            self.unread = self._source.unread
            self.salvage = errors == "fill" or bool(self.unread)
            errors = "fill" if self.unread else errors
            self.splices: Splices = ()
            """Where this image is off the sectors of its card: bytes of it, and zeros that are put in before each."""
            build = partial(
                build_index, layout=layout, index=index, errors=errors, whole=whole, old_buffers=old_buffers
            )
            self.index: Card = self._found(build, layout)
            self._splice(build)
            self._source.remember(partial(_identity, self.index.layout, self.salvage))
        except NotACardError as error:
            said = _named(error, self.path, self._source)
            self._source.close()
            raise type(error)(said) from error
        except BaseException:
            self._source.close()
            raise

    def _found(
        self, build: Callable[[ByteSource], Card], layout: str | os.PathLike[str] | Mapping[str, Any] | Layout | None
    ) -> Card:
        """What is on the card; where its buffers are off the sectors, as if bytes missing before them were zeros.

        They are missing (or too many) before all of the image, if settings stand as far off the sectors as the buffers;
        else between those and the first buffers.
        """
        try:
            return self._source.ask(build)
        except NotACardError:
            layouts = list(builtin_layouts().values()) if layout is None else [load_layout(layout)]
            at = begins_off(self._source, layouts)
            if at is None:
                raise
            found = self._open_spliced(build, (0, SECTOR - at % SECTOR))
            if not found.settings:
                self.splices = ()
                found = self._open_spliced(build, (at, 2 * SECTOR - at % SECTOR))
            return found

    def _open_spliced(self, build: Callable[[ByteSource], Card], splice: tuple[int, int]) -> Card:
        """What is on the card with zeros put in at one more place."""
        self.splices = (*self.splices, splice)
        self._source.close()
        self._source = OwnedSource(self.path, partial(open_spliced, splices=self.splices))
        return self._source.ask(build)

    def _splice(self, build: Callable[[ByteSource], Card]) -> None:
        """Go on where the recording stands off the sectors, as bytes were left out of an image, or put in.

        Zeros are put in before each such place, and the buffer before it, in which the bytes are missing or too many,
        is left out.
        """
        while len(self.splices) < _MOST_SPLICES and (at := goes_on_at(self._source, self.index)) is not None:
            byte = at - sum(zeros for _, zeros in self.splices)
            self.index = self._open_spliced(build, (byte, zeros_before(at, self.index)))
        if self.splices:
            self.index = told_of_splices(self.index, self.splices)

    def __deepcopy__(self, memo: dict[int, Any]) -> OpenCard:
        """A copied dataset is of the same card: nothing here changes once it is open."""
        return self

    @cached_property
    def fingerprint(self) -> str:
        """Hash that tells this card from another in the same reader."""
        return hashlib.sha256(self._source.identity).hexdigest()[:32]

    def source(self) -> ByteSource:
        """Return the card, checked to be the one that was opened; it is good for as long as anybody holds it."""
        self._source.verify()
        return self._source

    def close(self) -> None:
        """Close the descriptor; reading again reopens it."""
        self._source.close()

    def recording(self, number: int | None) -> Recording:
        """One recording of the card; None where it must be the only one."""
        found = self.index.recordings
        names = ", ".join(f"{r.number} ({r.n_buffers} buffers from sector {r.start_sector})" for r in found)
        if number is None:
            if len(found) > 1:
                raise RecordingError(f"this card holds {len(found)} recordings, pass recording= one of: {names}")
            return found[0]
        if isinstance(number, bool) or not isinstance(number, int | np.integer):
            raise OptionError(f"recording={number!r}: expected a number, one of: {names}")
        if not 0 <= number < len(found):
            raise RecordingError(f"recording={number}: this card holds {names}")
        return found[int(number)]

    def unread_in(self, recording: Recording) -> int:
        """Sectors of a recording that its copy lacks, as the map beside the copy says."""
        start, stop = recording.start_sector * SECTOR, recording.end_sector * SECTOR
        return -(-sum(max(min(at + n, stop) - max(at, start), 0) for at, n in self.unread) // SECTOR)

    @property
    def layout(self) -> Layout:
        """The layout, as the build that wrote this card has it."""
        return self.index.framing.layout

    @property
    def header_dtype(self) -> np.dtype[Any]:
        """Numpy dtype of one buffer header (of the footer on v3 cards)."""
        return self.index.framing.dtype

    def frames(self, recording: Recording, fill: bool = False, until: int | None = None) -> FrameReader:
        """Return the frames of one recording."""
        build = self.layout.build
        reader = PoolBufferReader if build is not None and build.overflow == "pool" else BufferReader
        return FrameReader(reader(recording, self.index.framing, self.salvage), fill, until)


Image = np.ndarray[Any, np.dtype[np.uint8]] | np.ndarray[Any, np.dtype[np.float32]]


class OpenRecording:
    """One recording of an open card, with the header rows read last kept for the next coordinate.

    Parameters
    ----------
    card : OpenCard
    recording : Recording
    fill : bool
        Insert blank frames for missing frame numbers.
    until : int or None
        Last frame number to return.
    nan : bool
        Pixels that are not on the card are NaN (and all pixels float32) instead of 0.
    """

    def __init__(
        self, card: OpenCard, recording: Recording, fill: bool = False, until: int | None = None, nan: bool = False
    ) -> None:  # fmt: skip
        self.card = card
        self.recording = recording
        self.nan = nan
        self.frames = card.frames(recording, fill, until)
        self._reset()

    def _reset(self) -> None:
        self._frame_rows: Recent[FrameRows] = Recent(_KEPT)
        self._whole_rows: Recent[FrameRows] = Recent(_KEPT)
        self._header_tables = HeaderTables(_KEPT // 2)
        self._buffer_rows: Recent[np.ndarray[Any, Any]] = Recent(_KEPT)
        self._ahead: tuple[int, Iterator[np.ndarray[Any, np.dtype[np.uint8]]]] = (-1, iter(()))
        self._careful = 0  # row up to which frames are read one by one

    def __getstate__(self) -> dict[str, Any]:
        return {"card": self.card, "recording": self.recording, "nan": self.nan, "frames": self.frames}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def pixels(self, rows: Ints) -> Image:
        """Pixels of some rows of the frame axis; the headers between them are kept for :meth:`describe`."""
        source = self.card.source()
        headers = self.frames.header_table(len(rows))
        read = self.frames.pixels_or_nan if self.nan else self.frames.pixels
        pixels = read(source, rows, headers)
        self._header_tables.put(rows, headers)
        return pixels

    def image(self, row: int) -> Image:
        """Pixels of one row of the frame axis."""
        if self.nan:
            image: Image = self.frames.pixels_or_nan(self.card.source(), np.array([row]))[0]
            return image
        return self._images(row, 1)[0]

    def frame(self, row: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Pixels of one row for a cursor: rows asked for one after another are read many at a time.

        Each image is handed out once, so that it is the caller's to change. Not for several threads.
        """
        following, images = self._ahead
        image = next(images, None) if row == following else None
        if image is None:
            ahead = row == following and row >= self._careful
            count = min(_AHEAD, self.frames.count - row) if ahead else 1
            try:
                images = iter(self._images(row, count))
            except CardReadError:
                if count == 1:
                    raise
                self._careful = row + count  # one of them cannot be read, and only that one is lost
                images = iter(self._images(row, 1))
            image = next(images)
        self._ahead = row + 1, images
        return image

    def _images(self, row: int, count: int) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
        return self.frames.images(self.card.source(), np.arange(row, row + count))

    def describe(self, rows: Ints, whole: bool = True) -> FrameRows:
        """Header rows; several coordinates of the same frames cost one read.

        ``whole=False`` does not look for unreadable sectors behind the headers (see :meth:`FrameReader.describe`).
        """
        source = self.card.source()
        whole = whole and self.card.salvage
        known = self._whole_rows if whole else self._frame_rows
        keep = self.card.salvage and not whole  # they also tell which sectors could be read
        return known.get(rows, lambda: self.frames.describe(source, rows, self._header_tables.take(rows, keep), whole))

    def times(self, rows: Ints, end: bool = False) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Timestamps of some rows in ms: of a frame's first buffer on the card, or its last; else when it was due.

        NaN only in a recording in which no frame has a time.
        """
        found = self.describe(rows, whole=False)
        ticks = (found.last if end else found.first)["timestamp"].astype(np.float64)
        lost = np.flatnonzero(found.present == 0)
        if len(lost):
            config = self.card.index.config or {}
            period = 1000 * self.recording.ticks / (config.get("fs", 0) or 20)
            ticks[lost] = DueTimes(self.frames, self.card.source(), period).at(rows[lost])
        times: np.ndarray[Any, np.dtype[np.float64]] = ticks // self.recording.ticks
        return times

    def time_of(self, row: int, source: ByteSource) -> float:
        """Timestamp of one row in ms, from one header where that can be."""
        first = self.frames.first_timestamp(source, row)
        return float(self.times(np.array([row]))[0]) if first is None else first // self.recording.ticks

    def buffer_rows(self, rows: Ints) -> np.ndarray[Any, Any]:
        """Headers of some buffers of the recording as they are on the card (structured array)."""
        source = self.card.source()

        def read() -> np.ndarray[Any, Any]:
            return self._by_run(
                rows, lambda run, i: self.frames.buffers.headers(source, run, i), self.card.header_dtype
            )

        return self._buffer_rows.get(rows, read)

    def buffer_sectors(self, rows: Ints) -> Ints:
        """Sectors of some buffers."""
        return self._by_run(rows, lambda run, i: run.sectors_of(i), np.dtype(np.int64))

    def _by_run(self, rows: Ints, values: Any, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
        runs = self.recording.runs
        if len(runs) == 1:
            return np.asarray(values(runs[0], rows), dtype)
        starts = np.concatenate(([0], np.cumsum([run.count for run in runs])))
        number = np.searchsorted(starts, rows, side="right") - 1
        out = np.empty(len(rows), dtype)
        for n in np.unique(number):
            mine = number == n
            out[mine] = values(runs[int(n)], rows[mine] - starts[n])
        return out
