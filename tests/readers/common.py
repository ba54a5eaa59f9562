"""Shared by the reader scripts, which run in environments that hold nothing of ours: numpy only.

A script is called with the folder of exports. It tells what it found as lines of JSON on stdout.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(sys.argv[1]).resolve()
TRUTH = dict(np.load(FOLDER / "truth.npz"))
"""video (frame, y, x), time in s and frame_num of every frame, fps."""
CHECKS: list[tuple[str, str, str, Callable[[], str]]] = []


class NotHereError(Exception):
    """A program of the system is not installed."""


def check(package: str, what: str, known: str = "") -> Callable[[Callable[[], str]], Callable[[], str]]:
    """Add a check; the function returns a few words about what was found, and asserts the rest.

    ``known`` is the version of a program that is no Python package.
    """

    def add(function: Callable[[], str]) -> Callable[[], str]:
        CHECKS.append((package, known, what, function))
        return function

    return add


def same_pixels(found: Any) -> None:
    """Assert that these are the frames of the card, bit for bit."""
    array = np.asarray(found)
    assert array.shape == TRUTH["video"].shape, f"shape {array.shape}, expected {TRUTH['video'].shape}"
    assert (array == TRUTH["video"]).all(), f"{(array != TRUTH['video']).any(axis=(1, 2)).sum()} frames differ"


def session(name: str = "daq") -> Path:
    """The one session in a Miniscope-DAQ folder; ``both`` has a behaviour camera too."""
    (found,) = (FOLDER / name).glob("*/*")
    return found


def main() -> None:
    """Run all checks of a script."""
    for package, known, what, function in CHECKS:
        try:
            known = known or version(package)
        except PackageNotFoundError:
            known = "?"
        try:
            said, good = function(), True
        except NotHereError as error:
            said, good = f"not run: {error}", None
        except Exception as error:
            said, good = f"{type(error).__name__}: {error}".split("\n")[0][:300], False
            traceback.print_exc()
        print(json.dumps({"package": package, "version": known, "what": what, "said": said, "good": good}), flush=True)
