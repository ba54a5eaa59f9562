"""Which video codecs there are, what is true about them, and opening one with OpenCV."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from miniscope_xr.errors import OptionError, OutputError, did_you_mean
from miniscope_xr.source.replace import folder_for_now
from miniscope_xr.tools.stream.libraries import need

CONTAINERS: dict[str, tuple[str, ...]] = {
    "GREY": (".avi", ".mkv"),
    "FFV1": (".avi", ".mkv"),
    "MJPG": (".avi", ".mkv", ".mov"),
    "mp4v": (".mp4", ".mov", ".mkv", ".avi"),
    "XVID": (".avi", ".mkv"),
}
"""Codecs we test, and the files they go into."""

ONE_CHANNEL = frozenset({"GREY", "Y800"})
"""Codecs of grey pixels; OpenCV would make them from colour by a formula that changes them."""

_SUFFIXES = (".avi", ".mkv", ".mp4", ".mov")


def normal_codec(codec: str) -> str:
    """Return a codec's name as OpenCV wants it (``ffv1`` is ``FFV1``, ``MP4V`` is ``mp4v``)."""
    name = str(codec)
    for known in CONTAINERS:
        if name.lower() == known.lower():
            return known
    if len(name) != 4 or not name.isascii() or not name.isalnum():
        raise OptionError(f"codec {codec!r}{did_you_mean(name, CONTAINERS)}: choose one of {', '.join(CONTAINERS)}")
    return name


def check_container(path: Path, codec: str, color: bool = False) -> None:
    """Refuse a file type that cannot hold the codec, and colour in a codec that has none.

    Raises
    ------
    OptionError
        The message says which file types, and which codecs, do.
    OutputError
        No video can have this name.
    """
    refuse_name(path)
    suffix = path.suffix.lower()
    fits = [name for name, suffixes in CONTAINERS.items() if suffix in suffixes]
    if suffix not in _SUFFIXES:
        found = f"the file name ends in {suffix!r}" if suffix else "the file name has no ending"
        raise OptionError(f"{path.name}: {found}; a video's ends in {', '.join(_SUFFIXES)}")
    if codec in CONTAINERS and suffix not in CONTAINERS[codec]:
        raise OptionError(
            f"{path.name}: {codec} does not go into {suffix}; it goes into {', '.join(CONTAINERS[codec])}"
            f" (and into {suffix} go {', '.join(fits)})"
        )
    if color and codec in ONE_CHANNEL:
        raise OptionError(f"{codec} has one channel, which is grey; colour goes with FFV1, MJPG, mp4v or XVID")


_quieting = threading.Lock()
_levels: list[Any] = []  # what OpenCV's log level was, for each of those who want it quiet now


@contextmanager
def quiet() -> Iterator[None]:
    """Keep OpenCV from printing what our own error says better: a line a frame where a disk is full.

    Encoders work side by side, and the level is one for all of OpenCV: the last to leave puts it back.
    """
    cv2 = need("cv2", "video", "a video")
    log = getattr(getattr(cv2, "utils", None), "logging", None) or cv2
    with _quieting:
        _levels.append(log.getLogLevel() if not _levels else _levels[0])
        log.setLogLevel(0)
    try:
        yield
    finally:
        with _quieting:
            level = _levels.pop()
            if not _levels:
                log.setLogLevel(level)


def refuse_name(path: Path) -> None:
    """Raise OutputError for a name that OpenCV crashes on: one that is in no encoding it knows."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise OutputError(
            errno.EINVAL,
            "its name or folder is not UTF-8, and OpenCV writes no such file; give another name",
            str(path),
        ) from error


def _open(cv2: Any, path: Path, codec: str, fps: float, size: tuple[int, int], *options: int) -> Any:
    refuse_name(path)
    with quiet():
        return cv2.VideoWriter(
            str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*codec), fps, size, [int(k) for k in options]
        )


def available(suffix: str = ".avi") -> list[str]:
    """Codecs of :data:`CONTAINERS` that this computer's OpenCV can write into a file of this type."""
    cv2 = need("cv2", "video", "a video")
    found = []
    with folder_for_now() as folder:
        for codec, suffixes in CONTAINERS.items():
            if suffix.lower() in suffixes:
                writer = _open(cv2, folder / f"probe{suffix}", codec, 20, (64, 64))
                if writer.isOpened():
                    found.append(codec)
                writer.release()
    return found


def open_writer(path: Path, codec: str, fps: float, size: tuple[int, int], color: bool = False) -> Any:
    """Open a ``cv2.VideoWriter``.

    Parameters
    ----------
    path
        File to write; its ending chooses the container.
    codec
        Four letters.
    fps
        Frames per second.
    size
        Width and height.

    Raises
    ------
    OutputError
        OpenCV cannot write this codec here; the message lists those it can.
    """
    cv2 = need("cv2", "video", "a video")
    writer = _open(cv2, path, codec, fps, size, cv2.VIDEOWRITER_PROP_IS_COLOR, int(color))
    if not writer.isOpened():
        known = available(path.suffix) or available()
        raise OutputError(
            f"this OpenCV ({cv2.__version__}) does not write {codec} into {path.suffix} files; "
            + (f"it does write {', '.join(known)}" if known else "it writes no video at all: install another build")
        )
    return writer


def open_packet_writer(path: Path, codec: str, fps: float, size: tuple[int, int]) -> Any:
    """Open a ``cv2.VideoWriter`` that takes packets as they are to lie in the file.

    Raises
    ------
    OutputError
        This OpenCV has no such thing (before 4.9), or cannot write the file.
    """
    cv2 = need("cv2", "video", "a video")
    option = getattr(cv2, "VIDEOWRITER_PROP_RAW_VIDEO", None)
    if option is not None:
        writer = _open(cv2, path, codec, fps, size, option, 1)
        if writer.isOpened():
            return writer
    raise OutputError(f"this OpenCV ({cv2.__version__}) does not write packets of {codec} into {path.suffix} files")


def count_frames(path: Path) -> int:
    """Frames in a finished video file, by its own index; -1 where it does not open."""
    cv2 = need("cv2", "video", "a video")
    refuse_name(path)
    with quiet():
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else -1
        capture.release()
    return count
