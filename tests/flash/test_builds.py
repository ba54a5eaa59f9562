"""Settings against the firmware build they are meant for: codes, limits, rates, what another build makes of them."""

from __future__ import annotations

import os
import struct

import numpy as np
import pytest

from miniscope_xr.layout import builtin_layouts, load_layout
from miniscope_xr.tools.flash import sector
from miniscope_xr.tools.flash.errors import SettingsError
from miniscope_xr.tools.flash.plan import choose_build, frame_bytes, frame_rate, make_plan
from miniscope_xr.tools.flash.settings import differences, parse_settings
from miniscope_xr.tools.flash.values import show

from .cli import Tool
from .fakes import SECTOR, V4, v4_card

SIZE = 16 << 20
DAQ, V3, NEW = load_layout("daq-wirefree"), load_layout("v3-wirefree"), load_layout("v4-wirefree-2026")


def build_of(layout, name):
    return next(b for b in layout.builds if b.firmware == name)


@pytest.fixture
def tool(capsys, tmp_path):
    return Tool(capsys, tmp_path / "backups")


def daq(config_width, config_height) -> bytes:
    card = bytearray(SIZE)
    words = [config_width, config_height, 20, 64000, 0, 0]
    card[1024 * SECTOR : 1024 * SECTOR + 24] = np.array(words, "<u4").tobytes()
    return bytes(card)


def test_codes_of_2026_are_checked_and_mean_something_else():
    assert parse_settings(NEW, ["gain=3.5x"]).values["gain"] == 2
    assert parse_settings(V4, ["gain=3.5"]).values["gain"] == 4
    assert parse_settings(NEW, ["gain=3.5"]).values["gain"] == 2
    with pytest.raises(SettingsError, match=r"use 0 \(1x\), 1 \(2x\) or 2 \(3.5x\)"):
        parse_settings(NEW, ["gain=4"])


def test_a_v4_card_may_be_put_into_a_scope_of_2026(tool, tmp_path):
    card = tmp_path / "c.img"
    card.write_bytes(v4_card(SIZE, buffers=0))
    result = tool("set", card, "gain=2x", "fs=10", "--dry-run")
    assert result.code == 0
    assert "note: gain=2: firmware e3f18b5 (--layout v4-wirefree-2026) takes it for 3.5x" in result.out
    assert "fs=10: firmware f70f880 runs at 20 frames/s whatever is set" in result.out
    named = tool("set", card, "gain=2x", "--layout", "v4-wirefree", "--dry-run")
    assert "e3f18b5" not in named.out, "who names the layout is not asked again"


def test_a_code_that_looks_like_its_meaning_is_told():
    assert "gain=4 is the code for 8x; for 4x write gain=4x" in parse_settings(DAQ, ["gain=4"]).notes
    assert not parse_settings(DAQ, ["gain=4x"]).notes


def test_the_640x560_build_keeps_its_window_where_others_keep_the_rate(tool, tmp_path):
    card = tmp_path / "c.img"
    card.write_bytes(daq(640, 560))
    assert tool("prepare", card, "record_length=1", "row_start=30", "--layout", "daq-wirefree").code == 0
    header = card.read_bytes()[1023 * SECTOR : 1024 * SECTOR]
    assert struct.unpack_from("<HHHH", header, 32) == (30, 0, 0, 0), "no frame rate in the row start"
    fresh = tmp_path / "fresh.img"
    fresh.write_bytes(bytes(SIZE))
    assert tool("prepare", fresh, "record_length=1", "--layout", "daq-wirefree").code == 0
    header = fresh.read_bytes()[1023 * SECTOR : 1024 * SECTOR]
    assert struct.unpack_from("<HHHH", header, 32) == (0, 0, 0, 0), "nor where the build is not known"
    told = tool("set", fresh, "fs=20", "row_start=5", "--dry-run").out
    assert "fs=20: firmware HEAD 640x560 reads row_start and column_start there" in told
    assert "row_start=5: firmware HEAD 640x560" in told


