"""What a lab knows of a recording and its card does not: a file beside the copy, ``COPY.img.json``.

``miniscope-xr collect`` writes it. Its ``about`` (animal, session, date, experimenter, notes, and whatever else was
told) are attributes of every dataset of that copy, and so of everything that is made of one. A copy without such a file
is opened as ever; what a dataset says of itself is never replaced by it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from miniscope_xr.source.remote import is_url

SUFFIX = ".json"
MARK = "miniscope-xr"
"""Key of a sidecar of ours; its value is the number of the format."""
_MOST_BYTES = 1 << 20


def beside(image: Path) -> Path:
    """Return the sidecar's name."""
    return image.with_name(image.name + SUFFIX)


def read(path: Path) -> dict[str, Any] | None:
    """Return the content of a sidecar; None where there is none, or a file of somebody else's.

    Raises
    ------
    OSError
        It is there and cannot be read.
    """
    try:
        if not path.is_file() or path.stat().st_size > _MOST_BYTES:
            return None
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):  # not there; no text, no JSON, no name
        return None
    return found if isinstance(found, dict) and MARK in found and isinstance(found.get("about"), dict) else None


def told(card: str) -> dict[str, str]:
    """Return what was told of a copy, as flat attributes; empty where nothing was.

    Parameters
    ----------
    card
        Where the card is: its device, an image file, or a URL (which has no file beside it).
    """
    if is_url(card) or not os.path.exists(card + SUFFIX):  # noqa: PTH110 (asked whenever a card is opened)
        return {}
    try:
        found = read(Path(card + SUFFIX))
    except OSError:
        return {}
    about = {} if found is None else found["about"]
    return {str(name): value for name, value in about.items() if isinstance(value, str) and value}
