"""What an export is told: one list for Python, the command line and the check of what a format can hold."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from miniscope_xr.errors import OptionError
from miniscope_xr.tools.stream.selection import Selection

if TYPE_CHECKING:
    from miniscope_xr.tools.stream.footage import PathLike


class ExportOptions(Selection, total=False):
    """Options of :func:`miniscope_xr.tools.export.export`.

    An option that the format cannot hold is refused, never dropped. What is not given is not invented.

    Attributes
    ----------
    frames, time, crop, bin
        Which part, see :class:`~miniscope_xr.tools.stream.selection.Selection`.
    compression
        0 to 9, where the format has it (``netcdf``, ``hdf5``, ``tiff``): smaller files that take longer to write. None:
        as the format usually is.
    fps
        None: measured from the time stamps; ``"nominal"``: the setting on the card; or a number.
    start
        When the recording began, with or without a time zone; None takes the time of the image file where a format
        cannot do without one, and the output says so.
    codec
        For ``miniscope-daq``: ``FFV1`` (default) or ``GREY``.
    animal, researcher, experiment
        Go into ``miniscope-daq`` and ``nwb``.
    experimenter, institution, session_id, keywords, sex, age, species, location, indicator, wavelengths
        Go into ``nwb``: ``age`` as ``"P90D"``, ``sex`` one of M, F, U, O, ``wavelengths`` of excitation and emission
        in nm.
    camera
        Behaviour video of the session, or its camera's folder, with the time stamps beside it: copied beside the
        Miniscope in ``miniscope-daq``, named as an external file in ``nwb``. Needs a recording aligned with the
        camera's clock.
    force
        Overwrite an existing output.
    progress
        Show a progress bar (on a terminal).
    """

    fps: float | str | None
    start: datetime | str | None
    codec: str | None
    compression: int | None
    animal: str
    researcher: str
    experiment: str
    experimenter: str
    institution: str
    session_id: str
    keywords: str | Sequence[str]
    sex: str
    age: str
    species: str
    location: str
    indicator: str
    wavelengths: str | Sequence[float]
    camera: PathLike
    force: bool
    progress: bool


_NWB = {
    "experimenter": "who did it, as 'Last, First'",
    "institution": "where it was done",
    "session_id": "the lab's name for the session",
    "keywords": "words to find it by, with commas between them",
    "sex": "of the animal: M, F, U (unknown) or O (other)",
    "age": "of the animal, as P90D (90 days) or P12W",
    "species": "of the animal, as 'Mus musculus'",
    "location": "part of the brain, as 'CA1'",
    "indicator": "what glows, as GCaMP6f",
    "wavelengths": "of excitation and emission in nm, as 475,525",
}
ABOUT = {
    "animal": "name of the animal",
    "researcher": "name of the researcher",
    "experiment": "what was done",
    **_NWB,
}
"""What a card does not know: the option, and what it is."""

FROM_ATTRS = {"session_id": "session", "start": "date"}
"""Options whose dataset attribute has another name; every other one has its own (see engine/sidecar.py)."""

_GIVEN = "given by the user"
_DAY = "the day was given by the user, the time of day is not known: midnight stands for it"
_AGE = re.compile(r"P(?!$)(\d+(\.\d+)?Y)?(\d+(\.\d+)?M)?(\d+(\.\d+)?W)?(\d+(\.\d+)?D)?(T\d+(\.\d+)?H)?")
_SPECIES = re.compile(r"[A-Z][a-z]+ [a-z]+.*|http://purl\.obolibrary\.org/obo/NCBITaxon_\d+/?")


def refuse_dropped(options: Mapping[str, Any], to: str, carried: Mapping[str, frozenset[str]]) -> None:
    """Raise OptionError for an option that this format would drop; ``carried`` says what each format holds."""
    for name, value in options.items():
        if (
            name in carried[to]
            or name in (*Selection.__annotations__, "force", "progress")
            or value is None
            or value in ("", (), [])
        ):
            continue
        holding = [other for other, names in carried.items() if name in names]
        raise OptionError(f"{name}={value!r}: {to} cannot hold it ({', '.join(holding)} can); leave it out")


def told(attrs: Mapping[Any, Any], held: frozenset[str]) -> dict[str, str]:
    """Return what a dataset's attributes tell of the session, as options; of these, what the format holds.

    Attributes come from the file beside a copy (:mod:`miniscope_xr.engine.sidecar`) or from whoever has the dataset.
    What the format has no place for is in its attributes anyway, or left out: nobody asked for it by an option.
    """
    given = {name: attrs.get(FROM_ATTRS.get(name, name)) for name in (*ABOUT, "start") if name in held}
    return {name: value for name, value in given.items() if isinstance(value, str) and value}


def facts(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is told about the session, checked: texts, ``keywords`` a list and ``wavelengths`` two numbers."""
    told = {name: options[name] for name in ABOUT if options.get(name) not in (None, "", (), [])}
    for name, right, words in (
        ("sex", re.compile("[MFUO]"), "one of M, F, U (unknown), O (other)"),
        ("age", _AGE, "an ISO 8601 duration such as P90D or P12W"),
        ("species", _SPECIES, "a Latin name such as 'Mus musculus', or its address at NCBI's taxonomy"),
    ):
        if name in told and not right.fullmatch(str(told[name])):
            raise OptionError(f"{name}={told[name]!r}: expected {words}")
    if "keywords" in told:
        given = told["keywords"]
        told["keywords"] = [word.strip() for word in (given.split(",") if isinstance(given, str) else given)]
    if "wavelengths" in told:
        told["wavelengths"] = _wavelengths(told["wavelengths"])
    return told


def _wavelengths(given: str | Sequence[float]) -> tuple[float, float]:
    try:
        excitation, emission = (float(nm) for nm in (given.split(",") if isinstance(given, str) else given))
    except (TypeError, ValueError):
        excitation = emission = 0.0
    if not 200 < excitation < emission < 2000:
        raise OptionError(f"wavelengths={given!r}: expected excitation and emission in nm, such as 475,525")
    return excitation, emission


def checked_compression(level: Any) -> int:
    """Return the level of compression, 0 for none."""
    if level is None:
        return 0
    if isinstance(level, bool) or not isinstance(level, int) or not 0 <= level <= 9:
        raise OptionError(f"compression={level!r}: expected 0 (none) to 9 (smallest, slowest)")
    return level


def session_start(card: Any, start: datetime | str | None) -> tuple[datetime, str]:
    """Return when the recording began, in the time zone it was given in, and how that is known.

    A card has no clock: without ``start`` it is when the image was last written, in the zone of this computer. Of a
    day alone it is midnight, which is said.
    """
    if start is not None:
        try:
            given = datetime.fromisoformat(start) if isinstance(start, str) else start
        except ValueError as error:
            raise OptionError(f"start={start!r}: expected a date and time such as 2026-03-14T15:09:26") from error
        known = _DAY if isinstance(start, str) and len(start) == len("2026-03-14") else _GIVEN
        return (given if given.tzinfo is not None else given.astimezone()), known
    source = Path(str(card or ""))
    if source.is_file():
        return datetime.fromtimestamp(source.stat().st_mtime).astimezone(), (
            "not known: a card has no clock; this is when its image was last written"
        )
    return datetime.now().astimezone(), "not known: a card has no clock; this is when it was exported"
