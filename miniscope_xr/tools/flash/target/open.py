"""Opening a disk or an image as a target, the way of this computer's system."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from miniscope_xr.tools.flash.disks.base import Disk
from miniscope_xr.tools.flash.target.base import Target
from miniscope_xr.tools.flash.target.linux import FileTarget
from miniscope_xr.tools.flash.target.other import RawTarget


@contextlib.contextmanager
def open_target(disk: Disk, *, write: bool) -> Iterator[Target]:
    """Open a card exclusively (``write``) or for reading only."""
    like_linux = sys.platform == "linux" or (disk.kind == "image" and hasattr(os, "preadv"))
    with contextlib.closing(FileTarget(disk, write=write) if like_linux else RawTarget(disk, write=write)) as target:
        yield target
