"""The house as docs/architecture.md draws it: imports go one way (import-linter, in .ci/run) and stand at the top."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "miniscope_xr"
MODULES = sorted(PACKAGE.rglob("*.py"), key=lambda path: (path.parent, path.name))
PAGE = PACKAGE.parent / "docs" / "modules.md"


def without_reason(path: Path) -> Iterator[str]:
    """Lines with an import of this package inside a function, and no comment on the line or above its block."""
    source = path.read_text()
    if not re.search(r"^ +from miniscope_xr", source, re.MULTILINE):
        return  # most modules, which need no parsing
    text = source.splitlines()
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for node in ast.walk(function):
            if not isinstance(node, ast.ImportFrom) or not str(node.module).startswith("miniscope_xr"):
                continue
            above = node.lineno - 2
            while text[above].lstrip().startswith(("from ", "import ")):
                above -= 1
            if "#" not in text[node.lineno - 1] and not text[above].lstrip().startswith("#"):
                yield f"{path.relative_to(PACKAGE)}:{node.lineno}: {text[node.lineno - 1].strip()}"


def module_list() -> str:
    """Every module with the first line of its docstring: docs/modules.md."""
    lines = ["# Every module in a line", "", "Written by `python -m tests.test_house`, from the modules themselves."]
    room = Path()
    for path in MODULES:
        module = path.relative_to(PACKAGE)
        said = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]
        if module.name == "__init__.py":
            room = module.parent
            lines += ["", f"## {room.as_posix()}/" if room.parts else "## miniscope_xr/", "", said, ""]
        else:
            lines.append(f"- `{module.relative_to(room) if room in module.parents else module.as_posix()}`: {said}")
    return "\n".join(lines) + "\n"


def test_an_import_inside_a_function_says_why() -> None:
    assert [line for path in MODULES for line in without_reason(path)] == []


def test_every_module_stands_in_the_list() -> None:
    assert PAGE.read_text() == module_list(), "python -m tests.test_house writes it again"


if __name__ == "__main__":
    PAGE.write_text(module_list())
