"""``miniscope-xr preset``: settings and exports kept by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from miniscope_xr.errors import OptionError, did_you_mean, plain
from miniscope_xr.layout import builtin_layouts, load_layout
from miniscope_xr.tools.collect.exports import parse
from miniscope_xr.tools.export.formats import FORMATS
from miniscope_xr.tools.flash import presets
from miniscope_xr.tools.flash.presets import ExportPreset, Preset
from miniscope_xr.tools.flash.settings import check_words
from miniscope_xr.tools.stream.arguments import anywhere, flag, option, positional, runs


@dataclass(frozen=True, kw_only=True)
class PresetList:
    """``preset list``."""

    json: bool = flag("print one JSON object")


@dataclass(frozen=True, kw_only=True)
class PresetRemove:
    """``preset remove``."""

    name: str = positional(None, "NAME")


@dataclass(frozen=True, kw_only=True)
class PresetShow(PresetRemove, PresetList):
    """``preset show``."""


@dataclass(frozen=True, kw_only=True)
class PresetSave(PresetRemove):
    """``preset save``."""

    words: list[str] = positional("gain=2x led=10; or to=nwb species='Mus musculus'", "NAME=VALUE", nargs="*")
    layout: str | None = option("id or file of the layout that the settings are of (default: the card's)")


def _kind(preset: Preset | ExportPreset) -> str:
    if isinstance(preset, ExportPreset):
        return f"export to {preset.export}"
    return f"settings of {preset.layout}" if preset.layout else "settings"


def _as_json(kept: Mapping[str, Preset | ExportPreset]) -> str:
    return json.dumps({name: asdict(each) for name, each in kept.items()}, indent=1)


def list_presets(args: PresetList) -> int:
    """One line a preset, and where they are."""
    kept = presets.load_all()
    if args.json:
        print(_as_json(kept))
        return 0
    for name, each in kept.items():
        print(plain(f"{name}: {_kind(each)}: {' '.join(each.words)}"))
    print(f"kept in {presets.file()}" if kept else "none is kept yet: `miniscope-xr preset save NAME gain=2x led=10`")
    return 0


def _known(name: str) -> Preset | ExportPreset:
    kept = presets.load_all()
    if name not in kept:
        raise OptionError(f"no preset {name!r}{did_you_mean(name, kept)}; `miniscope-xr preset list` shows them")
    return kept[name]


def show_preset(args: PresetShow) -> int:
    """One preset, a line a word."""
    found = _known(args.name)
    if args.json:
        print(_as_json({args.name: found}))
        return 0
    print(plain(f"{args.name}: {_kind(found)}"))
    for word in found.words:
        print(plain(f"  {word}"))
    return 0


def save_preset(args: PresetSave) -> int:
    """Check the words, then keep them."""
    to = [word for word in args.words if word.startswith("to=")]
    words = [word for word in args.words if word not in to]
    if len(to) > 1:
        raise OptionError("to= is given twice; a preset is of one export")
    if not args.words:
        raise OptionError(
            "nothing to keep: name settings (gain=2x led=10), or an export (to=nwb species='Mus musculus')"
        )
    if to:
        if args.layout:
            raise OptionError("--layout is of settings; leave it out for an export")
        if args.name in FORMATS or args.name.startswith("."):
            raise OptionError(
                f"{args.name!r} is the name of a format, which `collect --export` would mean; take another"
            )
        export = to[0].removeprefix("to=")
        parse(export, words)
        presets.keep_export(args.name, export, words)
    else:
        check_words([load_layout(args.layout)] if args.layout else list(builtin_layouts().values()), words)
        presets.keep(args.name, args.layout or "", words)
    print(f"kept in {presets.file()}")
    return 0


def remove_preset(args: PresetRemove) -> int:
    """Take one out."""
    _known(args.name)
    presets.forget(args.name)
    return 0


def register(subparsers: Any) -> None:
    """Add the command to an argparse subparsers object."""
    text = "keep settings (for `prepare --preset`) and exports (for `collect --export`) by name"
    parser = subparsers.add_parser("preset", help=text, description=f"{text[0].upper()}{text[1:]}.")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    made = verbs.add_parser("list", help="show all", description="Show all presets.")
    runs(made, PresetList, list_presets)
    made = verbs.add_parser("show", help="show one", description="Show one preset.")
    runs(made, PresetShow, show_preset)
    made = verbs.add_parser(
        "save", help="keep settings or an export, in the place of what has this name",
        description="Keep settings as they are typed behind `prepare`, or with to=FORMAT an export and its options.",
    )  # fmt: skip
    runs(made, PresetSave, save_preset)
    anywhere(made, "words")
    made = verbs.add_parser("remove", help="take one out", description="Take a preset out.")
    runs(made, PresetRemove, remove_preset)
