"""Optional libraries: the one way to need one, imported where it is used."""

from __future__ import annotations

import sys
from typing import Any

from miniscope_xr.errors import MissingDependencyError

_HINTS = {
    "cv2": "With an opencv-python that lacks a system library: install that library (Debian: libgl1 libglib2.0-0).",
}


def need(module: str, extra: str, what: str = "this") -> Any:
    """Import a module of an optional library and return it.

    Parameters
    ----------
    module
        Its full name, such as ``"matplotlib.figure"``.
    extra
        The extra of this package that brings it.
    what
        What the user wanted, in the plural or not: the message begins with it.

    Raises
    ------
    MissingDependencyError
        It is not there, or does not load; the message says which extra brings it.
    """
    try:
        __import__(module)
    except ImportError as error:
        hint = _HINTS.get(module)
        raise MissingDependencyError(
            f'{what} cannot be made without {module} ({error}); install it with: pip install "miniscope-xr[{extra}]"'
            + (f". {hint}" if hint else "")
        ) from error
    return sys.modules[module]
