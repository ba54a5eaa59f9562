"""Folders in memory where there are some: thousands of journals need no disk."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest


@pytest.fixture
def ram_path(tmp_path):
    shm = Path("/dev/shm")
    if not shm.is_dir():
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(prefix="miniscope-xr-", dir=shm))
    yield folder
    shutil.rmtree(folder)
