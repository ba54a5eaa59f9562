"""An open card: its descriptor, its index, and the check that it is still the same card."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from xarray.backends import CachingFileManager

from miniscope_xr.device import ByteSource, open_device
from miniscope_xr.errors import CardChangedError, OptionError, RecordingError
from miniscope_xr.frames import FooterFrameReader, FrameReader, FrameRows, Int
from miniscope_xr.index import CardIndex, build_index
from miniscope_xr.layout import Layout
from miniscope_xr.recording import Recording
from miniscope_xr.words import buffer_header_dtype, dtype_of, footer_struct

_CACHED_ROWS = 8


class CardStore:
    """An open card. Pickles as its path and index, and reopens where it is unpickled.

    Parameters
    ----------
    path
        Image file or block device.
    layout, index, errors
        As in ``xr.open_dataset(..., engine="miniscope")``.
    whole : bool
        Keep what looks like an older recording at the end (``until=`` is given).
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        layout: str | os.PathLike[str] | Mapping[str, Any] | Layout | None = None,
        index: str = "bisect",
        errors: str = "raise",
        whole: bool = False,
    ) -> None:
        self.path = os.path.abspath(os.path.expanduser(os.fspath(path)))  # noqa: PTH100, PTH111
        # mode= must be given: without it an unpickled manager cannot reopen
        self._manager = CachingFileManager(open_device, self.path, mode="r")
        try:
            source: ByteSource = self._manager.acquire()
            self.index: CardIndex = build_index(source, layout, index, errors, whole)
            self.salvage = errors == "fill"
            self._identity = self._read_identity(source)
        except BaseException:
            self._manager.close()
            raise

    def _read_identity(self, source: ByteSource) -> bytes:
        """The sectors that tell one card from another: settings, counts and the first header."""
        sectors = self.index.layout.sectors
        start = min(sectors.header, sectors.data if sectors.config is None else sectors.config)
        return source.read(start * sectors.size, (sectors.data + 1 - start) * sectors.size)

    @cached_property
    def fingerprint(self) -> str:
        """Hash that tells this card from another in the same reader."""
        return hashlib.sha256(self._identity).hexdigest()[:32]

    def source(self) -> ByteSource:
        """The card, checked to be the one that was opened."""
        device: ByteSource = self._manager.acquire()
        if self._read_identity(device) != self._identity:
            raise CardChangedError(
                errno.ESTALE,
                "this is not the card that was opened (its settings, counts or first buffer differ); "
                "put the first card back, or open this one anew",
                self.path,
            )
        return device

    def close(self) -> None:
        """Close the descriptor; reading again reopens it."""
        self._manager.close()

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

    @property
    def header_dtype(self) -> np.dtype[Any]:
        """Numpy dtype of one buffer header (of the footer on v3 cards)."""
        card = self.index.card
        if card.layout.footer:
            return dtype_of(footer_struct(card.layout))
        return buffer_header_dtype(card.layout, card.words)

    def frames(self, recording: Recording, fill: bool = False, until: int | None = None) -> FrameReader:
        """The frames of one recording."""
        card = self.index.card
        reader = FooterFrameReader if card.layout.footer else FrameReader
        return reader(
            recording, card.words, card.payload, self.header_dtype, card.layout.sectors.size, fill, until, self.salvage
        )


class RecordingStore:
    """One recording of an open card, with the header rows read last kept for the next coordinate."""

    def __init__(self, card: CardStore, recording: Recording, fill: bool = False, until: int | None = None) -> None:
        self.card = card
        self.recording = recording
        self.frames = card.frames(recording, fill, until)
        self._reset()

    def _reset(self) -> None:
        self._rows: OrderedDict[bytes, FrameRows] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_rows", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def pixels(self, rows: Int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Pixels of some rows of the frame axis."""
        return self.frames.pixels(self.card.source(), rows)

    def describe(self, rows: Int) -> FrameRows:
        """Header rows; several coordinates of the same frames cost one read."""
        source = self.card.source()
        key = hashlib.blake2b(rows.tobytes(), digest_size=16).digest()
        with self._lock:
            known = self._rows.get(key)
        if known is None:
            known = self.frames.describe(source, rows)
            with self._lock:
                self._rows[key] = known
                while len(self._rows) > _CACHED_ROWS:
                    self._rows.popitem(last=False)
        return known

    def buffer_rows(self, rows: Int) -> np.ndarray[Any, Any]:
        """Headers of some buffers of the recording as they are on the card (structured array)."""
        source = self.card.source()
        return self._by_run(rows, lambda run, i: self.frames.header_rows(source, run, i)[0], self.card.header_dtype)

    def buffer_sectors(self, rows: Int) -> Int:
        """Sectors of some buffers."""
        return self._by_run(rows, lambda run, i: run.sectors_of(i), np.dtype(np.int64))

    def _by_run(self, rows: Int, values: Any, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
        runs = self.recording.runs
        starts = np.concatenate(([0], np.cumsum([run.count for run in runs])))
        number = np.searchsorted(starts, rows, side="right") - 1
        out = np.empty(len(rows), dtype)
        for n in np.unique(number):
            mine = number == n
            out[mine] = values(runs[int(n)], rows[mine] - starts[n])
        return out
