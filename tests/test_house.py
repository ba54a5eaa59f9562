"""The house as docs/architecture.md draws it: imports go one way (import-linter, in .ci/run) and stand at the top."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "miniscope_xr"
MODULES = sorted(PACKAGE.rglob("*.py"))


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


def test_an_import_inside_a_function_says_why() -> None:
    assert [line for path in MODULES for line in without_reason(path)] == []
