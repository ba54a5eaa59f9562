"""A file system of one file with unreadable sectors. Run as a process: killing it pulls the reader out.

    python tests/bad_disk.py MOUNTPOINT IMAGE BAD

BAD is a file with the numbers of the sectors that cannot be read; it is looked at anew on every read.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path
from typing import Any

SECTOR = 512


def serve(mountpoint: str, image: str, bad: str) -> None:
    import mfusepy as fuse

    fd, size = os.open(image, os.O_RDONLY), Path(image).stat().st_size

    class OneFile(fuse.Operations):  # type: ignore[misc]
        use_ns = True

        def getattr(self, path: str, fh: Any = None) -> dict[str, int]:
            if path == "/":
                return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2}
            if path != "/disk":
                raise fuse.FuseOSError(errno.ENOENT)
            return {"st_mode": stat.S_IFREG | 0o600, "st_nlink": 1, "st_size": size}

        def readdir(self, path: str, fh: Any) -> list[str]:
            return [".", "..", "disk"]

        def open(self, path: str, flags: int) -> int:
            return 3

        def read(self, path: str, n: int, offset: int, fh: Any) -> bytes:
            sectors = range(offset // SECTOR, -(-(offset + n) // SECTOR))
            if any(int(word) in sectors for word in Path(bad).read_text().split()):
                raise fuse.FuseOSError(errno.EIO)
            return os.pread(fd, n, offset)

    fuse.FUSE(OneFile(), mountpoint, foreground=True, nothreads=True, direct_io=True)


if __name__ == "__main__":
    serve(*sys.argv[1:])
