"""Header fields as coordinates: scaled, signed, bits of a word, "not measured"; settings in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from miniscope_xr.errors import LayoutError
from miniscope_xr.layout.stamp import first_hash, stamped
from miniscope_xr.tools.simulate import simulate

SMALL = {"width": 64, "height": 1000}
NEEDED = {
    "length": 0, "frame_num": 2, "buffer_count": 3, "frame_buffer_count": 4, "write_buffer_count": 5,
    "dropped_buffer_count": 6, "timestamp": 7, "data_length": 8,
}  # fmt: skip
CONFIG = {"width": 0, "height": 1, "fs": 2, "buffer_size": 3, "n_buffers_recorded": 4, "n_buffers_dropped": 5}


def own_layout(**fields: Any) -> dict[str, Any]:
    return {
        "id": "ours", "sectors": {"header": 1022, "config": 1023, "data": 1024}, "header": {"gain": 4},
        "config": CONFIG, "buffer": {**NEEDED, **fields},
    }  # fmt: skip


@pytest.fixture
def telemetry(make_card: Any) -> Any:
    """A card whose word 10 holds a signed temperature in bits 0-15 and a battery in bits 16-23."""
    path, card = make_card(frames=4, **SMALL)
    data = bytearray(path.read_bytes())
    raw = [-500, 0x7FFF, 2300, -1]
    for buffer in card.buffers:
        word = raw[buffer.frame_num] & 0xFFFF | (100 + buffer.frame_num) << 16 | 0xAB << 24
        at = buffer.sector * 512 + 40
        data[at : at + 4] = word.to_bytes(4, "little")
    path.write_bytes(data)
    return path, raw


def test_bits_signs_and_what_was_not_measured(telemetry: Any, open_card: Any) -> None:
    path, raw = telemetry
    layout = own_layout(
        temperature={"word": 10, "bits": [0, 15], "type": "int32", "scale": 0.01, "units": "degC", "none": 0x7FFF},
        battery={"word": 10, "bits": [16, 23]},
    )
    ds = open_card(path, layout=layout)
    np.testing.assert_allclose(ds.temperature, [-5.0, np.nan, 23.0, -0.01])
    assert ds.temperature.attrs["units"] == "degC"
    np.testing.assert_array_equal(ds.battery, [100, 101, 102, 103])
    plain = open_card(path, layout=layout, mask_and_scale=False)
    np.testing.assert_array_equal(plain.temperature, raw)
    assert plain.temperature.dtype == np.int32
    assert (plain.temperature.attrs["scale_factor"], plain.temperature.attrs["missing_value"]) == (0.01, 0x7FFF)
    table = open_card(path, layout=layout, group="buffers")
    np.testing.assert_allclose(table.temperature[::4], [-5.0, np.nan, 23.0, -0.01])
    np.testing.assert_array_equal(table.word_10[::4] >> 24, 0xAB)


@pytest.mark.parametrize("name", ["video", "time", "complete", "frame", "buffer", "sector"])
def test_a_field_cannot_be_called_what_every_dataset_has(name: str, make_card: Any, open_card: Any) -> None:
    path, _ = make_card(frames=2, **SMALL)
    with pytest.raises(LayoutError, match="something of this name already"):
        open_card(path, layout=own_layout(**{name: 9}))


def test_codes_are_said_in_words(make_card: Any, open_card: Any) -> None:
    path, _ = make_card(frames=3, settings={"gain": 4, "led": 7}, **SMALL)
    attrs = open_card(path).attrs
    assert (attrs["gain"], attrs["gain_meaning"], attrs["led"]) == (4, "3.5x", 7)
    assert "led_meaning" not in attrs
    assert "fs_meaning" not in attrs


def changed(damaged: bool = False) -> tuple[bytes, dict[str, int]]:
    """A recorded card on which `set` wrote another LED setting for the next recording."""
    card = simulate(frames=3, settings={"led": 7, "gain": 2}, **SMALL)
    data = bytearray(card.data)
    place = slice(1022 * 512, 1023 * 512)
    first = bytes(data[1024 * 512 : 1025 * 512])
    header = bytearray(data[place])
    led = card.spec.layout.header["led"].offset
    header[led : led + 4] = (55).to_bytes(4, "little")
    new = bytearray(
        stamped(bytes(header), bytes(16), "v4-wirefree", 0, kept=bytes(data[place])[:128], first=first_hash(first))
    )
    if damaged:
        new[300] ^= 1
    data[place] = new
    return bytes(data), {"led": 7, "gain": 2}


def test_a_recording_keeps_the_settings_it_was_made_with(tmp_path: Any, open_card: Any) -> None:
    data, settings = changed()
    path = tmp_path / "set.img"
    path.write_bytes(data)
    assert open_card(path).attrs.items() >= settings.items()
    path.write_bytes(simulate(frames=4, settings={"led": 55}, seed=8, **SMALL).data[: 1024 * 512] + data[1024 * 512 :])
    assert open_card(path).attrs["led"] == 55


def test_settings_that_cannot_be_known_are_left_out_and_said(tmp_path: Any, open_card: Any) -> None:
    path = tmp_path / "set.img"
    path.write_bytes(changed(damaged=True)[0])
    attrs = open_card(path).attrs
    assert "led" not in attrs
    assert "gain" not in attrs
    assert any("what it was made with is not known" in said for said in attrs["warnings"])
