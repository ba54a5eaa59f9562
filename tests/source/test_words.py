"""Messages name commands that the reader's computer has."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import miniscope_xr
from miniscope_xr.source import words
from miniscope_xr.tools.cli import main
from miniscope_xr.tools.copy.image import Copied, complain
from miniscope_xr.tools.flash.errors import CheckFailedError
from miniscope_xr.tools.simulate import blank

PACKAGE = Path(miniscope_xr.__file__).parent
COMMANDS = re.compile(r"\b(u?mount|sudo|losetup|lsblk|mountvol|ddrescue|diskutil|chmod|Get-Disk)\b|/dev/sd|&&")
# The one place, and what is no message: what diskutil and PowerShell are asked, the first line of a map
ITS_PLACE = {
    "source/words.py": "",
    "tools/flash/disks/macos.py": "diskutil",
    "tools/flash/disks/windows.py": "Get-Disk",
    "source/copy_map.py": "ddrescue",
}
SYSTEMS = ["linux", "darwin", "win32"]


@pytest.fixture(params=SYSTEMS)
def system(request, monkeypatch):
    monkeypatch.setattr(words.sys, "platform", request.param)
    return request.param


def shown(tree: ast.AST) -> list[ast.Constant]:
    """Every text of a module that is no docstring."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    said = {id(node.body[0].value) for node in ast.walk(tree) if isinstance(node, documented) and _documents(node)}
    said |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [node for node in texts if id(node) not in said]


def _documents(node: ast.Module | ast.ClassDef | ast.FunctionDef) -> bool:
    return bool(node.body) and isinstance(node.body[0], ast.Expr)


@pytest.mark.slow
def test_the_commands_of_systems_are_in_one_place():
    found = []
    for file in PACKAGE.rglob("*.py"):
        name = file.relative_to(PACKAGE).as_posix()
        for node in shown(ast.parse(file.read_text(encoding="utf-8"))):
            for match in COMMANDS.finditer(node.value):
                if name != "source/words.py" and match[0] != ITS_PLACE.get(name):
                    found.append(f"{name}:{node.lineno}: {node.value.strip()}")
    assert not found


def test_rights(system):
    said = words.as_administrator()
    assert said.startswith("run as administrator")
    assert ("sudo" in said) == (system != "win32")
    assert ("Start menu" in said) == (system == "win32")


def test_a_volume_is_let_go():
    """By the disk's name, which belongs to one system only."""
    assert words.unmount_command(r"\\.\PhysicalDrive2", "E:\\") == "mountvol E: /p"
    assert words.unmount_command("/dev/rdisk4", "/Volumes/NO NAME") == "diskutil unmountDisk /dev/disk4"
    assert words.unmount_command("/dev/sdb", "/mnt") == "umount /mnt"
    assert words.unmount_command("/dev/sdb", "/media/a b") == "umount '/media/a b'"


def test_a_path_is_typed(system):
    assert words.quoted("a.img") == "a.img"
    assert words.quoted("a b.img") == ('"a b.img"' if system == "win32" else "'a b.img'")
    assert words.quoted(words.example_device()) == words.example_device()


def test_what_to_type_for_a_card_as_it_is_sold(tmp_path, system, capsys):
    """Windows PowerShell has neither single quotes around a path with spaces nor ``&&``."""
    card = bytearray(blank("v4-wirefree").data.ljust(2 << 20, b"\0"))
    card[: 1 << 20] = bytes(1 << 20)
    card[3:11], card[510:512] = b"EXFAT   ", b"\x55\xaa"
    path = tmp_path / "my card.img"
    path.write_bytes(card)
    assert main(["info", str(path)]) != 0
    said = capsys.readouterr().err
    quote, then = ('"', ", then ") if system == "win32" else ("'", " && ")
    assert f"blank-table {quote}{path}{quote} --image{then}miniscope-xr prepare {quote}{path}{quote}" in said


def test_a_copy_that_lacks_sectors(system):
    with pytest.raises(CheckFailedError) as caught:
        complain(Copied(Path("a.img"), 1 << 20, "", ((0, 512),)))
    assert ("`ddrescue -d CARD a.img a.img.map`" in str(caught.value)) == (system != "win32")
    assert ("another card reader" in str(caught.value)) == (system == "win32")


@pytest.mark.parametrize("command", ["info", "video"])
def test_help_names_a_card_as_this_system_does(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "-h"])
    assert words.example_device() in capsys.readouterr().out
