"""One recording as the page sees it: of an open card (``SeenRecording``), or of a Dataset (``sliced.py``)."""

from __future__ import annotations

import contextlib
import errno
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from miniscope_xr.card import OpenCard, OpenRecording
from miniscope_xr.engine.attrs import recording_attrs
from miniscope_xr.errors import CardChangedError, OptionError, plain
from miniscope_xr.frames.rate import clock_step
from miniscope_xr.layout.arrays import Array, Bools, Floats, Ints

if TYPE_CHECKING:
    import xarray as xr

    from miniscope_xr.tools.stream.gaps import Gap

_USUAL = 20.0  # frames/s at which a recording without times is played


def plain_numbers(values: Any) -> list[float | None]:
    """Numbers as JSON can say them; None for what is not a number."""
    return [None if np.isnan(v) else float(v) for v in np.asarray(values, np.float64)]


class Heads(NamedTuple):
    """What the headers say of some frames: their numbers, times in ms (NaN for none), and whether they are whole."""

    numbers: Ints
    ms: Floats
    whole: Bools


class Seen(ABC):
    """One recording as the page sees it. Safe for the threads of a server.

    Attributes
    ----------
    attrs : mapping
        What is said of the recording as a whole.
    count, height, width : int
    real : bool
        Whether its pixels are float32; else they are uint8.
    path : str or None
        The card; None where it is not known.
    number : int
        Of the recording on the card.
    warnings : list of str
    """

    real = False

    def __init__(self, shape: tuple[int, ...], attrs: Mapping[str, Any], path: str | None, number: int) -> None:
        self.count, self.height, self.width = shape
        self.attrs, self.path, self.number = attrs, path, number
        self.warnings = [str(text) for text in np.atleast_1d(attrs.get("warnings", []))]

    @property
    @abstractmethod
    def ds(self) -> xr.Dataset:
        """Its frames as a Dataset."""

    @property
    @abstractmethod
    def fps(self) -> float | None:
        """Frames per second by the clock, of some hundred headers; None where it does not tell."""

    @abstractmethod
    def pixels(self, rows: Ints) -> Array:
        """Pixels of some rows (rows, height, width): uint8, black where they are not on the card, or float32."""

    @abstractmethod
    def holed(self, rows: Ints) -> Array:
        """Pixels of some rows as real numbers, NaN where they are not on the card."""

    @abstractmethod
    def heads(self, rows: Ints) -> Heads:
        """What the headers say of some rows."""

    @abstractmethod
    def gaps(self) -> list[Gap]:
        """Where frames were lost."""

    @abstractmethod
    def partial(self) -> list[int]:
        """Rows known to lack buffers without reading every header."""

    @abstractmethod
    def findings(self) -> list[dict[str, Any]]:
        """What ``check`` says of its card, each sentence with the rows that it is about."""

    @abstractmethod
    def opened(self) -> contextlib.AbstractContextManager[xr.Dataset]:
        """The frames for a file that is made of them."""

    def rows(self, start: int, count: int) -> Ints:
        """Rows ``start`` to ``start + count``, as far as the recording has them.

        Raises
        ------
        OptionError
            It has none of them.
        """
        if not 0 <= start < self.count or count < 1:
            raise OptionError(f"frames {start} to {start + count - 1}: this recording has frames 0 to {self.count - 1}")
        return np.arange(start, min(start + count, self.count))

    def described(self) -> dict[str, Any]:
        """What the page has to know before the first picture; ``fps`` as the settings say, :attr:`fps` is exact."""
        return {
            "number": self.number, "frames": self.count, "width": self.width, "height": self.height,
            "fps": float(self.attrs.get("fs", 0)) or _USUAL,
            "real": self.real, "status": str(self.attrs.get("status", "")), "warnings": self.warnings,
        }  # fmt: skip


class SeenRecording(Seen):
    """A recording of an open card."""

    def __init__(self, card: OpenCard, number: int) -> None:
        recording = card.index.recordings[number]
        self.on_card = OpenRecording(card, recording)
        self._nan = OpenRecording(card, recording, nan=True)
        shape = self.on_card.frames.count, recording.height, recording.width
        super().__init__(shape, recording_attrs(self.on_card), card.path, recording.number)

    @cached_property
    def ds(self) -> xr.Dataset:
        """Its frames, made when they are first asked for: the first picture does not wait for what xarray loads."""
        from miniscope_xr.engine.dataset import frames_dataset  # start-up time: it needs xarray

        return frames_dataset(self.on_card)

    @cached_property
    def fps(self) -> float | None:
        """Frames per second by the card's clock."""

        def look(rows: Ints) -> tuple[Any, Any]:
            return np.nan_to_num(self.on_card.times(rows), nan=-1), self.on_card.frames.frame_num(rows)

        step = clock_step(self.count, look)
        return None if step is None else round(1000 / step, 3)

    def pixels(self, rows: Ints) -> Array:
        """Pixels of some rows: uint8 (rows, height, width), black where they are not on the card.

        Raises
        ------
        CardChangedError
            Another card is in the reader, or the image was written to.
        """
        pixels = self.on_card.pixels(rows)
        if self.on_card.card.source().changed:
            raise self._changed()
        return pixels

    def holed(self, rows: Ints) -> Array:
        """Pixels as float32, NaN where they are not on the card."""
        return self._nan.pixels(rows)

    def heads(self, rows: Ints) -> Heads:
        """What the headers say of some rows."""
        found = self.on_card.describe(rows)
        return Heads(found.frame_num, self.on_card.times(rows), found.complete)

    def gaps(self) -> list[Gap]:
        """Where frames were lost, as the counters tell without reading every frame."""
        from miniscope_xr.tools.stream.gaps import recording_gaps  # start-up time: it needs xarray

        return recording_gaps(self.on_card)

    def partial(self) -> list[int]:
        """Rows that lack buffers, as the counters tell without reading every frame."""
        return self.on_card.frames.partial_rows()

    def findings(self) -> list[dict[str, Any]]:
        """What ``check`` says of the card, whichever of its recordings this is."""
        from miniscope_xr.tools.view.findings import findings  # start-up time: it needs xarray

        return findings(self.on_card.card.path)

    @contextlib.contextmanager
    def opened(self) -> Iterator[xr.Dataset]:
        """The card opened anew, as commands do: a sector that cannot be read is an error, where the page shows black.

        Raises
        ------
        CardChangedError
            It is another card.
        """
        from miniscope_xr.engine.dataset import frames_dataset  # start-up time: it needs xarray

        with contextlib.closing(OpenCard(self.on_card.card.path)) as card:
            if card.fingerprint != self.on_card.card.fingerprint:
                raise self._changed()
            yield frames_dataset(OpenRecording(card, card.recording(self.number)))

    def _changed(self) -> CardChangedError:
        text = "was written to or changed since it was opened; open it again"
        return CardChangedError(errno.ESTALE, text, self.on_card.card.path)


def settings_told(attrs: Mapping[str, Any], names: Iterable[str]) -> dict[str, str]:
    """Settings of a recording in words, of those named that its attributes have."""
    known = [name for name in names if name in attrs]
    return {name: plain(str(attrs.get(f"{name}_meaning", attrs[name]))) for name in known}
