"""The command line, ``miniscope-xr``."""

from miniscope_xr.tools.cli.program import build_parser, main

__all__ = ["build_parser", "main"]
