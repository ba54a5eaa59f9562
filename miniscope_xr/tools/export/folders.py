"""Output folders that appear under their name only when they are whole."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from miniscope_xr.errors import OutputError, OutputExistsError
from miniscope_xr.source.replace import new_folder, remove_tree, replace
from miniscope_xr.tools.stream.outputs import kind_of, output_errors, parents_made

_OURS = (".zgroup", "zarr.json", "metaData.json", "timestamps.csv")


def _refuse(path: Path, force: bool) -> None:
    """Replace only what an export wrote, and only when forced: a folder may hold anything."""
    kind = kind_of(path)
    if kind not in ("", "a folder"):
        raise OutputExistsError(errno.EEXIST, f"is {kind}, and this export is a folder; give another name", str(path))
    with output_errors(path):
        held = {entry.name for entry in path.iterdir()} if kind else set()
    if held and held.isdisjoint(_OURS):
        raise OutputError(errno.EEXIST, "holds something else than an export; not even force replaces it", str(path))
    if held and not force:
        raise OutputExistsError(
            errno.EEXIST,
            "exists already and is kept; give another name, or force=True (--force) to replace it",
            str(path),
        )


@contextmanager
def whole_folder(path: Path, force: bool = False) -> Iterator[Path]:
    """Yield the name of a folder to make; it takes the name ``path`` only when the block succeeds.

    Raises
    ------
    OutputExistsError
        It is there and ``force`` is not given; or what is there is no folder.
    OutputError
        A folder that no export wrote is there, or the folder cannot be made.
    """
    _refuse(path, force)
    with parents_made(path), _holder(path) as holder, output_errors(path):
        made = holder / path.name
        yield made
        _refuse(path, force)  # it may have come meanwhile
        if path.exists():
            replace(path, holder / "old")
        replace(made, path)


@contextmanager
def _holder(path: Path) -> Iterator[Path]:
    """A folder beside ``path``, of which nothing is left."""
    with output_errors(path):
        holder = new_folder(path.parent, f".{path.stem[:40]}-", ".part")
    try:
        yield holder
    finally:
        remove_tree(holder)
