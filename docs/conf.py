"""The documentation site: how-to pages, architecture and reference, without a warning or not at all."""

from __future__ import annotations

from miniscope_xr import __version__

project = "miniscope-xr"
author = "the miniscope-xr developers"
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
nitpicky = False

html_theme = "furo"
html_title = f"miniscope-xr {release}"

myst_heading_anchors = 3
myst_enable_extensions = ["deflist"]
# `$ miniscope-xr ...   # exit 7` in a console block is no shell session of Pygments' kind
suppress_warnings = ["misc.highlighting_failure"]

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_numpy_docstring = True
napoleon_use_rtype = False
