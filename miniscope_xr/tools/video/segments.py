"""FFV1 on all cores: segments encoded side by side, then joined packet by packet without encoding again."""

from __future__ import annotations

import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from miniscope_xr.errors import OutputError
from miniscope_xr.frames.stencil import cores
from miniscope_xr.source.replace import folder_for_now, remove
from miniscope_xr.tools.stream.libraries import need
from miniscope_xr.tools.video.codecs import open_packet_writer, quiet

_KEY_INTERVAL = 12  # frames between key frames in OpenCV's FFV1: a segment of a multiple of it costs no extra key frame
_LONGEST = 80 * _KEY_INTERVAL
_AVI_HEAD = 8192

Encode = Callable[[Path, int, int], None]
"""Writes frames ``start`` to ``stop`` into a video file of their own."""


def segment_bounds(count: int, parts: int) -> list[tuple[int, int]]:
    """Cut ``count`` frames into segments, enough of them to keep ``parts`` workers busy to the end."""
    wanted = -(-count // (4 * parts * _KEY_INTERVAL)) * _KEY_INTERVAL
    step = min(max(wanted, 2 * _KEY_INTERVAL), _LONGEST)
    return [(start, min(start + step, count)) for start in range(0, count, step)]


def _encoded(
    encode: Encode, bounds: list[tuple[int, int]], folder: Path, parts: int, halt: threading.Event
) -> Iterator[Path]:
    """Yield finished segments in order; a few are encoded in advance, side by side."""
    waiting: deque[Future[Path]] = deque()

    def one(start: int, stop: int) -> Path:
        path = folder / f"{start}.avi"
        encode(path, start, stop)
        return path

    with ThreadPoolExecutor(parts) as pool:
        try:
            for start, stop in bounds:
                if len(waiting) > parts:
                    yield waiting.popleft().result()
                waiting.append(pool.submit(one, start, stop))
            while waiting:
                yield waiting.popleft().result()
        finally:
            halt.set()
            pool.shutdown(wait=True, cancel_futures=True)


def _packets(path: Path) -> Iterator[tuple[object, float]]:
    """Yield the encoded frames of a file and whether each is a key frame."""
    cv2 = need("cv2", "video", "a video")
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1])
    try:
        while capture.grab():
            yield capture.retrieve()[1], capture.get(cv2.CAP_PROP_LRF_HAS_KEY_FRAME)
    finally:
        capture.release()


def _stream_format(path: Path) -> tuple[int, bytes, bytes]:
    """Offset of an AVI's stream format chunk, that chunk, and the 8 bytes that begin the next one."""
    with path.open("rb") as file:
        head = file.read(_AVI_HEAD)
    at = head.find(b"strf")
    (size,) = struct.unpack_from("<I", head, at + 4)
    end = at + 8 + size
    return at, head[at:end], head[end : end + 8]


def _copy_stream_format(source: Path, target: Path) -> None:
    """Give ``target`` the decoder's set-up data, which OpenCV leaves out where it writes packets.

    The chunk behind it (``JUNK``, or the index of a large file, which is mostly free) gives the room.
    """
    _, wanted, _ = _stream_format(source)
    at, present, following = _stream_format(target)
    more = len(wanted) - len(present)
    kind, room = following[:4], struct.unpack("<I", following[4:])[0]
    if not 0 <= more < room // 2 or kind not in (b"JUNK", b"indx"):
        raise OutputError("this OpenCV writes AVI files whose segments cannot be joined; use GREY, or an .mkv")
    with target.open("r+b") as file:
        file.seek(at + len(present) + 8)
        body = file.read(room - more)
        file.seek(at)
        file.write(wanted + kind + struct.pack("<I", room - more) + body)


def write_segments(
    encode: Encode, count: int, path: Path, fps: float, size: tuple[int, int], halt: threading.Event
) -> None:
    """Write an FFV1 AVI of ``count`` frames with all cores.

    Parameters
    ----------
    encode
        Encodes one segment; runs in several threads at once.
    count
        Frames in all.
    path
        AVI to write; the segments live in a folder beside it for a while.
    fps
        Frames per second.
    size
        Width and height.
    halt
        Set when it is over, also by an error or an interrupt: ``encode`` should end then.
    """
    parts = cores()
    with quiet(), folder_for_now(path.parent) as folder:
        writer, last = open_packet_writer(path, "FFV1", fps, size), None
        try:
            cv2 = need("cv2", "video", "a video")
            for segment in _encoded(encode, segment_bounds(count, parts), folder, parts, halt):
                for packet, key in _packets(segment):
                    writer.set(cv2.VIDEOWRITER_PROP_KEY_FLAG, key)
                    writer.write(packet)
                if last is not None:
                    remove(last)
                last = segment
        finally:
            writer.release()
        if last is not None:
            _copy_stream_format(last, path)


def can_join(path: Path, count: int) -> bool:
    """Whether segments are worth it and possible for this file."""
    if path.suffix.lower() != ".avi" or cores() < 2 or count < 4 * _KEY_INTERVAL:
        return False
    with folder_for_now() as folder:
        try:
            open_packet_writer(folder / "probe.avi", "FFV1", 20, (64, 64)).release()
        except OutputError:
            return False
    return True
