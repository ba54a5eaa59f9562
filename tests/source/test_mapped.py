"""A copy with a map beside it: what could not be read from the card is missing, not black."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from miniscope_xr.errors import CardReadError
from miniscope_xr.source.copy_map import CopyMap, card_marks
from miniscope_xr.source.local import Device
from miniscope_xr.source.open import open_device
from miniscope_xr.tools.copy.image import copy_image
from miniscope_xr.tools.simulate import SimulatedCard

SMALL = {"width": 64, "height": 1000}
Made = tuple[Path, SimulatedCard]


@pytest.fixture
def holed(make_card: Any) -> tuple[Path, SimulatedCard, int]:
    """A copy of a card on which five sectors of frame 7's buffer 2 (and of no other) were unreadable."""
    path, card = make_card(frames=20, **SMALL)
    at = next(b.sector for b in card.buffers if (b.frame_num, b.index) == (7, 2)) + 9
    data = bytearray(path.read_bytes())
    data[at * 512 : (at + 5) * 512] = bytes(5 * 512)
    path.write_bytes(data)
    return path, card, at * 512


def ours(path: Path, at: int) -> str:
    with Device(path) as device:
        return CopyMap(device.size, card_marks(device), device.size, [(at, 5 * 512)]).text()


def ddrescue(path: Path, at: int) -> str:
    size = path.stat().st_size
    rows = [(0, at - 512, "+"), (at - 512, 512, "+"), (at, 512, "-"), (at + 512, 4 * 512, "/")]
    rows.append((at + 5 * 512, size - at - 5 * 512, "+"))
    lines = "\n".join(f"0x{a:08X}  0x{n:08X}  {status}" for a, n, status in rows)
    return f"# Mapfile. Created by GNU ddrescue version 1.27\n# current_pos  current_status\n0x0  ?  1\n{lines}\n"


@pytest.mark.parametrize("name", ["card1.img.map", "card1.map"])
@pytest.mark.parametrize("text", [ours, ddrescue])
def test_unread_sectors_count_as_missing(text: Any, name: str, holed: Any, open_card: Any) -> None:
    path, card, at = holed
    path.with_name(name).write_text(text(path, at))
    _, video, present = card.expected()
    ds = open_card(path)
    np.testing.assert_array_equal(ds.frame_num[~ds.complete], [7])
    present[7] ^= 4
    np.testing.assert_array_equal(ds.buffers_present, present)
    whole = ds.complete.values
    np.testing.assert_array_equal(ds.video[whole], video[whole])
    assert "5 sectors of this recording could not be read when the card was copied" in ds.attrs["warnings"][-1]
    missing = np.isnan(open_card(path, partial="nan").video.values)
    assert missing[7].reshape(-1)[2 * 20432 : 3 * 20432].all()
    assert not missing[whole].any()


def test_a_copy_without_map_or_with_one_of_another_card_is_read_as_it_is(
    holed: Any, make_card: Any, open_card: Any
) -> None:
    path, _, at = holed
    assert open_card(path).complete.all()
    other, _ = make_card(frames=20, seed=9, start_offset_ms=20, **SMALL)
    beside = path.with_name(path.name + ".map")
    for text in (ours(other, at), "no map at all", "0x10 0x20 -\n"):
        beside.write_text(text)
        ds = open_card(path)
        assert ds.complete.all()
        assert "warnings" not in ds.attrs


def test_a_map_that_calls_everything_read_changes_nothing(make_card: Any, tmp_path: Path, open_card: Any) -> None:
    path, card = make_card(frames=8, **SMALL)
    copied = copy_image(str(path), tmp_path / "copy.img")
    assert (tmp_path / "copy.img.map").exists()
    ds = open_card(copied.path)
    np.testing.assert_array_equal(ds.video, card.expected()[1])
    assert "warnings" not in ds.attrs


def test_what_was_never_read_is_an_error_to_read(holed: Any) -> None:
    path, _, at = holed
    path.with_name(path.name + ".map").write_text(ours(path, at))
    source = open_device(path)
    try:
        assert source.unread == [(at, 5 * 512)]
        with pytest.raises(CardReadError, match=rf"sectors {at // 512} to {at // 512 + 4} could not be read"):
            source.read(at - 512, 4096)
        with pytest.raises(CardReadError):
            source.readv(at, [bytearray(16)])
        assert source.gather([0, at + 512], 16) is None
        data, bad = source.salvage(at - 512, 8 * 512)
        assert bad == [(at, 5 * 512)]
        assert data[512 : 6 * 512] == bytes(5 * 512)
        assert len(source.read(at + 5 * 512, 512)) == 512
    finally:
        source.close()
