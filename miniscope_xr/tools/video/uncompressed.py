"""Uncompressed AVI of any width: its rows are padded, as programs beside FFmpeg expect.

In an AVI a row of uncompressed pixels takes a multiple of 4 bytes. FFmpeg (which OpenCV writes with) leaves the padding
out for ``GREY``, and reads both; ImageJ and GStreamer know only the padded rows, and shear a film that is 302 wide. So
where the width is no multiple of 4 we make the rows ourselves, and OpenCV only puts them into the file.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from miniscope_xr.errors import OutputError
from miniscope_xr.layout.arrays import Array
from miniscope_xr.tools.stream.libraries import need
from miniscope_xr.tools.video.codecs import ONE_CHANNEL, open_packet_writer

_ROW = 4  # bytes; Microsoft's BITMAPINFOHEADER: "each scan line must be padded to end on a LONG boundary"
_HEAD = 8192
_BITS, _BYTES = 14, 20  # places of biBitCount and biSizeImage in a BITMAPINFOHEADER


def needs_padding(path: Path, codec: str, width: int) -> bool:
    """Whether rows of this width are padded in a file of this type."""
    return codec in ONE_CHANNEL and path.suffix.lower() == ".avi" and width % _ROW != 0


class PaddedWriter:
    """What ``cv2.VideoWriter`` is for frames whose rows are padded: ``write`` and ``release``."""

    def __init__(self, path: Path, codec: str, fps: float, size: tuple[int, int]) -> None:
        self._path = path
        width, height = size
        self._rows = np.zeros((height, width + -width % _ROW), np.uint8)
        self._width = width
        self._key = need("cv2", "video", "a video").VIDEOWRITER_PROP_KEY_FLAG
        self._writer = open_packet_writer(path, codec, fps, size)

    def write(self, image: Array) -> None:
        """Write one frame (height, width)."""
        self._rows[:, : self._width] = image
        self._writer.set(self._key, 1)  # a player may begin at any frame
        self._writer.write(self._rows.reshape(1, -1))

    def release(self) -> None:
        """Close the file, and say in it what its frames are: OpenCV takes packets for 24 bits a pixel."""
        self._writer.release()
        with self._path.open("r+b") as file:
            at = file.read(_HEAD).find(b"strf") + 8
            if at < 8:
                raise OutputError("this OpenCV writes AVI files that are not understood; use .mkv, or --codec FFV1")
            for place, value in ((_BITS, struct.pack("<H", 8)), (_BYTES, struct.pack("<I", self._rows.size))):
                file.seek(at + place)
                file.write(value)
