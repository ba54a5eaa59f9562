"""Settings: people's units and words to the raw values the firmware reads, and the sector that holds them."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniscope_xr.layout import WRITE_KEY, builtin_layouts, load_layout
from miniscope_xr.tools.flash import sector
from miniscope_xr.tools.flash.errors import RefusedError, SettingsError
from miniscope_xr.tools.flash.plan import choose_build, frame_bytes, make_plan
from miniscope_xr.tools.flash.settings import check_words, parse_settings
from miniscope_xr.tools.flash.values import problem, show

from .fakes import SECTOR, V4

DAQ, V3 = load_layout("daq-wirefree"), load_layout("v3-wirefree")


@pytest.mark.parametrize(
    ("layout", "text", "raw"),
    [
        (V4, "gain=2", 2), (V4, "gain=2x", 2), (V4, "gain=3.5X", 4), (V4, "gain=4", 4), (V4, "gain=1", 1),
        (DAQ, "gain=4", 4), (DAQ, "gain=4x", 3), (DAQ, "gain=8x", 4), (DAQ, "row_start=380px", 380),
        (V4, "led=10", 10), (V4, "led=10%", 10), (V4, "led=0", 0), (V4, "led=100", 100), (V4, "ewl=255", 255),
        (V4, "record_length=1800", 1800), (V4, "record_length=30min", 1800), (V4, "record_length=0.5h", 1800),
        (V4, "record_length=5400s", 5400), (V4, "record_length=90 min", 5400), (V4, "record_length=0", 0),
        (V4, "fs=20", 20), (V4, "fs=20Hz", 20), (V4, "fs=5fps", 5), (V4, "delay_start=255", 255),
        (V4, "battery_cutoff=4200", 4200), (V4, "battery_cutoff=3.3V", 3300), (V4, "battery_cutoff=3300mV", 3300),
        (V4, "ewl_scan_mode=off", 0), (V4, "ewl_scan_mode=false", 0), (V3, "led=300", 300), (V3, "record_length=1", 1),
    ],
)  # fmt: skip
def test_values(layout, text, raw):
    assert parse_settings(layout, [text]).values[text.partition("=")[0]] == raw


@pytest.mark.parametrize(
    ("layout", "text", "message"),
    [
        (V4, "gian=2", "unknown setting of v4-wirefree (did you mean 'gain'?); known: gain, led"),
        (V4, "framerate=2", "known: gain, led, ewl, record_length, fs"),
        (V4, "gain", "'gain' is not a setting; write NAME=VALUE"),
        (V4, "gain=", "use 1 (1x), 2 (2x) or 4 (3.5x)"),
        (V4, "gain=3", "silently ignore this sensor gain; use 1 (1x), 2 (2x) or 4 (3.5x)"),
        (V4, "gain=8x", "silently ignore"),
        (V4, "fs=25", "silently ignore this frames per second; use 5, 10, 15 or 20"),
        (V4, "fs=0", "use 5, 10, 15 or 20"),
        (DAQ, "gain=0", "use 1 (1x), 2 (2x), 3 (4x) or 4 (8x)"),
        (V4, "led=101", "outside 0 to 100 percent"),
        (V4, "led=-1", "outside 0 to 100"),
        (V4, "ewl=256", "outside 0 to 255"),
        (V4, "delay_start=256", "the firmware keeps 8 bits"),
        (V4, "delay_start=10min", "outside 0 to 255 s"),
        (V4, "record_length=4294967296", "outside 0 to 4294967295"),
        (V4, "record_length=0.3", "expected a whole number of s"),
        (V4, "record_length=ten", "expected a number in s"),
        (V4, "record_length=10 days", "unknown unit 'days'; units that work here: s, sec, min, h"),
        (V4, "ewl=10s", "unknown unit 's'; it has no unit"),
        (V4, "ewl=1.5", "expected a whole number"),
        (V3, "record_length=0", "(0 ends at once)"),
        (V3, "ewl=10", "unknown setting of v3-wirefree"),
        (DAQ, "row_start=65536", "outside 0 to 65535 px"),
        (DAQ, "delay_start=1", "unknown setting of daq-wirefree"),
    ],
)
def test_wrong_values(layout, text, message):
    with pytest.raises(SettingsError) as caught:
        parse_settings(layout, [text])
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


def test_twice():
    with pytest.raises(SettingsError, match="gain is given twice"):
        parse_settings(V4, ["gain=1", "gain=2"])


def test_defaults_and_what_is_on_the_card():
    assert parse_settings(V4, []).values == {name: f.default for name, f in V4.header.items()}
    current = dict.fromkeys(V4.header, 1)
    found = parse_settings(V4, ["led=3"], current)
    assert found.values == {**current, "led": 3}
    assert any("fs=1 Hz on the card: the firmware silently ignores it" in note for note in found.notes)


@pytest.mark.parametrize(
    ("name", "raw", "word"), [("led", 200, "largest"), ("delay_start", 300, "largest"), ("fs", 3, "ignores")]
)
def test_problems_on_a_card(name, raw, word):
    assert word in problem(V4.header[name], raw)


def test_too_short_on_a_card():
    assert "smallest" in problem(V3.header["record_length"], 0)


@pytest.mark.parametrize(("layout", "text"), [(V4, "battery_cutoff=3300"), (DAQ, "fs=10")])
def test_settings_that_no_firmware_uses_are_told(layout, text):
    assert layout.header[text.partition("=")[0]].description in " ".join(parse_settings(layout, [text]).notes)


def scan(**more):
    words = {
        "ewl_scan_mode": "on",
        "ewl_scan_start": 10,
        "ewl_scan_stop": 240,
        "ewl_scan_step": 5,
        "ewl_scan_interval": 1,
    }
    return parse_settings(V4, [f"{k}={v}" for k, v in {**words, **more}.items()])


def test_focus_scan():
    """Length and first focus as the lab notebook computes them."""
    found = scan()
    assert found.values["ewl"] == 10
    assert found.values["record_length"] == 47
    assert any("record_length=47 s" in note for note in found.notes)
    assert scan(record_length=100).values["record_length"] == 100
    assert scan(ewl_scan_stop=242).values["record_length"] == 47
    assert any("may pass ewl_scan_stop=242" in note for note in scan(ewl_scan_stop=242).notes)
    assert any("starts the focus scan at ewl=50, not" in note for note in scan(ewl=50).notes)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"ewl_scan_step": 0}, "never move on"), ({"ewl_scan_interval": 0}, "never move on"),
        ({"ewl_scan_stop": 5}, "scans upward only"), ({"ewl": 0}, "never runs if that is 0; give ewl=1 or more"),
        ({"ewl_scan_start": 0}, "or ewl_scan_start=1 or more"),
    ],
)  # fmt: skip
def test_focus_scans_that_would_not_run(more, message):
    with pytest.raises(SettingsError, match=message):
        scan(**more)


def test_show():
    assert show(V4.header["gain"], 4) == "4 (3.5x)"
    assert show(V4.header["gain"], 7) == "7"
    assert show(V4.header["record_length"], 60) == "60 s"
    assert parse_settings(V4, ["gain=2"]).shown(V4)["gain"] == "2 (2x)"


@pytest.mark.slow
@given(st.sampled_from(sorted(builtin_layouts())), st.data())
def test_sector_round_trip_keeps_everything_else(layout_id, data):
    layout = load_layout(layout_id)
    old = data.draw(st.binary(min_size=SECTOR, max_size=SECTOR))
    values = {n: data.draw(st.integers(0, 2**f.width - 1)) for n, f in layout.header.items()}
    new = sector.build(layout, values, old, None)
    assert sector.settings_of(layout, new) == values
    assert sector.has_keys(layout, new)
    ours = set(range(16)) | {b for f in layout.header.values() for b in range(f.offset, f.offset + f.size)}
    if sector.read_stamp(old) is None:
        assert all(new[i] == old[i] for i in range(SECTOR) if i not in ours)


def test_whole_words_are_written():
    """5400 s and 4200 mV, which the lab notebook turns into 337 and 262."""
    values = parse_settings(V4, ["record_length=5400", "battery_cutoff=4200"]).values
    new = sector.build(V4, values, bytes(SECTOR), None)
    assert struct.unpack_from("<16I", new)[:4] == (WRITE_KEY,) * 4
    assert struct.unpack_from("<I", new, 28)[0] == 5400
    assert struct.unpack_from("<I", new, 40)[0] == 4200
    assert not any(new[64:])


def test_stamp():
    new = sector.build(V4, parse_settings(V4, []).values, bytes(SECTOR), b"0123456789abcdef", 77)
    stamp = sector.read_stamp(new)
    assert (stamp.session, stamp.time, stamp.layout, stamp.intact) == (
        b"0123456789abcdef".hex(),
        77,
        "v4-wirefree",
        True,
    )
    assert int.from_bytes(new[508:], "little") == zlib.crc32(new[:508])
    assert not any(new[64:128]), "nothing where a firmware could read"
    for at in (0, 40, 150, 300, 511):
        torn = bytearray(new)
        torn[at] ^= 4
        assert not sector.read_stamp(bytes(torn)).intact
    assert sector.read_stamp(bytes(SECTOR)) is None
    again = sector.build(V4, parse_settings(V4, []).values, new, b"fedcba9876543210", 78)
    assert sector.read_stamp(again).intact
    assert sector.build(V4, parse_settings(V4, []).values, again, None)[128:] == bytes(384)


@pytest.mark.parametrize(
    ("layout", "number", "sectors"),
    [(V4, 0, 181), (V4, 1, 181), (V4, 2, 181), (DAQ, 0, 723), (V3, 0, 200), (V3, 2, 705)],
)
def test_frame_sizes(layout, number, sectors):
    assert frame_bytes(layout, layout.builds[number]) == sectors * SECTOR


def test_plans():
    plan = make_plan(V4, parse_settings(V4, ["record_length=30min"]).values, {}, 64 * 10**9)
    assert plan.rate == 1_853_440
    assert plan.end - plan.start == int(1800 * 1_853_440 * 1.05)
    assert plan.fits_seconds == (64 * 10**9 - 1024 * 512) // 1_853_440
    assert "planned 30 min; 575.5 min fit on this card" in plan.describe()
    until_stopped = make_plan(V4, parse_settings(V4, []).values, {}, 10**9)
    assert until_stopped.end == 10**9
    assert "until stopped" in until_stopped.describe()
    assert make_plan(V4, parse_settings(V4, ["fs=5", "record_length=1"]).values, {}, 10**9).rate == 463_360
    assert make_plan(DAQ, parse_settings(DAQ, ["fs=5", "record_length=1"]).values, {}, 10**9).fps == 30, "it ignores fs"


def test_the_build_on_the_card_gives_the_rate():
    assert choose_build(V4, {"buffer_size": 25600, "width": 608}).firmware == "3787c5c"
    assert choose_build(V4, {}).firmware == "HEAD"
    assert choose_build(DAQ, {"buffer_size": 64000, "width": 640}).height == 560


def test_plans_that_do_not_fit():
    with pytest.raises(RefusedError, match=r"1800 s do not fit: 539 s \(9.0 min\) fit on this card of 1000000000 b"):
        make_plan(V4, parse_settings(V4, ["record_length=1800"]).values, {}, 10**9)
    assert make_plan(V4, parse_settings(V4, []).values, {}, 2 << 20).end == 2 << 20, "until stopped, or full"
    with pytest.raises(RefusedError, match="add builds"):
        make_plan(replace(V4, builds=()), {}, {}, 10**9)


ALL = tuple(builtin_layouts().values())


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("gian=2", "gian: no firmware has such a setting (did you mean 'gain'?)"),
        ("=2", "an empty name: no firmware has such a setting"),
    ],
)
def test_what_no_layout_has_is_not_said_of_one_of_them(word, said):
    """Values are checked before the card is looked at: then nobody knows which layout it has."""
    with pytest.raises(SettingsError) as error:
        check_words(ALL, [word])
    assert str(error.value).startswith(said)
    assert not [layout.id for layout in ALL if layout.id in str(error.value)]


def test_what_layouts_do_not_have_alike_is_said_of_one_of_them():
    """The codes of a gain differ: whose they are is said, with the option that names another."""
    with pytest.raises(SettingsError) as error:
        check_words(ALL, ["gain=77"])
    whose = next(layout for layout in ALL if f"so it is with {layout.id};" in str(error.value))
    with pytest.raises(SettingsError) as alone:
        check_words([whose], ["gain=77"])
    assert str(error.value).startswith(str(alone.value))
    assert "--layout" in str(error.value)
