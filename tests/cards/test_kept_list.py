"""A card prepared with ``--keep``: the list of old buffers shows where the new recording ends."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import pytest

from miniscope_xr import SDCard
from miniscope_xr.card import OpenCard
from miniscope_xr.tools.cli import main
from miniscope_xr.tools.simulate import PowerLoss, SimulatedCard, simulate

CLOCK = {"start_offset_ms": 20.0, "jitter_ms": 0.0, "clock_ppm": 0.0}
HEADER = {"v4-wirefree": slice(1022 * 512, 1023 * 512), "v3-wirefree": slice(1023 * 512, 1024 * 512)}

seen: list[str] = []  # what was opened or listed while ``looking``, as the interpreter tells
looking = False


def _note(event: str, args: tuple[Any, ...]) -> None:
    if looking and event in ("open", "os.listdir", "os.scandir") and isinstance(args[0], str | os.PathLike):
        seen.append(os.fspath(args[0]))


sys.addaudithook(_note)


@pytest.fixture
def backups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This computer's folder for backups and lists; Windows asks its shell for it, not the environment."""
    monkeypatch.setattr(platformdirs, "user_data_path", lambda name, **_: tmp_path / "home" / name)
    return tmp_path / "home"


def kept_and_recorded_on(
    layout: str, path: Path, capsys: pytest.CaptureFixture[str], frames: int = 40
) -> SimulatedCard:
    """Prepare a used card with ``--keep`` and record on it until the power goes."""
    simulate(layout, frames=60, seed=1, **CLOCK).write(path)
    words = [str(path), "--image", "--yes", "--keep", "--json", "record_length=2"]
    main(["info", str(path), "--json"])
    card_id = json.loads(capsys.readouterr().out)["card_id"]
    assert main(["prepare", *words, "--card", card_id]) == 0, capsys.readouterr()
    prepared = path.read_bytes()
    event = PowerLoss(buffer=23, torn_sectors=0)
    new = simulate(layout, frames=frames, seed=2, under=prepared, events=[event], **CLOCK)
    data = bytearray(new.data)
    data[HEADER[layout]] = prepared[HEADER[layout]]  # the firmware leaves the settings sector alone
    path.write_bytes(data)
    return new


@pytest.mark.usefixtures("backups")
@pytest.mark.parametrize("layout", ["v4-wirefree", "v3-wirefree"])
def test_the_reader_cuts_the_recording_where_the_list_says(
    layout: str, tmp_path: Path, open_card: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "card.img"
    frame_num, video, _ = kept_and_recorded_on(layout, path, capsys).expected()
    ds = open_card(path)
    np.testing.assert_array_equal(ds.frame_num, frame_num)
    np.testing.assert_array_equal(ds.video, video)
    assert "listed when the card was prepared" in ds.attrs["warnings"][0]


@pytest.mark.parametrize("layout", ["v4-wirefree", "v3-wirefree"])
def test_without_the_list_a_card_is_what_it_is_on_any_other_computer(
    layout: str, tmp_path: Path, backups: Path, open_card: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "card.img"
    kept_and_recorded_on(layout, path, capsys)
    alone = open_card(path, old_buffers=False)
    with SDCard(path, old_buffers=False) as cursor:
        assert cursor.frame_count == alone.sizes["frame"]
    assert not any("listed" in said for said in alone.attrs.get("warnings", []))
    [saved] = backups.rglob("lists/*.npz")
    saved.unlink()
    elsewhere = open_card(path)
    assert elsewhere.attrs == alone.attrs
    np.testing.assert_array_equal(elsewhere.frame_num, alone.frame_num)


@pytest.mark.usefixtures("backups")
def test_a_list_that_finds_nothing_old_says_that_it_was_used(
    tmp_path: Path, open_card: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "card.img"
    kept_and_recorded_on("v4-wirefree", path, capsys)
    ended = open_card(path).sizes["frame"]
    data = bytearray(path.read_bytes())
    del data[(1024 + 100 * ended) * 512 :]  # a frame of five buffers takes more sectors than this
    path.write_bytes(data)
    said = open_card(path).attrs["warnings"]
    assert any("nothing listed when the card was prepared lies behind" in each for each in said)


def test_opening_looks_at_one_file_however_many_backups_there_are(
    tmp_path: Path, backups: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "card.img"
    kept_and_recorded_on("v4-wirefree", path, capsys)
    [saved] = backups.rglob("lists/*.npz")

    def looked_at() -> list[str]:
        global looking
        seen.clear()
        looking = True
        OpenCard(path).close()
        looking = False
        return sorted(name for name in seen if str(backups) in name)

    assert looked_at() == [str(saved)]
    journals = next(file for file in backups.rglob("*") if file.is_file() and file.parent != saved.parent).parent
    for k in range(300):
        (saved.parent / f"{k:032x}.npz").write_bytes(saved.read_bytes())
        (journals / f"other-{k}.json").write_text("{}")
    assert looked_at() == [str(saved)]
