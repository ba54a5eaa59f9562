"""What a video is told: one list for Python, the command line and ``ds.miniscope``."""

from __future__ import annotations

from miniscope_xr.tools.stream.selection import Preview


class VideoOptions(Preview, total=False):
    """Options of ``ds.miniscope.to_video`` and :func:`miniscope_xr.tools.video.dataset_to_video`.

    Attributes
    ----------
    frames, time, crop, bin
        Which part, see :class:`~miniscope_xr.tools.stream.selection.Selection`.
    dff
        A preview of dF/F: black at -10 %, white at 50 % above the resting picture. Default False.
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

    fps: float | str | None
    color: bool
    time_stamps: bool
    force: bool
    progress: bool
