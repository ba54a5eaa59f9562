"""The page's own server, on 127.0.0.1 alone: every request is checked to be of the page it opened, and answered.

Every address begins with a random token. A request is answered only if it has the token, names this server as its host
(a name that was made to lead to 127.0.0.1 is not answered), and comes from no other site's page. No file is sent but
those of ``page/``, and the files it is asked to write are new ones. A card is written to only as `prepare` does it
(:mod:`miniscope_xr.tools.view.preparing`), by requests that are posted.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Generator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from miniscope_xr.errors import MiniscopeError, OptionError, message_of, plain
from miniscope_xr.source.open import address
from miniscope_xr.tools.view.answers import PageAnswers
from miniscope_xr.tools.view.door import Door
from miniscope_xr.tools.view.given import Frames

PAGE = Path(__file__).parent / "page"
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
MOST_BODY = 1 << 16  # bytes of a request's body
MOST_REQUESTS = 64  # answered at the same time
_UNUSED = 0.5  # s after which a server that nobody asks imports what will be asked for
PATIENCE = 20.0  # s that a request may take to arrive
_AT_THE_END = 10.0  # s that is waited for files that are being written: they end, and nothing is left of them
_ONCE = ("Host", "Origin", "Content-Length", "Content-Type", "Sec-Fetch-Site")
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "frame-ancestors 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Refused(Exception):
    """A request that is not answered: a status and one sentence."""

    def __init__(self, status: HTTPStatus, said: str) -> None:
        super().__init__(said)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = PATIENCE
    server: _Server

    def log_message(self, *args: Any) -> None:
        """Nothing: requests are no news."""

    def version_string(self) -> str:
        """Not who we are: nobody but our page has to know."""
        return "server"

    def do_GET(self) -> None:
        self._answer(self._query)

    def do_POST(self) -> None:
        self._answer(self._body)

    def _answer(self, given: Callable[[], dict[str, Any]]) -> None:
        if not self.server.room.acquire(blocking=False):
            self.close_connection = True
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, {"error": "too many requests at the same time"})
            return
        try:
            self._serve(given)
        except Refused as error:
            self.close_connection = True  # its body was not read
            self._send(error.status, {"error": str(error)})
        except MiniscopeError as error:
            self._send(HTTPStatus.UNPROCESSABLE_ENTITY, {"error": plain(message_of(error))})
        except (ConnectionError, TimeoutError):
            self.close_connection = True
        except Exception as error:  # the page has to be told, whatever it was
            self.close_connection = True
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": _fault(error)})
        finally:
            self.server.room.release()

    def _serve(self, given: Callable[[], dict[str, Any]]) -> None:
        name = self._checked()
        if self.server.ended.is_set():  # a connection that was kept
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "the viewer was closed")
        if name == "alive":
            self._stay()
            return
        if self.command == "GET" and (file := self.server.files.get(name)) is not None:
            self._send_bytes(HTTPStatus.OK, _TYPES[file.suffix] + "; charset=utf-8", file.read_bytes())
            return
        answers = self.server.answers
        answer = (answers.of_posted if self.command == "POST" else answers.of)(name, given())
        if isinstance(answer, Generator):
            self._stream(answer)
        elif isinstance(answer, Frames):
            self._send_bytes(HTTPStatus.OK, "application/octet-stream", answer.data)
        elif answer is None:
            raise Refused(HTTPStatus.NOT_FOUND, "there is nothing of this name")
        else:
            self._send(HTTPStatus.OK, answer)

    def _checked(self) -> str:
        """The part of the path behind the token, where the request is our page's."""
        if any(len(self.headers.get_all(name, ())) > 1 for name in _ONCE) or "Transfer-Encoding" in self.headers:
            raise Refused(HTTPStatus.BAD_REQUEST, "a header is there twice, or says that the length is not known")
        if not self.path.startswith("/") or (self.command == "GET" and "Content-Length" in self.headers):
            raise Refused(HTTPStatus.BAD_REQUEST, "expected a path, and with GET nothing behind the headers")
        own = {f"127.0.0.1:{self.server.server_port}", f"localhost:{self.server.server_port}"}
        if self.headers.get("Host", "") not in own:
            raise Refused(HTTPStatus.MISDIRECTED_REQUEST, "this server answers to its own address only")
        origin = self.headers.get("Origin")
        if origin is not None and origin not in {f"http://{host}" for host in own}:
            raise Refused(HTTPStatus.FORBIDDEN, "a page of another site may not ask")
        token, slash, name = self.path.partition("?")[0].removeprefix("/").partition("/")
        if not slash or not secrets.compare_digest(token.encode(), self.server.token.encode()):
            raise Refused(HTTPStatus.FORBIDDEN, "open the address that `miniscope-xr view` printed")
        self.server.known(self.connection)
        # the page's own address is opened from a terminal ("none"); whatever else is asked for, the page asks
        site = self.headers.get("Sec-Fetch-Site", "same-origin")
        if site not in ({"same-origin", "none"} if name == "" else {"same-origin"}):
            raise Refused(HTTPStatus.FORBIDDEN, "a page of another site may not ask")
        return name or "index.html"

    def _query(self) -> dict[str, Any]:
        return {key: _number(value) for key, value in parse_qsl(self.path.partition("?")[2])}

    def _body(self) -> dict[str, Any]:
        if self.headers.get("Content-Type", "").partition(";")[0] != "application/json":
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "expected JSON")
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit() or len(length) > 9 or int(length) > MOST_BODY:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"expected up to {MOST_BODY} bytes of JSON")
        try:
            given = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError) as error:
            raise Refused(HTTPStatus.BAD_REQUEST, "this is not JSON") from error
        if not isinstance(given, dict):
            raise Refused(HTTPStatus.BAD_REQUEST, "expected a JSON object")
        return given

    # -- sending ----------------------------------------------------------------------------------------

    def _begin(self, status: HTTPStatus, kind: str, **more: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, **_HEADERS, **more}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def _send(self, status: HTTPStatus, answer: Any) -> None:
        self._send_bytes(status, "application/json", json.dumps(answer).encode())

    def _send_bytes(self, status: HTTPStatus, kind: str, data: bytes) -> None:
        more = {"Connection": "close"} if self.close_connection else {}
        self._begin(status, kind, Content_Length=str(len(data)), **more)
        self.wfile.write(data)

    def _stream(self, parts: Generator[dict[str, Any]]) -> None:
        """Send one JSON object a line, each as soon as it is known; an error on the way is the last line."""
        with contextlib.closing(parts):  # a page that has gone ends the work
            first = next(parts)  # an option that is wrong is an error before anything is sent
            self._begin(HTTPStatus.OK, "application/x-ndjson", Transfer_Encoding="chunked")
            self._chunk(first)
            try:
                for part in parts:
                    self._chunk(part)
                    if self.server.ended.is_set() and "written" not in part:
                        raise MiniscopeError("the viewer was closed")  # and what was being written is taken away
            except MiniscopeError as error:
                self._chunk({"error": plain(message_of(error))})
            except (ConnectionError, TimeoutError):
                raise
            except Exception as error:
                self._chunk({"error": _fault(error)})
            self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, part: dict[str, Any]) -> None:
        data = json.dumps(part).encode() + b"\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _stay(self) -> None:
        """Keep a connection for as long as a page is open: the last one that goes ends the server."""
        self._begin(HTTPStatus.OK, "text/event-stream", Connection="close")
        self.close_connection = True
        self.server.room.release()  # it is no work, and must not keep a frame waiting
        try:
            with self.server.pages:
                while not self.server.ended.is_set():
                    self.wfile.write(b": here\n\n")
                    self.server.ended.wait(0.5)
        except (ConnectionError, TimeoutError):
            pass
        finally:
            self.server.room.acquire()


