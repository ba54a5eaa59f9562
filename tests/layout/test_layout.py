"""Layouts: what is accepted, and that a wrong one is named by field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from miniscope_xr import Layout, load_layout
from miniscope_xr.errors import LayoutError
from miniscope_xr.layout import builtin_layouts, layout_names
from miniscope_xr.layout.words import (
    buffer_header_struct,
    config_sector_struct,
    dtype_of,
    footer_struct,
    header_sector_struct,
    parse,
)

MIO = {  # the two layout files mio 0.12.1 ships, as facts: names and word numbers
    "id": "wirefree-sd-layout",
    "mio_model": "mio.models.sdcard.SDLayout",
    "mio_version": "v5.0.0",
    "sectors": {"header": 1022, "config": 1023, "data": 1024, "size": 512},
    **{f"write_key{i}": 226277911 for i in range(4)},
    "word_size": 4,
    "header": {"gain": 4, "led": 5, "ewl": 6, "record_length": 7, "fs": 8, "delay_start": 9, "battery_cutoff": 10},
    "config": {"width": 0, "height": 1, "fs": 2, "buffer_size": 3, "n_buffers_recorded": 4, "n_buffers_dropped": 5},
    "buffer": {
        "linked_list": 1, "frame_num": 2, "buffer_count": 3, "frame_buffer_count": 4, "write_buffer_count": 5,
        "dropped_buffer_count": 6, "timestamp": 7, "write_timestamp": None, "length": 0, "data_length": 8,
        "battery_voltage": None,
    },
}  # fmt: skip


def changed(path: str, value: Any) -> dict[str, Any]:
    """mio's layout with one value changed, or removed with ``...``."""
    layout: dict[str, Any] = yaml.safe_load(yaml.safe_dump(MIO))
    *parents, last = path.split(".")
    at = layout
    for parent in parents:
        at = at[parent]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return layout


@pytest.mark.parametrize("name", sorted(layout_names()))
def test_shipped_layouts_load_by_id_and_alias(name: str) -> None:
    assert name in (load_layout(name).id, *load_layout(name).aliases)


def test_mio_layouts_load_unmodified(tmp_path: Path) -> None:
    battery = {**MIO, "id": "wirefree-sd-layout-battery", "version": "0.1.1"}
    battery["buffer"] = {**MIO["buffer"], "write_timestamp": 9, "battery_voltage": 10}  # type: ignore[dict-item]
    for layout, words in ((MIO, 9), (battery, 11)):
        path = tmp_path / f"{layout['id']}.yaml"
        path.write_text(yaml.safe_dump(layout))
        assert load_layout(path).max_words == load_layout(layout).max_words == words


def test_a_layout_object_passes_through() -> None:
    layout = load_layout("daq-wirefree")
    assert isinstance(layout, Layout)
    assert load_layout(layout) is layout


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("sectors", ..., "sectors: missing"),
        ("sectors.header", ..., "sectors.header: missing"),
        ("sectors.header", "1022", "sectors.header: expected a whole number, found '1022'"),
        ("sectors.data", 1000, "sectors.data: must lie behind"),
        ("sectors.config", 1022, "sectors.config: is the same sector as header"),
        ("sectors.size", 500, "sectors.size: 500 is not a power of two"),
        ("sectors.heder", 3, "sectors.heder: unknown name (did you mean 'header'?)"),
        ("buffer.frame_num", ..., "buffer.frame_num: missing"),
        ("buffer.frame_num", 3, "byte 12 already belongs to"),
        ("buffer.frame_num", -1, "buffer.frame_num: -1 is outside"),
        ("buffer.frame_num", True, "buffer.frame_num: expected a whole number, found True"),
        ("buffer.frame_num", {"word": 2, "type": "uint16"}, "buffer.frame_num: the reader needs this field as uint32"),
        ("buffer", ..., "buffer: give either buffer"),
        ("header.gain", {"word": 4, "minimun": 1}, "header.gain.minimun: unknown name (did you mean 'minimum'?)"),
        ("header.gain", {"word": 4, "byte": 16}, "header.gain: give either word"),
        ("header.gain", {"byte": 17, "type": "uint16"}, "header.gain.byte: 17 is not a multiple"),
        ("header.gain", {"word": 4, "scale": 0}, "header.gain.scale: expected a positive number"),
        ("header.gain", {"word": 4, "choices": [1, 2]}, "header.gain.choices: expected raw values"),
        ("header.gain", 2, "header.gain: byte 8 belongs to the write keys"),
        ("header.gain", 128, "header.gain: 128 is outside 0 to 127"),
        ("config", ..., "config: missing"),
        ("word_size", 2, "word_size: only words of 4 bytes"),
        ("framez", 3, "framez: unknown name (did you mean 'frame'?)"),
    ],
)  # fmt: skip
def test_a_wrong_layout_names_the_field(path: str, value: Any, named: str) -> None:
    with pytest.raises(LayoutError, match="layout wirefree-sd-layout") as error:
        load_layout(changed(path, value))
    assert named in str(error.value)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("v4-wirefre", "did you mean 'v4-wirefree'?"),
        ("no-such.yaml", "cannot be read"),
        (17, "expected an id, a path, a mapping or a Layout"),
    ],
)
def test_a_layout_that_is_not_there_says_what_is(source: Any, said: str) -> None:
    with pytest.raises(LayoutError) as error:
        load_layout(source)
    assert said in str(error.value)


@pytest.mark.parametrize("text", ["", "just text", "[1, 2", "a: b: c", "- 1\n- 2\n", "\x00\x01"])
def test_files_that_are_no_layouts_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    path.write_bytes(text.encode())
    with pytest.raises(LayoutError, match=r"odd\.yaml"):
        load_layout(path)


def test_a_card_image_as_layout_is_refused_quickly(tmp_path: Path) -> None:
    path = tmp_path / "card.yaml"
    with path.open("wb") as file:
        file.truncate(10 << 30)
    with pytest.raises(LayoutError, match="too large"):
        load_layout(path)


def _structs() -> list[Any]:
    found = []
    for layout in builtin_layouts().values():
        found.append(pytest.param(header_sector_struct(layout), id=f"{layout.id}-header"))
        if layout.buffer:
            found.append(pytest.param(config_sector_struct(layout), id=f"{layout.id}-config"))
            for words in layout.header_words:
                found.append(pytest.param(buffer_header_struct(layout, words), id=f"{layout.id}-buffer-{words}"))
        else:
            found.append(pytest.param(footer_struct(layout), id=f"{layout.id}-footer"))
    return found


@pytest.mark.parametrize("struct", _structs())
@given(data=st.data())
def test_the_numpy_dtype_reads_what_construct_reads_and_builds(struct: Any, data: st.DataObject) -> None:
    dtype = dtype_of(struct)
    raw = data.draw(st.binary(min_size=dtype.itemsize, max_size=dtype.itemsize))
    assert struct.sizeof() == dtype.itemsize
    parsed = parse(struct, raw)
    record = np.frombuffer(raw, dtype)[0]
    assert {name: record[name].item() for name in dtype.names or ()} == parsed
    assert struct.build(parsed) == raw


def test_fields_a_header_is_too_short_for_are_absent() -> None:
    layout = load_layout("v4-wirefree")
    assert {"write_timestamp", "battery_voltage", "ewl"} <= set(layout.fields_for(12))
    assert "ewl" not in layout.fields_for(11)
    assert "battery_voltage" not in layout.fields_for(10)
    assert "write_timestamp" not in layout.fields_for(9)
