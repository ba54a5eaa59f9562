"""What a test needs of the system it runs on: each kind once, with its one reason."""

from __future__ import annotations

import os

import pytest

ROOT = hasattr(os, "geteuid") and os.geteuid() == 0

fifos = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are of POSIX")
links = pytest.mark.skipif(os.name != "posix", reason="links need a special right on Windows")
root = pytest.mark.skipif(not ROOT, reason="needs root")


def program(path: str) -> pytest.MarkDecorator:
    """A program of Linux; under Wine its file is there, too, and cannot be run."""
    name = os.path.basename(path)  # noqa: PTH119
    return pytest.mark.skipif(os.name != "posix" or not os.path.exists(path), reason=f"needs {name}")  # noqa: PTH110


posix_names = pytest.mark.skipif(os.name != "posix", reason="a name that Windows forbids")
