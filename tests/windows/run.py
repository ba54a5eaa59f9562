"""Runs the test suite in an unmodified Windows Python, on a plain Debian machine.

    python tests/windows/run.py                     the quick tests, and a table of what passed, failed and was skipped
    python tests/windows/run.py --slow              the slow ones, which take hours: with the quick ones these are all
    python tests/windows/run.py --table docs/windows.md        either, and its rows are put into that page's tables
    python tests/windows/run.py --short             open, read, video, export and the life of one raw disk
    python tests/windows/run.py tests/engine -x     part of it: what follows goes to pytest
    python tests/windows/run.py --home DIR          where the environment is kept (default: your cache folder)

The first run builds the environment (some minutes, apt and pip only); later ones reuse it, and know how long each test
file takes. One process a core runs, each with a Wine drive of its own; a second run.py waits for the first. What fails
is run once more, as Wine does not begin every program: the table tells what passed then. Exit code 0: all passed; 1:
some failed; 3: the environment cannot be built here.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import SimpleQueue
from threading import Event

from build import ROOT, CannotBuildError, Environment
from results import HEAD, Result, put_into, read_report, row

# They test Linux' own kernel, the pages' browser on Linux, or need minutes of real time
NOT_HERE = ("tests/benchmarks", "tests/readers", "tests/measure", "tests/windows")
DISKS = "test_windows_disks.py"  # runs above simulated card readers
CARD = 16 << 20  # bytes of the one that is a loop device
SHORT = [
    "tests/test_readme.py::test_the_python_of_the_readme_runs",
    "tests/cards/test_reading.py::test_padding_and_remote_stop_are_not_frames",
    "tests/faces/test_sdcard.py::test_to_video_is_exact_and_kept",
    "tests/tools/test_export.py::TestZarr::test_gives_back_the_dataset",
    "tests/tools/test_export.py::TestTiff::test_headers_lie_beside_it",
    "tests/source/test_words.py::test_what_to_type_for_a_card_as_it_is_sold",
    "tests/flash/test_windows_disks.py::test_a_whole_life[a letter]",
]
ENDED = Event()  # somebody ends this, as `timeout` does
NO_REPORT = "ended without a report"
NO_TESTS = 5  # pytest's exit code where there are none of the kind that was asked for
AGAIN = 3  # failed tests of one process that are run once more: if it is more, it is not by chance
TOGETHER = 90  # seconds: files that take less together share a process, which needs ten to begin
PROCESSES = 16  # more than these are not begun for all that is known to take its time: that may have been a busy day


def files_below(wanted: list[str]) -> list[str]:
    """The test files below the given paths, or tests where they are named one by one."""
    files = {
        file.relative_to(ROOT).as_posix()
        for place in wanted or ["tests"]
        if "::" not in place
        for file in ([ROOT / place] if (ROOT / place).is_file() else (ROOT / place).rglob("test_*.py"))
    }
    return sorted(f for f in files if not f.startswith(NOT_HERE)) + [place for place in wanted if "::" in place]


def of_tier(tier: str, files: list[str]) -> list[str]:
    """Those of them that may have quick, or slow, tests."""
    if tier == "quick":
        return files
    return [file for file in files if "::" in file or "mark.slow" in (ROOT / file).read_text(encoding="utf-8")]


def batches(files: list[str], seconds: dict[str, float]) -> list[list[str]]:
    """What each process runs: those that take long first and alone, short ones together."""
    found: list[list[str]] = []
    together = max(TOGETHER, sum(seconds.get(file, 0) for file in files) / PROCESSES)
    takes_now = {file: seconds.get(file, 10 * together if DISKS in file else together) for file in files}
    room = 0.0
    for file in sorted(files, key=lambda f: -takes_now[f]):
        takes = takes_now[file]
        if takes > room or DISKS in file:
            found.append([])
            room = together
        found[-1].append(file)
        room -= takes
    return found


def run_batch(environment: Environment, prefix: Path, files: list[str], words: list[str], limit: int) -> list[Result]:
    """Run some test files in one process, of at most ``limit`` seconds; what fails is run once more.

    Wine 8 now and then does not begin a program (WinError 1359). The table tells what passed the second time only.
    """
    results = run_once(environment, prefix, files, words, limit)
    if any(r.broken == NO_REPORT for r in results) and not ENDED.is_set():
        print(f"once more: {' '.join(files)}", flush=True)
        return run_once(environment, prefix, files, words, limit)
    failed = [name for r in results for name in r.failed if "::" in name]
    if 0 < len(failed) <= AGAIN and not ENDED.is_set():
        print(f"once more: {' '.join(failed)}", flush=True)
        for second in run_once(environment, prefix, failed, words, limit):
            r = next(r for r in results if r.file == second.file)
            if second.passed + len(second.failed) == len(r.failed):
                r.again = [name for name in r.failed if name not in second.failed]
                r.failed, r.passed = second.failed, r.passed + second.passed
    return results


def run_once(environment: Environment, prefix: Path, files: list[str], words: list[str], limit: int) -> list[Result]:
    """Run some test files in one process under Wine, of at most ``limit`` seconds."""
    report = prefix.parent / f"{prefix.name}.xml"
    report.unlink(missing_ok=True)
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", f"faulthandler_timeout={limit // 2}"]
    options += [f"--junitxml=Z:{report}", *words]
    command = environment.command("-m", "pytest", *files, *options)
    env = environment.environ(prefix) | {"MINISCOPE_XR_SHARE": new_share(prefix)}
    if any(DISKS in file for file in files):
        readers = prefix.parent / f"{prefix.name}.disks"
        readers.write_bytes(b"")
        env["MINISCOPE_XR_DISKS"] = f"Z:{readers}".replace("/", "\\")
        with loop_device(prefix.parent / f"{prefix.name}.card") as loop:
            env["MINISCOPE_XR_LOOP"] = f"Z:{loop}".replace("/", "\\") if loop else ""
            return run_pytest(environment, prefix, files, command, env, limit)
    return run_pytest(environment, prefix, files, command, env, limit)


def new_share(prefix: Path) -> str:
    r"""Make an empty folder of another computer, as Windows' programs see it: ``\\nas\lab``."""
    share = prefix / "dosdevices" / "unc" / "nas" / "lab"
    shutil.rmtree(share, ignore_errors=True)
    share.mkdir(parents=True)
    return r"\\nas\lab"


