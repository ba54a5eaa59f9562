"""Layouts: what is accepted, and that a wrong one is named by field."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from miniscope_xr import Layout, load_layout
from miniscope_xr.errors import LayoutError, plain
from miniscope_xr.layout import builtin_layouts, layout_names
from miniscope_xr.layout.words import (
    buffer_header_struct,
    dtype_of,
    footer_struct,
    header_sector_struct,
    parse,
    struct_of,
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


@pytest.mark.parametrize("at", ["header.gain", "header_words", "builds", "write_keys", "header.gain.choices", "id"])
def test_a_few_lines_that_stand_for_gigabytes_are_refused_at_once(at: str, tmp_path: Path) -> None:
    bomb = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    bomb += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, 10)]
    text = yaml.safe_dump(changed(at if at.count(".") < 2 else "header.gain", "BOMB")).replace("BOMB", "*a9")
    path = tmp_path / "bomb.yaml"
    path.write_text("\n".join(bomb) + "\n" + text)
    started = time.process_time()
    with pytest.raises(LayoutError, match="repeats itself by aliases") as error:
        load_layout(path)
    assert len(str(error.value)) < 300
    assert time.process_time() - started < 5


@pytest.mark.parametrize("word", ["\x1b[2Jv4\r", "a\x07", "\x9b31m", "v4\u202egpj"])
@pytest.mark.parametrize("at", ["id", "description", "header.gain", "aliases", "a key"])
def test_words_that_a_terminal_would_obey_are_refused(at: str, word: str, tmp_path: Path) -> None:
    """A layout may be somebody else's, and its words are printed: also those of a file that looks like any other."""
    path = tmp_path / "evil.yaml"
    value = {"aliases": [word], "header.gain": {"word": 1, "description": word}}.get(at, word)
    odd = {**MIO, "header": {**MIO["header"], word: {"word": 5}}} if at == "a key" else changed(at, value)
    path.write_text(yaml.safe_dump(odd))
    with pytest.raises(LayoutError, match="holds characters that no terminal shows") as error:
        load_layout(path)
    assert plain(error.value) == str(error.value) or at == "a key"
    path.write_text(yaml.safe_dump(changed("description", "UCLA Miniscope: \N{MICRO SIGN}m, 25 \N{DEGREE SIGN}\nV4")))
    assert load_layout(path).max_words


@pytest.mark.parametrize(("text", "said"), [("[" * 20000, "nested too deeply"), ("id: " + "9" * 6000, "6000 digits")])
def test_what_a_parser_says_to_programmers_is_left_out(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    with pytest.raises(LayoutError, match=said) as error:
        load_layout(path)
    assert "Python" not in str(error.value)
    assert "sys." not in str(error.value)


def test_aliases_that_repeat_little_are_fine_and_endless_ones_are_not(tmp_path: Path) -> None:
    path = tmp_path / "alias.yaml"
    text = yaml.safe_dump({k: v for k, v in MIO.items() if k != "builds"})
    path.write_text(text + "builds:\n- &one {width: 304, height: 304}\n- {<<: *one, ring: 8}\n")
    assert [b.ring for b in load_layout(path).builds] == [0, 8]
    path.write_text(text + "aliases: &me [a, *me]\n")
    with pytest.raises(LayoutError, match="repeats itself"):
        load_layout(path)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param({"x": list(range(10**6))}, id="mapping"),
        pytest.param([[[["deep"] * 1000] * 1000] * 1000], id="nested"),
        pytest.param("long" * 10**6, id="text"),
        pytest.param(10**5000, id="number"),
        pytest.param({"a" * 10**6: 1}, id="name"),
    ],
)
@pytest.mark.parametrize("at", ["sectors", "header.gain", "builds", "id", "sectors.data", "header.gain.choices"])
def test_a_message_is_short_however_large_the_value(at: str, value: Any) -> None:
    layout = changed(at.removesuffix(".choices"), value)
    if at.endswith("choices"):
        layout["header"]["gain"] = {"word": 4, "choices": value}
    with pytest.raises(LayoutError) as error:
        load_layout(layout) if at != "id" or not isinstance(value, str) else load_layout(changed("framez", value))
    assert len(str(error.value)) < 1000


