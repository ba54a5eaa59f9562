"""Long work in a thread of its own, and word of how far it is: for a page that shows a bar and can end the work."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator
from typing import Any

from miniscope_xr.errors import MiniscopeError, plain

_EVERY = 0.25  # s between two words about the progress; a page that has gone is noticed by them
See = Callable[[str, int, int], None]
"""Called with what is done, how much of it, and of how much."""


class _Stopped(MiniscopeError):
    """The page has ended the work, or has gone."""


def as_told(work: Callable[[See], dict[str, Any]]) -> Generator[dict[str, Any]]:
    """Run ``work`` in a thread and yield its progress: ``what``, ``done``, ``of``; last, what it returned besides.

    Where the caller closes the iterator, the next word about the progress ends the work.

    Raises
    ------
    MiniscopeError
        What ``work`` raised.
    """
    stop = threading.Event()
    at: dict[str, Any] = {"what": "", "done": 0, "of": 0}
    ended: queue.SimpleQueue[dict[str, Any] | BaseException] = queue.SimpleQueue()

    def see(what: str, done: int, of: int) -> None:
        if stop.is_set():
            raise _Stopped("ended; nothing of it is left")
        at.update(what=plain(what), done=done, of=of)

    def run() -> None:
        try:
            ended.put(work(see))
        except BaseException as error:
            ended.put(error)  # raised where the progress is told

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while True:
            yield dict(at)
            try:
                made = ended.get(timeout=_EVERY)
            except queue.Empty:
                continue
            if isinstance(made, BaseException):
                raise made
            yield {**at, **made}
            return
    finally:
        stop.set()
        thread.join()
