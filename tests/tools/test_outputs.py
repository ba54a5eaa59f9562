"""An output is a new file or a regular one: nothing else of that name is replaced, whatever is forced."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from miniscope_xr.errors import OutputError, OutputExistsError
from miniscope_xr.tools.cli import main
from miniscope_xr.tools.export import FORMATS
from miniscope_xr.tools.simulate import simulate
from miniscope_xr.tools.stream.outputs import kind_of, refuse_existing, whole_file

pytestmark = pytest.mark.skipif(os.name != "posix", reason="pipes, sockets and links as POSIX has them")


def pipe(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's name is at most 108 bytes long
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def device(path: Path) -> None:
    try:
        os.mknod(path, 0o20600, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("device nodes are made by root only")


def link(path: Path) -> None:
    (path.parent / "precious").write_text("precious")
    path.symlink_to(path.parent / "precious")


def dangling(path: Path) -> None:
    path.symlink_to(path.parent / "nothing")


MAKE = [pipe, unix_socket, device, link, dangling, Path.mkdir]
COMMANDS = {
    "video": ["video", "CARD", "OUT.avi", "--force"],
    "image": ["image", "CARD", "OUT.img", "--force"],
    "simulate": ["simulate", "OUT.img", "--frames", "2", "--force"],
    "report": ["report", "CARD", "OUT.html", "--force"],
    **{
        name: ["export", "CARD", f"OUT{''.join(known.suffixes[:1])}", "--to", name, "--force"]
        for name, known in FORMATS.items()
        if name != "miniscope-daq"
    },
}


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(frames=6, width=64, height=64).write(tmp_path_factory.mktemp("card") / "card.img")


def state(folder: Path) -> dict[str, tuple[int, int, int]]:
    return {p.name: (p.lstat().st_ino, p.lstat().st_mode, p.lstat().st_size) for p in folder.iterdir()}


@pytest.mark.parametrize("make", MAKE)
@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_replaces_what_is_no_file(
    card: Path, tmp_path: Path, command: str, make: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    args = [str(card) if a == "CARD" else a.replace("OUT", str(tmp_path / "out")) for a in COMMANDS[command]]
    out = Path(next(a for a in args if a.startswith(str(tmp_path / "out"))))
    make(out)
    if make is Path.mkdir:
        (out / "mine").write_text("mine")
    before = state(tmp_path)
    assert main(args) in (2, 5)
    assert state(tmp_path) == before
    said = capsys.readouterr()
    assert str(out) in said.err
    assert said.err.count("\n") == 1
    assert not said.out


@pytest.mark.parametrize("beside", [".part", ".map", ".sha256"])
def test_nor_does_a_copy_follow_links_beside_it(card: Path, tmp_path: Path, beside: str) -> None:
    link(tmp_path / f"out.img{beside}")
    before = state(tmp_path)
    assert main(["image", str(card), str(tmp_path / "out.img"), "--force"]) == 2
    assert state(tmp_path) == before
    assert (tmp_path / "precious").read_text() == "precious"


@pytest.mark.parametrize("name", ["card.avi", "card.tif", "card.html"])
def test_the_card_is_no_output(card: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / name
    source.write_bytes(card.read_bytes())
    command = {".avi": "video", ".tif": "export", ".html": "report"}[source.suffix]
    assert main([command, str(source), str(source), "--force"]) == 2
    assert "is the card itself" in capsys.readouterr().err
    assert source.read_bytes() == card.read_bytes()


class TestRule:
    def test_names_what_is_there(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        link(tmp_path / "link")
        assert kind_of(tmp_path / "new") == ""
        assert kind_of(tmp_path / "file") == "a file"
        assert kind_of(tmp_path) == "a folder"
        assert kind_of(tmp_path / "link") == f"a link to {tmp_path / 'precious'}"
        assert kind_of(tmp_path / "file" / "below") == ""

    def test_a_regular_file_is_replaced_when_forced(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_text("old")
        with pytest.raises(OutputExistsError, match="--force"):
            refuse_existing(tmp_path / "a", force=False)
        with whole_file(tmp_path / "a", force=True) as part:
            part.write_text("new")
        assert (tmp_path / "a").read_text() == "new"

    def test_a_pipe_that_came_meanwhile_stays(self, tmp_path: Path) -> None:
        def write() -> None:
            with whole_file(tmp_path / "a", force=True) as part:
                part.write_text("new")
                pipe(tmp_path / "a")

        with pytest.raises(OutputExistsError, match="a pipe"):
            write()
        assert kind_of(tmp_path / "a") == "a pipe"
        assert len(list(tmp_path.iterdir())) == 1

    @pytest.mark.parametrize("name", ["x" * 300, "nul\0byte", "lone\udcffsurrogate" * 30])
    def test_a_name_no_file_can_have_is_an_error_of_ours(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(OutputError), whole_file(tmp_path / name) as part:
            part.write_text("")
        assert not list(tmp_path.iterdir())

    def test_a_long_name_that_fits_is_written(self, tmp_path: Path) -> None:
        name = "x" * 250 + ".txt"
        with whole_file(tmp_path / name) as part:
            part.write_text("")
        assert [p.name for p in tmp_path.iterdir()] == [name]
