"""What became of each test file: read from pytest's own report, told in a table."""

from __future__ import annotations

import re
import xml.etree.ElementTree as xml
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from build import ROOT


@dataclass
class Result:
    """What became of one test file."""

    file: str
    passed: int = 0
    failed: list[str] = field(default_factory=list)  # as pytest names them
    again: list[str] = field(default_factory=list)  # those that passed when they were run again
    skipped: Counter[str] = field(default_factory=Counter)
    broken: str = ""
    seconds: float = 0.0

    @property
    def empty(self) -> bool:
        """True where the file has no test of the kind that was run."""
        return not (self.passed or self.failed or self.skipped or self.broken)


def read_report(report: Path) -> dict[str, Result]:
    """Read pytest's own report, by file."""
    found: dict[str, Result] = {}
    for case in xml.parse(report).getroot().iter("testcase"):
        # a file that could not be collected has its name in "name" alone
        place = (case.get("classname") or case.get("name", "")).split(".")
        last = next((n for n, part in enumerate(place) if part.startswith("test_")), len(place) - 1)
        file = "/".join(place[: last + 1]) + ".py"
        result = found.setdefault(file, Result(file))
        result.seconds += float(case.get("time", 0))
        outcome = case.find("skipped")
        if outcome is not None:
            whole_file = re.search(
                r"Skipped: (.*?)[\"']\)", outcome.text or ""
            )  # a file that skips itself says why there
            why = whole_file[1] if whole_file else outcome.get("message", "")
            result.skipped[re.sub(r"\d+", "N", why)] += 1
        elif case.find("failure") is not None or case.find("error") is not None:
            classes = place[last + 1 :]
            name = "::".join([file, *classes, case.get("name", "?")])
            if name not in result.failed:  # one that fails, and then in what it leaves behind, is told of twice
                result.failed.append(name)
        else:
            result.passed += 1
    return found


HEAD = "| test file | passed | skipped | why |\n| --- | --- | --- | --- |\n"


def row(r: Result) -> str:
    """One line of the table: test file, passed, skipped, why; a failure is in the last column."""
    failed = [f"FAILED: {name.partition('::')[2]}" for name in r.failed]
    failed += [f"passed when it was run again: {name.partition('::')[2]}" for name in r.again]
    reasons = [f"{n} x {reason}" for reason, n in sorted(r.skipped.items())]
    none = ["none of its tests are of this kind"] if r.empty else []
    why = "; ".join([r.broken, *failed, *reasons, *none]).strip("; ")
    why = why.replace("|", "/").replace("\n", " ")
    return f"| {r.file} | {r.passed} | {r.skipped.total()} | {why} |"


def put_into(page: Path, tier: str, results: list[Result], every: list[str]) -> None:
    """Put rows into the quick or slow tests' table of a page; those of other test files stay.

    ``every`` names all files there are: those that were never run are named, too.
    """
    begin, end = f"<!-- {tier} tests: written by tests/windows/run.py -->", f"<!-- end of the {tier} tests -->"
    before, _, rest = page.read_text(encoding="utf-8").partition(begin)
    old, _, after = rest.partition(end)
    rows = {line.split(" | ")[0].strip("| "): line for line in old.splitlines() if line.startswith("| tests/")}
    rows = {file: line for file, line in rows.items() if (ROOT / file).is_file()}
    rows.update({r.file: row(r) for r in results})
    missing = sorted(set(every) - set(rows))
    cells = [[cell.strip() for cell in line.split(" | ")] for line in rows.values()]
    total = f"{len(rows)} files, {_sum(cells, 1)} passed, {_sum(cells, 2)} skipped."
    total += f" Not run yet: {', '.join(missing)}." if missing else ""
    table = HEAD + "\n".join(line for _, line in sorted(rows.items()))
    page.write_text(f"{before}{begin}\n\n{total}\n\n{table}\n\n{end}{after}", encoding="utf-8")


def _sum(rows: list[list[str]], column: int) -> int:
    return sum(int(cells[column]) for cells in rows)
