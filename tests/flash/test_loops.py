"""Every command on real block devices (loop devices), and what the kernel refuses."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from miniscope_xr.errors import CardPermissionError
from miniscope_xr.tools.flash import ask, jobs, operation, prepare, sector
from miniscope_xr.tools.flash.disks.find import identify
from miniscope_xr.tools.flash.errors import BusyError, CardWriteError, RefusedError
from miniscope_xr.tools.flash.look import look
from miniscope_xr.tools.flash.target.linux import FileTarget
from miniscope_xr.tools.flash.target.open import open_target

from .cli import Tool, card_id
from .fakes import SECTOR, V4, v4_card, with_table
from .loops import attach, detach, loop, needs_loops, run, swap
from .test_commands import COUNTS, HEADER, interrupted, settings, write, zero

pytestmark = needs_loops
SIZE = 16 << 20


@pytest.fixture
def tool(capsys, tmp_path):
    return Tool(capsys, tmp_path / "backups")


@pytest.fixture
def image(tmp_path):
    return write(tmp_path / "card.img", v4_card(), SIZE)


@pytest.fixture
def device(image):
    with loop(image) as name:
        yield name


def test_prepare(tool, device, image):
    words = ("gain=2", "record_length=5", "--discard-recording", card_id(device))
    assert tool("prepare", device, *words).code == 0
    now = image.read_bytes()
    assert zero(now[COUNTS:])
    assert settings(image)["gain"] == 2
    assert sector.read_stamp(now[HEADER:COUNTS]).intact


def test_prepare_keep_set_wipe_restore(tool, device, image):
    before = image.read_bytes()
    assert tool("prepare", device, "gain=2", "record_length=5", "--keep").code == 0
    assert tool("set", device, "gain=4").code == 0
    assert image.read_bytes()[COUNTS + 2 * SECTOR :] == before[COUNTS + 2 * SECTOR :], "all data but its first sector"
    assert tool("restore", device).code == 0
    assert settings(image)["gain"] == 2
    assert tool("wipe", device, "--discard-recording", card_id(device)).code == 0
    assert zero(image.read_bytes()[COUNTS:])


def test_resume(tool, device, image, monkeypatch):
    assert interrupted(tool, device, monkeypatch, "--discard-recording", card_id(device)).code == 6
    assert settings(image)["gain"] != 4
    assert tool("resume", device).code == 0
    assert settings(image)["gain"] == 4
    assert zero(image.read_bytes()[COUNTS:])


def test_blank_table(tool, tmp_path):
    before = with_table(v4_card(SIZE, buffers=0), gpt=True)
    image = write(tmp_path / "c.img", before, SIZE)
    with loop(image) as device:
        assert tool("set", device, "gain=2").code == 3
        assert tool("blank-table", device).code == 0
        assert zero(image.read_bytes()[:HEADER])
        assert tool("restore", device).code == 0
    assert image.read_bytes() == before


@pytest.mark.slow
def test_backup_qualify_image(tool, tmp_path):
    image = write(tmp_path / "c.img", v4_card(SIZE, buffers=0), SIZE)
    before = image.read_bytes()
    with loop(image) as device:
        assert tool.raw("backup", device, "--backup-dir", tool.backups).code == 0
        assert tool("qualify", device, "--seconds", "0.5").code in (0, 7)
    assert image.read_bytes() == before


def test_image_of_a_device(tool, device, image, tmp_path):
    import xarray as xr

    assert tool.raw("image", device, tmp_path / "copy.img").code == 0
    with xr.open_datatree(device, engine="miniscope") as card, xr.open_datatree(tmp_path / "copy.img") as copy:
        assert card.identical(copy)


def test_list_tells_that_it_is_a_loop(tool, device):
    rows = {row["path"]: row for row in tool.raw("list", "--all", "--json").json["devices"]}
    assert "--image" in rows[device]["refused"][0]
    assert rows[device]["card_id"] == card_id(device)


def test_without_image_refused(tool, device):
    assert tool.raw("set", device, "gain=2").code == 3


def test_one_sector_is_one_sector(device, image):
    """The neighbours of the settings sector are never written, not even with what they hold."""
    with open_target(identify(device), write=True) as target:
        target.read(HEADER, SECTOR)
        neighbour = b"\x99" * SECTOR
        with open(image, "r+b") as file:  # behind the device's back, as another 4 KiB page writer would see it
            file.seek(HEADER - SECTOR)
            file.write(neighbour)
        target.write(HEADER, bytes(SECTOR))
        target.flush()
    assert image.read_bytes()[HEADER - SECTOR : HEADER] == neighbour


def test_exclusive_descriptor_keeps_others_out(device, tmp_path):
    with open_target(identify(device), write=True):
        with pytest.raises(OSError, match="busy"):
            os.open(device, os.O_RDWR | os.O_EXCL)
        with pytest.raises(BusyError, match="another program"):
            FileTarget(identify(device), write=True)
        (tmp_path / "mnt").mkdir()
        assert subprocess.run(["mount", device, tmp_path / "mnt"], capture_output=True).returncode != 0


def test_a_locked_device_is_busy(device, monkeypatch):
    import fcntl  # Windows has none

    from miniscope_xr.tools.flash.target import linux as target

    monkeypatch.setattr(target, "_LOCK_PATIENCE", 0.1)
    fd = os.open(device, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with pytest.raises(BusyError, match="locked by a copy"):
            FileTarget(identify(device), write=True)
    finally:
        os.close(fd)


@contextlib.contextmanager
def mounted(image, where):
    run("mkfs.ext4", "-q", "-F", image)
    where.mkdir()
    with loop(image) as device:
        run("mount", device, where)
        try:
            yield device
        finally:
            run("umount", where)


@pytest.mark.skipif(not shutil.which("mkfs.ext4"), reason="needs mkfs.ext4")
def test_mounted(tool, tmp_path):
    image = write(tmp_path / "fs.img", b"", SIZE)
    with mounted(image, tmp_path / "mnt") as device:
        before = image.read_bytes()
        result = tool("prepare", device, "gain=2", "--layout", "v4-wirefree")
        assert result.code == 4
        assert f"`umount {tmp_path / 'mnt'}`" in result.err
        with pytest.raises(BusyError):
            FileTarget(identify(device), write=True)
        assert image.read_bytes() == before
    with loop(image) as device:
        result = tool("prepare", device, "gain=2", "--layout", "v4-wirefree")
        assert result.code == 3
        assert "ext4" in result.err


@pytest.mark.skipif(not shutil.which("mkfs.ext4") or not shutil.which("unshare"), reason="needs mkfs.ext4 and unshare")
def test_mounted_in_another_namespace(tool, tmp_path):
    """Not in our mount table: the exclusive open notices it."""
    image = write(tmp_path / "fs.img", b"", SIZE)
    run("mkfs.ext4", "-q", "-F", image)
    (tmp_path / "mnt").mkdir()
    with loop(image) as device:
        command = f"mount {device} {tmp_path}/mnt && echo ready && read line"
        other = subprocess.Popen(["unshare", "-m", "--propagation", "private", "sh", "-c", command],
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
        try:
            if other.stdout.readline() != b"ready\n":
                pytest.skip("needs a mount namespace of its own, which this machine (a container?) does not give")
            assert identify(device).mounts == ()
            result = tool("blank-table", device, "--layout", "v4-wirefree")
            assert result.code == 4
            assert "also in another session" in result.err
        finally:
            other.communicate(b"\n", timeout=10)


def test_read_only(tool, image):
    with loop("-r", image) as device:
        result = tool("set", device, "gain=2")
        assert result.code == 3
        assert "read-only" in result.err
        with pytest.raises(RefusedError, match="read-only"):
            FileTarget(identify(device), write=True)
        assert tool.raw("backup", device, "--backup-dir", tool.backups).code == 0, "reading is fine"


def test_too_small(tool, image):
    with loop("--sizelimit", 523776, image) as device:
        result = tool("set", device, "gain=2", "--layout", "v4-wirefree")
        assert result.code == 3
        assert "too small" in result.err


def test_large_sectors(tool, image):
    with loop("-b", 4096, image) as device:
        result = tool("set", device, "gain=2")
        assert result.code == 3
        assert "sectors of 4096 bytes" in result.err
        with pytest.raises(RefusedError, match="4096"):
            FileTarget(identify(device), write=False)


def test_a_loop_stacked_on_the_card(tool, device):
    with loop(device) as stacked:
        result = tool("set", device, "gain=2")
        assert result.code == 3
        assert f"`losetup -d {stacked}`" in result.err
        assert tool("set", stacked, "gain=2").code == 3


def test_an_image_that_is_a_loop_device(tool, device, image):
    result = tool("set", image, "gain=2")
    assert result.code == 3
    assert device in result.err


def test_partition(tool, tmp_path):
    image = write(tmp_path / "p.img", with_table(bytes(SIZE)), SIZE)
    with loop("-P", image) as device:
        subprocess.run(["partx", "-a", device], capture_output=True)
        part = f"{device}p1"
        if not Path(part).exists():
            pytest.skip("the kernel makes no partitions of loop devices here")
        try:
            result = tool("set", part, "gain=2")
            assert result.code == 3
            assert "it is a partition; give the whole disk" in result.err
            assert tool("set", device, "gain=2", "--layout", "v4-wirefree").code == 3
        finally:
            subprocess.run(["partx", "-d", device], capture_output=True)


def test_swap(tool, tmp_path):
    if not shutil.which("mkswap"):
        pytest.skip("needs mkswap")
    image = write(tmp_path / "s.img", b"", SIZE)
    with loop(image) as device:
        run("mkswap", device)
        if subprocess.run(["swapon", device], capture_output=True).returncode:
            pytest.skip("this kernel allows no swap")
        try:
            result = tool("set", device, "gain=2", "--layout", "v4-wirefree")
            assert result.code == 3
            assert "swap space of this computer" in result.err
        finally:
            run("swapoff", device)


def test_shrinks_while_it_is_written(device, image):
    with open_target(identify(device), write=True) as target:
        os.truncate(image, SIZE // 2)
        run("losetup", "-c", device)
        with pytest.raises(CardWriteError, match="changed or resized"):
            target.same()


def test_shrinks_in_the_middle_of_a_wipe(tool, tmp_path, monkeypatch):
    image = write(tmp_path / "c.img", b"\x01" * SIZE, SIZE)
    data = bytearray(v4_card(SIZE, buffers=0))
    data[COUNTS + SECTOR :] = b"\x01" * (SIZE - COUNTS - SECTOR)
    image.write_bytes(data)
    monkeypatch.setattr(operation, "STEP", 1 << 20)
    with loop(image) as device:

        def shrink(name, done, total):
            if name == "data" and done > 2 << 20:
                os.truncate(image, SIZE // 2)
                run("losetup", "-c", device)

        disk = identify(device)
        with open_target(disk, write=False) as target:
            seen = look(target, disk)
        with pytest.raises(Exception, match="changed or resized") as caught:
            jobs.execute(prepare.wipe(seen, SIZE), tmp_path / "b", image=True, progress=shrink)
        assert caught.value.exit_code == 6


def test_grows_since_it_was_identified(device, image):
    disk = identify(device)
    os.truncate(image, 2 * SIZE)
    run("losetup", "-c", device)
    with pytest.raises(RefusedError, match="not the card it was"):
        FileTarget(disk, write=True)


def test_swapped_medium(tool, image, tmp_path, monkeypatch):
    """Between the question and the answer another card is put into the same reader."""
    other = write(tmp_path / "other.img", v4_card(), SIZE)
    before = other.read_bytes()
    device = attach(image)
    try:
        monkeypatch.setattr(ask, "confirm", lambda *args, **named: swap(device, other))
        result = tool("set", device, "gain=2")
        assert result.code == 3
        assert "another card than the one shown" in result.err
        assert other.read_bytes() == before
    finally:
        detach(device)


def test_write_past_the_end(device):
    with open_target(identify(device), write=True) as target:
        for offset, length in ((SIZE, SECTOR), (SIZE - SECTOR, 2 * SECTOR), (-SECTOR, SECTOR), (1, SECTOR), (0, 100)):
            with pytest.raises(CardWriteError, match="not sectors of the card"):
                target.write(offset, bytes(length))


def test_other_users_have_no_permission(device, tmp_path):
    code = (
        "import os,sys; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "from miniscope_xr.tools.flash.disks.find import identify\n"
        "from miniscope_xr.tools.flash.target.linux import FileTarget\n"
        f"try: FileTarget(identify({device!r}), write=True)\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    # imports first: the checkout may not be readable for others
    needed = "target.linux", "disks.find", "disks.linux"
    code = "".join(f"import miniscope_xr.tools.flash.{name}\n" for name in needed) + code
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert found.startswith(CardPermissionError.__name__)
    assert "sudo" in found


def test_the_json_of_a_device(tool, device):
    report = tool("set", device, "gain=2", "--json").json
    assert report["device"]["bus"] == "loop"
    assert report["device"]["diskseq"] == int(run("cat", f"/sys/block/{device[5:]}/diskseq"))
    assert json.dumps(report)
    with open(device, "rb") as file:
        assert sector.settings_of(V4, file.read(SIZE)[HEADER:COUNTS])["gain"] == 2
