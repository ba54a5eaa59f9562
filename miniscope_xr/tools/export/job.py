"""What every format gets: the frames, when they were taken, and who did it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from miniscope_xr.engine.sidecar import told as sidecar
from miniscope_xr.layout.arrays import Array, Floats
from miniscope_xr.tools.export.aligned import ALIGNED, Camera
from miniscope_xr.tools.export.options import ABOUT, FROM_ATTRS
from miniscope_xr.tools.stream.footage import Footage, Images
from miniscope_xr.tools.stream.readahead import read_ahead
from miniscope_xr.tools.stream.timing import SHOWN

_LONG = 1e4  # from here on six digits would cut off parts of a second
_ROWS = 1000  # of a table at a time: as text a row takes ten times its size


@dataclass(frozen=True)
class ExportJob:
    """One export."""

    footage: Footage
    """The recording, with all its header values among the columns."""
    path: Path
    """File or folder to write; not there yet, renamed when the job is done."""
    fps: float
    """Frames per second by the recording's clock."""
    start: datetime
    """When the recording began."""
    start_source: str
    """How that is known, as a sentence."""
    bar: Any
    """Progress."""
    codec: str = "FFV1"
    """Of the videos inside, where the format has any."""
    about: dict[str, Any] = field(default_factory=dict)
    """What a card does not know and the user told; see :data:`~miniscope_xr.tools.export.options.ABOUT`."""
    beside: Path | None = None
    """Table of header values to write beside a file that has no room for them."""
    ome: bool = False
    """Whether its name promises OME metadata."""
    camera: Camera | None = None
    """Behaviour camera that is to lie beside the recording."""
    final: Path = Path()
    """The name the output gets."""
    compression: int = 0
    """0 (none) to 9, where the format has it."""

    def parts(self) -> Iterator[tuple[slice, Images]]:
        """Yield rows and frames, reading ahead; the progress bar follows."""
        with closing(read_ahead(self.footage.parts())) as ahead:
            for rows, images in ahead:
                yield rows, images
                self.bar.update(len(images))

    @property
    def start_given(self) -> bool:
        """Whether someone said when the recording began."""
        return self.start_source == "given by the user" or self.start_source.startswith(ALIGNED)

    @property
    def camera_begins(self) -> float:
        """When the camera took its first frame, in s since the session's start."""
        if self.camera is None:
            return 0.0
        return max(float(self.camera.seconds[0]) - float(self.footage.ds[SHOWN].values[0]), 0.0)

    def since_start(self, name: str = "time") -> Floats:
        """Return a time of every frame in s since the session's start: by the clock that was aligned with, if any."""
        columns = self.footage.columns
        if SHOWN not in columns:
            return self.seconds(name)
        first = float(columns[SHOWN][0]) if self.camera is None else min(columns[SHOWN][0], self.camera.seconds[0])
        later = self.seconds(name) - self.seconds()  # the last buffer of a frame is that much behind its first
        since: Floats = columns[SHOWN] - first + later
        return since

    def seconds(self, name: str = "time") -> Floats:
        """Return a time of every frame that was read, in s; a blank frame has the time it was due."""
        return self.footage.clock(name) / 1000.0

    def write_table(self) -> None:
        """Write the header values as CSV beside the file: a row a frame, times in ms."""
        if self.beside is None:
            return
        columns = {"frame": np.arange(self.footage.count), **self.footage.columns}
        columns |= {name: self.footage.clock(name) for name, values in columns.items() if values.dtype.kind == "m"}
        with self.beside.open("w", encoding="ascii", newline="\n") as file:
            file.write(",".join(columns) + "\n")
            for start in range(0, self.footage.count, _ROWS):
                texts = [_as_text(values[start : start + _ROWS]) for values in columns.values()]
                file.writelines(",".join(row) + "\n" for row in zip(*texts, strict=True))

    def settings(self) -> dict[str, Any]:
        """Return the recording's attributes as plain numbers, text and lists of text."""
        return {
            str(name): value.item() if isinstance(value, np.generic) else value
            for name, value in self.footage.ds.attrs.items()
        }

    def card_settings(self) -> dict[str, Any]:
        """Return those of them that the card tells, without what people told."""
        card = self.footage.ds.encoding.get("source")
        people = {*ABOUT, *FROM_ATTRS.values(), "notes", *(sidecar(card) if isinstance(card, str) else ())}
        return {name: value for name, value in self.settings().items() if name not in people}

    @property
    def notes(self) -> str:
        """What was noted of the session; empty where nothing was."""
        return str(self.footage.ds.attrs.get("notes", ""))


def _as_text(values: Array) -> list[str]:
    if values.dtype.kind == "f":
        return ["" if v != v else f"{v:.6g}" if abs(v) < _LONG else f"{v:.6f}" for v in values.tolist()]
    if values.dtype.kind == "M":
        return [str(text) for text in np.datetime_as_string(values, unit="us").tolist()]
    return [str(int(v)) for v in values.tolist()]
