"""Video files: exact by default, at the true frame rate, with the time stamps beside them."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import xarray as xr

from miniscope_xr.card import OpenRecording
from miniscope_xr.engine.dataset import frames_dataset
from miniscope_xr.errors import OptionError, OutputError, refuse_unknown
from miniscope_xr.tools.stream.footage import BATCH_BYTES, SMALL_BATCH_BYTES, Footage, Images, PathLike
from miniscope_xr.tools.stream.outputs import (
    is_full,
    progress_bar,
    refuse_existing,
    refuse_source,
    refuse_too_large,
    whole_file,
)
from miniscope_xr.tools.stream.readahead import read_ahead
from miniscope_xr.tools.stream.selection import chosen, picture_of
from miniscope_xr.tools.stream.timing import frame_rate, warn_of_jumps, write_time_stamps
from miniscope_xr.tools.video.codecs import check_container, count_frames, normal_codec, open_writer, quiet
from miniscope_xr.tools.video.options import VideoOptions
from miniscope_xr.tools.video.segments import can_join, write_segments
from miniscope_xr.tools.video.uncompressed import PaddedWriter, needs_padding


def time_stamps_path(path: PathLike) -> Path:
    """Where the time stamps of a video go: ``film.avi`` has ``film_timeStamps.csv`` beside it.

    Others have their ending in the name (``film.mkv``: ``film_mkv_timeStamps.csv``), so that both may lie side by side.
    """
    path = Path(path)
    ending = "" if path.suffix.lower() == ".avi" else f"_{path.suffix[1:]}"
    return path.with_name(f"{path.stem}{ending}_timeStamps.csv")


@dataclass(frozen=True)
class VideoResult:
    """What a video holds: ``str()`` of it is a sentence for a person."""

    frames: int
    """Frames in it."""
    rate: float
    """Frames per second it is played at."""
    lost: int
    """Frames that never reached the card, between those that are written; left out of the video."""
    blank: int
    """Those in it that are black for a lost one."""
    partial: int
    """Those in it that lack a part."""

    def __str__(self) -> str:
        length = f"{self.frames / self.rate:.1f} s at {self.rate:g} frames/s"
        said = [f"{self.frames} frame{'s' * (self.frames != 1)}, {length}"]
        if self.lost:
            said.append(f"{self.lost} lost frame{'s' * (self.lost != 1)} left out")
        if self.blank:
            said.append(f"{self.blank} of them black for lost ones")
        if self.partial:
            said.append(f"{self.partial} of them partly black: parts never reached the card")
        return "; ".join(said)


def check_even(width: int, height: int) -> None:
    """Refuse frames that OpenCV would cut."""
    if width % 2 or height % 2 or not width or not height:
        raise OptionError(
            f"frames of {width}x{height}: video needs an even width and height (OpenCV would cut a column or row off); "
            "crop= or another bin= makes them even"
        )


class _Sink:
    """An open video writer that takes batches; a frame that does not fit is refused, never stretched."""

    def __init__(self, path: Path, size: tuple[int, int], fps: float, codec: str, color: bool = False) -> None:
        if needs_padding(path, codec, size[0]):
            self._writer: Any = PaddedWriter(path, codec, fps, size)
        else:
            self._writer = open_writer(path, codec, fps, size, color)
        self._shape = (size[1], size[0])
        self._color = color
        self._path = path
        self._size = -1
        self.count = 0

    def add(self, images: Images) -> int:
        """Write one frame or a batch of them; return how many."""
        batch = images[np.newaxis] if images.ndim == 2 else images
        if batch.dtype != np.uint8 or batch.shape[1:] != self._shape:
            raise OptionError(
                f"expected uint8 frames of height and width {self._shape}, found {batch.dtype} {images.shape}"
            )
        for image in batch:
            self._writer.write(np.repeat(image[..., np.newaxis], 3, axis=2) if self._color else image)
        self.count += len(batch)
        self._refuse_full()
        return len(batch)

    def _refuse_full(self) -> None:
        """OpenCV writes on where a disk is full: notice that the file no longer grows, and why."""
        size = self._path.stat().st_size
        if size == self._size and is_full(self._path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        self._size = size

    def close(self) -> None:
        self._writer.release()


@contextlib.contextmanager
def _sink(path: Path, size: tuple[int, int], fps: float, codec: str, color: bool = False) -> Iterator[_Sink]:
    with quiet():
        sink = _Sink(path, size, fps, codec, color)
        try:
            yield sink
        except BaseException:
            with contextlib.suppress(OSError, OutputError):  # the error that ended it is the one to be told
                sink.close()
            raise
        sink.close()


def _check_written(path: Path, count: int) -> None:
    """OpenCV says nothing when a disk is full: look at the file."""
    found = count_frames(path)
    # Matroska keeps a duration, not a count
    if found != count and not (path.suffix.lower() == ".mkv" and abs(found - count) <= 1):
        raise OutputError(f"the video holds {max(found, 0)} of {count} frames; is the disk full? Nothing was kept")


def write_video(
    frames: Iterable[Images],
    path: PathLike,
    size: tuple[int, int],
    fps: float,
    codec: str = "GREY",
    force: bool = False,
    progress: bool = True,
    total: int | None = None,
    color: bool = False,
) -> None:
    """Write frames as a video file.

    Parameters
    ----------
    frames
        uint8 frames (height, width), or batches of them (n, height, width); the next is read while one is written.
    path
        ``.avi``, ``.mkv``, ``.mp4`` or ``.mov``; appears when it is whole.
    size
        Width and height.
    fps
        Frames per second.
    codec
        ``GREY`` and ``FFV1`` are exact; ``MJPG``, ``mp4v`` and ``XVID`` lose detail.
    force
        Overwrite an existing file.
    progress
        Show a progress bar (on a terminal).
    total
        Number of frames, for the progress bar.
    color
        Write three equal channels.

    Raises
    ------
    OutputExistsError
        The file exists and ``force`` is not given.
    MissingDependencyError
        OpenCV cannot be imported.
    OptionError, OutputError
        The codec, container or size do not go together, or the file could not be written.
    """
    codec = normal_codec(codec)
    check_container(Path(path), codec, color)
    check_even(*size)
    with whole_file(path, force) as part, progress_bar(total or 0, Path(path).name, show=progress) as bar:
        with _sink(part, size, fps, codec, color) as sink, contextlib.closing(read_ahead(frames)) as batches:
            for batch in batches:
                bar.update(sink.add(batch))
        _check_written(part, sink.count)


def write_rows(
    footage: Footage, path: Path, fps: float, codec: str, bar: Any, start: int, stop: int,
    color: bool = False, halt: threading.Event | None = None,
) -> None:  # fmt: skip
    """Write some frames of a recording with one encoder, into a file that is not there yet.

    ``halt`` is of encoders that work side by side: it ends this one early, where another has failed or the user has
    interrupted. They keep all cores busy; one alone has its frames read while it encodes.
    """
    size = footage.width, footage.height
    frames = footage.batches(start, stop)
    ahead = read_ahead(frames) if halt is None else frames
    with _sink(path, size, fps, codec, color) as sink, contextlib.closing(ahead) as batches:
        for images in batches:
            if halt is not None and halt.is_set():
                return
            bar.update(sink.add(images))
    _check_written(path, stop - start)


def _write_all(footage: Footage, path: Path, fps: float, codec: str, bar: Any, color: bool) -> None:
    if codec == "FFV1" and not color and can_join(path, footage.count):
        halt = threading.Event()

        def segment(part: Path, start: int, stop: int) -> None:
            write_rows(footage, part, fps, codec, bar, start, stop, halt=halt)

        write_segments(segment, footage.count, path, fps, (footage.width, footage.height), halt)
        _check_written(path, footage.count)
        return
    write_rows(footage, path, fps, codec, bar, 0, footage.count, color)


def dataset_to_video(
    ds: xr.Dataset, path: PathLike, codec: str = "GREY", **options: Unpack[VideoOptions]
) -> VideoResult:
    """Write a recording as a video, and its time stamps as CSV beside it; returns what it holds.

    Parameters
    ----------
    ds
        What ``xr.open_dataset(card, engine="miniscope")`` gives, or a part of it.
    path
        ``.avi``, ``.mkv``, ``.mp4`` or ``.mov``.
    codec
        ``GREY`` and ``FFV1`` (half the size) are exact; ``MJPG``, ``mp4v`` and ``XVID`` lose detail.
    options
        Those of :class:`~miniscope_xr.tools.video.options.VideoOptions`: which frames, their rate, colour ...

    Raises
    ------
    OutputExistsError
        A file exists and ``force`` is not given.
    MissingDependencyError
        OpenCV cannot be imported.
    OptionError, OutputError
        The codec, container, size or rows do not go together, or a file could not be written; nothing is left of it.
    """
    refuse_unknown("to_video()", options, VideoOptions.__annotations__)
    fps, color = options.get("fps"), options.get("color", False)
    time_stamps, force = options.get("time_stamps", True), options.get("force", False)
    codec = normal_codec(codec)
    path = Path(path)
    check_container(path, codec, color)
    taken = chosen(ds, options)
    footage = Footage(
        taken, (), BATCH_BYTES if codec == "GREY" else SMALL_BATCH_BYTES, picture_of(taken, options.get("dff", False))
    )
    check_even(footage.width, footage.height)
    rate = frame_rate(footage.ds, fps)
    table = time_stamps_path(path)
    for made in (path, table) if time_stamps else (path,):
        refuse_existing(made, force)
        refuse_source(made, ds.encoding.get("source"), *ds.encoding.get("sources", ()))
    if codec == "GREY":
        refuse_too_large(path, footage.count * footage.height * footage.width)
    with (
        whole_file(path, force) as part,
        progress_bar(footage.count, path.name, show=options.get("progress", True)) as bar,
    ):
        _write_all(footage, part, rate, codec, bar, color)
        if time_stamps:
            with whole_file(table, force) as rows:
                write_time_stamps(rows, footage.times, footage.slots, footage.numbers, footage.status)
            warn_of_jumps(footage.times)
    blank = int(footage.blank.sum())
    lost = sum(gap.count for gap in footage.gaps) - blank
    return VideoResult(footage.count, rate, max(lost, 0), blank, int(footage.partial.sum()))


def recording_to_video(
    opened: OpenRecording, path: PathLike, codec: str = "GREY", color: bool = False, force: bool = False,
    progress: bool = True,
) -> None:  # fmt: skip
    """Write a recording of an open card as :func:`dataset_to_video` does."""
    dataset_to_video(frames_dataset(opened), path, codec=codec, color=color, force=force, progress=progress)
