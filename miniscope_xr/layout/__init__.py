"""Layouts: where on a card the words are, what each may hold, and what each code means."""

from miniscope_xr.layout.load import builtin_layouts, layout_names, load_layout
from miniscope_xr.layout.model import WRITE_KEY, Build, Field, Fields, Layout, Record, Sectors, lengths_of
from miniscope_xr.layout.schema import parse_layout
from miniscope_xr.source.base import SECTOR

__all__ = [
    "SECTOR", "WRITE_KEY", "Build", "Field", "Fields", "Layout", "Record", "Sectors", "builtin_layouts",
    "layout_names", "lengths_of", "load_layout", "parse_layout",
]  # fmt: skip