def put_powershell(environment: Environment, prefix: Path) -> None:
    """Put the simulated one where Windows has its own; Wine's does nothing."""
    place = prefix / "drive_c/windows/system32/WindowsPowerShell/v1.0"
    place.mkdir(parents=True, exist_ok=True)
    new = place / "new.exe"  # a process that was left may have the old one open
    shutil.copyfile(environment.python / "powershell.exe", new)
    new.replace(place / "powershell.exe")


@contextlib.contextmanager
def loop_device(file: Path) -> Iterator[str]:
    """Attach a loop device of a card's size, for as long as this lasts; empty where that needs other rights."""
    with file.open("wb") as card:
        card.truncate(CARD)
    command, loop = ["losetup", "--find", "--show", str(file)], ""
    if shutil.which(command[0]):
        # as tests/flash/loops.py does: a test beside this may have given up a number for a moment
        with Path(tempfile.gettempdir(), "miniscope-xr-loops.lock").open("w") as alone:
            fcntl.flock(alone, fcntl.LOCK_EX)
            loop = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    try:
        yield loop
    finally:
        if loop:
            subprocess.run(["losetup", "--detach", loop], check=False)
        file.unlink()


def run_pytest(
    environment: Environment, prefix: Path, files: list[str], command: list[str], env: dict[str, str], limit: int
) -> list[Result]:
    """Run this command, and read pytest's report."""
    report = prefix.parent / f"{prefix.name}.xml"
    # Piped, both ways: standard output straight to a file dies with WinError 6 under Wine
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=env, input="", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace", timeout=limit,
        )  # fmt: skip
    except subprocess.TimeoutExpired as late:
        said = late.stdout or b""  # bytes, whatever was asked for
        keep_output(environment, files, said if isinstance(said, str) else said.decode(errors="replace"))
        return [Result(file, broken=f"not done after {limit} s") for file in files]
    finally:
        for left in prefix.glob("drive_c/users/*/Temp/*"):
            shutil.rmtree(left, ignore_errors=True)
    found = {file.split("::")[0]: Result(file.split("::")[0]) for file in files}
    if report.is_file():
        found |= read_report(report)
    failed = any(result.failed for result in found.values())
    told = report.is_file() and (failed or done.returncode in (0, NO_TESTS))
    if failed or not told:
        keep_output(environment, files, done.stdout)
    if not told:
        return [Result(file, broken=NO_REPORT) for file in files]
    return list(found.values())


def keep_output(environment: Environment, files: list[str], said: str) -> None:
    """Keep all that a process said, and show its end."""
    file = environment.home / "output" / f"{Path(files[0].split('::')[0]).stem}.txt"
    file.parent.mkdir(exist_ok=True)
    file.write_text(said, encoding="utf-8")
    print(f"{said[-6000:]}\n(all of it: {file})", flush=True)


