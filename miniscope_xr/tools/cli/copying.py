"""Commands that copy a card and never write to one: ``image`` and ``rescue``."""

from __future__ import annotations

import shlex
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from miniscope_xr.source.remote import is_url
from miniscope_xr.tools.copy import rescue as rescuing
from miniscope_xr.tools.copy.image import complain, copy_image
from miniscope_xr.tools.copy.lock import alone
from miniscope_xr.tools.copy.part import refuse_outputs
from miniscope_xr.tools.flash.commands import guarded
from miniscope_xr.tools.flash.disks.find import identify
from miniscope_xr.tools.flash.errors import DONE, CheckFailedError
from miniscope_xr.tools.flash.operation import Progress
from miniscope_xr.tools.flash.steps import Said, say
from miniscope_xr.tools.stream.arguments import flag, option, positional

_GOES_ON = "run the same command again, and it goes on from there"


@dataclass(frozen=True, kw_only=True)
class _Copying:
    device: str = positional("device of the card, an image file or its URL", "CARD")
    out: str = positional("the image to write; an unfinished one goes on where it stopped", "OUT.img")
    layout: str | None = option("id or file of the card's layout, where the card does not tell it")
    force: bool = flag("replace OUT.img")
    json: bool = flag("print one JSON object")


@dataclass(frozen=True, kw_only=True)
class CopyToImage(_Copying):
    """``image``."""

    frames: int | None = option("the first N frames only", "N")


@dataclass(frozen=True, kw_only=True)
class Rescue(_Copying):
    """``rescue``."""

    all: bool = flag("older recordings too, each in an image of its own")


def _one_at_a_time(args: _Copying) -> AbstractContextManager[None]:
    """Within it nobody else copies under this name; a name that will not do is told of first."""
    refuse_outputs(args.device, Path(args.out), args.force)
    return alone(Path(args.out))


def image(args: CopyToImage, report: Said, progress: Progress | None) -> int:
    """Copy a card, trimmed to its recordings."""
    if not is_url(args.device):
        report["device"] = identify(args.device).to_json()
    with _one_at_a_time(args):
        copied = copy_image(
            args.device, Path(args.out), layout=args.layout, frames=args.frames, force=args.force, progress=progress
        )
    report.update(
        phase="done", out=str(copied.path), size=copied.size, sha256=copied.sha256, bad_sectors=copied.bad_sectors,
        map=f"{copied.path}.map",
    )  # fmt: skip
    say([f"{copied.path}: {copied.size / 1e6:.1f} MB, sha256 {copied.sha256}"], args)
    complain(copied)
    return DONE


def rescue(args: Rescue, report: Said, progress: Progress | None) -> int:
    """Find every buffer that is left, and make images that open."""
    if not is_url(args.device):
        report["device"] = identify(args.device).to_json()
    with _one_at_a_time(args):
        got = rescuing.rescue(
            args.device, Path(args.out), layout=args.layout, everything=args.all, force=args.force, progress=progress
        )
    report.update(
        phase="done", out=args.out, buffers_found=got.found, buffers_left=got.left,
        buffers_overwritten=got.torn, bad_sectors=got.bad_sectors,
        images=[image.to_json() for image in got.images],
    )  # fmt: skip
    for image in got.images:
        say(image.describe(), args)
    say(_came_back(got, args.all), args)
    if got.bad_sectors:
        raise CheckFailedError(
            f"{got.bad_sectors} sectors of the card could not be read; they are zero in the images and listed in "
            f"{args.out}.map"
        )
    return DONE


def _came_back(got: rescuing.Rescued, everything: bool) -> list[str]:
    """Say how many buffers were found, and which of them are in no image."""
    inside = "in it" if len(got.images) == 1 else "in these images"
    said = [f"{got.found:,} buffers found" + ("" if got.torn or got.left else f", all of them are {inside}")]
    if got.torn:
        said.append(f"partly overwritten since, and left out: {got.torn:,}")
    if got.left:
        more = "; --all makes images of older recordings too" if got.left >= rescuing.LEAST and not everything else ""
        said.append(f"in no recording {inside}: {got.left:,}{more}")
    return [*said, f"look at it: miniscope-xr view {shlex.quote(str(got.images[0].path))}"]


def register(subparsers: Any) -> None:
    """Add the commands to the command line."""
    text = "copy a card, trimmed to its recordings, around bad sectors"
    parser = subparsers.add_parser("image", help=text, description=text)
    guarded(parser, CopyToImage, image, _GOES_ON)
    text = "read a whole card, also a formatted one, and make an image of what is left of its recordings"
    parser = subparsers.add_parser("rescue", help=text, description=text)
    guarded(parser, Rescue, rescue, _GOES_ON)
