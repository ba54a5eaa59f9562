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
from miniscope_xr.tools.stream.arguments import rate_of, taken, typed
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


def _common(parser: argparse.ArgumentParser, out: str) -> None:
    parser.add_argument("card", metavar="CARD", help=f"a card's device ({example_device()}) or an image file")
    parser.add_argument("out", metavar="OUT", help=out)
    parser.add_argument("--layout", help="id or file of the card's layout, where it is not detected")
    parser.add_argument("--force", action="store_true", help="overwrite an output that is there")
    parser.add_argument("--quiet", action="store_true", help="no progress bar, no words")


def picture(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which part of the recording is shown."""
    parser.add_argument("--time", metavar="FROM:TO", help="a stretch since the first frame, such as 5s:60s or 2min:")
    parser.add_argument("--crop", metavar="X,Y,W,H", help="a part of the picture, in px")
    parser.add_argument("--bin", type=int, metavar="N", help="mean of N x N pixels")


def _selection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--recording", type=int, metavar="N", help="which recording, where the card holds several")
    parser.add_argument(
        "--until", type=int, metavar="FRAME", help="last frame number to write, where `info` says the end is in doubt"
    )
    parser.add_argument("--gaps", choices=("skip", "fill"), default="skip", help="fill: blank frames for lost ones")
    parser.add_argument("--errors", choices=("raise", "fill"), default="raise", help="fill: black for bad sectors")
    parser.add_argument("--frames", type=_rows, metavar="A:B", help="some rows of the recording, for example 100:200")
    picture(parser)
    parser.add_argument(
        "--fps",
        type=rate_of,
        default=None,
        metavar="RATE",
        help="measured (default), nominal (the setting), or a number",
    )


@dataclass(frozen=True)
class _Writing:
    card: str
    out: str
    layout: str | None
    force: bool
    quiet: bool


@dataclass(frozen=True)
class _Selection(_Writing):
    recording: int | None
    until: int | None
    gaps: str
    errors: str
    frames: slice | None
    time: str | None
    crop: str | None
    bin: int | None
    fps: float | str | None

    @property
    def part(self) -> dict[str, Any]:
        """Which part of the recording is written."""
        return {"frames": self.frames, "time": self.time, "crop": self.crop, "bin": self.bin}


@dataclass(frozen=True)
class Video(_Selection):
    """``video``."""

    codec: str
    color: bool
    dff: bool
    no_time_stamps: bool


@dataclass(frozen=True)
class Export(_Selection):
    """``export``, without what it is told of the session."""

    to: str | None
    start: str | None
    codec: str | None
    compression: int | None
    clock: list[str] | None
    camera: str | None
    join: list[str] | None
    apart: float | None


@dataclass(frozen=True)
class Report(_Writing):
    """``report``."""

    date: str
    animal: str
    notes: str
    time: str | None
    crop: str | None
    bin: int | None
    dff: bool


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


def export(args: Export, about: Mapping[str, str | None]) -> int:
    """Write a recording for another program; ``about`` is what the card does not know."""
    told: dict[str, Any] = {
        "fps": args.fps, "start": args.start, "codec": args.codec, "camera": args.camera,
        "compression": args.compression, **about
    }  # fmt: skip
    if args.join and args.until is not None:
        raise OptionError("--until ends one recording; it cannot be given together with --join")
    opening = {"layout": args.layout, "until": args.until, "gaps": args.gaps, "errors": args.errors}
    session = Session(args.card, args.recording, args.join or (), args.clock or (), args.apart, opening)
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
    _common(parser, "video file: .avi, .mkv, .mp4 or .mov")
    _selection(parser)
    parser.add_argument(
        "--codec", default="GREY", help=f"{', '.join(CONTAINERS)}; GREY (default) and FFV1 (half the size) are exact"
    )
    parser.add_argument("--color", action="store_true", help="three equal channels; not with GREY, which has one")
    parser.add_argument("--dff", action="store_true", help="a preview of dF/F: white is 50 %% above rest")
    parser.add_argument("--no-time-stamps", action="store_true", help="write no CSV")
    parser.set_defaults(func=typed(Video, video))


def _export(subparsers: Any) -> None:
    listed = "; ".join(f"{name}: {known.text}" for name, known in FORMATS.items())
    parser = subparsers.add_parser(
        "export", help="write a recording for minian, CaImAn, suite2p, NWB, MATLAB ...",
        description=f"Write a recording for another program. Formats: {listed}.",
    )  # fmt: skip
    _common(parser, "file or folder to write")
    _selection(parser)
    parser.add_argument("--to", choices=tuple(FORMATS), help="format; else the ending of OUT says it")
    parser.add_argument("--start", metavar="TIME", help="when the recording began, e.g. 2026-03-14T15:09:26")
    parser.add_argument("--codec", help="of a miniscope-daq folder: FFV1 (default) or GREY")
    parser.add_argument("--compression", type=int, metavar="LEVEL", help="netcdf, hdf5, tiff: 0 (none) to 9 (smallest)")
    parser.add_argument(
        "--clock", metavar="JSON", action="append",
        help="times by another clock, which `align` wrote; with --join once for each recording, in their order",
    )  # fmt: skip
    parser.add_argument(
        "--join", metavar="CARD", action="append",
        help="another recording of the same session, which is put behind: a card, or a number: of the same card",
    )  # fmt: skip
    parser.add_argument("--apart", type=float, metavar="S", help="s between joined recordings, where it is known")
    parser.add_argument(
        "--camera", metavar="VIDEO", help="behaviour video or camera's folder, to lie beside the recording"
    )
    session = parser.add_argument_group(
        "what the card does not know", "A format that cannot hold one of these says so; nwb holds all of them."
    )
    for name, text in ABOUT.items():
        session.add_argument(f"--{name.replace('_', '-')}", metavar="TEXT", help=text)
    parser.set_defaults(func=lambda args: export(taken(Export, args), {name: getattr(args, name) for name in ABOUT}))


def _report(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "report", help="write one page that shows what is on a card",
        description="Write one self-contained HTML page: what was recorded, what is missing, how it looks.",
    )  # fmt: skip
    _common(parser, "page to write (.html)")
    parser.add_argument("--date", default="", metavar="TIME", help="when it was recorded; the card does not know")
    parser.add_argument("--animal", default="", metavar="NAME", help="shown on the page")
    parser.add_argument("--notes", default="", metavar="TEXT", help="shown on the page")
    picture(parser)
    parser.add_argument("--dff", action="store_true", help="dF/F in film and frames: white is 50 %% above rest")
    parser.set_defaults(func=typed(Report, report))


def register(subparsers: Any) -> None:
    """Add the commands to an argparse subparsers object; each sets ``func``, which returns the exit code."""
    _video(subparsers)
    _export(subparsers)
    _report(subparsers)
