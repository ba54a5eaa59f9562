"""Blocks on the workers of a dask.distributed scheduler that is there already: its own executor, no engine of ours."""

from __future__ import annotations

import errno
import gc
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from miniscope_xr.errors import (
    CardChangedError,
    CardNotFoundError,
    CardPermissionError,
    MiniscopeError,
    OptionError,
    OutputError,
)
from miniscope_xr.source.copy_map import card_marks
from miniscope_xr.source.open import open_device
from miniscope_xr.source.replace import remove
from miniscope_xr.tools.stream.libraries import need

_PATIENCE = 30  # seconds: for the scheduler to answer, and for the first worker
_SAME_PATHS = (
    "workers read the images, and write the store, by the same paths as this computer: have both on a disk "
    "that all of them have at the same place"
)
_ATTEMPTS = 3


@contextmanager
def scheduler(address: str) -> Iterator[Any]:
    """Yield a client of a scheduler that answers.

    With the end of the block of code, or Ctrl+C in it, what has not begun is taken back.

    Parameters
    ----------
    address
        Of the scheduler, such as ``tcp://10.0.0.5:8786``, as it says when it starts.

    Raises
    ------
    OptionError
        That is no address.
    OutputError
        Nobody answers there.
    """
    distributed = need("distributed", "cluster", "an archive on a cluster")
    client = _client(distributed, address)
    with client:
        yield client


def refuse_blind(client: Any, cards: Sequence[str], store: str) -> None:
    """Refuse workers that do not find the cards or the store, or others under these names: before anything is made.

    Parameters
    ----------
    client
        Of the scheduler.
    cards
        Paths or URLs. One that this computer cannot read is nobody else's fault, and is left out.
    store
        Folder that is there, or a URL.

    Raises
    ------
    CardNotFoundError, CardPermissionError, CardChangedError, OutputError
        Names the worker, and what it does not find. Or no worker comes.
    """
    here = {card: marks for card, marks in _marks(cards).items() if isinstance(marks, str)}
    for worker, seen in _looks(client, list(here), store).items():
        if isinstance(seen, ImportError):
            raise why_it_failed(seen, store)
        if isinstance(seen, BaseException):  # it ended meanwhile: another one gets its work
            continue
        marks, has_store = seen
        for card, found in marks.items():
            if isinstance(found, MiniscopeError):
                raise by_a_worker(found, f"worker {worker}")
            if found != here[card]:
                raise CardChangedError(errno.ESTALE, f"is another card to worker {worker}; {_SAME_PATHS}", card)
        if not has_store:
            raise OutputError(errno.ENOENT, f"worker {worker} does not find this store; {_SAME_PATHS}", store)


def _looks(client: Any, cards: Sequence[str], store: str) -> dict[str, Any]:
    """What each worker finds, or its error."""
    try:
        client.wait_for_workers(1, timeout=_PATIENCE)
    except TimeoutError as error:
        said = f"the scheduler has no workers; they are started with `dask worker {client.scheduler.address}`"
        raise OutputError(errno.EAGAIN, said, store) from error
    token = None if "://" in store else Path(store, f".seen-{uuid.uuid4().hex}")
    try:
        if token:
            token.touch()  # a folder of this name on a disk of the worker's own does not have it
        return dict(client.run(_look, cards, token, on_error="return"))
    finally:
        if token:
            remove(token)


def _marks(cards: Sequence[str]) -> dict[str, str | MiniscopeError]:
    """Which card each of them is, or why it cannot be read."""
    found: dict[str, str | MiniscopeError] = {}
    for card in cards:
        try:
            with closing(open_device(card)) as source:
                found[card] = card_marks(source)
        except MiniscopeError as error:
            found[card] = error
    return found


def _look(cards: Sequence[str], token: Path | None) -> tuple[dict[str, str | MiniscopeError], bool]:
    """On a worker: which cards it finds, and whether it has the store."""
    return _marks(cards), token is None or os.path.lexists(token)


def by_a_worker(error: MiniscopeError, worker: str = "a worker") -> MiniscopeError:
    """Say of a card that cannot be opened who cannot: on this computer it is there."""
    if isinstance(error, CardNotFoundError | CardPermissionError):
        return type(error)(error.errno, f"{worker} cannot read it ({error.strerror}); {_SAME_PATHS}", error.filename)
    return error


def _client(distributed: Any, address: str) -> Any:
    """Connect; again where a busy computer did not start distributed's thread within the ten seconds it allows."""
    for _ in range(_ATTEMPTS):
        try:
            with _nothing_collected():
                return distributed.Client(address, timeout=_PATIENCE, set_as_default=False)
        except AssertionError:  # all that it says then
            continue
        except (OSError, TimeoutError) as error:
            said = f"no scheduler answers there ({error}); it is started with `dask scheduler`"
            raise OutputError(errno.ECONNREFUSED, said, address) from error
        except (ValueError, TypeError) as error:
            raise OptionError(f"cluster={address!r}: no address of a scheduler, such as tcp://10.0.0.5:8786") from error
    raise OutputError(errno.EAGAIN, "this computer is too busy to start distributed: run it again to go on", address)


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """Let no garbage be collected meanwhile.

    A client that did not find its scheduler closes itself when it is collected. While another one starts, it would
    wait for a lock of distributed's that the other has: for ever.
    """
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


def why_it_failed(error: BaseException, store: str) -> OutputError:
    """What a person is told of an error that is the cluster's and not the card's."""
    kind: Any = type(error).__name__
    hint = {
        "CancelledError": "the scheduler is gone, or was started anew, and what was being written with it",
        "FutureCancelledError": "the scheduler is gone, or was started anew, and what was being written with it",
        "KilledWorker": "workers ended again and again while they wrote one block, perhaps for want of memory",
        "ModuleNotFoundError": f"a worker lacks a library ({error}): it needs miniscope-xr[archive] too",
    }.get(kind, f"a worker failed ({kind}: {error})")
    return OutputError(errno.EIO, f"{hint}; run it again to go on", store)
