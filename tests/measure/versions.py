"""Run the quick tests on the lowest versions this project promises and on the newest Python.

One command, which needs uv (``pip install uv``) and the network; environments are made in a temporary folder::

    python tests/measure/versions.py            # lowest, then newest
    python tests/measure/versions.py lowest     # one of them
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# what is asked of uv: every direct dependency at its lower bound on the oldest Python, or everything new on the newest
SETS = {
    "lowest": ("3.11", ["--resolution", "lowest-direct"]),
    "newest": ("3.14", ["--upgrade"]),
}


def run(command: list[str], **options: object) -> int:
    print("+", " ".join(command), flush=True)
    return subprocess.run(command, cwd=ROOT, check=False, **options).returncode  # type: ignore[call-overload,no-any-return]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", choices=[[], *SETS], help="default: both")
    parser.add_argument("--python", help="another Python for the set named, for example 3.13")
    args = parser.parse_args()
    failed = []
    for name in args.sets or SETS:
        python, options = SETS[name]
        with tempfile.TemporaryDirectory(prefix=f"miniscope-{name}-") as folder:
            inside = Path(folder) / ("Scripts" if os.name == "nt" else "bin") / "python"
            code = (
                run(["uv", "venv", "--quiet", "--clear", "--python", args.python or python, folder])
                or run(["uv", "pip", "install", "--quiet", "--python", str(inside), *options, "-e", ".[test]"])
                or run([str(inside), "-m", "pytest", "-q", "-n", "auto", "-m", "not slow", "-p", "no:cacheprovider"])
            )
        print(f"{name}: {'failed' if code else 'passed'}", flush=True)
        failed += [name] if code else []
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
