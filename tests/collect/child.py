"""Runs commands, each in a fork of its own that kills itself at a chosen moment.

Reads lines of JSON, ``[words, moment]``; answers the fork's exit code (negative: killed by that signal) and how many
moments it had. A moment is any time a file is opened, renamed, removed, put on the disk or half written.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import threading
from multiprocessing.sharedctypes import RawValue
from pathlib import Path
from typing import Any

import h5py  # noqa: F401 (so that no fork imports it)
import PIL.Image  # noqa: F401
import tifffile  # noqa: F401
import zarr  # noqa: F401

from miniscope_xr.tools.cli.program import main as command
from miniscope_xr.tools.copy import image, part
from miniscope_xr.tools.export import hdf5, tiff, zarr_store  # noqa: F401

NAMES = Path("modules")
EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "collect.moment"}


def run(words: list[str], kill_at: int, moments: Any) -> int:
    one = threading.Lock()

    def moment(event: str, args: Any) -> None:
        if event in EVENTS:
            with one:
                moments.value += 1
                if moments.value == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

    fsync, write = os.fsync, part._write

    def synced(fd: int) -> None:
        sys.audit("collect.moment")
        fsync(fd)

    def written(file: Any, at: int, data: bytes) -> None:
        half = len(data) // 2 // 512 * 512
        write(file, at, data[:half])
        sys.audit("collect.moment")
        write(file, at + half, data[half:])

    os.fsync, part._write = synced, written
    part.STEP, part._SAVE_EVERY = 256 << 10, 512 << 10
    image.STEP = part.STEP
    sys.addaudithook(moment)
    return command(words)


def main() -> None:
    for line in sys.stdin:
        words, kill_at = json.loads(line)
        moments = RawValue("l", 0)
        pid = os.fork()
        if not pid:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(1, 2)
            ended = run(words, kill_at, moments)
            NAMES.write_text("\n".join(sys.modules))
            os._exit(ended)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code >= 0 and not kill_at:  # what this one imported, the next ones have
            for name in NAMES.read_text().split():
                with contextlib.suppress(Exception):
                    importlib.import_module(name)
        print(json.dumps([code, moments.value]), flush=True)


if __name__ == "__main__":
    main()
