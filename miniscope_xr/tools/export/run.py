"""``export``: choose the format, open the output, run its writer."""

from __future__ import annotations

from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Unpack

import xarray as xr

from miniscope_xr.errors import OptionError, did_you_mean, refuse_unknown
from miniscope_xr.tools.export.aligned import aligned_start, camera_of
from miniscope_xr.tools.export.folders import whole_folder
from miniscope_xr.tools.export.formats import FORMATS
from miniscope_xr.tools.export.job import ExportJob
from miniscope_xr.tools.export.options import (
    ExportOptions,
    checked_compression,
    facts,
    refuse_dropped,
    session_start,
    told,
)
from miniscope_xr.tools.stream.footage import Footage, PathLike, header_names
from miniscope_xr.tools.stream.libraries import need
from miniscope_xr.tools.stream.outputs import (
    headers_beside,
    output_errors,
    progress_bar,
    refuse_source,
    refuse_too_large,
    whole_file,
)
from miniscope_xr.tools.stream.selection import chosen, picture_of
from miniscope_xr.tools.stream.timing import frame_rate, warn_of_jumps


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


def is_ome(path: Path) -> bool:
    """Whether the name promises the metadata of the Open Microscopy Environment: ``a.ome.tif``, ``a.ome.zarr``."""
    return Path(path.stem).suffix.lower() == ".ome"


def carried(path: Path) -> dict[str, frozenset[str]]:
    """Options that each format holds; an OME-Zarr says its frame rate, a plain one does not."""
    held = {name: known.carries for name, known in FORMATS.items()}
    return {**held, "zarr": held["zarr"] | {"fps"}} if is_ome(path) else held


def export(ds: xr.Dataset, path: PathLike, to: str | None = None, **options: Unpack[ExportOptions]) -> Path:
    """Write a recording for another program; returns what was written.

    Parameters
    ----------
    ds
        What ``xr.open_dataset(card, engine="miniscope")`` gives, or a part of it.
    path
        File or folder; appears when it is whole. For ``miniscope-daq`` the folder that holds the days.
    to
        One of :data:`FORMATS`; None goes by the ending of ``path``.
    options
        Those of :class:`~miniscope_xr.tools.export.options.ExportOptions`: which frames, their rate, when and what
        was recorded.

    Raises
    ------
    OptionError
        A value that cannot be, or an option that the format cannot hold.
    OutputExistsError
        The output is there and ``force`` is not given, or is no regular file or folder of an export.
    OutputError
        It could not be written, for example on a full disk; nothing is left of it.
    MissingDependencyError
        The format's library is not installed.
    """
    out = Path(path)
    refuse_unknown("export()", options, ExportOptions.__annotations__)
    name = format_of(out, to)
    kind = FORMATS[name]
    source, force = ds.encoding.get("source"), options.get("force", False)
    holds = carried(out)
    before = told(ds.attrs, holds[name] | {"start"})
    told_start = session_start(source, options.get("start") or before.get("start"))
    refuse_dropped(options, name, holds)
    about = facts(before) | facts(options)
    for module in kind.needs:
        need(module, kind.extra, f"this export ({name})")
    writer = import_module(f"miniscope_xr.tools.export.{kind.module}")
    part = chosen(ds, options)
    camera = camera_of(part, options.get("camera"))
    began, known = aligned_start(part, options.get("start"), camera) or told_start
    footage = Footage(part, header_names(part), kind.batch_bytes, picture_of(part))
    rate = frame_rate(part, options.get("fps"))
    if name == "miniscope-daq":
        out = writer.session_folder(part, out, began)
    refuse_source(out, source, *ds.encoding.get("sources", ()))
    compression = checked_compression(options.get("compression"))
    if kind.plain and not compression:
        refuse_too_large(out, footage.count * footage.height * footage.width)
    with ExitStack() as outputs:
        made = outputs.enter_context((whole_folder if kind.folder else whole_file)(out, force))
        table = headers_beside(out)
        beside = outputs.enter_context(whole_file(table, force)) if kind.table else None
        bar = outputs.enter_context(progress_bar(footage.count, out.name, show=options.get("progress", True)))
        codec = options.get("codec") or "FFV1"
        with output_errors(out):
            writer.write(
                ExportJob(
                    footage, made, rate, began, known, bar, codec, about, beside, is_ome(out), camera, out, compression
                )
            )
        warn_of_jumps(footage.times)
    return out
