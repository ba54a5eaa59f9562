"""Commands that only read cards: ``info``, ``check``, ``layouts``; and ``simulate``."""

from __future__ import annotations

import contextlib
import json
import math
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from miniscope_xr.card import OpenCard
from miniscope_xr.errors import BlankCardError, NotACardError, OptionError, at_the_shell, plain
from miniscope_xr.index.detect import prepared
from miniscope_xr.index.draft import NO_LAYOUT
from miniscope_xr.index.guess import guess
from miniscope_xr.layout import Field, Layout, builtin_layouts, load_layout
from miniscope_xr.source.local import Device
from miniscope_xr.source.open import open_device
from miniscope_xr.source.words import example_device
from miniscope_xr.tools.check.check import check
from miniscope_xr.tools.cli.next_step import next_step
from miniscope_xr.tools.flash.disks.find import identify
from miniscope_xr.tools.flash.errors import DONE, PROBLEMS
from miniscope_xr.tools.simulate import PowerLoss, Stall, calcium_scene
from miniscope_xr.tools.simulate import simulate as make
from miniscope_xr.tools.simulate.scene import Scenery, Uint8Image
from miniscope_xr.tools.stream.arguments import flag, option, positional, runs, several
from miniscope_xr.tools.stream.outputs import progress_bar, refuse_existing, refuse_source, whole_file

_FRAMES_A_SECOND = 20  # of a simulated camera whose build names no rate


def _setting_lines(layout: Layout, settings: dict[str, int]) -> list[str]:
    lines = []
    for name, value in settings.items():
        item = layout.header[name]
        meaning = (item.choices or {}).get(value)
        unit = f" {item.units}" if item.units else ""
        shown = f"{value}{unit}" if meaning in (None, str(value)) else f"{value} ({meaning})"
        lines.append(f"  {name:<18}{shown:<14} {item.description}")
    return lines


def _device(path: str) -> dict[str, Any]:
    if "://" in path:
        with contextlib.closing(open_device(path)) as source:
            return {"card_id": "", "model": "", "kind": "a card by its address", "path": path, "size": source.size}
    return identify(path).to_json()


def _heading(path: str, device: dict[str, Any]) -> str:
    number = f", card {device['card_id']}" if device["card_id"] else ""
    return plain(f"{path}: {device['model'] or device['kind']}, {device['size'] / 1e9:.2f} GB{number}")


@dataclass(frozen=True, kw_only=True)
class Info:
    """``info``."""

    card: str = positional(f"a card's device ({example_device()}) or an image file", "CARD")
    layout: str | None = option("id or file of the card's layout, where it is not detected")
    json: bool = flag("print one JSON object")


@dataclass(frozen=True, kw_only=True)
class Check(Info):
    """``check``."""

    deep: bool = flag("read every buffer header")


@dataclass(frozen=True, kw_only=True)
class Layouts:
    """``layouts``."""

    layout: str | None = positional("only this one (id or file)", nargs="?")
    json: bool = flag("print one JSON object")
    draft: str | None = option("a layout to start from, by what the headers of CARD show", "CARD")
    out: str | None = option("with --draft: write it there", "FILE")
    force: bool = flag("with --draft: overwrite an existing file")


@dataclass(frozen=True, kw_only=True)
class Simulate:
    """``simulate``."""

    out: str = positional("image file to write", "OUT")
    layout: str = option("layout (default %(default)s)", default="v4-wirefree")
    build: str | None = option("firmware build of the layout (default: its first)")
    frames: int = option("camera frames (default %(default)s); a v3 records whole seconds", default=200)
    stall: list[str] = several("a card stall, in ms; repeatable", "AT:LENGTH")
    power_loss: float | None = option("the battery dies at this ms", "AT")
    seed: int = option("two seeds give two scenes", default=0)
    force: bool = flag("overwrite an existing file")


def info(args: Info) -> int:
    """What is on a card: settings, recordings, gaps."""
    device = _device(args.card)
    try:
        opened = OpenCard(args.card, args.layout)
    except BlankCardError as error:
        return _info_blank(args, device, error)
    with contextlib.closing(opened):
        found = opened.index
        result = check(args.card, layout=args.layout, progress=True)
    if args.json:
        print(json.dumps({
            "card_id": device["card_id"], "device": device, "layout": found.layout.id,
            "write_keys": found.keyed, "settings": dict(found.settings),
            "config": None if found.config is None else dict(found.config), "check": result.to_dict(),
        }, indent=1))  # fmt: skip
        return 0
    print(_heading(args.card, device))
    print(f"layout {found.layout.id}: {found.layout.description}")
    if found.settings:
        print("settings" + ("" if found.keyed else " (without write keys, as the lab notebook leaves them)") + ":")
        print("\n".join(_setting_lines(found.layout, dict(found.settings))))
    else:
        print("settings: " + ("not on the card any more" if found.layout.header else "this layout names none"))
    print(at_the_shell("\n".join(str(result).split("\n")[1:]), known=lambda name: hasattr(args, name)))
    return 0


def _info_blank(args: Info, device: dict[str, Any], error: BlankCardError) -> int:

    with Device(args.card) as source:
        cards = prepared(source, args.layout)
    if args.json:
        print(json.dumps({
            "card_id": device["card_id"], "device": device, "blank": str(error),
            "layouts": {card.layout.id: dict(card.settings) for card in cards},
        }, indent=1))  # fmt: skip
        return 0
    print(_heading(args.card, device))
    print(f"{error}. {next_step(error, args.card)}")
    for card in cards:
        print(f"settings, read as {card.layout.id}:")
        print("\n".join(_setting_lines(card.layout, dict(card.settings))))
    return 0


