"""One image of a recording as matplotlib draws it: row 0 on top, square pixels, labels and units."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from miniscope_xr.errors import OptionError
from miniscope_xr.tools.stream.libraries import need
from miniscope_xr.tools.stream.summary import summarise

_PROJECTIONS = ("mean", "max", "std")


def plot_image(ds: xr.Dataset, what: int | str | xr.DataArray, ax: Any = None) -> Any:
    """Draw a frame or projection; parameters as for ``ds.miniscope.plot``."""
    plt = need("matplotlib.pyplot", "plot", "a plot")
    image, title = _image(ds, what)
    made = ax is None
    axes = plt.subplots(layout="constrained")[1] if made else ax
    drawn = axes.imshow(np.asarray(image), cmap="gray", origin="upper", interpolation="nearest")
    axes.set(xlabel="x (px)", ylabel="y (px)", title=title)
    axes.figure.colorbar(drawn, ax=axes, label="fluorescence (grey value)")
    return axes


def _image(ds: xr.Dataset, what: int | str | xr.DataArray) -> tuple[Any, str]:
    if isinstance(what, xr.DataArray):
        if what.dims != ("y", "x"):
            raise OptionError(f"an image has the dimensions ('y', 'x'), not {what.dims}; take a frame or a projection")
        return what.values, str(what.name or "")
    if isinstance(what, str):
        if what not in _PROJECTIONS:
            raise OptionError(f"{what!r} is no projection: expected one of {', '.join(_PROJECTIONS)}, or a row")
        return summarise(ds, progress=False)[what].values, f"{what} of the whole frames"
    frame = ds.isel(frame=what)
    return frame["video"].values, f"frame {int(frame['frame_num'])}" if "frame_num" in frame.coords else f"row {what}"
