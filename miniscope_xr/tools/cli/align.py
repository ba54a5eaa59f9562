"""``miniscope-xr align``: the time of every frame by another clock."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from miniscope_xr.errors import OptionError
from miniscope_xr.source.words import example_device
from miniscope_xr.tools.clock.align import AlignOptions, find_clock, with_clock
from miniscope_xr.tools.clock.plot import plot_clock
from miniscope_xr.tools.clock.saved import to_text
from miniscope_xr.tools.stream.arguments import flag, option, positional, runs
from miniscope_xr.tools.stream.outputs import refuse_existing, refuse_source, whole_file
from miniscope_xr.tools.stream.timing import ERROR, SHOWN, WALL, milliseconds

_PLOTS = (".png", ".svg", ".pdf")
_ENDINGS = (".json", ".csv", *_PLOTS)


def _region(text: str) -> tuple[int, int, int, int]:
    try:
        x, y, width, height = (int(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: expected x,y,width,height in px, such as 250,40,12,12") from error
    return x, y, width, height


_SEEN = ("what both clocks have seen (one of these)",)


@dataclass(frozen=True, kw_only=True)
class Align:
    """``align``."""

    card: str = positional(f"a card's device ({example_device()}) or an image file", "CARD")
    out: list[str] = positional("files to write; none: only say it", "OUT", nargs="*")
    layout: str | None = option("id or file of the card's layout, where it is not detected")
    recording: int | None = option("which recording, where the card holds several", "N")
    pairs: str | None = option("the card's time in s, and the other clock's in s or as a date", "CSV", group=_SEEN)
    video: str | None = option("behaviour video, or a camera's folder, that shows the status LED", "VIDEO", group=_SEEN)
    pulses: str | None = option("times of pulses, or of TTL edges with their level", "CSV", group=_SEEN)
    start: str | None = option("when it began; or when a clock without a date showed 0", "TIME", group=_SEEN)
    card_pulses: str | None = option("the pulses' times by the card's clock, in s", "CSV")
    region: tuple[int, int, int, int] | None = option("where the light is in the video, in px", "X,Y,W,H", type=_region)
    camera: str | None = option("times of the video's frames, where not beside the video", "CSV")
    force: bool = flag("overwrite an output that is there")
    quiet: bool = flag("no progress bar, no words")


def align(args: Align) -> int:
    """Bring the card's clock and another together, and write what was asked for."""
    outs = [Path(name) for name in args.out]
    for out in outs:
        if out.suffix.lower() not in _ENDINGS:
            raise OptionError(f"{out}: expected a name that ends in {', '.join(_ENDINGS)}")
        refuse_existing(out, args.force)
        refuse_source(out, args.card)
    given: dict[str, Any] = {
        "pairs": args.pairs, "video": args.video, "pulses": args.pulses, "start": args.start, "card": args.card_pulses,
        "region": args.region, "camera": args.camera,
    }  # fmt: skip
    options: AlignOptions = {"progress": not args.quiet}
    options.update({name: value for name, value in given.items() if value is not None})  # type: ignore[typeddict-item]
    with xr.open_dataset(args.card, engine="miniscope", layout=args.layout, recording=args.recording) as ds:
        clock = find_clock(ds, **options)
        aligned = with_clock(ds, clock)
        with ExitStack() as opened:
            for out in outs:
                part = opened.enter_context(whole_file(out, args.force))
                if out.suffix.lower() == ".json":
                    part.write_text(to_text(clock), encoding="utf-8")
                elif out.suffix.lower() == ".csv":
                    _write_table(aligned, part)
                else:
                    plot_clock(aligned).figure.savefig(part)
    if not args.quiet:
        said = str(clock)
        print(said[:1].upper() + said[1:])
        for out in outs:
            print(f"wrote {out}")
    return 0


def _write_table(ds: xr.Dataset, path: Path) -> None:
    """A row a frame: its number, the card's time in ms, the other clock's in s, how far off, and its date."""
    columns = [ds["frame_num"].values.tolist(), milliseconds(ds["time"].values).tolist()]
    names = "Frame Number,Time Stamp (ms),Clock Time (s),Clock Error (s)"
    texts = [[str(value) for value in column] for column in columns]
    texts += [[f"{value:.6f}" for value in ds[SHOWN].values.tolist()]]
    texts += [["" if np.isnan(value) else f"{value:.6f}" for value in ds[ERROR].values.tolist()]]
    if WALL in ds.coords:
        names += ",Wall Time (UTC)"
        texts += [np.datetime_as_string(ds[WALL].values, unit="us").tolist()]
    with path.open("w", encoding="ascii", newline="\n") as file:
        file.write(names + "\n")
        file.writelines(",".join(row) + "\n" for row in zip(*texts, strict=True))


def register(subparsers: Any) -> None:
    """Add the command to an argparse subparsers object."""
    parser = subparsers.add_parser(
        "align", help="the time of every frame by another clock, from pairs, pulses or a light in a behaviour video",
        description="Find how another clock goes against the card's, and how sure that is. OUT ending in .json is the "
        "clock itself, for `export --clock`; .csv every frame's time; .png, .svg or .pdf what every pair lies off.",
    )  # fmt: skip
    runs(parser, Align, align)
