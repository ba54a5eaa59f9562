"""A small file read whole, whatever has its name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from miniscope_xr.source.regular import read_regular


def test_it_is_read_up_to_its_limit(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"12345")
    assert read_regular(file, 5) == b"12345"
    with pytest.raises(ValueError, match="too large"):
        read_regular(file, 4)


@pytest.mark.skipif(os.name != "posix", reason="pipes and devices as POSIX has them")
def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    before = len(list(Path("/dev/fd").iterdir()))
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(ValueError, match="no regular file"):
            read_regular(path, 10)
    assert len(list(Path("/dev/fd").iterdir())) == before
