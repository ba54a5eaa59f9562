"""Loop devices on our own images: attached and detached by name, never all of them."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests import needs


def _usable() -> bool:
    if not needs.ROOT or not Path("/dev/loop-control").exists() or not shutil.which("losetup"):
        return False
    return subprocess.run(["losetup", "-f"], capture_output=True).returncode == 0


needs_loops = pytest.mark.skipif(not _usable(), reason="needs root and loop devices")


def run(*words: object) -> str:
    return subprocess.run([str(w) for w in words], check=True, capture_output=True, text=True).stdout.strip()


@contextlib.contextmanager
def _alone():
    """One process at a time: a number that is given up for a moment is taken by no other test beside this one."""
    import fcntl  # of POSIX, as loop devices are

    with Path(tempfile.gettempdir(), "miniscope-xr-loops.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def attach(*words: object) -> str:
    with _alone():
        return run("losetup", "-f", "--show", *words)


def swap(device: str, image: Path) -> None:
    """Put another image into the same device, as another card into a reader."""
    with _alone():
        detach(device)
        run("losetup", device, image)


def detach(device: str) -> None:
    subprocess.run(["losetup", "-d", device], capture_output=True)


@contextlib.contextmanager
def loop(*words: object):
    """A loop device with these ``losetup`` options."""
    device = attach(*words)
    try:
        yield device
    finally:
        detach(device)
