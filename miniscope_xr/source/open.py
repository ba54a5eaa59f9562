"""Opening whatever holds a card's bytes, by its address."""

from __future__ import annotations

import os
import sys
from typing import Any

from miniscope_xr.errors import PathTypeError
from miniscope_xr.source import windows
from miniscope_xr.source.base import ByteSource
from miniscope_xr.source.local import Device
from miniscope_xr.source.mapped import MappedCopy, unread_beside
from miniscope_xr.source.remote import RemoteSource, is_url


def open_device(path: str | os.PathLike[str]) -> ByteSource:
    """Open a card, an image or the URL of one for reading; a copy with a map beside it knows what it lacks."""
    if is_url(path):
        return RemoteSource(str(path))
    device = Device(path)
    try:
        unread = [] if device.is_block else unread_beside(device)
    except BaseException:
        device.close()
        raise
    return MappedCopy(device, unread) if unread else device


def address(path: Any) -> str:
    """Where a card is: an absolute path, or a URL as it was given.

    Raises
    ------
    PathTypeError
        What was given is no path: bytes, an open file, a number.
    """
    if not isinstance(path, str | os.PathLike) or not isinstance(name := os.fspath(path), str):
        kind = "bytes" if isinstance(path, bytes | bytearray | memoryview) else type(path).__name__
        raise PathTypeError(f"expected the path of a card or image, or a URL (text or pathlib.Path), not {kind}")
    if sys.platform == "win32" and (drive := windows.device_name(name)):
        return drive
    return name if is_url(name) or not name else os.path.abspath(os.path.expanduser(name))  # noqa: PTH100, PTH111
