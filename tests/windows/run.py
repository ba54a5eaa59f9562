"""Runs the test suite in an unmodified Windows Python, on a plain Debian machine.

    python tests/windows/run.py                     the whole suite, and a table of what passed, failed and was skipped
    python tests/windows/run.py tests/engine -x     part of it: what follows goes to pytest
    python tests/windows/run.py --home DIR          where the environment is kept (default: your cache folder)

The first run builds the environment (some minutes, apt and pip only); later ones reuse it. Test files run side by side,
one Wine drive for each worker. Exit code 0: all passed; 1: some failed; 3: the environment cannot be built here.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as xml
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

from build import ROOT, CannotBuildError, Environment

# They test Linux' own kernel, or need minutes of real time
NOT_HERE = ("tests/benchmarks", "tests/readers", "tests/measure", "tests/windows")
DISKS = "test_windows_disks.py"  # runs above simulated card readers
LIMIT = 900  # seconds for one test file


@dataclass
class Result:
    """What became of one test file."""

    file: str
    passed: int = 0
    failed: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    broken: str = ""


def files_below(wanted: list[str]) -> list[str]:
    """The test files below the given paths, largest first so that the last ones to finish are short."""
    files = {
        file
        for place in wanted or ["tests"]
        for file in ([ROOT / place] if (ROOT / place).is_file() else (ROOT / place).rglob("test_*.py"))
    }
    names = [f.relative_to(ROOT).as_posix() for f in sorted(files, key=lambda f: -f.stat().st_size)]
    return [name for name in names if not name.startswith(NOT_HERE)]


def read_report(file: str, report: Path) -> Result:
    """Read pytest's own report of one file."""
    result = Result(file)
    for case in xml.parse(report).getroot().iter("testcase"):
        outcome = case.find("skipped")
        if outcome is not None:
            result.skipped[re.sub(r"\d+", "N", outcome.get("message", ""))] += 1
        elif case.find("failure") is not None or case.find("error") is not None:
            result.failed.append(case.get("name", "?"))
        else:
            result.passed += 1
    return result


def run_file(environment: Environment, prefix: Path, file: str, words: list[str]) -> Result:
    """Run one test file under Wine."""
    report = prefix.parent / f"{prefix.name}.xml"
    report.unlink(missing_ok=True)
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", f"--junitxml=Z:{report}", *words]
    command = environment.command("-m", "pytest", file, *options)
    env = environment.environ(prefix)
    if Path(file).name == DISKS:
        readers = prefix.parent / f"{prefix.name}.disks"
        readers.write_bytes(b"")
        env["MINISCOPE_XR_DISKS"] = f"Z:{readers}".replace("/", "\\")
    # Piped, both ways: standard output straight to a file dies with WinError 6 under Wine
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=env, input="", capture_output=True, text=True,
            errors="replace", timeout=LIMIT,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Result(file, broken=f"not done after {LIMIT} s")
    if not report.is_file():
        print((done.stdout + done.stderr)[-3000:])
        return Result(file, broken=(done.stdout + done.stderr)[-1500:])
    result = read_report(file, report)
    if result.failed:
        print(done.stdout[-6000:])
    return result


def run_all(environment: Environment, files: list[str], words: list[str]) -> list[Result]:
    """Run the files side by side, each worker with a drive of its own."""
    prefixes: SimpleQueue[Path] = SimpleQueue()
    workers = min(os.cpu_count() or 1, len(files))
    for number in range(workers):
        prefix = environment.home / f"worker{number}"
        if not prefix.exists():
            shutil.copytree(environment.prefix, prefix, symlinks=True)
        prefixes.put(prefix)

    def one(file: str) -> Result:
        prefix = prefixes.get()
        try:
            result = run_file(environment, prefix, file, words)
        finally:
            prefixes.put(prefix)
        counts = f"{result.passed} passed, {len(result.failed)} failed, {result.skipped.total()} skipped"
        print(f"{file}: {counts}", flush=True)
        return result

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(one, files))


def table(results: list[Result]) -> str:
    """The results as a Markdown table: test file, passed, failed, skipped, why."""
    lines = ["| test file | passed | failed | skipped | why |", "| --- | --- | --- | --- | --- |"]
    for r in sorted(results, key=lambda r: r.file):
        why = "; ".join([r.broken, *r.failed, *(f"{n} x {reason}" for reason, n in r.skipped.items())]).strip("; ")
        why = why.replace("|", "/").replace("\n", " ")
        row = (r.file, r.passed, len(r.failed) + bool(r.broken), r.skipped.total(), why)
        lines.append(f"| {' | '.join(map(str, row))} |")
    return "\n".join(lines)


def main() -> int:
    """Build what is missing, run, and say what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser.add_argument("--home", type=Path, default=cache / "miniscope-xr" / "windows")
    arguments, words = parser.parse_known_args()
    places = [word for word in words if (ROOT / word.split("::")[0]).exists()]
    environment = Environment(arguments.home.resolve())
    try:
        environment.build()
    except CannotBuildError as error:
        print(f"SKIPPED: no Windows Python can be built here: {error}", file=sys.stderr)
        return 3
    results = run_all(environment, files_below(places), [word for word in words if word not in places])
    print(table(results))
    failed = sum(len(r.failed) + bool(r.broken) for r in results)
    skipped = sum(r.skipped.total() for r in results)
    print(f"Windows: {sum(r.passed for r in results)} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
