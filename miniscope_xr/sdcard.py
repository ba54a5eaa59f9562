"""``SDCard``: the cursor that users of miniscope-io know, over the same index as the xarray engine."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, overload

import numpy as np

from miniscope_xr.card import OpenCard, OpenRecording
from miniscope_xr.errors import EndOfRecordingError, NotOpenError, OptionError
from miniscope_xr.frames.positions import Positions
from miniscope_xr.layout import SECTOR, Layout, load_layout
from miniscope_xr.layout.arrays import Bytes
from miniscope_xr.layout.words import has_keys
from miniscope_xr.source.open import address, open_device
from miniscope_xr.source.remote import is_url


@dataclass(frozen=True)
class SDConfig:
    """What a card says about its recording; ``height`` is the true one where the firmware overwrote it."""

    width: int
    height: int
    fs: float
    buffer_size: int
    n_buffers_recorded: int
    n_buffers_dropped: int


class BufferHeader(SimpleNamespace):
    """One buffer header: an attribute per field of the layout (int), None where the header is too short for it."""


@dataclass(frozen=True)
class SDFrame:
    """A frame with the headers of its buffers.

    Attributes
    ----------
    frame : uint8 array (height, width)
    headers : list of BufferHeader
        In card order; only headers that are on the card.
    """

    frame: Bytes
    headers: list[BufferHeader]

    @property
    def frame_num(self) -> int | None:
        """The device's frame number; None for a frame without a header on the card."""
        return int(self.headers[0].frame_num) if self.headers else None


