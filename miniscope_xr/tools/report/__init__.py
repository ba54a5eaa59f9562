"""One page about a card: what was recorded, is it complete, how does it look."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from miniscope_xr.libraries import need
from miniscope_xr.tools.stream.outputs import refuse_existing, refuse_source, whole_file

if TYPE_CHECKING:
    from miniscope_xr.engine.options import LayoutLike
    from miniscope_xr.tools.stream.footage import PathLike


def write_report(
    card: PathLike, path: PathLike, layout: LayoutLike = None, force: bool = False, progress: bool = True
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
    """
    from miniscope_xr.tools.check.check import check
    from miniscope_xr.tools.report.collect import collect
    from miniscope_xr.tools.report.page import render

    need("PIL.Image", "report", "a report")
    refuse_existing(Path(path), force)
    refuse_source(Path(path), card)
    result = check(card, layout=layout)
    found = [collect(card, layout, recording, progress) for recording in result.recordings]
    page = render(result, found)
    with whole_file(path, force) as part:
        part.write_text(page, encoding="utf-8")
