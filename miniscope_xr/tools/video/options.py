"""What a video is told: one list for Python, the command line and ``ds.miniscope``."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from miniscope_xr.tools.stream.footage import Frames


class VideoOptions(TypedDict, total=False):
    """Options of ``ds.miniscope.to_video`` and :func:`miniscope_xr.tools.video.dataset_to_video`.

    Attributes
    ----------
    frames
        A slice or list of rows; None (default) for all.
    fps
        None (default): measured from the time stamps; ``"nominal"``: the setting on the card; or a number.
    color
        Write three equal channels. Default False.
    time_stamps
        Write ``<name>_timeStamps.csv`` as well. Default True.
    force
        Overwrite existing files. Default False.
    progress
        Show a progress bar (on a terminal). Default True.
    """

    frames: Frames
    fps: float | str | None
    color: bool
    time_stamps: bool
    force: bool
    progress: bool
