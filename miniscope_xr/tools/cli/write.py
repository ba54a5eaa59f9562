"""The commands that write files from cards: ``video``, ``export``, ``report``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import xarray as xr

from miniscope_xr.errors import OptionError
from miniscope_xr.source.words import example_device
from miniscope_xr.tools.cli.joined import Session
from miniscope_xr.tools.export import export as write
from miniscope_xr.tools.export.formats import FORMATS
from miniscope_xr.tools.export.options import ABOUT
from miniscope_xr.tools.report import write_report
from miniscope_xr.tools.stream.arguments import flag, option, positional, rate_of, runs, several, texts
from miniscope_xr.tools.video.codecs import CONTAINERS
from miniscope_xr.tools.video.write import dataset_to_video, time_stamps_path


def _rows(text: str) -> slice:
    """``100:200`` (rows 100 to 199), ``:200``, ``100:`` or ``::10``, as in Python."""
    parts = text.split(":")
    try:
        numbers = [int(part) if part else None for part in parts]
    except ValueError:
        numbers = []
    if not 2 <= len(numbers) <= 3:
        raise argparse.ArgumentTypeError(f"{text!r}: expected FIRST:END or FIRST:END:STEP, for example 100:200")
    return slice(*numbers)


_ABOUT = ("what the card does not know", "A format that cannot hold one of these says so; nwb holds all of them.")


@dataclass(frozen=True, kw_only=True)
class _Writing:
    card: str = positional(f"a card's device ({example_device()}) or an image file", "CARD")
    out: str
    layout: str | None = option("id or file of the card's layout, where it is not detected")
    force: bool = flag("overwrite an output that is there")
    quiet: bool = flag("no progress bar, no words")
    time: str | None = option("a stretch since the first frame, such as 5s:60s or 2min:", "FROM:TO")
    crop: str | None = option("a part of the picture, in px", "X,Y,W,H")
    bin: int | None = option("mean of N x N pixels", "N")


@dataclass(frozen=True, kw_only=True)
class _Selection(_Writing):
    recording: int | None = option("which recording, where the card holds several", "N")
    until: int | None = option("last frame number to write, where `info` says the end is in doubt", "FRAME")
    gaps: str = option("fill: blank frames for lost ones", choices=("skip", "fill"), default="skip")
    errors: str = option("fill: black for bad sectors", choices=("raise", "fill"), default="raise")
    frames: slice | None = option("some rows of the recording, for example 100:200", "A:B", type=_rows)
    fps: float | str | None = option("measured (default), nominal (the setting), or a number", "RATE", type=rate_of)

    @property
    def part(self) -> dict[str, Any]:
        """Which part of the recording is written."""
        return {"frames": self.frames, "time": self.time, "crop": self.crop, "bin": self.bin}


@dataclass(frozen=True, kw_only=True)
class Video(_Selection):
    """``video``."""

    out: str = positional("video file: .avi, .mkv, .mp4 or .mov", "OUT")
    codec: str = option(f"{', '.join(CONTAINERS)}; GREY (default) and FFV1 (half the size) are exact", default="GREY")
    color: bool = flag("three equal channels; not with GREY, which has one")
    dff: bool = flag("a preview of dF/F: white is 50 %% above rest")
    no_time_stamps: bool = flag("write no CSV")


@dataclass(frozen=True, kw_only=True)
class Export(_Selection):
    """``export``."""

    out: str = positional("file or folder to write", "OUT")
    to: str | None = option("format; else the ending of OUT says it", choices=tuple(FORMATS))
    start: str | None = option("when the recording began, e.g. 2026-03-14T15:09:26", "TIME")
    codec: str | None = option("of a miniscope-daq folder: FFV1 (default) or GREY")
    compression: int | None = option("netcdf, hdf5, tiff: 0 (none) to 9 (smallest)", "LEVEL")
    clock: list[str] = several(
        "times by another clock, which `align` wrote; with --join once for each recording, in their order", "JSON"
    )
    join: list[str] = several(
        "another recording of the same session, which is put behind: a card, or a number: of the same card", "CARD"
    )
    apart: float | None = option("s between joined recordings, where it is known", "S")
    camera: str | None = option("behaviour video or camera's folder, to lie beside the recording", "VIDEO")
    about: Mapping[str, str] = texts(ABOUT, group=_ABOUT)


@dataclass(frozen=True, kw_only=True)
class Report(_Writing):
    """``report``."""

    out: str = positional("page to write (.html)", "OUT")
    date: str = option("when it was recorded; the card does not know", "TIME", default="")
    animal: str = option("shown on the page", "NAME", default="")
    notes: str = option("shown on the page", "TEXT", default="")
    dff: bool = flag("dF/F in film and frames: white is 50 %% above rest")


def _open(args: _Selection) -> Any:
    return xr.open_dataset(
        args.card, engine="miniscope", layout=args.layout, recording=args.recording, until=args.until, gaps=args.gaps,
        errors=args.errors,
    )  # fmt: skip


def _beyond(rows: slice | None, count: int) -> str:
    """Say that a range goes on behind the end of the recording, which Python's slices pass over."""
    if rows is None or all(edge is None or -count <= edge <= count for edge in (rows.start, rows.stop)):
        return ""
    first, stop = ("" if edge is None else edge for edge in (rows.start, rows.stop))
    return f"--frames {first}:{stop} goes beyond the recording, which has rows 0 to {count - 1}"


