"""``ds.miniscope``: from a recording to video, other programs' formats, figures, a short film kept in the notebook."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import xarray as xr

from miniscope_xr.errors import OptionError

if TYPE_CHECKING:
    from miniscope_xr.tools.check.check import CheckResult
    from miniscope_xr.tools.clock.align import AlignOptions
    from miniscope_xr.tools.export.options import ExportOptions
    from miniscope_xr.tools.report.player import Player
    from miniscope_xr.tools.stream.footage import FrameChoice, PathLike
    from miniscope_xr.tools.video.options import VideoOptions
    from miniscope_xr.tools.view.widget import ViewerWidget


_MOST_PICTURES = 1000  # in a notebook: about 10 MB


@xr.register_dataset_accessor("miniscope")  # type: ignore[no-untyped-call]
class MiniscopeAccessor:
    """What can be done with a recording: ``ds.miniscope.to_video("film.avi")`` and so on."""

    def __init__(self, ds: xr.Dataset) -> None:
        self._ds = ds

    def __repr__(self) -> str:
        can = "to_video, export, view, check, quality, align, join, plot, plot_headers, summary, play"
        return f"<ds.miniscope: {can}; {dict(self._ds.sizes)}>"

    def to_video(self, path: PathLike, codec: str = "GREY", **options: Unpack[VideoOptions]) -> None:
        """Write a video at the true frame rate, and its time stamps as CSV beside it.

        Parameters
        ----------
        path
            ``.avi``, ``.mkv``, ``.mp4`` or ``.mov``.
        codec
            ``GREY`` and ``FFV1`` (half the size) are exact; ``MJPG``, ``mp4v`` and ``XVID`` lose detail.
        options
            ``frames=``, ``fps=``, ``color=``, ``time_stamps=``, ``force=``, ``progress=``: those of
            :class:`~miniscope_xr.tools.video.options.VideoOptions`.
        """
        from miniscope_xr.tools.video.write import dataset_to_video  # start-up time

        dataset_to_video(self._ds, path, codec, **options)

    def export(self, path: PathLike, to: str | None = None, **options: Unpack[ExportOptions]) -> Path:
        """Write for another program: miniscope-daq, minian, zarr, netcdf, hdf5, tiff or nwb.

        Parameters
        ----------
        path
            File or folder to write.
        to
            The format; None goes by the ending of ``path``.
        options
            ``frames=``, ``fps=``, ``start=``, ``animal=`` and more: those of
            :class:`~miniscope_xr.tools.export.options.ExportOptions`.

        Returns
        -------
        Path of what was written; see :func:`miniscope_xr.tools.export.export` for its errors.
        """
        from miniscope_xr.tools.export import export  # start-up time

        return export(self._ds, path, to, **options)

    def check(self, deep: bool = False) -> CheckResult:
        """Say what is wrong with the card behind this Dataset; see :func:`miniscope_xr.check`."""
        from miniscope_xr.tools.check.check import check  # start-up time

        source = self._ds.encoding.get("source")
        if not source:
            raise OptionError("this Dataset no longer knows its card; call miniscope_xr.check(path)")
        return check(source, deep=deep, layout=self._ds.attrs.get("layout"))

    def quality(self, progress: bool = True) -> xr.Dataset:
        """Measure every frame: brightness, sharpness, shift, saturation, banding; dead pixels, bleaching, focus.

        Returns
        -------
        Dataset with a value a frame and some images; ``attrs["findings"]`` are sentences. See
        :func:`miniscope_xr.tools.check.quality.quality` for all of it, and docs/quality.md for how exact it is.
        """
        from miniscope_xr.tools.check.quality import quality  # start-up time

        return quality(self._ds, progress)

    def align(self, **options: Unpack[AlignOptions]) -> xr.Dataset:
        """Say when, by another clock, every frame was taken: from pairs of times, pulses, or a light in a video.

        Parameters
        ----------
        options
            ``pairs=``, ``video=``, ``pulses=`` or ``start=``, and more: those of
            :class:`~miniscope_xr.tools.clock.align.AlignOptions`.

        Returns
        -------
        The recording with ``clock_time``, ``clock_error`` and, where a date is known, ``wall_time``: exports carry
        them.
        See :func:`miniscope_xr.tools.clock.align.align` for all of it and for its errors.
        """
        from miniscope_xr.tools.clock.align import align  # start-up time

        return align(self._ds, **options)

    def join(self, *others: xr.Dataset, apart: float | None = None) -> xr.Dataset:
        """Put other recordings of the session behind this one; see :func:`miniscope_xr.tools.clock.join.join`.

        Parameters
        ----------
        others
            Recordings of this card or of others.
        apart
            s between them, where they were not aligned; None: it is not known, and times run on.
        """
        from miniscope_xr.tools.clock.join import join  # start-up time

        return join([self._ds, *others], apart)

    def plot_clock(self, ax: Any = None) -> Any:
        """Draw how far every pair of an aligned recording lies off, and the stated error; returns matplotlib Axes."""
        from miniscope_xr.tools.clock.plot import plot_clock  # start-up time

        return plot_clock(self._ds, ax)

    def plot_headers(self) -> Any:
        """Plot counters, drops, rate, battery and focus against time; returns a matplotlib Figure."""
        from miniscope_xr.tools.report.plots import plot_headers  # start-up time

        return plot_headers(self._ds)

    def plot(self, what: int | str | xr.DataArray = 0, ax: Any = None) -> Any:
        """Draw a frame or a projection the right way up, in pixels, with its values in a bar beside it.

        Parameters
        ----------
        what
            Row of a frame; ``"mean"``, ``"max"`` or ``"std"`` of all whole frames; or an image of one's own (y, x),
            such as ``ds.video.std("frame")``.
        ax
            matplotlib Axes to draw into; None makes a figure.

        Returns
        -------
        matplotlib Axes

        Notes
        -----
        xarray's own ``plot`` draws y upwards: pass ``yincrease=False`` to it, and ``aspect`` for square pixels.
        """
        from miniscope_xr.tools.report.image_plot import plot_image  # start-up time

        return plot_image(self._ds, what, ax)

    def summary(self, progress: bool = True) -> xr.Dataset:
        """Compute mean, max and std of all whole frames in one pass (with dask where the Dataset is chunked)."""
        from miniscope_xr.tools.stream.summary import summarise  # start-up time

        return summarise(self._ds, progress)

    def view(self) -> ViewerWidget:
        """Look at this Dataset in a notebook: the film, what was lost, cells, projections, as ``miniscope-xr view``.

        What is shown is the Dataset as it is: sliced, cropped, masked or computed. A frame is read when it is looked
        at, and nothing of it is stored in the notebook. Python has to be running to look; a film that stays in the
        notebook is :meth:`play`.

        Returns
        -------
        A widget, shown where it is the last value of a cell.

        Raises
        ------
        OptionError
            ``video`` is not (frame, y, x), or has no frame.
        MissingDependencyError
            anywidget is not installed: ``pip install "miniscope-xr[notebook]"``.
        """
        from miniscope_xr.tools.stream.libraries import need  # start-up time

        need("anywidget", "notebook", "the viewer in a notebook")
        from miniscope_xr.tools.view.sliced import SeenDataset  # start-up time
        from miniscope_xr.tools.view.widget import ViewerWidget  # start-up time

        return ViewerWidget(SeenDataset(self._ds))

    def play(self, frames: FrameChoice = None, fps: float | None = None, most: int = 200) -> Player:
        """Show a short film that stays in the notebook, also where no Python runs; to look at all: :meth:`view`.

        Parameters
        ----------
        frames
            A slice or list of rows; None: ``most`` of them from the start.
        fps
            Pictures per second; None: as recorded.
        most
            Of a longer selection every n-th frame is shown, so that the notebook stays small (up to 1,000 pictures).

        Raises
        ------
        OptionError
            There is no such frame, or ``most`` is not from 1 to 1,000.
        """
        from miniscope_xr.tools.report.player import make_player  # start-up time
        from miniscope_xr.tools.stream.footage import Footage, select  # start-up time
        from miniscope_xr.tools.stream.timing import frame_rate  # start-up time

        if not 1 <= most <= _MOST_PICTURES:
            raise OptionError(
                f"most={most}: a notebook keeps 1 to {_MOST_PICTURES:,} pictures; "
                "ds.miniscope.view() shows every frame and keeps none"
            )
        ds = select(self._ds, slice(0, most) if frames is None else frames)
        ds = ds.isel(frame=slice(None, None, -(-ds.sizes["frame"] // most)))
        footage = Footage(ds)
        images = np.concatenate(list(footage.batches()))
        labels = [f"frame {k}" for k in footage.numbers.tolist()]
        return make_player(images, labels, frame_rate(self._ds) if fps is None else fps, "film of the recording")
