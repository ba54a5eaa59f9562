"""Recordings in the formats other programs read: one module a format, each through the library made for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from miniscope_xr.tools.export.formats import FORMATS

if TYPE_CHECKING:
    from miniscope_xr.tools.export.run import export

__all__ = ["FORMATS", "export"]


def __getattr__(name: str) -> Any:
    """Import xarray only when something is exported, not when the command line lists the formats."""
    if name == "export":
        from miniscope_xr.tools.export.run import export  # start-up time

        return export
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
