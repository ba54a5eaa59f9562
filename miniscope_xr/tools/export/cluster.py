"""Blocks on the workers of a dask.distributed scheduler that is there already: its own executor, no engine of ours."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any

from miniscope_xr.errors import OptionError, OutputError
from miniscope_xr.tools.stream.libraries import need

_PATIENCE = 30  # seconds: for the scheduler to answer, and for the first worker
_ATTEMPTS = 3


@contextmanager
def cluster_executor(address: str) -> Iterator[Executor]:
    """Yield what hands work to the workers of a scheduler.

    A block whose worker ends is given to another one; workers that come meanwhile get their share. With the end of the
    block of code, or Ctrl+C in it, what has not begun is taken back.

    Parameters
    ----------
    address
        Of the scheduler, such as ``tcp://10.0.0.5:8786``, as it says when it starts.

    Raises
    ------
    OptionError
        That is no address.
    OutputError
        Nobody answers there, or no worker comes.
    """
    distributed = need("distributed", "cluster", "an archive on a cluster")
    client = _client(distributed, address)
    with client:
        try:
            client.wait_for_workers(1, timeout=_PATIENCE)
        except TimeoutError as error:
            said = f"the scheduler has no workers; they are started with `dask worker {address}`"
            raise OutputError(errno.EAGAIN, said, address) from error
        yield client.get_executor(pure=False)


def _client(distributed: Any, address: str) -> Any:
    """Connect; again where a busy computer did not start distributed's thread within the ten seconds it allows."""
    for _ in range(_ATTEMPTS):
        try:
            return distributed.Client(address, timeout=_PATIENCE, set_as_default=False)
        except AssertionError:  # all that it says then
            continue
        except (OSError, TimeoutError) as error:
            said = f"no scheduler answers there ({error}); it is started with `dask scheduler`"
            raise OutputError(errno.ECONNREFUSED, said, address) from error
        except (ValueError, TypeError) as error:
            raise OptionError(f"cluster={address!r}: no address of a scheduler, such as tcp://10.0.0.5:8786") from error
    raise OutputError(errno.EAGAIN, "this computer is too busy to start distributed: run it again to go on", address)


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
