"""Loop devices on our own images: attached and detached by name, never all of them."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
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


def attach(*words: object) -> str:
    return run("losetup", "-f", "--show", *words)


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
