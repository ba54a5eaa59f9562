"""Read, prepare and check the SD cards of wire-free UCLA Miniscopes.

``xr.open_dataset(card, engine="miniscope")`` needs no import of this package; ``SDCard`` is a frame cursor,
``check`` tells what is wrong with a card.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from miniscope_xr._version import __version__
from miniscope_xr.errors import CardChangedError, MiniscopeError

if TYPE_CHECKING:
    from miniscope_xr.layout import Layout, load_layout
    from miniscope_xr.sdcard import SDCard
    from miniscope_xr.tools.check.check import check

__all__ = ["CardChangedError", "Layout", "MiniscopeError", "SDCard", "__version__", "check", "load_layout"]

_HOMES = {
    "Layout": "miniscope_xr.layout",
    "load_layout": "miniscope_xr.layout",
    "SDCard": "miniscope_xr.sdcard",
    "check": "miniscope_xr.tools.check.check",
}


def __getattr__(name: str) -> Any:
    """Import on first use: the tools start quickly and never pull in what they do not need."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
