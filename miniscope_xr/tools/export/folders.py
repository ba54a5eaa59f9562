"""Output folders that appear under their name only when they are whole."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from miniscope_xr.errors import OutputError
from miniscope_xr.tools.stream.outputs import output_errors, refuse_existing

_OURS = (".zgroup", "zarr.json", "metaData.json", "timestamps.csv")


def _refuse_foreign(path: Path) -> None:
    """Replace only what an export wrote: a folder may hold anything."""
    if path.is_file():
        raise OutputError(errno.ENOTDIR, "is a file, and this export is a folder; give another name", str(path))
    if path.is_dir() and any(path.iterdir()) and not any((path / name).exists() for name in _OURS):
        raise OutputError(errno.EEXIST, "holds something else than an export; not even force replaces it", str(path))


@contextmanager
def whole_folder(path: Path, force: bool = False) -> Iterator[Path]:
    """Yield the name of a folder to make; it takes the name ``path`` only when the block succeeds.

    Raises
    ------
    OutputExistsError
        It is there and ``force`` is not given.
    OutputError
        Something that no export wrote is there, or the folder cannot be made.
    """
    if not (path.is_dir() and not any(path.iterdir())):
        refuse_existing(path, force)
    _refuse_foreign(path)
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        holder = Path(tempfile.mkdtemp(prefix=f".{path.stem}-", suffix=".part", dir=path.parent))
    try:
        with output_errors(path):
            made = holder / path.name
            yield made
            if path.exists():
                os.replace(path, holder / "old")  # noqa: PTH105
            os.replace(made, path)  # noqa: PTH105
    finally:
        shutil.rmtree(holder, ignore_errors=True)
