"""Where zarr writes to: on Windows through a store that waits for who has a file of it open.

Zarr gives each new chunk its name at once, and an hour's export has thousands: a virus scanner that looks at one of
them for a moment would end it.
"""

from __future__ import annotations

import shutil
import sys
import uuid
from functools import cache
from pathlib import Path
from typing import Any

from miniscope_xr.source.replace import patiently, remove, write_whole
from miniscope_xr.tools.stream.libraries import need


def writable(store: str) -> Any:
    """Return what zarr and xarray are given to write to this folder or address."""
    return store if sys.platform != "win32" or "://" in store else patient_store()(Path(store))


@cache
def patient_store() -> Any:
    """The class of such stores: zarr's own local one, and each file takes its name or goes patiently."""
    need("zarr", "zarr")
    import asyncio

    from zarr.storage import LocalStore

    class PatientStore(LocalStore):  # type: ignore[misc, unused-ignore]
        async def set(self, key: str, value: Any) -> None:
            if not self._is_open:
                await self._open()
            self._check_writable()
            await asyncio.to_thread(_write, self.root / key, value.as_buffer_like())

        async def set_if_not_exists(self, key: str, value: Any) -> None:
            if not await self.exists(key):
                await self.set(key, value)

        async def delete(self, key: str) -> None:
            self._check_writable()
            path = self.root / key
            await asyncio.to_thread(_remove_folder if path.is_dir() else remove, path)

        async def delete_dir(self, prefix: str) -> None:
            self._check_writable()
            if (self.root / prefix).is_dir():
                await asyncio.to_thread(_remove_folder, self.root / prefix)

    return PatientStore


def _remove_folder(path: Path) -> None:
    """Remove all of it: what is left of an array would be read as one."""
    patiently(lambda: shutil.rmtree(path))


def _write(path: Path, data: Any) -> None:
    """Write a file so that it is there whole, or as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")  # a cluster may write one chunk twice at a time
    write_whole(path, data, part, on_disk=False)  # an archive marks what is there, and has thousands of these
