"""Several cards opened at once: ``xr.open_mfdataset`` is told along what they are joined, or refused.

Left to itself xarray goes by the numbers in ``frame``, which begin at 0 on each card. Datasets that begin with the same
number have one place in its table, so of cards that differ in length all but one are lost without a word. Nothing in a
Dataset can prevent that, and nothing tells a backend that it is one of several: so we look who called
(:func:`miniscope_xr.engine.quarantine.open_mfdataset_calls`).
"""

from __future__ import annotations

from typing import Any

from miniscope_xr.engine.quarantine import open_mfdataset_calls
from miniscope_xr.errors import OptionError


def refuse_by_coordinates(card: Any) -> None:
    """Raise OptionError where this card is opened as one of several that are to be joined by their coordinates.

    A ``preprocess`` function may have given them coordinates that do join them, so it is trusted.
    """
    for told in open_mfdataset_calls():
        paths = [str(path) for path in told.get("paths1d", ())]
        by_coordinates = told.get("combine") == "by_coords" and told.get("preprocess") is None
        if by_coordinates and len(paths) > 1 and str(card) in paths:
            raise OptionError(
                f"{len(paths)} cards at once: the frames of each are counted from 0, and xarray would join them by "
                "these numbers and lose some; say along what to join them: "
                "open_mfdataset(cards, engine='miniscope', combine='nested', concat_dim='frame')"
            )