def check_command(args: Check) -> int:
    """What is wrong with a card; exit code 7 when something is."""
    result = check(args.card, deep=args.deep, layout=args.layout, progress=True)
    said = at_the_shell(str(result), known=lambda name: hasattr(args, name))
    print(json.dumps(result.to_dict(), indent=1) if args.json else said)
    return DONE if result.ok else PROBLEMS


def _draft(card: str, args: Layouts) -> int:
    """Write what the headers of a card show as a layout file to start from."""
    with contextlib.closing(open_device(card)) as source:
        found = guess(source)
    if found is None:
        raise NotACardError(
            f"{card}: no buffers that follow each other by their headers in its first 16 MB, so there is nothing "
            "to draft a layout from; check that this is the card"
        )
    wrapped = "\n".join(f"# {line}" for line in textwrap.wrap(found.said.removeprefix(NO_LAYOUT), 110))
    text = f"{wrapped}\n# docs/layouts.md explains each key.\n{yaml.safe_dump(found.described, sort_keys=False)}"
    if args.out is None:
        print(text, end="")
        return 0
    refuse_source(Path(args.out), card)
    with whole_file(args.out, args.force) as part:
        Path(part).write_text(text, encoding="utf-8")
    print(f"{args.out}: a layout to start from; read the card with layout={str(args.out)!r}")
    return 0


def layouts(args: Layouts) -> int:
    """The layouts there are; with ``--draft`` one more, of a card that none of them fits."""
    if args.draft is not None:
        return _draft(args.draft, args)
    chosen = [load_layout(args.layout)] if args.layout else list(builtin_layouts().values())
    if args.json:
        print(json.dumps({c.id: {
            "description": c.description, "source": c.source, "aliases": list(c.aliases),
            "sectors": {"header": c.sectors.header, "config": c.sectors.config, "data": c.sectors.data},
            "settings": {n: f.description for n, f in c.header.items()},
        } for c in chosen}, indent=1))  # fmt: skip
        return 0
    for layout in chosen:
        s = layout.sectors
        print(f"{layout.id}: {layout.description}")
        print(f"  sectors: settings {s.header}, config {s.config or 'none'}, data from {s.data}")
        print(f"  source: {layout.source}")
        if layout.aliases:
            print(f"  also known as: {', '.join(layout.aliases)}")
        for name, item in layout.header.items():
            print(f"  {name:<18}{item.description}{_limits(item)}")
    return 0


def _limits(item: Field) -> str:
    """What a setting can be."""
    if item.choices:
        return f" [{', '.join(f'{k}={v}' if str(k) != v else v for k, v in item.choices.items())}]"
    if item.maximum is not None:
        return f" [{item.minimum or 0} to {item.maximum}{' ' + item.units if item.units else ''}]"
    return ""


def simulate(args: Simulate) -> int:
    """Write a card image as the firmware would."""
    refuse_existing(Path(args.out), args.force)
    layout = load_layout(args.layout)
    build = next((b for b in layout.builds if args.build in (None, b.firmware)), None)
    if build is None:
        raise OptionError(f"--build {args.build!r}: {layout.id} has {', '.join(b.firmware for b in layout.builds)}")
    events: list[Any] = [
        Stall(_number(at), _number(ms)) for at, ms in (pair.split(":", 1) for pair in _pairs(args.stall))
    ]
    if args.power_loss is not None:
        events.append(PowerLoss(at_ms=args.power_loss))
    if args.frames < 1:
        raise OptionError(f"--frames {args.frames}: expected 1 or more")
    if args.seed < 0:
        raise OptionError(f"--seed {args.seed}: expected 0 or more")
    camera = calcium_scene(build.width, build.height, args.seed)
    length: dict[str, Any] = {"frames": args.frames}
    if layout.footer and args.power_loss is None:  # a v3 ends at its record length and nowhere else
        length = {"seconds": math.ceil(args.frames / (build.fs or _FRAMES_A_SECOND))}
    with filmed(camera, args.frames) as seen:
        card = make(layout, build.firmware, **length, events=events, seed=args.seed, camera=seen)
    with whole_file(args.out, args.force) as part:
        card.write(part)
    print(f"{args.out}: {len(card.data):,} bytes, layout {layout.id}, {args.frames} camera frames")
    return 0


@contextlib.contextmanager
def filmed(camera: Scenery, frames: int) -> Iterator[Scenery]:
    """Show a bar of the frames that a camera was asked for: it is asked for one after another."""
    with progress_bar(frames, "simulate") as bar:

        def seen(number: int) -> Uint8Image:
            bar.update(max(number + 1 - bar.n, 0))
            return camera(number)

        yield seen


def _pairs(given: list[str]) -> list[str]:
    for pair in given:
        if ":" not in pair:
            raise OptionError(f"--stall {pair!r}: expected AT:LENGTH in ms, for example 1500:400")
    return given


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError as error:
        raise OptionError(f"--stall: {text!r} is not a number of ms") from error
    if not math.isfinite(number):
        raise OptionError(f"--stall: {text!r} has no end")
    return number


def register(subparsers: Any) -> None:
    """Add the commands to an argparse subparsers object."""
    runs(subparsers.add_parser("info", help="settings, recordings and gaps of a card"), Info, info)
    text = "what is wrong with a card, in sentences; exit code 7 if anything is"
    runs(subparsers.add_parser("check", help=text), Check, check_command)
    text = "the card layouts there are, with their settings"
    runs(subparsers.add_parser("layouts", help=text), Layouts, layouts)
    text = "write a card image as the firmware would, without a microscope"
    runs(subparsers.add_parser("simulate", help=text), Simulate, simulate)
