"""Exports that are asked for by a word: a format (``nwb``), an ending (``.ome.tif``), or a preset of the user's."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from miniscope_xr.errors import OptionError, did_you_mean
from miniscope_xr.tools.collect.names import safe
from miniscope_xr.tools.export.formats import FORMATS
from miniscope_xr.tools.export.options import ExportOptions, facts, refuse_dropped
from miniscope_xr.tools.export.run import carried, format_of
from miniscope_xr.tools.flash import presets
from miniscope_xr.tools.stream.arguments import rate_of
from miniscope_xr.tools.stream.libraries import need

_OPENING = {"gaps": ("skip", "fill"), "errors": ("raise", "fill")}
_OF_THE_CARD = {"frames", "force", "progress", "start", "animal", "session_id"}
"""Options of an export that are not for all cards, and so are not kept in a preset."""


@dataclass(frozen=True)
class Wanted:
    """One export of every card."""

    to: str
    """The format."""
    ending: str
    """Of the file; of a folder without one, what is put behind its name."""
    opening: Mapping[str, str] = field(default_factory=dict)
    """Options with which the copy is opened."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of :func:`miniscope_xr.tools.export.export`."""

    def path(self, base: Path, recording: int | None) -> Path:
        """Return where it goes, for a card whose files begin with ``base``; ``recording`` where it holds several."""
        return base.with_name(base.name + ("" if recording is None else f"_recording_{recording}") + self.ending)


def known_options() -> list[str]:
    """Return the names of the options that a preset of an export can have."""
    return [*_OPENING, *(name for name in ExportOptions.__annotations__ if name not in _OF_THE_CARD)]


def parse(to: str, words: Sequence[str], mark: str = "") -> Wanted:
    """Read an export: its format or ending, and NAME=VALUE words.

    Parameters
    ----------
    to
        ``nwb``, or an ending such as ``.ome.zarr``.
    words
        Such as ``gaps=fill`` or ``species=Mus musculus``.
    mark
        What tells its files from those of another export of the same format.

    Raises
    ------
    OptionError
        An unknown format or option, a value that cannot be, or one that the format cannot hold.
    """
    name = format_of(Path("x" + to), None) if to.startswith(".") else to
    if name not in FORMATS:
        raise OptionError(f"to={to}{did_you_mean(to, FORMATS)}: formats are {', '.join(FORMATS)}")
    given: dict[str, Any] = {}
    for word in words:
        option, equals, value = word.partition("=")
        if not equals or option not in known_options():
            hint = did_you_mean(option, known_options())
            raise OptionError(
                f"{word!r} is no option of an export{hint}; write NAME=VALUE with {', '.join(known_options())}"
            )
        given[option] = value
    opening = {option: given.pop(option) for option in _OPENING if option in given}
    for option, value in opening.items():
        if value not in _OPENING[option]:
            raise OptionError(f"{option}={value}: expected {' or '.join(_OPENING[option])}")
    if "fps" in given:
        try:
            given["fps"] = rate_of(given["fps"])
        except ArgumentTypeError as error:
            raise OptionError(f"fps={given['fps']}: expected measured, nominal or a number") from error
    suffixes = FORMATS[name].suffixes
    ending = to if to.startswith(".") else suffixes[0] if suffixes else f"-{name}"
    refuse_dropped(given, name, carried(Path("x" + ending)))
    facts(given)
    return Wanted(name, (f"-{safe(mark)}" if mark else "") + ending, opening, given)


def wanted(names: Sequence[str]) -> list[Wanted]:
    """Return the exports that are asked for, each by a format, an ending or the name of a preset.

    Raises
    ------
    OptionError
        There is no such format or preset.
    MissingDependencyError
        A library that one needs is not installed: better known before the cards are read than after.
    """
    kept = presets.load_all()
    found = []
    for name in dict.fromkeys(names):
        preset = kept.get(name)
        if name in FORMATS or name.startswith("."):
            found.append(parse(name, ()))
        elif isinstance(preset, presets.ExportPreset):
            found.append(parse(preset.export, preset.words, name))
        else:
            exports = [each for each, it in kept.items() if isinstance(it, presets.ExportPreset)]
            hint = did_you_mean(name, [*FORMATS, *exports])
            mine = f"; presets of exports: {', '.join(exports)}" if exports else ""
            raise OptionError(f"--export {name}{hint}: formats are {', '.join(FORMATS)}{mine}")
    for each in found:
        for module in FORMATS[each.to].needs:
            need(module, FORMATS[each.to].extra, f"an export ({each.to})")
    return found