class _Server(Door):
    def __init__(self, port: int, answers: PageAnswers) -> None:
        self.token = secrets.token_urlsafe(24)
        self.answers = answers
        self.files = {path.name: path for path in PAGE.iterdir() if path.suffix in _TYPES}
        self.room = threading.Semaphore(MOST_REQUESTS)
        self.ended = threading.Event()
        super().__init__(port, _Handler)

    def end(self, seconds: float) -> None:
        """Answer nobody any more, and wait until what was being answered is over: long work ends at its next word."""
        self.ended.set()
        self.shutdown()
        self.server_close()
        until, over = time.monotonic() + seconds, 0
        while over < MOST_REQUESTS and self.room.acquire(timeout=max(until - time.monotonic(), 0)):
            over += 1
        if over:
            self.room.release(over)


def _fault(error: Exception) -> str:
    return plain(f"a fault of miniscope-xr, not of your card: {type(error).__name__}: {error}")


def _number(text: str) -> Any:
    try:
        return int(text)
    except ValueError:
        return text


class Viewer:
    """A server with its cards. ``with Viewer() as viewer: viewer.open(path); viewer.serve()``.

    Parameters
    ----------
    folder : Path
        Images in it are offered where no card is open.
    port : int
        0 takes a free one.

    Attributes
    ----------
    url : str
        The page's address with its token: whoever has it can look, and prepare cards.
    last_words : str
        How a card is that was being written when the server was ended; "" for none.
    """

    def __init__(self, folder: Path | None = None, port: int = 0) -> None:
        self.answers = PageAnswers(folder or Path.cwd())
        try:
            self._server = _Server(port, self.answers)
        except (OSError, OverflowError) as error:
            raise OptionError(f"port {port}: {getattr(error, 'strerror', None) or error}; leave --port out") from error
        self.last_words = ""
        self.url = f"http://127.0.0.1:{self._server.server_port}/{self._server.token}/"

    def open(self, path: str) -> None:
        """Open a card, so that the page shows it first."""
        self.answers.shelf.open(path)
        self.answers.first.append(address(path))

    def serve(self, patience: float = 4.0, ready: Callable[[], None] = lambda: None) -> None:
        """Wait until the last page has been closed for ``patience`` seconds (or until Ctrl+C)."""
        ready()
        meanwhile = threading.Timer(_UNUSED, self.answers.longer)  # where the browser has yet to start
        meanwhile.daemon = True
        meanwhile.start()
        try:
            while not self._server.pages.gone(patience) or self.answers.busy:
                time.sleep(0.1)
        finally:
            meanwhile.cancel()

    def __enter__(self) -> Viewer:
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.last_words = self.answers.end_writing()
        self._server.end(_AT_THE_END)
        self.answers.shelf.close()
