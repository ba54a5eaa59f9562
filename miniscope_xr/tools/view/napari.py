"""``napari card.img``: each recording as a lazy layer.

napari finds this module by ``napari.yaml``; nothing here imports napari.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from miniscope_xr.card import OpenCard, OpenRecording
from miniscope_xr.engine.dataset import frames_dataset
from miniscope_xr.errors import MiniscopeError
from miniscope_xr.tools.stream.timing import frame_rate

Layer = tuple[xr.DataArray, dict[str, Any], str]
_LOOKED_AT = 5  # frames, for the contrast at the beginning


def reader(path: str | list[str]) -> Callable[[str | list[str]], list[Layer]] | None:
    """Return :func:`layers` where every path is a card with a recording, else None: another plugin may open it.

    Parameters
    ----------
    path
        What was given to napari, or dropped on it: one path, or several.
    """
    try:
        for one in _paths(path):
            OpenCard(one).close()
    except MiniscopeError:
        return None
    return layers


def layers(path: str | list[str]) -> list[Layer]:
    """Open cards as layers of napari: one a recording, ``(frame, y, x)``, uint8, read frame by frame when shown.

    Frames that were lost are there, black (``gaps="fill"``), so that the slider's time is the card's: its steps are
    1 / frame rate, in seconds, from the first frame. Doubts about a recording are shown as warnings, and stand in the
    layer's metadata with the settings.
    """
    return [layer for one in _paths(path) for layer in _of_card(one)]


def _paths(path: str | list[str]) -> list[str]:
    return [path] if isinstance(path, str) else list(path)


def _of_card(path: str) -> list[Layer]:
    card = OpenCard(path)
    name = Path(path).name
    found = card.index.recordings
    return [
        _layer(OpenRecording(card, recording, fill=True), name + f", recording {recording.number}" * (len(found) > 1))
        for recording in found
    ]


def _layer(opened: OpenRecording, name: str) -> Layer:
    ds = frames_dataset(opened)
    for text in opened.recording.warnings:
        warnings.warn(f"{name}: {text}", stacklevel=2)
    step = 1 / frame_rate(ds) if ds.sizes["frame"] > 1 else 1.0
    about = {
        "name": name, "scale": (step, 1.0, 1.0), "axis_labels": ("time", "y", "x"),
        "units": ("second", "pixel", "pixel"),
        "contrast_limits": _contrast(ds), "colormap": "gray", "rgb": False, "metadata": dict(ds.attrs),
    }  # fmt: skip
    return ds["video"], about, "image"


def _contrast(ds: xr.Dataset) -> tuple[float, float]:
    """Nearly the darkest and brightest of some whole frames; napari would look at blank ones too."""
    rows = np.unique(np.linspace(0, ds.sizes["frame"] - 1, _LOOKED_AT).astype(np.int64))
    some = ds.isel(frame=rows)
    whole = some["video"].values[some["complete"].values]
    low, high = np.percentile(whole, (0.5, 99.8)) if whole.size else (0.0, 255.0)
    return float(low), float(max(high, low + 1))
