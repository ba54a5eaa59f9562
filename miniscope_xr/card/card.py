"""A card that is open: its descriptor, its index, whether it is still the same card."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import Any

import numpy as np

from miniscope_xr.errors import BlankCardError, NotACardError, OptionError, RecordingError
from miniscope_xr.frames.buffers import BufferReader
from miniscope_xr.frames.pool import PoolBufferReader
from miniscope_xr.frames.reader import FrameReader
from miniscope_xr.index.build import build_index
from miniscope_xr.index.byte_shift import begins_off, goes_on_at, told_of_splices, zeros_before
from miniscope_xr.index.front import Card
from miniscope_xr.index.recording import Recording
from miniscope_xr.layout import SECTOR, Layout, builtin_layouts, load_layout
from miniscope_xr.source.base import ByteSource
from miniscope_xr.source.magic import KIND_BYTES, file_kind
from miniscope_xr.source.open import address, open_device
from miniscope_xr.source.owned import OwnedSource
from miniscope_xr.source.salvage import Tolerant
from miniscope_xr.source.spliced import Splices, open_spliced

_MOST_SPLICES = 16


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
            self.tolerant = errors == "fill" or bool(self.unread)
            errors = "fill" if self.unread else errors
            self.splices: Splices = ()
            """Where this image is off the sectors of its card: bytes of it, and zeros that are put in before each."""
            build = partial(
                build_index, layout=layout, index=index, errors=errors, whole=whole, old_buffers=old_buffers
            )
            self.index: Card = self._found(build, layout)
            self._splice(build)
            self._source.remember(partial(_identity, self.index.layout, self.tolerant))
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

    def frames(
        self, recording: Recording, fill: bool = False, until: int | None = None, strict: bool = False
    ) -> FrameReader:
        """Return the frames of one recording; ``strict``: a sector that cannot be read is an error all the same."""
        build = self.layout.build
        reader = PoolBufferReader if build is not None and build.pool else BufferReader
        return FrameReader(reader(recording, self.index.framing, self.tolerant and not strict), fill, until)
