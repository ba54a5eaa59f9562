"""Windows, as it is while another program has a file open: renames are refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from miniscope_xr.source import replace as replacing


class Refused(PermissionError):
    """What Windows says of a file that is open."""

    winerror = 32


def refuse_renames(monkeypatch: pytest.MonkeyPatch, left: list[int]) -> None:
    """Have the next renames refused, ``left[0]`` of them."""
    real = os.replace

    def refuses(made: Path, final: Path) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise Refused(13, "used by another process")
        real(made, final)

    monkeypatch.setattr(replacing.os, "replace", refuses)
    monkeypatch.setattr(replacing, "_PATIENCE", 0.3)
