"""``miniscope-xr view``: look at cards in a browser, served from this computer to this computer.

``shelf`` holds the opened cards, ``line`` says what lies along a recording, ``measure`` computes traces and projections
while one looks on, ``server`` speaks HTTP and lets nobody in but the page it opened. ``page/`` is that page: plain
modules, readable as they are served.
"""

from miniscope_xr.tools.view.server import Viewer

__all__ = ["Viewer"]