def run_all(
    todo: list[list[str]], jobs: int, one_batch: Callable[[Path, list[str]], list[Result]], environment: Environment,
    done: Callable[[list[Result]], None],
) -> list[Result]:  # fmt: skip
    """Run the batches side by side, each worker with a drive of its own; ``done`` is told of each batch."""
    prefixes: SimpleQueue[Path] = SimpleQueue()
    workers = min(jobs, len(todo))
    for number in range(workers):
        prefix = environment.home / f"worker{number}"
        if not prefix.exists():
            shutil.copytree(environment.prefix, prefix, symlinks=True)
        put_powershell(environment, prefix)
        prefixes.put(prefix)

    def one(files: list[str]) -> list[Result]:
        prefix = prefixes.get()
        try:
            return one_batch(prefix, files)
        finally:
            prefixes.put(prefix)

    found = []
    pool = ThreadPoolExecutor(workers)
    try:
        for future in as_completed([pool.submit(one, files) for files in todo]):
            results = future.result()
            for r in (r for r in results if not r.empty):
                counts = f"{r.passed} passed, {len(r.failed) + bool(r.broken)} failed, {r.skipped.total()} skipped"
                print(f"{r.file}: {counts}, {r.seconds:.0f} s", flush=True)
            done(results)
            found += results
    finally:
        pool.shutdown(cancel_futures=True)
    return found


def remember(file: Path, results: list[Result]) -> None:
    """Keep how long each test file took, for the next run's order."""
    known = json.loads(file.read_text()) if file.is_file() else {}
    known.update({r.file: round(r.seconds, 1) for r in results if not r.broken})
    file.write_text(json.dumps(known, indent=1))


def end(*_: object) -> None:
    """End with those that were begun: ``timeout`` tells them, too."""
    ENDED.set()
    raise SystemExit(143)


def main() -> int:
    """Build what is missing, run, and say what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser.add_argument("--home", type=Path, default=cache / "miniscope-xr" / "windows")
    parser.add_argument("--short", action="store_true", help="a few tests of everything")
    parser.add_argument("--slow", action="store_true", help="the slow tests, without the quick ones")
    parser.add_argument("--limit", type=int, default=1800, metavar="S", help="seconds for one process")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes side by side")
    parser.add_argument("--table", type=Path, metavar="PAGE", help="a Markdown page with the tables' marks")
    arguments, words = parser.parse_known_args()
    places = [word for word in words if (ROOT / word.split("::")[0]).exists()]
    environment = Environment(arguments.home.resolve())
    start = time.monotonic()
    signal.signal(signal.SIGTERM, end)
    environment.home.parent.mkdir(parents=True, exist_ok=True)
    only = environment.home.with_name(f"{environment.home.name}.lock").open("w")
    fcntl.flock(only, fcntl.LOCK_EX)  # until this process ends: one checkout at a time is installed there
    try:
        environment.build()
    except CannotBuildError as error:
        print(f"SKIPPED: no Windows Python can be built here: {error}", file=sys.stderr)
        return 3
    tier = "slow" if arguments.slow else "quick"
    times = environment.home / f"{tier}.json"
    seconds = json.loads(times.read_text()) if times.is_file() else {}
    files = of_tier(tier, files_below(places))
    todo = [SHORT] if arguments.short else batches(files, seconds)
    built = time.monotonic()

    chosen = [] if arguments.short else ["-m", "slow" if arguments.slow else "not slow"]
    pytest_words = [*chosen, *(word for word in words if word not in places)]

    def one_batch(prefix: Path, files: list[str]) -> list[Result]:
        return run_batch(environment, prefix, files, pytest_words, arguments.limit)

    def keep(some: list[Result]) -> None:
        if whole:
            remember(times, some)
        if whole and arguments.table:
            put_into(arguments.table, tier, some, of_tier(tier, files_below([])))

    whole = not arguments.short and all("::" not in place for place in places)
    results = run_all(todo, arguments.jobs, one_batch, environment, keep)
    print(HEAD + "\n".join(row(r) for r in sorted(results, key=lambda r: r.file) if not r.empty))
    failed = sum(len(r.failed) + bool(r.broken) for r in results)
    skipped = sum(r.skipped.total() for r in results)
    took = f"{built - start:.0f} s to build, {time.monotonic() - built:.0f} s to run"
    print(f"Windows: {sum(r.passed for r in results)} passed, {failed} failed, {skipped} skipped; {took}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