def test_what_a_build_does_not_say_is_as_on_most() -> None:
    said = {"width": 304, "height": 304, "driver_timeout": 20, "failed_writes": 40, "remote_edge": [3, 5]}
    first, second = load_layout(changed("builds", [{"width": 304, "height": 304}, said])).builds
    assert (first.driver_timeout, first.failed_writes, first.remote_edge) == ((0, 0), 16, (10, 14))
    assert (second.driver_timeout, second.failed_writes, second.remote_edge) == ((20, 20), 40, (3, 5))


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
        ("sectors.size", 1024, "sectors.size: a sector is 512 bytes on every SD card, found 1024; leave size out"),
        ("sectors.size", 512.5, "sectors.size: a sector is 512 bytes"),
        ("sectors.heder", 3, "sectors.heder: unknown name (did you mean 'header'?)"),
        ("buffer.frame_num", ..., "buffer.frame_num: missing"),
        ("buffer.frame_num", 3, "byte 12 already belongs to"),
        ("buffer.frame_num", -1, "buffer.frame_num: -1 is outside"),
        ("buffer.frame_num", True, "buffer.frame_num: expected a whole number, found True"),
        ("buffer.frame_num", {"word": 2, "type": "uint16"}, "buffer.frame_num: the reader needs this field as uint32"),
        ("buffer.video", 9, "buffer.video: every dataset has something of this name already"),
        ("buffer.frame", 9, "buffer.frame: every dataset has something of this name already"),
        ("buffer.time", 9, "buffer.time: every dataset has something of this name already"),
        ("buffer.complete", 9, "buffer.complete: every dataset has something of this name already"),
        ("header.warnings", 9, "header.warnings: every dataset has something of this name already"),
        ("buffer.ewl", {"word": 9, "bits": [3, 2]}, "buffer.ewl.bits: the first bit (3) is above the last (2)"),
        ("buffer.ewl", {"word": 9, "bits": [0, 32]}, "buffer.ewl.bits[1]: 32 is outside 0 to 31"),
        ("buffer.ewl", {"word": 9, "type": "int16", "bits": [0, 7]}, "buffer.ewl.bits: bits are those of a whole word"),
        ("buffer.ewl", {"word": 8, "bits": [0, 7]}, "buffer.ewl: byte 32 already belongs to 'data_length'"),
        ("buffer.ewl", {"word": 9, "type": "int33"}, "buffer.ewl.type: expected one of uint32, uint16"),
        ("buffer.ewl", {"word": 9, "minimum": 5, "maximum": 4}, "buffer.ewl.maximum: lies below the minimum 5"),
        ("header.gain", {"word": 4, "choices": {1: "1x"}, "otherwise": 2}, "header.gain.otherwise: 2 is none of the"),
        ("buffer.frame_num", {"word": 2, "bits": [0, 15]}, "buffer.frame_num: the reader needs this field as uint32"),
        ("builds", [{"width": 304}], "builds[0].height: missing or zero"),
        ("builds", [{"width": 304, "height": 304, "rin": 8}], "builds[0].rin: unknown name (did you mean 'ring'?)"),
        ("builds", [{"width": 304, "height": 304, "overflow": "x"}], "builds[0].overflow: expected one of lap, pool"),
        ("builds", [{"width": 9, "height": 9, "remote_edge": [14, 10]}], "remote_edge: the least (14) is above"),
        ("builds", [{"width": 9, "height": 9, "remote_edge": 13}], "remote_edge: expected a list of two numbers"),
        ("builds", [{"width": 9, "height": 9, "failed_writes": 0}], "builds[0].failed_writes: 0 is outside 1 to 4096"),
        ("builds", [{"width": 9, "height": 9, "driver_timeout": -1}], "builds[0].driver_timeout[0]: -1 is outside"),
        ("buffer.ewl", {"word": 9, "noise": "much"}, "buffer.ewl.noise: expected a whole number, found 'much'"),
        ("builds", [{"width": 304, "height": 304, "header_words": 12}], "builds[0].buffer_sectors: 0 sectors hold no"),
        ("builds", [{"width": 3, "height": 3, "buffer": {"timestamp": None}}], "builds[0].buffer.timestamp: missing"),
        ("builds", [{"width": 3, "height": 3, "repeats": ["ewl"]}], "builds[0].repeats: 'ewl' is not both a setting"),
        ("record", {"field": "x", "length": 4, "start": 1, "total": 0, "fields": {}}, "record.field: no buffer field"),
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
            found.append(pytest.param(struct_of(layout.config, 512), id=f"{layout.id}-config"))
            for words in layout.header_words:
                found.append(pytest.param(buffer_header_struct(layout, words), id=f"{layout.id}-buffer-{words}"))
        else:
            found.append(pytest.param(footer_struct(layout), id=f"{layout.id}-footer"))
    return found


@pytest.mark.slow
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


@pytest.mark.skipif(os.name != "posix", reason="pipes and devices as POSIX has them")
def test_a_layout_that_never_ends_is_refused(tmp_path: Path) -> None:
    """A pipe without a writer would be waited for, and /dev/zero filled the memory."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", "/dev/null"):
        with pytest.raises(LayoutError, match="is no regular file"):
            load_layout(path)
