"""Nothing is written where it could hurt: other layouts' recordings, other people's disks and files, old settings."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import struct
import subprocess
import sys
import tempfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import miniscope_xr
from miniscope_xr.errors import plain
from miniscope_xr.layout import builtin_layouts, load_layout
from miniscope_xr.layout.stamp import read_stamp, recorded_with
from miniscope_xr.source.magic import file_kind
from miniscope_xr.tools.flash import jobs, prepare, sector, signatures, stale
from miniscope_xr.tools.flash.ask import confirm, estimate
from miniscope_xr.tools.flash.errors import CheckFailedError, RefusedError
from miniscope_xr.tools.flash.look import look
from miniscope_xr.tools.flash.plan import make_plan
from miniscope_xr.tools.flash.settings import parse_settings
from tests import needs

from .cli import Tool, card_id, parser
from .fakes import DISK, SECTOR, V4, FaultDisk, settings_sector, v4_buffers, v4_card
from .loops import loop, needs_loops

SIZE = 16 << 20
LAYOUTS = Path(miniscope_xr.__file__).parent / "layouts"
HEADER, COUNTS, DATA = 1022 * SECTOR, 1023 * SECTOR, 1024 * SECTOR
DAQ, V3 = load_layout("daq-wirefree"), load_layout("v3-wirefree")


@pytest.fixture
def tool(capsys, tmp_path):
    return Tool(capsys, tmp_path / "backups")


def write(path, data: bytes, size: int = SIZE):
    path.write_bytes(data)
    os.truncate(path, size)
    return path


def daq_card(buffers=12) -> bytes:
    """A DAQ card as its firmware leaves it: the counts of a recording are never there."""
    card = bytearray(SIZE)
    card[1023 * SECTOR : 1024 * SECTOR] = settings_sector(DAQ, gain=2, led=9, record_length=5)
    card[1024 * SECTOR : 1024 * SECTOR + 24] = np.array([608, 608, 20, 64000, 0, 0], "<u4").tobytes()
    rng = np.random.default_rng(4)
    for i in range(buffers):
        words = [11, i % 5, i // 6, i, i % 6, i, 0, 33 * i + 20, 63956, 0, 0]
        at = (1025 + 125 * i) * SECTOR
        card[at : at + 64000] = np.array(words, "<u4").tobytes() + rng.integers(0, 256, 63956, np.uint8).tobytes()
    return bytes(card)


def v3_card(frames=12, sectors=200) -> bytes:
    card = bytearray(SIZE)
    card[1023 * SECTOR : 1024 * SECTOR] = settings_sector(V3, led=9, record_length=5)
    rng = np.random.default_rng(3)
    for i in range(frames):
        frame = rng.integers(0, 256, sectors * SECTOR, np.uint8)
        frame[-16:] = np.frombuffer(np.array([1, 320, 50 * i + 9, i], "<u4").tobytes(), np.uint8)
        at = (1024 + sectors * i) * SECTOR
        card[at : at + len(frame)] = frame.tobytes()
    return bytes(card)


CARDS = {"v4-wirefree": lambda: v4_card(SIZE), "daq-wirefree": daq_card, "v3-wirefree": v3_card}
OTHERS = [(own, named) for own in CARDS for named in CARDS if own != named]


class TestOtherLayouts:
    """A layout named wrongly must not turn a recording into "no recording"."""

    @pytest.mark.slow
    @pytest.mark.parametrize(("own", "named"), OTHERS)
    @pytest.mark.parametrize("verb", ["prepare", "wipe", "set", "qualify"])
    def test_a_recording_is_seen_whichever_layout_is_named(self, tool, tmp_path, own, named, verb):
        before = CARDS[own]()
        card = write(tmp_path / "c.img", before)
        words = [] if verb in ("wipe", "qualify") else ["gain=2"]
        result = tool(verb, card, *words, "--layout", named)
        assert result.code == 3
        assert "holds a recording" in result.err
        assert own in result.err
        assert card.read_bytes() == before

    @pytest.mark.slow
    @pytest.mark.parametrize(("own", "named"), OTHERS)
    def test_given_up_by_its_id_the_card_is_the_other_layouts_alone(self, tool, tmp_path, own, named):
        card = write(tmp_path / "c.img", CARDS[own]())
        refused = tool("prepare", card, "gain=2", "record_length=1", "--layout", named, "--json")
        done = tool("prepare", card, "gain=2", "record_length=1", "--layout", named,
                    "--discard-recording", refused.json["recording"])  # fmt: skip
        assert done.code == 0
        now = card.read_bytes()
        at = load_layout(named).sectors.header * SECTOR
        assert now.count(0, 0, at) == at
        assert now.count(0, at + SECTOR) == len(now) - at - SECTOR
        found = sector.settings_of(load_layout(named), now[at : at + SECTOR])
        defaults = {name: f.default or 0 for name, f in load_layout(named).header.items()}
        assert found == {**defaults, "gain": 2, "record_length": 1}, "nothing of the other layout's is taken over"
        assert tool("set", card, "gain=4").code == 0, "it is recognised without being named"

    def test_a_card_prepared_for_another_layout_is_taken_over_clean(self, tool, tmp_path):
        card = write(tmp_path / "c.img", b"")
        assert tool("prepare", card, "led=77", "record_length=1", "--layout", "v4-wirefree").code == 0
        assert tool("prepare", card, "record_length=1", "--layout", "daq-wirefree").code == 0
        now = card.read_bytes()
        assert not any(now[HEADER:COUNTS])
        assert sector.settings_of(DAQ, now[COUNTS:DATA])["led"] == 0
        assert "daq-wirefree" in tool("set", card, "gain=4").out

    @pytest.mark.parametrize("sectors", [165, 200, 705])
    def test_v3_data_is_found_in_a_tenth_of_the_card(self, sectors):
        disk = FaultDisk(v3_card(20 if sectors < 300 else 10, sectors))
        layouts = list(builtin_layouts().values())
        ends = stale.find_extents(disk, layouts)
        frames = 20 if sectors < 300 else 10
        assert ends["v3-wirefree"] >= (1024 + frames * sectors) * SECTOR
        looked = sum(length for kind, _, length in disk.log if kind == "read" and length <= 300 * SECTOR)
        assert looked < 0.13 * SIZE


class TestWhatIsSomebodyElses:
    @pytest.mark.slow
    @pytest.mark.parametrize(("at", "magic", "name"), signatures.START[::5])
    def test_a_listed_start_is_refused_by_name_with_a_layout_named(self, tool, tmp_path, at, magic, name):
        data = bytearray(v4_card(SIZE, buffers=0))
        data[at : at + len(magic)] = magic
        card = write(tmp_path / "c.img", bytes(data))
        if file_kind(bytes(data[:8192])):
            return
        result = tool("prepare", card, "record_length=1", "--layout", "v4-wirefree")
        assert result.code == 3
        assert name in result.err
        assert "blank-table" in result.err
        assert card.read_bytes() == bytes(data)

    @pytest.mark.slow
    @pytest.mark.parametrize("sectors", [(0, 1, 2), (5, 6, 7), (3000, 3001, 3002)])
    def test_a_layout_that_lies_over_it_does_not_hide_it(self, tool, tmp_path, sectors):
        """A layout of one's own may have its settings anywhere, even where every disk has its table."""
        text = (LAYOUTS / "v4-wirefree.yaml").read_text(encoding="utf-8")
        text = text.replace("id: v4-wirefree", "id: odd").replace("aliases:", "# aliases:")
        header, config, first = sectors
        text = text.replace(
            "header: 1022, config: 1023, data: 1024", f"header: {header}, config: {config}, data: {first}"
        )
        (tmp_path / "odd.yaml").write_text(text, encoding="utf-8")
        data = bytearray(SIZE)
        data[1080:1082] = b"\x53\xef"  # an ext file system, in sector 2
        card = write(tmp_path / "c.img", bytes(data))
        for verb, *words in (("prepare", "gain=2"), ("set", "gain=2"), ("wipe",), ("qualify",)):
            result = tool(verb, card, *words, "--layout", tmp_path / "odd.yaml")
            assert result.code == 3
            assert "holds an ext2" in result.err
        result = tool("blank-table", card, "--layout", tmp_path / "odd.yaml")
        assert (result.code == 3) == (header <= 2)
        if header > 2:
            assert not any(card.read_bytes())
            data = bytes(card.read_bytes())
        else:
            assert "where layout odd has its settings" in result.err
        assert card.read_bytes() == data

    def test_the_command_that_is_advised_is_complete(self, tool, tmp_path):
        """A fresh card with a FAT names no Miniscope: neither does the command that takes the FAT off."""
        data = bytearray(SIZE)
        data[510:512], data[450] = b"\x55\xaa", 0x0C
        card = write(tmp_path / "c.img", bytes(data))
        result = tool("prepare", card, "gain=2", "--layout", "daq-wirefree")
        assert result.code == 3
        advised = result.err.split("`")[1].split()
        assert advised == ["blank-table", str(card), "--layout", "daq-wirefree"]
        assert tool(*advised).code == 0
        assert not any(card.read_bytes())

    @pytest.mark.slow
    @pytest.mark.parametrize("at", [0, 3 * SECTOR, 100 * SECTOR + 7, 1021 * SECTOR + 511])
    @pytest.mark.parametrize("verb", ["prepare", "wipe", "set"])
    def test_anything_else_in_front_is_refused_and_blanked_and_restored(self, tool, tmp_path, at, verb):
        data = bytearray(v4_card(SIZE, buffers=0))
        data[at] = 0x31
        card = write(tmp_path / "c.img", bytes(data))
        result = tool(verb, card, *([] if verb == "wipe" else ["led=3"]), "--layout", "v4-wirefree")
        assert result.code == 3
        assert f"something unknown in front of the settings (sector {at // SECTOR})" in result.err
        assert card.read_bytes() == bytes(data)
        assert tool("blank-table", card).code == 0
        assert not any(card.read_bytes()[:HEADER])
        assert tool("restore", card).code == 0
        assert card.read_bytes() == bytes(data)

    def test_an_erased_card_that_reads_ff_is_blank(self, tool, tmp_path):
        card = write(tmp_path / "c.img", b"\xff" * SIZE)
        assert tool("prepare", card, "record_length=1", "--layout", "v4-wirefree").code == 0

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("back", "magic", "name"),
        [
            (SECTOR, b"EFI PART", "GPT"), (2 * SECTOR, b"Intel Raid ISM Cfg Sig. 1.1.00", "Intel RAID"),
            (65536, b"\xfc\x4e\x2b\xa9", "Linux RAID"), (8192, b"\xfc\x4e\x2b\xa9", "Linux RAID"),
            (8192, b"\xa9\x2b\x4e\xfc", "Linux RAID"), (SECTOR, b"\xde\x11\xde\x11", "DDF RAID"),
            (2 * SECTOR, b"NVIDIA", "NVIDIA"), (63 * SECTOR, b"Promise Technology, Inc.", "Promise"),
            (262144 - 131072, b"\x0c\xb1\xba\0\0\0\0\0", "ZFS"), (4096 - 60, b"\x83\x74\x02\x6d", "DRBD"),
            (SECTOR, b"\x55\xaa\x01".ljust(50, b"\0") + b"\0", "VIA"), (SECTOR, b"JM", "JMicron"),
        ],
    )  # fmt: skip
    def test_a_volume_known_by_its_end(self, tool, tmp_path, back, magic, name):
        if name == "VIA":
            magic = magic[:50] + bytes([sum(magic[:50]) % 256])
        data = bytearray(v4_card(SIZE, buffers=0))
        data[SIZE - back : SIZE - back + len(magic)] = magic
        card = write(tmp_path / "c.img", bytes(data))
        result = tool("prepare", card, "record_length=1", "--layout", "v4-wirefree")
        assert result.code == 3
        assert name in result.err
        assert tool("blank-table", card).code == 0
        assert not any(card.read_bytes()[SIZE - back : SIZE - back + len(magic)])
        assert tool("prepare", card, "record_length=1").code == 0

    def test_a_recording_up_to_the_end_is_no_volume(self):
        """Pixels that happen to begin like a checksum-less magic of two bytes elsewhere than where it belongs."""
        rng = np.random.default_rng(1)
        for _ in range(20):
            assert signatures.at_end(rng.integers(0, 256, 1 << 20, np.uint8).tobytes(), 1 << 30) == []

    @needs.program("/usr/sbin/mkfs.minix")
    def test_a_real_minix_file_system(self, tool, tmp_path):
        card = write(tmp_path / "c.img", b"", 4 << 20)
        subprocess.run(["/usr/sbin/mkfs.minix", str(card)], check=True, capture_output=True)
        before = card.read_bytes()
        result = tool("prepare", card, "record_length=1", "--layout", "v4-wirefree")
        assert result.code == 3
        assert "Minix" in result.err
        assert card.read_bytes() == before

    @needs.program("/usr/sbin/mkswap")
    @pytest.mark.parametrize("page", [4096, 8192, 65536])
    def test_swap_of_any_page_size(self, tool, tmp_path, page):
        card = write(tmp_path / "c.img", b"", 8 << 20)
        subprocess.run(["/usr/sbin/mkswap", "-p", str(page), str(card)], check=True, capture_output=True)
        result = tool("prepare", card, "record_length=1", "--layout", "v4-wirefree")
        assert result.code == 3
        assert "swap space" in result.err

    @needs_loops
    def test_on_a_block_device_too(self, tool, tmp_path):
        data = bytearray(v4_card(SIZE, buffers=0))
        data[32768:32772] = b"JFS1"
        card = write(tmp_path / "c.img", bytes(data))
        with loop(card) as device:
            result = tool("prepare", device, "record_length=1", "--layout", "v4-wirefree")
            assert result.code == 3
            assert "JFS" in result.err
        assert card.read_bytes() == bytes(data)