class SDCard:
    """Read a card frame by frame.

    Parameters
    ----------
    drive
        Image file, block device or URL of an image.
    layout
        Id, path, mapping or Layout; None detects it.
    recording
        Which recording, where the card holds several.
    old_buffers
        Where this computer has the list of what was on the card before it was prepared, end the recording by it.

    Examples
    --------
    >>> with SDCard("card.img") as card:  # doctest: +SKIP
    ...     card.frame = 100
    ...     image = card.read()
    """

    def __init__(
        self,
        drive: str | os.PathLike[str],
        layout: str | os.PathLike[str] | Mapping[str, Any] | Layout | None = None,
        recording: int | None = None,
        old_buffers: bool = True,
    ) -> None:
        self.drive = str(drive) if is_url(drive) else Path(drive)
        self.positions = Positions()
        self._asked = layout
        self._number = recording
        self._old_buffers = old_buffers
        self._opened: OpenRecording | None = None
        self._f: OpenRecording | None = None
        self._frame: int | None = None

    def __repr__(self) -> str:
        where = "closed" if self._f is None else f"at frame {self._frame}"
        return f"<SDCard {str(self.drive)!r}, {where}>"

    # -- what is known without reading frames ---------------------------------------------------------

    def _open(self, keep: bool = False) -> OpenRecording:
        """The recording; found once, its descriptor closed again unless wanted or inside the ``with`` block."""
        if self._opened is None:
            card = OpenCard(self.drive, self._asked, old_buffers=self._old_buffers)
            try:
                self._opened = OpenRecording(card, card.recording(self._number))
            finally:
                if self._opened is None or not (keep or self._f):
                    card.close()
        return self._opened

    @contextlib.contextmanager
    def _lent(self) -> Iterator[OpenRecording]:
        """The recording for one job; outside the ``with`` block its descriptor is closed again behind it."""
        opened = self._open()
        try:
            yield opened
        finally:
            if self._f is None:
                opened.card.close()

    @property
    def layout(self) -> Layout:
        """The card's layout."""
        return self._open().card.index.layout

    @property
    def config(self) -> SDConfig:
        """Frame size, rate and buffer counts of the recording; readable outside the ``with`` block."""
        opened = self._open()
        config = opened.card.index.config or {}
        recording = opened.recording
        return SDConfig(
            recording.width, recording.height, config.get("fs", 0), config.get("buffer_size", 0),
            recording.n_recorded, recording.n_dropped,
        )  # fmt: skip

    @property
    def frame_count(self) -> int:
        """Frames that have a buffer on the card, the last and partial ones included."""
        return self._open().frames.count

    def check_valid(self) -> bool:
        """Whether the header sector has the four write keys (no firmware checks them; the lab notebook writes none)."""
        with contextlib.closing(open_device(address(self.drive))) as device:
            layout = load_layout(self._asked) if self._asked is not None else self.layout
            return has_keys(layout, device.read(layout.sectors.header * SECTOR, SECTOR))

    # -- the cursor -----------------------------------------------------------------------------------

    def __enter__(self) -> SDCard:
        if self._f is not None:
            raise NotOpenError("this SDCard is open already; use a second SDCard for a second cursor")
        known = self._opened is not None
        opened = self._open(keep=True)
        if known:  # looked at before: it may be another card by now
            opened.card.source()
        self._f = opened
        self._frame = 0
        self.positions.note(opened.frames, 0)
        return self

    def __exit__(self, *exc: object) -> None:
        opened, self._f, self._frame = self._f, None, None
        if opened is not None:
            opened.card.close()

    def _cursor(self) -> tuple[OpenRecording, int]:
        if self._f is None or self._frame is None:
            raise NotOpenError("the card is not open: read it inside `with SDCard(...) as card:`")
        return self._f, self._frame

    @property
    def frame(self) -> int | None:
        """The frame the next read returns (counted from 0); None outside the ``with`` block. Set it to seek."""
        return self._frame

    @frame.setter
    def frame(self, frame: int) -> None:
        opened, _ = self._cursor()
        if isinstance(frame, bool) or not isinstance(frame, int | np.integer) or frame < 0:
            raise OptionError(f"frame={frame!r}: expected a frame number from 0 on")
        self._frame = int(frame)
        if frame < opened.frames.count:
            self.positions.note(opened.frames, self._frame)

    @property
    def position(self) -> int | None:
        """Byte on the card where the next frame begins; None outside the ``with`` block."""
        if self._f is None or self._frame is None:
            return None
        return self._f.frames.position(self._frame)

    @overload
    def read(self, return_header: Literal[False] = False) -> Bytes: ...
    @overload
    def read(self, return_header: Literal[True]) -> SDFrame: ...
    def read(self, return_header: bool = False) -> Bytes | SDFrame:
        """Read the next frame.

        Returns
        -------
        uint8 array (height, width) of its own, or SDFrame with ``return_header=True``.

        Raises
        ------
        EndOfRecordingError
            Behind the last frame (a StopIteration).
        NotOpenError
            Outside the ``with`` block (a RuntimeError).
        """
        opened, frame = self._cursor()
        if frame >= opened.frames.count:
            raise EndOfRecordingError(f"frame {frame} is behind the last frame ({opened.frames.count - 1})")
        image = opened.frame(frame)
        headers = self._headers(opened, frame) if return_header else []
        self._frame = frame + 1
        self.positions.note(opened.frames, frame + 1)
        return SDFrame(image, headers) if return_header else image

    @staticmethod
    def _headers(opened: OpenRecording, frame: int) -> list[BufferHeader]:
        card = opened.card.index
        fields = dict.fromkeys({**card.layout.buffer, **card.layout.footer})
        rows = opened.frames.headers(opened.card.source(), frame)[0]
        names = rows.dtype.names or ()
        return [BufferHeader(**{**fields, **{name: int(row[name]) for name in names}}) for row in rows]

    def skip(self) -> None:
        """Go to the next frame without reading this one."""
        opened, frame = self._cursor()
        if frame >= opened.frames.count:
            raise EndOfRecordingError(f"frame {frame} is behind the last frame ({opened.frames.count - 1})")
        self._frame = frame + 1
        self.positions.note(opened.frames, frame + 1)

    def __iter__(self) -> Iterator[Bytes]:
        """Frames from the cursor on."""
        while self._cursor()[1] < self.frame_count:
            yield self.read()

    # -- outputs ----------------------------------------------------------------------------------------

    def to_video(
        self,
        path: str | os.PathLike[str],
        fourcc: str = "GREY",
        isColor: bool = False,
        force: bool = False,
        progress: bool = True,
    ) -> None:
        """Write the recording as a video, at the true frame rate.

        Parameters
        ----------
        path
            Output file (``.avi``, ``.mkv``; ``.mp4`` for mp4v).
        fourcc
            ``GREY`` and ``FFV1`` are exact; ``MJPG``, ``mp4v`` and ``XVID`` lose detail.
        isColor
            Write three equal channels.
        force
            Overwrite an existing file.
        progress
            Show a progress bar (on a terminal).
        """
        from miniscope_xr.tools.video.write import recording_to_video  # start-up time

        with self._lent() as opened:
            recording_to_video(opened, path, codec=fourcc, color=isColor, force=force, progress=progress)

    def to_img(
        self,
        path: str | os.PathLike[str],
        frame: int | None = None,
        force: bool = False,
        progress: bool = True,
    ) -> None:
        """Copy the card to an image that ends with its recordings.

        Parameters
        ----------
        path
            Output image.
        frame
            Copy the first ``frame`` frames only.
        force
            Overwrite an existing file.
        progress
            Show a progress bar (on a terminal).
        """
        from miniscope_xr.tools.copy.image import trim  # start-up time

        with self._lent() as opened:
            trim(opened, path, frames=frame, force=force, progress=progress)
