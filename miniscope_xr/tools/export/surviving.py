"""A file that HDF5 may write to a disk that fails.

When a write fails inside HDF5 it keeps a cache that it cannot put anywhere, and takes the interpreter down when the
file is closed, at the latest when the program ends. So HDF5 writes into an object of ours: the first error is kept,
what comes after it goes nowhere, HDF5 closes in peace, and then the error is raised.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class SurvivingFile:
    """The file object that h5py writes through; :meth:`check` raises what the system said first."""

    def __init__(self, path: Path, mode: str) -> None:
        self._file = io.FileIO(path, mode)
        self._at = 0
        self._end = os.fstat(self._file.fileno()).st_size
        self._lost: list[tuple[int, bytes]] = []
        self.error: OSError | None = None

    def check(self) -> None:
        """Raise the first error, if there was one."""
        if self.error is not None:
            raise self.error

    def write(self, data: memoryview) -> int:
        """Write at the position; after an error into memory, where HDF5 may look for its small blocks again."""
        view = memoryview(data).cast("B")
        size = len(view)
        if self.error is None:
            try:
                self._write(view)
            except OSError as error:
                self.error = error
        if self.error is not None and size <= 1 << 16:
            self._lost.append((self._at, bytes(view)))
        self._at += size
        self._end = max(self._end, self._at)
        return size

    def _write(self, view: memoryview) -> None:
        self._file.seek(self._at)
        while view:
            view = view[self._file.write(view) or 0 :]

    def readinto(self, data: memoryview) -> int:
        """Read at the position; zeros where nothing is."""
        view = memoryview(data).cast("B")
        self._file.seek(self._at)
        done = self._file.readinto(view) or 0
        while done and done < len(view) and (more := self._file.readinto(view[done:])):
            done += more
        view[done:] = bytes(len(view) - done)
        for at, lost in self._lost:
            first, stop = max(at, self._at), min(at + len(lost), self._at + len(view))
            if first < stop:
                view[first - self._at : stop - self._at] = lost[first - at : stop - at]
        self._at += len(view)
        return len(view)

    def read(self, size: int = -1) -> bytes:
        """Read ``size`` bytes at the position."""
        data = bytearray(min(size, self._end - self._at) if size >= 0 else self._end - self._at)
        self.readinto(memoryview(data))
        return bytes(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._end}[whence]
        return self._at

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def truncate(self, size: int | None = None) -> int:
        """Set the length."""
        self._end = self._at if size is None else size
        if self.error is None:
            try:
                self._file.truncate(self._end)
            except OSError as error:
                self.error = error
        return self._end

    def flush(self) -> None:
        """Nothing is kept back."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@contextmanager
def surviving(path: Path, mode: str = "w+b") -> Iterator[SurvivingFile]:
    """Yield a file for h5py; what the system said first is raised at the end, whatever HDF5 made of it.

    Raises
    ------
    OSError
        A write failed.
    """
    file = SurvivingFile(path, mode.replace("b", ""))
    try:
        yield file
    except Exception:
        file.check()
        raise
    finally:
        file.close()
    file.check()
