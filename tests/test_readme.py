"""The README tells the truth: its Python runs, its commands and options exist, its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from miniscope_xr.backend import MiniscopeBackendEntrypoint
from miniscope_xr.tools.cli import main
from miniscope_xr.tools.simulate import simulate
from tests.tools.test_cli import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
DOCS = sorted((ROOT / "docs").glob("*.md"))


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


@pytest.mark.slow
def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    simulate(frames=300).write(tmp_path / "card.img")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    assert len(blocks(README, "python")) >= 3
    for code in blocks(README, "python"):
        exec(code, names)
    names["ds"].close()  # type: ignore[attr-defined]
    assert (tmp_path / "stalled.img").exists()


def test_exactly_two_commands_set_everything_up() -> None:
    commands = blocks(README, "sh")
    assert len(commands) == 2
    assert all(len(command.strip().splitlines()) == 1 for command in commands)
    assert "miniscope-xr demo" in commands[0]
    assert "pytest" in commands[1]


def test_every_command_of_the_readme_exists() -> None:
    named = set(re.findall(r"^miniscope-xr ([\w-]+)", README, re.M))
    assert named
    assert named <= set(COMMANDS)


def test_every_option_of_the_readme_exists() -> None:
    named = set(re.findall(r"^\| `(\w+)=", README, re.M))
    assert named
    assert named <= set(MiniscopeBackendEntrypoint.open_dataset_parameters or ())


def _rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the table below this row of headings, code in them without its marks."""
    table = (ROOT / "docs" / page).read_text(encoding="utf-8").split(heading)[1].split("\n\n")[0]
    return [[cell.strip() for cell in row.split(" | ")] for row in table.strip().splitlines()[1:]]


def test_the_page_of_commands_has_every_command_and_no_other() -> None:
    rows = _rows("commands.md", "| command | what it does |")
    first = [row[0].removeprefix("| ") for row in rows]
    # `preset list`, `show`: words of one command; `backup`, `restore`: commands of their own
    named = {word for cell in first for word in re.findall(r"`([\w-]+)[^`]*`", re.sub("(?<= list`).*", "", cell))}
    assert named == set(COMMANDS)


def test_the_options_on_the_page_of_commands_are_those_commands_own(capsys: pytest.CaptureFixture[str]) -> None:
    said = {}
    for command in COMMANDS:
        with pytest.raises(SystemExit):
            main([command, "--help"])
        said[command] = set(re.findall(r"--[\w-]+", capsys.readouterr().out))
    named = [
        (command, option)
        for options, of, _ in _rows("commands.md", "| option | of | what it is for |")
        for command in re.findall(r"`([\w-]+)`", of)
        for option in re.findall(r"--[\w-]+", options)
    ]
    assert len(named) > 20
    assert [(command, option) for command, option in named if option not in said[command]] == []


@pytest.mark.parametrize("page", [ROOT / "README.md", *DOCS], ids=lambda p: p.name)
def test_who_names_a_card_as_linux_does_names_it_as_the_others_do(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    if page.name == "architecture.md":  # about the code, for those who change it
        return
    named = {name: name in text for name in ("/dev/sd", "/dev/rdisk", r"\\.\PhysicalDrive")}
    assert len(set(named.values())) == 1 or not named["/dev/sd"], named


@pytest.mark.parametrize("page", [ROOT / "README.md", *DOCS], ids=lambda p: p.name)
def test_a_users_command_is_one_line_that_every_shell_takes(page: Path) -> None:
    """PowerShell has no ``&&``, no backslash at a line's end, no single quotes that a program would not see."""
    lines = [
        line for block in blocks(page.read_text(encoding="utf-8"), "(?:|bash|console)") for line in block.splitlines()
    ]
    commands = [line for line in lines if line.lstrip("$ ").startswith("miniscope-xr ")]
    assert not [line for line in commands if re.search(r"&&|\\$|\$\(|='", line)]


@pytest.mark.parametrize("page", [ROOT / "README.md", *DOCS], ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


@pytest.mark.parametrize("name", ["layouts", "tools"])
def test_the_names_at_the_top_are_the_package(name: str) -> None:
    if not (ROOT / name).is_dir():
        pytest.skip("this checkout has no symbolic links")
    assert (ROOT / name).resolve() == (ROOT / "miniscope_xr" / name).resolve()
