"""One page about a card: what was recorded, is it complete, how does it look."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from miniscope_xr.engine.sidecar import told
from miniscope_xr.errors import refuse_unknown
from miniscope_xr.layout import SECTOR, Layout, load_layout
from miniscope_xr.layout.stamp import read_stamp
from miniscope_xr.source.open import address, open_device
from miniscope_xr.tools.check.check import check
from miniscope_xr.tools.stream.libraries import need
from miniscope_xr.tools.stream.outputs import refuse_existing, refuse_source, whole_file
from miniscope_xr.tools.stream.selection import Preview

if TYPE_CHECKING:
    from miniscope_xr.engine.options import LayoutLike
    from miniscope_xr.tools.stream.footage import PathLike


def write_report(
    card: PathLike,
    path: PathLike,
    layout: LayoutLike = None,
    force: bool = False,
    progress: bool = True,
    *,
    date: str = "",
    animal: str = "",
    notes: str = "",
    **pictures: Unpack[Preview],
) -> None:
    """Write a self-contained HTML page about a card.

    Parameters
    ----------
    card
        Image file or block device.
    path
        Page to write; it needs no other file and no network.
    layout
        As in ``xr.open_dataset``.
    force
        Overwrite an existing page.
    progress
        Show a progress bar (on a terminal).
    date, animal, notes
        What the card cannot say and a reader of the page will ask; shown as given. What is empty is taken from the
        file beside the copy (:mod:`miniscope_xr.engine.sidecar`), with everything else that is told there.
    pictures
        ``time=``, ``frames=``, ``crop=``, ``bin=`` and ``dff=``: what they show, and what is measured of pixels; see
        :class:`~miniscope_xr.tools.stream.selection.Preview`. What is said of the card is of all of it.
    """
    # start-up time: they need Pillow, and `miniscope-xr info` is not to wait for it
    from miniscope_xr.tools.report.collect import collect
    from miniscope_xr.tools.report.page import render

    refuse_unknown("write_report()", pictures, Preview.__annotations__)
    need("PIL.Image", "report", "a report")
    refuse_existing(Path(path), force)
    refuse_source(Path(path), card)
    result = check(card, layout=layout, progress=progress)
    found = [collect(card, layout, recording, progress, pictures) for recording in result.recordings]
    known = told(address(card))
    given = {"date": date, "animal": animal, "notes": notes}
    shown = {**known, **{name: text for name, text in given.items() if text}}
    about = {
        "Recorded": shown.pop("date", ""),
        "Animal": shown.pop("animal", ""),
        "Notes": shown.pop("notes", ""),
        **{name.replace("_", " ").capitalize(): text for name, text in shown.items()},
        **_stamped(card, result.layout if layout is None else layout),
    }
    page = render(result, found, about, progress)
    with whole_file(path, force) as part:
        part.write_text(page, encoding="utf-8")


def _stamped(card: PathLike, layout: str | PathLike | Mapping[str, Any] | Layout) -> dict[str, str]:
    """What `prepare` left beside the settings: the card's own id, and when it was prepared."""
    with contextlib.closing(open_device(card)) as source, contextlib.suppress(OSError, ValueError):
        stamp = read_stamp(source.read(load_layout(layout).sectors.header * SECTOR, SECTOR))
        if stamp is not None and stamp.intact:
            prepared = datetime.fromtimestamp(stamp.time, UTC)
            return {"Card": stamp.card, "Prepared": f"{prepared:%Y-%m-%d %H:%M} UTC"}
    return {}
