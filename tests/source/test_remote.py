"""Images by URL: the same frames by few ranged requests."""

from __future__ import annotations

import io
import pickle
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from miniscope_xr.errors import CardNotFoundError, CardPermissionError, CardReadError, NotACardError, PathTypeError
from miniscope_xr.source.remote import is_url
from miniscope_xr.tools.simulate import PowerLoss, SimulatedCard, Stall

pytest.importorskip("fsspec", reason="needs fsspec")

Open = Callable[..., xr.Dataset]
Make = Callable[..., tuple[Path, SimulatedCard]]


class Server:
    """Serves bytes by name; counts the ranges asked for."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.ranges: list[tuple[int, int]] = []
        self.accepts = True
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None:
                pass

            def _answer(self, body: bool) -> None:
                if self.path == "/secret.img":
                    self._head(403, 0)
                    return
                data = server.files.get(self.path.lstrip("/"))
                if data is None:
                    self._head(404, 0)
                    return
                asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
                if asked and server.accepts:
                    first, last = int(asked[1]), min(int(asked[2]), len(data) - 1)
                    server.ranges.append((first, last + 1 - first))
                    self._head(206, last + 1 - first, f"bytes {first}-{last}/{len(data)}")
                    data = data[first : last + 1]
                else:
                    self._head(200, len(data))
                if body:
                    self.wfile.write(data)

            def _head(self, status: int, length: int, content: str | None = None) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(length))
                if server.accepts:
                    self.send_header("Accept-Ranges", "bytes")
                if content:
                    self.send_header("Content-Range", content)
                self.end_headers()

            def do_HEAD(self) -> None:
                self._answer(False)

            def do_GET(self) -> None:
                self._answer(True)

        class Http(ThreadingHTTPServer):
            request_queue_size = 256  # the usual five drop callers when many come at once
            daemon_threads = True

            def handle_error(self, *args: Any) -> None:
                pass  # a client that has seen enough hangs up

        self._http = Http(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    pytest.importorskip("aiohttp", reason="needs aiohttp: pip install 'miniscope-xr[remote]'")
    running = Server()
    yield running
    running.stop()


@pytest.mark.slow
def test_same_as_the_file(server: Server, make_card: Make, open_card: Open) -> None:
    path, _ = make_card(frames=80, events=[Stall(buffer=100, ms=900)], seed=3)
    server.files["a.img"] = path.read_bytes()
    xr.testing.assert_identical(open_card(f"{server.url}/a.img").load(), open_card(path).load())
    table, expected = (open_card(p, group="buffers").load() for p in (f"{server.url}/a.img", path))
    xr.testing.assert_identical(table, expected)


def test_few_requests(server: Server, clean_card: tuple[Path, SimulatedCard], open_card: Open) -> None:
    path, card = clean_card
    server.files["a.img"] = path.read_bytes()
    video = card.expected()[1]
    ds = open_card(f"{server.url}/a.img")
    repr(ds)
    assert 0 < len(server.ranges) <= 18
    assert max(length for _, length in server.ranges) <= 1 << 16
    for k in (7, 59, 0):
        server.ranges.clear()
        assert (ds["video"][k].values == video[k]).all()
        assert len(server.ranges) == 1, server.ranges
    server.ranges.clear()
    assert (ds["video"].values == video).all()
    assert len(server.ranges) == 1
    server.ranges.clear()
    ds["time"][30].values
    assert len(server.ranges) == 1


def test_an_interrupted_image_costs_tens_of_requests(server: Server, make_card: Make, open_card: Open) -> None:
    path, _ = make_card(frames=210, seed=3, events=[PowerLoss(buffer=1000)])
    server.files["a.img"] = path.read_bytes()
    ds = open_card(f"{server.url}/a.img")
    assert ds.attrs["status"] == "interrupted"
    assert ds.attrs["n_buffers_found"] == 1000
    assert 0 < len(server.ranges) <= 60


def test_closed_and_pickled(server: Server, clean_card: tuple[Path, SimulatedCard], open_card: Open) -> None:
    path, card = clean_card
    server.files["a.img"] = path.read_bytes()
    ds = open_card(f"{server.url}/a.img")
    there = pickle.loads(pickle.dumps(ds))
    ds.close()
    assert (there["video"][3].values == card.expected()[1][3]).all()
    assert (ds["video"][4].values == card.expected()[1][4]).all()
    there.close()


def test_select_by_time(server: Server, clean_card: tuple[Path, SimulatedCard], open_card: Open) -> None:
    path, _ = clean_card
    server.files["a.img"] = path.read_bytes()
    ds = open_card(f"{server.url}/a.img", time_index=True)
    server.ranges.clear()
    found = ds.sel(time="1s", method="nearest")
    assert len(server.ranges) <= 10
    assert abs(found["time"].values - np.timedelta64(1, "s")) <= np.timedelta64(30, "ms")


def test_what_goes_wrong(server: Server, clean_card: tuple[Path, SimulatedCard], open_card: Open) -> None:
    path, _ = clean_card
    server.files.update({"a.img": path.read_bytes(), "short.img": b"no card"})
    for name, kind in [("none", CardNotFoundError), ("secret", CardPermissionError), ("short", NotACardError)]:
        with pytest.raises(kind):
            open_card(f"{server.url}/{name}.img")
    ds = open_card(f"{server.url}/a.img")
    server.files["a.img"] = server.files["a.img"][:600_000]
    with pytest.raises(CardReadError):
        ds["video"][50].values
    server.accepts = False
    with pytest.raises(CardReadError, match="parts"):
        open_card(f"{server.url}/a.img")


def test_other_file_systems(clean_card: tuple[Path, SimulatedCard], open_card: Open) -> None:
    import fsspec

    path, card = clean_card
    with fsspec.open("memory://cards/a.img", "wb") as file:
        file.write(path.read_bytes())
    assert (open_card("memory://cards/a.img")["video"].values == card.expected()[1]).all()
    with pytest.raises(CardNotFoundError):
        open_card("memory://cards/b.img")


@pytest.mark.parametrize("cache", ["simplecache", "filecache"])
def test_chains_of_file_systems(cache: str, clean_card: tuple[Path, SimulatedCard], open_card: Open) -> None:
    import fsspec

    path, card = clean_card
    with fsspec.open("memory://cards/chained.img", "wb") as file:
        file.write(path.read_bytes())
    assert (open_card(f"{cache}::memory://cards/chained.img")["video"][7].values == card.expected()[1][7]).all()


@pytest.mark.parametrize("thing", [b"card", io.BytesIO(b"card"), 3], ids=["bytes", "file", "number"])
def test_what_is_no_path_is_said_shortly(thing: Any, open_card: Open) -> None:
    with pytest.raises(PathTypeError, match="expected the path of a card or image") as error:
        open_card(thing)
    assert isinstance(error.value, TypeError)
    assert len(str(error.value)) < 200


def test_missing_library(monkeypatch: pytest.MonkeyPatch, open_card: Open) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(ImportError, match="remote"):
        open_card("https://127.0.0.1:1/a.img")


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("https://a/b.img", True),
        ("s3://a/b", True),
        ("/dev/sdb", False),
        (r"\\.\PhysicalDrive2", False),
        (Path("a"), False),
        ("C:/a", False),
    ],
)
def test_is_url(path: object, url: bool) -> None:
    assert is_url(path) is url
