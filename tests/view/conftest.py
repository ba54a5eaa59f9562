"""A viewer that serves, and what asks it."""

from __future__ import annotations

import http.client
import json
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

import numpy as np
import pytest

from miniscope_xr.tools.stream import outputs
from miniscope_xr.tools.view import Viewer


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    data: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.data)

    @property
    def lines(self) -> list[Any]:
        """Parts of long work."""
        return [json.loads(line) for line in self.data.splitlines()]

    def frames(self, height: int, width: int) -> tuple[Any, np.ndarray[Any, Any]]:
        """What is said of some frames, and their pixels."""
        (length,) = struct.unpack_from("<I", self.data)
        pixels = np.frombuffer(self.data, np.uint8, offset=4 + length)
        return json.loads(self.data[4 : 4 + length]), pixels.reshape(-1, height, width)


class Asker:
    """Asks a viewer as its page does, or as nobody should."""

    def __init__(self, viewer: Viewer) -> None:
        self.viewer, self.url = viewer, viewer.url
        parts = urlsplit(viewer.url)
        self.host, self.path = parts.netloc, parts.path

    def raw(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection(self.host, timeout=30)
        try:
            connection.putrequest(method, path, skip_host="Host" in headers)
            for name, value in headers.items():
                connection.putheader(name.replace("_", "-"), value)
            if body is not None and "Content_Length" not in headers:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()

    def get(self, name: str, /, **given: Any) -> Answer:
        return self.raw("GET", f"{self.path}{name}?{urlencode(given)}")

    def post(self, name: str, /, **given: Any) -> Answer:
        return self.raw("POST", f"{self.path}{name}", json.dumps(given).encode(), Content_Type="application/json")


@pytest.fixture
def viewing(tmp_path: Path) -> Iterator[Callable[..., Asker]]:
    """Serve some cards: ``asker = viewing(path, ...)``."""
    with ExitStack() as stack:

        def serve(*cards: Path) -> Asker:
            viewer = stack.enter_context(Viewer(tmp_path))
            for card in cards:
                viewer.open(str(card))
            thread = threading.Thread(target=viewer.serve, daemon=True)
            thread.start()
            return Asker(viewer)

        yield serve


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that takes until it is ended, a batch at a time."""
    whole = outputs._told

    def told(by: outputs.Watcher, total: int, what: str) -> Any:
        def slow(what: str, done: int, total: int) -> None:
            while done >= total > 0:  # the last batch never comes to its end by itself
                time.sleep(0.02)
                by(what, done, total)
            by(what, done, total)

        return whole(slow, total, what)

    monkeypatch.setattr(outputs, "_told", told)