def test_the_rate_is_what_the_firmware_makes_of_the_setting():
    values = {name: f.default or 0 for name, f in V4.header.items()}
    head, old, new = V4.builds[0], build_of(V4, "f70f880"), NEW.builds[0]
    assert [frame_rate(V4, head, {**values, "fs": fs}) for fs in (5, 10, 20, 1, 0, 99)] == [5, 10, 20, 20, 20, 20]
    assert frame_rate(V4, old, {**values, "fs": 5}) == 20
    assert [frame_rate(NEW, new, {**values, "fs": fs}) for fs in (5, 0, 7)] == [5, 30, 20]
    assert frame_bytes(NEW, new) == 200 * SECTOR, "whole buffers"
    plan = make_plan(V4, {**values, "fs": 1}, {}, 10**9)
    assert plan.fits_seconds == (10**9 - 1024 * 512) // 1_853_440, "60 minutes do not fit 1 GB"


def test_every_layout_can_be_planned_and_shown():
    for layout in builtin_layouts().values():
        settings = parse_settings(layout, [])
        plan = make_plan(layout, settings.values, {}, 64 * 10**9)
        assert plan.rate > 0
        assert choose_build(layout, {}) == layout.builds[0]
        assert all(settings.shown(layout).values())
        header = sector.build(layout, settings.values, bytes(SECTOR), None)
        assert sector.settings_of(layout, header) == settings.values
        for rival in (other.of(build) for other in builtin_layouts().values() for build in other.builds):
            for name in layout.header:
                assert isinstance(differences(layout, name, settings.values[name], [rival]), list)


def test_lengths_of_time():
    for text, seconds in {
        "1h30m": 5400, "1h30min": 5400, "1:30:00": 5400, "90m": 5400, "5400": 5400, "1h 30m 5s": 5405, "2h": 7200,
        "45s": 45, "0:00:10": 10, "1.5h": 5400, "1 min 30 s": 90,
    }.items():  # fmt: skip
        assert parse_settings(V4, [f"record_length={text}"]).values["record_length"] == seconds
    for text, why in {
        "1:30": "minutes or hours", "nan": "expected a number", "inf": "expected a number", "-5": "outside 0",
        "1e3": "unit 'e3'", "9" * 5000: "expected a number", "1:70:00": "expected a number", "h": "expected a number",
        "": "expected a number", "-1h30m": "expected a number", "٣": "expected a number",
    }.items():  # fmt: skip
        with pytest.raises(SettingsError) as caught:
            parse_settings(V4, [f"record_length={text}"])
        assert why in str(caught.value) or "expected" in str(caught.value)
        assert len(str(caught.value)) < 300


def test_two_seconds_are_told_to_be_two_seconds():
    found = parse_settings(V4, ["record_length=2"])
    assert "record_length=2 means 2 seconds; write 2min for minutes" in found.notes
    assert not parse_settings(V4, ["record_length=2s"]).notes
    assert show(V4.header["record_length"], 5400) == "5400 s (1 h 30 min)"


@pytest.mark.skipif(os.name != "posix", reason="layout files by path")
def test_a_layout_with_its_header_at_the_start(tool, tmp_path):
    """Sectors below 8 have nothing in front of their block."""
    text = """
id: tiny
sectors: {header: 1, config: 2, data: 3}
header: {gain: {word: 4, choices: {1: 1x, 2: 2x}, default: 1}, record_length: {word: 7, units: s}}
config: {width: {word: 0}, height: {word: 1}, fs: {word: 2}, buffer_size: {word: 3}, n_buffers_recorded: {word: 4},
  n_buffers_dropped: {word: 5}}
buffer: {length: {word: 0}, linked_list: {word: 1}, frame_num: {word: 2}, buffer_count: {word: 3},
  frame_buffer_count: {word: 4}, write_buffer_count: {word: 5}, dropped_buffer_count: {word: 6}, timestamp: {word: 7},
  data_length: {word: 8}}
header_words: [9]
builds: [{firmware: a, header_words: 9, buffer_sectors: 40, ring: 8, width: 304, height: 304}]
"""
    layout = tmp_path / "tiny.yaml"
    layout.write_text(text)
    card = tmp_path / "c.img"
    card.write_bytes(bytes(4 << 20))
    result = tool("prepare", card, "gain=2", "record_length=1", "--layout", layout)
    assert result.code == 0, result.err
    assert sector.settings_of(load_layout(layout), card.read_bytes()[SECTOR : 2 * SECTOR])["gain"] == 2
    assert tool("blank-table", card, "--layout", layout).code == 0