FILES = {
    "AVI": b"RIFF\x24\x10\0\0AVI LIST", "HDF5": b"\x89HDF\r\n\x1a\n\0\0\0\0", "NetCDF": b"CDF\x02\0\0\0\x05",
    "HTML": b"<!DOCTYPE html>\n<html><head>", "zip": b"PK\x03\x04\x14\0\0\0", "gzip": b"\x1f\x8b\x08\x08\xff",
    "PNG": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "MP4": b"\0\0\0\x20ftypisom", "TIFF": b"II*\0\x08\0\0\0",
    "text": b"frame,time\n1,0.05\n2,0.10\n", "SQLite": b"SQLite format 3\0",
}  # fmt: skip


class TestFilesOfOtherKinds:
    @pytest.mark.parametrize("kind", FILES)
    @pytest.mark.parametrize("verb", ["prepare", "wipe", "set", "blank-table", "qualify", "backup"])
    def test_refused_by_name(self, tool, tmp_path, kind, verb):
        more = np.random.default_rng(2).integers(0, 256, 2 << 20, np.uint8).tobytes()
        body = FILES[kind] * 40_000 if kind == "text" else FILES[kind] + more
        file = tmp_path / "file"
        file.write_bytes(body)
        words = ["gain=2"] if verb in ("prepare", "set") else []
        flags = ["--layout", "v4-wirefree"]
        if verb == "backup":
            result = tool.raw("backup", file, *flags, "--backup-dir", tool.backups)
        else:
            result = tool(verb, file, *words, *flags)
        assert result.code == 3
        assert kind.lower() in result.err.lower()
        assert "recording" not in result.err
        assert file.read_bytes() == body

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-be", "latin-1", "cp1252"])
    def test_text_in_every_encoding_of_a_lab(self, tool, tmp_path, encoding):
        text = "Maus 3: grün, 20 °C\r\n" * 40000
        data = (b"\xfe\xff" if encoding == "utf-16-be" else b"") + text.encode(encoding)
        card = write(tmp_path / "notes.txt", data, len(data) // SECTOR * SECTOR)
        before = card.read_bytes()
        result = tool("blank-table", card, "--layout", "v4-wirefree")
        assert (result.code, "is a text file" in result.err) == (3, True)
        assert card.read_bytes() == before

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("at", "what"),
        [
            (0, b"A"), (0, b"mouse 12 day 3\n"), (0, "hi".encode("utf-16")), (0, b"\x80\x04\x95\x10"),
            (0, np.arange(1000, dtype="<i2").tobytes()), (16 * SECTOR, b"Notes of the day\n" * 10), (DATA, b"\x01"),
            (SIZE - 1, b"\x01"), (0, np.random.default_rng(5).integers(0, 256, SIZE, np.uint8).tobytes()),
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("verb", ["prepare", "wipe", "set", "blank-table"])
    def test_a_file_of_which_little_is_not_zero(self, tool, tmp_path, at, what, verb):
        """Somebody's file, most of which is not filled yet: nothing of it is a Miniscope's, so nothing is written."""
        card = write(tmp_path / "counter.dat", bytes(at) + what, SIZE)
        before = card.read_bytes()
        words = ["gain=2", "record_length=1"] if verb in ("prepare", "set") else []
        result = tool(verb, card, *words, "--layout", "v4-wirefree")
        assert result.code == 3
        assert f"something unknown (sector {at // SECTOR} is the first)" in result.err
        assert card.read_bytes() == before

    def test_a_file_with_settings_only_is_a_card(self, tool, tmp_path):
        """Of any layout, also where another one is named: a card is made one of another Miniscope."""
        card = write(tmp_path / "c.img", b"", SIZE)
        assert tool("prepare", card, "record_length=1", "--layout", "daq-wirefree").code == 0
        with open(card, "r+b") as file:
            file.seek(SIZE - SECTOR)
            file.write(b"x")
        assert tool("prepare", card, "record_length=1", "--layout", "v4-wirefree").code == 0

    def test_no_card_is_a_file(self):
        for make in CARDS.values():
            assert file_kind(make()[:8192]) is None
        assert file_kind(bytes(8192)) is None
        assert file_kind(b"") is None
        assert file_kind(b"\xff" * 8192) is None

    def test_a_count_that_cannot_be_on_the_card_is_no_recording(self, tool, tmp_path):
        data = bytearray(v4_card(SIZE, buffers=0))
        data[COUNTS : COUNTS + 24] = np.array([304, 304, 20, 20480, 119_565_600, 0], "<u4").tobytes()
        card = write(tmp_path / "c.img", bytes(data))
        result = tool("prepare", card, "gain=2", "record_length=1")
        assert result.code == 0
        assert "119565600" not in result.out
        data[COUNTS : COUNTS + 24] = np.array([304, 304, 20, 20480, 300, 0], "<u4").tobytes()
        card = write(tmp_path / "d.img", bytes(data))
        assert "300 buffers by the card's own count" in tool("prepare", card, "gain=2", "record_length=1").err

    def test_a_count_beyond_a_trimmed_image_is_said_to_be(self, tool, tmp_path):
        data = bytearray(v4_card(SIZE))
        data[COUNTS : COUNTS + 24] = np.array([304, 304, 20, 20480, 9000, 0], "<u4").tobytes()
        card = write(tmp_path / "c.img", bytes(data))
        assert "9000 buffers by its own count, which do not fit" in tool("wipe", card).err


class TestOldSettings:
    """A recording keeps the settings it was made with."""

    def made_with(self, card, layout=V4):
        data = card.read_bytes()
        header = layout.sectors.header * SECTOR
        first = layout.sectors.data * SECTOR
        found = recorded_with(data[header : header + SECTOR], data[first : first + SECTOR])
        return None if found is None else sector.settings_of(layout, found)

    def test_set_keeps_them_however_often(self, tool, tmp_path):
        card = write(tmp_path / "c.img", v4_card(SIZE))
        for led in (50, 60, 7, 80):
            assert tool("set", card, f"led={led}").code == 0
            assert sector.settings_of(V4, card.read_bytes()[HEADER:COUNTS])["led"] == led
            assert self.made_with(card)["led"] == 7
            assert read_stamp(card.read_bytes()[HEADER:COUNTS]).intact

    def test_the_next_recording_is_not_given_them(self, tool, tmp_path):
        card = write(tmp_path / "c.img", v4_card(SIZE))
        assert tool("set", card, "led=50").code == 0
        data = bytearray(card.read_bytes())
        data[DATA + 48 : DATA + 60] = b"other pixels"
        card.write_bytes(data)
        assert self.made_with(card)["led"] == 50

    def test_prepare_keep_keeps_them_until_it_is_recorded_on(self, tool, tmp_path):
        card = write(tmp_path / "c.img", v4_card(SIZE))
        assert tool("prepare", card, "led=50", "record_length=1", "--keep").code == 0
        assert self.made_with(card)["led"] == 7
        data = bytearray(card.read_bytes())
        new = v4_card(SIZE, ewl=3)
        data[COUNTS : DATA + 40 * SECTOR] = new[COUNTS : DATA + 40 * SECTOR]
        card.write_bytes(data)
        assert self.made_with(card)["led"] == 50

    def test_keep_leaves_no_first_header_and_restore_brings_it_back(self, tool, tmp_path):
        before = v4_card(SIZE)
        card = write(tmp_path / "c.img", before)
        assert tool("prepare", card, "record_length=1", "--keep").code == 0
        now = card.read_bytes()
        assert not any(now[COUNTS : DATA + SECTOR])
        assert now[DATA + SECTOR :] == before[DATA + SECTOR :]
        assert tool("restore", card).code == 0
        assert card.read_bytes() == before

    def test_damaged_they_are_unknown_and_set_says_so(self, tool, tmp_path):
        card = write(tmp_path / "c.img", v4_card(SIZE))
        assert tool("set", card, "led=50").code == 0
        data = bytearray(card.read_bytes())
        data[HEADER + 230] ^= 1
        card.write_bytes(data)
        assert self.made_with(card) is None
        refused = tool("set", card, "led=60", "--json")
        assert refused.code == 3
        assert "can no longer be told" in refused.err
        assert tool("set", card, "led=60", "--discard-recording", refused.json["recording"]).code == 0

    def test_no_room_for_them(self, tool, tmp_path):
        data = bytearray(v4_card(SIZE))
        data[HEADER + 220] = 9
        card = write(tmp_path / "c.img", bytes(data))
        assert "no room beside the settings" in tool("set", card, "led=60").err
        assert card.read_bytes() == bytes(data)

    def test_without_a_stamp_it_is_told(self, tool, tmp_path):
        card = write(tmp_path / "c.img", v4_card(SIZE))
        assert "will be read with the new" in tool("set", card, "led=60", "--no-stamp").out

    def test_set_of_nothing_writes_nothing(self, tool, tmp_path):
        before = v4_card(SIZE)
        card = write(tmp_path / "c.img", before)
        result = tool("set", card)
        assert result.code == 0
        assert "nothing to set: name it as NAME=VALUE" in result.out
        assert "led" in result.out
        assert card.read_bytes() == before
        assert not tool.backups.exists()

    def test_a_stamp_of_the_first_version_is_read(self):
        old = bytearray(settings_sector())
        old[128:192] = struct.pack("<4sI16sQ32s", b"MSXR", 1, b"0123456789abcdef", 77, b"v4-wirefree")
        old[508:] = zlib.crc32(old[:508]).to_bytes(4, "little")
        stamp = read_stamp(bytes(old))
        assert (stamp.session, stamp.time, stamp.layout) == (b"0123456789abcdef".hex(), 77, "v4-wirefree")
        assert (stamp.intact, stamp.kept, stamp.card) == (True, b"", "")


class TestWhatIsTyped:
    def test_values_are_checked_before_the_card_is_looked_at(self, tool, tmp_path):
        result = tool.raw("prepare", tmp_path / "nothing", "gain=banana")
        assert result.code == 2
        assert "gain=banana" in result.err
        for words in (["--wipe-minutes", "nan"], ["--wipe-minutes", "inf"], ["--wipe-minutes", "-3"],
                      ["--wipe-minutes", "0"], ["--expect-size", "9" * 500]):  # fmt: skip
            result = tool.raw("prepare", tmp_path / "nothing", *words)
            assert result.code == 2, words
            assert words[0] in result.err
        assert "no meaning" in tool.raw("prepare", tmp_path / "nothing", "--keep", "--wipe-minutes", "3").err

    @pytest.mark.parametrize("verb", ["prepare", "wipe"])
    def test_a_dry_run_is_never_refused_for_a_recording(self, tool, tmp_path, verb):
        before = v4_card(SIZE)
        card = write(tmp_path / "c.img", before)
        result = tool(verb, card, *(["record_length=1"] if verb == "prepare" else []), "--dry-run")
        assert result.code == 0
        assert "without --dry-run this is refused: " in result.out
        assert "--discard-recording" in result.out
        assert "zero data: sectors 1024 to" in result.out
        assert card.read_bytes() == before

    def test_options_are_not_abbreviated(self, tool, tmp_path, capsys):
        card = write(tmp_path / "c.img", v4_card(SIZE))
        for short in (["--ye"], ["--discard", card_id(card)], ["--im"]):
            with pytest.raises(SystemExit) as caught:
                parser().parse_args(["wipe", str(card), *short])
            assert caught.value.code == 2

    def test_an_answer_that_is_no_text(self, monkeypatch):
        class Terminal(io.TextIOWrapper):
            def isatty(self):
                return True

        monkeypatch.setattr(sys, "stdin", Terminal(io.BytesIO(b"\xff\xfe\x80\n"), encoding="utf-8"))
        with pytest.raises(RefusedError, match="no text"):
            confirm("0123456789ab", False)

    @needs.posix_names
    def test_names_cannot_redraw_the_terminal(self, tool, tmp_path, capsys):
        card = write(tmp_path / "\x1b[2J\x1b[Hcard.img", v4_card(SIZE, buffers=0))
        result = tool("set", card, "gain=2")
        assert result.code == 0
        assert "\x1b" not in result.out + result.err
        assert r"\x1b[2J" in result.out
        result = tool.raw("set", card, "gain=2")
        assert "\x1b" not in result.err

    def test_plain(self):
        assert plain("card \x1b[31m\r\n\t\x9b é 漢 \u202e") == r"card \x1b[31m\r\n\t\x9b é 漢 \u202e"
        assert plain("\udcff") == r"\udcff"
        assert plain("30 % µm") == "30 % µm"

    def test_settings_stay_as_they_are_on_a_card_with_a_focus_scan(self, tool, tmp_path):
        scan = {"ewl_scan_mode": 1, "ewl_scan_start": 10, "ewl_scan_stop": 40, "ewl_scan_step": 5,
                "ewl_scan_interval": 2, "ewl": 12, "record_length": 5}  # fmt: skip
        for word, value in (("ewl", 120), ("ewl_scan_interval", 3), ("ewl_scan_mode", 1)):
            card = write(tmp_path / f"{word}.img", v4_card(SIZE, buffers=0, **scan))
            before = sector.settings_of(V4, card.read_bytes()[HEADER:COUNTS])
            result = tool("set", card, f"{word}={value}")
            assert result.code == 0
            assert sector.settings_of(V4, card.read_bytes()[HEADER:COUNTS]) == {**before, word: value}
            assert "record_length=5 ends it before" in result.out


@pytest.mark.slow
def test_old_data_is_read_once_and_read_back(tmp_path):
    """The list of old buffers and the wipe share one read; the look before takes a tenth of the card."""
    size = 48 << 20
    data = bytearray(v4_card(size, buffers=0))
    for at, content in v4_buffers(1200):
        data[at * SECTOR : at * SECTOR + len(content)] = content
    disk = FaultDisk(bytes(data))
    seen = look(disk, replace(DISK, size=size), "v4-wirefree")
    dirty = seen.data_end - seen.data_start
    assert dirty > 20 << 20
    settings = parse_settings(V4, ["record_length=1"])
    job = prepare.prepare(seen, settings, make_plan(V4, settings.values, {}, size))
    looked = len(disk.log)
    jobs.carry_out(job, disk, tmp_path)
    moved = {
        kind: sum(length for k, at, length in disk.log[looked:] if k == kind and at >= DATA)
        for kind in ("read", "write")
    }
    assert moved["write"] <= dirty + SECTOR
    assert dirty <= moved["read"] <= 2.2 * dirty, "once for the list and the wipe, once to read back"
    assert sum(length for kind, _, length in disk.log[:looked] if kind == "read") < 0.11 * size + (8 << 20)
    assert estimate(job.changes, seen.data_end) == pytest.approx(3 * dirty / 20e6, rel=0.01)
    region = (seen.data_start + SECTOR, SIZE)  # of which the proof reads, writes and puts back the half at the end
    assert estimate(job.changes, seen.data_end, region) == pytest.approx((3 * dirty + 1.5 * SIZE) / 20e6, rel=0.05)
    assert not any(disk.view()[COUNTS:])


@pytest.mark.slow
@needs_loops
def test_a_fresh_list_for_every_layout_on_a_device(tool, tmp_path):
    """Named wrongly and on a block device, the recording is still seen, and all of it is wiped once given up."""
    data = bytearray(daq_card())
    for at, content in v4_buffers(70, first_sector=20_000):
        data[at * SECTOR : at * SECTOR + len(content)] = content
    card = write(tmp_path / "c.img", bytes(data))
    with contextlib.ExitStack() as stack:
        device = stack.enter_context(loop(card))
        refused = tool("prepare", device, "record_length=1", "--layout", "v4-wirefree", "--json")
        assert refused.code == 3
        assert tool("prepare", device, "record_length=1", "--layout", "v4-wirefree",
                    "--discard-recording", refused.json["recording"]).code == 0  # fmt: skip
    assert not any(card.read_bytes()[COUNTS:])


@needs_loops
@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="/dev/shm is not here")
def test_a_loop_on_a_file_in_memory_is_a_loop_like_any(tool):
    """``/dev/shm`` holds files, though its name is that of a device."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        image = Path(folder) / "card.img"
        image.write_bytes(v4_card(SIZE, buffers=0))
        with loop(image) as device:
            result = tool("set", device, "gain=2")
            assert result.code == 0, result.err


@needs_loops
def test_a_loop_stacked_through_another_node(tool, tmp_path):
    """`losetup` on a node made elsewhere for the same device: neither of the two may be written."""
    card = write(tmp_path / "c.img", v4_card(SIZE, buffers=0))
    with loop(card) as device:
        node = tmp_path / "node"
        os.mknod(node, 0o600 | stat.S_IFBLK, Path(device).stat().st_rdev)
        with loop(node) as stacked:
            assert f"the loop device {stacked} is stacked on it" in tool("set", device, "gain=2").err
            result = tool("set", stacked, "gain=2")
            assert result.code == 3
            assert "stacked on" in result.err


@needs_loops
def test_an_image_linked_under_another_name_is_still_attached(tool, tmp_path):
    card = write(tmp_path / "c.img", v4_card(SIZE, buffers=0))
    os.link(card, tmp_path / "other.img")
    with loop(card) as device:
        assert f"the loop device {device} is stacked on it" in tool("set", tmp_path / "other.img", "gain=2").err


class Wrapping(FaultDisk):
    """A counterfeit: behind ``real`` bytes it begins again."""

    real = 10 << 20

    def read(self, offset, length):
        return b"".join(super(Wrapping, self).read((offset + i) % self.real, SECTOR) for i in range(0, length, SECTOR))

    def write(self, offset, data):
        for i in range(0, len(data), SECTOR):
            super().write((offset + i) % self.real, data[i : i + SECTOR])
        self.flush()


def test_prepare_refuses_a_counterfeit_that_wraps_within_the_plan(tmp_path):
    """At a length that is no power of two, and only where the planned recording reaches that far."""
    disk = Wrapping(v4_card(SIZE, buffers=0))
    seen = look(FaultDisk(v4_card(SIZE, buffers=0)), replace(DISK, size=SIZE), "v4-wirefree")
    before = bytes(disk.media)
    for length, fits in (("8s", False), ("2s", True)):
        settings = parse_settings(V4, [f"record_length={length}"])
        plan = make_plan(V4, settings.values, {}, SIZE)
        job = replace(prepare.prepare(seen, settings, plan), prove=prepare.region_to_prove(seen, plan))
        if fits:
            jobs.carry_out(job, disk, tmp_path)
        else:
            with pytest.raises(CheckFailedError, match="counterfeit"):
                jobs.carry_out(job, disk, tmp_path)
            assert disk.view()[: disk.real] == before[: disk.real]
