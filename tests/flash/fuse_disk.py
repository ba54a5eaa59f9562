"""A file system of one file, which is a faulty disk. Run as a process: killing it pulls the reader.

Lines on stdin: ``arm MEDIA JSON`` loads the media from a file and sets the fault, ``dump PATH`` writes what is on it,
``log PATH`` the operations since it was armed, ``bad [n,m]`` makes sectors unreadable. Each is answered by ``ok``.
"""

from __future__ import annotations

import errno
import json
import stat
import sys
import threading
from pathlib import Path

import mfusepy as fuse

from .fakes import Fault, FaultDisk, Killed


class OneFile(fuse.Operations):
    """``/disk``; operations of the disk count from the moment it is armed."""

    use_ns = True

    def __init__(self, media: bytes) -> None:
        self.disk = FaultDisk(media)
        self.guard = threading.Lock()

    def getattr(self, path, fh=None):
        if path == "/":
            return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2}
        if path != "/disk":
            raise fuse.FuseOSError(errno.ENOENT)
        return {"st_mode": stat.S_IFREG | 0o600, "st_nlink": 1, "st_size": self.disk.size}

    def readdir(self, path, fh):
        return [".", "..", "disk"]

    def open(self, path, flags):
        return 3

    def _try(self, act):
        with self.guard:
            try:
                return act()
            except (OSError, Killed):
                raise fuse.FuseOSError(errno.EIO) from None

    def read(self, path, size, offset, fh):
        return self._try(lambda: self.disk.read(offset, min(size, self.disk.size - offset)))

    def write(self, path, data, offset, fh):
        self._try(lambda: self.disk.write(offset, data))
        return len(data)

    def fsync(self, path, datasync, fh):
        self._try(self.disk.flush)
        return 0

    def flush(self, path, fh):
        return 0

    def truncate(self, path, length, fh=None):
        raise fuse.FuseOSError(errno.EPERM)

    def listen(self):
        for line in sys.stdin:
            verb, path, *rest = line.rstrip("\n").split(" ", 2)
            with self.guard:
                if verb == "arm":
                    self.disk = FaultDisk(Path(path).read_bytes(), Fault(**json.loads(rest[0])))
                elif verb == "bad":
                    self.disk.bad = set(json.loads(path))
                elif verb == "dump":
                    Path(path).write_bytes(self.disk.view())
                else:
                    Path(path).write_text(json.dumps(self.disk.log))
            print("ok", flush=True)


def main() -> None:
    mountpoint, media = sys.argv[1:]
    files = OneFile(Path(media).read_bytes())
    threading.Thread(target=files.listen, daemon=True).start()
    fuse.FUSE(files, mountpoint, foreground=True, nothreads=True, direct_io=True)


if __name__ == "__main__":
    main()
