"""Processes that help to write the blocks of an archive, and this one, which does not wait for them.

A process that is new imports everything before its first block, which takes as long as thousands of frames. So this
one, where all of it is there, begins at once, and each helper takes its share from when it is ready.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from miniscope_xr.tools.export.archive_store import Block, write_block
from miniscope_xr.tools.stream.libraries import need

_IN_HAND = 2  # blocks of each helper, so that it has one to go on with while this process writes its own


def written_here(blocks: Sequence[Block], workers: int | None = None) -> Generator[Block | Future[int]]:
    """Share out blocks among the processes of this computer.

    Parameters
    ----------
    blocks
        What is to be written.
    workers
        Processes, this one among them; default: one a core.

    Yields
    ------
    Each of the blocks once: as it is, for this process to write it before it asks for the next, or as the future of
    one that a helper has written. Such a future has BrokenProcessPool where the system ended the helper.
    """
    todo = deque(blocks)
    helpers = min(workers or os.cpu_count() or 1, len(todo) - 1) - 1  # two blocks are done before a helper is ready
    if helpers < 1:
        yield from todo
        return
    # fresh processes: a fork would share locks with whatever threads the caller has
    pool = ProcessPoolExecutor(helpers, multiprocessing.get_context("spawn"))
    starting: set[Future[int]] = set()
    running: set[Future[int]] = set()
    try:
        starting |= {pool.submit(_ready) for _ in range(helpers)}
        while todo or running:
            done = wait([*starting, *running], 0 if todo else None, FIRST_COMPLETED).done
            starting -= done
            yield from done & running
            running -= done
            free = _IN_HAND * (helpers - len(starting)) - len(running)
            running |= _handed_out(pool, todo, min(free, len(todo) - 1))
            if todo:
                yield todo.popleft()
    finally:
        if starting or running or todo:
            _end(pool)
        pool.shutdown(cancel_futures=True)


def _end(pool: ProcessPoolExecutor) -> None:
    """End helpers: those that are not even ready when all is done, and all of them where somebody leaves (Ctrl+C).

    A block that is not marked is written again.
    """
    for process in list((pool._processes or {}).values()):  # kill_workers() is new in Python 3.14
        process.kill()


def _ready() -> int:
    """On a helper: import what the first block needs; no frame is written."""
    need("zarr", "archive", "an archive")
    need("dask.array", "archive", "an archive")
    return 0


def _handed_out(pool: ProcessPoolExecutor, todo: deque[Block], count: int) -> set[Future[int]]:
    """Give helpers the last ones of what is to be done; none where the system has ended them."""
    given: set[Future[int]] = set()
    try:
        while len(given) < count:
            given.add(pool.submit(write_block, todo[-1]))
            todo.pop()
    except BrokenProcessPool:
        pass
    return given