def _say_beyond(args: _Selection, count: int) -> None:
    if (said := _beyond(args.frames, count)) and not args.quiet:
        print(said, file=sys.stderr)


def video(args: Video) -> int:
    """Write a recording as a video."""
    with _open(args) as ds:
        count = ds.sizes["frame"]
        written = dataset_to_video(
            ds, args.out, codec=args.codec, fps=args.fps, color=args.color, dff=args.dff, **args.part,
            time_stamps=not args.no_time_stamps, force=args.force, progress=not args.quiet,
        )  # fmt: skip
    _say_beyond(args, count)
    if not args.quiet:
        print(f"wrote {args.out}: {args.codec}, {written}")
        if written.lost and args.gaps == "skip":
            print("  --gaps fill puts a black frame where one was lost, so that the film runs at true speed throughout")
        if not args.no_time_stamps:
            print(f"  time stamps: {time_stamps_path(args.out)}")
    return 0


def export(args: Export) -> int:
    """Write a recording for another program."""
    told: dict[str, Any] = {
        "fps": args.fps, "start": args.start, "codec": args.codec, "camera": args.camera,
        "compression": args.compression, **args.about
    }  # fmt: skip
    if args.join and args.until is not None:
        raise OptionError("--until ends one recording; it cannot be given together with --join")
    opening = {"layout": args.layout, "until": args.until, "gaps": args.gaps, "errors": args.errors}
    session = Session(args.card, args.recording, args.join, args.clock, args.apart, opening)
    with ExitStack() as stack:
        ds = session.opened(stack)
        count = ds.sizes["frame"]
        made = write(
            ds, args.out, args.to, force=args.force, **args.part, progress=not args.quiet,
            **{name: value for name, value in told.items() if value is not None},
        )  # fmt: skip
    _say_beyond(args, count)
    if not args.quiet:
        print(f"wrote {made}")
        if args.join:
            print(f"  {len(args.join) + 1} recordings in a row, {ds.attrs['joined']}")
    return 0


def report(args: Report) -> int:
    """Write a page about a card."""
    if not args.out.lower().endswith((".html", ".htm")):
        raise OptionError(f"{args.out}: a report ends in .html")
    write_report(
        args.card, args.out, layout=args.layout, force=args.force, progress=not args.quiet, date=args.date,
        animal=args.animal, notes=args.notes, time=args.time, crop=args.crop, bin=args.bin, dff=args.dff,
    )  # fmt: skip
    if not args.quiet:
        print(f"wrote {args.out}; open it in a browser")
    return 0


def _video(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "video", help="write a recording as a video",
        description="Write a recording as a video at its true frame rate, and its time stamps as CSV beside it.",
    )  # fmt: skip
    runs(parser, Video, video)


def _export(subparsers: Any) -> None:
    listed = "; ".join(f"{name}: {known.text}" for name, known in FORMATS.items())
    parser = subparsers.add_parser(
        "export", help="write a recording for minian, CaImAn, suite2p, NWB, MATLAB ...",
        description=f"Write a recording for another program. Formats: {listed}.",
    )  # fmt: skip
    runs(parser, Export, export)


def _report(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "report", help="write one page that shows what is on a card",
        description="Write one self-contained HTML page: what was recorded, what is missing, how it looks.",
    )  # fmt: skip
    runs(parser, Report, report)


def register(subparsers: Any) -> None:
    """Add the commands to an argparse subparsers object; each sets ``func``, which returns the exit code."""
    _video(subparsers)
    _export(subparsers)
    _report(subparsers)
