"""Opening whatever holds a card's bytes, by its address."""

from __future__ import annotations

import os

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
