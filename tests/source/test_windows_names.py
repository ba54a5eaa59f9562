"""Names that Windows takes for something else: said before anything is written, since it would be somewhere else."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from miniscope_xr.errors import CardNotFoundError, OutputError, OutputExistsError
from miniscope_xr.source import windows
from miniscope_xr.source.local import Device
from miniscope_xr.source.replace import folder_for_now, new_folder
from miniscope_xr.source.windows import hint_of_length, is_device, unusable
from miniscope_xr.tools.export.folders import whole_folder
from miniscope_xr.tools.flash.ask import is_person
from miniscope_xr.tools.stream.outputs import refuse_special, refuse_too_large, whole_file


@pytest.mark.parametrize(
    "path",
    ["film.avi", r"C:\film.avi", r"C:film.avi", r"\\nas\lab$\day 3\film.avi", r"\\?\C:\Users\J\u00f6rg M\film.avi",
     r"\\?\UNC\nas\lab\film.avi", r"..\film.avi", ".", "..", "C:\\", "console.avi", "com.avi", "com10.img", "nul_.img",
     ".film", "a folder/", "card. 1.img", "auxiliary", "", "\N{MOUSE}.img"],
)  # fmt: skip
def test_names_as_people_give_them(path: str) -> None:
    assert unusable(path) == ""


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("mouse 12:30.avi", "takes no ':' in a name ('mouse 12:30.avi')"),  # NTFS: a stream of the file "mouse 12"
        (r"C:\lab\film.avi:1", "takes no ':'"),
        ("film.avi::$DATA", "takes no ':'"),
        (r"day?\film.avi", "takes no '?' in a name ('day?')"),
        ("s3://bucket/film.avi", "takes no ':'"),
        *((name, "is the name of a device") for name in ("NUL", "con", "aux.csv", r"C:\lab\prn.tar.gz", "CONIN$",
                                                         "nul .avi", "com².avi", "lpt9.img", r"C:\aux\film.avi")),
        ("film.avi.", "drops dots and spaces at the end of a name ('film.avi.')"),
        ("film.avi ", "drops dots and spaces"),
        (r"C:\day 3. \film.avi", "drops dots and spaces at the end of a name ('day 3. ')"),
        ("...", "drops dots and spaces"),
    ],
)  # fmt: skip
def test_names_windows_takes_for_something_else(path: str, why: str) -> None:
    assert why in unusable(path)


def test_names_of_devices() -> None:
    assert [name for name in ("aux", "Aux.", "com0", "com\u0663", "lpt10", "conin", "nul.") if is_device(name)] == [
        "aux", "Aux.", "com0", "nul.",
    ]  # fmt: skip


@pytest.fixture
def on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")


@pytest.mark.usefixtures("on_windows")
@pytest.mark.parametrize("name", ["mouse 12:30.avi", "aux.avi", "film. "])
def test_every_output_asks(name: str, tmp_path: Path) -> None:
    for block in (
        whole_file(tmp_path / name, force=True),
        whole_folder(tmp_path / name),
        whole_file(tmp_path / name / "x"),
    ):
        with pytest.raises(OutputError, match=r"Windows"), block:
            pass
    assert list(tmp_path.iterdir()) == []


def test_an_address_is_no_folder() -> None:
    with pytest.raises(OutputExistsError, match="is an address"):
        refuse_special(Path("s3://bucket/film.avi"))
    refuse_special(Path("gone.avi"))


@pytest.mark.usefixtures("on_windows")
def test_a_path_that_is_too_long_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody switched long paths on, Windows only says that nothing is there."""
    missing = FileNotFoundError(errno.ENOENT, "No such file or directory")
    long = "/" + "d" * 259
    letters = len(os.path.abspath(long))  # noqa: PTH100 (Windows puts the drive before it)
    monkeypatch.setattr(windows, "_long_paths", lambda: False)
    assert f"its path has {letters} letters" in hint_of_length(long, missing)
    assert hint_of_length("/" + "d" * 200, missing) == ""
    assert "takes up to 259" in hint_of_length("/" + "d" * 220, missing, 220)
    assert hint_of_length(long, PermissionError(errno.EACCES, "denied")) == ""
    assert f"{letters} letters" in hint_of_length(long, named(OSError(errno.EINVAL, "too long"), 206))
    monkeypatch.setattr(windows, "_long_paths", lambda: True)
    assert hint_of_length(long, missing) == ""


