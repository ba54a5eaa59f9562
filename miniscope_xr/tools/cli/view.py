"""``miniscope-xr view``: look at cards in the browser."""

from __future__ import annotations

import os
import sys
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from miniscope_xr.tools.cli.runner import say_line
from miniscope_xr.tools.stream.arguments import flag, option, positional, runs


@dataclass(frozen=True, kw_only=True)
class Viewing:
    """``view``."""

    cards: list[str] = positional("devices or image files; none: choose in the page", "CARD", nargs="*")
    no_browser: bool = flag("print the address, open nothing")
    port: int = option("a port of one's own choice (default: a free one)", default=0)


def without_browser() -> str:
    """Why no browser is to be tried; "" where one is.

    Without a screen Python would start one of the terminal, which has no JavaScript and takes the terminal over;
    browsers do not start for the superuser, or only without their own protection.
    """
    if sys.platform in ("win32", "darwin") or os.environ.get("BROWSER"):
        return ""
    if os.geteuid() == 0:
        return "browsers do not run as root"
    return "" if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") else "there is no screen here"


def view(args: Viewing) -> int:
    """Serve the page until it is closed."""
    from miniscope_xr.tools.view import Viewer  # start-up time: a server's modules are not needed by other commands

    viewer = Viewer(Path.cwd(), args.port)

    def ready() -> None:
        print(viewer.url, flush=True)
        if not args.no_browser and ((no := without_browser()) or not webbrowser.open(viewer.url)):
            say_line(f"{no or 'no browser could be started'}; open this address in one on this computer")
            if "SSH_CONNECTION" in os.environ:
                port = viewer.url.split(":")[2].partition("/")[0]
                say_line(f"from where you sit, type there: ssh -L {port}:127.0.0.1:{port} and this computer's name")

    try:
        with viewer:
            for card in args.cards:
                viewer.open(card)
            viewer.serve(ready=ready)
    finally:
        if viewer.last_words:
            say_line(viewer.last_words)
    return 0


def register(subparsers: Any) -> None:
    """Add the command to an argparse subparsers object."""
    parser = subparsers.add_parser(
        "view", help="look at cards in the browser",
        description="Open a page in the browser that plays the recordings of cards. It is served from this computer "
        "to this computer, prepares cards as `prepare` does, and ends when the page is closed or with Ctrl+C.",
    )  # fmt: skip
    runs(parser, Viewing, view)
