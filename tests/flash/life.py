"""A card's life from the first look to the last: the same steps on every system's disks."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from miniscope_xr.tools.cli import main
from miniscope_xr.tools.flash import sector
from miniscope_xr.tools.simulate import simulate

from .cli import Tool, card_id
from .test_commands import COUNTS, DATA, HEADER, interrupted, settings, zero

SIZE = 16 << 20
FRAMES = 40


def recorded(path: Path, size: int = SIZE) -> Path:
    """An image of a card with a recording of 40 frames."""
    path.write_bytes(simulate(frames=FRAMES, seed=5).data.ljust(size, b"\0"))
    return path


def is_listed(tool: Tool, device: str) -> None:
    rows = {row["path"]: row for row in tool.raw("list", "--json").json["devices"]}
    assert rows[device]["card_id"] == card_id(device)
    assert rows[device]["refused"] == []


def is_read(device: str, image: Path, folder: Path) -> None:
    """Looked at, checked, read and made a video of: the disk and the file below it are the same."""
    assert main(["info", device]) == 0
    assert main(["check", device, "--deep"]) == 0
    same = folder / "same.img"  # what is below the disk may be a device itself
    same.write_bytes(image.read_bytes())
    with xr.open_dataset(device, engine="miniscope") as disk, xr.open_dataset(same, engine="miniscope") as file:
        assert disk.sizes["frame"] == FRAMES
        np.testing.assert_array_equal(disk.video.values, file.video.values)
        assert disk.drop_attrs().identical(file.drop_attrs())
    assert main(["video", device, str(folder / "a.avi"), "--codec", "GREY"]) == 0
    assert (folder / "a.avi").stat().st_size > FRAMES * 304 * 304


def is_copied(tool: Tool, device: str, image: Path, folder: Path) -> None:
    assert tool.raw("image", device, folder / "copy.img").code == 0
    copied = (folder / "copy.img").read_bytes()
    assert len(copied) > DATA
    assert copied == image.read_bytes()[: len(copied)]


def is_changed(tool: Tool, device: str, image: Path) -> None:
    """Backup, set, prepare, restore, wipe."""
    before = image.read_bytes()
    assert tool.raw("backup", device, "--backup-dir", tool.backups).code == 0
    assert tool("set", device, "gain=2").code == 0
    assert settings(image)["gain"] == 2
    assert image.read_bytes()[DATA:] == before[DATA:]
    name = card_id(device)
    assert tool("prepare", device, "gain=4", "record_length=1").code == 3, "there is a recording on it"
    assert tool("prepare", device, "gain=4", "record_length=1", "--discard-recording", name).code == 0
    assert settings(image)["gain"] == 4
    assert zero(image.read_bytes()[COUNTS:])
    assert card_id(device) == name, "the card's own id is kept"
    assert sector.read_stamp(image.read_bytes()[HEADER:COUNTS]).intact
    assert tool("restore", device).code == 0
    assert settings(image)["gain"] == 2
    assert tool("wipe", device, "--whole", "--discard-recording", name).code == 0
    assert zero(image.read_bytes()[COUNTS:])


def is_finished_after_an_interrupt(tool: Tool, device: str, image: Path, monkeypatch) -> None:
    result = interrupted(tool, device, monkeypatch, "--discard-recording", card_id(device))
    assert result.code == 6, result.err
    assert settings(image)["gain"] != 4
    assert tool("resume", device).code == 0
    assert settings(image)["gain"] == 4


def is_finished_after_a_kill(tool: Tool, device: str, image: Path, before: str = "") -> None:
    """The process is ended while the card is wiped, as by a power cut: `resume` finishes it."""
    recorded(image)
    name = card_id(device)
    words = ["wipe", device, "--whole", "--discard-recording", name, "--image", "--yes", "--card", name]
    code = (
        "import sys, time\n"
        "from miniscope_xr.tools.cli.program import main\n"
        "from miniscope_xr.tools.flash import operation, commands\n"
        f"{before}\n"
        "operation.STEP, write = 64 << 10, operation._Watched.write\n"
        "def slowly(*words): write(*words); time.sleep(0.2)\n"
        "operation._Watched.write = slowly\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", code, *words, "--backup-dir", str(tool.backups)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        until = time.monotonic() + 120
        while child.poll() is None and not zero(image.read_bytes()[COUNTS:DATA]) and time.monotonic() < until:
            time.sleep(0.02)
        child.kill()
        said = child.communicate()
    assert not zero(image.read_bytes()[DATA:]), "killed before it was done"
    assert zero(image.read_bytes()[COUNTS:DATA]), said
    assert tool("resume", device).code == 0
    assert zero(image.read_bytes()[COUNTS:])


def is_qualified(tool: Tool, device: str, image: Path) -> None:
    """An empty card is as it was afterwards; its speed is what it is here."""
    before = image.read_bytes()
    assert zero(before[DATA:])
    result = tool("qualify", device, "--seconds", "0.5")
    assert result.code in (0, 7), result.err
    assert image.read_bytes() == before


def life_of_an_image(tool: Tool, image: Path, folder: Path, monkeypatch) -> None:
    """The same of a file, which is no disk of the computer: whoever may write it needs no other right."""
    image.parent.mkdir(exist_ok=True)
    recorded(image)
    is_read(str(image), image, folder)
    is_copied(tool, str(image), image, folder)
    is_changed(tool, str(image), image)
    recorded(image)
    is_finished_after_an_interrupt(tool, str(image), image, monkeypatch)
    is_qualified(tool, str(image), image)


def whole_life(tool: Tool, device: str, image: Path, folder: Path, monkeypatch) -> None:
    """Every step, in the order in which a card meets them."""
    is_listed(tool, device)
    is_read(device, image, folder)
    is_copied(tool, device, image, folder)
    is_changed(tool, device, image)
    recorded(image)
    is_finished_after_an_interrupt(tool, device, image, monkeypatch)
    is_qualified(tool, device, image)


def is_worked_through(hardware: Any, device: str, report: Path, *, kill: bool = True) -> None:
    """The list for hardware: only looked at, then written to; its report says that all is as expected."""
    words = [device, "--image", "--report", str(report)]
    before = card_id(device)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", None)  # nobody is there to pull a card
        if not kill:  # what is killed elsewhere comes to its end here
            patch.setattr(hardware.Checklist, "kill", lambda self: self.write("prepare", *hardware.SETTINGS, "led=30"))
        assert hardware.main(words) == 0, report.read_text(encoding="utf-8")
        assert hardware.main([*words, "--write", "another"]) == 3
        assert hardware.main([*words, "--write", before]) in (0, 7)
    said = report.read_text(encoding="utf-8")
    wrong = re.findall(r"## NOT AS EXPECTED: (.*)", said)
    assert not [title for title in wrong if "qualify" not in title], said  # its speed is what it is here
    assert "as expected: led on the card\n\nexpected 20; got led               20 percent" in said
