"""What a request says, and what it is answered with."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Generator, Mapping
from typing import Any, NamedTuple

from miniscope_xr.errors import OptionError

Answer = dict[str, Any] | Generator[dict[str, Any]]
"""One JSON object, or one after another as long work goes on."""


class Frames(NamedTuple):
    """Frames: what is said of them, and their pixels, one frame after another (uint8, or little-endian float32)."""

    about: dict[str, Any]
    pixels: bytes

    @property
    def data(self) -> bytes:
        """Both as one: length of the JSON (uint32), the JSON, the pixels."""
        about = json.dumps(self.about).encode()
        return struct.pack("<I", len(about)) + about + self.pixels


class Given:
    """What a request says, checked when it is used."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def whole(self, name: str) -> int:
        """A whole number."""
        value = self.values.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) > 1 << 53:
            raise OptionError(f"{name}: expected a whole number")
        return value

    def text(self, name: str, absent: str | None = None) -> str:
        """Some text; ``absent`` where there is none."""
        value = self.values.get(name) or absent
        if not isinstance(value, str):
            raise OptionError(f"{name}: expected text")
        return value

    def texts(self, name: str) -> list[str]:
        """Some texts, at most as many as a header sector has settings."""
        value = self.values.get(name)
        if not isinstance(value, list) or len(value) > 64 or not all(isinstance(each, str) for each in value):
            raise OptionError(f"{name}: expected a list of texts")
        return value

    def shapes(self) -> list[Mapping[str, Any]]:
        """Circles and boxes."""
        value = self.values.get("shapes")
        if not isinstance(value, list) or not all(isinstance(shape, dict) for shape in value):
            raise OptionError("shapes: expected a list of circles and boxes")
        return value

    def yes(self, name: str) -> bool:
        """Yes or no; no where nothing is said."""
        value = self.values.get(name, False)
        if not isinstance(value, bool):
            raise OptionError(f"{name}: expected true or false")
        return value


Answering = Mapping[str, Callable[[Given], Answer | Frames]]
"""What can be asked, by name."""
