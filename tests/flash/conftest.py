"""Folders in memory where there are some: thousands of journals need no disk."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import platformdirs
import pytest


@pytest.fixture(autouse=True)
def own_lists(tmp_path_factory, monkeypatch):
    """What a command leaves for readers is not left among the lists of whoever runs the tests."""
    folder = tmp_path_factory.mktemp("data")
    monkeypatch.setenv("XDG_DATA_HOME", str(folder))
    if sys.platform != "linux":  # where another variable, or none, names a person's folder
        where = lambda *words, **options: Path(os.environ["XDG_DATA_HOME"]) / "miniscope-xr"  # noqa: E731
        monkeypatch.setattr(platformdirs, "user_data_path", where)


@pytest.fixture
def ram_path(tmp_path):
    shm = Path("/dev/shm")
    if not shm.is_dir():
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(prefix="miniscope-xr-", dir=shm))
    yield folder
    shutil.rmtree(folder)
