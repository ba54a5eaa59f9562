"""Files made from the page: a video, an export, the report. One request is one file, and ending it ends the work."""

from __future__ import annotations

import importlib.util
from collections.abc import Generator
from pathlib import Path
from typing import Any, NamedTuple

from miniscope_xr.errors import OptionError, plain
from miniscope_xr.tools.export.formats import FORMATS
from miniscope_xr.tools.export.run import export
from miniscope_xr.tools.report import write_report
from miniscope_xr.tools.stream.outputs import watched
from miniscope_xr.tools.video.write import dataset_to_video
from miniscope_xr.tools.view.seen import Seen
from miniscope_xr.tools.view.told import See, as_told

_VIDEOS = {
    "FFV1": (".avi", "exact video (FFV1), about half the size of the pixels"),
    "GREY": (".avi", "exact video (GREY), not compressed"),
    "mp4v": (".mp4", "video to show (mp4), loses detail"),
}
_REPORT = "report"


class Kind(NamedTuple):
    """One kind of file that the page can have written."""

    name: str
    suffix: str
    text: str
    animal: bool
    """Whether it can hold the animal's name."""
    missing: str
    """What has to be installed first; "" for nothing."""


def _kind(name: str, suffix: str, text: str, animal: bool, needs: tuple[str, ...], extra: str) -> Kind:
    there = all(importlib.util.find_spec(module) for module in needs)
    return Kind(name, suffix, text, animal, "" if there else f'pip install "miniscope-xr[{extra}]"')


def kinds() -> dict[str, Kind]:
    """What can be written, by name."""
    found = [_kind(codec, suffix, text, False, ("cv2",), "video") for codec, (suffix, text) in _VIDEOS.items()]
    for name, known in FORMATS.items():
        suffix = known.suffixes[0] if known.suffixes else ""
        found.append(_kind(name, suffix, known.text, "animal" in known.carries, known.needs, known.extra))
    found.append(_kind(_REPORT, ".html", "one page about the card, to keep", True, ("PIL",), "report"))
    return {kind.name: kind for kind in found}


def listed(seen: Seen | None = None) -> list[dict[str, Any]]:
    """The kinds as a page offers them; of a Dataset that does not know its card there is no report."""
    known = kinds().values()
    return [kind._asdict() for kind in known if kind.name != _REPORT or seen is None or seen.path is not None]


def write(seen: Seen, kind: str, path: Path, rows: slice, animal: str) -> Generator[dict[str, Any]]:
    """Write some rows of a recording to a new file, and yield how far it is.

    The file is that of the command of the same name: ``video``, ``export`` or ``report`` (which is of the whole card).
    Each part has ``what``, ``done`` and ``of``; the last one has ``written``, its path. Where the caller closes the
    iterator the work ends, and nothing is left of the file.

    Raises
    ------
    OptionError
        There is no such kind, or it has no place for the animal.
    MiniscopeError
        It cannot be written; nothing is left of it.
    """
    known = kinds()
    if kind not in known:
        raise OptionError(f"{kind!r} cannot be written: {', '.join(known)}")
    if animal and not known[kind].animal:
        raise OptionError(f"{known[kind].text}: it has no place for the animal's name; leave it out")
    about: Any = {"animal": animal} if animal else {}

    def make() -> Path:
        with seen.opened() as ds:
            if kind == _REPORT:
                if seen.path is None:
                    raise OptionError("this Dataset no longer knows its card; a report is made of a card")
                write_report(seen.path, path, **about)
                return path
            if kind in FORMATS:
                return export(ds, path, kind, frames=rows, **about)
            dataset_to_video(ds, path, codec=kind, frames=rows)
            return path

    def work(see: See) -> dict[str, Any]:
        with watched(see):
            return {"written": plain(str(make()))}

    return as_told(work)
