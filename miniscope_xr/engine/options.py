"""What can be asked of an opened card: every option of the engine, checked before the card is looked at."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from miniscope_xr.errors import OptionError, RecordingError, did_you_mean

if TYPE_CHECKING:  # start-up time
    from miniscope_xr.layout import Layout

LayoutLike: TypeAlias = "str | os.PathLike[str] | Mapping[str, Any] | Layout | None"


@dataclass(frozen=True)
class Options:
    """Options of ``xr.open_dataset(card, engine="miniscope", ...)``.

    Parameters
    ----------
    layout
        Id, path, mapping or Layout; None detects it.
    recording
        Which recording, where the card holds several.
    gaps : {"skip", "fill"}
        Leave out frame numbers that never reached the card, or insert blank frames for them.
    partial : {"keep", "drop", "nan"}
        Frames that lack buffers: with zeros where pixels are missing, left out (every header is read to find them),
        or as float32 with NaN.
    index : {"bisect", "scan"}
        Find buffers with few reads, or read every header; both give the same.
    errors : {"raise", "fill"}
        At unreadable sectors raise CardReadError, or leave the pixels 0 and the buffers missing.
    until
        Last frame number to return, where the end of the recording is in doubt.
    old_buffers
        Where the list that ``prepare --keep`` saved on this computer shows what was on the card before, end the
        recording by it (``warnings`` says so); False looks at nothing but the card.
    time_index
        Index ``time`` by bisecting the card; ``ds.set_xindex("time")`` does the same by reading every header.
    group
        ``"buffers"``, ``"recording_1"`` or ``"recording_1/buffers"``.
    drop_variables, mask_and_scale, decode_times, decode_timedelta
        As in ``xr.open_dataset``.
    """

    layout: LayoutLike = None
    recording: int | None = None
    gaps: Literal["skip", "fill"] = "skip"
    partial: Literal["keep", "drop", "nan"] = "keep"
    index: Literal["bisect", "scan"] = "bisect"
    errors: Literal["raise", "fill"] = "raise"
    until: int | None = None
    old_buffers: bool = True
    time_index: bool = False
    group: str | None = None
    drop_variables: str | Iterable[str] | None = None
    mask_and_scale: bool | None = True
    decode_times: bool | None = True
    decode_timedelta: bool | None = None

    def __post_init__(self) -> None:
        one_of("gaps", self.gaps, ("skip", "fill"))
        one_of("partial", self.partial, ("keep", "drop", "nan"))
        one_of("index", self.index, ("bisect", "scan"))
        one_of("errors", self.errors, ("raise", "fill"))
        until = self.until
        if until is not None and (isinstance(until, bool) or not isinstance(until, int | np.integer) or until < 0):
            raise OptionError(f"until={until!r}: expected the number of the last frame to return (0 or more)")
        for name, value in (("time_index", self.time_index), ("old_buffers", self.old_buffers)):
            if not isinstance(value, bool | np.bool_):
                raise OptionError(f"{name}={value!r}: expected True or False")
        if self.gaps == "fill" and self.partial == "drop":
            raise OptionError(
                "gaps='fill' gives every frame number a row and partial='drop' takes rows away; "
                "use partial='nan' to mark what is missing"
            )

    @classmethod
    def of(cls, given: Mapping[str, Any], without: Iterable[str] = ()) -> Options:
        """Options by name; None stands for what the default is (xarray passes it for whatever it was not told).

        Raises
        ------
        OptionError
            One is unknown, one of those that do not apply here (``without``), or has a value it cannot have.
        """
        defaults, left_out = _defaults(), set(without)
        known = [name for name in defaults if name not in left_out]
        for name, value in given.items():
            if name not in defaults:
                hint = did_you_mean(name, known)
                raise OptionError(f"{name}= is not an option of this engine{hint}; there are: {', '.join(known)}")
            if name not in known and value is not None and value != defaults[name]:
                raise OptionError(f"{name}= is not an option of a tree, which always holds the whole card")
        return cls(**{name: value for name, value in given.items() if name in known and value is not None})

    @property
    def timedelta(self) -> bool:
        """Whether times are durations and not numbers."""
        return bool(self.decode_times if self.decode_timedelta is None else self.decode_timedelta)

    @cached_property
    def scaled(self) -> bool:
        """Whether header fields are in physical units."""
        return self.mask_and_scale is not False

    @cached_property
    def dropped(self) -> frozenset[str]:
        """Variables to leave out."""
        names = self.drop_variables
        return frozenset([names] if isinstance(names, str) else names or ())

    @property
    def wanted(self) -> tuple[int | None, bool]:
        """(recording, whether its buffer table is meant), by ``group`` and ``recording``."""
        group, recording = self.group, self.recording
        if group is None:
            return recording, False
        if not isinstance(group, str):
            raise OptionError(f"group={group!r}: expected text such as 'buffers' or 'recording_1/buffers'")
        parts = [part for part in group.split("/") if part]
        table = bool(parts) and parts[-1] == "buffers"
        if table:
            parts.pop()
        if not parts:
            return recording, table
        name, _, number = parts[0].rpartition("_")
        if len(parts) > 1 or name != "recording" or not number.isdecimal():
            known = ("buffers", "recording_0", "recording_0/buffers")
            hint = did_you_mean(group, known)
            raise RecordingError(f"group={group!r}{hint}: groups are {', '.join(known)} and so on")
        if recording is not None and recording != int(number):
            raise OptionError(f"group={group!r} and recording={recording!r} disagree; give one of them")
        return int(number), table


@cache
def _defaults() -> dict[str, Any]:
    """Every option, and what it is where nothing is said."""
    return {item.name: item.default for item in fields(Options)}


def one_of(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise an OptionError for a value that is none of the choices."""
    if value not in choices:
        *others, last = map(repr, choices)
        raise OptionError(f"{name}={value!r}: expected {', '.join(others)} or {last}")
