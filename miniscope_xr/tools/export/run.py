"""``export``: choose the format, open the output, run its writer."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import datetime
from importlib import import_module
from pathlib import Path

import xarray as xr

from miniscope_xr.errors import OptionError, did_you_mean
from miniscope_xr.libraries import need
from miniscope_xr.tools.export.folders import whole_folder
from miniscope_xr.tools.export.formats import FORMATS
from miniscope_xr.tools.export.job import Job
from miniscope_xr.tools.stream.footage import Footage, Frames, PathLike, header_names, select
from miniscope_xr.tools.stream.outputs import progress_bar, refuse_source, refuse_too_large, whole_file
from miniscope_xr.tools.stream.timing import frame_rate


def format_of(path: Path, to: str | None) -> str:
    """Return the name of the format: ``to``, or what the file's ending says."""
    if to is not None:
        if to not in FORMATS:
            raise OptionError(f"to={to!r}{did_you_mean(to, FORMATS)}: formats are {', '.join(FORMATS)}")
        suffixes = FORMATS[to].suffixes
        if suffixes and path.suffix.lower() not in suffixes:
            raise OptionError(f"{path.name}: a {to} output ends in {' or '.join(suffixes)}")
        return to
    for name, known in FORMATS.items():
        if path.suffix.lower() in known.suffixes:
            return name
    raise OptionError(f"{path.name}: its ending names no format; pass to= (--to) one of {', '.join(FORMATS)}")


def recording_start(ds: xr.Dataset, start: datetime | str | None) -> tuple[datetime, str]:
    """Return when the recording began (with its time zone), and how that is known: a card has no clock."""
    if start is not None:
        try:
            given = datetime.fromisoformat(start) if isinstance(start, str) else start
        except ValueError as error:
            raise OptionError(f"start={start!r}: expected a date and time such as 2026-03-14T15:09:26") from error
        return given.astimezone(), "given by the user"
    source = Path(str(ds.encoding.get("source", "")))
    if source.is_file():
        return datetime.fromtimestamp(source.stat().st_mtime).astimezone(), (
            "not known: a card has no clock; this is when its image was last written"
        )
    return datetime.now().astimezone(), "not known: a card has no clock; this is when it was exported"


def export(
    ds: xr.Dataset,
    path: PathLike,
    to: str | None = None,
    *,
    frames: Frames = None,
    fps: float | str | None = None,
    start: datetime | str | None = None,
    codec: str = "FFV1",
    animal: str = "",
    researcher: str = "",
    experiment: str = "",
    force: bool = False,
    progress: bool = True,
) -> Path:
    """Write a recording for another program; returns what was written.

    Parameters
    ----------
    ds
        What ``xr.open_dataset(card, engine="miniscope")`` gives, or a part of it.
    path
        File or folder; appears when it is whole. For ``miniscope-daq`` the folder that holds the days.
    to
        One of :data:`FORMATS`; None goes by the ending of ``path``.
    frames
        A slice or list of rows; None for all.
    fps
        None: measured from the time stamps; ``"nominal"``: the setting on the card; or a number.
    start
        When the recording began; None takes the time of the image file, and the output says so.
    codec
        For ``miniscope-daq``: ``FFV1`` or ``GREY``.
    animal, researcher, experiment
        Go into ``miniscope-daq`` and ``nwb``.
    force
        Overwrite an existing output.
    progress
        Show a progress bar (on a terminal).
    """
    path = Path(path)
    name = format_of(path, to)
    chosen = FORMATS[name]
    writer = import_module(f"miniscope_xr.tools.export.{chosen.module}")
    for module in chosen.needs:
        need(module, chosen.extra, f"this export ({name})")
    source = ds.encoding.get("source")
    part = select(ds, frames)
    footage = Footage(part, header_names(part), chosen.batch_bytes)
    rate = frame_rate(part, fps)
    began, known = recording_start(ds if source else part, start)
    if name == "miniscope-daq":
        path = path / f"{began:%Y_%m_%d}" / f"{began:%H_%M_%S}"
    about = {"animal": animal, "researcher": researcher, "experiment": experiment}
    refuse_source(path, source)
    if chosen.plain:
        refuse_too_large(path, part["video"].nbytes)
    with ExitStack() as outputs:
        made = outputs.enter_context((whole_folder if chosen.folder else whole_file)(path, force))
        table = path.with_name(f"{path.stem}_headers.csv")
        beside = outputs.enter_context(whole_file(table, force)) if chosen.table else None
        bar = outputs.enter_context(progress_bar(footage.count, path.name, show=progress))
        writer.write(Job(footage, made, rate, began, known, bar, codec, about, beside))
    return path
