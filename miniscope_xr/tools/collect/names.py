"""Where the files of a card go: a template such as ``{animal}/{date}/{session}``, filled in, safe, and no two the same.

A name that one computer takes and another does not (``a:b``, ``NUL``, ``ends with a dot.``) would lose a copy on the
way to a server; so every name is one that all systems take.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from miniscope_xr.errors import OptionError, plain
from miniscope_xr.source.windows import is_device

DEFAULT = "{animal}/{date}/{session}"
_LONGEST = 150  # bytes of one name: endings come behind it, and systems take 255
_ODD = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]')


def fields_of(template: str) -> list[str]:
    """Return the names of the fields of a template, each once.

    Raises
    ------
    OptionError
        It is no template, or names would leave the folder.

    Examples
    --------
    >>> fields_of("{animal}/{date}/{session}")
    ['animal', 'date', 'session']
    """
    wrong = f"--name {plain(template)!r}"
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise OptionError(f"{wrong}: {error}; write fields as {{animal}}") from error
    fields = [field for _, field, _, _ in parts if field is not None]
    for _, field, form, conversion in parts:
        if field is not None and (not field.isidentifier() or form or conversion):
            raise OptionError(f"{wrong}: {{{field}}} is no plain field; write it as {{animal}}")
    literal = "".join(text for text, *_ in parts)
    steps = template.split("/")
    if "\\" in literal or ":" in literal or any(step.strip() in ("", ".", "..") for step in steps):
        raise OptionError(
            f"{wrong}: names stay in the folder that is collected into; write parts with / between them, none of them "
            "empty, . or .."
        )
    if not fields:
        raise OptionError(f"{wrong}: it has no field, so all cards would have one name; add {{animal}} or {{card}}")
    return list(dict.fromkeys(fields))


def safe(text: str) -> str:
    """Return text as one name that every system takes; odd characters become ``_``.

    Examples
    --------
    >>> safe("m1: left/right?")
    'm1_ left_right_'
    """
    name = _ODD.sub("_", unicodedata.normalize("NFC", text))
    name = "".join(c if c.isprintable() else "_" for c in name)
    name = name.encode("utf-8", "replace")[:_LONGEST].decode("utf-8", "ignore").strip()
    name = re.sub(r"[. ]+$", lambda end: "_" * len(end[0]), name)
    name = re.sub(r"^[.~-]", "_", name)
    return f"_{name}" if is_device(name) or not name else name


def name_of(template: str, values: Mapping[str, str]) -> PurePosixPath:
    """Fill in a template: every field of it is in ``values``. Of a date with a time of day the day is taken."""
    given = {name: text[:10] if name == "date" else text for name, text in values.items()}
    return PurePosixPath(*(safe(step.format_map(given)) for step in template.split("/")))


def refuse_same(names: Mapping[str, Path]) -> None:
    """Refuse names that two cards would share, also on systems for which A and a are one.

    Parameters
    ----------
    names
        By the card, the name its files begin with.

    Raises
    ------
    OptionError
        Two are the same, or one lies within the other.
    """
    seen: dict[str, str] = {}
    for card, name in names.items():
        key = unicodedata.normalize("NFC", str(name)).casefold()
        if key in seen:
            raise OptionError(
                f"{seen[key]} and {card} would both be named {name}: tell them apart by what is told of them (another "
                "session), or by a field more in --name, such as {card}"
            )
        seen[key] = card
