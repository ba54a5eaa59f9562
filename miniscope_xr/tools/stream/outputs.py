"""Output files that are whole or not there, and progress bars that show on a terminal only."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from miniscope_xr.errors import MiniscopeError, OutputError, OutputExistsError


def refuse_existing(path: Path, force: bool) -> None:
    """Raise OutputExistsError where ``path`` exists and ``force`` is not given."""
    if path.exists() and not force:
        raise OutputExistsError(
            errno.EEXIST,
            "exists already and is kept; give another name, or force=True (--force) to overwrite",
            str(path),
        )


def refuse_too_large(path: Path, size: int) -> None:
    """Raise OutputError where the disk of ``path`` has no room for ``size`` bytes: better now than hours later."""
    there = next(folder for folder in path.absolute().parents if folder.exists())
    free = shutil.disk_usage(there).free
    if free < size:
        raise OutputError(
            errno.ENOSPC,
            f"takes {size / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free on this disk; nothing was written",
            str(path),
        )


@contextlib.contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn what the system says while an output is written into an OutputError."""
    try:
        yield
    except MiniscopeError:
        raise
    except OSError as error:
        text = f"cannot be written: {error.strerror or error}; nothing was kept"
        raise OutputError(error.errno or errno.EIO, text, str(path)) from error


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str], force: bool = False) -> Iterator[Path]:
    """Yield a temporary name in the folder of ``path``; it takes the final name only when the block succeeds."""
    final = Path(path)
    refuse_existing(final, force)
    if final.is_dir():
        raise OutputExistsError(errno.EEXIST, "is a folder; give the name of a file", str(final))
    with output_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        # the suffix stays last: writers choose the format by it
        handle, name = tempfile.mkstemp(prefix=f".{final.stem}-", suffix=f".part{final.suffix}", dir=final.parent)
    os.close(handle)
    part = Path(name)
    # The writer makes it anew, with the permissions of a new file; and a file that was cut to nothing, as writers do
    # with one that is there, is put on the disk by ext4 before it is closed: half of the time of a copy.
    part.unlink()
    try:
        with output_errors(final):
            yield part
            refuse_existing(final, force)  # it may have come meanwhile
            os.replace(part, final)  # noqa: PTH105
    finally:
        part.unlink(missing_ok=True)


def progress_bar(total: int, what: str, unit: str = "frame", show: bool = True) -> Any:
    """A tqdm bar on stderr; disabled where stderr is no terminal."""
    from tqdm import tqdm

    scale = unit == "B"
    return tqdm(
        total=total, desc=what, unit=unit, unit_scale=scale, leave=False,
        disable=not (show and sys.stderr is not None and sys.stderr.isatty()),
    )  # fmt: skip
