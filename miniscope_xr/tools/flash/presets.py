"""Settings and exports kept by name, for the next card and the next week.

One readable file in the user's configuration folder, ``presets.json``. A preset of settings has the layout and the
``NAME=VALUE`` words as they are typed behind `prepare`; one of an export has the format and its options::

    {
     "dim": {"layout": "v4-wirefree", "words": ["gain=2x", "led=5"]},
     "for-dandi": {"export": "nwb", "words": ["species=Mus musculus", "indicator=GCaMP6f"]}
    }
"""

from __future__ import annotations

import errno
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from miniscope_xr.errors import OptionError, did_you_mean, plain
from miniscope_xr.source.own_files import config_folder, everywhere
from miniscope_xr.tools.flash.errors import JournalError
from miniscope_xr.tools.flash.journal import default_dir, save

NAME = "presets.json"
_LONGEST = 60
_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Preset:
    """Settings of a Miniscope: its layout (empty: the one that the card tells), and what is set."""

    layout: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class ExportPreset:
    """An export: its format, and its options."""

    export: str
    words: tuple[str, ...]


_Kept = dict[str, Preset | ExportPreset]


def folder() -> Path:
    """Return the user's configuration folder of this program."""
    return config_folder()


def file() -> Path:
    """Return where they are kept."""
    return folder() / NAME


def load() -> dict[str, Preset]:
    """Return the presets of settings by name; none where nothing was kept yet.

    Raises
    ------
    JournalError
        The file cannot be read, or is not one of ours.
    """
    return {name: each for name, each in load_all().items() if isinstance(each, Preset)}


def load_all() -> _Kept:
    """Return all presets by name; raises as :func:`load`."""
    older = default_dir().with_name(NAME)  # where they were kept before there were any of exports
    places = [*(place / NAME for place in everywhere(folder())), older]
    path = next((place for place in places if place.exists()), file())
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError
        found = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): _preset(each) for name, each in found.items()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise JournalError(error.errno, error.strerror or str(error), str(path)) from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        text = "is not a file of presets; move it away and keep them anew"
        raise JournalError(errno.EINVAL, text, str(path)) from error


def _preset(found: dict[str, Any]) -> Preset | ExportPreset:
    kind, value = (ExportPreset, found["export"]) if "export" in found else (Preset, found["layout"])
    words = found["words"]
    if not isinstance(value, str) or not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise TypeError
    return kind(value, tuple(words))


def settings_preset(name: str) -> Preset:
    """Return the preset of settings with this name.

    Raises
    ------
    OptionError
        There is none; says which there are.
    """
    known = load_all()
    found = known.get(name)
    if isinstance(found, Preset):
        return found
    if found is not None:
        raise OptionError(f"preset {name!r} is one of an export ({found.export}), not of settings")
    there = ", ".join(load()) or "none is kept yet: `miniscope-xr preset save NAME gain=2x ...`"
    raise OptionError(f"no preset {name!r}{did_you_mean(name, known)}; presets of settings: {there}")


def keep(name: str, layout: str, words: Sequence[str]) -> dict[str, Preset]:
    """Keep settings under a name, in the place of those kept under it; return all presets of settings.

    Raises
    ------
    OptionError
        It is no name, or the name of an export.
    JournalError
        The file cannot be written, or is not one of ours.
    """
    _keep(name, Preset(layout, tuple(words)))
    return load()


def keep_export(name: str, export: str, words: Sequence[str]) -> None:
    """Keep an export under a name, in the place of the one kept under it; raises as :func:`keep`."""
    _keep(name, ExportPreset(export, tuple(words)))


def _keep(name: str, preset: Preset | ExportPreset) -> None:
    name = plain(name).strip()
    if not 0 < len(name) <= _LONGEST:
        raise OptionError(f"the name of a preset has 1 to {_LONGEST} characters")
    known = load_all()
    if not isinstance(known.get(name, preset), type(preset)):
        raise OptionError(f"preset {name!r} is one of the other kind; remove it first, or take another name")
    _write({**known, name: preset})


def forget(name: str) -> dict[str, Preset]:
    """Take a preset out; return the others of settings."""
    _write({known: each for known, each in load_all().items() if known != name})
    return load()


def _write(presets: _Kept) -> None:
    path = file()
    text = json.dumps({name: asdict(each) for name, each in sorted(presets.items())}, indent=1, ensure_ascii=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save(path, text.encode())
    except OSError as error:
        raise JournalError(error.errno, error.strerror or str(error), str(path)) from error
