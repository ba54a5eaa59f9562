"""Fields of a header: bits of words, signs, scales, what is not measured, and records spread over buffers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniscope_xr.layout import Build, Field, builtin_layouts, load_layout
from miniscope_xr.layout.schema import BUILD, FIELD, LAYOUT, RECORD, SECTORS
from miniscope_xr.layout.tell import contradictions, fits
from miniscope_xr.layout.words import (
    buffer_header_dtype,
    buffer_header_struct,
    parse,
    part_of,
    physical,
    put,
    read_record,
    value,
    value_dtype,
    values,
)
from tests.conftest import real_cards, real_names

SAMD = load_layout("samd-framework")
V4 = load_layout("v4-wirefree")
NEW = load_layout("v4-wirefree-2026")
EVERY = [(layout, build) for layout in builtin_layouts().values() if layout.buffer for build in layout.builds]


def build_of(layout: Any, firmware: str) -> Build:
    return next(b for b in layout.builds if b.firmware == firmware)


@pytest.mark.parametrize(
    ("item", "word", "wanted"),
    [
        (Field("t", 4, "int32"), 0xFFFFFF81, -127),
        (Field("t", 4, "int32", bits=(0, 15)), 0x00128000, -32768),
        (Field("t", 4, "int32", bits=(0, 15)), 0x00127FFF, 32767),
        (Field("s", 4, bits=(16, 23)), 0x00128000, 0x12),
        (Field("c", 4, bits=(8, 31)), 0xFFFFFF05, 0xFFFFFF),
        (Field("v", 4, bits=(0, 31)), 0xFFFFFFFF, 0xFFFFFFFF),
        (Field("v", 4, "int32", bits=(31, 31)), 0x80000000, -1),
    ],
)
def test_a_field_is_taken_out_of_its_word(item: Field, word: int, wanted: int) -> None:
    data = bytes(4) + word.to_bytes(4, "little")
    kind = "<i4" if item.signed and not item.bits else "<u4"
    array = np.frombuffer(data, np.dtype([("first", "<u4"), (part_of(item), kind)]))
    assert value(item, array).tolist() == [wanted]
    assert value(item, array).dtype == value_dtype(item)
    assert value(item, {part_of(item): int(array[part_of(item)][0])}) == wanted


def test_what_is_not_measured_is_nan_and_the_rest_in_units() -> None:
    item = SAMD.buffer["mcu_temperature"]
    np.testing.assert_array_equal(physical(item, np.array([-127, 0x7FFFFFFF, 2350], np.int32)), [-1.27, np.nan, 23.5])
    own = SAMD.of(build_of(SAMD, "14 words")).buffer["mcu_temperature"]
    assert np.isnan(physical(own, np.array([0x7FFF], np.int32))).all()
    battery = NEW.buffer["battery_voltage"]
    assert physical(battery, 2110) == pytest.approx(2110 / 4095 * 1.65 * 5)


def test_a_code_means_what_the_build_makes_of_it() -> None:
    assert [V4.header["gain"].means(raw) for raw in (1, 2, 4, 3)] == ["1x", "2x", "3.5x", "1x"]
    gain, fs = NEW.header["gain"], NEW.header["fs"]
    assert [gain.means(raw) for raw in (1, 2, 4)] == ["2x", "3.5x", "unchanged, 2x after power-on"]
    assert [fs.means(raw) for raw in (0, 10, 25)] == ["30", "10", "20"]
    assert V4.header["led"].means(30) == "30"


@given(st.sampled_from([(layout.id, build.firmware) for layout, build in EVERY]), st.data())
def test_put_and_value_are_each_others_inverse(which: tuple[str, str], data: st.DataObject) -> None:
    layout = builtin_layouts()[which[0]]
    build = build_of(layout, which[1])
    own = layout.of(build)
    fields = own.fields_for(build.header_words)
    given_values = {}
    for name, item in fields.items():
        lowest = -(1 << item.width - 1) if item.signed else 0
        given_values[name] = data.draw(st.integers(lowest, lowest + (1 << item.width) - 1))
    block = bytearray(4 * build.header_words)
    put(block, fields, given_values)
    struct = buffer_header_struct(own, build.header_words)
    assert values(fields, parse(struct, bytes(block))) == given_values
    rows = np.frombuffer(bytes(block), buffer_header_dtype(own, build.header_words))
    assert {name: int(column[0]) for name, column in values(fields, rows).items()} == given_values
    parsed = struct.parse(bytes(block))
    assert values(fields, {k: parsed[k] for k in parse(struct, bytes(block))}) == given_values


def record_bytes(**fields: int) -> list[int]:
    record = SAMD.record
    assert record is not None
    block = bytearray(record.length)
    block[0] = record.start
    put(block, record.fields, fields)
    block[-1] = (record.total - sum(block)) % 256
    return list(block)


def test_a_version_record_comes_out_of_any_32_buffers_in_a_row() -> None:
    record = SAMD.record
    assert record is not None
    data = np.array(record_bytes(width=200, height=152, ring=8, version_minor=5))
    counts = np.arange(1000, 1040)
    found = read_record(record, counts, data[counts % 32])
    assert found is not None
    assert (found["width"], found["height"], found["ring"], found["version_minor"]) == (200, 152, 8, 5)
    assert read_record(record, counts[:31], data[counts[:31] % 32]) is None, "a byte is missing"
    bad = data[counts % 32].copy()
    bad[3] ^= 1
    assert read_record(record, counts, bad) is None, "a byte is contradicted"
    assert read_record(record, counts[:32], bad[:32]) is None, "the sum is wrong"


def headers(name: str, first: int = 0, n: int = 24) -> tuple[Any, Any, dict[str, int]]:
    cards = real_cards()
    assert cards is not None
    truth = cards.truth(name)
    rows = [b for b in truth["buffers"] if b["status"] == "good"][first : first + n]
    sectors = np.array([b["offset"] // 512 for b in rows])
    words = np.array([b["words"] for b in rows], np.uint32)
    settings = truth["header_sector"]
    return words, sectors, {"ewl": settings[6]}


WRITTEN_BY = {  # the first that nothing contradicts is the one that wrote the card
    "u0": ("v4-wirefree-2026", "e3f18b5"), "u1": ("v4-wirefree-2026", "e3f18b5"),
    "u21": ("samd-framework", "12 words, temperature"), "u23": ("samd-framework", "13 words"),
    "i": ("daq-wirefree", "HEAD"), "t53": ("daq-wirefree", "HEAD"), "c_": ("v4-wirefree", "battery"),
    "d1": ("v4-wirefree", "f70f880"), "t55": ("v4-wirefree", "f70f880"), "t56": ("v4-wirefree", "3787c5c"),
}  # fmt: skip


@pytest.mark.parametrize("name", real_names())
def test_the_build_that_wrote_a_real_card_is_told_by_its_buffers(name: str) -> None:
    cards = real_cards()
    assert cards is not None
    if not cards.truth(name)["buffers"]:
        pytest.skip("v3: no buffers")
    longest = max((k for k in WRITTEN_BY if name.startswith(k)), key=len, default="")
    wanted = WRITTEN_BY.get(longest, ("v4-wirefree", "HEAD"))
    layout, build = next(each for each in EVERY if fits(*each, *headers(name)))
    assert (layout.id, build.firmware) == wanted
    there = [(lay, b) for lay, b in EVERY if lay.sectors == layout.sectors]
    first = next(each for each in there if fits(*each, *headers(name, 0, 1)))
    assert first[0].id == wanted[0], "one header is enough for the layout"


def test_one_flipped_bit_contradicts_no_build() -> None:
    words = np.zeros((24, 12), np.uint32)
    words[:] = [12, 0, 0, 0, 0, 0, 0, 20, 20432, 21, 180, 64]
    words[:, 3] = words[:, 5] = np.arange(24)
    words[:, 2], words[:, 4] = np.divmod(np.arange(24), 5)
    words[:, 1] = words[:, 3] % 8
    words[words[:, 4] == 4, 8] = 10688
    words[:, 7] = 20 + 10 * np.arange(24)
    words[:, 9] = words[:, 7] + 1
    steps = np.where(words[:, 4] == 4, 21, 40)
    sectors = 1024 + np.concatenate(([0], np.cumsum(steps)[:-1]))
    head = build_of(V4, "HEAD")
    assert list(contradictions(V4, head, words, sectors)) == []
    words[5, 10] |= 1 << 20
    assert list(contradictions(V4, head, words, sectors)) == []
    assert "battery_voltage is not within 1024 to 4095" in list(contradictions(NEW, NEW.builds[0], words, sectors))
    words[:, 10] = 2110
    assert list(contradictions(V4, head, words, sectors)) == ["battery_voltage is not within 0 to 255"]
    found = contradictions(NEW, NEW.builds[0], words, sectors)
    assert list(found) == ["buffers do not follow each other whole buffers"]


def test_every_key_of_the_schema_is_documented() -> None:
    docs = (Path(__file__).resolve().parents[2] / "docs" / "layouts.md").read_text()
    keys = {*LAYOUT.checks, *SECTORS.checks, *FIELD.checks, *BUILD.checks, *RECORD.checks}
    keys -= {"write_key1", "write_key2"}
    assert [key for key in sorted(keys) if f"`{key}`" not in docs and f"{key}:" not in docs] == []