def test_it_is_said_where_a_card_is_not_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(windows, "told", lambda error: error)
    monkeypatch.setattr(windows, "_long_paths", lambda: False)
    with pytest.raises(CardNotFoundError, match=r"reader in \(its path has \d+ letters"):
        Device(tmp_path.joinpath(*["d" * 90] * 3, "card.img"))
    with pytest.raises(CardNotFoundError, match=r"reader in: 'gone"):
        Device("gone.img")


@pytest.mark.parametrize("switched", [None, 0, 1])
def test_where_long_paths_are_switched_on(switched: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    class Key:
        def __enter__(self) -> None:
            if switched is None:
                raise FileNotFoundError(2, "no such value")

        def __exit__(self, *_: object) -> None:
            pass

    registry = SimpleNamespace(
        HKEY_LOCAL_MACHINE=0, OpenKey=lambda *_: Key(), QueryValueEx=lambda key, name: (switched, 4)
    )
    monkeypatch.setitem(sys.modules, "winreg", registry)
    assert windows._long_paths() is bool(switched)


def named(error: OSError, code: int) -> OSError:
    """An error as Windows numbers it."""

    class Numbered(type(error)):  # type: ignore[misc]
        winerror = code

    return Numbered(*error.args)


def test_a_folder_nobody_may_write_to_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Program Files, or a share that is for reading: to ``tempfile`` on Windows each name there is taken, for ever."""
    tried: list[str] = []

    def forbidden(path: Any, *_: Any, **__: Any) -> int:
        tried.append(str(path))
        assert len(tried) < 10, "it goes on trying"
        raise named(PermissionError(errno.EACCES, "Access is denied", str(path)), 5)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", forbidden)
        patch.setattr(os, "mkdir", forbidden)
        for block in (whole_file(tmp_path / "film.avi"), whole_folder(tmp_path / "store.zarr")):
            with pytest.raises(OutputError, match="cannot be written: Access is denied"), block:
                pass
        with pytest.raises(PermissionError), folder_for_now(tmp_path):
            pass
    assert len(tried) == 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", [r"\\.\PhysicalDrive2", r"\\.\E:", r"\\.\E:\film.avi"])
def test_a_device_is_no_output(path: str) -> None:
    assert unusable(path) == "this is a device; give the name of a file"


@pytest.mark.skipif(sys.platform != "win32", reason="drives and shares of Windows")
@pytest.mark.parametrize("there", ["Q:\\", r"\\nosuch\share\\"])
def test_a_drive_that_is_not_there(there: str) -> None:
    with pytest.raises(OutputError, match=r"there is no .* on this computer"):
        refuse_too_large(Path(there) / "day" / "film.avi", 1)
    with pytest.raises(OutputExistsError, match="a drive or a folder of another computer"):
        refuse_special(Path(there))


def test_nul_is_nobody() -> None:
    """What a planned task has for its input calls itself a terminal on Windows."""
    with open(os.devnull, encoding="utf-8") as nothing:
        assert not is_person(nothing)
    assert not is_person(None)
    assert is_person(SimpleNamespace(isatty=lambda: True, fileno=lambda: (_ for _ in ()).throw(OSError())))


def test_a_new_folder_is_one_user_s(tmp_path: Path) -> None:
    one, other = new_folder(tmp_path, ".a-", ".part"), new_folder(tmp_path, ".a-", ".part")
    assert one != other
    if os.name == "posix":
        assert one.stat().st_mode & 0o77 == 0
