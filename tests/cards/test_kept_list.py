"""A card prepared with ``--keep``: the list of old buffers shows where the new recording ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from miniscope_xr.tools.cli import main
from miniscope_xr.tools.simulate import PowerLoss, simulate

HEADER = {"v4-wirefree": slice(1022 * 512, 1023 * 512), "v3-wirefree": slice(1023 * 512, 1024 * 512)}


@pytest.fixture
def backups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This computer's folder for backups."""
    for name in ("XDG_DATA_HOME", "XDG_STATE_HOME", "HOME", "LOCALAPPDATA", "APPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize("layout", ["v4-wirefree", "v3-wirefree"])
def test_the_reader_cuts_the_recording_where_the_list_says(
    layout: str, tmp_path: Path, backups: Path, open_card: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "card.img"
    clock = {"start_offset_ms": 20.0, "jitter_ms": 0.0, "clock_ppm": 0.0}
    simulate(layout, frames=60, seed=1, **clock).write(path)
    words = [str(path), "--image", "--yes", "--keep", "--json", "record_length=2"]
    main(["info", str(path), "--json"])
    card_id = json.loads(capsys.readouterr().out)["card_id"]
    assert main(["prepare", *words, "--card", card_id]) == 0, capsys.readouterr()
    prepared = path.read_bytes()
    event = PowerLoss(buffer=23, torn_sectors=0)
    new = simulate(layout, frames=40, seed=2, under=prepared, events=[event], **clock)
    data = bytearray(new.data)
    data[HEADER[layout]] = prepared[HEADER[layout]]  # the firmware leaves the settings sector alone
    path.write_bytes(data)
    frame_num, video, _ = new.expected()
    ds = open_card(path)
    np.testing.assert_array_equal(ds.frame_num, frame_num)
    np.testing.assert_array_equal(ds.video, video)
    if layout == "v4-wirefree":
        assert "listed when the card was prepared" in ds.attrs["warnings"][0]
