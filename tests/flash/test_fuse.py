"""A loop device over a disk that fails in ways no system call shows: torn, lying, flipped, unplugged."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from miniscope_xr.tools.copy import image

from .fakes import SECTOR, Fault, v4_card
from .harness import Scene, verdict
from .loops import attach, detach, needs_loops
from .test_strace import Child

CASES = 79


def has_fuse() -> bool:
    if not Path("/dev/fuse").exists() or not importlib.util.find_spec("mfusepy"):
        return False
    return subprocess.run([sys.executable, "-c", "import mfusepy"], capture_output=True).returncode == 0


pytestmark = [
    pytest.mark.slow,
    needs_loops,
    pytest.mark.skipif(not has_fuse(), reason="needs /dev/fuse, libfuse and mfusepy"),
]


class FuseDisk:
    """The faulty disk's process, and the loop device over it."""

    def __init__(self, folder: Path, media: bytes) -> None:
        self.folder = folder
        self.file = folder / "media"
        self.file.write_bytes(media)
        self.mount = folder / "mnt"
        self.mount.mkdir()
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "flash.fuse_disk", str(self.mount), str(self.file)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env,
        )  # fmt: skip
        until = time.monotonic() + 20
        while not (self.mount / "disk").exists():
            assert time.monotonic() < until
            assert self.process.poll() is None, "the FUSE process ended"
            time.sleep(0.02)
        self.device = attach(self.mount / "disk")

    def arm(self, media: bytes, fault: Fault) -> None:
        self.file.write_bytes(media)
        self._say(f"arm {self.file} {json.dumps(asdict(fault))}")

    def dump(self) -> bytes:
        self._say(f"dump {self.folder / 'dump'}")
        return (self.folder / "dump").read_bytes()

    def spoil(self, sectors: list[int]) -> None:
        self._say(f"bad {json.dumps(sectors, separators=(',', ':'))}")

    def log(self) -> list[tuple[str, int, int]]:
        self._say(f"log {self.folder / 'log'}")
        return json.loads((self.folder / "log").read_text())

    def _say(self, line: str) -> None:
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "ok\n"

    def pull(self) -> None:
        """Pull the reader out."""
        self.process.kill()
        self.process.wait(timeout=10)

    def close(self) -> None:
        detach(self.device)
        subprocess.run(["umount", "-l", self.mount], capture_output=True)
        self.process.stdin.close()
        self.process.stdout.close()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.pull()


@pytest.fixture
def scenes(ram_path, monkeypatch):
    from miniscope_xr.tools.flash import operation

    monkeypatch.setattr(operation, "STEP", 64 << 10)
    made = {}
    for verb in ("prepare", "set"):
        (ram_path / verb).mkdir()
        made[verb] = Scene.make(verb, ram_path / verb)
    return made


def cases(logs: dict[str, list[tuple[str, int, int]]]) -> list[tuple[str, Fault]]:
    """Every write and flush fails in every way, and every second read."""
    found = []
    for verb, log in logs.items():
        for at, (what, _, length) in enumerate(log):
            if what == "write":
                kinds = [("error", 0), ("lying", 0), ("unplugged", 0), ("flipped", 133), ("flipped", 0)]
                kinds += [(kind, where) for kind in ("torn", "short lie") for where in (1, 17, length - 1)]
            elif what == "flush":
                kinds = [("error", 0), ("unplugged", 0)]
            else:
                kinds = [("error", 0), ("flipped", 77), ("unplugged", 0)] if at % 2 else []
            found += [(verb, Fault(at, kind, where)) for kind, where in kinds]
    return found


def test_a_failing_disk_under_a_real_block_device(ram_path, scenes):
    child = Child(scenes, ram_path)
    disk = FuseDisk(ram_path, scenes["set"].start)
    wrong = {}
    codes = set()
    try:
        logs = {}
        for verb, scene in scenes.items():
            disk.arm(scene.start, Fault(-1, ""))
            assert child.ask(verb, disk.device, ram_path / f"clean-{verb}") == 0
            assert disk.dump() == scene.end
            logs[verb] = disk.log()
        faults = cases(logs)
        assert len(faults) >= CASES
        for i, (verb, fault) in enumerate(faults):
            scene = scenes[verb]
            disk.arm(scene.start, fault)
            backups = ram_path / str(i)
            code = child.ask(verb, disk.device, backups)
            codes.add(code)
            found = verdict(scene, scene.job, code, disk.dump(), fault.kind == "unplugged", backups)
            if found:
                wrong[verb, fault] = (code, found)
    finally:
        child.close()
        disk.close()
    assert not wrong, f"{len(wrong)} of {len(faults)}, the first: {next(iter(wrong.items()))}"
    assert {0, 5, 6} <= codes


def test_the_reader_is_pulled(ram_path, scenes):
    child = Child(scenes, ram_path)
    disk = FuseDisk(ram_path, scenes["set"].start)
    try:
        disk.arm(scenes["set"].start, Fault(-1, ""))
        disk.pull()
        assert child.ask("set", disk.device, ram_path / "b") == 5
    finally:
        child.close()
        disk.close()


def test_image_of_a_device_with_bad_sectors(ram_path):
    """No sector more is lost than is bad, although the kernel reads ahead in larger pieces."""
    card = v4_card(4 << 20, buffers=60)
    disk = FuseDisk(ram_path, card)
    bad = [1100, 1101, 1500, 2047, 2048, 2600]
    try:
        disk.spoil(bad)
        copied = image.copy_image(disk.device, ram_path / "copy.img", layout="v4-wirefree")
    finally:
        disk.close()
    assert [s for at, n in copied.bad for s in range(at // SECTOR, (at + n) // SECTOR)] == bad
    expected = bytearray(card[: copied.size])
    for s in bad:
        expected[s * SECTOR : (s + 1) * SECTOR] = bytes(SECTOR)
    assert (ram_path / "copy.img").read_bytes() == expected
