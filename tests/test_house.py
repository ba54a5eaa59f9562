"""The house as docs/architecture.md draws it: imports go one way (import-linter, in .ci/run) and stand at the top."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "miniscope_xr"
MODULES = sorted(PACKAGE.rglob("*.py"))

# imports of ours inside functions without a reason beside them: each is to go, nothing may be added
NO_REASON_YET = {
    "accessor.py", "sdcard.py",
    "tools/export/__init__.py", "tools/flash/disks/find.py",
    "tools/flash/target/linux.py",
}  # fmt: skip


def without_reason(path: Path) -> Iterator[str]:
    """Lines with an import of this package inside a function, and no comment on the line or above its block."""
    text = path.read_text().splitlines()
    for function in ast.walk(ast.parse("\n".join(text))):
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


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_an_import_inside_a_function_says_why(path: Path) -> None:
    found = list(without_reason(path))
    if path.relative_to(PACKAGE).as_posix() in NO_REASON_YET:
        assert found, "this module is done: take it off the list"
    else:
        assert found == []
