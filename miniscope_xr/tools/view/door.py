"""Who is connected: the pages that are open, and those who have yet to show the token.

Somebody on this computer may open connections by the thousand and say nothing, or a byte now and then. They take no
place from the page's own.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections import OrderedDict
from http.server import ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

MOST_STRANGERS = 128
"""Connections that have not shown the token yet."""


class Pages:
    """How many pages are open, and since when none is."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._seen = False
        self._left = 0.0

    def __enter__(self) -> None:
        with self._lock:
            self._count += 1
            self._seen = True

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._count -= 1
            self._left = time.monotonic()

    def gone(self, seconds: float) -> bool:
        """Whether there was a page, and none has been there for so long (one that is loaded again comes back)."""
        with self._lock:
            return self._seen and not self._count and time.monotonic() - self._left > seconds


class Door(ThreadingHTTPServer):
    """A server on 127.0.0.1 with a thread a connection, of which only so many may be strangers'.

    Attributes
    ----------
    pages : Pages
        Those that are open.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 32
    allow_reuse_address = os.name == "posix"  # to Windows it means that two programs may have one port

    def __init__(self, port: int, handler: Any) -> None:
        self.pages = Pages()
        self._strangers: OrderedDict[socket.socket, None] = OrderedDict()
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", port), handler)

    def server_bind(self) -> None:
        """Take the port, so that no other program gets what is meant for us; no name server is asked for our name."""
        alone = getattr(socket, "SO_EXCLUSIVEADDRUSE", None)
        if alone is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, alone, 1)
        TCPServer.server_bind(self)  # not HTTPServer's: to look up a name takes seconds in some networks
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer a connection in a thread; of too many strangers the oldest is sent away."""
        with self._lock:
            self._strangers[request] = None
            oldest = next(iter(self._strangers)) if len(self._strangers) > MOST_STRANGERS else None
        if oldest is not None:
            self.known(oldest)
            with contextlib.suppress(OSError):
                oldest.shutdown(socket.SHUT_RDWR)  # its thread reads the end, and closes it
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        self.known(request)
        super().shutdown_request(request)

    def known(self, connection: Any) -> None:
        """A connection is no stranger's any more: it has shown the token, or is closed."""
        with self._lock:
            self._strangers.pop(connection, None)

    def handle_error(self, *args: Any) -> None:
        """A page that went away in the middle of an answer is no news; what else goes wrong is told to the page."""
