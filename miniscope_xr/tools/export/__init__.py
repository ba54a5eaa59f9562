"""Recordings in the formats other programs read: one module a format, each through the library made for it."""

from miniscope_xr.tools.export.run import FORMATS, export

__all__ = ["FORMATS", "export"]
