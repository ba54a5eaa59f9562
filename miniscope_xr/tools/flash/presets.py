"""Settings kept by name, for the next card and the next week.

One file in the user's data folder, ``presets.json``: for each name the layout and ``NAME=VALUE`` words, as they are
typed behind `prepare`.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from miniscope_xr.errors import OptionError, plain
from miniscope_xr.tools.flash.errors import JournalError
from miniscope_xr.tools.flash.journal import default_dir, save

_LONGEST = 60
_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Preset:
    """The layout of the Miniscope, and what is set."""

    layout: str
    words: tuple[str, ...]


def file() -> Path:
    """Return where they are kept."""
    return default_dir().with_name("presets.json")


def load() -> dict[str, Preset]:
    """Return the presets by name; none where nothing was kept yet.

    Raises
    ------
    JournalError
        The file cannot be read, or is not one of ours.
    """
    path = file()
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


def _preset(found: dict[str, object]) -> Preset:
    layout, words = found["layout"], found["words"]
    if not isinstance(layout, str) or not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise TypeError
    return Preset(layout, tuple(words))


def keep(name: str, layout: str, words: Sequence[str]) -> dict[str, Preset]:
    """Keep settings under a name, in the place of what was kept under it; return all presets.

    Raises
    ------
    OptionError
        It is no name.
    JournalError
        The file cannot be written, or is not one of ours.
    """
    name = plain(name).strip()
    if not 0 < len(name) <= _LONGEST:
        raise OptionError(f"the name of a preset has 1 to {_LONGEST} characters")
    return _write({**load(), name: Preset(layout, tuple(words))})


def forget(name: str) -> dict[str, Preset]:
    """Take a preset out; return the others."""
    return _write({known: each for known, each in load().items() if known != name})


def _write(presets: dict[str, Preset]) -> dict[str, Preset]:
    path = file()
    text = json.dumps({name: asdict(each) for name, each in sorted(presets.items())}, indent=1)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save(path, text.encode())
    except OSError as error:
        raise JournalError(error.errno, error.strerror or str(error), str(path)) from error
    return presets
